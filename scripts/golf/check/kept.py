"""Finds what outlives reset(): what scoring changes although no stream begins with it anew.

Scoring may change what has no path (origins.py: what it makes itself), and what lies in an attribute to
which reset() gives another value. All else is reported: names of the module, classes, defaults, closures,
results of caches, and attributes that reset() leaves, unless what they get tells no more than a shape.
"""

import ast
import builtins
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from golf.check import syntax
from golf.check.origins import BLOCKS, CACHES, FILLERS, MADE, Origins, Path, decorators, given_by, inner
from golf.check.syntax import called, chain_of, constants, every_node, name_of, stored

# Methods that change their object; those that give all of it another value; functions that change arguments.
CHANGES = re.compile(
    r"\w*[a-z]_|(pop|put|heap|insort|pack_|re[mv]|resi|copyt|register_|seek|write|permut)\w*|clear|sort|at|fill"
    r"|discard|next|compress|__(set|init|next)\w*|random|(standard_)?normal|uniform|integers|choices?|shuffle"
    r"|gauss|rand(int|range)|load_state_dict|dump|(manual_)?seed|rotate|\w+_update|read(in|line)?\w*"
)
WHOLE = re.compile(
    r"(fill|zeros?|ones|copy|constant)_|fill|clear|copyto|load_state_dict|reset\w*|(manual_)?seed"
)
TAKERS = re.compile(r"(heap|insort|pack_|_foreach_|put)\w*|at|next|copyto|shuffle|dump|\w*[a-z]_")
# What these give, and attributes of these names, tell no more than a shape.
SHAPES = frozenset("shape size device dtype ndim numel dim len type zeros_like ones_like".split())
EMPTY = {*"deque defaultdict bytearray list dict set".split()}
# What is stepped through once.
STEPPED = frozenset("""iter count cycle map filter zip enumerate reversed accumulate islice chain starmap
    takewhile dropwhile pairwise groupby ndenumerate finditer iter_unpack iglob parameters modules children
    """.split())  # fmt: skip
QUIET = {*"eval synchronize".split()}  # change nothing that lasts, called for their effect


class Mutation(NamedTuple):
    node: ast.AST  # what is changed
    part: bool = True  # or by adding to it; else it gets another value
    given: tuple[ast.AST, ...] = ()  # that value and its place, if what was there does not come in
    later: bool = False  # where push = self.seen.append is called, or partial(f, self.seen)


def outliving(code: Origins, scoring: list, loading: list, resets: list) -> Iterator[ast.AST]:
    """Nodes by which scoring keeps what reset() does not renew; the lists are what each of these reaches."""
    kept = Kept(code, scoring, loading, resets)
    yield from kept.changes_for_good()
    yield from kept.closed_over(loading)
    yield from kept.odd_functions()
    yield from kept.odd_reads()


