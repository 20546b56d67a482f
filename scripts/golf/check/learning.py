"""Finds code that may learn from validation tokens. It goes by names; the scorer's audit is the proof."""

import ast
import fnmatch
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from golf.check import syntax

SCORER = "log_probs"  # the method of a submission that is given the stream
SHARD = ("val", "fineweb_val_000000.bin")  # patterns must not take it in
# Texts: a shard's name, a knob.
VAL_TEXT = re.compile(r"(.*[/_*])?(val|valid|validation)([/_*.].*)?|VAL_(DATA|FILES|TOKENS|PATH)\w*")
VAL_NAME = re.compile(
    r"(?i)(.*_)?(val|valid|validation)_(tokens?|data|data_path|files|ids|stream|batch(es)?|loader|shards?"
    r"|targets?|inputs?|set|seqs?|sequences?|x|y|docs?)"
)
DATA = re.compile(r"(?i)(.*_)?data(_(path|dir|folder|root))?")  # a folder that holds validation shards, too
# Names of what an artifact is made of, and of results, which may be kept beside it.
WEIGHTS = re.compile(r"(?i)(.*_)?(weights?|params?|parameters|model|emb|artifact|state_dict)")
RESULT = re.compile(r"(?i)(.*_)?(loss|bpb|bits|nats|score|ppl|metrics?|acc|accuracy|time|seconds|best)")
# Take the gradient, or fit, of their arguments or of the object; the makers return such functions.
GRADIENTS = frozenset("backward grad vjp jvp jacrev jacfwd hessian linearize lstsq partial_fit".split())
MAKERS = frozenset("value_and_grad grad grad_and_value".split())
# Counts of validation tokens are learnt, too; those that log_probs takes are of targets already scored.
COUNTS = frozenset("bincount Counter histogram histc at index_add_ scatter_add_".split())
TABLES = COUNTS | {*"unique one_hot searchsorted index_add scatter_add index_put_ groupby".split()}
FILLERS = frozenset("append appendleft extend insert add update put copy_ setdefault send".split())
HAND_OVERS = 5  # from function to function
LOOP, CALL, ASSIGN, RETURN = range(4)  # in the order in which a line does them


def validation_gradients(tree: ast.Module) -> list[int]:
    """Lines where names that say validation meet a gradient or a count, and gradients that log_probs reaches.

    Followed are assignments within a function, attributes, names of the module, and functions that return
    such a thing; what takes gradients teaches, and so does what calls it, by name.
    """
    functions = [n for n in syntax.every_node(tree) if isinstance(n, syntax.FUNCTIONS)]
    calls = {f: [n for n in syntax.every_node(f) if isinstance(n, ast.Call)] for f in functions}
    makers = {t.id for t, v in syntax.assignments(tree) if syntax.called(v) in MAKERS}
    given = ((t.id, getattr(syntax.handed_on(v), "func", v)) for t, v in syntax.assignments(tree))
    makers |= {n for n, f in given if syntax.name_of(f) in GRADIENTS | COUNTS and syntax.chain_of(f)[1]}
    makers |= {n for n, full in syntax.imports(tree, "") if full.split(".")[-1] in (GRADIENTS | COUNTS) - {n}}
    teachers = {f.name for f in functions if any(teaches(n, makers) for n in calls[f])}
    scoring = {SCORER}
    for _ in range(HAND_OVERS):
        teachers |= {f.name for f in functions if any(syntax.called(n) in teachers for n in calls[f])}
        scoring |= {syntax.called(n) for f in functions if f.name in scoring for n in calls[f]}
    counters = {f.name for f in functions if any(syntax.called(n) in COUNTS for n in calls[f])}
    teachers |= counters - scoring
    shared: set[str] = set()  # attributes, the module's names, functions that return it: of val shards
    scopes = [("", set(), in_order(syntax.outside_functions(tree)))]
    scopes += [(f.name, syntax.locals_of(f)[0], in_order(syntax.every_node(f))) for f in functions]
    for _ in range(HAND_OVERS):
        lines = {line for scope in scopes for line in follow(*scope, shared, teachers, makers)}
    learns = [n for f in functions if f.name in scoring for n in calls[f] if teaches(n, makers)]
    return sorted(lines | {n.lineno for n in learns})


def in_order(nodes: Iterable[ast.AST]) -> list[tuple]:
    """The steps of these nodes in the order of execution."""
    return sorted((step for node in nodes for step in steps_of(node)), key=lambda step: step[:2])


@lru_cache(maxsize=1 << 14)
def told(node: ast.AST) -> tuple[bool, bool, set[str], set[str]]:
    """Of an expression: whether it says validation, whether it takes all files of data; names, attributes."""
    parts = syntax.every_node(node)
    texts = filter(None, map(syntax.text_of, parts))
    words = [text for text in texts if len(text) < 80 and len(text.split()) == 1]
    names = {part.id for part in parts if isinstance(part, ast.Name)}
    attributes = {part.attr for part in parts if isinstance(part, ast.Attribute)}
    every = names | attributes
    certain = any(VAL_TEXT.fullmatch(w) or fnmatch.filter(SHARD, w.split("/")[-1]) for w in words)
    whole = bool({"iterdir", "listdir", "scandir"} & every) and any(map(DATA.fullmatch, every))
    return certain or any(map(VAL_NAME.fullmatch, every)), whole, names, attributes


