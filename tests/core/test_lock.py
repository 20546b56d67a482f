"""One run a folder."""

import errno
import os

import pytest
from golf.core import lock
from golf.core.errors import GolfError
from run.conftest import one_line


@pytest.mark.parametrize("code", ["ENOLCK", "EOPNOTSUPP", "ENOSYS", "EINVAL", "EIO"])
def test_a_disk_without_file_locks_is_told_and_used(tmp_path, monkeypatch, capfd, code):
    def flock(file, how):
        raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)))

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    folder = tmp_path / "one"
    with lock.locked(folder):
        (folder / "train.log").touch()
        lock.refuse_used(folder)
    said = one_line(capfd.readouterr().err)
    assert f"no file locks in {folder}" in said and "OUT_DIR" in said
    (folder / "train.log").unlink()
    with lock.locked(folder):
        pass
    assert not folder.exists()


def test_a_lock_that_cannot_be_made_names_the_file(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / ".lock").mkdir()
    with pytest.raises(GolfError, match=r"one/\.lock: cannot be written \(Is a directory\)"):
        with lock.locked(tmp_path / "one"):
            pass
