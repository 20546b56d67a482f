"""Finds what may steer a score besides the artifact and the text so far. It goes by the names of calls."""

import ast
import builtins
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator

from golf.check import syntax
from golf.check.allowed import DUNDER_METHODS
from golf.check.learning import ASSIGN, CALL, FILLERS, HAND_OVERS, SCORER, inner, steps_of
from golf.check.modules import libraries
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
    *"brotli.compress. brotli.Compressor. os.mkdir. os.make os.rename. os.replace.".split(),
)
# Tensors by chance, and such as hold what memory held; the last name is that of a method, perhaps.
CHANCE = re.compile(
    r"(torch|mlx)\.(\w+\.)*(rand\w*|normal|uniform|gumbel\w*|categorical|rrelu|dropout|\w+_lowrank|\w*Tensor)"
    r"|(.+\.)?((log_|trunc_)?normal_|(uniform|random|cauchy|exponential|geometric|orthogonal)_|bernoulli_?"
    r"|multinomial|r?samples?|(kaiming|xavier)_\w+|(new_)?empty(_like|_strided)?)"
)
DRAWS = re.compile(r"torch\.(rand\w*|normal|bernoulli|multinomial)|torch\.nn\.functional\.\w*dropout")
CHANGES = re.compile(
    r"\w*[a-z]_|(pop|put|heap|insort|pack_|resi|re[mv]|copyt|register_|seek|write|permut)\w*|clear|sort|at|fill"
    r"|discard|next|compress|__(set|init|next)\w*|random|(standard_)?normal|uniform|integers|choices?|shuffle"
)
TAKERS = re.compile(r"(heap|insort|pack_|_foreach_|put)\w*|at|next|copyto|shuffle")  # change their arguments
CACHES = {"cache", "lru_cache"}  # return the same object each time
TRAINED = re.compile(r"(Feature|Alpha)*Dropout\d?d?|(Sync|Lazy)?BatchNorm(\dd)?|RReLU")  # differ in training
BLOCKS = (*FUNCTIONS, ast.Lambda)
GIVEN = (ast.Name, ast.Attribute, ast.Lambda, ast.Dict, ast.List, ast.Tuple)  # may be or hold functions
STEPPED = {*"deque defaultdict bytearray iter count cycle map filter zip enumerate reversed".split()}
STARTS = ("threading.Thread.", "signal.signal.", "concurrent.futures.ThreadPoolExecutor.")
SEEDED = frozenset("Random default_rng RandomState PCG64 Philox SeedSequence Generator".split())
READS = frozenset("open read_text read_bytes fromfile memmap".split())
WRITES = frozenset("write_text write_bytes touch mkdir unlink rename rmdir tofile".split())
FOLDERS = WRITES | {"iterdir", "glob", "rglob"}  # a file that one pass leaves tells the next
FILE_STATE = READS | WRITES | {*"exists is_file stat id data_ptr elapsed_time iterdir rglob".split()}
OF_FILES = {"is_dir", "glob", "object", *FILE_STATE}
VAL_SHARD = re.compile(r"(.*/)?fineweb_val\S*|val|validation")
LOADER = "load_scorer"  # the function of a submission that reads the artifact
MADE = {*"__init__ __post_init__ __enter__ __exit__".split()}  # run where an object of a class is made
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
    yield from (*chances(tree, scoring, names), *kept(tree, scoring, loading, {n for n in names if names[n]}))
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
    held = {id(value): name_of(inner(to)) or "?" for n in nodes for *_, to, value in steps_of(n) if to}
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
    empty |= {name for name, v in made if getattr(v, "attr", 0) in FILLERS and root(v)[0] not in imported}
    lasting = {name_of(n) for n in start if stored(n)} | {getattr(n, "name", "") for n in tree.body}
    keeping = [(f.name, d) for f in functions for d in f.decorator_list]  # what they returned
    lasting |= {f"{name}()" for name, by in made + keeping if CACHES & set(map(name_of, every_node(by)))}
    makers = {"__init__", *map(called, start), *(name_of(by) for _, by in keeping)}
    renewed, all_locals, found = renewed_by_reset(tree), set(), []
    for block in (n for n in (*scoring, *loading) if isinstance(n, BLOCKS)):
        name, within = getattr(block, "name", ""), every_node(block)
        own = syntax.locals_of(block)[0] | imported | {""}  # what has no name is nobody's
        all_locals |= own
        found += [n for n in syntax.defaults(block.args) if begins(n, generators)]  # def f(x, seen=[])
        found += [n for n in within if called(n) in movers and root(n.func)[0] in objects - own]  # M.note(x)
        if name == "reset":
            found += asks_self(within)
        if block in loading or name in makers:  # a function that it makes and hands on may keep its variables
            funcs = {n.func for n in within if isinstance(n, ast.Call)}
            handed = {getattr(n, "id", "") for n in within if n not in funcs} | {None}
            handed |= {getattr(f, "name", "") for n in within if isinstance(n, ast.ClassDef) for f in n.body}
            for inside in (n for n in within if isinstance(n, BLOCKS) and getattr(n, "name", None) in handed):
                closed = own - syntax.locals_of(inside)[0] - imported - {"self", ""}
                found += [to for to, _ in changed(inside) if root(to)[0] in closed]
        kinds = set(map(type, syntax.defaults(block.args))) & {ast.List, ast.Dict, ast.Call}
        made_once = {taker.arg for taker in syntax.arguments(block.args)} if kinds else set()
        for to, part in changed(block) if block in scoring else ():
            first, attribute = root(to)
            if first in lasting - own or first in made_once:  # SEEN[0] = x
                found.append(to)
            elif first == "self" and part and renewed and attribute not in renewed:  # self.seen[0] = x
                found += [to] if name not in {*MADE, *FILLERS} else []
    found += [n for n in (*scoring, *loading) if getattr(n, "id", None) in empty - all_locals]
    yield from ((node.lineno, "what outlives reset()") for node in found)


