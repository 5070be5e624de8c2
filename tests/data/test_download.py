"""Downloads from a server of our own, and mirrors with every defect that a file can have."""

import csv
import hashlib
import http.server
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from throughline.data import DataError, describe, entries, fetch, locate, verify
from throughline.data.download import resolve
from throughline.errors import ThroughlineError

CONTENT = b"a,b\n" * 5000


class Server(http.server.ThreadingHTTPServer):
    files: dict[str, bytes]
    asked: list[str]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        time.sleep(0.05)  # long enough for two fetches to meet
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if "cut" in self.path else content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server(("127.0.0.1", 0), Handler) as httpd:
        httpd.files, httpd.asked = {}, []
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield httpd
        httpd.shutdown()
        thread.join()


def address(server: Server, path: str) -> str:
    return f"http://127.0.0.1:{server.server_port}{path}"


def read_only(folder: Path) -> None:
    for parent, _, _ in os.walk(folder):
        Path(parent).chmod(0o555)


def test_the_registry_is_complete_and_unambiguous() -> None:
    assert len({entry.key for entry in entries()}) == len(entries()) == 67
    for entry in entries():
        assert entry.size > 0
        assert len(bytes.fromhex(entry.sha256)) == 32
        assert entry.url.startswith("https://")
        assert entry.licence
        assert entry.what
        assert not Path(entry.key).is_absolute()
        assert ".." not in Path(entry.key).parts


def test_a_registered_mirror_agrees_with_the_registry() -> None:
    listed = Path(os.environ.get("THROUGHLINE_DATA", "")) / "registry.csv"
    if listed.is_file():
        rows = list(csv.reader(listed.read_text().splitlines()))[1:]
        assert rows == [[e.key, e.sha256, str(e.size), e.url, e.licence, e.what] for e in entries()]


def test_fetches_a_true_file_of_the_registry() -> None:
    path = fetch("tabular/haberman.csv")  # from the mirror or from its URL: never skipped
    assert hashlib.sha256(path.read_bytes()).hexdigest().startswith("b4b7a32586a5")
    assert path.read_text().startswith("30,64,1,1\n")


def test_the_mirror_is_used_without_a_connection(mirror: Path, register) -> None:
    register("sets/a.csv", CONTENT)
    read_only(mirror)
    assert fetch("sets/a.csv") == mirror / "sets/a.csv"
    assert sorted(file.name for file in mirror.rglob("*")) == ["a.csv", "sets"]


def test_downloads_into_the_named_folder(mirror: Path, register, server: Server) -> None:
    server.files["/a"] = CONTENT
    register("sets/deep/a.csv", CONTENT, url=address(server, "/a"), store=False)
    assert locate("sets/deep/a.csv") == mirror / "sets/deep/a.csv"
    assert verify() == {"sets/deep/a.csv": "missing"}
    path = fetch("sets/deep/a.csv")
    assert path == mirror / "sets/deep/a.csv"
    assert path.read_bytes() == CONTENT
    assert path.stat().st_mode & 0o444 == 0o444  # others may read a shared cache
    assert fetch("sets/deep/a.csv") == path
    assert server.asked == ["/a"]
    assert verify() == {"sets/deep/a.csv": "ok"}


