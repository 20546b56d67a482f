"""Reads an artifact's container with the standard library alone: is it sound, what is in it?

The format is defined by the trainer's `Artifact` section (train_gpt.py); a test holds the two
together on the same bytes. 20 bytes (magic, format, coder, unpacked length, CRC-32 of the rest),
then the coded payload: uint32 length of a JSON header, the header, raw arrays.

It holds tensors and nothing else: so no byte more than these need, a header in the one form that
Python's json.dumps writes, known settings with plain values, and no file or text as a tensor.
"""

import itertools
import json
import math
import re
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from golf.core.files import plain
from golf.core.json_io import refuse_constant
from golf.core.packages import missing
from golf.core.text import unreadable

PREFIX, MAGIC, FORMAT, MAX_UNPACKED = struct.Struct("<4sHHQI"), b"PGLA", 1, 64 << 20
CODERS = ("", "zlib", "brotli")  # by their number in the prefix
MAX_HEADER = 256 << 10  # the starter's has 3,000 bytes, 256 layers take 150,000
MAX_TENSORS = 4096  # the starter has 62, 256 layers 2,308
MAX_RATIO = 64  # trained weights pack to a tenth at most; else reading takes minutes
MAX_RANK = 8  # the product of a million sizes would, too
# Bytes an element of a tensor's arrays: symbols [*shape] and scales [rows], or floats [*shape]. int8t is of a
# matrix's transpose, so that a scale belongs to a column; older entries have int8.
ITEM_BYTES = {"int8": (1, 2), "int8t": (1, 2), "fp16": (2,), "fp32": (4,)}

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*")
NAME_LENGTH = 80
# What may stand in the configuration without a question: the starters' settings, and common ones. First those
# that count something.
COUNTS = frozenset("""vocab_size num_layers model_dim num_heads num_kv_heads train_seq_len eval_seq_len
    eval_stride n_layer n_head n_embd block_size head_dim hidden_dim""".split())  # fmt: skip
CONFIG_KEYS = COUNTS | set("""mlp_mult tie_embeddings rope_base logit_softcap num_loops num_experts top_k
    window_size qk_gain_init rope_dims activation norm dropout bias dtype quant_bits
    followers""".split())  # fmt: skip
CONFIG_WORDS = frozenset("""relu relu2 gelu silu swiglu geglu tanh none rms layer float32 float16 bfloat16
    int8 auto""".split())  # fmt: skip
CONFIG_LIMIT = 64  # settings
# What a reviewer is asked about, over so many; the starter has 0 characters, 14 words and 30 digits.
NAME_NOISE, NAME_WORDS, CONFIG_DIGITS = 100, 80, 100
# The first bytes of files, at the start of an array; and longer ones, anywhere.
STARTS = (
    b"PK\3\4", b"PK\5\6", b"\x7fELF", b"MZ\x90\0", b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ", b"7z\xbc\xaf",
    b"(\xb5/\xfd", b"\x80\x02}", b"\x80\x02]", b"\x80\x02(", b"\x80\x02c", b"\x80\x03}", b"\x80\x03]",
    b"\x80\x03(", b"\x80\x03c", b"\x80\x04\x95", b"\x80\x05\x95", b"\x89PNG", b"%PDF", b"SQLite", b"PGLA",
    b"#!/", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"Rar!", b"\x93NUMPY", b"\x04\x22\x4d\x18",
    b"\0asm", b"GGUF", b"\x89HDF", b"PACK\0\0\0", b"ARROW1", b"PAR1",
)  # fmt: skip
ANYWHERE = re.compile(
    rb"PK\x03\x04..[\x00-\x0f]\x00|PK\x01\x02....[\x00-\x0f]\x00|PK\x05\x06\x00\x00\x00\x00"
    rb"|\x7fELF[\x01\x02][\x01\x02]\x01|\xfd7zXZ\x00|7z\xbc\xaf\x27\x1c|BZh[1-9]1AY&SY"
    rb"|\x1f\x8b\x08[\x00-\x1f].{4}[\x00\x02\x04]|\x80[\x04\x05]\x95.{6}\x00\x00|\x89PNG\r\n"
    rb"|\x93NUMPY|ustar(?:\x0000|  \0)|SQLite format|GGUF[\x01-\x03]\0\0\0|\x89HDF\r\n|\0asm\x01\0\0\0"
    rb"|c[a-z_.]{2,60}\n[A-Za-z_]{2,60}\n[(\x85-\x87]|.{4}\0{4}\{\"[\w.]+\":\{\"dtype\"",
    re.DOTALL,
)
# Text: a run of printable bytes that holds as many blanks as text does, or that is very long.
PRINTABLE = re.compile(rb"[\t\n\r -~]{120,}")
WIDE = re.compile(rb"(?:[\t\n\r -~]\x00){60,}")
LONG_RUN, BLANKS = 1024, 0.06
# Of a column whose weights are much alike: from a blank to less than a 9; spread of 1,024 printable symbols.
NARROW, GATHERED = 25, 15


