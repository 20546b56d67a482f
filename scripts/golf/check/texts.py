"""Which texts a reviewer must see: names of places, files that an import finds, letters put together.

A text is judged as it stands, with what its names stand for (origins.py). What makes a text of other texts or
of numbers is reported whatever it makes: nobody sees that.
"""

import ast
import codecs
import copy
import re
import string
from collections.abc import Iterable

from golf.check.origins import Origins
from golf.check.syntax import called, constants, every_node, name_of, stored, text_of

DUNDER = re.compile(r"__\w+__")
DUNDER_PART = re.compile(r"(?<!\w)__\w+|\w+__(?!\w)")  # of a name that is put together, perhaps

# A text that names a place outside the run, or a secret of the machine that it runs on.
PLACES = """proc sys dev etc home root usr var tmp opt mnt media srv bin sbin lib boot run nix snap Users
    Library System Volumes Applications private workspace content kaggle""".split()
ROOTS = re.compile(
    rf"/({'|'.join(PLACES)}|lib\w*)(/|$)"
    r"|~\w*/|~\w+$|[A-Za-z]:[\\/]|(.*/)?\.\./|.*/\.\.$|(file|tcp|https?|ftps?|ssh|s3|gs|hf)://"
    r"|(?!127\.|0\.0\.0\.0)\d{1,3}(\.\d{1,3}){3}(:|$)|([\w-]+\.)+(com|org|net|io|xyz|info|app)(:\d+)?(/|$)"
)
WHOLE_PATHS = "devnull getcwd cwd abspath realpath gettempdir absolute resolve as_posix __file__".split()
CUTTERS = frozenset("""
    join split rsplit replace strip lstrip rstrip startswith endswith partition rpartition find rfind index
    rindex count removesuffix removeprefix
    """.split())  # fmt: skip
CODE_FILE = re.compile(r"(?:.*/)?([\w%{}-]*)\.(?:(py)|py[cdiwz]|pth|so|dll|dylib|zip|whl|egg)")
# Letters that another reader would make of it; such readers.
ESCAPED = re.compile(
    r"(?i:\\u00[2-7][0-9a-f]|^(rot.?13|(raw.)?unicode.escape|punycode|idna|utf.?7)$)|\\N\{|^namereplace$"
)
# Relative to a root that is found at run time.
RELATIVE = re.compile(
    r"(usr|proc|etc)(/.*)?|(records|docs|tests)/.*|(.*/)?((site|dist)-packages|pydoc_data)(/.*)?|(.*/)?\*\*/.*"
)
# Variables by which a shell, Python or the loader runs or imports what they name.
STARTING = re.compile(
    r"PYTHON(?!HASHSEED|UNBUFFERED).*|(LD|DYLD|GIT)_.*|PATH|HOME|ENV|BASH_.*|IFS|SHELL.*|PS4|PROMPT_COMMAND"
    r"|CC|CXX|CUDA_HOME|NVCC\w*|GCONV_PATH|LOCPATH|GLIBC_TUNABLES|TRITON_(?!CACHE_DIR).*|TORCHINDUCTOR_CPP\w*"
    r"|\w+_(LIBRARIES|PLUGINS?|INJECTION\w*|EXTENSIONS_DIR|BACKEND_AUTOLOAD)|(PERL5|NODE_|JAVA_TOOL_)OPT\w*"
    r"|OPENSSL_CONF\w*|\w*EDITOR|PAGER|RUBYOPT"
)
SECRETS = re.compile(
    r"CI|(GITHUB|GITLAB|ACTIONS|RUNNER|AWS|SSH|AZURE|GOOGLE|KAGGLE)_\w+|PYTHON(?!HASHSEED)[A-Z]+|USER|HOSTNAME|TERM"
    r"|VIRTUAL_ENV|CONDA_\w+|(OLD)?PWD|XDG_\w+"
    r"|(HF|GH|WANDB|HUGGINGFACE|HUGGING_FACE_HUB|OPENAI|ANTHROPIC)_(TOKEN|API_KEY)"
)


