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
from golf.check.origins import (
    BLOCKS,
    CACHES,
    FILLERS,
    MADE,
    Origins,
    Path,
    decorators,
    given_by,
    inner,
    origins,
)
from golf.check.syntax import called, chain_of, constants, every_node, name_of, stored

# Methods that change their object; those that give all of it another value; functions that change arguments.
CHANGES = re.compile(
    r"\w*[a-z]_|(pop|put|heap|insort|pack_|re[mv]|resi|copyt|register_|seek|write|permut)\w*|clear|sort|at|fill"
    r"|discard|next|compress|__(set|init|next)\w*|random|(standard_)?normal|uniform|integers|choices?|shuffle"
    r"|gauss|rand(int|range)|load_state_dict|dump|(manual_)?seed"
)
WHOLE = re.compile(
    r"(fill|zeros?|ones|copy|constant)_|fill|clear|copyto|load_state_dict|reset\w*|(manual_)?seed"
)
TAKERS = re.compile(r"(heap|insort|pack_|_foreach_|put)\w*|at|next|copyto|shuffle|dump|\w*[a-z]_")
# What these give, and attributes of these names, tell no more than a shape.
SHAPES = frozenset("shape size device dtype ndim numel dim len type zeros_like ones_like".split())
EMPTY = {*"deque defaultdict bytearray list dict set".split()}
STEPPED = {*"iter count cycle map filter zip enumerate reversed".split()}  # are stepped through once


class Mutation(NamedTuple):
    node: ast.AST  # what is changed
    part: bool = True  # or by adding to it; else it gets another value
    given: tuple[ast.AST, ...] = ()  # that value and its place, if what was there does not come in
    later: bool = False  # where push = self.seen.append is called, or partial(f, self.seen)


def outliving(tree: ast.Module, scoring: list, loading: list, resetting: list) -> Iterator[ast.AST]:
    """Nodes by which scoring keeps what reset() does not renew; the lists are what each of these reaches."""
    code, nodes = origins(tree), [*dict.fromkeys((*scoring, *loading))]
    code.bind(nodes)
    blocks = {n: [*changes(n, code)] for n in nodes if isinstance(n, BLOCKS)}
    used = {*map(name_of, (*nodes, *syntax.outside_functions(tree)))}
    trained = {called(n) for n in every_node(tree)} & {*code.classes} - used  # classes of training alone
    others = {part for name in trained for part in code.classes[name].body}
    inside = {n for n in scoring if n in blocks and n not in others}
    made = {n for n in inside if getattr(n, "name", "") in MADE}  # what they give their object is fresh
    changed = [
        (n, c, path) for n in blocks for c in blocks[n] if n in inside or c.later for path in ends(c, code)
    ]
    renewed = names_renewed(code, resetting, [part for n in inside - made for part in every_node(n)])
    moving, lost = {path[-1] for n, _, path in changed if n not in made and path[1:]}, set()
    for block, change, (root, *attrs) in changed:
        if root not in ("self", ""):
            lost.add(root)
            yield change.node
        elif resetting and block not in made and not renews(renewed, root, attrs):
            reads = [n for n in nodes if getattr(n, "attr", "") in attrs[-1:] and not stored(n)]
            before = any(n.lineno <= change.node.lineno or code.top[n] is not code.top[block] for n in reads)
            before |= change.part or len(attrs) > 1  # self.model.n is a part of self.model
            if not change.given or before and tells_more(change, code, moving):
                yield change.node
    yield from closed_over(tree, code, blocks, loading)
    for block in blocks:
        yield from (n for n in syntax.defaults(block.args) if begins(n, code))  # def f(x, seen=[])
        if getattr(block, "name", "") == "reset":
            yield from asks_self(every_node(block))
        if CACHES & decorators(block):
            yield from (n for n in every_node(block) if getattr(n, "attr", "") in moving)
    for node in (n for n in nodes if isinstance(n, (ast.Name, ast.Attribute)) and not stored(n)):
        root, name = key = code.key(node)
        if root is None and (name in lost or any(begins(value, code) for value in code.values[key])):
            yield node  # by whatever name it goes on
        stepped = root in ("self", "") and any(called(value) in STEPPED for value in code.values[key])
        if stepped and resetting and not renews(renewed, root, [name]):
            yield node