class ArtifactError(ValueError):
    """The bytes are not a valid artifact; the message says why."""


class ForeignArtifact(ArtifactError):
    """A whole container whose format, coder or encoding only the submission's own code knows."""


@dataclass(frozen=True)
class Artifact:
    """What a container holds: the model's configuration, and shape and encoding by tensor name."""

    config: dict
    tensors: dict[str, tuple[str, tuple[int, ...]]]
    doubts: tuple[str, ...] = ()  # what a reviewer must see


def read(path: Path) -> Artifact:
    """The artifact in a file; ArtifactError says what is wrong with it."""
    size = plain(path).stat().st_size
    need(size <= MAX_UNPACKED, f"{size:,} bytes, over {MAX_UNPACKED:,}")
    return parse(path.read_bytes())


def parse(blob: bytes) -> Artifact:
    """The artifact in `blob`, which may be anyone's; no more than the stated length is inflated."""
    payload = unpack(blob)
    need(len(payload) >= 4, "has no header")
    length = 4 + struct.unpack_from("<I", payload)[0]
    refuse_files(payload[length:])
    config, entries = read_header(payload[4:length], length)
    tensors = {name: (encoding, shape) for name, shape, encoding in entries}
    need(len(tensors) == len(entries), "a tensor's name stands twice")
    need(sum(0 in shape for _, shape, _ in entries) <= 1, "more than one tensor has no rows")
    held = length + sum(array_bytes(shape, encoding) for _, shape, encoding in entries)
    need(held == len(payload), f"its tensors take {held:,} bytes, there are {len(payload):,}")
    found = doubts(config, list(tensors))
    symbols, small, high = {}, bytearray(), Counter()
    for name, encoding, array in arrays(payload, length, entries):
        need(not array.startswith(STARTS) or len(array) < 512, f"tensor {name} begins as a file does")
        need(finite(array, encoding), f"tensor {name} holds NaN or infinity")
        if encoding == "int8":
            symbols[name] = array
            doubt = odd_symbols(array, config, math.prod(tensors[name][1][1:]))
            small += array if len(array) < ENOUGH else b""
        else:
            size = ITEM_BYTES[encoding][0]
            high += (exponents := Counter(array[size - 1 :: size]))
            odd = odd_scales(name, array, symbols.pop(name)) if name in symbols else odd_floats(array, size)
            doubt = odd or odd_bytes(array, size, exponents)
        found += [f"tensor {name} {doubt}"] if doubt and len(found) < DOUBTS else []
    if doubt := odd_symbols(bytes(small), {}, len(small)):
        found.append(f"the small tensors, joined, are as one that {doubt}")
    if even(high, EXPONENT_GAP):
        found.append("its floats and scales, joined, have exponents as even as compressed data")
    if len(blob) > usual_length(blob, payload) or idle(blob) > 0.01 * len(blob) + 4096:
        found.append(f"{len(blob):,} bytes, more than its coder needs: what does the coding hold?")
    return Artifact(config, tensors, tuple(found))


