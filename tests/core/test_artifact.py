"""golf.core.artifact and the trainer's own parse: the same verdict on the same bytes, sound or not."""

import base64
import bz2
import contextlib
import gzip
import io
import itertools
import json
import lzma
import pickle
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import brotli
import numpy as np
import pytest
from conftest import REPO, container
from golf.core import artifact
from hypothesis import example, given, settings
from hypothesis import strategies as st

import train_gpt as T

CONFIG = {"model_dim": 8}
TENSORS = {
    "a": ("int8t", [np.arange(-6, 6, dtype="i1").reshape(3, 4), np.ones(3, "<f2")]),
    "b": ("fp16", [np.arange(5, dtype="<f2")]),
    "c.d": ("fp32", [np.ones((2, 3), "<f4")]),
}
SOUND = T.serialize(CONFIG, TENSORS)


def theirs(blob):
    """What the trainer makes of the bytes, as golf.core.artifact tells it; None where it refuses."""
    try:
        config, tensors = T.parse(blob)
    except Exception:
        return None
    return config, {name: (encoding, arrays[0].shape) for name, (encoding, arrays) in tensors.items()}


def ours(blob):
    try:
        found = artifact.parse(blob)
    except artifact.ArtifactError as error:
        assert str(error).isprintable() and len(str(error)) < 200
        return None
    return found.config, found.tensors


def with_header(header, arrays=b"", length=None) -> bytes:
    """A container with a sound prefix around any header."""
    blob = header if isinstance(header, bytes) else json.dumps(header).encode()
    return container(struct.pack("<I", len(blob)) + blob + arrays, length)


def with_coded(coded: bytes, length: int, coder=1) -> bytes:
    return container(b"", length, coded, coder=coder)


def agree(blob) -> bool:
    """The same verdict; ours may refuse what only numpy's leniency lets the trainer read."""
    mine, other = ours(blob), theirs(blob)
    return mine == other or mine is None and lenient(blob)


def lenient(blob) -> bool:
    """Whether a header has what the trainer reads all the same: sizes of 0, -1 or true, odd names, more
    keys or bytes than it needs."""
    payload = zlib.decompress(blob[20:])
    text = payload[4 : 4 + struct.unpack_from("<I", payload)[0]]
    header = json.loads(text)
    forms = [json.dumps(header, separators=form).encode() for form in ((",", ":"), (", ", ": "))]
    if text not in forms or len(header) != 2 or len(text) > artifact.MAX_HEADER - 4:
        return True
    shapes = [shape for _, shape, _ in header["tensors"]]
    odd = any(not isinstance(s, list) or any(type(n) is not int or n < 1 for n in s) for s in shapes)
    names = [name for name, _, _ in header["tensors"]]
    return odd or not isinstance(header["config"], dict) or not {*names} <= {"a", "b"}


def test_the_sound_one_is_read():
    assert ours(SOUND) == theirs(SOUND) == (CONFIG, {
        "a": ("int8t", (3, 4)), "b": ("fp16", (5,)), "c.d": ("fp32", (2, 3)),
    })  # fmt: skip
    for name in ("PREFIX", "MAGIC", "FORMAT", "MAX_UNPACKED"):
        mine, other = getattr(artifact, name), getattr(T, name)
        assert getattr(mine, "format", mine) == getattr(other, "format", other)
    assert T.CODERS == artifact.CODERS
    for encoding, dtype in T.DTYPES.items():
        scales = (2,) if encoding == "int8t" else ()
        assert artifact.ITEM_BYTES[encoding] == (np.dtype(dtype).itemsize, *scales)
    assert set(artifact.ITEM_BYTES) == {"int8", *T.DTYPES}


def test_a_real_artifact_is_read(tmp_path):
    import trainer_kit as kit

    k = kit.knobs()
    blob, _ = kit.packed(kit.random_model(k), k)
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


