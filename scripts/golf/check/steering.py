"""Finds what may steer a score besides the artifact and the text so far. It goes by the names of calls."""

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from golf.check import syntax
from golf.check.allowed import DUNDER_METHODS
from golf.check.learning import ASSIGN, CALL, FILLERS, HAND_OVERS, SCORER, inner, steps_of
from golf.check.modules import aliases, libraries
from golf.check.syntax import (
    FUNCTIONS,
    assignments,
    bindings,
    called,
    chain_of,
    every_node,
    full_names,
    handed_on,
    name_of,
    stored,
)

# What differs from one pass over the same text to the next, or tells which pass it is.
VARYING = tuple("""time. datetime. random. uuid. platform. os.getpid. os.uname. os.cpu_count. queue. signal.
    os.process_cpu_count. os.sched_getaffinity. os.listdir. os.stat. os.getcwd. numpy.random. tempfile.
    sys.argv. sys.getsizeof. shutil. threading. concurrent. logging. traceback. tqdm. torch.profiler. gc.
    torch.cuda.mem torch.utils.benchmark.""".split())  # fmt: skip
# Brotli holds a dictionary of words that no byte counts; gzip writes the time.
IN_SCORING = (*VARYING, *"""os. glob. brotli. gzip. warnings. sys.set sys.std numpy.seterr. numpy.save
    torch.load. torch.save. torch.from_file. torch.manual_seed. torch.initial_seed. torch.random. torch.get_r
    torch.set_d torch.set_n torch.set_r torch.get_n torch.cuda.get_dev""".split())  # fmt: skip
IN_LOADING = VARYING + ("brotli.compress.", "brotli.Compressor.")
# Tensors by chance, and such as hold what memory held; the last name is that of a method, perhaps.
CHANCE = re.compile(
    r"(torch|mlx)\.(\w+\.)*(rand\w*|normal|uniform|gumbel\w*|categorical|rrelu|dropout|\w+_lowrank|\w*Tensor)"
    r"|(.+\.)?((log_|trunc_)?normal_|(uniform|random|cauchy|exponential|geometric|orthogonal)_|bernoulli_?"
    r"|multinomial|r?samples?|(kaiming|xavier)_\w+|(new_)?empty(_like|_strided)?)"
)
DRAWS = re.compile(r"torch\.(rand\w*|normal|bernoulli|multinomial)|torch\.nn\.functional\.\w*dropout")
CHANGES = re.compile(
    r"\w*[a-z]_|(pop|put|heap|insort|pack_|resi|re[mv]|copyt)\w*|clear|sort|discard|next|fill|at"
)
CACHES = {"cache", "lru_cache"}  # return the same object each time
TRAINED = re.compile(r"(Feature|Alpha)*Dropout\d?d?|(Sync|Lazy)?BatchNorm(\dd)?|RReLU")  # differ in training
BLOCKS = (*FUNCTIONS, ast.Lambda)
GIVEN = (ast.Name, ast.Attribute, ast.Lambda, ast.Dict, ast.List, ast.Tuple)  # may be or hold functions
STEPPED = {*"deque defaultdict bytearray iter count cycle map filter zip enumerate reversed".split()}
STARTS = ("threading.Thread.", "signal.signal.", "concurrent.futures.ThreadPoolExecutor.")
SEEDED = frozenset("Random default_rng RandomState PCG64 Philox SeedSequence Generator".split())
READS = frozenset("open read_text read_bytes fromfile memmap".split())
FOLDERS = {"iterdir", "glob", "rglob"}
FILE_STATE = READS.union("""exists is_file stat id data_ptr elapsed_time iterdir rglob write_text write_bytes
    touch mkdir unlink rename rmdir tofile""".split())  # fmt: skip
OF_FILES = {"is_dir", "glob", "object", *FILE_STATE}
LOADER = "load_scorer"  # the function of a submission that reads the artifact
# Methods that run without being named.
UNCALLED = ("forward", *sorted(DUNDER_METHODS - set("__init__ __post_init__ __enter__ __exit__".split())))


