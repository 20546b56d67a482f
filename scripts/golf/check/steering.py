"""Finds what may steer a score besides the artifact and the text so far. It goes by the names of calls."""

import ast
import re
from collections.abc import Callable, Iterator

from golf.check import syntax
from golf.check.allowed import DUNDER_METHODS
from golf.check.learning import ASSIGN, CALL, FILLERS, HAND_OVERS, SCORER, inner, steps_of
from golf.check.modules import aliases
from golf.check.syntax import FUNCTIONS, assignments, called, every_node, full_names, name_of, stored

# What differs from one pass over the same text to the next, or tells which pass it is.
VARYING = (
    "time.", "datetime.", "random.", "uuid.", "platform.", "os.getpid.", "os.uname.", "os.cpu_count.",
    "os.process_cpu_count.", "os.sched_getaffinity.", "os.listdir.", "os.stat.", "numpy.random.", "tempfile.",
    "sys.argv.", "sys.getsizeof.", "signal.", "threading.", "queue.", "concurrent.", "shutil.", "logging.",
    "traceback.", "tqdm.", "os.getcwd.", "gc.", "torch.profiler.", "torch.utils.benchmark.", "torch.cuda.mem",
)  # fmt: skip
# Brotli holds a dictionary of words that no byte counts; gzip writes the time.
IN_SCORING = VARYING + ("os.environ.", "os.getenv.", "os.path.", "glob.", "brotli.", "gzip.", "warnings.")
IN_LOADING = VARYING + ("brotli.compress.", "brotli.Compressor.")
# Tensors by chance, and such as hold what memory held; the last name is that of a method, perhaps.
CHANCE = re.compile(
    r"(torch|mlx)\.(\w+\.)*(rand\w*|normal|uniform|gumbel\w*|categorical|rrelu|dropout|\w+_lowrank|\w*Tensor)"
    r"|(.+\.)?((log_|trunc_)?normal_|(uniform|random|cauchy|exponential|geometric|orthogonal)_|bernoulli_?"
    r"|multinomial|r?samples?|(kaiming|xavier)_\w+|(new_)?empty(_like|_strided)?)"
)
CHANGES = re.compile(r"\w*[a-z]_|pop\w*|clear|sort|reverse|remove|discard")
STARTS = ("threading.Thread.", "signal.signal.", "concurrent.futures.ThreadPoolExecutor.")
SEEDED = frozenset("Random default_rng RandomState PCG64 Philox SeedSequence Generator".split())
READS = frozenset("open read_text read_bytes fromfile memmap".split())
WRITES = "exists is_file stat write_text write_bytes touch iterdir id data_ptr elapsed_time"
FILE_STATE = READS | set(WRITES.split())


def other_sources(tree: ast.Module, module: str) -> Iterator[tuple[int, str]]:
    """(line, what) where scoring meets the clock, chance, the process or files, or its own source."""
    names = aliases(tree, module)
    for target, value in assignments(tree):
        names.setdefault(target.id, set()).update(full_names(value, names))  # clock = time.time
    scoring, loading = reach(tree, {SCORER, "reset", *UNCALLED}), reach(tree, {LOADER})
    yield from (*chances(scoring, names), *kept(tree, scoring, {name for name in names if names[name]}))
    errors = {
        id(part) for handler in every_node(tree) if isinstance(handler, ast.ExceptHandler) and handler.name
        for node in every_node(handler) for _, order, _, value in steps_of(node) if order != CALL
        for part in every_node(value) if getattr(part, "id", "") == handler.name
    }  # fmt: skip
    for kinds, nodes in ((IN_SCORING, scoring), (IN_LOADING, loading)):
        plain = {id(n.value) for n in nodes if isinstance(n, ast.Attribute)}  # a.b of a.b.c
        seeded = [
            n for n in nodes if called(n) in SEEDED and n.args and getattr(n.args[0], "value", 0) is not None
        ]
        plain |= {id(n.func) for n in seeded}
        for node in nodes:
            found = [full for full in full_names(node, names) if f"{full}.".startswith(kinds)]
            if found and id(node) not in plain:
                yield node.lineno, found[0]
            elif kinds is IN_SCORING and called(node) in FILE_STATE:
                yield node.lineno, called(node)
            elif called(node) == "seed" and not node.args:
                yield node.lineno, "a seed by chance"
            elif id(node) in errors:
                yield node.lineno, "the text of an error"
    own = {t.id for t, v in assignments(tree) if names_source(v, names, set())}
    source = holders(tree, lambda node: reads_source(node, names, own))

    def differs(node: ast.AST, kinds: tuple[str, ...] = (*VARYING, "brotli.")) -> bool:
        """Whether it may be another from one pass to the next."""
        if id(node) in errors or called(node) in FILE_STATE - READS:
            return True
        return any(f"{full}.".startswith(kinds) for full in full_names(node, names))

    varying = holders(tree, differs)
    starts = [n for ns in statements(tree.body) for n in ns if called(n) and differs(n.func, STARTS)]
    yield from ((n.lineno, "what runs beside") for n in starts if scoring)
    for node in [*scoring, *loading]:
        if reads_source(node, names, own) or name_of(node) in source:
            yield node.lineno, "its own source"
        elif name_of(node) in varying and not stored(node):
            yield node.lineno, f"{name_of(node)}, which differs from run to run"


