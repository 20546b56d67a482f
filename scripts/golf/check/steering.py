"""Finds what may steer a score besides the artifact and the text so far.

What log_probs, reset() and load_scorer reach is followed (origins.py). Reported are names of libraries that
tell the clock, chance, the process or files, names of the module that hold what these gave, the files of the
entry as texts, and, by kept.py, what outlives reset().
"""

import ast
import re
from collections.abc import Iterator

from golf.check import syntax
from golf.check.allowed import DUNDER_METHODS
from golf.check.kept import outliving, untrained
from golf.check.machine import SEARCH
from golf.check.origins import MADE, SCORER, Origins, given_by, inner, is_knob, origins
from golf.check.syntax import called, chain_of, every_node, name_of, stored

# What differs from one pass over the same text to the next, or tells which pass it is.
VARYING = tuple("""time. datetime. random. uuid. platform. os.getpid. os.uname. os.cpu_count. queue. signal.
    os.process_cpu_count. os.sched_getaffinity. os.listdir. os.stat. os.getcwd. numpy.random. tempfile.
    sys.argv. sys.getsizeof. sys.version. sys.platform. shutil. threading. concurrent. logging. traceback.
    torch.profiler. gc. torch.cuda.mem torch.cuda.max_ torch.cuda.util torch.utils.benchmark. tqdm.
    torch.utils.data. """.split())  # fmt: skip
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
    r"|multinomial|r?samples?|(kaiming|xavier)_\w+|(new_)?empty(_like|_strided)?|resize_|new)"
)
DRAWS = re.compile(r"torch\.(rand\w*|normal|bernoulli|multinomial)|torch\.nn\.functional\.\w*dropout")
TRAINED = re.compile(r"(Feature|Alpha)*Dropout\d?d?|(Sync|Lazy)?BatchNorm(\dd)?|RReLU")  # differ in training
STARTS = ("threading.Thread.", "signal.signal.", "concurrent.futures.ThreadPoolExecutor.")
SEEDED = frozenset("Random default_rng RandomState PCG64 Philox SeedSequence Generator".split())
READS = frozenset("open read_text read_bytes fromfile memmap".split())
WRITES = frozenset("write_text write_bytes touch mkdir unlink rename rmdir tofile".split())
FOLDERS = WRITES | {"iterdir", "glob", "rglob"}
ASKS = {*"exists is_file is_dir isfile isdir getsize stat id data_ptr elapsed_time iterdir rglob".split()}
FILE_STATE = READS | WRITES | ASKS
OF_FILES = {"glob", "object", *FILE_STATE}
# Whose a file is and when it was made; what a process has left; words of a path.
TELLING = re.compile(r"st_(?!size)\w+|RecursionError|MemoryError")
WORDS = {*"name stem parts len glob".split()}
VAL_SHARD = re.compile(r"(.*/)?fineweb_val\S*|val|validation")
OWN_FILES = {"train_gpt.py", "train_gpt.packed.py", "README.md", "submission.json"}
LOADER = "load_scorer"  # the function of a submission that reads the artifact
UNCALLED = {"forward", *DUNDER_METHODS - MADE}  # methods that run without being named


