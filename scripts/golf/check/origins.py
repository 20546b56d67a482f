"""Where the values of some code come from, and which of its functions a call may run.

A *path* leads to where a value comes from: ("self", "seen", "rows") is self.seen.rows of the scorer, or a
part of it, ("", "seen") an attribute of any other object, ("SEEN",) a name of the module. What a function
makes has no path. A variable has the paths of all that it is given, an argument those of what all calls give,
a call those of what the function returns. ("=", "Cache"): an object of that class; ("?",): nothing is known.
"""

import ast
import builtins
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import lru_cache

from golf.check import syntax
from golf.check.modules import libraries
from golf.check.syntax import FUNCTIONS, called, chain_of, constants, every_node, name_of, stored

SCORER = "log_probs"  # the method of a submission that is given the stream
FILLERS = frozenset("append appendleft extend insert add update put copy_ setdefault send".split())
BLOCKS = (*FUNCTIONS, ast.Lambda)
MADE = {*"__init__ __post_init__ __enter__ __exit__".split()}  # run where an object of a class is made
# These give a part of their object, or of what they are given; the others hold what they are given.
VIEWS = frozenset("""view reshape numpy detach squeeze unsqueeze transpose permute flatten ravel expand chunk
    split unbind asarray from_numpy as_tensor values items get setdefault next max min nullcontext type
    parameters buffers modules children named_parameters to eval""".split())  # fmt: skip
HOLDERS = frozenset("iter list tuple set dict sorted reversed enumerate zip filter map partial".split())
CHOICES = (ast.IfExp, ast.BoolOp, ast.NamedExpr)
DISPLAYS = (ast.List, ast.Tuple, ast.Set, ast.Dict, *syntax.COMPREHENSIONS)
CACHES = {"cache", "lru_cache", "cached_property"}  # return the same object each time
RESULTS = (ast.Return, ast.Yield, ast.YieldFrom)
DEPTH = 5  # attributes of attributes that are followed
Path = tuple[str, ...]