def closed_over(tree: ast.Module, code: Origins, blocks: dict, loading: list) -> Iterator[ast.AST]:
    """Where functions that are made once change variables of the function that hands them on."""
    makers = {
        "__init__",
        *map(called, syntax.outside_functions(tree)),
        *(name for f in blocks for name in decorators(f)),
    }
    for block in (n for n in blocks if n in loading or getattr(n, "name", "") in makers):
        within = every_node(block)
        funcs = {n.func for n in within if isinstance(n, ast.Call)}
        handed = {getattr(n, "id", None) for n in within if n not in funcs}  # a lambda has no name
        for one in (n for n in within if n in blocks and n is not block):
            if one in code.methods or getattr(one, "name", None) in handed:
                variables = syntax.locals_of(block)[0] - syntax.locals_of(one)[0] - {"self"}
                yield from (c.node for c in blocks[one] if variables & {*map(name_of, every_node(c.node))})


# ---- What changes


def changes(block: ast.AST, code: Origins) -> Iterator[Mutation]:
    """What a function changes outside training."""
    nodes = untrained(every_node(block))
    funcs = {n.func for n in nodes if isinstance(n, ast.Call)}
    for node in nodes:
        if isinstance(node, ast.Call):
            yield from changes_by_call(node, code)
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


def changes_by_call(node: ast.Call, code: Origins) -> Iterator[Mutation]:
    name, by, args = called(node), getattr(node.func, "value", None), node.args
    whole, root = bool(WHOLE.fullmatch(name)), chain_of(node.func)[0]
    if not (whole or CHANGES.fullmatch(name) or name in FILLERS):
        return
    if by is None or root in code.imports or root in dir(builtins):  # np.add.at(x, 0, 1), list.append(x, 1)
        taken = args[: 2 if TAKERS.fullmatch(name) else root in dir(builtins)]
        yield from (Mutation(one, not whole) for one in taken)
        return
    again = name == "__init__" and called(by) != "super"  # an object that exists begins again
    hidden = root != "self" and ("?",) in code.paths(by)
    if again or hidden or not code.callees(node):  # else the function called says what it changes
        given = (*args[1:], *args[:1]) if name == "setdefault" else ()
        yield from (Mutation(one, not whole, given) for one in [by, *args[: name == "shuffle"]])


def ends(change: Mutation, code: Origins) -> set[Path]:
    """Where what changes comes from; for x.a = y where x does, and a."""
    bound = isinstance(change.node, ast.Attribute) and stored(change.node)
    paths = code.paths(change.node.value if bound else change.node)
    return {(*path, change.node.attr) if bound else path for path in paths if path[0] not in ("=", "?")}


def tells_more(change: Mutation, code: Origins, moving: set[str]) -> bool:
    """Whether a new value tells more than a shape: what scoring was given, what it keeps, or that it ran."""
    known: set[tuple] = set()

    def tells(node: ast.AST) -> bool:
        if {name_of(node), called(node)} & SHAPES:
            return False
        if not isinstance(node, ast.Name):
            by = getattr(node, "func", None)  # x.cos() does not read self.cos
            parts = [getattr(n, "value", n) if n is by else n for n in ast.iter_child_nodes(node)]
            return getattr(node, "attr", "") in moving or any(map(tells, parts))
        block, name = key = code.key(node)
        if block is None or name == "self" or key in known:
            return False
        known.add(key)
        return key in code.unknown or any(map(tells, code.values[key]))

    return constants(change.given[0]) or any(map(tells, change.given))


# ---- What reset() renews


def names_renewed(code: Origins, resetting: list, scoring: list) -> set[tuple[str, str]]:
    """("self", name) of the scorer's attributes to which reset() gives another value, ("", name) of others';
    also all those of classes of which reset() or scoring makes objects."""
    found = {("", name_of(n)) for name in {called(n) for n in (*resetting, *scoring)} & {*code.classes}
             for n in code.members[name] if stored(n)}  # fmt: skip
    for change in (c for n in dict.fromkeys(resetting) if isinstance(n, BLOCKS) for c in changes(n, code)):
        if not change.part:
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
    pushes = (
        getattr(value, "attr", "") in FILLERS and chain_of(value)[0] not in code.imports
    )  # push = SEEN.append
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