def names_place(text: str) -> bool:
    """Whether a text names a place outside the run, a secret, or what starts programs otherwise."""
    path = re.sub(r"(?<!:)/(\.?/)+", "/", text.strip().replace("\\", "/"))  # '//usr', '/./usr', r'\usr'
    place = (ROOTS.match(path) or RELATIVE.fullmatch(path)) and len(text.split()) == 1
    return bool(place or SECRETS.fullmatch(text) or STARTING.fullmatch(text))


def begins_place(text: str) -> bool:
    """Whether it is or begins a path from the root, where nothing stands before it."""
    return text in ("~", "..") or text[:1] == "/" and len(text.split()) == 1


def first_of_path(node: ast.Subscript) -> bool:
    """Whether the first letter or part of a whole path is taken: the root."""
    part, whole = node.slice, node.value
    if isinstance(part, ast.Slice):
        part = part.upper if getattr(part.lower, "value", 0) in (0, None) else None
    first = getattr(part, "value", None) in (0, 1) or called(whole) in ("getcwd", "abspath", "realpath")
    while called(whole) in ("str", "list", "tuple", "fsdecode", "fspath", "dirname", *CUTTERS) and whole.args:
        whole = whole.func.value if called(whole) in CUTTERS else whole.args[0]
    if isinstance(whole, ast.Subscript) and name_of(whole.value) == "argv":
        return first
    return first and (called(whole) or name_of(whole)) in WHOLE_PATHS


# ---- Texts that are not written out

SEEN_LETTERS = re.compile(r".*[/~].*|\.+|\d\w*", re.DOTALL)  # parts of such a text may name places
# Methods that make other texts. What others make of a text (rstrip) begins as it does.
REMAKERS = frozenset("""
    split rsplit partition rpartition strip lstrip removeprefix replace translate join decode fromhex to_bytes
    tobytes pack
    """.split())  # fmt: skip
# Functions and methods that make texts and numbers of others.
CONVERTERS = frozenset("""
    ord chr int map range bytes bytearray list tuple dict zip reversed sum values keys items slice
    """.split())  # fmt: skip
# Functions of libraries: re.sub("x", "", "axb"), add("a", "b").
REWRITERS = {*"sub match search fullmatch normalize wrap fill shorten add mul mod repeat reduce".split()}
PLAIN_CODECS = ("utf-8", "utf-8-sig", "ascii", "iso8859-1", "utf-16", "utf-16-le", "utf-16-be", "utf-32")


def literals(node: ast.expr) -> bool:
    """Whether an expression is made of literals alone, perhaps by converters: dict(a=47)["a"]."""
    named = {name_of(part) for part in every_node(node) if isinstance(part, (ast.Name, ast.Attribute))}
    return named <= CONVERTERS


def literal(node: ast.AST, code: Origins) -> ast.expr | None:
    """The numbers or letters that a name or an attribute always stands for."""
    if not isinstance(node, (ast.Name, ast.Attribute)) or stored(node):
        return None
    if code.full_names(node) & {"string.printable", "string.punctuation"}:
        return ast.Constant("/~")
    values = code.values.get(code.key(node), [])
    if len(values) != 1 or isinstance(values[0], ast.Starred) or not literals(values[0]):
        return None
    parts = [part.value for part in every_node(values[0]) if isinstance(part, ast.Constant)]
    letters = any(type(part) is int or SEEN_LETTERS.fullmatch(str(part)) for part in parts)
    return values[0] if letters else None


def write_out(node: ast.expr, code: Origins) -> ast.expr:
    """The expression with literals for names; itself, if it has no such name."""
    known = {id(part): value for part in every_node(node) if (value := literal(part, code))}
    return copy.deepcopy(node, known) if known else node


def held(node: ast.expr, code: Origins) -> list[str | None]:
    """The texts that an expression may be, less what a name's format makes of them; None: not in sight."""
    if not isinstance(node, ast.Name):
        return [text_of(node)]
    key = code.key(node)
    if key in code.unknown or node.id in code.imports:
        return [None]
    values = code.values.get(key, [])
    own = [v for v in values if called(v) == "format" and name_of(getattr(v.func, "value", v)) == node.id]
    return [text_of(value) for value in values if value not in own]


