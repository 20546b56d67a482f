"""Does validation data reach an optimizer? A look at names, calls and assignments, not a proof.

Tainted is what comes of a shard named "val", of a variable whose name says so (val_tokens), or of
the tokens that a scorer is given, and whatever is computed from it: through assignments,
attributes, arguments and returned values of the file's own functions. A gradient taken of something
tainted is reported with its line.
"""

from __future__ import annotations

import ast
import functools
import itertools
import re
from dataclasses import dataclass, field

VAL_TEXT = re.compile(r"(^|[/_*])(val|valid|validation)([/_*.]|$)")
VAL_NAME = re.compile(
    r"(.*_)?(val|valid|validation)_(tokens?|data|ids|stream|batch(es)?|loader|shards?|targets?"
    r"|inputs?|set|seqs?|sequences?|x|y|docs?)",
    re.IGNORECASE,
)
# Take the gradient, or fit, of their arguments or of the object; the makers return such functions.
GRADIENTS = set("backward grad vjp jacrev lstsq partial_fit".split())
MAKERS = set("value_and_grad grad grad_and_value".split())
MUTATORS = set("append appendleft extend insert add update setdefault put copy_".split())
# What is known of tokens without reading them teaches nothing.
FACTS = set("len shape size ndim dtype device numel isinstance type print".split())
SCORER = "log_probs"  # the method of a submission that is given the stream
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DEPTH, ROUNDS, WORK_LIMIT = 12, 4, 300_000


class Tangled(Exception):
    """The code has too many paths to be followed."""


def validation_gradients(tree: ast.Module) -> list[int]:
    """Lines where a gradient of something tainted is taken. Raises Tangled."""
    functions: dict[str, list[ast.FunctionDef]] = {}
    for node in ast.walk(tree):
        if isinstance(node, FUNCTIONS) and node.name != "__init__":
            functions.setdefault(node.name, []).append(node)
        elif isinstance(node, ast.ClassDef):  # a call of a class is one of its __init__
            inits = [f for f in node.body if isinstance(f, FUNCTIONS) and f.name == "__init__"]
            functions.setdefault(node.name, []).extend(inits)
    module = Module(functions)
    for _ in range(ROUNDS):  # until no more attributes are found to be tainted
        before = len(module.attributes)
        module.done.clear()
        module.run(tree.body, set(), 0)
        for function in itertools.chain(*functions.values()):
            scored = [arg.arg for arg in function.args.args[1:]] if function.name == SCORER else []
            module.call(function, frozenset(scored), 0)
        if len(module.attributes) == before:
            break
    return sorted(module.lines)


@dataclass
class Module:
    """What is known of a file so far."""

    functions: dict[str, list[ast.FunctionDef]]
    attributes: set[str] = field(default_factory=set)  # x of self.x = <tainted>
    lines: set[int] = field(default_factory=set)  # found
    done: dict = field(default_factory=dict)  # (function, tainted parameters) -> returns taint
    work: int = 0  # expressions looked at

    def call(self, function: ast.FunctionDef, tainted: frozenset[str], depth: int) -> bool:
        """Whether the function returns something tainted if these parameters are."""
        key = (function, tainted)
        if key not in self.done and depth < DEPTH:
            self.done[key] = False  # what a recursion sees
            self.done[key] = self.run(function.body, set(tainted), depth)
        return self.done.get(key, False)

    def run(self, body: list[ast.stmt], names: set[str], depth: int) -> bool:
        """Goes through statements twice (loops feed their heads); whether a return is tainted."""
        scope = Scope(self, names, depth)
        for _ in range(2):
            for statement in body:
                scope.visit(statement)
        return scope.returns


