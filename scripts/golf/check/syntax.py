"""What a syntax tree holds: names, calls, assignments, imports and texts."""

import ast
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@lru_cache(maxsize=1 << 14)
def every_node(tree: ast.AST) -> tuple[ast.AST, ...]:
    """ast.walk's nodes, kept: many rules walk the same trees."""
    return tuple(ast.walk(tree))


def called(node: ast.AST) -> str:
    """The last name of a called function; '' if the node is no call."""
    return name_of(node.func) if isinstance(node, ast.Call) else ""


def name_of(node: ast.AST) -> str:
    return getattr(node, "attr", getattr(node, "id", ""))


def mention(node: ast.AST) -> str:
    """'f' of a name, '.f' of an attribute, else ''."""
    return "." * isinstance(node, ast.Attribute) + name_of(node)


def handed_on(node: ast.AST) -> ast.Call | None:
    """The call of f that partial(f, x) or map(f, x) makes later."""
    if called(node) in ("partial", "map") and node.args:
        return ast.copy_location(ast.Call(node.args[0], node.args[1:], node.keywords), node)


class OneForm(ast.NodeTransformer):
    """Gives what has several forms one: x.a for getattr(x, "a"), x.a = v for setattr(x, "a", v), and `self`,
    or the class, for the first argument of a method."""

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        name = text_of(node.args[1]) if called(node) in ("getattr", "setattr") and node.args[1:] else None
        if not name:
            return node
        sets = called(node) == "setattr"
        one = ast.Attribute(node.args[0], name, ast.Store() if sets else ast.Load())
        return ast.copy_location(
            ast.Assign([ast.copy_location(one, node)], node.args[-1]) if sets else one, node
        )

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        for method in (part for part in node.body if isinstance(part, FUNCTIONS)):
            kinds = set(map(name_of, method.decorator_list))
            for first in [*method.args.posonlyargs, *method.args.args][: "staticmethod" not in kinds]:
                for part in (n for n in ast.walk(method) if getattr(n, "id", "") == first.arg):
                    part.id = node.name if "classmethod" in kinds else "self"
        return self.generic_visit(node)