def read_header(blob: bytes, length: int) -> tuple[dict, list[tuple[str, tuple[int, ...], str]]]:
    """Configuration and tensors of a JSON header, which has the form that json.dumps gives it."""
    need(length <= MAX_HEADER, f"its header has {length:,} bytes, over {MAX_HEADER:,}")
    try:
        header = json.loads(blob, parse_constant=refuse_constant)
        forms = [json.dumps(header, separators=form) for form in ((",", ":"), (", ", ": "))]
        config, tensors = header["config"], header["tensors"]
        need(sorted(header) == ["config", "tensors"], "its header has more than config and tensors")
        need(blob.decode("ascii") in forms, "its header is not as json.dumps writes it, keys once, no spaces")
        need(isinstance(config, dict) and isinstance(tensors, list), "its header has other types")
        need(len(tensors) <= MAX_TENSORS, f"{len(tensors):,} tensors, over {MAX_TENSORS:,}")
        entries = [read_entry(*entry) for entry in tensors]
    except ArtifactError:
        raise
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ArtifactError("its header is not what the format says") from None
    read_config(config)
    return config, entries


def read_config(config: dict) -> None:
    """Settings are few, and each is a number, a truth value or a short word."""
    need(len(config) <= CONFIG_LIMIT, f"{len(config)} settings, over {CONFIG_LIMIT}")
    for key, value in config.items():
        need(NAME.fullmatch(key) and len(key) <= 40, "a setting has no plain name")
        number = isinstance(value, (bool, int, float)) and abs(value) <= 1e12
        word = isinstance(value, str) and len(value) <= 32 and value.isprintable()
        need(number or word, f"setting {key} is no number up to 1e12, no truth value and no short word")


def doubts(config: dict, names: list[str]) -> list[str]:
    """What is valid but asks a reviewer: unknown settings, and names that hold data."""
    unknown = [key for key in config if key not in CONFIG_KEYS]
    words = [key for key, v in config.items() if isinstance(v, str) and v not in CONFIG_WORDS]
    noise = sum(map(unreadable, [*names, *config]))
    found = []
    if unknown:
        found.append(f"settings that the starters do not have: {', '.join(unknown[:8])}")
    if words:
        found.append(f"settings with words of their own: {', '.join(words[:8])}")
    if noise > NAME_NOISE:
        found.append(f"{noise} characters of names that no person reads")
    parts = {part for name in names for part in re.findall("[A-Za-z]{3,}", name)}
    if (numbered := sum(map(str.isdigit, "".join(names)))) > 100 + len(names) * (3 + len(str(len(names)))):
        found.append(f"{numbered} digits in the tensors' names")
    if len(parts) > NAME_WORDS:
        found.append(f"{len(parts)} different words in the tensors' names")
    odd = [k for k in COUNTS & config.keys() if type(config[k]) is not int or not 0 < config[k] <= 1e6]
    odd += [k for k, v in config.items() if type(v) is float and (abs(v) < 1e-9 and str(v) != "0.0")]
    if odd:
        found.append(f"settings that make no model: {', '.join(sorted(odd))}")
    digits = sum(len(re.sub("[^0-9]", "", str(v))) for v in config.values() if type(v) is not bool)
    if digits > CONFIG_DIGITS:
        found.append(f"settings of {digits} digits")
    return found


def unpack(blob: bytes) -> bytes:
    """The payload, inflated no further than its stated length."""
    need(blob.startswith(MAGIC[: len(blob)]), f"does not begin with {MAGIC!r}")
    need(len(blob) >= PREFIX.size, f"{len(blob)} bytes, and its head alone has {PREFIX.size}: is it whole?")
    _, version, coder, length, crc = PREFIX.unpack_from(blob)
    coded = memoryview(blob)[PREFIX.size :]
    need(length <= MAX_UNPACKED, f"unpacks to {length:,} bytes, over {MAX_UNPACKED:,}")
    need(zlib.crc32(coded) == crc, "wrong CRC-32: damaged, or changed by hand")
    if version != FORMAT or coder not in range(1, len(CODERS)):
        refuse_files(bytes(coded))
        raise ForeignArtifact(f"format {version}, coder {coder}: not this repository's own")
    need(length <= MAX_RATIO * len(blob) + (1 << 20), f"unpacks to over {MAX_RATIO} times its bytes")
    payload, rest, whole = inflate(coded, length, brotli_of(blob))
    need(len(payload) == length and whole, "does not unpack to its stated length")
    need(not rest, f"{len(rest):,} bytes behind its coded part")
    if CODERS[coder] == "zlib":  # brotli's decoder refuses such bits itself
        need(zero_padded(coded, payload), "the last bits of its coded part are not 0")
    return payload