def renewed_by_reset(tree: ast.Module) -> set[str]:
    """Names that reset() and what it uses mention, and those in classes that it makes objects of."""
    named = set(map(name_of, reach(tree, {"reset"})))
    classes = [n for n in every_node(tree) if isinstance(n, ast.ClassDef) and n.name in named]
    return named | {name_of(part) for one in classes for part in every_node(one)}


def asks_self(nodes: Iterable[ast.AST]) -> list[ast.AST]:
    """Where reset() asks for what was there: self.n += 1, hasattr(self, "n"), if self.n: self.n = 0."""
    asks = [n for n in nodes if called(n) in ("hasattr", "vars")]
    asks += [n for n in nodes if isinstance(n, ast.AugAssign) and root(n.target)[0] == "self"]
    given = {n.attr: n.lineno for n in nodes[::-1] if isinstance(n, ast.Attribute) and stored(n)}
    plain = {n.left for n in nodes if isinstance(n, ast.Compare) and "None" in ast.unparse(n)}
    reads = (n for n in nodes if getattr(n, "attr", "") in given and not stored(n) and n not in plain)
    return asks + [n for n in reads if n.lineno <= given[n.attr]]


def begins(value: ast.expr, steps: set[str]) -> bool:
    """Whether it is an empty container, or what is stepped through once."""
    if isinstance(value, (ast.List, ast.Dict, ast.Set)) or called(value) in ("list", "dict", "set"):
        return not any(getattr(value, name, 0) for name in ("elts", "keys", "args", "keywords"))
    return isinstance(value, ast.GeneratorExp) or called(value) in STEPPED | steps


