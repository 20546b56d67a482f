"""The modules of a submission, and which package or module each name in them stands for."""

import ast
import sys
from collections import Counter
from collections.abc import Iterator

from golf.check import allowed
from golf.check.syntax import FUNCTIONS, bindings, called, chain_of, dict_of, every_node, imports, text_of

HOPS = 8  # files that hand a name on to each other
NAMESPACES = ("setattr", "namedtuple", "NamedTuple", "add_argument")  # make attributes of the texts given


class Modules:
    """The modules that a submission brings along, by dotted name; a package is `kit.__init__`."""

    def __init__(self, modules: dict[str, ast.Module]):
        names = {module: module.removesuffix(".__init__") for module in modules}
        self.aliases = {names[m]: aliases(tree, m) for m, tree in modules.items()}
        self.defined = {names[m]: set(bindings(tree)) for m, tree in modules.items()}
        parts = [name.split(".") for name in names.values()]
        self.names = {".".join(part[:n]) for part in parts for n in range(1, len(part) + 1)}
        self.given = {name for tree in modules.values() for name in given_names(tree)}

    def own(self, name: str) -> bool:
        return name in self.names

    def importable(self, name: str) -> bool:
        """Whether an import of the dotted name finds something: here, or in a known package."""
        top, _, last = name.rpartition(".")
        if self.own(name.split(".")[0]):
            return self.own(name) or last in self.defined.get(top, ())
        return name.split(".")[0] in sys.stdlib_module_names | allowed.PACKAGES

    def resolve(self, parts: list[str]) -> Iterator[list[str]]:
        """Where a chain ends that may begin in a file of the folder: chains of other modules, or []."""
        waiting = [parts]
        for _ in range(HOPS):
            chains, waiting = waiting, []
            for chain in chains:
                lengths = range(len(chain), -1, -1)
                length = next((n for n in lengths if n and self.own(".".join(chain[:n]))), 0)
                if not length:
                    yield chain
                    continue
                names = self.aliases.get(".".join(chain[:length]), {})
                for full in names.get(chain[length], ()) if chain[length:] else ():
                    waiting.append(full.split(".") + chain[length + 1 :])
        yield from waiting  # still on its way: its first name is in no list


def aliases(tree: ast.Module, module: str) -> dict[str, set[str]]:
    """Name in the file -> full dotted names: of what is imported, and of `F = torch.nn.functional`."""
    found = dict_of(imports(tree, module))
    for name, full, _ in list(module_aliases(tree, found)):
        found.setdefault(name, set()).add(full)
    return found


def libraries(tree: ast.Module) -> set[str]:
    """Names that only stand for Python's modules and the requirements', or for what these hold."""
    known, times = sys.stdlib_module_names | allowed.PACKAGES, bindings(tree)
    found = Counter(name for name, full in imports(tree, "") if full.split(".")[0] in known)
    return {name for name, count in found.items() if count == times[name]}


def module_aliases(tree: ast.Module, known: dict[str, set[str]]) -> Iterator[tuple[str, str, ast.expr]]:
    """Name, module and value of each plain assignment of a module at the top of a file."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and [type(t) for t in node.targets] == [ast.Name]:
            root, parts = chain_of(node.value)
            for full in known.get(root, ()):
                yield node.targets[0].id, ".".join([full, *parts]), node.value


def given_names(tree: ast.Module) -> set[str]:
    """Names that a file gives to attributes of its own."""
    found = set()
    for node in every_node(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
        elif isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            found.update([node.name], *(map(bindings, node.body) if isinstance(node, ast.ClassDef) else []))
        elif called(node).startswith("register_"):
            found |= {text_of(argument) for argument in node.args[:1]} - {None}
        elif isinstance(node, (ast.keyword, ast.Dict)) or called(node) in NAMESPACES:
            words = " ".join([getattr(node, "arg", 0) or "", *(text_of(n) or "" for n in every_node(node))])
            words = [word.lstrip("-").replace("-", "_") for word in words.replace(",", " ").split()]
            found |= {word for word in words if not word.startswith("_")}
    return found


def is_module(name: str) -> bool:
    """Whether the list (or Python) has a module of that dotted name."""
    return name in allowed.MODULES or name in sys.stdlib_module_names or name in allowed.PACKAGES
