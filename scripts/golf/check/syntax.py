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
        node = waiting.pop()
        main = isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"
        parts = node.orelse if main else ast.iter_child_nodes(node)
        nodes = [part for part in parts if not isinstance(part, FUNCTIONS)]
        yield from nodes
        waiting += nodes


def chain_of(node: ast.expr) -> tuple[str, list[str]]:
    """'a', ['b', 'c'] of a.b.c; '' where it begins with no name."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return node.id if isinstance(node, ast.Name) else "", parts[::-1]


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
    return ".".join([*module.split(".")[: -node.level], *filter(None, [node.module])])


def bound_by(node: ast.AST) -> list[str]:
    """Names that a node by itself binds: an assignment's target, an argument, an import, a pattern, ..."""
    names = []
    if isinstance(node, (*FUNCTIONS, ast.ClassDef, ast.ExceptHandler, ast.MatchAs, ast.MatchStar)):
        names = [node.name]
    elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        names = [node.id]
    elif isinstance(node, (ast.Import, ast.ImportFrom)):
        names = [alias.asname or alias.name.split(".")[0] for alias in node.names]
    elif isinstance(node, ast.arg):
        names = [node.arg]
    elif isinstance(node, ast.MatchMapping):
        names = [node.rest]
    return [name for name in names if name]  # none in `except:` and `case _:`


def bindings(tree: ast.AST) -> Counter[str]:
    """How many places of a file bind each name."""
    return Counter(name for node in every_node(tree) for name in bound_by(node))


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


def surely_bound(tree: ast.Module) -> dict[str, int]:
    """Name -> last line of its first unconditional definition at the file's top level."""
    found: dict[str, int] = {}
    for node in tree.body:
        names = bound_by(node)
        if isinstance(node, ast.Assign):
            names = [name for target in node.targets for name in bindings(target)]
        line = node.body[0].lineno if isinstance(node, FUNCTIONS) else node.end_lineno  # it may call itself
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


def defaults(args: ast.arguments) -> list[tuple[str, ast.expr]]:
    """Arguments and their defaults."""
    places = [*args.posonlyargs, *args.args][::-1]
    pairs = [*zip(places, args.defaults[::-1]), *zip(args.kwonlyargs, args.kw_defaults)]
    return [(taker.arg, value) for taker, value in pairs if value]


def locals_of(function) -> tuple[set[str], set[str]]:
    """Names that a function binds itself; those that it imports or declares to be another's."""
    names = {argument.arg for argument in arguments(function.args)}
    foreign = set()
    waiting = [function.body] if isinstance(function, ast.Lambda) else [*function.body]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.Global, ast.Nonlocal)):
            foreign |= {*node.names}
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            foreign |= {*bound_by(node)}
        else:
            names |= {*bound_by(node)}
        if not isinstance(node, (*FUNCTIONS, ast.ClassDef, ast.Lambda, *COMPREHENSIONS)):
            waiting += ast.iter_child_nodes(node)
    return names - foreign, foreign
