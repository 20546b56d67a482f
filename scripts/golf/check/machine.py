"""Finds what code may learn of the machine: folders far above its own, the whole environment.

A path's height is how many folders it leads up from where it begins, by whatever names, attributes and
functions (origins.py). The environment is used variable by variable; whoever takes all of it is reported.
"""

import ast
import builtins
import re
from collections.abc import Iterator

from golf.check import syntax
from golf.check.origins import Origins, given_by, inner
from golf.check.syntax import called, every_node, name_of, text_of

FAR, ROOT = 4, 9  # folders above that which a path begins with; all of them
UP = {"parent": 1, "parents": ROOT, "dirname": 1, "gettempdir": 3, "split": 0}
UP |= dict.fromkeys(("NamedTemporaryFile", "TemporaryDirectory", "devnull"), 2)
# The repository around a script: the first folder that holds one of these.
SEARCH = re.compile(
    r"next\(\((\w+) for \1 in [\w.()]+\.parents if \(\1 / '(data|records|\.git)'\)\.(is_dir|exists)\(\)\)"
)


class Heights:
    """How many folders up the expressions of a file lead."""

    def __init__(self, code: Origins):
        self.code = code
        searches = [n for n in code.every if called(n) == "next" and SEARCH.match(ast.unparse(n))]
        self.plain = {part for node in searches for part in every_node(node)}
        taken = [n for n in code.every if isinstance(n, ast.Subscript) and name_of(n.value) == "parents"]
        self.plain |= {n.value for n in taken if getattr(n.slice, "value", None) in (0, 1, 2, 3)}
        self.high: dict[tuple, int] = {}  # by key, ('()', 'f') of what f returns
        given = [(self.key(inner(to)), value) for n in code.every for to, value in given_by(n) if to]
        for block in (n for n in code.blocks if isinstance(n, syntax.FUNCTIONS)):
            given += [(("()", block.name), value) for value in code.results([block])]
        self.rise([(key, value, {*map(name_of, every_node(value))}) for key, value in given])

    def key(self, node: ast.AST) -> tuple:
        """Attributes are followed within a function, like its names."""
        of_object = isinstance(node, ast.Attribute)
        return (self.code.top.get(node), f".{node.attr}") if of_object else self.code.key(node)

    def rise(self, given: list[tuple]) -> None:
        """Finds `high`, in rounds: p = p.parent climbs each time."""
        for _ in range(ROOT):
            names = {*UP, *(name.removeprefix(".") for _, name in self.high)}
            for key, value, used in given:
                up = self.height(value) if used & names else 0
                if up > self.high.get(key, 0):
                    self.high[key] = min(up, ROOT)

    def height(self, node: ast.AST) -> int:
        if isinstance(node, (ast.Compare, ast.Constant)) or node in self.plain:
            return 0
        if isinstance(node, ast.Lambda):
            return ROOT * any(map(UP.get, (name_of(node.body), called(node.body))))
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            named = text_of(node.right) or "x"  # a folder, not '..'
            return self.height(node.left) - any(map(str.isalpha, named))
        if isinstance(node, ast.Subscript) and node.value in self.plain:  # parents[2]
            return self.height(node.value.value) + max(1, node.slice.value)
        parts = [*ast.iter_child_nodes(node)]
        own = self.height(parts.pop(0)) if isinstance(node, ast.Call) else self.own_height(node)
        own += max(map(self.height, parts), default=0)
        return max(own, self.high.get(self.key(node), 0)) if isinstance(node, ast.Attribute) else own

    def own_height(self, node: ast.AST) -> int:
        """What a name or an attribute adds."""
        name = name_of(node)
        if isinstance(node, ast.Attribute):
            of_path = name == "split" and name_of(node.value) == "path"  # os.path.split
            return max(UP.get(name, 0) + of_path, self.high.get(("()", name), 0))
        if not isinstance(node, ast.Name):
            return 0
        imported = [UP.get(full.rpartition(".")[2], 0) for full in self.code.full_names(node)]
        return max([self.high.get(self.code.key(node), 0), self.high.get(("()", name), 0), *imported])


def climbs(code: Origins) -> Iterator[tuple[int, str]]:
    """(line, what) where a path goes far up."""
    heights = Heights(code)
    for node in code.every:
        if isinstance(node, (ast.Attribute, ast.Call)) and heights.height(node) >= FAR:
            yield node.lineno, f"{FAR} folders up"


def environment(code: Origins) -> Iterator[tuple[int, str]]:
    """(line, 'environ') where an import uses all of the environment, or sets what is not written out."""
    code.bind(code.outside)

    def whole(node: ast.AST) -> bool:
        return "os.environ" in code.full_names(node)

    plain: list[ast.AST] = []  # what is used by name, or handed on
    for node in code.every:
        method = node.func if isinstance(node, ast.Call) else None
        if isinstance(node, ast.Subscript) and (not syntax.stored(node) or text_of(node.slice)):
            plain += [node.value]
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            plain += [node.value]
        elif isinstance(node, ast.Compare) and isinstance(node.ops[0], (ast.In, ast.NotIn)):
            plain += node.comparators
        elif isinstance(method, ast.Name) and method.id not in {*dir(builtins), *code.imports}:
            plain += node.args
        elif name_of(method) == "difference" and called(method.value) == "set":
            plain += method.value.args
        elif isinstance(method, ast.Attribute) and method.attr in ("get", "pop", "setdefault", "update"):
            sets = [*map(text_of, node.args[:1]), *(word.arg for word in node.keywords)]
            plain += [method.value] if method.attr in ("get", "pop") or None not in sets else []
    for node in {*code.every}.difference(plain):
        if isinstance(getattr(node, "ctx", None), ast.Load) and whole(node):
            yield node.lineno, "environ"