def usual_length(blob: bytes, payload: bytes) -> float:
    """Bytes that its coder needs for a payload, and a little more: there are better and worse encoders, and
    ways to hide data from all decoders (blocks without output, a match where another would do)."""
    if brotli := brotli_of(blob):
        return 1.01 * len(brotli.compress(payload, quality=9)) + PREFIX.size + 16
    usual = 1.01 * len(zlib.compress(payload)) + PREFIX.size + 16
    packer = zlib.compressobj(memLevel=9, strategy=zlib.Z_RLE)  # as the trainers pack
    as_packed = len(blob) > usual and blob[PREFIX.size :] == packer.compress(payload) + packer.flush()
    return len(blob) if as_packed else usual


def idle(blob: bytes) -> int:
    """Coded bytes, by sixteens, of which nothing is made: tables, and blocks that decoders skip."""
    decode = inflater(blob)
    return sum(16 for at in range(PREFIX.size, len(blob), 16) if not decode(blob[at : at + 16]))


def inflate(coded, length: int, brotli=None) -> tuple[bytes, bytes, bool]:
    """(unpacked bytes, bytes after the end of the stream, whether the end was reached), by zlib, or by the
    module brotli, whose decoder itself refuses bytes after the end."""
    decoder = brotli.Decompressor() if brotli else zlib.decompressobj()
    try:
        if brotli:
            return decoder.process(bytes(coded), output_buffer_limit=length + 1), b"", decoder.is_finished()
        return decoder.decompress(coded, length + 1), decoder.unused_data, decoder.eof
    except (brotli or zlib).error:
        raise ArtifactError("its coded part does not unpack") from None


def inflater(blob: bytes) -> Callable[[bytes], bytes]:
    """What turns the coded bytes of a sound artifact, piece by piece, into those that they make."""
    brotli = brotli_of(blob)
    return brotli.Decompressor().process if brotli else zlib.decompressobj().decompress


def brotli_of(blob: bytes):
    """The module, if this is its coder; else None."""
    if CODERS[PREFIX.unpack_from(blob)[2]] != "brotli":
        return None
    try:
        import brotli
    except ImportError:
        raise missing("brotli") from None
    return brotli


def zero_padded(coded, payload: bytes) -> bool:
    """Whether the bits between the last block and the checksum, which nobody reads, are 0.

    If they are, the highest bit that is set belongs to the last block: with it cleared, the coded
    part must not unpack to the same any more.
    """
    last = coded[-5]
    if not last:
        return True
    changed = bytearray(coded)
    changed[-5] = last & ~(1 << (last.bit_length() - 1))
    try:
        return inflate(changed, len(payload)) != (payload, b"", True)
    except ArtifactError:
        return True


def read_entry(name, shape, encoding) -> tuple[str, tuple[int, ...], str]:
    sizes = isinstance(shape, list) and len(shape) <= MAX_RANK
    sizes = sizes and all(type(n) is int and 0 <= n <= MAX_UNPACKED for n in shape)
    sizes = sizes and 0 < math.prod(shape[1:]) <= MAX_UNPACKED  # no rows: one layer has no skip weights
    need(isinstance(name, str) and sizes and isinstance(encoding, str), "a tensor has no such shape")
    need(NAME.fullmatch(name) and len(name) <= NAME_LENGTH, "a tensor has no plain name")
    if encoding not in ITEM_BYTES:
        raise ForeignArtifact(f"encoding {encoding[:40]!r}: not this repository's own")
    return name, tuple(shape), encoding


def holds_file(block: bytes) -> bool:
    """Whether bytes begin as a file of a known format does, or one lies in them."""
    return block.startswith(STARTS) or bool(ANYWHERE.search(block))


