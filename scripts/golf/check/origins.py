"""Where the values of some code come from, and which of its functions a call may run.

A *path* leads to where a value comes from: ("self", "seen", "rows") is self.seen.rows of the scorer, or a
part of it, ("", "seen") an attribute of any other object, ("SEEN",) a name of the module. What a function
makes has no path. A variable has the paths of all that it is given, an argument those of what all calls give,
a call those of what the function returns. ("=", "Cache"): an object of that class; ("?",): nothing is known.
The other rules ask the same engine what runs (reached), what an expression is made of (made_of), and which
names of libraries it stands for (full_names).
"""

import ast
import builtins
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import lru_cache

from golf.check import syntax
from golf.check.modules import libraries
from golf.check.syntax import FUNCTIONS, called, chain_of, constants, every_node, mention, name_of, stored

SCORER = "log_probs"  # the method of a submission that is given the stream
FILLERS = frozenset("append appendleft extend insert add update put copy_ setdefault send".split())
BLOCKS = (*FUNCTIONS, ast.Lambda)
MADE = {*"__init__ __post_init__ __enter__ __exit__".split()}  # run where an object of a class is made
# These give a part of their object, or of what they are given; the others hold what they are given.
VIEWS = frozenset("""view reshape numpy detach squeeze unsqueeze transpose permute flatten ravel expand chunk
    split unbind asarray from_numpy as_tensor values items get setdefault next max min nullcontext type
    parameters buffers modules children named_parameters to eval narrow select diagonal movedim moveaxis
    swapaxes unflatten unfold view_as reshape_as cpu contiguous ascontiguousarray atleast_1d
    flip fliplr flipud rot90 frombuffer memoryview sliding_window_view""".split())  # fmt: skip
HOLDERS = frozenset("iter list tuple set dict sorted reversed enumerate zip filter map partial".split())
CHOICES = (ast.IfExp, ast.BoolOp, ast.NamedExpr)
DISPLAYS = (ast.List, ast.Tuple, ast.Set, ast.Dict, *syntax.COMPREHENSIONS)
CACHES = {"cache", "lru_cache", "cached_property"}  # return the same object each time
GIVEN = (ast.Name, ast.Attribute, ast.Lambda, ast.Dict, ast.List, ast.Tuple)  # may be or hold functions
RESULTS = (ast.Return, ast.Yield, ast.YieldFrom)
DEPTH = 5  # attributes of attributes that are followed
Path = tuple[str, ...]
Step = tuple[ast.AST | None, bool, Path]  # an expression, if a part of it, attributes; None: the end