def other_sources(tree: ast.Module, module: str) -> Iterator[tuple[int, str]]:
    """(line, what) where scoring meets the clock, chance, the process or files, or its own source."""
    names = aliases(tree, module)
    for target, value in assignments(tree):
        names.setdefault(target.id, set()).update(full_names(value, names))  # clock = time.time
    scoring, loading = reach(tree, {SCORER, "reset", *UNCALLED}), reach(tree, {LOADER})
    yield from (*chances(scoring, names), *kept(tree, scoring, loading, {n for n in names if names[n]}))
    yield from in_training(tree, [*scoring, *loading]) if scoring else ()
    errors = {
        id(part) for handler in every_node(tree) if isinstance(handler, ast.ExceptHandler) and handler.name
        for node in every_node(handler) for _, order, _, value in steps_of(node) if order != CALL
        for part in every_node(value) if getattr(part, "id", "") == handler.name
    }  # fmt: skip
    for kinds, nodes in ((IN_SCORING, scoring), (IN_LOADING, loading)):
        plain = {id(n.value) for n in nodes if isinstance(n, ast.Attribute)}  # a.b of a.b.c
        seeds = (n for n in nodes if called(n) in SEEDED and n.args)
        plain |= {id(n.func) for n in seeds if getattr(n.args[0], "value", 0) is not None}
        for node in nodes:
            found = [full for full in full_names(node, names) if f"{full}.".startswith(kinds)]
            if found and id(node) not in plain:
                yield node.lineno, found[0]
            elif called(node) in (OF_FILES if kinds is IN_SCORING else FOLDERS):
                yield node.lineno, called(node)
            elif called(node) == "seed" and not node.args:
                yield node.lineno, "a seed by chance"
            elif id(node) in errors:
                yield node.lineno, "the text of an error"
            elif tells_address(node):
                yield node.lineno, "an address, perhaps"
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


def tells_address(node: ast.AST) -> bool:
    """Whether it makes a text or a number of an object as such: repr(x), hash(self), f"{self}"."""
    shown = node.args if called(node) in ("str", "format", "hash") else []
    shown = [node.value] if isinstance(node, ast.FormattedValue) else shown
    return called(node) in ("repr", "ascii") or "self" in [getattr(one, "id", "") for one in shown]


def chances(nodes: list[ast.AST], names: dict[str, set[str]]) -> Iterator[tuple[int, str]]:
    """(line, what) of tensors by chance without a generator, and of empty ones that nothing fills."""
    plain = untrained(nodes)
    calls = [n for n in (*plain, *map(handed_on, plain)) if isinstance(n, ast.Call)]
    held = {id(value): name_of(inner(to)) or "?" for n in nodes for *_, to, value in steps_of(n) if to}
    filled = {name_of(inner(n)) for n in nodes if isinstance(n, ast.Subscript) and stored(n)}
    filled |= {name_of(n.func.value) for n in calls if called(n)[-1:] == "_" and hasattr(n.func, "value")}
    given = [n for n in nodes if called(n) in ("readinto", "copyto") or getattr(n, "arg", "") == "out"]
    filled |= {name_of(part) for n in given for part in every_node(n)}
    for node in calls:
        name, words = next(full_names(node.func, names), called(node)), {w.arg for w in node.keywords}
        fixed = node.args[2:3] if name.endswith("dropout") else []
        fixed += [w.value for w in node.keywords if w.arg == "training"]
        known = words & {"generator", "key"} or fixed and getattr(fixed[0], "value", 0) is not True
        if CHANCE.fullmatch(name) and not known and not ("empty" in name and held.get(id(node)) in filled):
            yield node.lineno, f"{name}, chance or what memory held"
    direct = {n.func for n in calls}
    values = [(n, full) for n in plain if n not in direct for full in full_names(n, names)]
    yield from ((n.lineno, f"{full}, chance") for n, full in values if DRAWS.fullmatch(full))


def in_training(tree: ast.Module, nodes: list[ast.AST]) -> Iterator[tuple[int, str]]:
    """(line, what) of what differs in training, if neither these nodes nor an __init__ call model.eval()."""
    starts = [f for f in every_node(tree) if getattr(f, "name", "") == "__init__"]
    quiet = [n for n in (*nodes, *(part for f in starts for part in every_node(f))) if called(n) == "eval"]
    if {chain_of(n.func)[0] for n in quiet} - libraries(tree):  # not mx.eval(x)
        return
    found = [(n, called(n)) for n in every_node(tree) if TRAINED.fullmatch(called(n))]
    found += [(n, "training") for n in nodes if name_of(n) == "training" and not stored(n)]
    yield from ((node.lineno, f"{what} without eval()") for node, what in found)


