"""Shards and tokenizer, whatever their names and folder."""

from pathlib import Path

import pytest
from conftest import write_shard
from golf.core.errors import GolfError
from golf.score import stream


def test_shards_follow_their_numbers_not_their_letters(tmp_path):
    for number in (10, 2, 9, 0):
        write_shard(tmp_path / f"fineweb_val_{number}.bin", [number])
    write_shard(tmp_path / "fineweb_val_000001.bin", [1])
    assert stream.read_shards(tmp_path)[0].tolist() == [0, 1, 2, 9, 10]
    for name in ("fineweb_val_01.bin", "fineweb_val_x.bin", "fineweb_val_.bin", "fineweb_val_a_3.bin",
                 "fineweb_val_\u0663.bin"):  # fmt: skip
        write_shard(tmp_path / name, [1])
        with pytest.raises(GolfError, match="no number of its own in its name"):
            stream.read_shards(tmp_path)
        (tmp_path / name).unlink()


@pytest.mark.parametrize("folder", ["/", "/shards", "/a/shards", "shards", "."])
def test_a_tokenizer_is_looked_for_whatever_the_folders_depth(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TOKENIZER_PATH", raising=False)
    with pytest.raises(GolfError, match="no tokenizer there; fetch it or set TOKENIZER_PATH"):
        stream.find_tokenizer(Path(folder), "nowhere.model")


@pytest.mark.parametrize("size", [7, *b"$()*+.?[\\^{|", 127])
def test_a_bracketed_symbol_is_known_by_its_type_whatever_its_length(size):
    """Its length is one byte of the model, which may be one that patterns give a meaning."""
    name = f"<{'x' * (size - 2)}>"
    entry = b"\n%c%b\x15\0\0\0\0\x18" % (size, name.encode())
    assert stream.marks(name, b"\x0a\x0e" + entry + b"\x04")
    assert not stream.marks(name, b"\x0a\x0e" + entry + b"\x01")
