"""golf.artifact and the trainer's own parse: the same verdict on the same bytes, sound or not."""

from __future__ import annotations

import json
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from golf import artifact
from hypothesis import example, given, settings
from hypothesis import strategies as st

import train_gpt as T

CONFIG = {"model_dim": 8}
TENSORS = {
    "a": ("int8", [np.arange(-6, 6, dtype="i1").reshape(3, 4), np.ones(3, "<f2")]),
    "b": ("fp16", [np.arange(5, dtype="<f2")]),
    "c.d": ("fp32", [np.ones((2, 3), "<f4")]),
}
SOUND = T.serialize(CONFIG, TENSORS)


def theirs(blob):
    """What the trainer makes of the bytes, as golf.artifact tells it; None where it refuses."""
    try:
        config, tensors = T.parse(blob)
    except Exception:
        return None
    return config, {
        name: (encoding, arrays[0].shape) for name, (encoding, arrays) in tensors.items()
    }


def ours(blob):
    try:
        found = artifact.parse(blob)
    except artifact.ArtifactError as error:
        assert str(error).isprintable() and len(str(error)) < 200
        return None
    return found.config, found.tensors


def container(header, arrays=b"", length=None) -> bytes:
    """A container with a sound prefix around any header."""
    blob = header if isinstance(header, bytes) else json.dumps(header).encode()
    payload = struct.pack("<I", len(blob)) + blob + arrays
    coded = zlib.compress(payload)
    stated = len(payload) if length is None else length
    return struct.pack("<4sHHQI", b"PGLA", 1, 1, stated, zlib.crc32(coded)) + coded


def agree(blob) -> bool:
    """The same verdict; ours may refuse what only numpy's leniency lets the trainer read."""
    mine, other = ours(blob), theirs(blob)
    return mine == other or mine is None and lenient(blob)


def lenient(blob) -> bool:
    """Whether a header has what numpy reads all the same: sizes of -1 or true, an odd configuration."""
    payload = zlib.decompress(blob[20:])
    header = json.loads(payload[4 : 4 + struct.unpack_from("<I", payload)[0]])
    shapes = [shape for _, shape, _ in header["tensors"]]
    odd = any(
        not isinstance(s, list) or any(type(n) is not int or n < 0 for n in s) for s in shapes
    )
    names = [name for name, _, _ in header["tensors"]]
    return (
        odd or not isinstance(header["config"], dict) or not all(isinstance(n, str) for n in names)
    )


def test_the_sound_one_is_read():
    assert ours(SOUND) == theirs(SOUND) == (CONFIG, {
        "a": ("int8", (3, 4)), "b": ("fp16", (5,)), "c.d": ("fp32", (2, 3)),
    })  # fmt: skip
    constants = ("PREFIX", "MAGIC", "FORMAT", "ZLIB", "MAX_UNPACKED")
    for name in constants:
        mine, other = getattr(artifact, name), getattr(T, name)
        assert getattr(mine, "format", mine) == getattr(other, "format", other)
    for encoding, dtypes in T.DTYPES.items():
        assert artifact.ITEM_BYTES[encoding] == tuple(np.dtype(d).itemsize for d in dtypes)
    assert set(artifact.ITEM_BYTES) == set(T.DTYPES)


def test_a_real_artifact_is_read(tmp_path):
    from trainer_kit import knobs, random_model, weights_of

    k = knobs()
    blob, _ = T.export_artifact(weights_of(random_model(k)), k, 0)
    (tmp_path / "a").write_bytes(blob)
    found = artifact.read(tmp_path / "a")
    assert (found.config, found.tensors) == theirs(blob)
    assert found.config["model_dim"] == k.model_dim and len(found.tensors) > 10


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(SOUND) - 1), st.integers(1, 255)), max_size=3),
       st.integers(0, len(SOUND)), st.binary(max_size=40), st.booleans())  # fmt: skip
@example([], len(SOUND), b"", False)
@example([], len(SOUND), b"x", True)
def test_damaged_bytes_get_the_same_verdict(flips, cut, tail, mend):
    blob = bytearray(SOUND)
    for place, change in flips:
        blob[place] ^= change
    blob = blob[:cut] + tail
    if mend and len(blob) > 20:  # the checksum fits again, so that what lies behind it is read
        blob[16:20] = struct.pack("<I", zlib.crc32(bytes(blob[20:])))
    assert agree(bytes(blob))


SHAPE = (
    st.lists(st.integers(-2, 9) | st.booleans() | st.just(1.0), max_size=3)
    | st.just("")
    | st.none()
)
ENTRY = st.tuples(
    st.sampled_from(["a", "b", "", 3]), SHAPE, st.sampled_from(["int8", "fp16", "fp32", "int6", 1])
) | st.sampled_from([[], "abc", 3, ["a", [1]], ["a", [1], "int8", 0]])


@settings(max_examples=300, deadline=None)
@given(st.lists(ENTRY, max_size=3), st.sampled_from([{}, {"a": 1}, [], None]), st.integers(0, 60))
@example([("a", [2, 3], "int8")], {}, 10)
@example([("a", [0, 3], "int8"), ("b", [2], "fp32")], {}, 8)
@example([("a", [], "int8"), ("b", [1], "fp16")], {}, 5)
def test_odd_headers_get_the_same_verdict(tensors, config, size):
    assert agree(container({"config": config, "tensors": tensors}, bytes(size)))


@pytest.mark.parametrize("header", [
    b"", b"{", b"[]", b"null", b"\xff", b"[" * 100000, b'{"config": {}}', b'{"tensors": []}',
    b'{"config": {}, "tensors": {"a": 1}}', b'{"config": {}, "tensors": [["a", [99999999999], "fp32"]]}',
    b'{"config": {}, "tensors": [["a", [' + b"9" * 5000 + b'], "fp32"]]}',
    b'{"config": {}, "tensors": [["a", [' + b"9" * 3000 + b", " + b"9" * 3000 + b'], "fp32"]]}',
    b'{"config": {}, "tensors": [["a", [' + b"9, " * 200000 + b'9], "fp32"]]}',
], ids=lambda h: str(h[:30]))  # fmt: skip
def test_broken_headers_are_refused_by_both(header):
    blob = container(header)
    assert ours(blob) is None and theirs(blob) is None


def test_nothing_is_inflated_beyond_what_is_stated():
    bomb = container(b"{}", bytes(40 << 20), length=1000)
    big = container(b"{}", bytes(40 << 20), length=65 << 20)
    long_header = container(b" " * (5 << 20))
    tracemalloc.start()
    assert ours(bomb) is None and ours(big) is None
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()
    assert ours(long_header) is None


@pytest.mark.parametrize(("place", "value"), [("<H", 2), ("<H", 77)])
def test_other_formats_and_coders_are_told_from_damage(place, value):
    for at in (4, 6):
        blob = bytearray(SOUND)
        struct.pack_into(place, blob, at, value)
        with pytest.raises(artifact.ForeignArtifact):
            artifact.parse(bytes(blob))
        assert theirs(bytes(blob)) is None
    own = container({"config": {}, "tensors": [["a", [4], "int6"]]}, bytes(3))
    with pytest.raises(artifact.ForeignArtifact, match="int6"):
        artifact.parse(own)
    with pytest.raises(artifact.ArtifactError, match="begin") as error:
        artifact.parse(b"PK\3\4")
    assert not isinstance(error.value, artifact.ForeignArtifact)