def follow(function: str, variables: set[str], steps: list, shared: set[str], teachers, makers) -> set[int]:
    """Lines of a function where what validation shards hold meets a gradient; adds to `shared`.

    variables: its own, which are nobody's attributes. function: its name, '' for the module.
    """
    held: set[str] = set()  # names, from the assignment of such a value to that of another
    within = [part for *_, node in steps for part in syntax.every_node(node)]

    def tainted(node: ast.AST) -> bool:
        certain, whole, names, attributes = told(node)
        if certain or whole and "train" not in "".join(filter(None, map(syntax.text_of, within))):
            return True
        return bool((names | attributes) & held or (names - variables | attributes) & shared)

    lines: set[int] = set()
    for _, order, target, node in steps * 2:  # twice: a loop comes back
        if order == CALL:
            direct = teaches(node, makers) or syntax.called(node) in TABLES
            given = [*node.args, *(k.value for k in node.keywords)] + [node.func] * direct
            fills = syntax.called(node)[-1:] == "_" and in_weights(node.func)
            if (direct or fills or syntax.called(node) in teachers) and any(map(tainted, given)):
                lines.add(node.lineno)
        elif order == RETURN:
            shared |= {function} - teachers if tainted(node) else set()
        else:
            at = getattr(target, "slice", ast.Constant(0))
            counts = tainted(at) and not syntax.constants(at)  # counts[token] += 1, but not sums["val"] += x
            if counts or tainted(node) and in_weights(target):
                lines.add(target.lineno)
            names = {syntax.name_of(inner(part)) for part in getattr(target, "elts", [target])}
            held = held | names if tainted(node) else held - names
            read_here = not function and not syntax.constants(node)  # not a list of knobs' names
            if tainted(node) and (isinstance(target, ast.Attribute) or read_here):
                shared |= {syntax.name_of(inner(target))} - {""}
    return lines


def in_weights(target: ast.expr) -> bool:
    """Whether it is a part of the weights, by its names, and no result: model.bias[0], weights["told"]."""
    names = [*map(syntax.name_of, syntax.every_node(target)), syntax.text_of(getattr(target, "slice", None))]
    names = [name for name in names if name and not (isinstance(target, ast.Name) and syntax.stored(target))]
    return any(map(WEIGHTS.fullmatch, names)) and not any(map(RESULT.fullmatch, names))


def teaches(node: ast.Call, makers: set[str]) -> bool:
    return syntax.called(node) in GRADIENTS | makers or syntax.called(node.func) in MAKERS


def inner(target: ast.expr) -> ast.expr:
    """The container: x in x[i] and in *x."""
    while isinstance(target, (ast.Subscript, ast.Starred)):
        target = target.value
    return target


def steps_of(node: ast.AST) -> Iterator[tuple[int, int, ast.expr | None, ast.AST]]:
    """(line, order in the line, target or None, value) of what assigns, calls and returns."""
    if isinstance(node, ast.Assign):
        for target in node.targets:
            sides = [getattr(side, "elts", [side]) for side in (target, node.value)]
            pairs = zip(*sides) if len(sides[0]) == len(sides[1]) else [(target, node.value)]  # a, b = x, y
            yield from ((node.end_lineno, ASSIGN, one, added(one, value)) for one, value in pairs)
    elif isinstance(node, (ast.AnnAssign, ast.AugAssign, ast.NamedExpr)) and node.value:
        kept = ast.List([node.target, node.value]) if isinstance(node, ast.AugAssign) else node.value
        yield node.end_lineno, ASSIGN, node.target, kept
    elif isinstance(node, ast.withitem) and node.optional_vars:
        yield node.optional_vars.lineno, LOOP, node.optional_vars, node.context_expr
    elif isinstance(node, (ast.For, ast.comprehension)):
        yield node.target.lineno, LOOP, node.target, node.iter
    elif isinstance(node, ast.Call):
        if syntax.called(node) in FILLERS and isinstance(node.func, ast.Attribute):
            given = [*node.args, *(word.value for word in node.keywords)]
            yield node.lineno, ASSIGN, node.func.value, ast.List([node.func.value, *given])
        yield node.lineno, CALL, None, node
    elif isinstance(node, (ast.Return, ast.Yield, ast.YieldFrom)) and node.value:
        yield node.end_lineno, RETURN, None, node.value


def added(target: ast.expr, value: ast.expr) -> ast.expr:
    """What a target holds after `target = value`: x[i] = value leaves the rest of x as it was."""
    return ast.List([inner(target), value]) if isinstance(target, ast.Subscript) else value