def makes_text(node: ast.expr, code: Origins) -> bool:
    """Whether a text is made of literals, or of names for them, so that nobody sees it: "abc"[1:],
    "%s" % "a", chr(SLASH), bytes(CODES)."""
    method = getattr(getattr(node, "func", None), "attr", "")
    cut = not method or method in REMAKERS and (not node.args or text_of(node.args[0]) != "/")
    return any(map(written_makes_text, [node, *[write_out(node, code)] * cut]))


def written_makes_text(node: ast.expr) -> bool:
    if isinstance(node, ast.Subscript):
        stepped = isinstance(node.slice, ast.Slice) and node.slice.step is not None
        return text_of(node.value) is not None and (stepped or constants(node.slice))
    if isinstance(node, ast.BinOp):
        text = text_of(node.left) if isinstance(node.op, ast.Mod) else None
        return text is not None and ("%c" in text or constants(node.right))
    return method_makes_text(node) or builtin_makes_text(node)


def method_makes_text(node: ast.Call) -> bool:
    method, of, args = getattr(node.func, "attr", ""), getattr(node.func, "value", None), node.args
    if name_of(of) in ("str", "bytes") and args:  # str.lower("A")
        of, *args = args
    text, given = text_of(of), [*args, *(word.value for word in node.keywords)]
    if text is None:
        return method == "to_bytes" and are_letters([getattr(node.func.value, "value", 0)])
    if method in ("replace", "translate"):
        return True
    if method == "split" and not {"/", "~"} & {*text} or method in ("encode", "decode"):
        return False  # words, each of them in sight
    return all(map(literals, given))


def builtin_makes_text(node: ast.Call) -> bool:
    name, given = called(node), node.args
    words = {word.arg: word.value for word in node.keywords}
    if name in ("decode", "encode", "str", "bytes", "bytearray", "open", "read_text", "write_text"):
        codec = given[name not in ("decode", "encode") :][:1]
        if any(map(odd_codec, [*codec, *(words[w] for w in ("encoding", "errors") if w in words)])):
            return True
    if name in REWRITERS and given[1:] and any(map(text_of, given)) and constants(given[:3][-1]):
        return True
    if name == "fromhex" or name == "map" and len(given) == 2 and calls_chr(node):
        return literals(given[-1]) if given else False
    if name in ("pack", "tobytes"):  # pack("2B", 47, 117), array([47, 117]).tobytes()
        within = [n.args for n in every_node(node) if isinstance(n, ast.Call)]
        within += [n.elts for n in every_node(node) if isinstance(n, ast.List)]
        return are_letters(getattr(one, "value", 0) for many in within for one in many)
    one = given[0] if len(given) == 1 and literals(given[0]) else None
    if name in ("bytes", "bytearray"):
        numbers = [getattr(element, "value", 0) for element in getattr(one, "elts", [])]
        return called(one) == "map" or len(numbers) > 1 or are_letters(numbers)
    letter = one.value if isinstance(one, ast.Constant) else 47  # else an operation
    return name == "chr" and one is not None and type(letter) is int and 32 <= letter < 127


def are_letters(values: Iterable) -> bool:
    """Whether the bytes of the numbers among these are a text, or a letter that places begin with."""
    numbers = [n.to_bytes(n.bit_length() // 8 + 1, "little") for n in values if type(n) is int and n >= 0]
    letters = b"".join(numbers).replace(b"\0", b"")
    return all(32 <= letter < 127 for letter in letters) and (len(letters) > 1 or letters in (b"/", b"~"))


def odd_codec(node: ast.expr) -> bool:
    """Whether a codec is named that does more than write letters as bytes: rot13, unicode_escape, idna."""
    name = getattr(node, "value", None)
    try:
        return isinstance(name, str) and codecs.lookup(name).name not in PLAIN_CODECS
    except (LookupError, ValueError):
        return False  # a text, for a tokenizer


def calls_chr(node: ast.AST) -> bool:
    return any(getattr(part, "id", "") == "chr" for part in every_node(node))


def plain_fields(text: str) -> bool:
    """Whether the fields take no attribute or element, and make no letters of numbers."""
    try:
        fields = [(name or "", spec or "") for _, name, spec, _ in string.Formatter().parse(text)]
    except ValueError:
        return True  # raises when it runs
    taken = any({".", "["} & {*name} or spec.endswith("c") for name, spec in fields)
    return not taken and all("{" not in spec or plain_fields(spec) for _, spec in fields)