def refuse_files(block: bytes) -> None:
    """ArtifactError where bytes that should be numbers hold a file or text."""
    need(not ANYWHERE.search(block), "a file lies among its tensors")
    for match in [*PRINTABLE.finditer(block), *WIDE.finditer(block)]:
        run = match[0].replace(b"\0", b"")
        blanks = sum(map(run.count, (b" ", b"\t", b"\n")))
        alike = min(len(set(run[0::2])), len(set(run[1::2]))) <= 4  # float16 scales: their high bytes
        long = len(run) >= LONG_RUN and not alike and not is_column(run)
        same = all(2 * max(map(half.count, set(half))) > len(half) for half in (run[0::2], run[1::2]))
        same |= max(run) - min(run) < NARROW
        need(not long and (same or blanks < BLANKS * len(run)), "text lies among its tensors")


def is_column(run: bytes) -> bool:
    """Whether bytes may be symbols of a column whose weights are much alike: they gather about one number."""
    mean = sum(run) / len(run)
    variance = sum((byte - mean) ** 2 for byte in run) / len(run)
    return variance < GATHERED**2 and up_and_down(Counter(run)) <= JAGGED


def arrays(payload: bytes, at: int, entries: list) -> Iterator[tuple[str, str, memoryview]]:
    """Name, number format and bytes of each array: all first ones, then all scales."""
    view = memoryview(payload)
    for part in (0, 1):
        for name, shape, encoding in entries:
            for size in ITEM_BYTES[encoding][part : part + 1]:
                count = size * math.prod(shape[:1] if part else shape)
                yield name, {1: "int8", 2: "fp16", 4: "fp32"}[size], bytes(view[at : at + count])
                at += count


# What weights are not, though nothing forbids it: each is a way to hold something else.
DOUBTS, SAMPLE = 12, 1 << 16  # doubts told; floats looked at in a tensor
SMALLEST = {2: 2**-14, 4: 1e-12}  # below are bits more than numbers
VANISHING = 1e-6  # as a scale
ENOUGH = 4096  # elements that say what a tensor holds
FEW_VALUES = 256  # different ones at most, of ENOUGH floats: a table or text; all alike are none
EVEN_BITS, REPEATING = 7.75, 0.9  # the starter's tensors have up to 7.3 bits a symbol; zlib needs 1.0 of that
EVEN_GAP = 0.2  # bits a symbol less than if all that occur were alike; trained matrices have over 0.5
EXPONENT_GAP = 0.6  # the same, of floats' highest bytes: trained models have over 1.4
JAGGED = 0.4  # how far the symbols' shares go up and down, beside one peak: trained matrices up to 0.14


def odd_symbols(array: bytes, config: dict, width: int) -> str:
    """Why int8 symbols look odd: as even as compressed data, as repetitive as text, or out of range.

    Barely trained weights are as even, since PyTorch draws them so, and a reviewer is asked in vain. No
    exception is made for them, as data can be brought to whatever would tell such weights from it.
    """
    bits = config.get("quant_bits")
    top = 2 ** (bits - 1) - 1 if type(bits) is int and 2 <= bits <= 8 else 127
    if any(min(symbol, 256 - symbol) > top for symbol in set(array)):
        return f"has symbols beyond {top}"
    array = array.replace(bytes(16), b"")  # dead rows
    if len(array) < ENOUGH:
        return ""
    counts = Counter(array)
    entropy = bits_each(counts)
    if entropy > EVEN_BITS or even(counts):
        return f"has symbols as even as compressed data, {entropy:.2f} bits each"
    packed = 8 * len(zlib.compress(array, 6)) / len(array)
    if 1 < entropy and packed < REPEATING * min(entropy, entropy_by_size(array, width)):
        return "repeats itself as text does, or a table"
    return "has common symbols beside rare ones, as letters are" if up_and_down(counts) > JAGGED else ""