def test_what_brotli_packed_is_read():
    payload = zlib.decompress(SOUND[20:])
    coded, size = brotli.compress(payload), len(payload)
    assert ours(with_coded(coded, size, 2)) == ours(SOUND)
    bomb = brotli.compress(bytes(1 << 28), quality=1), 1 << 20
    for wrong in ((coded + b"x", size), (coded[:-1], size), (coded, 9), (b"", size), bomb):
        assert ours(with_coded(*wrong, 2)) is None


def test_models_of_one_layer_and_of_many_are_read():
    """One layer has no skip weights: a tensor of no rows."""
    for encoding, arrays in (
        ("fp16", [np.zeros((0, 8), "<f2")]),
        ("int8t", [np.zeros((0, 8), "i1"), np.ones(0, "<f2")]),
    ):
        blob = T.serialize(CONFIG, TENSORS | {"skip_weights": (encoding, arrays)})
        assert ours(blob) == theirs(blob) and ours(blob)[1]["skip_weights"] == (encoding, (0, 8))
    assert ours(with_header({"config": {}, "tensors": [["a", [3, 0], "fp16"]]})) is None
    attn = [f"attn.{name}" for name in ("q.weight", "k.weight", "v.weight", "proj.weight", "q_gain")]
    parts = [*attn, "mlp.fc.weight", "mlp.proj.weight", "attn_scale", "mlp_scale"]
    names = [f"blocks.{i}.{part}" for i in range(256) for part in parts]
    many = T.serialize(CONFIG, {name: ("fp16", [np.ones(2, "<f2")]) for name in names})
    assert len(ours(many)[1]) == 2304


SHAPE = st.lists(st.integers(-2, 9) | st.booleans() | st.just(1.0), max_size=3) | st.just("") | st.none()
ENTRY = st.tuples(
    st.sampled_from(["a", "b", "", 3]), SHAPE, st.sampled_from(["int8t", "fp16", "fp32", "int6", 1])
) | st.sampled_from([[], "abc", 3, ["a", [1]], ["a", [1], "int8t", 0]])


@settings(max_examples=300, deadline=None)
@given(st.lists(ENTRY, max_size=3), st.sampled_from([{}, {"a": 1}, [], None]), st.integers(0, 60))
@example([("a", [2, 3], "int8t")], {}, 10)
@example([("a", [1, 3], "int8t"), ("b", [2], "fp32")], {}, 13)
@example([("a", [], "int8t"), ("b", [1], "fp16")], {}, 5)
def test_odd_headers_get_the_same_verdict(tensors, config, size):
    assert agree(with_header({"config": config, "tensors": tensors}, bytes(size)))


@pytest.mark.slow
@pytest.mark.parametrize("header", [
    b"", b"{", b"[]", b"null", b"\xff", b"[" * 100000, b'{"config": {}}', b'{"tensors": []}',
    b'{"config": {}, "tensors": {"a": 1}}', b'{"config": {}, "tensors": [["a", [99999999999], "fp32"]]}',
    b'{"config": {}, "tensors": [["a", [' + b"9" * 5000 + b'], "fp32"]]}',
    b'{"config": {}, "tensors": [["a", [' + b"9" * 3000 + b", " + b"9" * 3000 + b'], "fp32"]]}',
    b'{"config": {}, "tensors": [["a", [' + b"9, " * 200000 + b'9], "fp32"]]}',
], ids=lambda h: str(h[:30]))  # fmt: skip
def test_broken_headers_are_refused_by_both(header):
    blob = with_header(header)
    assert ours(blob) is None and theirs(blob) is None


def test_nothing_is_inflated_beyond_what_is_stated():
    bomb = with_header(b"{}", bytes(40 << 20), length=1000)
    big = with_header(b"{}", bytes(40 << 20), length=65 << 20)
    long_header = with_header(b" " * (5 << 20))
    tracemalloc.start()
    assert ours(bomb) is None and ours(big) is None
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()
    assert ours(long_header) is None