def test_a_folder_that_does_not_exist_yet_is_made(
    tmp_path: Path, register, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["/a"] = CONTENT
    register("a.csv", CONTENT, url=address(server, "/a"), store=False)
    monkeypatch.setenv("THROUGHLINE_DATA", str(tmp_path / "new" / "folder"))
    assert fetch("a.csv") == tmp_path / "new" / "folder" / "a.csv"


@pytest.mark.parametrize("variable", ["read-only", "unset", "empty"])
def test_downloads_into_the_cache_otherwise(
    tmp_path: Path, mirror: Path, register, server: Server, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    server.files["/a"] = CONTENT
    register("sets/b.csv", b"another")
    register("sets/a.csv", CONTENT, url=address(server, "/a"), store=False)
    if variable == "read-only":
        read_only(mirror)
    elif variable == "unset":
        monkeypatch.delenv("THROUGHLINE_DATA")
    else:
        monkeypatch.setenv("THROUGHLINE_DATA", "")
    assert fetch("sets/a.csv") == tmp_path / "cache/throughline/sets/a.csv" == locate("sets/a.csv")
    assert fetch("sets/a.csv").read_bytes() == CONTENT
    assert server.asked == ["/a"]
    assert not (mirror / "sets/a.csv").exists()


def test_a_missing_page_says_where_to_put_the_file(mirror: Path, register, server: Server) -> None:
    register("a.csv", CONTENT, url=address(server, "/nowhere"), store=False)
    with pytest.raises(
        DataError, match=r"^a\.csv: cannot be downloaded from http.*/nowhere \(404 .*put the file at"
    ) as caught:
        fetch("a.csv")
    assert str(mirror / "a.csv") in str(caught.value)
    assert "point THROUGHLINE_DATA at a folder" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_refused_connection_says_where_to_put_the_file(mirror: Path, register, server: Server) -> None:
    register("a.csv", CONTENT, store=False)  # nothing listens at its port
    with pytest.raises(DataError, match=r"a\.csv: cannot be downloaded from .*refused.* put the file at"):
        fetch("a.csv")


@pytest.mark.parametrize("path", ["/other", "/cut"])
def test_a_wrong_download_is_refused_and_leaves_nothing(mirror: Path, register, server: Server, path: str) -> None:
    server.files[path] = CONTENT if path == "/cut" else CONTENT[:-1] + b"?"
    register("a.csv", CONTENT, url=address(server, path), store=False)
    with pytest.raises(DataError, match=r"a\.csv: cannot be downloaded from"):
        fetch("a.csv")
    assert [file.name for file in mirror.iterdir() if file.suffix != ".lock"] == []
    assert verify() == {"a.csv": "missing"}


def test_an_altered_file_is_refused_and_not_replaced(mirror: Path, register, server: Server) -> None:
    server.files["/a"] = CONTENT
    entry = register("a.csv", CONTENT, url=address(server, "/a"))
    assert fetch("a.csv").read_bytes() == CONTENT
    altered = CONTENT[:-1] + b"?"
    (mirror / "a.csv").write_bytes(altered)
    with pytest.raises(DataError) as caught:
        fetch("a.csv")
    for part in (
        str(mirror / "a.csv"),
        entry.sha256,
        hashlib.sha256(altered).hexdigest(),
        "throughline data fetch a.csv",
    ):
        assert part in str(caught.value)
    assert (mirror / "a.csv").read_bytes() == altered
    assert verify() == {"a.csv": "altered"}
    assert server.asked == []


def test_a_truncated_file_is_called_so(mirror: Path, register) -> None:
    register("a.zip", CONTENT)
    (mirror / "a.zip").write_bytes(CONTENT[:100])
    with pytest.raises(
        DataError, match=r"a\.zip: not the registered a\.zip \(100 bytes instead of 20,000: it is trunc"
    ):
        fetch("a.zip")


def test_an_altered_file_in_the_mirror_is_not_passed_over_for_the_cache(tmp_path: Path, mirror: Path, register) -> None:
    register("a.csv", CONTENT)
    (tmp_path / "cache/throughline").mkdir(parents=True)
    (tmp_path / "cache/throughline/a.csv").write_bytes(CONTENT)
    assert fetch("a.csv") == mirror / "a.csv"
    (mirror / "a.csv").write_bytes(b"?")
    with pytest.raises(DataError, match="not the registered"):
        fetch("a.csv")
    (mirror / "a.csv").unlink()
    assert fetch("a.csv") == tmp_path / "cache/throughline/a.csv"


def test_an_unchanged_file_is_read_once(mirror: Path, register, monkeypatch: pytest.MonkeyPatch) -> None:
    register("a.csv", CONTENT)
    fetch("a.csv")
    monkeypatch.setattr("hashlib.file_digest", None)
    fetch("a.csv")
    os.utime(mirror / "a.csv", (1, 1))
    with pytest.raises(TypeError):
        fetch("a.csv")


def test_concurrent_fetches_download_once(mirror: Path, register, server: Server) -> None:
    server.files["/a"] = CONTENT
    register("a.csv", CONTENT, url=address(server, "/a"), store=False)
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(fetch, ["a.csv"] * 4))
    assert paths == [mirror / "a.csv"] * 4
    assert server.asked == ["/a"]


def test_concurrent_processes_download_once(tmp_path: Path, mirror: Path, register, server: Server) -> None:
    server.files["/a"] = CONTENT
    entry = register("a.csv", CONTENT, url=address(server, "/a"), store=False)
    code = (
        "from throughline.data import download\n"
        f"download.entries = lambda: (download.Entry(*{tuple(entry)!r}),)\n"
        "print(download.fetch('a.csv').stat().st_size)"
    )
    runs = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [run.communicate(timeout=60)[0].strip() for run in runs] == [str(len(CONTENT))] * 3
    assert server.asked == ["/a"]


def test_a_variable_that_names_a_file(tmp_path: Path, register, monkeypatch: pytest.MonkeyPatch) -> None:
    register("a.csv", CONTENT)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("THROUGHLINE_DATA", str(tmp_path / "file"))
    with pytest.raises(DataError, match="THROUGHLINE_DATA must name a folder, and this is a file"):
        fetch("a.csv")


@pytest.mark.parametrize("call", [fetch, locate, lambda key: verify([key]), resolve])
@pytest.mark.parametrize("wrong", ["tabular/sonnar.csv", "sonar.csv", "sonar"])
def test_an_unknown_key_gets_suggestions(call, wrong: str) -> None:
    with pytest.raises(
        DataError, match=rf"^{wrong}: no such .*did you mean .*tabular/sonar\.csv.*throughline data list"
    ):
        call(wrong)
    assert issubclass(DataError, ThroughlineError)
    assert issubclass(DataError, ValueError)


def test_something_else_gets_none() -> None:
    with pytest.raises(DataError, match=r"^/no/qqqq: no such file, folder or registry key; `throughline data list`"):
        resolve("/no/qqqq")


def test_the_listing_has_a_row_for_each_key(mirror: Path, register) -> None:
    register("a.csv", CONTENT)
    register("b.csv", CONTENT, store=False)
    first, second = describe()
    assert first == ("a.csv", len(CONTENT), "CC0", "made up", "ok", mirror / "a.csv")
    assert second[-2:] == ("missing", mirror / "b.csv")
    assert describe(["b.csv"]) == [second]


def test_the_listing_needs_no_torch() -> None:
    code = "import sys, throughline.data as d; d.describe(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