class Origins:
    def __init__(self, tree: ast.Module):
        every = self.every = every_node(tree)
        blocks = [n for n in every if isinstance(n, BLOCKS)]
        self.foreign, self.imported = libraries(tree), {name for name, _ in syntax.imports(tree, "")}
        self.lasting = {
            name_of(n) for n in syntax.outside_functions(tree) if stored(n)
        }  # names of the module
        self.lasting |= {getattr(n, "name", "a default") for n in tree.body}
        self.classes = {n.name: n for n in every if isinstance(n, ast.ClassDef)}
        self.methods = {part for one in self.classes.values() for part in one.body}
        self.members = {name: self.members_of(name) for name in self.classes}  # its nodes and its bases'
        made = [n for n, one in self.classes.items() if SCORER in {getattr(f, "name", "") for f in one.body}]
        self.scorer = {part for name in made for part in self.members[name]}
        self.functions: dict[str, list] = defaultdict(list)  # by name
        self.top: dict[ast.AST, ast.AST] = {}  # the outermost function around a node
        for block in blocks:
            self.functions[getattr(block, "name", "")].append(block)
            self.top = (
                {**dict.fromkeys(every_node(block), block), **self.top} if block not in self.top else self.top
            )
        outermost = {*self.top.values()}
        self.own = {b: {*syntax.bindings(b)} - {getattr(b, "name", "")} for b in outermost}  # its variables
        for node in (n for n in every if isinstance(n, ast.Global) and n in self.top):
            self.own[self.top[node]] -= {*node.names}
        self.outer = {name for n in every if isinstance(n, ast.Nonlocal) for name in n.names}
        self.values: dict[tuple, list[ast.AST]] = defaultdict(list)  # of variables and attributes
        self.unknown: set[tuple] = set()  # arguments that no call is seen to give
        # Lines of plain assignments to a variable, and the last line of the statements that follow each.
        self.sets: dict[tuple, list[tuple[int, int]]] = defaultdict(list)
        self.find_values(blocks)

    def members_of(self, name: str) -> set[ast.AST]:
        bases = [
            base for base in map(name_of, self.classes[name].bases) if base in self.classes and base != name
        ]
        return {*every_node(self.classes[name])}.union(*map(self.members_of, bases))

    def find_values(self, blocks: list[ast.AST]) -> None:
        for target, value in (pair for node in self.every for pair in given_by(node) if pair[0]):
            if getattr(target, "id", "") in self.foreign | {"self"}:
                continue  # np.insert(x, 0, 1)
            held = isinstance(target, ast.Subscript) or isinstance(getattr(target, "ctx", 0), ast.Load)
            self.values[self.key(inner(target))].append(ast.List([value]) if held else value)
            known = (
                [value] if isinstance(value, ast.Lambda) else self.functions.get(name_of(value) or None, [])
            )
            self.functions[name_of(target)] += [f for f in known if f not in self.functions[name_of(target)]]
        for block in blocks:
            self.unknown |= {(self.top[block], taker.arg) for taker in syntax.arguments(block.args)}
            for name, value in syntax.kept_defaults(block.args):
                plain = isinstance(value, (ast.Name, ast.Attribute))
                self.values[self.top[block], name].append(value if plain else ast.Name("a default"))
        bodies = [getattr(node, name, 0) for node in self.every for name in ("body", "orelse")]
        for body in (one for one in bodies if isinstance(one, list)):
            for one in (n for n in body if isinstance(n, ast.Assign)):
                for name in (n for target in one.targets for n in every_node(target) if stored(n)):
                    self.sets[self.key(name)].append((one.lineno, body[-1].end_lineno))

    def bind(self, nodes: Iterable[ast.AST]) -> None:
        """Gives arguments what the calls among these nodes give."""
        calls = [n for node in nodes for n in (node, syntax.handed_on(node)) if isinstance(n, ast.Call)]
        for call in sorted(calls, key=lambda call: called(call) in FILLERS):  # what .append is, is known then
            for function in self.callees(call):
                for name, value in self.arguments(call, function):
                    self.values[self.top[function], name].append(value)
                    self.unknown.discard((self.top[function], name))

    def key(self, target: ast.AST) -> tuple:
        """Under what the values of a variable or of an attribute are found."""
        if isinstance(target, ast.Attribute):
            of_self = name_of(target.value) == "self" and target in self.scorer
            return "self" if of_self else "", target.attr
        block, name = self.top.get(target), name_of(target) or getattr(target, "name", "")
        return block if block and name in self.own[block] else None, name

    def callees(self, call: ast.Call) -> list[ast.AST]:
        """The functions of this code that a call may run."""
        by, name = call.func, name_of(call.func)
        if isinstance(by, ast.Lambda) or chain_of(by)[0] in self.foreign:
            return [by] * isinstance(by, ast.Lambda)
        if name in self.classes:
            return [f for f in self.members[name] & self.methods if getattr(f, "name", "") in MADE]
        found = self.functions.get(name, [])
        if isinstance(by, ast.Name):
            return [f for f in found if f not in self.methods]
        if not found or not isinstance(by, ast.Attribute):
            return found if isinstance(by, ast.Subscript) else []
        if called(by.value) == "super" and name in MADE:
            return []  # its class says what is made
        if name_of(by.value) == "self" or called(by.value) == "super":
            return [f for f in found if (f in self.scorer) == (call in self.scorer)] or found
        made = self.paths(by.value)
        known = {part for path in made if path[0] == "=" for part in self.members[path[1]]}
        return [f for f in found if ("?",) in made or f in known or f not in self.methods]

    def arguments(self, call: ast.Call, function: ast.AST) -> Iterator[tuple[str, ast.AST]]:
        """(name, value) of what a call gives a function."""
        takers, values = [a.arg for a in syntax.arguments(function.args)], [*call.args]
        by = getattr(call.func, "value", call)
        if function in self.methods and takers[:1] == ["self"] and name_of(by) not in self.classes:
            values.insert(0, by)
        yield from zip(takers, values)
        if function.args.vararg:
            yield function.args.vararg.arg, ast.List(values)
        yield from ((word.arg, word.value) for word in call.keywords)

    def paths(self, node: ast.AST) -> set[Path]:
        found: set[Path] = set()
        known, waiting = set(), [(node, False, ())]
        while waiting:
            item = waiting.pop()
            if item not in known and len(item[2]) == len({*item[2]}) < DEPTH:
                known.add(item)
                waiting += self.behind(*item, found)
        return found

    def behind(self, node: ast.AST, part: bool, attrs: Path, found: set[Path]) -> list[tuple]:
        """What an expression stands for, one step back; adds to `found` where that ends. part: a part of it
        is meant; attrs: attributes of it that are."""
        if isinstance(node, ast.Name):
            return self.behind_name(node, part, attrs, found)
        if isinstance(node, ast.Attribute):
            known = [f for f in self.functions.get(node.attr, ()) if "property" in decorators(f)]
            given = [(value, part, attrs) for value in self.results(known)]
            return [(node.value, part, (node.attr, *attrs)), *given]
        if isinstance(node, ast.Starred):
            return [(node.value, True, attrs)]
        if isinstance(node, ast.Subscript) and self.takes_part(node.slice):
            return [(node.value, True, attrs)]
        if isinstance(node, ast.Call):
            return self.behind_call(node, part, attrs, found)
        if isinstance(node, CHOICES) or (part or attrs) and isinstance(node, DISPLAYS):
            parts = [one for one in ast.iter_child_nodes(node) if one is not getattr(node, "test", None)]
            return [(one, part, attrs) for one in parts]
        found |= set() if isinstance(node, (ast.Constant, *DISPLAYS)) else {("?",)}
        return []

    def takes_part(self, index: ast.expr) -> bool:
        """Whether x[index] is a part of x: x[2], x[1:], x[i] of a loop; x[tokens] is a copy, perhaps."""
        names = [n for n in every_node(index) if isinstance(n, (ast.Name, ast.Call))]
        loops = [v for n in names for v in self.values[self.key(n)] if isinstance(v, ast.Starred)]
        return isinstance(index, ast.Slice) or len(names) <= sum(
            called(v.value) != "enumerate" for v in loops
        )

    def behind_name(self, node: ast.Name, part: bool, attrs: Path, found: set[Path]) -> list[tuple]:
        block, name = key = self.key(node)
        values, kept = self.reaching(node), []
        fixed = values and all(isinstance(v, (ast.Constant, ast.Tuple)) and constants(v) for v in values)
        if block is None and (name in self.lasting or attrs and name in self.imported - self.foreign):
            found |= set() if fixed else {(name, *attrs)}
        if name == "self":
            root = "self" if node in self.scorer else ""
            kept, values = self.kept(root, part, attrs), [] if root else values
            if not values:
                found.add((root, *attrs))
        if name != "self" and key in self.unknown or not values and not kept:
            found.add(("?",))
        return [*kept, *((value, part, attrs) for value in values)]

    def reaching(self, node: ast.Name | ast.Attribute) -> list[ast.AST]:
        """The values that it may have where it is used: a plain assignment before replaces the others."""
        key, here = self.key(node), self.top.get(node)
        since = [line for line, last in self.sets[key] if line < node.lineno <= last and key[0] is here]
        if not since:
            return self.values[key]
        within = [v for v in self.values[key] if self.top.get(inner(v), here) is here]
        return [v for v in within if getattr(inner(v), "lineno", node.lineno) >= max(since)]

    def kept(self, root: str, part: bool, attrs: Path) -> list[tuple]:
        """What attributes of the scorer, or of other objects, are given."""
        values = self.values[root, attrs[0]] + self.values["", attrs[0]] * bool(root) if attrs else []
        return [(value, part, attrs[1:]) for value in values]

    def behind_call(self, node: ast.Call, part: bool, attrs: Path, found: set[Path]) -> list[tuple]:
        name, root, known = called(node), chain_of(node.func)[0], self.callees(node)
        given = [*node.args, *(word.value for word in node.keywords)]
        if name in self.classes or name in HOLDERS:
            found |= {("=", name)} if name in self.classes and not attrs else set()
            kept = self.kept("", part, attrs) if name in self.classes else []
            return kept or [(one, True, attrs) for one in given if part or attrs]
        if name == "super":
            found.add(("self" if node in self.scorer else "", *attrs))
        makers = {name_of(n) for value in self.values[self.key(node.func)] for n in every_node(value)}
        if any(CACHES & names for names in (makers, *map(decorators, known))):
            found.add((f"{name}()", *attrs))
        of_object = isinstance(node.func, ast.Attribute) and root not in self.imported
        views = [node.func.value, *given[1:] * (name == "setdefault")] if of_object else given
        views = views if name in VIEWS else []
        if not (known or views or root in self.imported or root in dir(builtins)):
            found.add(("?",))
        return [(one, part, attrs) for one in self.results(known)] + [(one, True, attrs) for one in views]

    def results(self, functions: Iterable[ast.AST]) -> list[ast.AST]:
        """What these functions return or yield."""
        values = [f.body for f in functions if isinstance(f, ast.Lambda)]
        return values + [
            n.value for f in functions for n in every_node(f) if isinstance(n, RESULTS) and n.value
        ]


