"""Finds code that may learn from validation tokens. It goes by names; the scorer's audit is the proof."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator

from golf.check.syntax import FUNCTIONS, assignments, called, every_node, name_of, outside_functions

SCORER = "log_probs"  # the method of a submission that is given the stream
VAL_TEXT = re.compile(r"(.*[/_*])?(val|valid|validation)([/_*.].*)?")
VAL_NAME = re.compile(
    r"(.*_)?(val|valid|validation)_(tokens?|data|ids|stream|batch(es)?|loader|shards?|targets?"
    r"|inputs?|set|seqs?|sequences?|x|y|docs?)",
    re.IGNORECASE,
)
# Take the gradient, or fit, of their arguments or of the object; the makers return such functions.
GRADIENTS = frozenset("backward grad vjp jacrev lstsq partial_fit".split())
MAKERS = frozenset("value_and_grad grad grad_and_value".split())
HAND_OVERS = 5  # from function to function
LOOP, CALL, ASSIGN, RETURN = range(4)  # in the order in which a line does them


def validation_gradients(tree: ast.Module) -> list[int]:
    """Lines where names that say validation meet a gradient, and gradients that log_probs reaches.

    Followed are assignments within a function, attributes, and functions that return such a thing;
    what takes gradients teaches, and so does what calls it, by name.
    """
    functions = [n for n in every_node(tree) if isinstance(n, FUNCTIONS)]
    calls = {f: [n for n in every_node(f) if isinstance(n, ast.Call)] for f in functions}
    makers = {t.id for t, v in assignments(tree) if called(v) in MAKERS}
    teachers = {f.name for f in functions if any(teaches(n, makers) for n in calls[f])}
    scoring = {SCORER}
    for _ in range(HAND_OVERS):
        teachers |= {f.name for f in functions if any(called(n) in teachers for n in calls[f])}
        scoring |= {called(n) for f in functions if f.name in scoring for n in calls[f]}
    shared: set[str] = set()  # attributes, and functions that return, what a validation shard holds
    scopes = [
        ("", in_order(outside_functions(tree))),
        *((f.name, in_order(every_node(f))) for f in functions),
    ]
    for _ in range(HAND_OVERS):
        lines = {line for name, steps in scopes for line in follow(steps, name, shared, teachers, makers)}
    learns = [n for f in functions if f.name in scoring for n in calls[f] if teaches(n, makers)]
    return sorted(lines | {n.lineno for n in learns})


def in_order(nodes: Iterable[ast.AST]) -> list[tuple]:
    """The steps of these nodes as they are done."""
    return sorted((step for node in nodes for step in steps_of(node)), key=lambda step: step[:2])


def follow(steps: list[tuple], function: str, shared: set[str], teachers, makers) -> set[int]:
    """Lines of a function where what validation shards hold meets a gradient; adds to `shared`."""
    held: set[str] = set()  # names, from the assignment of such a value to that of another

    def tainted(node: ast.AST) -> bool:
        for part in every_node(node):
            if isinstance(part, ast.Constant) and isinstance(part.value, str) and len(part.value) < 80:
                if VAL_TEXT.fullmatch(part.value) and len(part.value.split()) == 1:
                    return True
            elif name := name_of(part):
                if name in held or name in shared or VAL_NAME.fullmatch(name):
                    return True
        return False

    lines: set[int] = set()
    for _, order, target, node in steps * 2:  # twice: a loop comes back
        if order == CALL:
            direct = teaches(node, makers)
            given = [*node.args, *(k.value for k in node.keywords)] + [node.func] * direct
            if (direct or called(node) in teachers) and any(map(tainted, given)):
                lines.add(node.lineno)
        elif order == RETURN:
            shared |= {function} - teachers if tainted(node) else set()
        else:
            names = {name_of(part) for part in getattr(target, "elts", [target])}
            held = held | names if tainted(node) else held - names
            shared |= {target.attr} if tainted(node) and isinstance(target, ast.Attribute) else set()
    return lines


def teaches(node: ast.Call, makers: set[str]) -> bool:
    return called(node) in GRADIENTS | makers or called(node.func) in MAKERS


def steps_of(node: ast.AST) -> Iterator[tuple[int, int, ast.expr | None, ast.AST]]:
    """(line, order in the line, target or None, value) of what assigns, calls and returns."""
    if isinstance(node, ast.Assign):
        for target in node.targets:
            sides = [getattr(side, "elts", [side]) for side in (target, node.value)]
            pairs = zip(*sides) if len(sides[0]) == len(sides[1]) else [(target, node.value)]  # a, b = x, y
            yield from ((node.end_lineno, ASSIGN, one, value) for one, value in pairs)
    elif isinstance(node, (ast.For, ast.comprehension)):
        yield node.target.lineno, LOOP, node.target, node.iter
    elif called(node) in ("append", "extend") and isinstance(node.func, ast.Attribute):
        for argument in node.args:
            yield node.lineno, ASSIGN, node.func.value, ast.List([node.func.value, argument])
    elif isinstance(node, ast.Call):
        yield node.lineno, CALL, None, node
    elif isinstance(node, ast.Return) and node.value:
        yield node.end_lineno, RETURN, None, node.value
