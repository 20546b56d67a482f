"""Finds what may steer a score besides the artifact and the text so far. It goes by the names of calls."""

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator

from golf.check import syntax
from golf.check.allowed import DUNDER_METHODS
from golf.check.kept import outliving, untrained
from golf.check.learning import HAND_OVERS
from golf.check.modules import libraries
from golf.check.origins import FILLERS, MADE, SCORER, given_by, inner, origins
from golf.check.syntax import FUNCTIONS, called, chain_of, every_node, full_names, mention, name_of, stored

# What differs from one pass over the same text to the next, or tells which pass it is.
VARYING = tuple("""time. datetime. random. uuid. platform. os.getpid. os.uname. os.cpu_count. queue. signal.
    os.process_cpu_count. os.sched_getaffinity. os.listdir. os.stat. os.getcwd. numpy.random. tempfile.
    sys.argv. sys.getsizeof. shutil. threading. concurrent. logging. traceback. tqdm. torch.profiler. gc.
    torch.cuda.mem torch.cuda.max_ torch.cuda.util torch.utils.benchmark. torch.utils.data.
    """.split())  # fmt: skip
# Brotli holds a dictionary of words that no byte counts; gzip writes the time.
IN_SCORING = (*VARYING, *"""os. glob. brotli. gzip. warnings. locale. sys.set sys.std numpy.seterr. numpy.set_
    numpy.save torch.load. torch.save. torch.from_file. torch.manual_seed. torch.initial_seed. torch.random.
    torch.set_ torch.get_r torch.get_n torch.get_f torch.default_generator. torch.use_d torch.compiler.set
    torch.dist torch.cuda.get_ torch.cuda.set_ torch.cuda.man mlx.core.random.s""".split())  # fmt: skip
IN_LOADING = (
    *VARYING,
    *"brotli.compress. brotli.Compressor. os.mkdir. os.rename. os.makedirs. os.replace.".split(),
)
# Tensors by chance, and such as hold what memory held; the last name is that of a method, perhaps.
CHANCE = re.compile(
    r"(torch|mlx)\.(\w+\.)*(rand\w*|normal|uniform|gumbel\w*|categorical|rrelu|dropout|\w+_lowrank|\w*Tensor)"
    r"|(.+\.)?((log_|trunc_)?normal_|(uniform|random|cauchy|exponential|geometric|orthogonal)_|bernoulli_?"
    r"|multinomial|r?samples?|(kaiming|xavier)_\w+|(new_)?empty(_like|_strided)?)"
)
DRAWS = re.compile(r"torch\.(rand\w*|normal|bernoulli|multinomial)|torch\.nn\.functional\.\w*dropout")
TRAINED = re.compile(r"(Feature|Alpha)*Dropout\d?d?|(Sync|Lazy)?BatchNorm(\dd)?|RReLU")  # differ in training
GIVEN = (ast.Name, ast.Attribute, ast.Lambda, ast.Dict, ast.List, ast.Tuple)  # may be or hold functions
STARTS = ("threading.Thread.", "signal.signal.", "concurrent.futures.ThreadPoolExecutor.")
SEEDED = frozenset("Random default_rng RandomState PCG64 Philox SeedSequence Generator".split())
READS = frozenset("open read_text read_bytes fromfile memmap".split())
WRITES = frozenset("write_text write_bytes touch mkdir unlink rename rmdir tofile".split())
FOLDERS = WRITES | {"iterdir", "glob", "rglob"}
FILE_STATE = READS | WRITES | {*"exists is_file stat id data_ptr elapsed_time iterdir rglob".split()}
OF_FILES = {"is_dir", "glob", "object", *FILE_STATE}
VAL_SHARD = re.compile(r"(.*/)?fineweb_val\S*|val|validation")
LOADER = "load_scorer"  # the function of a submission that reads the artifact
UNCALLED = {"forward", *DUNDER_METHODS - MADE}  # methods that run without being named