def outside_functions(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run where a file is imported: not those of functions and of the main program."""
    waiting = [tree]
    while waiting:
        nodes = [n for n in ast.iter_child_nodes(waiting.pop()) if not isinstance(n, FUNCTIONS)]
        nodes = [n for n in nodes if not (isinstance(n, ast.If) and "__name__ == " in ast.unparse(n.test))]
        yield from nodes
        waiting += nodes


def chain_of(node: ast.expr) -> tuple[str, list[str]]:
    """'a', ['b', 'c'] of a.b.c; '' where it begins with no name."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return node.id if isinstance(node, ast.Name) else "", parts[::-1]


def full_names(node: ast.AST, names: dict[str, set[str]]) -> Iterator[str]:
    """The full dotted names that a chain of names may stand for."""
    if isinstance(node, (ast.Name, ast.Attribute)):
        root, parts = chain_of(node)
        yield from (".".join([full, *parts]) for full in sorted(names.get(root, ())))


def imports(tree: ast.Module, module: str) -> Iterator[tuple[str, str]]:
    """(name in the file, full dotted name) of what is imported."""
    for node in every_node(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield (alias.asname, alias.name) if alias.asname else (alias.name.split(".")[0],) * 2
        elif isinstance(node, ast.ImportFrom):
            base = absolute(node, module)
            yield from ((a.asname or a.name, f"{base}.{a.name}" if base else a.name) for a in node.names)


def absolute(node: ast.ImportFrom, module: str) -> str:
    """The dotted name that `from .x import y` means in `module`."""
    if not node.level:
        return node.module or ""
    package = module.split(".")[: -node.level] if node.level else []
    return ".".join([*package, *([node.module] if node.module else [])])


def bindings(tree: ast.AST) -> Counter[str]:
    """How many places of a file bind each name: assignments, arguments, imports, patterns, …"""
    found: Counter = Counter()
    for node in every_node(tree):
        if isinstance(node, (*FUNCTIONS, ast.ClassDef, ast.ExceptHandler, ast.MatchAs, ast.MatchStar)):
            found[node.name] += 1
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            found[node.id] += 1
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found.update(alias.asname or alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.arg):
            found[node.arg] += 1
        elif isinstance(node, ast.MatchMapping):
            found[node.rest] += 1
    found.pop(None, None)  # except: and case _:
    return found


def dict_of(pairs) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name, full in pairs:
        found.setdefault(name, set()).add(full)
    return found


def assignments(tree: ast.Module) -> Iterator[tuple[ast.Name, ast.expr]]:
    """Names and their values: of a = x, and of each in a, b = x, y."""
    for node in every_node(tree):
        for target in node.targets if isinstance(node, ast.Assign) else ():
            sides = [getattr(side, "elts", [side]) for side in (target, node.value)]
            pairs = zip(*sides) if len(sides[0]) == len(sides[1]) else [(target, node.value)]
            yield from (pair for pair in pairs if isinstance(pair[0], ast.Name))


def constant_words(tree: ast.Module) -> dict[str, list[str]]:
    """Name -> its words, of names bound once, to words in sight, and never handed on: K = "a b".split()."""
    times, uses = bindings(tree), Counter(n.id for n in every_node(tree) if isinstance(n, ast.Name))
    for node in every_node(tree):
        used = [node.iter] if isinstance(node, (ast.For, ast.comprehension)) else []
        used += node.comparators if isinstance(node, ast.Compare) else []
        used += node.args if called(node) in ("sorted", "len", "set", "enumerate", "zip") else []
        uses.subtract(part.id for part in used if isinstance(part, ast.Name))
    pairs = [(target.id, words_of(value)) for target, value in assignments(tree)]
    return {name: words for name, words in pairs if words and times[name] == uses[name] == 1}


def format_texts(tree: ast.AST) -> dict[str, str]:
    """Name -> the texts that it holds in a function, where all else that it holds is their format."""
    times, found, known = bindings(tree), {}, Counter()
    for target, value in assignments(tree):
        name, text = target.id, text_of(value)
        formatted = called(value) == "format" and getattr(value.func.value, "id", "") == name
        known[name] += text is not None or formatted
        if text is not None:
            found[name] = found.get(name, "") + text
    return {name: text for name, text in found.items() if known[name] == times[name]}


def constants(node: ast.expr) -> bool:
    """Whether an expression is made of literals alone."""
    return not any(isinstance(part, (ast.Name, ast.Call)) for part in every_node(node))


def stored(node: ast.expr) -> bool:
    return isinstance(getattr(node, "ctx", None), ast.Store)


def bare(node: ast.AST) -> Iterator[ast.AST]:
    """The parts of an expression that are used where it stands: not what calls are given or := keeps."""
    waiting = [node]
    while waiting:
        part = waiting.pop()
        yield part
        if not isinstance(part, (ast.Call, ast.NamedExpr, ast.Lambda, ast.Yield, ast.YieldFrom, ast.Await)):
            waiting += ast.iter_child_nodes(part)


def number_names(tree: ast.Module) -> Iterator[str]:
    """Names that stand for numbers: n = 3, for n in range(9), for n in (3, 4), def f(n=3)."""
    given = [(t.id, v) for t, v in assignments(tree)]
    for node in every_node(tree):
        if isinstance(node, (ast.For, ast.comprehension)) and isinstance(node.target, ast.Name):
            numbers = [ast.Constant(0)] if called(node.iter) == "range" else getattr(node.iter, "elts", [])
            given += [(node.target.id, number) for number in numbers]
        elif isinstance(node, ast.arguments):
            takers = [*node.posonlyargs, *node.args][::-1]
            given += [(a.arg, v) for a, v in zip(takers, node.defaults[::-1])]
    yield from (name for name, value in given if type(getattr(value, "value", None)) is int)


def surely_bound(tree: ast.Module) -> dict[str, int]:
    """Name -> last line of its first unconditional definition at the file's top level."""
    found: dict[str, int] = {}
    for node in tree.body:
        names, line = [], node.end_lineno
        if isinstance(node, FUNCTIONS):
            names, line = [node.name], node.body[0].lineno  # it may call itself
        elif isinstance(node, ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign):
            names = [name for target in node.targets for name in bindings(target)]
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.asname or alias.name.split(".")[0] for alias in node.names]
        for name in names:
            found.setdefault(name, line)
    return found


def words_of(node: ast.expr, known: dict[str, list[str]] | None = None) -> list[str] | None:
    """The texts that an expression goes through, where they are in sight."""
    if isinstance(node, ast.Name):
        return (known or {}).get(node.id)
    if isinstance(node, (ast.Tuple, ast.List)):
        words = [text_of(one) for one in node.elts]
        return None if None in words else words
    split = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "split"
    if split and not node.args and not node.keywords:
        text = text_of(node.func.value)
        return text.split() if text is not None else None
    return None


def text_of(node: ast.AST | None) -> str | None:
    """The text of a literal, of one that is repeated, of literals joined by +, or of an f-string of these."""
    parts, waiting = [], [node]
    while waiting:
        part = waiting.pop()
        if isinstance(part, ast.Constant) and isinstance(part.value, (str, bytes)):
            parts.append(part.value if isinstance(part.value, str) else part.value.decode("latin-1"))
        elif isinstance(part, ast.BinOp) and isinstance(part.op, ast.Add):
            waiting += [part.right, part.left]
        elif isinstance(part, ast.BinOp) and isinstance(part.op, ast.Mult):
            values = [getattr(side, "value", None) for side in (part.left, part.right)]
            texts = [ast.Constant(value) for value in values if isinstance(value, (str, bytes))]
            times = [value for value in values if isinstance(value, int)]
            if not (texts and times):
                return None
            waiting += texts * min(times[0], 9)
        elif isinstance(part, ast.JoinedStr):
            waiting += reversed(part.values)
        elif isinstance(part, ast.FormattedValue) and not part.format_spec:
            waiting.append(part.value)
        else:
            return None
    return "".join(parts)


def docstrings(tree: ast.Module) -> set[int]:
    """Ids of the nodes that document a module, a class or a function, or stand for a comment."""
    alone = [node.value for node in every_node(tree) if isinstance(node, ast.Expr)]
    return {id(value) for value in alone if isinstance(value, ast.Constant)}


def arguments(args: ast.arguments) -> list[ast.arg]:
    named = [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg]
    return [argument for argument in named if argument is not None]


def defaults(args: ast.arguments) -> list[ast.expr]:
    return [node for node in [*args.defaults, *args.kw_defaults] if node is not None]


def kept_defaults(args: ast.arguments) -> Iterator[tuple[str, ast.expr]]:
    """Arguments and their defaults, if these are more than literals: def f(x, seen=TABLE)."""
    places = [*args.posonlyargs, *args.args][::-1]
    for taker, value in (*zip(places, args.defaults[::-1]), *zip(args.kwonlyargs, args.kw_defaults)):
        if not isinstance(value, (ast.Constant, ast.UnaryOp, type(None))):
            yield taker.arg, value


def locals_of(function) -> tuple[set[str], set[str]]:
    """Names that a function binds itself; those that it imports or declares to be another's."""
    names = {argument.arg for argument in arguments(function.args)}
    foreign = set()
    waiting = [function.body] if isinstance(function, ast.Lambda) else [*function.body]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
            continue
        if isinstance(node, (ast.Lambda, *COMPREHENSIONS)):
            continue
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
        elif isinstance(node, (ast.Global, ast.Nonlocal)):
            foreign |= set(node.names)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            foreign |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
        waiting += ast.iter_child_nodes(node)
    return names - foreign, foreign