def chances(nodes: list[ast.AST], names: dict[str, set[str]]) -> Iterator[tuple[int, str]]:
    """(line, what) of tensors by chance without a generator, and of empty ones that nothing fills."""
    calls = [n for n in nodes if isinstance(n, ast.Call)]
    held = {id(value): name_of(inner(to)) or "?" for n in nodes for *_, to, value in steps_of(n) if to}
    filled = {name_of(inner(n)) for n in nodes if isinstance(n, ast.Subscript) and stored(n)}
    filled |= {name_of(n.func.value) for n in calls if called(n)[-1:] == "_" and hasattr(n.func, "value")}
    given = [n for n in nodes if called(n) in ("readinto", "copyto") or getattr(n, "arg", "") == "out"]
    filled |= {name_of(part) for n in given for part in every_node(n)}
    tests = [n for n in nodes if isinstance(n, (ast.If, ast.IfExp))]
    tests = [n for n in tests if "training" in map(name_of, every_node(n.test))]
    trained = {id(part) for node in tests for part in every_node(node)}
    for node in (n for n in calls if id(n) not in trained):
        name, words = next(full_names(node.func, names), called(node)), {w.arg for w in node.keywords}
        known = words & {"generator", "key", "training"} or name.endswith("dropout") and len(node.args) > 2
        if CHANCE.fullmatch(name) and not known and not ("empty" in name and held.get(id(node)) in filled):
            yield node.lineno, f"{name}, chance or what memory held"


def kept(tree: ast.Module, nodes: list[ast.AST], imported: set[str]) -> Iterator[tuple[int, str]]:
    """(line, what) where scoring keeps what reset() does not see: in a module, a class, a default."""
    shared = {getattr(n, "name", "") for n in tree.body}
    shared |= {name_of(n) for n in syntax.outside_functions(tree) if stored(n)}
    for function in (n for n in nodes if isinstance(n, FUNCTIONS)):
        own = syntax.locals_of(function)[0] | imported | {""}
        given = [n for n in syntax.defaults(function.args) if isinstance(n, (ast.List, ast.Dict, ast.Set))]
        yield from ((node.lineno, "a default that outlives reset()") for node in given)
        for node in every_node(function):
            targets = [target for _, order, target, _ in steps_of(node) if order == ASSIGN]
            targets += node.args[:1] if called(node) == "next" else []
            targets += (
                [node.func.value] if CHANGES.fullmatch(called(node)) and hasattr(node.func, "value") else []
            )
            for target in targets:
                while isinstance(getattr(target, "value", None), ast.AST):
                    target = target.value
                if getattr(target, "id", "") in shared - own:
                    yield node.lineno, "what outlives reset()"


def reads_source(node: ast.AST, names: dict[str, set[str]], own: set[str]) -> bool:
    """Whether a call reads the script's own file."""
    given = [node.func, *node.args[:1]] if called(node) in READS else []
    return any(names_source(part, names, own) for part in given)


