"""What is no regular file is refused in a line wherever a person's path is read."""

import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
from conftest import REPO, used_wrongly
from golf.bench import command as bench
from golf.core import artifact, envfile, files, packed, runlog
from golf.core.errors import GolfError
from golf.score import holdout, stream
from golf.see import history, weights

READERS = [
    artifact.read, weights.load, bench.read_results, envfile.parse, files.read_text, files.sha256,
    packed.read_source, runlog.final_lines, runlog.read_metrics, holdout.read_documents,
    stream.open_shard, stream.read_tokenizer,
]  # fmt: skip


@pytest.mark.parametrize("read", READERS, ids=lambda read: f"{read.__module__}.{read.__name__}")
def test_a_pipe_a_device_and_a_folder_are_refused(read, tmp_path):
    """Opening a pipe that nobody writes to waits for ever; /dev/zero has no end."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(GolfError, match=f"{path.name}: not a regular file", check=used_wrongly):
            read(path)


@pytest.mark.parametrize("harm", [b"", b"cut", b"not UTF-8"])
def test_a_tokenizer_that_is_none_is_refused(harm, tmp_path):
    whole = (REPO / "data/sample_1024_bpe.model").read_bytes()
    spoilt = whole.replace("\u2581".encode(), b"\xff\xfe\x81", 20)
    (tmp_path / "t.model").write_bytes({b"": b"", b"cut": whole[:1000]}.get(harm, spoilt))
    with pytest.raises(GolfError, match="t.model: not a SentencePiece model"):
        stream.read_tokenizer(tmp_path / "t.model")


@pytest.mark.parametrize(
    "read", [files.read_text, packed.read_source, runlog.final_lines, stream.read_tokenizer]
)
def test_a_file_that_is_too_large_is_refused_unread(read, tmp_path):
    """Of a file with a hole any size may be stated: 3 GB took a minute, or all memory."""
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(files.LARGE + 1)
    with pytest.raises(GolfError, match="hole: over [0-9,]+ bytes"):
        read(tmp_path / "hole")


def test_text_with_nul_bytes_is_no_text(tmp_path):
    (tmp_path / "t").write_bytes("a paragraph".encode("utf-16-le"))
    with pytest.raises(GolfError, match="t: holds NUL bytes"):
        list(holdout.read_documents(tmp_path / "t"))


def test_the_null_device_is_an_empty_file():
    assert envfile.parse(Path(os.devnull)) == {}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_file_is_written_whole_or_stays_as_it_was(tmp_path, monkeypatch):
    old, link = tmp_path / "old", tmp_path / "link"
    link.symlink_to(old)
    files.replace_file(link, "\u20ac\udcff\n")
    assert old.read_bytes() == "\u20ac\\udcff\n".encode() and link.is_symlink()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", lambda path, data: Path("/dev/full").open("wb", 0).write(data))
        with pytest.raises(OSError, match="No space left") as refused:
            files.replace_file(old, b"new")
        assert refused.value.filename == str(old)
        with pytest.raises(OSError, match="No space left") as refused, files.unfinished(tmp_path) as made:
            (made / "one of many").write_bytes(b"new")
        assert refused.value.filename == str(tmp_path)
    with pytest.raises(OSError, match="No such file or directory.*gone/new"):
        files.replace_file(tmp_path / "gone/new", b"new")
    assert sorted(tmp_path.iterdir()) == [link, old] and "\u20ac" in old.read_text("utf-8")
    files.replace_file(Path(os.devnull), b"new")  # no file beside a device


def test_a_pipe_is_written_to_where_somebody_reads(tmp_path):
    reads, writes = os.pipe()
    files.replace_file(Path(f"/dev/fd/{writes}"), b"new")
    assert os.read(reads, 9) == b"new"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="No such device"):  # and does not wait
        files.replace_file(tmp_path / "pipe", b"new")


def test_a_log_that_is_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "train.log")
    with pytest.raises(GolfError, match="train.log: not a regular file"):
        history.read(tmp_path / "train.log")


def test_an_unfinished_folder_goes_at_the_end_or_once_its_process_was_killed(tmp_path):
    code = "import pathlib, sys, time; from golf.core.files import unfinished\n"
    code += "with unfinished(pathlib.Path(sys.argv[1])) as made: print(made, flush=True); time.sleep(999)"
    env = {**os.environ, "PYTHONPATH": str(REPO / "scripts")}
    words = [sys.executable, "-c", code, tmp_path]
    with subprocess.Popen(words, env=env, stdout=subprocess.PIPE, text=True) as other:
        theirs = Path(other.stdout.readline().strip())
        (theirs / "half").touch()
        with files.unfinished(tmp_path) as ours:
            assert {*tmp_path.iterdir()} == {ours, theirs}
        other.kill()
    assert [*tmp_path.iterdir()] == [theirs]
    with files.unfinished(tmp_path) as ours:
        assert [*tmp_path.iterdir()] == [ours]
    assert not [*tmp_path.iterdir()]


def test_a_file_half_written_goes_with_the_next_once_its_process_was_killed(tmp_path):
    code = "import os, pathlib, sys\nfrom golf.core.files import replace_file\n"
    code += "pathlib.Path.replace = lambda *_: os.kill(os.getpid(), 9)\n"
    code += "replace_file(pathlib.Path(sys.argv[1]), b'new')"
    env = {**os.environ, "PYTHONPATH": str(REPO / "scripts")}
    assert subprocess.run([sys.executable, "-c", code, tmp_path / "a"], env=env).returncode == -9
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["file"]
    files.replace_file(tmp_path / "b", b"new")
    assert [*tmp_path.iterdir()] == [tmp_path / "b"]


def test_where_no_folder_can_be_locked_none_is_removed(tmp_path, monkeypatch):
    (tmp_path / f"{files.UNFINISHED}x").mkdir()
    monkeypatch.setattr(files.fcntl, "flock", mock.Mock(side_effect=OSError(37, "No locks available")))
    with files.unfinished(tmp_path) as ours:
        assert len([*tmp_path.iterdir()]) == 2 and ours.is_dir()
    assert len([*tmp_path.iterdir()]) == 1
