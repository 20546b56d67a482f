"""Functions that may only be called in plain sight, with arguments that can be read.

A guard takes the Walk (reach.py) and the call; it returns what is wrong with the call, or None.
"""

import ast
import builtins
import re
from collections.abc import Iterator

from golf.check import allowed, texts
from golf.check.origins import Origins
from golf.check.syntax import called, every_node, text_of

# Arguments of any call that read files, or take attributes by a text.
ODD_KEYWORDS = ("style", "opener", "closefd", "namespace", "metaclass", "dir_fd", "src_dir_fd", "dst_dir_fd",
                "record", "recursive")  # fmt: skip

# These take a path, and numbers of files that somebody else has opened.
DESCRIPTORS = "open os.open os.close os.fsync os.stat os.listdir os.truncate numpy.fromfile io.open".split()


def guard_load(walk, node: ast.Call) -> str | None:
    given = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
    odd = len(node.args) > 2 or {None, "pickle_module"} & set(given)
    return "torch.load" if odd or given.get("weights_only") is not True else None


def guard_attribute(walk, node: ast.Call) -> str | None:
    """getattr and setattr need a name that is written out."""
    name = node.args[1] if len(node.args) > 1 and not node.keywords else None
    if isinstance(name, (ast.Name, ast.Attribute)):
        words = walk.loops.get(ast.unparse(name))
    else:
        words = [name.value] if isinstance(getattr(name, "value", None), str) else None
    if not words:
        return f"{node.func.id} of a computed name"
    for word in words:
        walk.named(node, word)
    chains = list(walk.full_names(node.args[0])) if node.func.id == "setattr" else []
    return f"setattr of {'.'.join(chains[0])}" if chains else None


def guard_type(walk, node: ast.Call) -> str | None:
    """The type of a class is `type` itself, which makes classes."""
    if len(node.args) != 1 or node.keywords or isinstance(node.args[0], ast.Starred):
        return "type(...) makes a class"
    given = node.args[0]
    classes = {n.name for n in every_node(walk.tree) if isinstance(n, ast.ClassDef)}
    of_class = isinstance(given, ast.Call) and getattr(given.func, "id", "") == "type"
    of_class |= isinstance(given, ast.Name) and (given.id in classes or given.id in dir(builtins))
    if of_class:
        return "the type of a class"
    return None if id(node) in walk.harmless else "a type as a value"  # of a class that nobody sees?


def guard_vars(walk, node: ast.Call) -> str | None:
    """vars() is fine for what argparse returns; of another object it may be anything."""
    named = node.args and isinstance(node.args[0], ast.Name)
    given = (walk.code.values.get(walk.code.key(node.args[0])) if named else None) or node.args
    parsed = [not v.keywords and getattr(v.func, "attr", "") == "parse_args" for v in given
              if isinstance(v, ast.Call)]  # fmt: skip
    return None if given and len(parsed) == len(given) and all(parsed) else "vars"


def guard_timer(walk, node: ast.Call) -> str | None:
    """A benchmark's statements are code, and are read as such."""
    words = {word.arg: word.value for word in node.keywords}
    statements = [*node.args, *(words[name] for name in ("stmt", "setup", "global_setup") if name in words)]
    sources = [text_of(statement) for statement in statements]
    if None in sources or len(sources) > 2 or None in words or "language" in words or "timer" in words:
        return "Timer of code that is not in sight"
    for source in sources:
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError):
            return "Timer of code that does not parse"
        for part in every_node(tree):
            if hasattr(part, "lineno"):
                part.lineno = node.lineno
            if isinstance(part, (ast.Import, ast.ImportFrom)):
                return "Timer of an import"
        known = walk.aliases
        walk.aliases = {"torch": {"torch"}} | known  # what PyTorch puts there
        walk.visit(tree)
        walk.aliases = known
    return None


def guard_open(walk, node: ast.Call) -> str | None:
    """open() needs a path; a number would be a file that somebody else has opened."""
    words = {word.arg: word.value for word in node.keywords}
    first = node.args[0] if node.args else words.get("file", words.get("path"))
    if isinstance(first, ast.Starred) or None in words:
        return "open of what is not in sight"
    number = any(is_number(one, walk.code) for one in kept(first))
    return "a descriptor instead of a path" if number else None


def kept(node: ast.expr | None) -> Iterator[ast.expr]:
    """The parts of an expression that may be its value, and what it adds to."""
    inner = [getattr(node, name) for name in ("body", "orelse", "operand", "left") if hasattr(node, name)]
    inner += getattr(node, "values", []) if isinstance(node, ast.BoolOp) else []
    inner += [node.value] if isinstance(node, ast.NamedExpr) else []
    if inner and not isinstance(node, (ast.Compare, ast.Lambda)):
        yield from (one for part in inner for one in kept(part))
    elif node is not None:
        yield node


NUMBERS = "int len ord max min sum round abs pow hash id index".split()


def is_number(node: ast.expr, code: Origins) -> bool:
    """Whether it is a number, or a name for one: n = 3, for n in range(9), for n in (3, 4), def f(n=3)."""
    for value in [node, *(code.values.get(code.key(node), ()) if isinstance(node, ast.Name) else ())]:
        looped = value.value if isinstance(value, ast.Starred) else None
        within = [value, *getattr(looped, "elts", [])]
        if called(looped) == "range" or any(isinstance(getattr(n, "value", None), int) for n in within):
            return True
    return called(node) in NUMBERS