def other_sources(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, what) where scoring meets the clock, chance, the process or files, or its own source."""
    code = origins(tree)
    loading = code.reached(code.functions_named(LOADER))
    hooks = [function for node in loading if node not in code.direct for function in code.meant(node)]
    hooks = [function for function in hooks if getattr(function, "name", "") not in MADE]
    starts = [function for name in (SCORER, "reset", *UNCALLED) for function in code.functions_named(name)]
    scoring = code.reached([*starts, *hooks, *code.values.get(("", SCORER), ())])
    resets = code.functions_named("reset")
    yield from chances(code, scoring)
    kept = outliving(code, scoring, loading, [f for f in resets if f in code.scorer] or resets)
    yield from ((node.lineno, "what outlives reset()") for node in kept)
    yield from in_training(code, [*scoring, *loading]) if scoring else ()
    steering = Steering(code)
    yield from steering.met(scoring, IN_SCORING, OF_FILES)
    yield from steering.met(loading, IN_LOADING, FOLDERS)
    for node in code.outside if scoring else ():
        if called(node) and steering.named(node.func, STARTS):
            yield node.lineno, "what runs beside"


class Steering:
    """What differs from one pass over the same text to the next, and the script's own text."""

    def __init__(self, code: Origins):
        self.code = code
        self.errors = {*error_texts(code)}
        searches = [n for n in code.every if called(n) == "next" and SEARCH.match(ast.unparse(n))]
        self.search = {part for one in searches for part in every_node(one)}
        self.held: dict[tuple, str] = {}  # of names of the module: what they hold

    def named(self, node: ast.AST, kinds: tuple[str, ...]) -> list[str]:
        """What it stands for of these libraries."""
        return [full for full in sorted(self.code.full_names(node)) if f"{full}.".startswith(kinds)]

    def met(self, nodes: list[ast.AST], kinds: tuple[str, ...], files: set[str]) -> Iterator[tuple[int, str]]:
        plain = {n.value for n in nodes if isinstance(n, ast.Attribute)}  # a.b of a.b.c
        seeds = [n for n in nodes if called(n) in SEEDED and n.args]
        plain |= {n.func for n in seeds if getattr(n.args[0], "value", 0) is not None}
        for node in nodes:
            found = [] if node in plain else self.named(node, kinds)
            switch = isinstance(node, ast.Attribute) and stored(node) and chain_of(node)[0] != "self"
            if switch and kinds is IN_SCORING:
                found = sorted(self.code.full_names(node.value))
            if found:
                yield node.lineno, found[0]
            elif called(node) in files or TELLING.fullmatch(name_of(node)):
                yield node.lineno, called(node) or name_of(node)
            elif called(node) == "seed" and not node.args or getattr(node, "arg", "") == "enable_sampling":
                yield node.lineno, "a seed by chance"
            elif node in self.errors:
                yield node.lineno, "the text of an error"
            elif VAL_SHARD.fullmatch(syntax.text_of(node) or ""):
                yield node.lineno, "validation data"
            elif tells_address(node):
                yield node.lineno, "an address, perhaps"
            elif reads_source(node, self.code):
                yield node.lineno, "its own source"
            elif isinstance(node, (ast.Name, ast.Attribute)) and (what := self.holds(node)):
                yield node.lineno, what

    def holds(self, node: ast.Name | ast.Attribute) -> str:
        """What a name got where the module was imported, if a pass may tell by it."""
        given = [v for v in self.code.lasting_values(node) if inner(v) not in self.code.top]
        key = tuple(given)
        if key not in self.held:
            made = {part for v in given if not is_knob(v) for part in self.code.made_of(v)} - self.search
            told = any(map(self.differs, made)) or any(
                self.says_where(n) for v in given for n in every_node(v)
            )
            differs = f"{name_of(node)}, which differs from run to run" * told
            self.held[key] = "its own source" if any(reads_source(n, self.code) for n in made) else differs
        return self.held[key]

    def differs(self, node: ast.AST) -> bool:
        of_files = called(node) in FILE_STATE - READS or name_of(node) == "__name__"
        told = self.named(node, (*VARYING, "brotli.", "sys.std"))
        return of_files or node in self.errors or bool(told)

    def says_where(self, node: ast.AST) -> bool:
        """Whether it is a word of the path at which the script lies or runs, or what one compares."""
        words = {called(node), getattr(node, "attr", "")} & WORDS or isinstance(node, ast.Compare)
        path = {*self.code.made_of(node)} - self.search if words else ()
        return any(getattr(n, "id", "") == "__file__" or called(n) == "cwd" for n in path)


def error_texts(code: Origins) -> Iterator[ast.AST]:
    """Where the error of `except ... as error` is kept or returned."""
    for handler in (n for n in code.every if isinstance(n, ast.ExceptHandler) and n.name):
        values = [value for node in every_node(handler) for _, value in given_by(node)]
        parts = [part for value in values for part in every_node(value)]
        yield from (part for part in parts if getattr(part, "id", "") == handler.name)