def kept(tree: ast.Module, scoring: list, loading: list, imported: set[str]) -> Iterator[tuple[int, str]]:
    """(line, what) where scoring keeps what reset() does not see: in a module, a class, a default, an object
    or a function made at the start, attributes that reset() does not name."""
    functions = [n for n in every_node(tree) if isinstance(n, FUNCTIONS)]
    generators = {f.name for f in functions if {ast.Yield, ast.YieldFrom} & set(map(type, every_node(f)))}
    movers = {f.name for f in functions if "self" in [root(to)[0] for to, _ in changed(f)]}
    start = list(syntax.outside_functions(tree))  # what runs once, before a stream begins
    made = [(name_of(to), value) for n in start for *_, to, value in steps_of(n) if to]
    objects = {name for name, value in made if called(value)}
    empty = {name for name, value in made if begins(value, generators)}
    empty |= {name for name, value in made if fills(value) and root(value)[0] not in imported}
    lasting = {name_of(n) for n in start if stored(n)} | {getattr(n, "name", "") for n in tree.body}
    keeping = [(f.name, d) for f in functions for d in f.decorator_list]  # what they returned
    lasting |= {f"{name}()" for name, by in made + keeping if CACHES & set(map(name_of, every_node(by)))}
    renewed, all_locals, found = renewed_by_reset(tree), set(), []
    for block in (n for n in (*scoring, *loading) if isinstance(n, BLOCKS)):
        name, within = getattr(block, "name", ""), every_node(block)
        own = syntax.locals_of(block)[0] | imported | {""}  # what has no name is nobody's
        all_locals |= own
        found += [n for n in syntax.defaults(block.args) if begins(n, generators)]  # def f(x, seen=[])
        found += [n for n in within if called(n) in movers and root(n.func)[0] in objects - own]  # M.note(x)
        if name == "reset":
            found += [n for n in within if asks_self(n)]
        if name in {"__init__", *map(called, start)}:  # a function that it makes may keep its variables
            for inside in (n for n in within if isinstance(n, BLOCKS)):
                closed = own - syntax.locals_of(inside)[0] - imported - {"self"}
                found += [to for to, _ in changed(inside) if root(to)[0] in closed]
        for to, part in changed(block) if block in scoring else ():
            first, attribute = root(to)
            if first in lasting - own:  # SEEN[0] = x
                found.append(to)
            elif first == "self" and part and renewed and attribute not in renewed:  # self.seen[0] = x
                found += [to] if name not in ("__init__", *FILLERS) else []
    found += [n for n in (*scoring, *loading) if getattr(n, "id", None) in empty - all_locals]
    yield from ((node.lineno, "what outlives reset()") for node in found)


def renewed_by_reset(tree: ast.Module) -> set[str]:
    """Names that reset() and what it uses mention, and those in classes that it makes objects of."""
    named = set(map(name_of, reach(tree, {"reset"})))
    classes = [n for n in every_node(tree) if isinstance(n, ast.ClassDef) and n.name in named]
    return named | {name_of(part) for one in classes for part in every_node(one)}


def asks_self(node: ast.AST) -> bool:
    """Whether reset() counts, or asks what was there before: self.n += 1, hasattr(self, "n")."""
    asks = called(node) in ("getattr", "hasattr", "vars") and name_of(next(iter(node.args), None)) == "self"
    return asks or isinstance(node, ast.AugAssign) and root(node.target)[0] == "self"


def begins(value: ast.expr, steps: set[str]) -> bool:
    """Whether it is an empty container, or what is stepped through once."""
    if isinstance(value, (ast.List, ast.Dict, ast.Set)) or called(value) in ("list", "dict", "set"):
        return not any(getattr(value, name, 0) for name in ("elts", "keys", "args", "keywords"))
    return isinstance(value, ast.GeneratorExp) or called(value) in STEPPED | steps


def fills(node: ast.AST) -> bool:
    """A method that changes its object, as a value: SEEN.append."""
    return isinstance(node, ast.Attribute) and node.attr in FILLERS and not stored(node)


def changed(function: ast.AST) -> Iterator[tuple[ast.AST, bool]]:
    """What a function assigns to or changes outside training; whether that is a part of what stays."""
    nodes = untrained(every_node(function))
    steps = [step for n in nodes if not isinstance(n, (ast.Call, ast.AugAssign)) for step in steps_of(n)]
    given = [(to.id, value) for *_, to, value in steps if isinstance(to, ast.Name)]
    once = [name for name, times in Counter(name for name, _ in given).items() if times == 1]
    same = {name: value for name, value in given if name in once and is_same(value)}
    for node in nodes:
        found = []
        for to in (to for _, order, to, _ in steps_of(node) if order == ASSIGN):
            part = isinstance(node, (ast.AugAssign, ast.Call)) or name_of(getattr(to, "value", 0)) != "self"
            found.append((to, part or not isinstance(to, ast.Attribute)))
        if changes := CHANGES.fullmatch(called(node)):
            whole = called(node) in ("fill_", "zero_", "copy_")
            found.append((getattr(node.func, "value", node.func), not whole))
        others = node.args[:2] if changes else node.targets if isinstance(node, ast.Delete) else []
        others += [node.value] if isinstance(node, ast.keyword) and node.arg == "out" else []
        found += [(other, False) for other in others] + ([(node.value, True)] if fills(node) else [])
        for to, part in found:
            new = isinstance(to, ast.Name) and stored(to)  # not t[0] = x after t = TABLE
            yield to if new else same.get(root(to)[0], to), part


