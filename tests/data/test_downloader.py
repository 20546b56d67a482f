"""The downloader against a loopback server that speaks the hub's protocol to the real client."""

import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from unittest import mock
from urllib.parse import urlsplit

import filelock
import pytest
from conftest import load_script, passed, run_script, shard_of
from huggingface_hub import constants, file_download

SCRIPT = Path(__file__).resolve().parents[2] / "data" / "cached_challenge_fineweb.py"
REPO = "willdepueoai/parameter-golf"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FOLDER = "datasets/fineweb10B_sp1024"
VAL, TRAIN0, TRAIN1 = (f"{FOLDER}/fineweb_{x}.bin" for x in ("val_000000", *("train_000000", "train_000001")))
MODEL, VOCAB = "tokenizers/fineweb_1024_bpe.model", "tokenizers/fineweb_1024_bpe.vocab"


def shard(count: int, fill: int) -> bytes:
    return shard_of([fill] * count)


def export() -> dict[str, bytes]:
    """The published layout in small: three train shards of sp1024, one of byte260."""
    byte_tokenizer, docs = "tokenizers/fineweb_pure_byte_260.json", "docs_selected"
    files = {MODEL: b"model " * 50, VOCAB: b"vocab " * 50, byte_tokenizer: b"{}"}
    files |= {f"{docs}.jsonl": b'{"text": "a"}\n', f"{docs}.source_manifest.json": b"{}"}
    manifest = {"version": "10B", "docs_jsonl": f"{docs}.jsonl", "datasets": [], "tokenizers": []}
    for name, tokenizer, trains, paths in (
        ("fineweb10B_sp1024", "sp_bpe_1024", 3, {"model_path": MODEL, "vocab_path": VOCAB}),
        ("fineweb10B_byte260", "pure_byte_260", 1, {"path": byte_tokenizer}),
    ):
        stats = {"files_val": 1, "files_train": trains}
        manifest["datasets"].append({"name": name, "tokenizer_name": tokenizer, "stats": stats})
        manifest["tokenizers"].append({"name": tokenizer, **paths})
        files[f"datasets/{name}/fineweb_val_000000.bin"] = shard(500, 7)
        files |= {f"datasets/{name}/fineweb_train_{i:06d}.bin": shard(900 + i, i) for i in range(trains)}
    return files | {"manifest.json": json.dumps(manifest).encode()}


