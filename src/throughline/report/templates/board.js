(() => {
  "use strict";
  const one = (query) => document.querySelector(query);
  const form = one("form.tools"), body = one("tbody"), rows = [...body.rows], headers = [...document.querySelectorAll("th[data-key]")];
  const status = one(".status"), none = one(".none"), plain = (text) => text.toLowerCase().replace(/[_\s]+/g, " ");
  const words = new Map(rows.map((row) => [row, plain(row.textContent + " " + row.dataset.verdict)]));

  const chips = [...document.querySelectorAll(".tally li")].map((item) => {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.verdict = item.dataset.verdict;
    button.setAttribute("aria-pressed", "false");
    button.append(...item.childNodes);
    item.append(button);
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") === "false");
      show();
    });
    return button;
  });
  const pressed = () => chips.filter((chip) => chip.getAttribute("aria-pressed") === "true").map((chip) => chip.dataset.verdict);

  function show() {
    const wanted = plain(form.q.value).trim().split(" "), verdicts = pressed(), area = form.area.value;
    let count = 0;
    for (const row of rows) {
      const fits = (!area || row.dataset.area === area) && (!verdicts.length || verdicts.includes(row.dataset.verdict));
      row.hidden = !(fits && wanted.every((word) => words.get(row).includes(word)));
      count += !row.hidden;
    }
    status.textContent = `${count} of ${rows.length} claim${rows.length === 1 ? "" : "s"} shown`;
    none.hidden = count > 0;
    const state = new URLSearchParams();
    if (form.q.value) state.set("q", form.q.value);
    if (area) state.set("area", area);
    for (const verdict of verdicts) state.append("verdict", verdict);
    history.replaceState(null, "", "#" + state);
  }

  function restore() {
    const state = new URLSearchParams(location.hash.slice(1));
    form.q.value = state.get("q") ?? "";
    form.area.value = state.get("area") ?? "";
    if (form.area.selectedIndex < 0) form.area.value = "";
    for (const chip of chips) chip.setAttribute("aria-pressed", state.getAll("verdict").includes(chip.dataset.verdict));
    show();
  }

  function sort(header) {
    const place = header.cellIndex, numeric = header.classList.contains("num") && header.dataset.key !== "version" && header.dataset.key !== "date";
    const up = header.hasAttribute("aria-sort") ? header.getAttribute("aria-sort") !== "ascending" : header.dataset.key !== "date";
    const value = (row) => row.cells[place].dataset.value;
    const compare = (a, b) => numeric ? a - b : a.localeCompare(b, "en", { numeric: true });
    rows.sort((one, other) => {
      const [a, b] = [value(one), value(other)];
      if (!a || !b) return !a - !b;
      return up ? compare(a, b) : compare(b, a);
    });
    for (const each of headers) each.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", up ? "ascending" : "descending");
    body.append(...rows);
  }

  for (const header of headers) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => sort(header));
  }
  for (const row of rows) {
    const link = row.querySelector("th a");
    if (!link) continue;
    row.dataset.open = "";
    row.addEventListener("click", (event) => {
      if (!event.target.closest("a") && !getSelection().toString()) link.click();
    });
  }
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => { history.replaceState(null, "", "#"); setTimeout(restore); });
  addEventListener("hashchange", restore);
  form.hidden = false;
  restore();
})();