def other_sources(tree: ast.Module, names: dict[str, set[str]]) -> Iterator[tuple[int, str]]:
    """(line, what) where scoring meets the clock, chance, the process or files, or its own source.

    names: what those of imports stand for."""
    for target, value in syntax.assignments(tree):
        names.setdefault(target.id, set()).update(full_names(value, names))  # clock = time.time
    loading = reach(tree, {LOADER})
    direct = {n.func for n in loading if isinstance(n, ast.Call)}
    hooks = [n for n in loading if n not in direct and name_of(n) or isinstance(n, ast.Lambda)]
    lambdas = [part for n in hooks if isinstance(n, ast.Lambda) for part in every_node(n)]
    functions = {n.name for n in every_node(tree) if isinstance(n, FUNCTIONS)}
    scoring = reach(tree, {SCORER, "reset", *UNCALLED} | functions & set(map(name_of, hooks)), lambdas)
    code = origins(tree)
    resets = [f for f in code.functions["reset"] if f in code.scorer] or code.functions["reset"]
    resetting = reach(tree, set(), [part for f in resets for part in every_node(f)])
    yield from chances(tree, scoring, names)
    kept = outliving(tree, scoring, loading, resetting)
    yield from ((node.lineno, "what outlives reset()") for node in kept)
    yield from in_training(tree, [*scoring, *loading]) if scoring else ()
    errors = {
        id(part) for handler in every_node(tree) if isinstance(handler, ast.ExceptHandler) and handler.name
        for node in every_node(handler) for _, value in given_by(node)
        for part in every_node(value) if getattr(part, "id", "") == handler.name
    }  # fmt: skip
    for kinds, nodes in ((IN_SCORING, scoring), (IN_LOADING, loading)):
        plain = {id(n.value) for n in nodes if isinstance(n, ast.Attribute)}  # a.b of a.b.c
        seeds = (n for n in nodes if called(n) in SEEDED and n.args)
        plain |= {id(n.func) for n in seeds if getattr(n.args[0], "value", 0) is not None}
        for node in nodes:
            switch = isinstance(node, ast.Attribute) and stored(node) and kinds is IN_SCORING
            found = [full for full in full_names(node, names) if f"{full}.".startswith(kinds) or switch]
            if found and id(node) not in plain:
                yield node.lineno, found[0]
            elif called(node) in (OF_FILES if kinds is IN_SCORING else FOLDERS):
                yield node.lineno, called(node)
            elif called(node) == "seed" and not node.args or getattr(node, "arg", "") == "enable_sampling":
                yield node.lineno, "a seed by chance"
            elif id(node) in errors:
                yield node.lineno, "the text of an error"
            elif VAL_SHARD.fullmatch(syntax.text_of(node) or ""):
                yield node.lineno, "validation data"
            elif tells_address(node):
                yield node.lineno, "an address, perhaps"
    own = {t.id for t, v in syntax.assignments(tree) if names_source(v, names, set())}
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


def chances(tree: ast.Module, nodes: list[ast.AST], names: dict[str, set[str]]) -> Iterator[tuple[int, str]]:
    """(line, what) of tensors by chance without a generator, and of empty ones that nothing fills."""
    plain, every = untrained(nodes), every_node(tree)
    calls = [n for n in (*plain, *map(syntax.handed_on, plain)) if isinstance(n, ast.Call)]
    pairs = [
        pair for n in nodes for pair in given_by(n) if pair[0] and not isinstance(pair[0], ast.Subscript)
    ]
    held = {id(value): name_of(inner(to)) or "?" for to, value in pairs}
    filled = {name_of(inner(n)) for n in every if isinstance(n, ast.Subscript) and stored(n)}
    filled |= {name_of(n.func.value) for n in every if called(n)[-1:] == "_" and hasattr(n.func, "value")}
    given = [n for n in every if called(n) in ("readinto", "copyto") or getattr(n, "arg", "") == "out"]
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
    within = [*nodes, *(part for f in starts for part in every_node(f))]
    quiet = {chain_of(n.func)[0] for n in within if called(n) == "eval"} - libraries(tree)  # not mx.eval(x)
    if quiet and not [n for n in within if called(n) == "train" and not n.args]:
        return
    found = [(n, called(n)) for n in every_node(tree) if TRAINED.fullmatch(called(n))]
    found += [(n, "training") for n in nodes if name_of(n) == "training" and not stored(n)]
    yield from ((node.lineno, f"{what} without eval()") for node, what in found)


def reads_source(node: ast.AST, names: dict[str, set[str]], own: set[str]) -> bool:
    """Whether a call reads the script's own file."""
    given = [node.func, *node.args[:1]] if called(node) in READS else []
    return any(names_source(part, names, own) for part in given)


