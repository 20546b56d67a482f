"""Rules about code, read as a syntax tree and never run: what reaches out, hides or reads ahead.

The list of what is fine is allowed.py; whatever else code reaches (check_reach.py) or holds
(check_text.py) goes to a reviewer. Code that wants to hide from this can; the scorer's sandbox and
the reviewer are what stops it.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from pathlib import PurePosixPath

from golf.check import reach as check_reach
from golf.check import source as check_text
from golf.check.folder import Folder, quoted
from golf.core.findings import FAIL, HUMAN
from golf.core.packed import SUFFIX, packed_name, source_name, unpack
from golf.core.packed import fault as packed_fault

SOURCE_LIMIT, FILES_LIMIT = 256 << 10, 20  # bytes of all files; the longest trainers have 110,000
LINES_SHOWN = 8

# Rule -> its level, what the file does, and what to do where that helps.
REACHES = {
    "code-network": (HUMAN, "reaches the network"),
    "code-process": (HUMAN, "starts processes"),
    "code-exec": (HUMAN, "runs or imports what is not in sight"),
    "code-native": (HUMAN, "runs native code"),
    "code-pickle": (FAIL, "reads pickles, which run code when read; torch.load: weights_only=True"),
    "code-import": (
        FAIL,
        "imports what is neither in Python, in the requirements nor in this folder; ship it here with "
        "the role score, or do without",
    ),
    "code-unlisted": (HUMAN, "uses names that are not on the list (scripts/golf/check/allowed.py)"),
    "code-indirect": (HUMAN, "reaches names in a way that cannot be followed; write them out"),
    "code-outside": (HUMAN, "names places or secrets outside the run"),
}


def code(folder: Folder) -> None:
    """Every Python file: it compiles, and what in it a reviewer must see."""
    paths = [path for path in folder.files if path.endswith(".py")]
    if len(paths) > FILES_LIMIT:
        text = f"{len(paths)} Python files; put it into {FILES_LIMIT} at most, which people can read"
        folder.fail("code-syntax", text)
    size = sum(folder.files[path] for path in paths)
    if size > SOURCE_LIMIT:
        folder.fail("code-syntax", f"{size:,} bytes of Python, over {SOURCE_LIMIT:,}: too long to be read")
        return
    packed = [path for path in paths[:FILES_LIMIT] if path.endswith(SUFFIX)]
    trees = {path: parse(folder, path) for path in paths[:FILES_LIMIT] if path not in packed}
    trees = {path: tree for path, tree in trees.items() if tree is not None}
    modules = check_reach.Modules({module_name(path): tree for path, tree in trees.items()})
    sums = check_text.Totals()
    for path, tree in trees.items():
        check_tree(folder, path, tree, modules)
        if packed_name(path) not in packed:
            sums.add(check_text.totals(folder.read(path), tree))
    for path in packed:
        if source := check_packed(folder, path):
            sums.add(check_text.totals(source, ast.parse(source)))
    for name, (found, most) in sums.over().items():
        text = f"the code holds {found:,} {check_text.MEANING[name]}, over {most:,} for its size"
        folder.human("code-opaque", f"{text}: data in the guise of code? weights go into the artifact")


def check_packed(folder: Folder, path: str) -> bytes | None:
    """What a packed script runs; None with a finding where that is not the source beside it.

    Its syntax tree is its source's, so the rules about code judge that one alone, with its lines.
    """
    plain = source_name(path)
    if not folder.has(plain):
        text = f"{quoted(path)} lacks {quoted(plain)}, which it was made from; ship that with the role source"
    elif why := packed_fault(folder.read(path), folder.read(plain)):
        text = f"{quoted(path)} {why}; ship what PACK_SCRIPT=1 made of {quoted(plain)}"
    else:
        return unpack(folder.read(path))
    folder.fail("code-packed", text)
    return None


def parse(folder: Folder, path: str) -> ast.Module | None:
    """The syntax tree, None with a finding where there is none."""
    source = folder.read(path)
    faults = dict(check_text.faults(source))
    if faults:
        text = "plain UTF-8, one line under another, nothing invisible, names in ASCII"
        folder.fail("code-text", f"{quoted(path)}: {show(faults)}; write it as {text}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(source, path, "exec", dont_inherit=True)
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = getattr(error, "msg", None) or error or type(error).__name__
        where = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        folder.fail("code-syntax", f"{quoted(path)}{where}: {reason}; ship the script that ran")
        return None


def module_name(path: str) -> str:
    """'kit/tables.py' as 'kit.tables'."""
    return path.removesuffix(".py").replace("/", ".")


def check_tree(folder: Folder, path: str, tree: ast.Module, modules: check_reach.Modules) -> None:
    raised: dict[str, dict[int, str]] = {}
    try:
        for line, rule, name in check_reach.reached(tree, modules, module_name(path)):
            raised.setdefault(rule, {}).setdefault(line, name)
    except RecursionError:
        raised["code-indirect"] = {1: "nested too deep to be followed"}
    for rule, lines in raised.items():
        level, meaning = REACHES[rule]
        folder.add(level, rule, f"{quoted(path)} {meaning}: {show(lines)}")
    lines = {line: "gradient" for line in validation_gradients(tree)}
    if lines:
        text = "validation tokens may reach an optimizer; only targets already scored may teach"
        folder.human("code-val", f"{quoted(path)}: {text}: {show(lines)}")
    lines = dict(other_sources(tree, module_name(path)))
    if lines:
        text = "what it scores may hang on more than the artifact and the text before"
        folder.human("code-val", f"{quoted(path)}: {text}: {show(lines)}")
    uncounted(folder, path, tree, "code-exec" in raised)


def show(lines: dict[int, str]) -> str:
    """'line 3 (socket), line 9 (urllib.request)': the first LINES_SHOWN."""
    text = ", ".join(f"line {line} ({name})" for line, name in sorted(lines.items())[:LINES_SHOWN])
    return text + f" and {len(lines) - LINES_SHOWN} more" * (len(lines) > LINES_SHOWN)


# ---- Do validation tokens teach? Names alone are looked at; the scorer's audit proves it

VAL_TEXT = re.compile(r"(.*[/_*])?(val|valid|validation)([/_*.].*)?")
VAL_NAME = re.compile(
    r"(.*_)?(val|valid|validation)_(tokens?|data|ids|stream|batch(es)?|loader|shards?|targets?"
    r"|inputs?|set|seqs?|sequences?|x|y|docs?)",
    re.IGNORECASE,
)
# Take the gradient, or fit, of their arguments or of the object; the makers return such functions.
GRADIENTS = frozenset("backward grad vjp jacrev lstsq partial_fit".split())
MAKERS = frozenset("value_and_grad grad grad_and_value".split())
SCORER = "log_probs"  # the method of a submission that is given the stream


def validation_gradients(tree: ast.Module) -> list[int]:
    """Lines where names that say validation meet a gradient, and gradients that log_probs reaches.

    Followed are assignments within a function, attributes, and functions that return such a thing;
    what takes gradients teaches, and so does what calls it, by name.
    """
    functions = [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    scopes = {f: list(ast.walk(f)) for f in functions}
    scopes[tree] = list(outside_functions(tree))
    calls = {scope: [n for n in nodes if isinstance(n, ast.Call)] for scope, nodes in scopes.items()}
    makers = {t.id for t, v in check_reach.assignments(tree) if called(v) in MAKERS}
    teachers = {f.name for f in functions if any(teaches(n, makers) for n in calls[f])}
    scoring, shared = {SCORER}, set()
    for _ in range(HAND_OVERS):
        teachers |= {f.name for f in functions if any(called(n) in teachers for n in calls[f])}
        scoring |= {called(n) for f in functions if f.name in scoring for n in calls[f]}
        for scope, nodes in scopes.items():
            shared |= handed_on(scope, nodes, Taint(nodes, shared), teachers)
    lines = {n.lineno for f in functions if f.name in scoring for n in calls[f] if teaches(n, makers)}
    for scope, nodes in scopes.items():
        taint = Taint(nodes, shared)
        for node in calls[scope]:
            direct = teaches(node, makers)
            given = [*node.args, *(k.value for k in node.keywords)] + [node.func] * direct
            if direct or called(node) in teachers:
                lines |= {node.lineno for part in given if taint.holds(part, node.lineno)}
    return sorted(lines)


HAND_OVERS = 5  # from function to function


def outside_functions(tree: ast.AST) -> Iterator[ast.AST]:
    waiting = [tree]
    while waiting:
        children = ast.iter_child_nodes(waiting.pop())
        nodes = [n for n in children if not isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
        yield from nodes
        waiting += nodes


def teaches(node: ast.Call, makers: set[str]) -> bool:
    return called(node) in GRADIENTS | makers or called(node.func) in MAKERS


def called(node: ast.AST) -> str:
    """The last name of what is called, '' where nothing is."""
    return name_of(node.func) if isinstance(node, ast.Call) else ""


def name_of(node: ast.AST) -> str:
    return getattr(node, "attr", getattr(node, "id", ""))


class Taint:
    """Which of a function's names hold what a validation shard holds, and from which line on."""

    def __init__(self, nodes: list[ast.AST], shared: set[str]):
        self.shared = shared  # attributes and functions
        self.given: dict[str, dict[int, bool]] = {}  # name -> line that gives it a value: tainted?
        pairs = [pair for node in nodes for pair in hand_overs(node)]
        for _ in range(HAND_OVERS):
            for target, value, line in pairs:
                tainted = self.holds(value, line - 1)
                for part in getattr(target, "elts", [target]):
                    if name_of(part):
                        self.given.setdefault(name_of(part), {})[line] = tainted

    def named(self, name: str, line: int) -> bool:
        """Whether a name is tainted on a line: by the last value that it was given, if by any."""
        given = self.given.get(name, {})
        before = [at for at in given if at <= line]
        own = given[max(before)] if before else any(given.values())
        return own or name in self.shared or bool(VAL_NAME.fullmatch(name))

    def holds(self, node: ast.AST, line: int) -> bool:
        """Whether an expression has the validation split's name, or a tainted one."""
        for part in ast.walk(node):
            if isinstance(part, ast.Constant) and isinstance(part.value, str) and len(part.value) < 80:
                if VAL_TEXT.fullmatch(part.value) and len(part.value.split()) == 1:
                    return True
            elif name_of(part) and self.named(name_of(part), line):
                return True
        return False


