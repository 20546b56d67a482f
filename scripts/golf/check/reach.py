"""Which names code reaches: reports every name that allowed.py does not list, and every way around it.

The tree is read, never run. A name that an import binds stands for its module, through aliases and
through other files of the folder; attributes are followed from there. The list holds as long as no
module travels as a value, no attribute has a computed name, and functions that load or run what they
are given are called in plain sight: so these are reported too, whatever they are used for.
"""

import ast
import builtins
from collections.abc import Iterator
from fnmatch import fnmatchcase

from golf.check import allowed, guards, syntax, texts
from golf.check.machine import climbs, environment
from golf.check.modules import Modules, aliases, is_module, module_aliases
from golf.check.origins import origins
from golf.check.syntax import called, every_node, text_of

INDIRECT, UNLISTED, IMPORT = "code-indirect", "code-unlisted", "code-import"
PICKLE, OUTSIDE = "code-pickle", "code-outside"
BUILTIN_NAMES = frozenset(dir(builtins))
ERRORS = frozenset(name for name, value in vars(builtins).items() if hasattr(value, "with_traceback"))


def reached(tree: ast.Module, modules: Modules, module: str) -> Iterator[tuple[int, str, str]]:
    """(line, rule id, what) of everything in a file that a reviewer must see."""
    walk = Walk(tree, modules, module)
    walk.visit(tree)
    yield from walk.found
    code = walk.code
    yield from ((line, OUTSIDE, what) for line, what in (*climbs(code), *environment(code)))