def names_source(node: ast.AST, names: dict[str, set[str]], own: set[str]) -> bool:
    """Whether an expression stands for the script's own file."""
    parts = list(every_node(node))
    named = {"train_gpt.py", "train_gpt.packed.py"} & set(map(syntax.text_of, parts))
    if not named and {"parent", "parents", "dirname", "with_name"} & set(map(name_of, parts)):
        return False
    argv = any(full == "sys.argv" for part in parts for full in full_names(part, names))
    return argv or bool(named) or any(getattr(part, "id", "") in own | {"__file__"} for part in parts)


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
        main = isinstance(one, ast.If) and "__name__" in map(name_of, every_node(one.test))
        if main or isinstance(one, FUNCTIONS):
            continue
        blocks = [getattr(one, name, []) for name in ("body", "orelse", "finalbody", "handlers", "cases")]
        within = [part for block in blocks for part in block]
        yield [n for child in ast.iter_child_nodes(one) if child not in within for n in every_node(child)]
        yield from statements(within)


def reach(tree: ast.Module, names: set[str], given: Iterable[ast.AST] = ()) -> list[ast.AST]:
    """All nodes of what these names stand for, of the nodes given, and of what those use in turn: functions,
    methods by any object, what making an object runs, values of names of the module's and of attributes."""
    meant, unasked = meanings(tree)
    code, foreign = origins(tree), libraries(tree)
    own, funcs = code.imported - foreign, {n.func for n in every_node(tree) if isinstance(n, ast.Call)}

    def used(node: ast.AST) -> set:
        by = getattr(node, "func", node)
        first, name = chain_of(by)[0], name_of(by)
        inherited = name in MADE and called(getattr(by, "value", by)) == "super"
        if first in foreign or inherited or name == "apply" and first[:1].isupper():
            return set()  # not struct.pack, nor what any other class calls __init__
        if isinstance(by, ast.Attribute) and {*code.functions.get(name, ())} & code.methods and by in funcs:
            return {*code.callees(node)} if by is not node else set()
        found = {mention(node)} & unasked | ({mention(by)} if isinstance(node, ast.Call) else set())
        return found | ({name_of(node)} if chain_of(node)[0] in own else set())

    found, known, new, nodes = [], set(), names | {f".{name}" for name in names}, [*given]
    while new or nodes:
        known |= new
        nodes += [
            node
            for name in sorted(new, key=str)
            for part in meant.get(name, [name][: isinstance(name, FUNCTIONS)])
            for node in every_node(part)
        ]
        found += nodes
        new, nodes = set().union(*map(used, nodes)) - known, []
    return found


def meanings(tree: ast.Module) -> tuple[dict[str, list[ast.AST]], set[str]]:
    """'f' -> what f or f() may stand for, '.f' -> the same of x.f; names that also count where not called."""
    meant: dict[str, list[ast.AST]] = defaultdict(list)
    unasked = set()
    classes = [n for n in every_node(tree) if isinstance(n, ast.ClassDef)]
    methods = {part for one in classes for part in one.body}
    for node in every_node(tree):
        if isinstance(node, FUNCTIONS):
            name, decorators = "." * (node in methods) + node.name, set(map(mention, node.decorator_list))
            meant[name].append(node)
            unasked |= decorators | ({name} if {"property", "cached_property"} & decorators else set())
        elif isinstance(node, ast.Assign) and gives_function(node):
            meant[mention(node.targets[0])].append(node.value)
            unasked.add(mention(node.value))
        elif isinstance(node, (ast.Module, ast.ClassDef)):
            for target, value in outer_values(node):
                for name in {target, "." * isinstance(node, ast.ClassDef) + target}:
                    meant[name].append(value)
                    unasked.add(name)
    for one in classes:  # what runs when an object is made, here or in a base
        meant[one.name] += [part for part in one.body if getattr(part, "name", "") in MADE] + one.bases
    attributes = (n.attr for n in every_node(tree) if isinstance(n, ast.Attribute) and stored(n))
    times = syntax.bindings(tree) + Counter(f".{name}" for name in attributes)
    return meant, unasked | {name for name, found in meant.items() if times[name] <= len(found)}


def gives_function(node: ast.Assign) -> bool:
    """Whether it may give a function another name: self.act = act, log_probs = h, x.ops = {"a": act}."""
    plain = isinstance(node.value, GIVEN) or called(node.value) == "partial"
    return name_of(node.targets[0]) == SCORER or isinstance(node.targets[0], ast.Attribute) and plain


def outer_values(scope: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Names that a module or a class gives to functions, and a module to what varies from run to run. Knobs
    are read from the environment, which the scorer sets: they are none."""
    plain = ast.Module([one for one in scope.body if isinstance(one, ast.Assign)], [])
    for target, value in syntax.assignments(plain):
        knob = {"environ", "getenv"} & set(map(name_of, every_node(value)))
        if isinstance(value, GIVEN) or isinstance(value, ast.Call) and not knob:
            yield target.id, value
