"""Packed scripts: what PACK_SCRIPT=1 ships, read without running it.

A packed script is a stub of two lines around the real script: its syntax tree without docstrings, unparsed
(and so without comments), compressed by lzma and written in base85. It counts, and it is what scores. The
script that it was made from lies beside it for people to read, and does not count.
"""

import ast
import base64
import io
import lzma
import re
import tokenize
import warnings
from functools import cache
from pathlib import Path

from golf.core.files import read_bytes

SUFFIX = ".packed.py"
SOURCE_LIMIT = 256 << 10  # bytes of a script that anybody reads
MEMORY_LIMIT = 80 << 20  # bytes that unpacking may take; preset 9 takes 65 MiB
PRESET = 9 | lzma.PRESET_EXTREME
# Exactly what the trainers write: no other code can stand beside the text.
STUB = re.compile(
    rb"import base64, lzma\n"
    rb"exec\(compile\(lzma\.decompress\(base64\.b85decode\(\"([0-9A-Za-z!#$%&()*+;<=>?@^_`{|}~-]+)\"\)\),"
    rb' __file__, "exec"\)\)\n'
)
HEAD = 24  # bytes of an .xz stream that say its checks and filters
SLACK = 64  # bytes, and 2 %, that other versions of liblzma and of ast.unparse may need more


class NotPacked(ValueError):
    """Why the bytes are no packed script, in a few words."""


def packed_name(name: str) -> str:
    """train_gpt.py as train_gpt.packed.py."""
    return name.removesuffix(".py") + SUFFIX


def source_name(name: str) -> str:
    """train_gpt.packed.py as train_gpt.py; another name as it is."""
    return name.removesuffix(SUFFIX) + ".py" if name.endswith(SUFFIX) else name


def read_source(path: Path) -> bytes:
    """The source that a script runs: its bytes, unpacked if it is a packed script. Raises NotPacked."""
    blob = read_bytes(path)
    return unpack(blob) if path.name.endswith(SUFFIX) else blob


def unpack(script: bytes) -> bytes:
    """The source that a packed script runs: plain UTF-8, no comments. Raises NotPacked."""
    stub = STUB.fullmatch(script)
    if stub is None:
        raise NotPacked("is not the two lines that PACK_SCRIPT=1 writes")
    try:
        stream = base64.b85decode(stub[1])
        decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, MEMORY_LIMIT)
        source = decoder.decompress(stream, SOURCE_LIMIT + 1)
    except (ValueError, lzma.LZMAError, EOFError) as error:
        raise NotPacked(f"does not unpack: {error}") from None
    if len(source) > SOURCE_LIMIT:
        raise NotPacked(f"unpacks to over {SOURCE_LIMIT:,} bytes")
    if not decoder.eof or decoder.unused_data or base64.b85encode(stream) != stub[1]:
        raise NotPacked("holds more or less than its source")
    if stream[:HEAD] != head():
        raise NotPacked("is compressed in another way than PACK_SCRIPT=1 does")
    refuse_comments(source)
    return source


@cache
def head() -> bytes:
    """How a stream begins; however short it is, to make one takes 30 ms."""
    return lzma.compress(b"\n", preset=PRESET)[:HEAD]


def refuse_comments(source: bytes) -> None:
    """NotPacked for comments, which packing removes: they could hold data, or set an encoding."""
    try:
        text = source.decode("utf-8")
        plain = all(c.isprintable() or c in "\n\t" for c in text)
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline)) if plain else []
    except (UnicodeDecodeError, tokenize.TokenError, SyntaxError):
        raise NotPacked("holds no Python source") from None
    if not plain or any(token.type == tokenize.COMMENT for token in tokens):
        raise NotPacked("holds comments or control characters, which packing leaves out")


def fault(script: bytes, source: bytes) -> str | None:
    """Why `script` is not `source` packed; None if it is. The length is checked beside the syntax tree, since
    spaces, spellings of numbers and blocks of the stream could hide data."""
    try:
        tree, plain = parse(unpack(script)), plain_tree(source)
        if ast.dump(tree) != ast.dump(plain):
            return "runs other code than its source"
        usual = lzma.compress(ast.unparse(plain).encode(), preset=PRESET)
    except NotPacked as error:
        return str(error)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "does not parse, or its source does not"
    if 0.8 * len(STUB.fullmatch(script)[1]) > 1.02 * len(usual) + SLACK:
        return "is longer than what PACK_SCRIPT=1 makes of its source"
    imports = (alias for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names)
    own = {alias.asname or alias.name for alias in imports}
    lent = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} & {"base64", "lzma"} - own
    return f"uses the stub's {min(lent)}, which its source does not import" if lent else None


def parse(source: bytes) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd escapes in strings
        return ast.parse(source)


def plain_tree(source: bytes) -> ast.Module:
    """The syntax tree without docstrings, as the trainers' pack_script makes it."""
    tree = parse(source)
    for node in ast.walk(tree):
        documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        if documented and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree
