"""The board as a reader has it, in a real browser: to search, filter, sort and open, by mouse, keyboard and ear."""

import shutil
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from tests.report.board.invented import check, finding, leave

from throughline.report.board import write_board

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="the board's tests in a browser were left out: no playwright"
)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("the board's tests in a browser were left out: no chromium", allow_module_level=True)
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
EFFECTS = "Effects and their intervals"
LONG = "a_name_that_goes_on_" * 12
FINDINGS = (
    finding("groco", "held", day=1, seeds=[*range(1000, 1010)], duration=3_600.0),
    finding("anyloss", "refuted", day=2, seeds=[1, 2, 3], duration=20.0, checks=[check("refuted", -1.5)]),
    finding(
        "tell", "not shown", day=3, claim="A bold <script>alert(1)</script><b>claim</b> of clusters", duration=None
    ),
    finding("spon", "incomplete", day=4, why="3 of 30 units are done", checks=[]),
    finding("stn", "no verdict", day=5, scale="smoke", seeds=[1, 2], duration=0.5),
    finding(
        LONG,
        "held",
        day=6,
        command=f"throughline run {LONG} --set {LONG}={LONG}",
        versions={"throughline": "1.0.0rc1.dev12+g1234567"},
        checks=[
            check(sentence=f"{LONG} beats {LONG} in {LONG}", estimate=1.234e-9, low=-5.678e-9, high=9.123e9),
            check(estimate=None),
            check(low=None, high=None),
        ],
    ),
)
CONTRAST = """() => {
  const channel = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const read = (color) => color.match(/[\\d.]+/g).map(Number);
  const ground = (element) => {
    for (; element; element = element.parentElement) {
      const color = read(getComputedStyle(element).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return read(getComputedStyle(document.body).backgroundColor);
  };
  const found = [];
  for (const element of document.querySelectorAll("main *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.checkVisibility() || ["SCRIPT", "OPTION"].includes(element.tagName)) continue;
    const [a, b] = [light(read(getComputedStyle(element).color)), light(ground(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    found.push([ratio, `${element.tagName} ${element.className}: ${element.textContent.trim().slice(0, 30)}`]);
  }
  return found.sort((a, b) => a[0] - b[0]);
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("board")
    for found in FINDINGS:
        leave(folder / "runs", found.model_copy(update={"paper": found.paper[:60]}))  # a folder's name has an end
    return write_board(folder / "runs", folder / "board", print).as_uri()


@pytest.fixture(scope="module")
def tab(browser: Any) -> Any:
    """One window for all tests, with the list of what its pages said on the console or asked of the network."""
    page, wrong = browser.new_page(), []
    page.set_default_timeout(60_000)  # a machine may be busy
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(dialog.message) or dialog.dismiss())
    page.on("request", lambda asked: None if asked.url.startswith(("file:", "data:")) else wrong.append(asked.url))
    return page, wrong


@pytest.fixture
def view(tab: Any, board: str) -> Iterator[Any]:
    """Opens the board afresh; an error on the console, a dialog or a request to anywhere fails the test."""
    page, wrong = tab

    def opened(state: str = "", *, width: int = 1280, scheme: str = "light") -> Any:
        page.set_viewport_size({"width": width, "height": 844})
        page.emulate_media(color_scheme=scheme, media="screen")
        page.goto("about:blank")
        page.goto(board + state)
        return page

    yield opened
    told = [*wrong]
    wrong.clear()
    assert not told


def shown(page: Any) -> list[str]:
    """The slugs of the rows that can be seen, from the top."""
    return [
        slug[:12] for slug in page.locator("tbody tr:visible th").evaluate_all("all => all.map(e => e.dataset.value)")
    ]


def said(page: Any) -> str:
    return str(page.get_by_role("status").inner_text())


EVERY = ["a_name_that_", "stn", "spon", "tell", "anyloss", "groco"]  # the latest first


def test_search_as_one_types(view: Any) -> None:
    page = view()
    assert (shown(page), said(page)) == (EVERY, "6 of 6 claims shown")
    page.get_by_role("searchbox", name="Search").type("CLAIM  clus")
    assert (shown(page), said(page)) == (["tell"], "1 of 6 claims shown")
    page.get_by_role("searchbox").fill(
        "some_metric refuted"
    )  # names are found as they are written, and as they are shown
    assert shown(page) == ["anyloss"]
    page.get_by_role("searchbox").fill("nothing like it")
    assert shown(page) == []
    assert page.get_by_text("No claim matches.").is_visible()
    page.get_by_role("button", name="Show all").click()
    page.wait_for_function("document.querySelectorAll('tbody tr[hidden]').length === 0")
    assert (shown(page), page.get_by_role("searchbox").input_value()) == (EVERY, "")


def test_filter_by_area_and_verdict(view: Any) -> None:
    page = view()
    page.get_by_label("Area").select_option("discrete")
    assert shown(page) == ["tell", "anyloss", "groco"]
    held, refuted = (page.get_by_role("button", name=name) for name in ("2 held", "1 refuted"))
    held.click()
    assert (shown(page), held.get_attribute("aria-pressed")) == (["groco"], "true")
    refuted.click()
    assert shown(page) == ["anyloss", "groco"]
    held.click()
    assert (shown(page), held.get_attribute("aria-pressed")) == (["anyloss"], "false")
    page.get_by_label("Area").select_option("your own")
    assert shown(page) == []


def test_the_address_keeps_what_is_shown(view: Any) -> None:
    page = view()
    page.get_by_label("Area").select_option("discrete")
    page.get_by_role("button", name="not shown").click()
    page.get_by_role("searchbox").fill("bold")
    page.reload()
    assert shown(page) == ["tell"]
    assert page.get_by_role("searchbox").input_value() == "bold"
    other = view("#verdict=held&area=nowhere&verdict=refuted")
    assert shown(other) == ["a_name_that_", "anyloss", "groco"]


def test_sort_by_any_column(view: Any) -> None:
    page = view()

    def by(column: str) -> tuple[list[str], str | None]:
        header = page.get_by_role("columnheader", name=column)
        header.get_by_role("button").click()
        return shown(page), header.get_attribute("aria-sort")

    assert by("Claim") == (["a_name_that_", "anyloss", "groco", "spon", "stn", "tell"], "ascending")
    assert by("Claim") == (["tell", "stn", "spon", "groco", "anyloss", "a_name_that_"], "descending")
    assert by("Seeds")[0][::5] == ["stn", "groco"]
    assert by("Seeds")[0][::5] == ["groco", "stn"]
    assert by("Duration") == (["stn", "anyloss", "spon", "a_name_that_", "groco", "tell"], "ascending")
    assert by("Duration")[0] == [
        "groco",
        "a_name_that_",
        "spon",
        "anyloss",
        "stn",
        "tell",
    ]  # what is missing stays last
    assert by("Verdict")[0] == ["groco", "a_name_that_", "anyloss", "tell", "spon", "stn"]
    assert by("Version")[0][-1] == "a_name_that_"
    assert by("Scale")[0][-1] == "stn"
    assert by("Date") == (EVERY, "descending")
    assert by("Date") == (EVERY[::-1], "ascending")
    assert page.locator("[aria-sort]").count() == 1


def test_a_row_opens_its_report(view: Any) -> None:
    page = view()
    page.get_by_role("link", name="groco").click()
    assert page.title() == "The report of 20261101-120000-abcdef"
    page.go_back()
    page.locator("tr", has_text="anyloss").locator("time").click()
    page.wait_for_url("**/reports/anyloss/*.html")
    assert page.title() == "The report of 20261102-120000-abcdef"


def test_text_stays_text(view: Any) -> None:
    page = view()
    assert page.locator("tbody").get_by_text("A bold <script>alert(1)</script><b>claim</b> of clusters").count() == 1
    assert page.locator("tbody script, tbody .claim b").count() == 0


def test_every_text_has_contrast_in_both_schemes(view: Any) -> None:
    page = view()
    page.get_by_role("button", name="1 refuted").click()
    page.locator("tbody tr:visible").hover()
    for scheme, ground in (("light", "rgb(255, 255, 255)"), ("dark", "rgb(20, 23, 27)")):
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == ground
        assert page.evaluate("getComputedStyle(document.querySelector('tr:hover')).backgroundColor") != ground
        for wanted in ("", "verdict=refuted"):
            page.evaluate(f"location.hash = '{wanted}'")
            found = page.evaluate(CONTRAST)
            assert len(found) > 30
            assert found[0][0] >= 4.5, found[0]


def test_nothing_scrolls_sideways(view: Any) -> None:
    page = view()
    wide = "e => e.checkVisibility() && e.getBoundingClientRect().right > innerWidth"
    for width in (320, 390, 768, 1060, 1280, 1600):
        page.set_viewport_size({"width": width, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate(f"[...document.querySelectorAll('main *')].filter({wide}).map(e => e.outerHTML)") == []


def test_a_screen_reader_finds_a_table(view: Any) -> None:
    for width in (1280, 390):  # on a phone rows are laid out as cards, and stay rows
        page = view(width=width)
        session = page.context.new_cdp_session(page)
        tree = [node for node in session.send("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]]
        heard = Counter(node["role"]["value"] for node in tree)
        assert [heard[role] for role in ("table", "rowheader", "gridcell", "cell")] == [1, 6, 0, 6 * 7]
        assert (heard["row"], heard["columnheader"]) == (7, 8)
        names = [node["name"]["value"] for node in tree if node["role"]["value"] == "columnheader"]
        assert names == ["Claim", "Verdict", EFFECTS, "Seeds", "Scale", "Duration", "Date", "Version"]
        table = page.get_by_role("table", name="Claims and their verdicts")
        assert table.get_by_role("row").filter(has_text="refuted: ours beats theirs in some metric").count() == 1
        assert page.locator("svg:not([aria-hidden])").count() == 0  # what a drawing shows, its figures say
        assert page.get_by_role("status").get_attribute("aria-live") == "polite"


def test_it_is_used_by_keyboard(view: Any) -> None:
    page = view()
    focused = "(e => `${e.tagName} ${e.name || e.textContent.trim()}`)(document.activeElement)"
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    reached = []
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(focused))
        assert page.evaluate(outline) != "none", reached[-1]
        if reached[-1] == "BUTTON Claim":
            page.keyboard.press("Enter")
    assert reached[:2] == ["A Feed of new verdicts", "BUTTON 2 held"]
    for stop in ("INPUT q", "SELECT area", "BUTTON Show all", "BUTTON Verdict", "A anyloss"):
        assert stop in reached
    assert page.get_by_role("columnheader", name="Claim").get_attribute("aria-sort") == "ascending"
    page.get_by_role("link", name="anyloss").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/reports/anyloss/*.html")


def test_it_is_a_plain_table_without_javascript(browser: Any, board: str) -> None:
    page = browser.new_page(java_script_enabled=False)
    page.goto(board)
    assert page.locator("tbody tr").count() == len(FINDINGS)
    assert page.locator("button:visible, input:visible, select:visible").count() == 0
    counted = " ".join(page.locator(".tally").inner_text().split())
    colors = page.evaluate(
        "[...document.querySelectorAll('.tally li')].slice(0, 3).map(e => getComputedStyle(e).color)"
    )
    assert len({*colors, page.evaluate("getComputedStyle(document.body).color")}) == 4
    assert counted == "2 held 1 refuted 1 not shown 1 incomplete 1 no verdict"
    assert page.get_by_role("columnheader", name="Date").get_attribute("aria-sort") == "descending"
    page.get_by_role("link", name="groco").click()
    assert page.url.endswith("/reports/groco/20261101-120000-abcdef.html")


def test_it_prints_the_table_and_not_the_tools(view: Any) -> None:
    page = view(scheme="dark")
    page.emulate_media(media="print")
    assert not page.locator("form").is_visible()
    assert page.locator("tbody tr:visible").count() == len(FINDINGS)
    assert page.evaluate("getComputedStyle(document.querySelector('thead')).display") == "table-header-group"
    page.set_viewport_size({"width": 720, "height": 1000})  # A4: rows are cards, and nothing is left to sort by
    assert not page.locator("thead").is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate(CONTRAST)[0][0] >= 4.5