@pytest.mark.parametrize(("place", "value"), [("<H", len(artifact.CODERS)), ("<H", 77)])
def test_other_formats_and_coders_are_told_from_damage(place, value):
    for at in (4, 6):
        blob = bytearray(SOUND)
        struct.pack_into(place, blob, at, value)
        with pytest.raises(artifact.ForeignArtifact):
            artifact.parse(bytes(blob))
        assert theirs(bytes(blob)) is None
    own = with_header({"config": {}, "tensors": [["a", [4], "int6"]]}, bytes(3))
    with pytest.raises(artifact.ForeignArtifact, match="int6"):
        artifact.parse(own)
    with pytest.raises(artifact.ArtifactError, match="begin") as error:
        artifact.parse(b"PK\3\4")
    assert not isinstance(error.value, artifact.ForeignArtifact)


# ---- Tensors and nothing else


def packed(config, tensors, **form) -> bytes:
    """A container of name -> (shape, encoding, bytes); `form` goes to json.dumps."""
    entries = [[name, shape, encoding] for name, (shape, encoding, _) in tensors.items()]
    header = json.dumps({"config": config, "tensors": entries}, **form).encode()
    return with_header(header, b"".join(block for *_, block in tensors.values()))


def tensor(block: bytes, encoding="int8t") -> dict:
    """One tensor that holds `block`, of one row, with a scale of 1."""
    size = {"int8t": 1, "fp16": 2, "fp32": 4}[encoding]
    block += bytes(-len(block) % size)
    scale = struct.pack("<e", 1.0) if encoding == "int8t" else b""
    return {"a": ([1, len(block) // size], encoding, block + scale)}


def archive(name="code.py", text="x = 1\n" * 300) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr(name, text)
    return file.getvalue()


CODE = Path(artifact.__file__).read_bytes()
GRAINS = np.random.default_rng(1).normal(0, 20, 4000).clip(-127, 127).astype("i1").tobytes()
PAYLOAD = zlib.decompress(SOUND[20:])
# A payload, one byte more than a sound one, whose last coded byte has bits to spare.
PADDED = next(z for z in (zlib.compress(PAYLOAD + bytes([i])) for i in range(99)) if z[-5] < 64)
ELF = b"\x7fELF\2\1\1" + bytes(900)
IN_TENSORS = {
    "a zip": archive(), "a zip behind noise": GRAINS + archive(), "a program": ELF,
    "a program in the middle": GRAINS + ELF + GRAINS,
    "xz": lzma.compress(GRAINS), "gzip": gzip.compress(GRAINS),
    "bzip2": GRAINS + bz2.compress(GRAINS), "a pickle": pickle.dumps(list(range(900)), 4),
    "source": CODE[:3000], "a little source": GRAINS + CODE[:400] + GRAINS,
    "base64": GRAINS + base64.b64encode(GRAINS), "UTF-16": CODE[:600].decode().encode("utf-16-le"),
    "prose": b"a reviewer reads what no machine can judge, and asks what it is for" * 3,
    "an npy file": b"\x93NUMPY\1\0" + GRAINS, "an artifact": SOUND + bytes(600),
    "a shell script": b"#!/bin/sh\n" + GRAINS,
    "a module of WebAssembly": b"\0asm\1\0\0\0" + GRAINS, "a module behind noise": GRAINS + b"\0asm\1\0\0\0",
    "another's weights": b"GGUF\3\0\0\0" + GRAINS, "HDF5": b"\x89HDF\r\n\x1a\n" + GRAINS,
    "a pack of git's": b"PACK\0\0\0\2" + GRAINS, "a pickle of letters": GRAINS + b"cos\nsystem\n(S'ls'\ntR.",
    "a tar": GRAINS + b"x.py".ljust(257, b"\0") + b"ustar\x0000",
    "safetensors": GRAINS + struct.pack("<Q", 60) + b'{"a":{"dtype":"F32","shape":[9]}}' + GRAINS,
}  # fmt: skip


@pytest.mark.parametrize("block", IN_TENSORS.values(), ids=IN_TENSORS)
@pytest.mark.parametrize("encoding", ["int8t", "fp16"])
def test_a_tensor_is_no_file_and_no_text(block, encoding):
    with pytest.raises(artifact.ArtifactError, match="file|text|NaN"):
        artifact.parse(packed({}, tensor(block, encoding)))


@pytest.mark.parametrize(("letters", "count", "shares"), [
    (b"r;q;G<H<{;p;", 600, None),  # after few steps hundreds of rows' float16 scales are nearly the same
    (b"\t=G=B=", 300, (0.9, 0.05, 0.05)),  # after three, of an untied head, most are one: a tab
])  # fmt: skip
def test_scales_that_look_like_letters_are_numbers(letters, count, shares):
    scales = np.random.default_rng(1).choice(np.frombuffer(letters, "<f2"), count, p=shares)
    artifact.parse(packed({}, tensor(scales.tobytes(), "fp16")))


def test_files_are_looked_for_across_tensors_and_behind_foreign_coders():
    zipped = archive()
    zipped += bytes(len(zipped) % 2)
    halves = {"a": ([20], "fp16", zipped[:40]), "b": ([len(zipped) // 2 - 20], "fp16", zipped[40:])}
    with pytest.raises(artifact.ArtifactError, match="file"):
        artifact.parse(packed({}, halves))
    coded = GRAINS + archive()
    with pytest.raises(artifact.ArtifactError, match="file"):
        artifact.parse(with_coded(coded, 9, 77))
    with pytest.raises(artifact.ArtifactError, match="file"):
        artifact.parse(packed({}, {"a": ([1, len(coded)], "int5", coded)}))


@pytest.mark.parametrize("letters", [b"c", b"c.", b"a", b"a\0", b"PK", b'\0\0\0\0{"a'])
def test_bytes_that_begin_again_and_again_take_no_longer(letters):
    """The patterns take time in proportion to what they read; by its square, they would not end."""
    with contextlib.suppress(artifact.ArtifactError):
        artifact.refuse_files(letters * (200_000 // len(letters)))


SOUND_HEADER = b'{"config": {}, "tensors": []}'
IN_CONTAINERS = {
    "bytes behind the coded part": with_coded(SOUND[20:] + b"x", len(PAYLOAD)),
    "a second member": with_coded(SOUND[20:] + zlib.compress(b"x" * 99), len(PAYLOAD)),
    "bits in padding": with_coded(PADDED[:-5] + bytes([PADDED[-5] | 128]) + PADDED[-4:], len(PAYLOAD) + 1),
    "bytes behind the tensors": with_header(SOUND_HEADER, b"x"),
    "a third key": with_header(b'{"config": {}, "tensors": [], "more": 1}'),
    "a key twice": with_header(b'{"config": {}, "config": {}, "tensors": []}'),
    "blanks": with_header(b'{"config": {},  "tensors": []}'),
    "a mebibyte for each KiB": packed({}, {"a": ([1, 8 << 20], "int8t", bytes(8 << 20) + b"\0\x14")}),
    "no rows, too wide for an array": packed({}, {"a": ([0, 1 << 26, 1 << 26, 1 << 26], "fp16", b"")}),
    "line ends": packed({}, {}, indent=0),
    "escapes": with_header(b'{"config": {"\\u0061": 1}, "tensors": []}'),
    "a setting twice": with_header(b'{"config": {"a": 1, "a": 1}, "tensors": []}'),
    "a nested setting": packed({"model_dim": {"a": 1}}, {}),
    "a list": packed({"model_dim": [1, 2, 3]}, {}),
    "null": packed({"model_dim": None}, {}),
    "NaN": packed({"model_dim": float("nan")}, {}),
    "infinity": packed({"model_dim": float("inf")}, {}),
    "a huge number": packed({"model_dim": 10**400}, {}),
    "digits without end": with_header(b'{"config": {"mlp_mult": 1.' + b"3" * 400 + b'}, "tensors": []}'),
    "a long word": packed({"activation": "x" * 33}, {}),
    "a word that does not print": packed({"activation": "a\nb"}, {}),
    "settings without end": packed({f"k{i}": 1 for i in range(65)}, {}),
    "a setting's odd name": packed({"a b": 1}, {}),
    "a setting's long name": packed({"a" * 41: 1}, {}),
    "a tensor's odd name": packed({}, {"a b": ([1], "fp16", bytes(2))}),
    "a tensor's long name": packed({}, {"a" * 81: ([1], "fp16", bytes(2))}),
    "no name": packed({}, {"": ([1], "fp16", bytes(2))}),
    "tensors without end": packed({}, {f"t{i}": ([1], "fp16", bytes(2)) for i in range(4097)}),
    "empty tensors": packed({}, {f"t{i}": ([0], "fp16", b"") for i in range(9)}),
    "a long header": packed({}, {f"{'t' * 70}{i}": ([1], "fp16", bytes(2)) for i in range(4000)}),
    "NaN as a scale": packed({}, {"a": ([1, 4], "int8t", bytes(4) + struct.pack("<e", float("nan")))}),
    "infinity in fp16": packed({}, tensor(struct.pack("<e", float("-inf")), "fp16")),
    "NaN in fp32": packed({}, tensor(struct.pack("<f", float("nan")), "fp32")),
}  # fmt: skip


@pytest.mark.parametrize("blob", IN_CONTAINERS.values(), ids=IN_CONTAINERS)
def test_a_container_holds_nothing_else(blob):
    with pytest.raises(artifact.ArtifactError) as error:
        artifact.parse(blob)
    assert not isinstance(error.value, artifact.ForeignArtifact)


ZEROS = zlib.decompress(packed({}, tensor(bytes(9000)))[20:])


TINY = zlib.decompress(
    packed({"model_dim": 8}, {f"w{n}": ([8, 8], "int8t", bytes(range(80))) for n in "ab"})[20:]
)


def brotli_with(data: bytes, symbols: bytes = GRAINS) -> bytes:
    """A container whose brotli stream holds `data` in a block of metadata, which decoders skip."""
    payload = zlib.decompress(packed({}, tensor(symbols))[20:])
    coder = brotli.Compressor()
    head = coder.process(payload[:99]) + coder.flush()  # which ends with a whole byte
    block = (3 << 1 | 2 << 4 | (len(data) - 1) << 6).to_bytes(3, "little") + data
    coded = head + block + coder.process(payload[99:]) + coder.finish()
    assert brotli.decompress(coded) == payload
    return with_coded(coded, len(payload), 2)


@pytest.mark.parametrize(("blob", "word"), [
    (packed({"wisdom": 3}, {}), "wisdom"), (packed({"activation": "hello"}, {}), "activation"),
    (packed({}, {f"v{base64.b32encode(GRAINS[i:i + 9])[:12].decode()}": ([1], "fp16", bytes(2))
                 for i in range(0, 200, 9)}), "names"),
    (with_coded(zlib.compress(ZEROS, 0), len(ZEROS)), "coder"), (SOUND, ""),
    (brotli_with(GRAINS), "coder"),
    (with_coded(zlib.compress(TINY, 0), len(TINY)), "coder"),
    (with_coded(zlib.compress(TINY), len(TINY)), ""),
])  # fmt: skip
def test_what_a_reviewer_must_see(blob, word):
    found = artifact.parse(blob).doubts
    assert len(found) == bool(word) and word in "".join(found)


def test_what_a_good_encoder_saves_is_no_room_for_what_decoders_skip():
    """Columns of two widths: brotli's best needs 9 % less than the quality that bounds the length."""
    widths = np.where(np.arange(512) % 2, 3, 30)
    symbols = (np.random.default_rng(7).normal(0, 1, (400, 512)) * widths).clip(-127, 127).astype("i1")
    for size in (1000, 9000):
        blob = brotli_with((GRAINS * 3)[:size], symbols.tobytes())
        assert len(blob) < artifact.usual_length(blob, artifact.unpack(blob))
        assert ("coder" in " ".join(artifact.parse(blob).doubts)) == (size > 8000)


# ---- Tensors that are no weights

GAUSS = np.random.default_rng(5).normal(0, 25, (64, 128)).clip(-127, 127).astype("i1")
SCALES = np.full(64, 2e-3, "<f2")
SPOKEN = np.frombuffer((REPO / "docs/track_spec.md").read_bytes()[:8192], "u1")
EVEN = np.random.default_rng(6).integers(-127, 128, 8192)
# Data as float16: sign and mantissa are its own, and so are the exponents, of 2**-12 to 2**7.
SPREAD = np.random.default_rng(8).integers(3 << 10, 23 << 10, 8192) | EVEN % 2 << 15


def built(tensors, arrays, config=None):
    return with_header(json.dumps(dict(config=config or {}, tensors=tensors)).encode(), arrays)


def matrix(symbols=GAUSS, scales=SCALES, config=None):
    arrays = np.asarray(symbols).astype("i1").tobytes() + np.asarray(scales, "<f2").tobytes()
    return built([["w", [64, 128], "int8t"]], arrays, config)


def scaled(scales):
    """4,096 rows of two symbols, with these scales as uint16."""
    return built([["w", [4096, 2], "int8t"]], GAUSS.tobytes() + np.asarray(scales).astype("<u2").tobytes())


def vectors(numbers):
    """The same numbers (uint16) in vectors too small to be judged alone."""
    return built([[f"g{i}", [256], "fp16"] for i in range(32)], np.asarray(numbers).astype("<u2").tobytes())


def floats(values, encoding="fp32"):
    values = np.asarray(values)
    number = values if values.dtype.kind == "u" else values.astype("<f4" if encoding == "fp32" else "<f2")
    return built([["g", [values.size], encoding]], number.tobytes())


@pytest.mark.parametrize(("blob", "word"), [
    (matrix(SPOKEN ^ 0x80), "repeats"), (matrix(SPOKEN.astype(int) - 64), "repeats"),
    (matrix(np.tile(GAUSS[:1], (64, 1))), "repeats"),
    *((matrix(LETTERS), "letters") for LETTERS in (
        SPOKEN.reshape(128, 64).T ^ 0x80, SPOKEN.astype(int)[np.random.default_rng(3).permutation(8192)] - 64,
        np.where(np.arange(8192) % 2, GAUSS.reshape(-1), SPOKEN.astype(int) - 64))),
    *((matrix(EVEN % 2**bits - 2 ** (bits - 1)), "even") for bits in (4, 5, 6, 7)),
    (matrix(EVEN), "even"), (matrix(np.where(GAUSS > 60, -128, GAUSS)), "beyond 127"),
    (matrix(config=dict(quant_bits=6)), "beyond 31"),
    (matrix(scales=-SCALES), "below 0"), (matrix(scales=np.full(64, 6e-8)), "next to 0"),
    (matrix(0 * GAUSS, scales=np.full(64, -0.0)), "below 0"),
    (floats(EVEN), "whole"), (floats((EVEN + 128).astype("<u4")), "whole"),
    (floats(EVEN % 1000, "fp16"), "whole"),
    (floats((EVEN + 128).astype("<u2"), "fp16"), "vanishing"), (floats(EVEN * 1e30), "huge"),
    (floats(np.where(EVEN % 2, -0.0, 0.0)), "whole"), (floats(SPOKEN / 100), "few different"),
    (floats(np.arange(8192) % 256 / 1000), "few different"),
    (floats(np.append(np.linspace(-1, 1, 65536), EVEN.repeat(9))), "whole"),
    (floats(SPREAD.astype("<u2"), "fp16"), "exponents"), (vectors(SPREAD), "joined, have exponents"),
    (floats((SPREAD.astype("<u4") << 16) + (32 << 23)), "exponents"),
    (scaled(SPREAD[:4096] % 2**15), "exponents"), (scaled(0x1800 + SPOKEN[:4096].astype(int)), "lower bytes"),
    (vectors(0xB800 + SPOKEN.astype(int)), "lower bytes"),
    (floats(np.frombuffer(np.insert(SPOKEN, range(3, 8193, 3), 0xBD)[:8192], "<u4")), "lower bytes"),
    (built([[f"layer.{n}.of.{n * n % 99991}", [1], "fp16"] for n in range(10000, 10200)], bytes(400)),
     "digits in the tensors' names"),
    (built([[f"b{i}", [8, 32], "int8t"] for i in range(32)],
           (SPOKEN ^ 0x80).tobytes() + np.full(256, 2e-3, "<f2").tobytes()), "small tensors, joined"),
    *((matrix(config=dict([setting])), "make no model") for setting in (
        ("num_layers", True), ("num_heads", 0), ("vocab_size", 1e12), ("rope_base", 1e-300))),
    (matrix(config={f"k{n}": n / 7 for n in range(9)}), "digits"),
    (built([[a + b, [1], "fp16"] for a in "wax mad tin oak elm".split() for b in map("".join,
      itertools.product("bcdfg", "aeiou"))], bytes(250)), "different words"),
], ids=lambda v: v if isinstance(v, str) else "")  # fmt: skip
def test_tensors_that_are_no_weights_go_to_a_reviewer(blob, word):
    assert word in " ".join(artifact.parse(blob).doubts)


def test_a_row_without_a_scale_holds_no_symbols():
    with pytest.raises(artifact.ArtifactError, match="row 3, whose scale is 0"):
        artifact.parse(matrix(scales=np.where(np.arange(64) == 3, 0, SCALES)))


@pytest.mark.parametrize("blob", [
    matrix(),
    matrix(np.where(np.arange(64)[:, None] < 30, 0, GAUSS), np.where(np.arange(64) < 30, 0, SCALES)),
    floats(np.ones(512)), floats(np.zeros(512)), floats(np.linspace(-1e-3, 1e-3, 512), "fp16"),
    floats(np.random.default_rng(1).normal(1, 0.1, 512)), floats([4.0, 2.0, 30.0]),
], ids=range(7))  # fmt: skip
def test_weights_do_not(blob):
    assert artifact.parse(blob).doubts == ()


DRAWN = np.random.default_rng(7)


def test_what_the_trainers_packer_needs_is_no_more_than_needed():
    """It looks for runs alone, so of rows that are nearly alike it makes more than zlib's default does."""
    rows = np.tile(GAUSS[:1], (64, 1)) + (DRAWN.random((64, 128)) < 0.3)
    blob = T.serialize({}, {"w": ("int8t", [rows.astype("i1"), SCALES])})
    assert len(blob) > 1.01 * len(zlib.compress(zlib.decompress(blob[20:]))) + 120
    assert not any("coder" in doubt for doubt in artifact.parse(blob).doubts)


@pytest.mark.parametrize("mean, deviation", [(33, 1), (45, 2), (60, 8), (90, 10), (80, 14)])
def test_a_column_whose_weights_are_much_alike_is_no_text(mean, deviation):
    """Loud channels of the embedding are such: all of their symbols may be printable."""
    column = np.random.default_rng(0).normal(mean, deviation, 1024).round().clip(-127, 127).astype("i1")
    artifact.refuse_files(column.tobytes())
    with pytest.raises(artifact.ArtifactError, match="text"):
        artifact.refuse_files(b"".join(b"%d " % number for number in abs(column)))