class Kept:
    """What scoring changes, and what reset() renews."""

    def __init__(self, code: Origins, scoring: list, loading: list, resets: list):
        self.code = code
        each = {reset: code.reached([reset]) for reset in resets}
        within = {one for reset, nodes in each.items() for one in nodes if one is not reset}  # super().reset
        self.resetting = [each[reset] for reset in each if reset not in within] or [*each.values()]
        self.nodes = [*dict.fromkeys((*scoring, *loading))]
        code.bind(self.nodes)
        self.blocks = {n: [*changes(n, code)] for n in self.nodes if isinstance(n, BLOCKS)}
        used = {*map(name_of, (*self.nodes, *code.outside))}
        trained = {called(n) for n in code.every} & {*code.classes} - used  # classes of training alone
        others = {part for name in trained for part in code.classes[name].body}
        inside = {n for n in scoring if n in self.blocks and n not in others}
        self.made = {n for n in inside if getattr(n, "name", "") in MADE}  # what they give is fresh
        self.changed = [
            (block, change, path)
            for block, found in self.blocks.items()
            for change in found
            if block in inside or change.later
            for path in ends(change, code)
        ]
        steps = [part for block in inside - self.made for part in every_node(block)]
        renewed = [names_renewed(code, nodes, steps) for nodes in self.resetting]
        self.renewed = set.intersection(*renewed) if renewed else set()
        self.moving = {path[-1] for block, _, path in self.changed if block not in self.made and path[1:]}
        self.lost: set[str] = set()  # names of the module that change

    def changes_for_good(self) -> Iterator[ast.AST]:
        """What scoring changes and reset() does not renew."""
        for block, change, (root, *attrs) in self.changed:
            if root not in ("self", ""):
                self.lost.add(root)
                yield change.node
            elif self.resetting and block not in self.made and not renews(self.renewed, root, attrs):
                if not change.given or self.may_be_read(block, change, attrs) and self.tells_more(change):
                    yield change.node

    def may_be_read(self, block: ast.AST, change: Mutation, attrs: list[str]) -> bool:
        """Whether what was there before may be read, not what this change gives alone."""
        if change.part or len(attrs) > 1:  # self.model.n is a part of self.model
            return True
        reads = [n for n in self.nodes if getattr(n, "attr", "") in attrs[-1:] and not stored(n)]
        top = self.code.top
        return any(n.lineno <= change.node.lineno or top[n] is not top[block] for n in reads)

    def tells_more(self, change: Mutation) -> bool:
        """Whether a new value tells more than a shape: what scoring got, what it keeps, or that it ran."""
        known: set[tuple] = set()

        def tells(node: ast.AST) -> bool:
            if {name_of(node), called(node)} & SHAPES:
                return False
            if not isinstance(node, ast.Name):
                by = getattr(node, "func", None)  # x.cos() does not read self.cos
                parts = [getattr(n, "value", n) if n is by else n for n in ast.iter_child_nodes(node)]
                return getattr(node, "attr", "") in self.moving or any(map(tells, parts))
            block, name = key = self.code.key(node)
            if block is None or name == "self" or key in known:
                return False
            known.add(key)
            return key in self.code.unknown or any(map(tells, self.code.values[key]))

        return constants(change.given[0]) or any(map(tells, change.given))

    def closed_over(self, loading: list) -> Iterator[ast.AST]:
        """Where functions that are made once change variables of the function that hands them on."""
        makers = {"__init__", *map(called, self.code.outside)}
        makers |= {name for block in self.blocks for name in decorators(block)}
        for block in (n for n in self.blocks if n in loading or getattr(n, "name", "") in makers):
            within = every_node(block)
            handed = {getattr(n, "id", None) for n in within if n not in self.code.direct}  # a lambda: None
            for one in (n for n in within if n in self.blocks and n is not block):
                if one in self.code.methods or getattr(one, "name", None) in handed:
                    variables = syntax.locals_of(block)[0] - syntax.locals_of(one)[0] - {"self"}
                    changed = [change.node for change in self.blocks[one]]
                    yield from (node for node in changed if variables & {*map(name_of, every_node(node))})

    def odd_functions(self) -> Iterator[ast.AST]:
        """Defaults that fill, resets that ask for what was there, caches of what moves."""
        for block in self.blocks:
            values = [value for _, value in syntax.defaults(block.args)]
            yield from (value for value in values if begins(value, self.code))  # def f(x, seen=[])
            if getattr(block, "name", "") == "reset":
                yield from asks_self(every_node(block))
            if CACHES & decorators(block):
                yield from (n for n in every_node(block) if getattr(n, "attr", "") in self.moving)

    def odd_reads(self) -> Iterator[ast.AST]:
        """Reads of the module's names that change or begin empty, and of what is stepped through once."""
        for node in (n for n in self.nodes if isinstance(n, (ast.Name, ast.Attribute)) and not stored(n)):
            root, name = key = self.code.key(node)
            values = self.code.values[key]
            if root is None and (name in self.lost or any(begins(value, self.code) for value in values)):
                yield node  # by whatever name it goes on
            elif root in ("self", "") and any(called(value) in STEPPED for value in values):
                if self.resetting and not renews(self.renewed, root, [name]):
                    yield node


# ---- What changes


def changes(block: ast.AST, code: Origins) -> Iterator[Mutation]:
    """What a function changes outside training."""
    nodes = untrained(every_node(block))
    funcs = {n.func for n in nodes if isinstance(n, ast.Call)}
    effects = {n.value for n in nodes if isinstance(n, ast.Expr)}
    for node in nodes:
        if isinstance(node, ast.Call):
            told = called(node) in QUIET or "out" in [word.arg for word in node.keywords]
            yield from changes_by_call(node, code, node in effects and not told)
            later = syntax.handed_on(node)
            yield from (c._replace(later=True) for c in changes_by_call(later, code)) if later else ()
        elif isinstance(node, ast.Delete):
            yield from map(Mutation, node.targets)
        elif isinstance(node, ast.keyword) and node.arg in ("out", "generator", "file"):
            yield Mutation(node.value, node.arg != "out")
        elif isinstance(node, ast.Attribute) and node.attr in FILLERS and node not in funcs:
            yield Mutation(node.value, later=True)
        else:
            for target, value in (pair for pair in given_by(node) if pair[0]):
                yield from changes_by_store(target, value, node, code)


def changes_by_store(target: ast.expr, value: ast.AST, node: ast.AST, code: Origins) -> Iterator[Mutation]:
    adds = isinstance(node, ast.AugAssign)
    if isinstance(target, ast.Subscript):
        known = () if adds else (value, target.slice)
        yield Mutation(inner(target), adds or isinstance(target.slice, ast.Constant), known)
    elif isinstance(target, ast.Attribute) or code.key(target)[0] is None or name_of(target) in code.outer:
        yield Mutation(target, adds, () if adds else (value,))
    elif adds:  # part = x[1:]; part += 1 changes x, n = x.n; n += 1 does not
        kinds = {*map(type, code.values[code.key(target)]), type(node.value)} - {ast.List}
        if kinds & {ast.Subscript, ast.Call, ast.Starred, ast.ListComp} or isinstance(node.value, ast.List):
            yield Mutation(target)