def hand_overs(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr, int]]:
    """(target, value, line) where a node gives a value to a name, an attribute or a list."""
    if isinstance(node, ast.Assign):
        for target in node.targets:
            sides = [getattr(side, "elts", [side]) for side in (target, node.value)]
            same = len(sides[0]) == len(sides[1])  # a, b = x, y
            pairs = zip(*sides) if same else [(target, node.value)]
            yield from ((one, value, node.lineno) for one, value in pairs)
    elif isinstance(node, (ast.For, ast.comprehension)):
        yield node.target, node.iter, node.target.lineno
    elif called(node) in ("append", "extend") and isinstance(node.func, ast.Attribute):
        yield from ((node.func.value, argument, node.lineno) for argument in node.args)


def handed_on(scope: ast.AST, nodes: list[ast.AST], taint: Taint, teachers: set[str]) -> set[str]:
    """Of a function's tainted names those that others see: attributes, and itself if it returns one."""
    stored = {n.attr for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}
    found = {name for name in stored if any(taint.given.get(name, {}).values())}
    returns = [n.value for n in nodes if isinstance(n, ast.Return) and n.value]
    name = getattr(scope, "name", "")
    if name not in teachers and any(taint.holds(value, value.lineno) for value in returns):
        found.add(name)
    return found


