"""Finds what may steer a score besides the artifact and the text so far. It goes by the names of calls."""

import ast
from collections.abc import Iterator

from golf.check.learning import HAND_OVERS, SCORER
from golf.check.modules import aliases
from golf.check.syntax import assignments, called, chain_of, every_node, name_of, outside_functions

# What differs from one pass over the same text to the next, or tells which pass it is.
VARYING = (
    "time.", "datetime.", "random.", "uuid.", "platform.", "os.getpid.", "os.uname.", "os.cpu_count.",
    "os.process_cpu_count.", "os.sched_getaffinity.", "os.listdir.", "os.stat.", "numpy.random.", "tempfile.",
    "sys.argv.",
)  # fmt: skip
# Brotli holds a dictionary of words that no byte counts.
IN_SCORING = VARYING + ("os.environ.", "os.getenv.", "os.path.", "glob.", "brotli.")
SEEDED = frozenset("Random default_rng RandomState PCG64 Philox SeedSequence Generator".split())
READS = frozenset("open read_text read_bytes fromfile memmap".split())
FILE_STATE = READS | frozenset("exists is_file stat write_text write_bytes touch iterdir id".split())


def other_sources(tree: ast.Module, module: str) -> Iterator[tuple[int, str]]:
    """(line, what) where scoring meets the clock, chance, the process or files, or its own source."""
    functions = [n for n in every_node(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    names = aliases(tree, module)
    for target, value in assignments(tree):
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
    own = {t.id for t, v in assignments(tree) if names_source(v, names, set())}
    held = holders(tree, names, own)
    for node in [*scoring, *loading]:
        if reads_source(node, names, own) or name_of(node) in held:
            yield node.lineno, "its own source"


def full_names(node: ast.AST, names: dict[str, set[str]]) -> Iterator[str]:
    """The full dotted names that a chain of names may stand for."""
    if isinstance(node, (ast.Name, ast.Attribute)):
        root, parts = chain_of(node)
        yield from (".".join([full, *parts]) for full in sorted(names.get(root, ())))


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


def holders(tree: ast.Module, names: dict[str, set[str]], own: set[str]) -> set[str]:
    """Module-level and class-level names that hold text read from the script itself."""
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
        names = names | {called(n) for f in functions if f.name in names for n in every_node(f)} - {""}
    return [node for f in functions if f.name in names for node in every_node(f)]


def main_guard(node: ast.stmt) -> bool:
    """Whether a statement runs in the main program alone."""
    return isinstance(node, ast.If) and "__name__" in map(name_of, every_node(node.test))
