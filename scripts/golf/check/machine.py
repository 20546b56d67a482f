"""Finds what code may learn of the machine: folders far above its own, the whole environment."""

import ast
import builtins
import re
from collections.abc import Iterator

from golf.check import syntax
from golf.check.origins import given_by, inner
from golf.check.steering import statements
from golf.check.syntax import called, every_node, name_of, text_of

FAR, ROOT = 4, 9  # folders above that which a path begins with; all of them
UP = {"parent": 1, "parents": ROOT, "dirname": 1, "gettempdir": 3, "split": 0}
UP |= dict.fromkeys(("NamedTemporaryFile", "TemporaryDirectory", "devnull"), 2)
# The repository around a script: the first folder that holds one of these.
SEARCH = re.compile(
    r"next\(\((\w+) for \1 in [\w.()]+\.parents if \(\1 / '(data|records|\.git)'\)\.(is_dir|exists)\(\)\)"
)


def climbs(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, what) where a path goes far up. Followed are a function's names, and what functions return."""
    searches = [n for n in every_node(tree) if called(n) == "next" and SEARCH.match(ast.unparse(n))]
    plain = {id(part) for node in searches for part in every_node(node)}
    few = [n for n in every_node(tree) if isinstance(n, ast.Subscript) and name_of(n.value) == "parents"]
    plain |= {id(n.value) for n in few if getattr(n.slice, "value", None) in (0, 1, 2, 3)}
    imported = ((name, full.rpartition(".")[2]) for name, full in syntax.imports(tree, ""))
    outer = {name: UP[last] for name, last in imported if last in UP}  # names of the module -> folders up
    for scope in [tree, *(n for n in every_node(tree) if isinstance(n, syntax.FUNCTIONS))] * 2:
        high, function = dict(outer), getattr(scope, "name", "")
        nodes = every_node(scope) if function else syntax.outside_functions(tree)
        nodes = [n for n in nodes if id(n) not in plain]
        for target, value in [pair for n in nodes for pair in given_by(n)] * FAR:
            if any(name_of(part) in UP or name_of(part) in high for part in every_node(value)):
                up, name = height(value, high, plain), name_of(inner(target)) if target else function
                high |= {name: min(up, ROOT)} if up > high.get(name, 0) else {}
        outer = outer | {function: high.get(function, 0)} if function else high
        for node in (n for n in nodes if isinstance(n, (ast.Attribute, ast.Call))):
            if height(node, high, plain) >= FAR:
                yield node.lineno, f"{FAR} folders up"


def height(node: ast.AST, high: dict[str, int], plain: set[int]) -> int:
    """How many folders up an expression leads from where it begins."""
    name, parts = name_of(node), list(ast.iter_child_nodes(node))
    if isinstance(node, (ast.Compare, ast.Constant)) or id(node) in plain:
        return 0
    if isinstance(node, ast.Lambda):
        return ROOT * any(map(UP.get, (name_of(node.body), called(node.body))))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        return height(node.left, high, plain) - any(map(str.isalpha, text_of(node.right) or "x"))
    own = high.get(name, 0) if isinstance(node, ast.Name) else UP.get(name, 0)
    own += name == "split" and name_of(getattr(node, "value", None)) == "path"  # of os
    own += height(parts.pop(0), high, plain) if isinstance(node, ast.Call) else 0
    if isinstance(node, ast.Subscript) and id(node.value) in plain and id(node) not in plain:
        return height(node.value.value, high, plain) + max(1, node.slice.value)
    own += max([height(part, high, plain) for part in parts], default=0)
    return max(own, high.get(getattr(node, "attr", ""), 0))


def environment(tree: ast.Module, names: dict[str, set[str]]) -> Iterator[tuple[int, str]]:
    """(line, 'environ') where an import uses all of the environment, or sets what is not written out."""
    run = {id(node) for nodes in statements(tree.body) for node in nodes}
    takers = {n.name: syntax.arguments(n.args) for n in every_node(tree) if isinstance(n, syntax.FUNCTIONS)}
    known = {"environ"}
    for target, value in [*syntax.assignments(tree)] * 2:
        known |= {target.id} if name_of(value) in known else set()

    def whole(node: ast.AST) -> bool:
        return name_of(node) in known - {"environ"} or "os.environ" in syntax.full_names(node, names)

    plain: list[ast.AST] = []  # what is used by name, or handed on
    for node in every_node(tree):
        method = node.func if isinstance(node, ast.Call) else None
        if isinstance(node, ast.Subscript) and (not syntax.stored(node) or text_of(node.slice)):
            plain += [node.value]
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            plain += [node.value]
        elif isinstance(node, ast.Compare) and isinstance(node.ops[0], (ast.In, ast.NotIn)):
            plain += node.comparators
        elif isinstance(method, ast.Name) and method.id not in {*dir(builtins), *names}:
            plain += node.args
            pairs = zip(takers.get(method.id, []), node.args) if id(node) in run else []
            known |= {taker.arg for taker, given in pairs if whole(given)}
        elif name_of(method) == "difference" and called(method.value) == "set":
            plain += method.value.args
        elif isinstance(method, ast.Attribute) and method.attr in ("get", "pop", "setdefault", "update"):
            sets = [*map(text_of, node.args[:1]), *(word.arg for word in node.keywords)]
            plain += [method.value] if method.attr in ("get", "pop") or None not in sets else []
    for node in set(every_node(tree)).difference(plain):
        if isinstance(getattr(node, "ctx", None), ast.Load) and whole(node):
            yield node.lineno, "environ"