def changed(function: ast.AST) -> Iterator[tuple[ast.AST, bool]]:
    """What a function changes outside training; whether it changes a part of that, or adds to it."""
    nodes = untrained(every_node(function))
    steps = [step for n in nodes if not isinstance(n, (ast.Call, ast.AugAssign)) for step in steps_of(n)]
    given = [(to.id, value) for *_, to, value in steps if isinstance(to, ast.Name)]
    once = [name for name, times in Counter(name for name, _ in given).items() if times == 1]
    alike = [(name, value) for name, value in given if isinstance(value, (ast.Name, ast.Attribute, ast.Call))]
    alike += [one for one in given if isinstance(getattr(one[1], "slice", 0), ast.Constant)]
    same = {name: value for name, value in alike if name in once}  # t = TABLE, t = TABLE["a"], t = f()
    for node in nodes:
        for to, part in changed_by(node):
            new = isinstance(to, ast.Name) and stored(to)  # not t[0] = x after t = TABLE
            yield to if new else same.get(root(to)[0], to), part


def changed_by(node: ast.AST) -> Iterator[tuple[ast.AST, bool]]:
    """The same of one node."""
    for to, value in ((to, value) for _, order, to, value in steps_of(node) if order == ASSIGN):
        own = [name_of(n) for n in (to, *every_node(value)) if name_of(getattr(n, "value", 0)) == "self"]
        yield to, own[:1] != [name_of(to)] or name_of(to) in own[1:]  # self.n = self.n + 1, not self.n = 1
    name, arguments = called(node), getattr(node, "args", [])
    if CHANGES.fullmatch(name):
        yield getattr(node.func, "value", node.func), name not in ("fill_", "zero_", "copy_")
        yield from ((one, name != "copyto") for one in arguments[:2] if TAKERS.fullmatch(name))
    elif name in FILLERS and name_of(getattr(node.func, "value", 0)) in dir(builtins):  # list.append(SEEN, x)
        yield from ((one, True) for one in arguments[:1])
    elif isinstance(node, ast.Delete):
        yield from ((target, True) for target in node.targets)
    elif isinstance(node, ast.keyword) and node.arg in ("out", "generator", "file"):
        yield node.value, node.arg != "out"
    elif isinstance(node, ast.Attribute) and node.attr in FILLERS and not stored(node):
        yield node.value, True


def root(node: ast.AST) -> tuple[str, str]:
    """'a', 'b' of a.b[c].d, what a chain of attributes and indices begins with; 'f()' of f(x)[c]."""
    attribute = ""
    while isinstance(getattr(node, "value", None), ast.AST):
        attribute, node = getattr(node, "attr", attribute), node.value
    return getattr(node, "id", called(node) and f"{called(node)}()"), attribute


def untrained(nodes: Iterable[ast.AST]) -> list[ast.AST]:
    """The nodes less what runs in training alone: if self.training and ...: ..."""
    guarded = set()
    for node in (n for n in nodes if isinstance(n, (ast.If, ast.IfExp))):
        both = isinstance(node.test, ast.BoolOp) and isinstance(node.test.op, ast.And)
        if name_of(node.test.values[0] if both else node.test) == "training":
            body = ast.Tuple([node.test, *(node.body if isinstance(node, ast.If) else [node.body])])
            guarded |= {id(part) for part in every_node(body)}
    return [node for node in nodes if id(node) not in guarded]


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
    foreign = libraries(tree)
    own = {name for name, _ in syntax.imports(tree, "")} - foreign

    def used(node: ast.AST) -> set[str]:
        by = getattr(node, "func", node)
        first, name = chain_of(by)[0], name_of(by)
        inherited = name in MADE and called(getattr(by, "value", by)) == "super"
        if first in foreign or inherited or name == "apply" and first[:1].isupper():
            return set()  # not struct.pack, nor what any other class calls __init__
        found = {mention(node)} & unasked | ({mention(by)} if isinstance(node, ast.Call) else set())
        return found | ({name_of(node)} if chain_of(node)[0] in own else set())

    found, known, new, nodes = [], set(), names | {f".{name}" for name in names}, [*given]
    while new or nodes:
        known |= new
        nodes += [node for name in sorted(new) for part in meant.get(name, ()) for node in every_node(part)]
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