def is_same(value: ast.AST) -> bool:
    """Whether a name that is given this value stands for the same: t = TABLE, t = TABLE["a"], t = f()."""
    if isinstance(value, ast.Subscript):
        return isinstance(value.slice, ast.Constant)
    return isinstance(value, (ast.Name, ast.Attribute, ast.Call))


def root(node: ast.AST) -> tuple[str, str]:
    """'a', 'b' of a.b[c].d, what a chain of attributes and indices begins with; 'f()' of f(x)[c]."""
    attribute = ""
    while isinstance(getattr(node, "value", None), ast.AST):
        attribute, node = getattr(node, "attr", attribute), node.value
    return getattr(node, "id", called(node) and f"{called(node)}()"), attribute


def untrained(nodes: Iterable[ast.AST]) -> list[ast.AST]:
    """The nodes less what a test of `training` guards."""
    tests = [n for n in nodes if isinstance(n, (ast.If, ast.IfExp))]
    tests = [n for n in tests if "training" in map(name_of, every_node(n.test))]
    guarded = {id(part) for node in tests for part in every_node(node)}
    return [node for node in nodes if id(node) not in guarded]


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


def reach(tree: ast.Module, names: set[str]) -> list[ast.AST]:
    """All nodes of what these names stand for and of what that mentions: functions, methods by any object,
    __init__ of scorers, values of names of the module's and of classes', and of attributes."""
    parts: dict[str, list[ast.AST]] = {}  # 'f' -> what f or f() may mean, '.f' -> x.f or x.f()
    unasked = set()  # what counts where it is only mentioned: it runs without a call, or is a value
    methods = {part for n in every_node(tree) if isinstance(n, ast.ClassDef) for part in n.body}
    for node in every_node(tree):
        if isinstance(node, FUNCTIONS):
            name, decorators = "." * (node in methods) + node.name, set(map(mention, node.decorator_list))
            parts.setdefault(name, []).append(node)
            unasked |= decorators | ({name} if {"property", "cached_property"} & decorators else set())
        elif isinstance(node, ast.Assign) and gives_function(node):
            parts.setdefault(mention(node.targets[0]), []).append(node.value)
            unasked.add(mention(node.value))
        elif isinstance(node, (ast.Module, ast.ClassDef)):
            for target, value in outer_values(node):
                for name in {target, "." * isinstance(node, ast.ClassDef) + target}:
                    parts.setdefault(name, []).append(value)
                    unasked.add(name)
        if isinstance(node, ast.ClassDef):
            found = {getattr(part, "name", ""): part for part in node.body}
            if {SCORER, "__init__"} <= set(found):
                parts.setdefault(node.name, []).append(found["__init__"])
    attributes = (n.attr for n in every_node(tree) if isinstance(n, ast.Attribute) and stored(n))
    times = bindings(tree) + Counter(f".{name}" for name in attributes)
    unasked |= {name for name, found in parts.items() if times[name] <= len(found)}  # no variable as well
    foreign = libraries(tree)
    own = {name for name, _ in syntax.imports(tree, "")} - foreign
    names = names | {f".{name}" for name in names}
    for _ in range(HAND_OVERS):
        nodes = [n for name in names for part in parts.get(name, ()) for n in every_node(part)]
        nodes = [n for n in nodes if chain_of(getattr(n, "func", n))[0] not in foreign]  # not struct.pack
        names = names | {mention(getattr(n, "func", n)) for n in nodes if isinstance(n, ast.Call)}
        names |= {mention(n) for n in nodes} & unasked | {name_of(n) for n in nodes if chain_of(n)[0] in own}
    return [node for name in sorted(names) for part in parts.get(name, ()) for node in every_node(part)]


def mention(node: ast.AST) -> str:
    """'f' of a name, '.f' of an attribute, else ''."""
    return "." * isinstance(node, ast.Attribute) + name_of(node)


def gives_function(node: ast.Assign) -> bool:
    """Whether it may give a function another name: self.act = act, log_probs = h, x.ops = {"a": act}."""
    plain = isinstance(node.value, GIVEN) or called(node.value) == "partial"
    return name_of(node.targets[0]) == SCORER or isinstance(node.targets[0], ast.Attribute) and plain


def outer_values(scope: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Names that a module or a class gives to functions, and a module to what varies from run to run. Knobs
    are read from the environment, which the scorer sets: they are none."""
    for target, value in assignments(ast.Module([s for s in scope.body if isinstance(s, ast.Assign)], [])):
        called_once = isinstance(value, ast.Call)
        knob = {"environ", "getenv"} & set(map(name_of, every_node(value)))
        if isinstance(value, GIVEN) or called_once and not knob:
            yield target.id, value


def main_guard(node: ast.stmt) -> bool:
    """Whether a statement runs in the main program alone."""
    return isinstance(node, ast.If) and "__name__" in map(name_of, every_node(node.test))