def tells_address(node: ast.AST) -> bool:
    """Whether it makes a text or a number of an object as such: repr(x), hash(self), f"{self}"."""
    shown = node.args if called(node) in ("str", "format", "hash") else []
    shown = [node.value] if isinstance(node, ast.FormattedValue) else shown
    return called(node) in ("repr", "ascii") or "self" in [getattr(one, "id", "") for one in shown]


def chances(code: Origins, nodes: list[ast.AST]) -> Iterator[tuple[int, str]]:
    """(line, what) of tensors by chance without a generator, and of empty ones that nothing fills."""
    plain = untrained(nodes)
    calls = [n for n in (*plain, *map(syntax.handed_on, plain)) if isinstance(n, ast.Call)]
    given = [pair for n in nodes for pair in given_by(n) if pair[0]]
    held = {v: name_of(inner(to)) or "?" for to, v in given if not isinstance(to, ast.Subscript)}
    filled = {name_of(part) for n in code.every for part in fills(n)}
    for node in calls:
        names, words = code.full_names(node.func) or {called(node)}, {w.arg for w in node.keywords}
        chance = sorted(filter(CHANCE.fullmatch, names))
        fixed = node.args[2:3] if called(node).endswith("dropout") else []
        fixed += [w.value for w in node.keywords if w.arg == "training"]
        known = words & {"generator", "key"} or fixed and getattr(fixed[0], "value", 0) is not True
        if chance and not known and not ("empty" in chance[0] and held.get(node) in filled):
            yield node.lineno, f"{chance[0]}, chance or what memory held"
    for node in (n for n in plain if n not in code.direct):
        for full in filter(DRAWS.fullmatch, sorted(code.full_names(node))):
            yield node.lineno, f"{full}, chance"


def fills(node: ast.AST) -> Iterator[ast.AST]:
    """What a node gives all its values: x in x[0] = 1, x.fill_(1), copyto(x, y), add(y, z, out=x)."""
    if isinstance(node, ast.Subscript) and stored(node):
        yield inner(node)
    elif called(node)[-1:] == "_" and isinstance(node.func, ast.Attribute):
        yield node.func.value
    elif called(node) in ("readinto", "copyto") or getattr(node, "arg", "") == "out":
        yield from every_node(node)


def in_training(code: Origins, nodes: list[ast.AST]) -> Iterator[tuple[int, str]]:
    """(line, what) of what differs in training, if neither these nodes nor an __init__ call model.eval()."""
    starts = code.functions_named("__init__")
    within = [*nodes, *(part for function in starts for part in every_node(function))]
    quiet = {chain_of(n.func)[0] for n in within if called(n) == "eval"} - code.foreign  # not mx.eval(x)
    if quiet and not [n for n in within if called(n) == "train" and not n.args]:
        return
    found = [(n, called(n)) for n in code.every if TRAINED.fullmatch(called(n))]
    found += [(n, "training") for n in nodes if name_of(n) == "training" and not stored(n)]
    yield from ((node.lineno, f"{what} without eval()") for node, what in found)


def reads_source(node: ast.AST, code: Origins) -> bool:
    """Whether a call reads the script's own file, or a name is that of its docstring."""
    given = [node.func, *node.args[:1]] if called(node) in READS else []
    return name_of(node) == "__doc__" or any(names_source(part, code, set()) for part in given)


def names_source(node: ast.AST, code: Origins, known: set[ast.AST]) -> bool:
    """Whether an expression stands for the script's own file, by whatever names."""
    parts = [] if node in known else every_node(node)
    known.add(node)
    if OWN_FILES & {*map(syntax.text_of, parts)}:
        return True
    if {"parent", "parents", "dirname", "with_name"} & {*map(name_of, parts)}:
        return False
    if any(getattr(n, "id", "") == "__file__" or "sys.argv" in code.full_names(n) for n in parts):
        return True
    names = [n for n in parts if isinstance(n, (ast.Name, ast.Attribute)) and not stored(n)]
    return any(names_source(value, code, known) for n in names for value in code.reaching(n))