def changes_by_call(node: ast.Call, code: Origins, effect: bool = False) -> Iterator[Mutation]:
    """effect: nothing else is asked of the call, so what nobody knows changes its object or arguments."""
    name, by, args = called(node), getattr(node.func, "value", None), node.args
    whole, root = bool(WHOLE.fullmatch(name)), chain_of(node.func)[0]
    known = whole or CHANGES.fullmatch(name) or name in FILLERS
    if not (known or effect and (root in code.foreign or by) and not code.callees(node)):
        return
    if by is None or root in code.imports or root in dir(builtins):  # np.add.at(x, 0, 1), list.append(x, 1)
        few = 2 if TAKERS.fullmatch(name) else root in dir(builtins)
        taken = args[:few] if few or not effect else args
        yield from (Mutation(one, not whole) for one in taken)
        return
    again = name == "__init__" and called(by) != "super"  # an object that exists begins again
    hidden = root != "self" and ("?",) in code.paths(by)
    if again or hidden or not code.callees(node):  # else the function called says what it changes
        given = (*args[1:], *args[:1]) if name == "setdefault" else ()
        taken = [by, *args[: name == "shuffle"]] if known or name_of(by) != "self" else args  # self.act(x)
        yield from (Mutation(one, not whole, given) for one in taken)


def ends(change: Mutation, code: Origins) -> set[Path]:
    """Where what changes comes from; for x.a = y where x does, and a."""
    bound = isinstance(change.node, ast.Attribute) and stored(change.node)
    paths = code.paths(change.node.value if bound else change.node)
    return {(*path, change.node.attr) if bound else path for path in paths if path[0] not in ("=", "?")}


# ---- What reset() renews


def names_renewed(code: Origins, resetting: list, scoring: list) -> set[tuple[str, str]]:
    """("self", name) of the scorer's attributes to which reset() gives another value, ("", name) of others';
    also all those of classes of which reset() or scoring makes objects."""
    made = {called(n) for n in (*resetting, *scoring)} & {*code.classes}
    found = {("", name_of(n)) for name in made for n in code.members[name] if stored(n)}
    blocks = dict.fromkeys(n for n in resetting if isinstance(n, BLOCKS))
    for change in (change for block in blocks for change in changes(block, code) if not change.part):
        plain = isinstance(change.node, ast.Attribute)
        paths = {code.key(change.node)} if plain else ends(change, code)
        found |= {("self" if path[:-1] == ("self",) else "", path[-1]) for path in paths}
    return found


def renews(renewed: set[tuple[str, str]], root: str, attrs: list[str]) -> bool:
    """Whether one of the attributes on a path is renewed, the first of them by its owner."""
    return (root, *attrs[:1]) in renewed or any(("", name) in renewed for name in attrs[root == "self" :])


def asks_self(nodes: tuple[ast.AST, ...]) -> list[ast.AST]:
    """Where reset() asks for what was there: self.n += 1, hasattr(self, "n"), if self.n: self.n = 0."""
    asks = [n for n in nodes if called(n) in ("hasattr", "vars")]
    asks += [n for n in nodes if isinstance(n, ast.AugAssign) and chain_of(inner(n.target))[0] == "self"]
    given = {n.attr: n.lineno for n in nodes[::-1] if isinstance(n, ast.Attribute) and stored(n)}
    plain = {n.left for n in nodes if isinstance(n, ast.Compare) and "None" in ast.unparse(n)}
    reads = (n for n in nodes if getattr(n, "attr", "") in given and not stored(n) and n not in plain)
    return asks + [n for n in reads if n.lineno <= given[n.attr]]


def begins(value: ast.AST, code: Origins) -> bool:
    """Whether it is an empty container, or what is stepped through once."""
    if isinstance(value, (ast.List, ast.Dict, ast.Set)) or called(value) in EMPTY:
        return not any(getattr(value, name, 0) for name in ("elts", "keys", "args", "keywords"))
    made = [n for f in code.functions_named(called(value)) for n in every_node(f)]
    yields = any(isinstance(n, (ast.Yield, ast.YieldFrom)) for n in made)
    filler = isinstance(value, ast.Attribute) and value.attr in FILLERS
    pushes = filler and chain_of(value)[0] not in code.imports  # push = SEEN.append
    return isinstance(value, ast.GeneratorExp) or called(value) in STEPPED or yields or pushes


def untrained(nodes: Iterable[ast.AST]) -> list[ast.AST]:
    """The nodes less what runs in training alone, or never: if self.training and ...: ..."""
    guarded = set()
    for node in (n for n in nodes if isinstance(n, (ast.If, ast.IfExp))):
        both = isinstance(node.test, ast.BoolOp) and isinstance(node.test.op, ast.And)
        training = name_of(node.test.values[0] if both else node.test) == "training"
        if training or not getattr(node.test, "value", 1):
            body = ast.Tuple([node.test, *(node.body if isinstance(node, ast.If) else [node.body])])
            guarded |= {id(part) for part in every_node(body)}
    return [node for node in nodes if id(node) not in guarded]