# ---- Does anything but artifact and text steer the score? What scoring calls, by name

# What differs from one pass over the same text to the next, or tells which pass it is.
VARYING = (
    "time.", "datetime.", "random.", "uuid.", "platform.", "os.getpid.", "os.uname.", "os.cpu_count.",
    "os.process_cpu_count.", "os.sched_getaffinity.", "os.listdir.", "os.stat.", "numpy.random.", "tempfile.",
    "sys.argv.",
)  # fmt: skip
IN_SCORING = VARYING + ("os.environ.", "os.getenv.", "os.path.", "glob.")
SEEDED = frozenset("Random default_rng RandomState PCG64 Philox SeedSequence Generator".split())
READS = frozenset("open read_text read_bytes fromfile memmap".split())
FILE_STATE = READS | frozenset("exists is_file stat write_text write_bytes touch iterdir id".split())


def other_sources(tree: ast.Module, module: str) -> Iterator[tuple[int, str]]:
    """(line, what) where scoring meets the clock, chance, the process or files, or its own source."""
    functions = [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    names = check_reach.aliases(tree, module)
    for target, value in check_reach.assignments(tree):
        names.setdefault(target.id, set()).update(full_names(value, names))  # clock = time.time
    scoring, loading = reach(functions, {SCORER, "reset"}), reach(functions, {LOADER})
    for kinds, nodes in ((IN_SCORING, scoring), (VARYING, loading)):
        plain = {id(n.value) for n in nodes if isinstance(n, ast.Attribute)}  # a.b of a.b.c
        plain |= {id(n.func) for n in nodes if called(n) in SEEDED and n.args}
        for node in nodes:
            found = [full for full in full_names(node, names) if f"{full}.".startswith(kinds)]
            if found and id(node) not in plain:
                yield node.lineno, found[0]
            elif kinds is IN_SCORING and called(node) in FILE_STATE:
                yield node.lineno, called(node)
    own = {t.id for t, v in check_reach.assignments(tree) if names_source(v, names, set())}
    held = holders(tree, names, own)
    for node in [*scoring, *loading]:
        if reads_source(node, names, own) or name_of(node) in held:
            yield node.lineno, "its own source"


def full_names(node: ast.AST, names: dict[str, set[str]]) -> Iterator[str]:
    """What a chain of names stands for, with the modules in full."""
    if isinstance(node, (ast.Name, ast.Attribute)):
        root, parts = check_reach.chain_of(node)
        yield from (".".join([full, *parts]) for full in sorted(names.get(root, ())))


def reads_source(node: ast.AST, names: dict[str, set[str]], own: set[str]) -> bool:
    """Whether a call reads the script's own file."""
    given = [node.func, *node.args[:1]] if called(node) in READS else []
    return any(names_source(part, names, own) for part in given)


def names_source(node: ast.AST, names: dict[str, set[str]], own: set[str]) -> bool:
    """Whether an expression stands for the script's own file."""
    parts = list(ast.walk(node))
    if {"parent", "parents", "dirname", "with_name"} & set(map(name_of, parts)):
        return False
    argv = any(full == "sys.argv" for part in parts for full in full_names(part, names))
    return argv or any(getattr(part, "id", "") in own | {"__file__"} for part in parts)


def holders(tree: ast.Module, names: dict[str, set[str]], own: set[str]) -> set[str]:
    """Names at the top of a file, and in its classes, that hold what was read from it."""
    held: set[str] = set()
    statements = [list(outside_functions(ast.Module([s], []))) for s in tree.body if not main_guard(s)]
    for _ in range(HAND_OVERS):
        for parts in statements:
            if any(reads_source(n, names, own) or getattr(n, "id", "") in held for n in parts):
                held |= {n.id for n in parts if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return held


LOADER = "load_scorer"  # the function of a submission that reads the artifact


def reach(functions: list, names: set[str]) -> list[ast.AST]:
    """All nodes of the functions of these names and of those that they call, by name."""
    for _ in range(HAND_OVERS):
        names = names | {called(n) for f in functions if f.name in names for n in ast.walk(f)} - {""}
    return [node for f in functions if f.name in names for node in ast.walk(f)]


def main_guard(node: ast.stmt) -> bool:
    """Whether a statement runs in the main program alone."""
    return isinstance(node, ast.If) and "__name__" in map(name_of, ast.walk(node.test))


# ---- What counts with the script


def uncounted(folder: Folder, path: str, tree: ast.Module, executes: bool) -> None:
    """Siblings that the code imports or names count with it; logs only where it runs code."""
    beside = PurePosixPath(path).parent
    used = {str(beside / m): line for line, name in imported_modules(tree) for m in module_files(name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value.split()) == 1:
            named = str(beside / PurePosixPath(node.value).name)
            if not folder.has(named):
                continue  # most texts; a role is looked up in a list
            if executes or folder.role(named) not in ("log", "artifact", "val"):
                used.setdefault(named, node.lineno)
    for sibling, line in used.items():
        known = folder.role(sibling) is not None and sibling != path  # else it is file-unlisted
        if known and not folder.counted(sibling):
            text = f"{quoted(path)} line {line} uses {quoted(sibling)}, which does not count"
            folder.fail("bytes-uncounted", f"{text}; list it with the role score")


def imported_modules(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every imported module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = f"{node.module}." if node.module else ""
            yield from ((node.lineno, f"{base}{alias.name}") for alias in node.names)


def module_files(name: str) -> Iterator[str]:
    parts = name.split(".")
    for n in range(1, len(parts) + 1):
        yield "/".join(parts[:n]) + ".py"
        yield "/".join(parts[:n]) + "/__init__.py"


RULES = (code,)