def names_source(node: ast.AST, names: dict[str, set[str]], own: set[str]) -> bool:
    """Whether an expression stands for the script's own file."""
    parts = list(every_node(node))
    if {"parent", "parents", "dirname", "with_name"} & set(map(name_of, parts)):
        return False
    argv = any(full == "sys.argv" for part in parts for full in full_names(part, names))
    return argv or any(getattr(part, "id", "") in own | {"__file__"} for part in parts)


def holders(tree: ast.Module, gives: Callable[[ast.AST], bool]) -> set[str]:
    """Names of a module and its classes that hold what an expression with such a part gives. Knobs do not."""
    held: set[str] = set()
    heads = [parts for parts in statements(tree.body) if not {"environ", "getenv"} & set(map(name_of, parts))]
    for _ in range(HAND_OVERS):
        for parts in heads:
            if any(gives(n) or getattr(n, "id", "") in held for n in parts):
                kept = [inner(n) for n in parts if isinstance(n, (ast.Name, ast.Subscript)) and stored(n)]
                kept += [n.func.value for n in parts if called(n) in FILLERS and hasattr(n.func, "value")]
                held |= set(map(name_of, kept))
    return held


def statements(body: list[ast.AST]) -> Iterator[list[ast.AST]]:
    """The nodes of each statement outside functions and the main program, of blocks their heads alone."""
    for one in body:
        if isinstance(one, FUNCTIONS) or main_guard(one):
            continue
        blocks = [getattr(one, name, []) for name in ("body", "orelse", "finalbody", "handlers", "cases")]
        within = [part for block in blocks for part in block]
        yield [n for child in ast.iter_child_nodes(one) if child not in within for n in every_node(child)]
        yield from statements(within)


LOADER = "load_scorer"  # the function of a submission that reads the artifact


# Methods that run without being named.
UNCALLED = ("forward", *sorted(DUNDER_METHODS - set("__init__ __post_init__ __enter__ __exit__".split())))


def reach(tree: ast.Module, names: set[str]) -> list[ast.AST]:
    """All nodes of what these names stand for and of what that uses, by name: functions that it calls,
    properties, __init__ of scorers, values of names of the module's and of classes'."""
    parts: dict[str, list[ast.AST]] = {}
    unasked = set()  # what runs or is read without a call
    for node in every_node(tree):
        if isinstance(node, FUNCTIONS):
            parts.setdefault(node.name, []).append(node)
            decorators = set(map(name_of, node.decorator_list))
            unasked |= decorators | ({node.name} if {"property", "cached_property"} & decorators else set())
        elif isinstance(node, ast.Assign) and name_of(node.targets[0]) == SCORER:
            parts.setdefault(SCORER, []).append(node.value)
            unasked.add(name_of(node.value))
        elif isinstance(node, (ast.Module, ast.ClassDef)):
            for target, value in outer_values(node):
                parts.setdefault(target, []).append(value)
                unasked.add(target)
        if isinstance(node, ast.ClassDef):
            methods = {getattr(part, "name", ""): part for part in node.body}
            if {SCORER, "__init__"} <= set(methods):
                parts.setdefault(node.name, []).append(methods["__init__"])
    for _ in range(HAND_OVERS):
        nodes = [n for name in names for part in parts.get(name, ()) for n in every_node(part)]
        names = names | {called(n) for n in nodes} | {name_of(n) for n in nodes} & unasked
    return [node for name in sorted(names) for part in parts.get(name, ()) for node in every_node(part)]


def outer_values(scope: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Names that a module or a class gives to functions, and a module to what varies from run to run. Knobs
    are read from the environment, which the scorer sets: they are none."""
    for target, value in assignments(ast.Module([s for s in scope.body if isinstance(s, ast.Assign)], [])):
        called_once = isinstance(value, ast.Call)
        knob = {"environ", "getenv"} & set(map(name_of, every_node(value)))
        if isinstance(value, ast.Lambda) or called_once and not knob:
            yield target.id, value


def main_guard(node: ast.stmt) -> bool:
    """Whether a statement runs in the main program alone."""
    return isinstance(node, ast.If) and "__name__" in map(name_of, every_node(node.test))