class Scope(ast.NodeVisitor):
    """The statements of one function."""

    def __init__(self, module: Module, names: set[str], depth: int):
        self.module, self.names, self.depth, self.returns = module, names, depth, False
        self.gradient_functions: set[str] = set()

    def visit_FunctionDef(self, node) -> None:
        """Nested functions see this scope's names."""
        if self.depth < DEPTH:
            inner = Scope(self.module, set(self.names), self.depth + 1)
            for statement in node.body:
                inner.visit(statement)
            if inner.returns:
                self.names.add(node.name)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node) -> None:
        pass  # its methods are gone through as functions

    def visit_Return(self, node) -> None:
        self.returns |= node.value is not None and self.tainted(node.value)

    visit_Yield = visit_YieldFrom = visit_Return

    def visit_Assign(self, node) -> None:
        for target in node.targets:
            self.assign(target, node.value)

    def visit_AnnAssign(self, node) -> None:
        if node.value is not None:
            self.assign(node.target, node.value)

    def visit_AugAssign(self, node) -> None:
        if self.tainted(node.value):
            self.taint(node.target)

    def visit_NamedExpr(self, node) -> None:
        self.assign(node.target, node.value)

    def visit_For(self, node) -> None:
        self.iterate(node.target, node.iter)
        for statement in [*node.body, *node.orelse]:
            self.visit(statement)

    visit_AsyncFor = visit_For

    def visit_withitem(self, node) -> None:
        if self.tainted(node.context_expr) and node.optional_vars is not None:
            self.taint(node.optional_vars)

    def visit_Call(self, node) -> None:
        self.tainted(node)

    def assign(self, target: ast.expr, value: ast.expr) -> None:
        pairs = isinstance(target, (ast.Tuple, ast.List)) and isinstance(
            value, (ast.Tuple, ast.List)
        )
        if pairs and len(target.elts) == len(value.elts):
            for one, part in zip(target.elts, value.elts):
                self.assign(one, part)
            return
        if isinstance(value, ast.Call) and called(value) in MAKERS and isinstance(target, ast.Name):
            self.gradient_functions.add(target.id)
        if self.tainted(value):
            self.taint(target)

    def iterate(self, target: ast.expr, values: ast.expr) -> bool:
        """`for target in values`; whether the values are tainted."""
        found = self.tainted(values)
        if isinstance(values, (ast.Tuple, ast.List)):
            for value in values.elts:
                self.assign(target, value)
        elif found:
            self.taint(target)
        return found

    def taint(self, target: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self.names.add(target.id)
        elif isinstance(target, ast.Attribute):
            self.module.attributes.add(target.attr)
        elif isinstance(target, (ast.Tuple, ast.List)):
            for one in target.elts:
                self.taint(one)
        elif isinstance(target, (ast.Subscript, ast.Starred)):
            self.taint(target.value)

    def tainted(self, node: ast.AST) -> bool:
        """Whether the expression is; calls within it are followed."""
        self.module.work += 1
        if self.module.work > WORK_LIMIT:
            raise Tangled
        if isinstance(node, ast.Name):
            return node.id in self.names or is_val_name(node.id)
        if isinstance(node, ast.Attribute):
            own = node.attr in self.module.attributes or is_val_name(node.attr)
            return (self.tainted(node.value) | own) and node.attr not in FACTS
        if isinstance(node, ast.Constant):
            return isinstance(node.value, str) and len(node.value) < 80 and is_val(node.value)
        if isinstance(node, ast.Call):
            return self.tainted_call(node)
        if isinstance(node, ast.Compare):
            self.each(node)
            return False  # a truth value teaches nothing here
        if isinstance(node, ast.comprehension):
            return self.iterate(node.target, node.iter)
        if isinstance(node, (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)):
            return any([self.tainted(part) for part in node.generators]) | self.each(node)
        if isinstance(node, ast.NamedExpr):
            self.assign(node.target, node.value)
        if isinstance(node, ast.Lambda):
            return self.tainted(node.body)
        return self.each(node)

    def each(self, node: ast.AST) -> bool:
        return any([self.tainted(child) for child in ast.iter_child_nodes(node)])

    def tainted_call(self, node: ast.Call) -> bool:
        name, func = called(node), node.func
        arguments = [self.tainted(arg) for arg in node.args]
        keywords = {k.arg: self.tainted(k.value) for k in node.keywords}
        receiver = isinstance(func, ast.Attribute) and self.tainted(func.value)
        if isinstance(func, ast.Call):
            receiver = self.tainted(func)
        given = any(arguments) or any(keywords.values())
        maker = isinstance(func, ast.Call) and called(func) in MAKERS
        if (
            name in GRADIENTS
            and (receiver or given)
            or given
            and (maker or name in self.gradient_functions)
        ):
            self.module.lines.add(node.lineno)
        if name in MUTATORS and given and isinstance(func, ast.Attribute):
            self.taint(func.value)
        returned = False
        for function in self.module.functions.get(name, []):
            parameters = bind(function, arguments, keywords, receiver)
            returned |= self.module.call(function, parameters, self.depth + 1)
        return (returned or receiver or given) and name not in FACTS


def called(node: ast.Call) -> str:
    """The last name of what is called."""
    func = node.func
    return (
        func.attr
        if isinstance(func, ast.Attribute)
        else func.id
        if isinstance(func, ast.Name)
        else ""
    )


@functools.lru_cache(10_000)  # the same few names are looked at again and again
def is_val_name(name: str) -> bool:
    return bool(VAL_NAME.fullmatch(name))


def is_val(text: str) -> bool:
    """Whether a text names the validation split: 'val', 'fineweb_val_*.bin', 'data/val/'."""
    return bool(VAL_TEXT.search(text)) and not re.search(r"\s", text)


def bind(
    function: ast.FunctionDef, arguments: list[bool], keywords: dict, receiver: bool
) -> frozenset[str]:
    """Names of the parameters that get something tainted."""
    names = [arg.arg for arg in [*function.args.posonlyargs, *function.args.args]]
    tainted = {name for name, taint in keywords.items() if taint and name}
    if names[:1] in (["self"], ["cls"]):
        tainted |= {names[0]} if receiver else set()
        names = names[1:]
    tainted |= {name for name, taint in zip(names, arguments) if taint}
    if function.args.vararg and any(arguments[len(names) :]):
        tainted.add(function.args.vararg.arg)
    return frozenset(tainted)