@lru_cache(maxsize=2)
def origins(tree: ast.Module) -> Origins:
    return Origins(tree)


def decorators(block: ast.AST) -> set[str]:
    return {name_of(getattr(by, "func", by)) for by in getattr(block, "decorator_list", ())}


def given_by(node: ast.AST) -> Iterator[tuple[ast.expr | None, ast.AST]]:
    """(target, value) of what a node gives names, attributes, places, its caller (None); Starred: a part."""
    pairs: list[tuple] = []
    if isinstance(node, ast.Assign):
        for target in node.targets:
            sides = [getattr(side, "elts", ()) for side in (target, node.value)]
            pairs += zip(*sides) if sides[0] and len(sides[0]) == len(sides[1]) else [(target, node.value)]
    elif isinstance(node, ast.AugAssign):
        pairs = [(node.target, ast.List([node.target, node.value]))]
    elif isinstance(node, (ast.AnnAssign, ast.NamedExpr)) and node.value:
        pairs = [(node.target, node.value)]
    elif isinstance(node, ast.withitem) and node.optional_vars:
        pairs = [(node.optional_vars, ast.Starred(node.context_expr))]
    elif isinstance(node, (ast.For, ast.comprehension)):
        pairs = [(node.target, ast.Starred(node.iter))]
    elif called(node) in FILLERS and isinstance(node.func, ast.Attribute):
        pairs = [(node.func.value, ast.List([*node.args, *(word.value for word in node.keywords)]))]
    elif isinstance(node, ast.Match):
        found = (part for case in node.cases for part in every_node(case.pattern))
        pairs = [(part, ast.Starred(node.subject)) for part in found if getattr(part, "name", "")]
    elif isinstance(node, (ast.Return, ast.Yield, ast.YieldFrom)) and node.value:
        pairs = [(None, node.value)]
    for target, value in pairs:
        targets = [n for n in every_node(target) if stored(n)] if target else []
        yield from ((one, ast.Starred(value) if targets[1:] else value) for one in targets or [target])


def inner(target: ast.expr) -> ast.expr:
    """The container: x in x[i] and in *x."""
    while isinstance(target, (ast.Subscript, ast.Starred)):
        target = target.value
    return target