def up_and_down(counts: Counter) -> float:
    """How far the symbols' shares go up and down, beside one peak."""
    heights = [counts[symbol % 256] / counts.total() for symbol in range(-129, 129)]
    return sum(abs(a - b) for a, b in itertools.pairwise(heights)) - 2 * max(heights)


def entropy_by_size(array: bytes, width: int) -> float:
    """Entropy in bits a symbol if one knows which eighth of the rows it is in, by symbols' size: a trained
    matrix has rows of finer steps, to which zlib adapts."""
    rows = [array[at : at + width] for at in range(0, len(array), width)]
    rows.sort(key=lambda row: sum(min(symbol, 256 - symbol) for symbol in row))
    eighth = -(-len(rows) // 8)
    parts = [Counter(b"".join(rows[at : at + eighth])) for at in range(0, len(rows), eighth)]
    return sum(bits_each(part) * part.total() for part in parts) / len(array)


def bits_each(counts: Counter) -> float:
    total = counts.total()
    return -sum(n * math.log2(n / total) for n in counts.values()) / total


def even(counts: Counter, gap: float = EVEN_GAP) -> bool:
    """Whether enough bytes, of enough kinds to tell, are about equally common."""
    return counts.total() >= ENOUGH and len(counts) >= 16 and math.log2(len(counts)) - bits_each(counts) < gap


def odd_scales(name: str, scales: bytes, symbols: bytes) -> str:
    """Why fp16 row scales look odd: negative, or so small that symbols other than 0 vanish."""
    width, odd = len(symbols) // max(1, len(scales) // 2), ""
    for row, (value,) in enumerate(struct.iter_unpack("<e", scales)):
        if abs(value) < VANISHING and any(symbols[row * width : (row + 1) * width]):
            need(value, f"tensor {name} has symbols in row {row}, whose scale is 0")
            odd = "has scales next to 0 in rows of symbols"
        elif math.copysign(1, value) < 0:
            odd = odd or "has scales below 0"
    return odd


def odd_floats(array: bytes, size: int) -> str:
    """More than a few numbers that are whole, huge, -0, or too small for what they multiply."""
    every = 256 * (1 + len(array) // (size * SAMPLE))
    sample = b"".join(array[at : at + 256] for at in range(0, len(array), every))
    count = len(sample) // size
    values = struct.unpack(f"<{count}{'e' if size == 2 else 'f'}", sample)
    odd = [v for v in values if abs(v) > 1e4 or 0 < abs(v) < SMALLEST[size] or v == int(v) and abs(v) > 1]
    odd += [v for v in values if v == 0 and math.copysign(1, v) < 0]
    if len(odd) > max(32, count / 4):
        return "holds whole, huge or vanishing numbers"
    return "holds few different numbers" if count >= ENOUGH and 2 < len(set(values)) <= FEW_VALUES else ""


def odd_bytes(array: bytes, size: int, exponents: Counter) -> str:
    """Floats whose highest bytes are as even as lower ones are in weights, or whose lower ones are text."""
    lower = bytearray(array)
    del lower[size - 1 :: size]
    for run in (match[0] for match in PRINTABLE.finditer(lower)):
        if len(set(run)) >= 16 and sum(byte in b" \t\n" for byte in run) >= BLANKS * len(run):
            return "holds text in its lower bytes"
    return "has exponents as even as compressed data" if even(exponents, EXPONENT_GAP) else ""


def finite(array: bytes, encoding: str) -> bool:
    """Whether no float has all exponent bits set."""
    if encoding == "fp16":
        return not re.search(rb"[\x7c-\x7f\xfc-\xff]", array[1::2])
    if encoding == "fp32":
        third = array[2::4]
        return not any(third[m.start()] >> 7 for m in re.finditer(rb"[\x7f\xff]", array[3::4]))
    return True


def array_bytes(shape: tuple[int, ...], encoding: str) -> int:
    """Bytes of a tensor's arrays; the second one, if any, has an element a row."""
    sizes = (math.prod(shape), math.prod(shape[:1]))
    return sum(size * count for size, count in zip(ITEM_BYTES[encoding], sizes))


def need(holds: bool, message: str) -> None:
    if not holds:
        raise ArtifactError(message)