def guard_memory(walk, node: ast.Call) -> str | None:
    """numpy.memmap of numbers: of `object` it would take what a file holds for addresses."""
    words = {word.arg: word.value for word in node.keywords}
    kind = words.get("dtype", node.args[1] if len(node.args) > 1 else ast.Constant("u1"))
    named = [chain[-1] for chain in walk.full_names(kind) if chain[0] == "numpy"]
    kinds = named or texts.held(kind, walk.code)
    plain = all(re.fullmatch(r"[<>=|]?[bui?f]\d*|(u?int|float)\d+", name or "") for name in kinds)
    if None in words or not kinds or not plain:
        return "numpy.memmap of what is not in sight"
    return guard_open(walk, node)


def guard_words(walk, node: ast.Call) -> str | None:
    """Some of their arguments read files or import: all must be in sight."""
    far = len(node.args) > 11 or any(isinstance(one, ast.Starred) for one in node.args)
    return "arguments that are not in sight" if far or None in [word.arg for word in node.keywords] else None


def guard_sink(walk, node: ast.Call) -> str | None:
    """What libraries say (warnings, logs, errors, help) goes to the terminal or to a file opened here."""
    sinks = [w.value for w in node.keywords if w.arg in ("file", "stream", "new_target")] + node.args
    for sink in (one for one in sinks if called(one) != "open" and not isinstance(one, ast.Constant)):
        if "sys" not in [chain[0] for chain in walk.full_names(sink)]:
            return "what libraries say, kept"
    return guard_words(walk, node)


def guard_parse(walk, node: ast.Call) -> str | None:
    """parse_args(texts, X) gives X attributes of any name."""
    return "parse_args into an object" if len(node.args) > 1 else guard_words(walk, node)


def guard_compile(walk, node: ast.Call) -> str | None:
    words = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
    if None in words:
        return "compile(**...)"
    return None if words.get("backend", "inductor") in allowed.COMPILE_BACKENDS else "compile's backend"


def guard_format(walk, node: ast.Call) -> str | None:
    """str.format takes attributes: its text must be in sight and take none."""
    held = texts.held(node.func.value, walk.code)
    if None in held or not held:
        return "format of a text that is not in sight"
    return None if all(map(texts.plain_fields, held)) else "format that takes attributes"


def sound_options(node: ast.expr) -> bool:
    """Whether torch.compile's options are a dictionary in sight, of known keys."""
    if not isinstance(node, ast.Dict):
        return isinstance(node, ast.Constant)
    keys = [getattr(key, "value", None) for key in node.keys]
    return all(key in allowed.COMPILE_OPTIONS for key in keys)


def makes_class(node: ast.Call) -> bool:
    """X("Name", (Base,), {...}): what a metaclass is called with."""
    forms = (ast.Constant, ast.Tuple, ast.Dict)
    return len(node.args) == 3 and all(map(isinstance, node.args, forms))


def unless(holds, what: str):
    return lambda walk, node: None if holds(node) else what


# By any other name nobody sees what they are given.
IN_SIGHT = "torch.load torch.compile torch.utils.benchmark.Timer functools.wraps os.write os.dup2".split()
NO_BASES = {*"numpy.ndarray numpy.memmap modulefinder.ModuleFinder types.SimpleNamespace".split()}
GUARDS = {
    "torch.load": guard_load,
    "torch.compile": guard_compile,
    "functools.wraps": unless(lambda n: len(n.args) == 1 and not n.keywords, "wraps of chosen attributes"),
    "torch.utils.benchmark.Timer": guard_timer,
    "os.write": unless(lambda n: n.args and getattr(n.args[0], "value", 0) in (1, 2), "os.write"),
    "os.dup2": unless(
        lambda n: n.args[1:] and (called(n.args[1]) == "fileno" or getattr(n.args[1], "value", 0) in (1, 2)),
        "os.dup2",
    ),
    "getattr": guard_attribute,
    "setattr": guard_attribute,
    "type": guard_type,
    "vars": guard_vars,
    # Attributes of any name: what NumPy would take for foreign memory, for one.
    **dict.fromkeys(
        ("types.SimpleNamespace", "argparse.Namespace"),
        unless(lambda n: None not in [word.arg for word in n.keywords], "attributes of computed names"),
    ),
    **dict.fromkeys(
        ("enum.Enum", "enum.IntEnum", "enum.Flag", "enum.IntFlag", "numpy.ndarray"),
        unless(lambda n: False, "members or memory that are not in sight"),
    ),
    **dict.fromkeys(DESCRIPTORS, guard_open),
    **dict.fromkeys(("argparse.ArgumentParser", "torch.utils.data.DataLoader"), guard_words),
    **dict.fromkeys(("traceback.print_exc", "contextlib.redirect_stdout"), guard_sink),
    **dict.fromkeys(("logging.basicConfig", "logging.StreamHandler"), guard_sink),
    **dict.fromkeys((".parse_args", ".parse_known_args", ".parse_intermixed_args"), guard_parse),
    "modulefinder.ModuleFinder": unless(lambda n: n.args and getattr(n.args[0], "elts", 0), "all modules"),
    "numpy.memmap": guard_memory,
    ".format": guard_format,
}