class Walk(ast.NodeVisitor):
    """Walks one file's syntax tree and collects findings in `found`."""

    def __init__(self, tree: ast.Module, modules: Modules, module: str):
        self.found: list[tuple[int, str, str]] = []
        self.modules, self.module, self.tree = modules, module, tree
        self.aliases = aliases(tree, module)
        known = syntax.dict_of(syntax.imports(tree, module))
        self.renamed = {id(node) for _, _, node in module_aliases(tree, known)}
        # Of the functions around: names that they bind, not by import; those that they call global.
        self.scopes: list[tuple[set[str], set[str]]] = []
        self.sure = syntax.surely_bound(tree)
        self.loops: dict[str, list[str]] = {}  # comprehension variable -> the words that it takes
        self.documented = syntax.docstrings(tree)
        self.times, self.words = syntax.bindings(tree), syntax.constant_words(tree)
        self.code = origins(tree)
        self.renaming: set[int] = set()  # ids of nodes that get another name
        self.harmless: set[int] = set()  # ids of nodes that a node around them makes plain

    def report(self, node: ast.AST, rule: str, what: str) -> None:
        self.found.append((getattr(node, "lineno", 1), rule, what[:60]))

    # ---- Imports

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.imported(node, alias.name.split("."))
            self.bound_name(node, alias.asname or alias.name.split(".")[0])

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = syntax.absolute(node, self.module)
        if node.level and base and not self.modules.own(base):
            self.report(node, IMPORT, "." * node.level + (node.module or ""))
            return
        for alias in node.names:
            if alias.name == "*":
                self.report(node, INDIRECT, f"from {base} import *")
                continue
            self.imported(node, [*base.split("."), alias.name] if base else [alias.name], True)
            self.bound_name(node, alias.asname or alias.name)

    def imported(self, node: ast.stmt, parts: list[str], leaf: bool = False) -> None:
        """Judges what an import names; a leaf may be a name within a module."""
        full = ".".join(parts)
        if parts[0] == "__main__":
            self.report(node, INDIRECT, full)
        elif not self.modules.importable(full) and not named_rule(parts):
            self.report(node, IMPORT, full)
        else:
            self.chain(node, parts, imported=not leaf)

    def bound_name(self, node: ast.AST, name: str) -> None:
        """A name that code gives to something: no dunder, no builtin that others rely on."""
        imported = isinstance(node, (ast.Import, ast.ImportFrom))
        if texts.DUNDER.fullmatch(name) and name not in allowed.DUNDERS or imported and name in guards.GUARDS:
            self.report(node, INDIRECT, name)

    # ---- Names and attributes

    def visit_Name(self, node: ast.Name) -> None:
        if not isinstance(node.ctx, ast.Load):
            self.bound_name(node, node.id)
            taken = node.id in BUILTIN_NAMES or node.id in self.aliases
            if isinstance(node.ctx, ast.Del) and taken:
                self.report(node, INDIRECT, f"del {node.id}")
            return
        if self.bound(node.id):
            return
        if node.id == "__doc__" and id(node) not in self.harmless:
            self.report(node, INDIRECT, "__doc__ as data")
        for full in self.aliases.get(node.id, ()):
            self.value(node, full.split("."))
        self.builtin(node, called=False)

    def bound(self, name: str) -> bool:
        """Whether the name is a variable of a function around it, so neither import nor builtin."""
        for names, declared in reversed(self.scopes):
            if name in names or name in declared:
                return name in names
        return False

    def builtin(self, node: ast.Name, called: bool) -> None:
        name = node.id
        if self.sure.get(name, node.lineno) < node.lineno:
            return
        if name in allowed.NAMED_BUILTINS:
            self.report(node, "code-exec", name)
        elif texts.DUNDER.fullmatch(name) and name not in allowed.BUILTINS | allowed.DUNDERS:
            self.report(node, INDIRECT, name)
        elif name in allowed.GUARDED_BUILTINS and not called:
            self.report(node, INDIRECT, f"{name} as a value")
        elif name in BUILTIN_NAMES - allowed.BUILTINS - ERRORS:
            self.report(node, UNLISTED, name)

    def value(self, node: ast.AST, parts: list[str]) -> None:
        """A chain that is used as a value, not called and with no attribute taken."""
        self.chain(node, parts)
        for chain in self.modules.resolve(parts):
            full = ".".join(chain)
            if is_module(full) and id(node) not in self.renamed:
                self.report(node, INDIRECT, f"{full}, a module, as a value")
            elif full in guards.GUARDS and (full in guards.IN_SIGHT or id(node) in self.renaming):
                self.report(node, INDIRECT, f"{full} as a value")
        if self.modules.own(".".join(parts)):
            self.report(node, INDIRECT, f"{'.'.join(parts)}, a module, as a value")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        chains = list(self.full_names(node))
        if not isinstance(node.ctx, ast.Load):
            for parts in chains:
                if not f"{'.'.join(parts)}.".startswith(allowed.SETTABLE):
                    self.report(node, INDIRECT, f"{'.'.join(parts)} = ")
        for parts in chains:
            self.value(node, parts)
        if not chains:
            self.attribute(node)
            self.visit(node.value)

    def attribute(self, node: ast.Attribute) -> None:
        """An attribute of an object that no import gave."""
        own_class = isinstance(node.value, ast.Attribute) and node.value.attr == "__class__"
        if own_class and node.attr in ("__name__", "__qualname__"):
            node.value.attr = "__name__"  # x.__class__.__name__ is a text
        if isinstance(node.value, ast.Call) and self.called_name(node.value) == "type":
            self.harmless.add(id(node.value))
            if node.attr not in ("__name__", "__qualname__"):
                self.report(node, INDIRECT, f"type(...).{node.attr}")
        if node.attr == "src" and not isinstance(node.ctx, ast.Load):  # what Triton compiles
            self.report(node, INDIRECT, ".src = ")
        if node.attr not in ("parent", "parents"):  # climbs() sees to them
            self.named(node, node.attr, id(node) in self.harmless)

    def named(self, node: ast.AST, name: str, called: bool = False) -> None:
        """Judges the name of an attribute of any object, however code names it."""
        given = name in self.modules.given
        if name in ("format", "compile") and not called:
            self.report(node, INDIRECT, f".{name} as a value")
        self.odd(node, name)
        if name.startswith("_"):
            if not (given or texts.DUNDER.fullmatch(name) or name in allowed.PRIVATE | allowed.LEADING_OUT):
                self.report(node, INDIRECT, f".{name}, which is another's")
        elif name in allowed.OUTWARD and (not given or isinstance(getattr(node, "value", 0), ast.Call)):
            self.report(node, OUTSIDE, f".{name}")
        elif not (given or listed_attribute(name) or getattr(getattr(node, "value", 0), "id", "") == "self"):
            self.report(node, UNLISTED, f".{name}")

    def told(self, node: ast.AST) -> None:
        """Reports a class of a library, or an error, that becomes a text: its name is words."""
        name = syntax.name_of(node)
        known = name in ERRORS or name and any(self.full_names(node))
        if known and name not in (name.upper(), name.lower()) and not self.bound(name):
            self.report(node, INDIRECT, f"{name} as a text")

    def odd(self, node: ast.AST, name: str) -> None:
        """Reports names of attributes that lead out of an object."""
        if name in allowed.LEADING_OUT or texts.DUNDER.fullmatch(name) and name not in allowed.DUNDERS:
            self.report(node, INDIRECT, f".{name}")

    def full_names(self, node: ast.expr) -> Iterator[list[str]]:
        """The chain of names that an attribute of an imported name stands for."""
        root, parts = syntax.chain_of(node)
        if not self.bound(root):
            for full in self.aliases.get(root, ()):
                yield [*full.split("."), *parts]

    def chain(self, node: ast.AST, parts: list[str], imported: bool = False) -> None:
        """Judges a chain that begins with a module: each part in its module's list."""
        for chain in self.modules.resolve(parts):
            module, rest = chain[0], chain[1:]
            rule = named_rule(chain)
            if rule:
                self.report(node, rule, ".".join(chain))
                continue
            if module not in allowed.MODULES:
                self.report(node, UNLISTED, ".".join(chain))
                continue
            while rest and f"{module}.{rest[0]}" in allowed.MODULES:
                module, rest = f"{module}.{rest[0]}", rest[1:]
            if rest and (imported or not listed(module, rest[0])):
                self.report(node, UNLISTED, ".".join(chain))
            for name in rest[:1]:
                self.odd(node, name)
            for name in rest[1:]:
                self.named(node, name, called=True)
            if "home" in rest:
                self.report(node, OUTSIDE, ".".join(chain))
        if not list(self.modules.resolve(parts)):
            for name in parts[1:]:
                self.odd(node, name)

    # ---- Calls

    def called_name(self, node: ast.Call) -> str:
        """'torch.load' of what is called, 'getattr' of a builtin, '.format' of a method, or ''."""
        for parts in self.full_names(node.func):
            for chain in self.modules.resolve(parts):
                return ".".join(chain)
        if isinstance(node.func, ast.Name) and not self.bound(node.func.id):
            return node.func.id
        return f".{node.func.attr}" if isinstance(node.func, ast.Attribute) else ""

    def visit_Call(self, node: ast.Call) -> None:
        name = self.called_name(node)
        later = syntax.handed_on(node)
        if later and guards.GUARDS.get(self.called_name(later), lambda *_: None)(self, later):
            self.report(node, INDIRECT, f"{name} of {self.called_name(later)}")
        guard = guards.GUARDS.get(name) or (guards.guard_compile if name.endswith(".compile") else None)
        self.plain_parts(node, name)
        if texts.makes_text(node, self.code) or guards.makes_class(node):
            self.report(node, INDIRECT, "a text or a class that is not in sight")
        for part in node.args if called(node) in ("str", "repr", "ascii", "format") else ():
            self.told(part)
        if name.startswith("numpy.") and "object" in [getattr(n, "id", 0) for n in every_node(node)]:
            self.report(node, INDIRECT, "memory as objects")
        for word in node.keywords:
            if word.arg:
                self.odd(word.value, word.arg)
                if texts.names_place(word.arg):  # dict(CXX=x)
                    self.report(word.value, OUTSIDE, word.arg)
            if word.arg == "allow_pickle" and getattr(word.value, "value", True) is not False:
                self.report(node, PICKLE, "allow_pickle")
            if word.arg == "type":  # of argparse
                self.harmless.add(id(word.value))
            if word.arg in guards.ODD_KEYWORDS:
                self.report(node, INDIRECT, f"{word.arg}=")
            if word.arg == "options" and not guards.sound_options(word.value):
                self.report(node, INDIRECT, "options of torch.compile")
        if guard:
            what = guard(self, node)
            if what:
                rule = {"torch.load": PICKLE, "vars": "code-exec"}.get(name, INDIRECT)
                self.report(node, rule, what)
        given = self.code.reaching(node.func) if isinstance(node.func, ast.Name) else []
        made = called(node.func) == "type" or any(called(n) == "type" for v in given for n in every_node(v))
        starred = any(isinstance(part, ast.Starred) for part in node.args)
        if made and (node.keywords or len(node.args) > 1 or starred):
            self.report(node, INDIRECT, "type(...)(...)")
        self.parts_of_call(node, guarded=bool(guard) and not name.startswith("."))

    def plain_parts(self, node: ast.Call, name: str) -> None:
        """Notes parts of a call that would be odd elsewhere: its method, texts that cut, a usage shown."""
        shown = [*node.args] if name in ("print", "sys.exit", "ord", "isinstance", "issubclass") else []
        parser = name.endswith(("ArgumentParser", "add_parser", "add_argument_group"))
        words = ("description", "epilog", "usage") if parser else ("sep",)
        shown += [word.value for word in node.keywords if word.arg in words]
        self.harmless |= {id(part) for argument in shown for part in syntax.bare(argument)} | {id(node.func)}
        method = getattr(node.func, "attr", "")
        if method in texts.CUTTERS and name != "os.path.join":
            self.harmless |= {id(argument) for argument in [node.func.value, *node.args]}
            parts = method == "join" and node.args and getattr(node.args[0], "elts", None)
            if parts and text_of(node.func.value) == "/" and text_of(parts[0]) == "":
                self.report(node, OUTSIDE, "a path from the root")

    def parts_of_call(self, node: ast.Call, guarded: bool) -> None:
        if not guarded:
            self.visit(node.func)
        else:  # listed, and its guard has seen to it
            for parts in self.full_names(node.func):
                self.chain(node.func, parts)
            if isinstance(node.func, ast.Name):
                self.builtin(node.func, called=node.func.id not in self.aliases)
        asked = self.called_name(node) == "hasattr" and not self.times["hasattr"] and len(node.args) == 2
        shown = asked and isinstance(node.args[0], ast.Name)  # hasattr(torch, "compile")
        for child in [*node.args[shown:], *node.keywords]:
            self.visit(child)

    # ---- Texts

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, (str, bytes)) and id(node) not in self.documented:
            self.text(node, node.value if isinstance(node.value, str) else node.value.decode("latin-1"))

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if texts.first_of_path(node):
            self.report(node, OUTSIDE, "a path from the root")
        if texts.makes_text(node, self.code):
            self.report(node, INDIRECT, "a text that is not in sight")
        self.harmless.add(id(node.slice))  # table[type(x)]
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        self.harmless |= {id(part) for part in syntax.bare(node)}
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if isinstance(node.op, ast.Add):
            self.harmless.add(id(node.right))  # a + "/" is no root
        joined = text_of(texts.write_out(node, self.code))
        if texts.makes_text(node, self.code):
            self.report(node, INDIRECT, "a text that is not in sight")
        if joined is not None:
            self.text(node, joined)
        else:
            self.generic_visit(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        if (joined := text_of(texts.write_out(node, self.code))) is not None:
            self.text(node, joined)
        for index, part in enumerate(node.values):
            if not isinstance(part, ast.Constant):
                if (text_of(part.format_spec) or "").endswith("c"):
                    self.report(node, INDIRECT, "a text that is not in sight")
                self.harmless.add(id(part.value))
                self.told(part.value)
                self.visit(part)
            elif index:
                self.names_in(part, part.value)
            else:
                self.text(part, part.value)

    def text(self, node: ast.AST, text: str) -> None:
        self.names_in(node, text)
        if texts.names_place(text) or id(node) not in self.harmless and texts.begins_place(text):
            self.report(node, OUTSIDE, ascii(text))

    def names_in(self, node: ast.AST, text: str) -> None:
        file = texts.CODE_FILE.fullmatch(text)
        known = file and (file[1].endswith("customize") or self.modules.importable(file[1]))
        if file and (not file[2] or known and file[1] != self.module):
            self.report(node, INDIRECT, ascii(text))  # an import could find it
        if texts.ESCAPED.search(text):
            self.report(node, INDIRECT, ascii(text))
        for name in texts.DUNDER_PART.findall(text) if len(text) < 100 else texts.DUNDER.findall(text):
            if name not in allowed.DUNDERS | {"__file__"}:
                self.report(node, INDIRECT, ascii(name))

    def visit_Assign(self, node: ast.Assign) -> None:
        parts = list(syntax.bare(node.value))
        self.harmless |= {id(part) for part in parts if called(part) == "type"}  # self.kinds
        self.renaming |= {id(part) for part in parts}
        self.generic_visit(node)

    # ---- Scopes and patterns

    def visit_FunctionDef(self, node) -> None:
        if texts.DUNDER.fullmatch(node.name) and node.name not in allowed.DUNDER_METHODS:
            self.report(node, INDIRECT, f"def {node.name}")
        decorators = [n for n in node.decorator_list if self.called_name(ast.Call(n)) != "torch.compile"]
        hints = [node.returns, *(argument.annotation for argument in syntax.arguments(node.args))]
        given = [value for _, value in syntax.defaults(node.args)]
        for outer in [*decorators, *given, *filter(None, hints), *getattr(node, "type_params", ())]:
            self.visit(outer)
        self.function(node, node.body)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Lambda(self, node: ast.Lambda) -> None:
        for _, outer in syntax.defaults(node.args):
            self.visit(outer)
        self.function(node, [node.body])

    def function(self, node, body: list) -> None:
        for argument in syntax.arguments(node.args):
            self.bound_name(argument, argument.arg)
        self.scopes.append(syntax.locals_of(node))
        loops, self.loops = self.loops, {}
        for part in body:
            self.visit(part)
        self.scopes.pop()
        self.loops = loops

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.bound_name(node, node.name)
        if guards.NO_BASES & {".".join(parts) for base in node.bases for parts in self.full_names(base)}:
            self.report(node, INDIRECT, f"class {node.name}")
        for word in node.keywords:
            if word.arg in (None, *guards.ODD_KEYWORDS):
                self.report(node, INDIRECT, f"class {node.name}({word.arg or '**'}=")
        for part in node.body:
            if isinstance(part, (ast.Import, ast.ImportFrom)):
                self.report(part, INDIRECT, f"an import as an attribute of {node.name}")
            elif isinstance(part, (ast.Assign, ast.AnnAssign)):  # a field's name may be looked up
                for name in allowed.LEADING_OUT & set(syntax.bindings(part)):
                    self.report(part, INDIRECT, f"{node.name}.{name}")
        # A class may say `global`: what a function around it binds is not meant then.
        declared = [n.names for n in every_node(node) if isinstance(n, ast.Global)]
        self.scopes.append((set(), {name for names in declared for name in names}))
        self.generic_visit(node)
        self.scopes.pop()

    def comprehension(self, node) -> None:
        """Its variables are its own; they may run through words that are in sight."""
        before, names = dict(self.loops), set()
        iterated = [texts.write_out(part.iter, self.code) for part in node.generators]
        if all(texts.literals(one) and called(one) != "range" for one in iterated) and texts.calls_chr(node):
            self.report(node, INDIRECT, "a text that is not in sight")
        self.visit(node.generators[0].iter)
        for part in node.generators:
            stored = set(syntax.bindings(part.target))
            words = syntax.words_of(part.iter, self.words)
            fields = isinstance(part.iter, ast.Call) and self.called_name(part.iter) == "dataclasses.fields"
            for name in stored:
                self.loops.pop(name, None)
                self.loops[f"{name}.name"] = ["name"] if fields else []  # they stand in a class
            if isinstance(part.target, ast.Name) and words:
                self.loops[part.target.id] = words
            names |= stored
        self.scopes.append((names, set()))
        for part in node.generators:
            self.visit(part.target)
            for condition in [*part.ifs, *([] if part is node.generators[0] else [part.iter])]:
                self.visit(condition)
        for field in ("elt", "key", "value"):
            if getattr(node, field, None) is not None:
                self.visit(getattr(node, field))
        self.scopes.pop()
        self.loops = before

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = comprehension

    def visit_MatchClass(self, node) -> None:
        for name in node.kwd_attrs:
            self.named(node, name)
        self.generic_visit(node)

    def visit_Global(self, node) -> None:
        for name in node.names:
            self.bound_name(node, name)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name:
            self.bound_name(node, node.name)
            if node.name in BUILTIN_NAMES or node.name in self.aliases:
                self.report(node, INDIRECT, f"except … as {node.name}, which deletes it")
        self.generic_visit(node)


def listed_attribute(name: str) -> bool:
    return bool({name, name.removesuffix("_")} & allowed.ATTRIBUTES or allowed.ATTRIBUTE.fullmatch(name))


def named_rule(chain: list[str]) -> str | None:
    """The rule of what is known to be wrong by its name."""
    prefixes = (".".join(chain[:n]) for n in range(1, len(chain) + 1))
    return next((allowed.NAMED_RULES[p] for p in prefixes if p in allowed.NAMED_RULES), None)


def listed(module: str, name: str) -> bool:
    words = [*allowed.MODULES[module].split(), "__version__", "__name__"]
    return name in words or any("*" in word and fnmatchcase(name, word) for word in words)