class FakeHub(ThreadingHTTPServer):
    """What the client asks of the hub: the repository's files, HEAD and GET of a file.

    Shards and models are LFS (a redirect, a SHA-256), the rest plain git blobs. `faults` maps the
    end of a path to what befalls its next GETs, one each.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.requests, self.faults = export(), [], {}
        self.wants = None  # the token without which a private repository answers nothing
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def fetched(self) -> list[str]:
        gets = [path for method, path, _ in self.requests if method == "GET"]
        return [path for path in gets if "/api/" not in path]

    def entry(self, name: str) -> dict:
        data = self.files[name]
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        entry = {"rfilename": f"datasets/{name}", "size": len(data), "blobId": blob}
        if name.endswith((".bin", ".model")):
            entry["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        return entry


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one packet: else each reply waits for a delayed ACK
    server: FakeHub

    def log_message(self, *args: object) -> None:
        pass

    def reply(
        self, status: int, body: bytes = b"", headers: dict | None = None, length: int | None = None
    ) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, str(value))
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def fault(self, path: str) -> object:
        for end, queue in self.server.faults.items():
            if path.endswith(end) and queue:
                return queue.pop(0)
        return None

    def answer(self) -> None:
        path = urlsplit(self.path).path
        self.server.requests.append((self.command, path, self.headers.get("Range")))
        if self.server.wants and self.headers.get("Authorization") != f"Bearer {self.server.wants}":
            return self.reply(401, b"{}", {"X-Error-Message": "no"})
        fault = None if self.command == "HEAD" else self.fault(path)
        if isinstance(fault, tuple):  # (status, headers)
            return self.reply(fault[0], b"no", fault[1])
        if path == f"/api/datasets/{REPO}":
            files = [
                {"rfilename": "README.md", "size": 1, "blobId": "0"},
                *map(self.server.entry, self.server.files),
            ]
            return self.reply(200, json.dumps({"id": REPO, "sha": COMMIT, "siblings": files}).encode())
        place = re.fullmatch(rf"/datasets/{REPO}/resolve/{COMMIT}/datasets/(.+)", path)
        if not place and not path.startswith("/cdn/"):
            return self.reply(404, b"", {"X-Error-Code": "RepoNotFound"})
        name = place[1] if place else path.removeprefix("/cdn/")
        if name not in self.server.files:
            return self.reply(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        entry = self.server.entry(name)
        etag = entry["lfs"]["sha256"] if "lfs" in entry else entry["blobId"]
        headers = {"X-Repo-Commit": COMMIT, "X-Linked-Size": entry["size"]}
        headers |= dict.fromkeys(("ETag", "X-Linked-Etag"), f'"{etag}"')
        if place and "lfs" in entry:
            return self.reply(302, b"", headers | {"Location": f"{self.server.url}/cdn/{name}"})
        return self.content(self.server.files[name], headers, fault)

    def content(self, data: bytes, headers: dict, fault: object) -> None:
        status = 200
        if ask := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            status, start = 206, int(ask[1])
            headers = headers | {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
            data = data[start:]
        if fault == "alter":
            data = data[:-1] + bytes([data[-1] ^ 1])
        kept = {"half": data[: len(data) // 2], "cut": b""}.get(str(fault), data)
        self.reply(status, kept, headers, len(data))
        self.close_connection = len(kept) < len(data)

    do_GET = do_HEAD = answer


@pytest.fixture
def hub():
    server = FakeHub()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def data(tmp_path) -> Path:
    """A data folder of its own, with the script in it: the script fetches beside itself."""
    folder = tmp_path / "data with space"
    folder.mkdir()
    shutil.copy(SCRIPT, folder)
    return folder


@pytest.fixture
def fetch(hub, data, tmp_path, monkeypatch, capfd):
    """Runs main(argv) in this process, and gives what it says; `fails` gives the line of an error.
    Sleeps are only noted."""
    point_client_at(hub.url, tmp_path, monkeypatch)
    module = load_script(data / SCRIPT.name)

    def ended(code: int, *argv: str) -> str:
        hub.requests.clear()
        found = module.main([*argv])
        call.said = "".join(capfd.readouterr())
        assert found == code, call.said
        return call.said

    def call(*argv: str) -> str:
        return ended(0, *argv)

    call.module, call.sleeps, call.fails = module, [], lambda *argv: error_line(ended(1, *argv))
    monkeypatch.setattr(time, "sleep", call.sleeps.append)
    return call


def point_client_at(url: str, tmp_path: Path, monkeypatch) -> None:
    """The client reads its environment at import, so in this process its constants are set."""
    for name in ("MATCHED_FINEWEB_REPO_ID", "MATCHED_FINEWEB_REMOTE_ROOT_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    for module in (constants, file_download):  # older clients have it in both
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def run_it(data: Path, url: str, home: Path, *argv: str, **env: str):
    """The script in a process of its own."""
    hub = {"HF_ENDPOINT": url, "HF_HOME": str(home), "NO_PROXY": "*"}
    return run_script(f"./{SCRIPT.name}", *argv, env=hub | env, repo=data)


def error_line(err: str) -> str:
    """The last line: the error. Nothing a user can cause ends in a traceback."""
    assert "Traceback" not in err
    line = err.strip().splitlines()[-1]
    assert line.startswith("cached_challenge_fineweb.py: error: "), err
    assert err.count("error: ") == 1
    return line


def here(data: Path) -> set[str]:
    others = {SCRIPT.name, "checksums.json", ".incoming", "__pycache__"}
    files = [path.relative_to(data) for path in data.rglob("*") if path.is_file()]
    return {path.as_posix() for path in files if not others & set(path.parts)}


# ---- fetching --------------------------------------------------------------------------------


def test_fresh_fetch_then_offline(hub, data, tmp_path):
    home = tmp_path / "home"
    hub.faults["val_000000.bin"] = ["half"]
    done = passed(run_it(data, hub.url, home))
    lines = done.stderr.splitlines()
    assert [line[:4] for line in lines] == ["1/5 ", "2/5 ", "3/5 ", "4/5 ", "5/5 "]
    assert lines[2] == f"3/5 {VAL}, 0.0 MB"
    assert here(data) == {"manifest.json", VAL, TRAIN0, TRAIN1, MODEL, VOCAB}
    for name in here(data):
        assert (data / name).read_bytes() == hub.files[name]
    assert not any(path.is_symlink() for path in data.rglob("*"))
    assert not list(data.rglob(".incoming")), "staging is gone"
    copies = [p for p in home.rglob("*") if p.is_file() and p.read_bytes() in hub.files.values()]
    assert not copies, "no second copy in a cache"
    assert f"DATA_PATH={data / FOLDER}" in done.stdout
    assert f"TOKENIZER_PATH={data / MODEL}" in done.stdout
    recorded = json.loads((data / "checksums.json").read_text())["files"]
    assert recorded[VAL]["hash"] == hashlib.sha256(hub.files[VAL]).hexdigest()
    assert recorded["manifest.json"]["bytes"] == len(hub.files["manifest.json"])

    hub.requests.clear()
    assert "0 fetched, 5 here" in passed(run_it(data, hub.url, home, "2", HF_HUB_OFFLINE="1")).stdout
    assert not hub.requests

    more = run_it(data, hub.url, home, "3", HF_HUB_OFFLINE="1")
    assert more.returncode == 1
    assert "fineweb_train_000002.bin" in error_line(more.stderr)
    assert "HF_HUB_OFFLINE is set, so nothing is fetched" in more.stderr


def test_second_call_asks_nothing_and_more_shards_fetch_only_those(fetch, hub, data):
    fetch("--train-shards", "1")
    assert TRAIN1 not in here(data)
    fetch("--train-shards", "1")
    assert not hub.requests
    assert "2 fetched, 4 here" in fetch("3") and len(hub.fetched()) == 2
    fetch("0")
    assert not hub.requests


def test_byte260_docs_and_a_vocabulary_the_hub_lacks(fetch, hub, data):
    fetch("--variant", "byte260", "1")
    assert "tokenizers/fineweb_pure_byte_260.json" in here(data)
    del hub.files[VOCAB]
    fetch("1", "--with-docs")
    assert {"docs_selected.jsonl", "docs_selected.source_manifest.json", MODEL} <= here(data)
    assert VOCAB not in here(data)
    fetch("1", "--with-docs")
    assert not hub.requests


def test_files_of_an_earlier_tool_are_checked_and_taken_over(fetch, hub, data):
    for name in (VAL, TRAIN0, MODEL, VOCAB, "manifest.json"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes(hub.files[name])
    assert "0 fetched" in fetch("1") and not hub.fetched()
    fetch("1")
    assert not hub.requests


def test_datasets_on_another_disk(fetch, data, tmp_path):
    (tmp_path / "disk").mkdir()
    (data / "datasets").symlink_to(tmp_path / "disk")
    fetch("1")
    assert (tmp_path / "disk/fineweb10B_sp1024/fineweb_train_000000.bin").is_file()
    assert not list(tmp_path.rglob(".incoming")) + list(data.rglob(".incoming"))


def test_another_repository_is_asked_anew(fetch, monkeypatch):
    fetch("1")
    monkeypatch.setenv("MATCHED_FINEWEB_REPO_ID", "someone/else")
    told = fetch.fails("1")
    assert "someone/else" in told and "404" in told


# ---- a network that misbehaves ---------------------------------------------------------------


def test_truncated_reply_is_resumed(fetch, hub, data):
    # more than the 10 MiB that the client reads at a time
    hub.files[TRAIN0] = shard_of([], count=12_000_000) + bytes(range(200)) * 120_000
    hub.faults["train_000000.bin"] = ["half"]
    fetch("1")
    assert (data / TRAIN0).read_bytes() == hub.files[TRAIN0]
    assert [ask for _, path, ask in hub.requests if ask and path.endswith(TRAIN0)]


def test_reply_cut_for_good_leaves_nothing_and_the_next_call_goes_on(fetch, hub, data):
    hub.faults["train_000000.bin"] = ["cut"] * 1000
    assert TRAIN0 in fetch.fails("1")
    assert not (data / TRAIN0).exists()
    assert {MODEL, VAL} <= here(data)
    hub.faults.clear()
    assert "1 fetched, 3 here" in fetch("1")


def test_429_waits_as_long_as_asked(fetch, hub, data):
    limit = (429, {"Retry-After": "7"})
    hub.faults |= {"train_000000.bin": [limit], f"api/datasets/{REPO}": [limit]}
    fetch("1")
    assert len([wait for wait in fetch.sleeps if wait >= 7]) == 2
    assert (data / TRAIN0).read_bytes() == hub.files[TRAIN0]


def test_429_with_an_endless_wait_or_without_end_fails(fetch, hub):
    hub.faults[f"api/datasets/{REPO}"] = [(429, {"Retry-After": "3600"})]
    assert "3600 s" in fetch.fails("1") and not fetch.sleeps
    hub.faults[f"api/datasets/{REPO}"] = [(503, {})] * 99
    assert "503" in fetch.fails("1")
    assert fetch.sleeps == [1, 2, 4, 8]


def test_wrong_hash_once_is_fetched_again_twice_is_an_error(fetch, hub, data):
    hub.faults["val_000000.bin"] = ["alter"]
    fetch("1")
    (data / VAL).unlink()
    hub.faults["val_000000.bin"] = ["alter"] * 9
    told = fetch.fails("1")
    assert VAL in told and "its hash is not" in told and not (data / VAL).exists()


def test_unreachable_hub_is_one_line(fetch, hub, data):
    hub.shutdown()
    hub.server_close()
    told = fetch.fails("1")
    assert hub.url in told and "refused" in told
    assert fetch.sleeps == [1, 2, 4, 8] and not here(data)


def test_a_token_is_used_and_one_that_is_refused_is_told(fetch, hub, monkeypatch):
    hub.wants = "hf_good"
    assert "it needs a valid HF_TOKEN" in fetch.fails("1")
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    assert "unset one that has expired" in fetch.fails("1") and not fetch.sleeps
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    assert "4 fetched" in fetch("1")


def chained(*errors):
    """The last of them, raised from the one before, and so on."""
    for before, error in zip(errors, errors[1:]):
        error.__cause__ = before
    return errors[-1]


def made(name, base=Exception, **members):
    return type(name, (base,), members)


@pytest.mark.parametrize(("error", "words", "passes"), [
    (ImportError("the 'socksio' package is not installed"), "socksio`, or unset HTTPS_PROXY, A", False),
    (ValueError("Unknown scheme for proxy URL 'ftp://x'"), "is HTTPS_PROXY, ALL_PROXY right?", False),
    (made("ProxyError", made("TransportError"))("403 Forbidden by the proxy"), "HTTPS_PROXY", False),
    (made("ReadTimeout", made("TimeoutException"))("timed out"), "timed out", True),
    (chained(OSError(111, "Connection refused"), made("ConnectionError", OSError)("x")), "refused", True),
    (ConnectionResetError(104, "Connection reset by peer"), "reset by peer", True),
    (made("ConnectError")("[SSL: CERTIFICATE_VERIFY_FAILED] no"), "set SSL_CERT_FILE", False),
    (OSError("Consistency check failed: file should be of size 3"), "Consistency", True),
    (KeyError("siblings"), "KeyError: 'siblings'", False),
    (ValueError("not a valid header"), "ValueError: not a valid header", False),
    (PermissionError(13, "Permission denied", "/data/x"), "/data/x: Permission denied", False),
    (RuntimeError("Data processing error: No space left on device (os error 28)"), "No space", False),
    (OSError(errno.ENOLCK, "No locks available"), "No locks available; use another disk", False),
    (UnicodeEncodeError("ascii", "\u00e9", 0, 1, "no"), "UnicodeEncodeError", False),
])  # fmt: skip
def test_only_what_may_pass_is_tried_again(fetch, monkeypatch, error, words, passes):
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", f"{'socks5' if 'socksio' in words else 'ftp'}://127.0.0.1:9")
    text, wait = fetch.module.explain(error)
    assert words in text and "\n" not in text
    assert (wait is not None) == passes


def endpoint(text):
    return lambda patch, data: patch.setattr(constants, "ENDPOINT", text), f"HF_ENDPOINT={text}: a URL"


def no_locks(number):
    flock = mock.Mock(side_effect=OSError(number, os.strerror(number)))
    said = f"data with space: {os.strerror(number)}; use another disk"
    return lambda patch, data: patch.setattr("fcntl.flock", flock), said


HOPELESS = {
    "no client": (
        lambda patch, data: patch.setitem(sys.modules, "huggingface_hub", None),
        f"huggingface_hub is missing from {sys.executable}; run `{sys.executable} -m pip install "
        "huggingface_hub`, or scripts/quickstart.sh",
    ),
    "a mirror that is a path": endpoint("/mnt/mirror"),
    "a mirror of files": endpoint("file:///mnt/mirror"),
    "a mirror without https": endpoint("hub.example.org"),
    "a disk without locks": no_locks(errno.ENOLCK),
    "another one": no_locks(errno.EOPNOTSUPP),
    "a file where a folder belongs": (
        lambda patch, data: (data / "tokenizers").touch(), "data with space/tokenizers/.incoming: ",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("prepare", "words"), HOPELESS.values(), ids=HOPELESS)
def test_what_no_retry_helps_is_told_at_once(fetch, data, monkeypatch, prepare, words):
    prepare(monkeypatch, data)
    assert words in fetch.fails("1") and not fetch.sleeps
    assert here(data) <= {"manifest.json", "tokenizers"}


def test_a_client_that_cannot_be_loaded_is_told(data, tmp_path):
    done = run_it(data, "http://127.0.0.1:9", tmp_path, HF_HUB_DOWNLOAD_TIMEOUT="soon")
    assert done.returncode == 1 and "huggingface_hub cannot be loaded: ValueError" in error_line(done.stderr)


# ---- asked for what is not there -------------------------------------------------------------


@pytest.mark.parametrize(("argv", "words"), [
    (("--variant", "sp4096"), "no variant sp4096; its manifest lists: byte260, sp1024"),
    (("4",), "3 train shards, 4 asked for"),
])  # fmt: skip
def test_what_the_hub_lacks_is_told_with_what_it_has(fetch, data, argv, words):
    assert words in fetch.fails(*argv) and here(data) == {"manifest.json"}


@pytest.mark.parametrize("argv", [
    ["-1"], ["--train-shards", "-1"], ["x"], ["1", "--train-shards", "1"], ["--variant", "../up"],
    ["--variant", "sp"], ["--nonsense"],
])  # fmt: skip
def test_wrong_arguments_exit_2(fetch, hub, argv):
    with pytest.raises(SystemExit, match="2"):
        fetch(*argv)
    assert not hub.requests


def test_skip_manifest(fetch, hub, data):
    assert "manifest.json" in fetch.fails("--skip-manifest", "1")
    (data / "manifest.json").write_bytes(hub.files["manifest.json"] + b"\n")
    fetch("--skip-manifest", "1")
    assert not any(path.endswith("manifest.json") for path in hub.fetched())
    assert (data / "manifest.json").read_bytes().endswith(b"\n"), "used as it is"


ODD_PATHS = ["../../x.model", "tokenizers/../x.model", "/x.model", SCRIPT.name, "tokenizers/.incoming"]
ODD_COUNTS = [0, -1, 10**9, "1", 1.5, None]  # too few: no validation text; too many would never end
MANIFESTS = [(MODEL, path, f"names a file that is none of the export's: {path}") for path in ODD_PATHS]
MANIFESTS += [
    ('"files_val": 1', f'"files_val": {json.dumps(count)}', "the entry of fineweb10B_sp1024 is not whole")
    for count in ODD_COUNTS
]


@pytest.mark.parametrize(("old", "new", "words"), MANIFESTS)
def test_a_manifest_with_odd_paths_or_counts_leads_to_no_file(fetch, hub, data, old, new, words):
    hub.files["manifest.json"] = export()["manifest.json"].replace(old.encode(), new.encode(), 1)
    hub.files[new] = b"evil"
    assert words in fetch.fails("1") and here(data) == {"manifest.json"}


@pytest.mark.parametrize("streams", [">&- 2>&-", ">/dev/full 2>/dev/full", "2>&1 | true"])
def test_a_terminal_that_goes_away_ends_no_download(hub, data, tmp_path, streams):
    env = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "NO_PROXY": "*"}
    command = f'set -o pipefail; "$0" "$1" 1 {streams}'
    done = subprocess.run(["bash", "-c", command, sys.executable, data / SCRIPT.name], env=env, timeout=60)
    assert done.returncode == 0 and here(data) == {"manifest.json", VAL, TRAIN0, MODEL, VOCAB}


def test_a_manifest_that_is_none(fetch, hub):
    foreign = (b"[]", b"", b"\xff", b"[" * 9999, b'{"datasets": [1], "tokenizers": []}')
    for text in (*foreign, b'{"datasets": 1, "tokenizers": 2}'):
        hub.files["manifest.json"] = text
        assert "no manifest" in fetch.fails("--variant", "sp512")
    hub.files["manifest.json"] = export()["manifest.json"]
    fetch("0")  # a broken one is not kept


# ---- the local side ---------------------------------------------------------------------------


@pytest.mark.parametrize("harm", ["flip", "truncate"])
def test_corrupted_local_shard_is_fetched_anew(fetch, hub, data, harm):
    fetch("2")
    good = hub.files[TRAIN1]
    bad = {"flip": good[:-1] + b"\xff", "truncate": good[:-2]}
    (data / TRAIN1).write_bytes(bad[harm])
    assert f"1 of 6 files are bad: {TRAIN1}" in fetch.fails("--verify") and not hub.requests
    assert f"BAD {TRAIN1}: " in fetch.said
    said = fetch("2")
    assert "1 fetched, 4 here" in said and f"{TRAIN1}: " in said
    assert (data / TRAIN1).read_bytes() == good
    assert fetch("--verify") == "6 files are right\n"


def test_verify_without_anything(fetch, hub):
    assert "nothing to verify" in fetch.fails("--verify") and not hub.requests


def test_a_changed_hub_is_followed_when_it_is_asked(fetch, hub, data):
    fetch("1")
    hub.files[VAL] = shard(500, 8)
    said = fetch("2")
    assert "2 fetched, 3 here" in said and f"{VAL}: its hash is not" in said
    assert (data / VAL).read_bytes() == hub.files[VAL]


def test_damaged_checksums_are_named(fetch, data):
    (data / "checksums.json").write_text('{"files": {"a": 1}}')
    assert "checksums.json" in fetch.fails("--verify")
    for name, words in (("checksums.json", ["--verify"]), ("manifest.json", ["--skip-manifest"])):
        (data / name).unlink(missing_ok=True)
        os.mkfifo(data / name)  # nobody writes to it
        assert name in fetch.fails(*words)
        (data / name).unlink()


def test_too_little_space_is_seen_before_fetching(fetch, hub, monkeypatch):
    fetch("0")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=10**6, free=100))
    assert " MB free at " in fetch.fails("2") and not hub.fetched()


def test_disk_that_fills_up_on_the_way(fetch, data, monkeypatch):
    fetch("0")

    def fills(url, temp_file, **kwargs):
        temp_file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(file_download, "http_get", fills)
    assert "No space left" in fetch.fails("1")
    assert not (data / TRAIN0).exists() and not fetch.sleeps


def test_two_at_once_and_leftovers_of_a_killed_one(fetch, hub, data):
    left = data / FOLDER / ".incoming" / ".cache" / "h" / "x.etag.0123abcd.incomplete"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"part")
    (data / ".incoming").mkdir()
    with filelock.FileLock(data / ".incoming" / "lock"):
        assert "another download" in fetch.fails("1")
        assert left.exists()
    hub.faults["train_000000.bin"] = [(404, {})]
    fetch.fails("1")
    fetch("1")
    assert not list(data.rglob(".incoming"))