class Origins:
    def __init__(self, tree: ast.Module):
        self.every = every_node(tree)
        self.imports, self.foreign = syntax.dict_of(syntax.imports(tree, "")), libraries(tree)
        self.ours = {*self.imports} - self.foreign  # modules of the folder, and what they hold
        self.direct = {n.func for n in self.every if isinstance(n, ast.Call)}
        self.find_classes()
        self.outside = [*syntax.outside_functions(tree)]  # runs where the file is imported
        stores = [n for n in self.outside if stored(n) and n not in self.fields]
        self.lasting = {"a default", *map(name_of, stores)}  # names of the module
        self.lasting |= {node.name for node in tree.body if isinstance(node, (*FUNCTIONS, ast.ClassDef))}
        self.find_blocks()
        self.values: dict[tuple, list[ast.AST]] = defaultdict(list)  # of variables and attributes
        self.unknown: set[tuple] = set()  # arguments that no call is seen to give
        # Lines of plain assignments to a variable, and the last line of the statements that follow each.
        self.sets: dict[tuple, list[tuple[int, int]]] = defaultdict(list)
        self.find_values()
        self.known_names: dict[ast.AST, set[str]] = {}  # what full_names() found

    def find_classes(self) -> None:
        self.classes = {n.name: n for n in self.every if isinstance(n, ast.ClassDef)}
        self.methods = {part for one in self.classes.values() for part in one.body}
        self.fields = {n for one in self.classes.values() for n in syntax.outside_functions(one)
                       if isinstance(n, ast.Name) and stored(n)}  # fmt: skip
        self.members = {name: self.members_of(name) for name in self.classes}  # its nodes and its bases'
        made = [n for n, one in self.classes.items() if SCORER in {getattr(f, "name", "") for f in one.body}]
        self.scorer = {part for name in made for part in self.members[name]}

    def members_of(self, name: str) -> set[ast.AST]:
        bases = {base for base in map(name_of, self.classes[name].bases) if base in self.classes} - {name}
        return {*every_node(self.classes[name])}.union(*map(self.members_of, bases))

    def find_blocks(self) -> None:
        self.blocks = [n for n in self.every if isinstance(n, BLOCKS)]
        self.functions: dict[str, list] = defaultdict(list)  # "f" -> what f() may run, ".f" -> x.f()
        self.top: dict[ast.AST, ast.AST] = {}  # the outermost function around a node
        for block in self.blocks:  # those around others come first
            self.functions["." * (block in self.methods) + getattr(block, "name", "")].append(block)
            if block not in self.top:
                self.top.update(dict.fromkeys(every_node(block), block))
        self.own = {b: {*syntax.bindings(b)} - {getattr(b, "name", "")} for b in {*self.top.values()}}
        for node in (n for n in self.every if isinstance(n, ast.Global) and n in self.top):
            self.own[self.top[node]] -= {*node.names}
        self.outer = {name for n in self.every if isinstance(n, ast.Nonlocal) for name in n.names}

    def find_values(self) -> None:
        given = [(node, *pair) for node in self.every for pair in given_by(node) if pair[0]]
        for node, target, value in given:
            if getattr(target, "id", "") in self.foreign | {"self"}:
                continue  # np.insert(x, 0, 1)
            held = isinstance(target, ast.Subscript) or isinstance(getattr(target, "ctx", 0), ast.Load)
            kept = ast.List([value]) if held else value
            if node in self.top:
                self.top.setdefault(kept, self.top[node])
            self.values[self.key(inner(target))].append(kept)
            known = self.functions.get(mention(value), []) if mention(value) else []
            known = [value] if isinstance(value, ast.Lambda) else known
            name = "." * (target in self.fields) + mention(target)
            self.functions[name] += [f for f in known if f not in self.functions[name]]
        for block in self.blocks:
            self.unknown |= {(self.top[block], taker.arg) for taker in syntax.arguments(block.args)}
            for name, value in syntax.defaults(block.args):
                plain = isinstance(value, (ast.Name, ast.Attribute, ast.Constant, ast.UnaryOp))
                self.values[self.top[block], name].append(value if plain else ast.Name("a default"))
        bodies = [getattr(node, name, 0) for node in self.every for name in ("body", "orelse")]
        for body in (one for one in bodies if isinstance(one, list)):
            for one in (n for n in body if isinstance(n, ast.Assign)):
                targets = [n for target in one.targets for n in every_node(target) if stored(n)]
                for target in targets:
                    self.sets[self.key(target)].append((one.lineno, body[-1].end_lineno))

    def bind(self, nodes: Iterable[ast.AST]) -> None:
        """Gives arguments what the calls among these nodes give."""
        for key, value in self.given(nodes):
            self.values[key].append(value)
            self.unknown.discard(key)
        self.known_names.clear()

    def given(self, nodes: Iterable[ast.AST]) -> Iterator[tuple[tuple, ast.AST]]:
        """(key, value) of arguments that these calls give functions of this code."""
        calls = [n for node in nodes for n in (node, syntax.handed_on(node)) if isinstance(n, ast.Call)]
        for call in sorted(calls, key=lambda call: called(call) in FILLERS):  # what .append is, is known then
            for function in self.callees(call):
                for name, value in self.arguments(call, function):
                    yield (self.top[function], name), value

    def key(self, target: ast.AST) -> tuple:
        """Under what the values of a variable or of an attribute are found."""
        if isinstance(target, ast.Attribute):
            of_self = name_of(target.value) == "self" and target in self.scorer
            return "self" if of_self else "", target.attr
        block, name = self.top.get(target), name_of(target) or getattr(target, "name", "")
        if target in self.fields:
            return "", name
        return block if block and name in self.own[block] else None, name

    # ---- What runs

    def callees(self, call: ast.Call) -> list[ast.AST]:
        """The functions of this code that a call may run."""
        by, name, root = call.func, name_of(call.func), chain_of(call.func)[0]
        if isinstance(by, ast.Lambda):
            return [by]
        if root in self.foreign:
            return []
        if name in self.classes:
            return self.makers(name)
        found = self.functions.get(mention(by), [])
        if root in self.ours and isinstance(by, ast.Attribute):  # kit.f
            return [*found, *self.functions.get(name, [])]
        if not isinstance(by, ast.Attribute):
            return found if isinstance(by, (ast.Name, ast.Subscript)) else []
        if name_of(by.value) in self.classes:
            return [f for f in found if f in self.members[name_of(by.value)]]
        inherited = called(by.value) == "super"
        if inherited and name in MADE:
            return []  # its class says what is made
        if inherited or name_of(by.value) == "self":
            return [f for f in found if (f in self.scorer) == (call in self.scorer)] or found
        made = self.paths(by.value) if found else set()
        known = {part for path in made if path[0] == "=" for part in self.members[path[1]]}
        return [f for f in found if ("?",) in made or f in known or f not in self.methods]

    def makers(self, name: str) -> list[ast.AST]:
        """What runs when an object of a class is made."""
        return [f for f in self.members[name] & self.methods if getattr(f, "name", "") in MADE]

    def reached(self, starts: Iterable[ast.AST]) -> list[ast.AST]:
        """All nodes of these functions and values, and of what they use in turn."""
        found: dict[ast.AST, None] = {}
        waiting = [*starts]
        while waiting:
            new = [node for node in every_node(waiting.pop()) if node not in found]
            found.update(dict.fromkeys(new))
            waiting += [one for node in new for one in self.used(node) if one not in found]
        return [*found]

    def used(self, node: ast.AST) -> list[ast.AST]:
        """What runs, or is read, where a node does: functions, what makes an object, bases of its class, and
        values of the module's names and of attributes."""
        if called(node) == "getattr" and node.args[1:]:
            named = [syntax.text_of(part) for part in self.made_of(node.args[1])]
            return [function for name in filter(None, named) for function in self.functions_named(name)]
        if isinstance(node, ast.Call):  # table[i]() runs what the table holds
            return [] if isinstance(node.func, ast.Subscript) else self.callees(node)
        values, name = self.lasting_values(node), name_of(node)
        found = [value for value in values if self.hands_on(value)]
        if isinstance(node, ast.Attribute) and not values and node not in self.direct:  # a method as a value
            found += self.functions.get(f".{name}", [])
        if self.of_module(node):
            found += self.functions.get(name, []) if node in self.top else self.functions_named(name)
            found += [*self.makers(name), *self.classes[name].bases] if name in self.classes else []
        return found

    def of_module(self, node: ast.AST) -> bool:
        """Whether it is a name of the module, or of a file of the folder (kit.f), where that is read."""
        if not isinstance(node, (ast.Name, ast.Attribute)) or stored(node):
            return False
        return self.key(node)[0] is None or chain_of(node)[0] in self.ours

    def lasting_values(self, node: ast.AST) -> list[ast.AST]:
        """What a name of the module is given, or an attribute of any object."""
        name, found = name_of(node), []
        if isinstance(node, ast.Attribute) and not stored(node) and chain_of(node)[0] not in self.foreign:
            found = self.values.get(("self", name), []) + self.values.get(("", name), [])
        return found + self.values.get((None, name), []) if self.of_module(node) else found

    def functions_named(self, name: str) -> list[ast.AST]:
        return self.functions.get(name, []) + self.functions.get(f".{name}", [])

    def meant(self, node: ast.AST) -> list[ast.AST]:
        """The functions that an expression stands for, not called: a hook, a lambda."""
        if not isinstance(node, (ast.Name, ast.Attribute)):
            return [node] if isinstance(node, ast.Lambda) else []
        block = self.key(node)[0] if isinstance(node, ast.Name) else None
        if block is None:
            return [one for one in self.used(node) if isinstance(one, BLOCKS)]
        return [function for function in self.functions.get(node.id, []) if self.top[function] is block]

    def hands_on(self, value: ast.AST) -> bool:
        """Whether a value may be or hold a function, or is made where the module is imported."""
        made = isinstance(value, ast.Call) and value not in self.top and not is_knob(value)
        return made or isinstance(value, GIVEN) or called(value) == "partial"

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

    # ---- Where values come from

    def paths(self, node: ast.AST) -> set[Path]:
        found: set[Path] = set()
        known, waiting = set(), [(node, False, ())]
        while waiting:
            one, part, attrs = step = waiting.pop()
            if one is None:
                found.add(attrs)
            elif step not in known and len(attrs) == len({*attrs}) < DEPTH:
                known.add(step)
                waiting += self.behind(one, part, attrs)
        return found

    def behind(self, node: ast.AST, part: bool, attrs: Path) -> list[Step]:
        """What an expression stands for, one step back. part: a part of it is meant; attrs: attributes of it
        that are."""
        if isinstance(node, ast.Name):
            behind = self.behind_self if node.id == "self" else self.behind_name
            return behind(node, part, attrs)
        if isinstance(node, ast.Attribute):
            known = [f for f in self.functions.get(mention(node), ()) if "property" in decorators(f)]
            given = [(value, part, attrs) for value in self.results(known)]
            return [(node.value, part, (node.attr, *attrs)), *given]
        if isinstance(node, ast.Starred):
            return [(node.value, True, attrs)]
        if isinstance(node, ast.Subscript) and self.takes_part(node.slice):
            return [(node.value, True, attrs)]
        if isinstance(node, ast.Call):
            return self.behind_call(node, part, attrs)
        if isinstance(node, CHOICES) or (part or attrs) and isinstance(node, DISPLAYS):
            parts = [one for one in ast.iter_child_nodes(node) if one is not getattr(node, "test", None)]
            return [(one, part, attrs) for one in parts]
        return [] if isinstance(node, (ast.Constant, *DISPLAYS)) else [end("?")]

    def takes_part(self, index: ast.expr) -> bool:
        """Whether x[index] is a part of x: x[2], x[1:], x[i] of a loop; x[tokens] is a copy, perhaps."""
        names = [n for n in every_node(index) if isinstance(n, (ast.Name, ast.Call))]
        loops = [v for n in names for v in self.values[self.key(n)] if isinstance(v, ast.Starred)]
        counted = [v for v in loops if called(v.value) == "enumerate"]
        return isinstance(index, ast.Slice) or len(names) <= len(loops) - len(counted)

    def behind_name(self, node: ast.Name, part: bool, attrs: Path) -> list[Step]:
        key, values = self.key(node), self.reaching(node)
        found = [(value, part, attrs) for value in values]
        lasting = node.id in self.lasting or attrs and node.id in self.ours
        fixed = values and all(isinstance(v, (ast.Constant, ast.Tuple)) and constants(v) for v in values)
        if key[0] is None and lasting and not fixed:
            found.append(end(node.id, *attrs))
        return found if values and key not in self.unknown else [*found, end("?")]

    def behind_self(self, node: ast.Name, part: bool, attrs: Path) -> list[Step]:
        """What its attribute is given; of another object than the scorer, also what that is."""
        root = "self" if node in self.scorer else ""
        values = [] if root else self.reaching(node)
        found = [*self.kept(root, part, attrs), *((value, part, attrs) for value in values)]
        return found + [end(root, *attrs)] * (not values) + [end("?")] * (not found)

    def reaching(self, node: ast.Name | ast.Attribute) -> list[ast.AST]:
        """The values that it may have where it is used: a plain assignment before replaces the others."""
        key, here = self.key(node), self.top.get(node)
        since = [line for line, last in self.sets[key] if line < node.lineno <= last and key[0] is here]
        if not since:
            return self.values[key]
        within = [v for v in self.values[key] if self.top.get(inner(v), here) is here]
        return [v for v in within if getattr(inner(v), "lineno", node.lineno) >= max(since)]

    def kept(self, root: str, part: bool, attrs: Path) -> list[Step]:
        """What attributes of the scorer, or of other objects, are given."""
        values = self.values[root, attrs[0]] + self.values["", attrs[0]] * bool(root) if attrs else []
        return [(value, part, attrs[1:]) for value in values]

    def behind_call(self, node: ast.Call, part: bool, attrs: Path) -> list[Step]:
        name, root, known = called(node), chain_of(node.func)[0], self.callees(node)
        given = [*node.args, *(word.value for word in node.keywords)]
        if name in self.classes:
            made = [end("=", name)] if not attrs else []
            kept = self.kept("", part, attrs)
            return made + (kept or [(one, True, attrs) for one in given if part or attrs])
        if name in HOLDERS:
            return [(one, True, attrs) for one in given if part or attrs]
        found = [(one, part, attrs) for one in self.results(known)]
        if name == "super":
            found.append(end("self" if node in self.scorer else "", *attrs))
        makers = {name_of(n) for value in self.values[self.key(node.func)] for n in every_node(value)}
        if any(CACHES & names for names in (makers, *map(decorators, known))):
            found.append(end(f"{name}()", *attrs))
        of_object = isinstance(node.func, ast.Attribute) and root not in self.imports
        views = [node.func.value, *given[1:] * (name == "setdefault")] if of_object else given
        views = views[: 1 if name == "frombuffer" else None] if name in VIEWS else []
        if not (known or views or root in self.imports or root in dir(builtins)):
            found.append(end("?"))
        return found + [(one, True, attrs) for one in views]

    def results(self, functions: Iterable[ast.AST]) -> list[ast.AST]:
        """What these functions return or yield."""
        bodies = [f.body for f in functions if isinstance(f, ast.Lambda)]
        ends = [n for f in functions for n in every_node(f) if isinstance(n, RESULTS)]
        return bodies + [node.value for node in ends if node.value]

    # ---- What an expression is made of

    def made_of(self, node: ast.AST) -> Iterator[ast.AST]:
        """The parts of an expression, of what its names stand for, and of what its calls return."""
        waiting, known = [node], set()
        while waiting:
            one = waiting.pop()
            for part in () if one in known else every_node(one):
                yield part
                if isinstance(part, ast.Call):
                    waiting += self.results(self.callees(part))
                elif isinstance(part, (ast.Name, ast.Attribute)) and not stored(part):
                    knobs = self.key(part)[0] is None  # names of knobs in a list
                    waiting += [v for v in self.reaching(part) if not (knobs and constants(v))]
            known.add(one)

    def names_called(self, call: ast.Call) -> set[str]:
        """The last names of what it calls, by whatever alias: after f = torch.autograd.grad, f and grad."""
        by = call.func
        given = self.reaching(by) if mention(by) else []
        given = [getattr(syntax.handed_on(value), "func", value) for value in given]
        return {*map(name_of, (by, *given))} | {full.rpartition(".")[2] for full in self.full_names(by)}

    def full_names(self, node: ast.AST) -> set[str]:
        """The dotted names of what imports give that a chain of names may stand for, by whatever alias."""
        if not isinstance(node, (ast.Name, ast.Attribute)):
            return set()
        if node not in self.known_names:
            found = self.known_names[node] = set()  # what stands for itself ends here
            if isinstance(node, ast.Attribute):
                found |= {f"{full}.{node.attr}" for full in self.full_names(node.value)}
            else:
                found |= self.imports.get(node.id, set())
            for value in self.values.get(self.key(node), ()):
                found |= self.full_names(value)
        return self.known_names[node]


def end(*path: str) -> Step:
    return None, False, path


@lru_cache(maxsize=2)
def origins(tree: ast.Module) -> Origins:
    return Origins(tree)


def is_knob(value: ast.AST) -> bool:
    """Whether it is read from the environment, which the scorer sets."""
    return bool({"environ", "getenv"} & {*map(name_of, every_node(value))})


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
