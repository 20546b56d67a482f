"""Finds code that may learn from validation tokens.

An expression is held out if it, or what its names stand for (origins.py), names a validation shard. Reported
is where such meets a gradient, a count, the weights or a file, and where log_probs takes a gradient. It goes
by names; the scorer's audit is the proof.
"""

import ast
import fnmatch
import re

from golf.check import syntax
from golf.check.origins import SCORER, Origins, given_by, origins

SHARD = ("val", "fineweb_val_000000.bin")  # patterns must not take it in
# Texts: a shard's name, a knob.
VAL_TEXT = re.compile(r"(.*[/_*])?(val|valid|validation)([/_*.].*)?|VAL_(DATA|FILES|TOKENS|PATH)\w*")
VAL_NAME = re.compile(
    r"(?i)(.*_)?(val|valid|validation)_(tokens?|data|data_path|files|ids|stream|batch(es)?|loader|shards?"
    r"|targets?|inputs?|set|seqs?|sequences?|x|y|docs?)"
)
DATA = re.compile(r"(?i)(.*_)?data(_(path|dir|folder|root))?")  # a folder that holds validation shards, too
# What an artifact is made of; results are kept among them, too.
WEIGHTS = re.compile(r"(?i)(.*_)?(weights?|params?|parameters|model|emb|artifact|state_dict|blob|code)")
RESULT = re.compile(r"(?i)(.*_)?(loss|bpb|bits|nats|score|ppl|metrics?|acc|accuracy|time|seconds|best)")
# Take the gradient, or fit, of their arguments or of the object; the makers return such functions.
GRADIENTS = frozenset("backward grad vjp jvp jacrev jacfwd hessian linearize lstsq partial_fit".split())
MAKERS = frozenset("value_and_grad grad grad_and_value".split())
# Counts of validation tokens are learnt, too; those that log_probs takes are of targets already scored.
COUNTS = frozenset("bincount Counter histogram histc at index_add_ scatter_add_".split())
TABLES = COUNTS | {*"unique one_hot searchsorted index_add scatter_add index_put_ groupby".split()}
KEEPS = re.compile(r"numpy\.save\w*")  # in files, from which it may be learnt later
HAND_OVERS = 5  # from function to function


def validation_gradients(tree: ast.Module) -> list[int]:
    """Lines where what validation shards hold meets a gradient, a count or the weights, and gradients that
    log_probs reaches. What takes gradients or counts teaches, and so does what calls that."""
    code = origins(tree)
    functions = [n for n in code.every if isinstance(n, syntax.FUNCTIONS)]
    calls = {f: [n for n in syntax.every_node(f) if isinstance(n, ast.Call)] for f in functions}
    runs = {f: {one for n in calls[f] for one in code.callees(n)} for f in functions}
    names = {n: code.names_called(n) for n in code.every if isinstance(n, ast.Call)}
    teaching = {n for n in names if teaches(n, names[n], code)}
    teachers = {f for f in functions if teaching & {*calls[f]}}
    scoring = {f for f in functions if f.name == SCORER}
    for _ in range(HAND_OVERS):
        teachers |= {f for f in functions if runs[f] & teachers}
        scoring |= {one for f in scoring for one in runs.get(f, ())}
    teachers |= {f for f in functions if any(names[n] & COUNTS for n in calls[f])} - scoring
    lines = {n.lineno for f in functions if f in scoring for n in calls[f] if n in teaching}
    for node in code.every:
        if isinstance(node, ast.Call):
            keeps = any(map(KEEPS.fullmatch, code.full_names(node.func)))
            direct = keeps or node in teaching or names[node] & TABLES
            fills = syntax.called(node)[-1:] == "_" and in_weights(node.func)
            given = [*node.args, *(word.value for word in node.keywords), *[node.func] * bool(direct)]
            learns = direct or fills or teachers & {*code.callees(node)}
            if learns and any(is_held_out(n, code) for n in given):
                lines.add(node.lineno)
        for target, value in given_by(node):  # counts[token] += 1, but not sums["val"] += x
            at = getattr(target, "slice", ast.Constant(0))
            counts = not syntax.constants(at) and is_held_out(at, code)
            if counts or target and in_weights(target) and is_held_out(value, code):
                lines.add(target.lineno)
    return sorted(lines)


def teaches(node: ast.Call, names: set[str], code: Origins) -> bool:
    """Whether a call takes a gradient, by whatever name, or calls what value_and_grad() made."""
    made = [node.func, *code.reaching(node.func)] if syntax.mention(node.func) else [node.func]
    return bool(names & GRADIENTS) or any(syntax.called(one) in MAKERS for one in made)


def is_held_out(node: ast.AST, code: Origins) -> bool:
    """Whether an expression, or what its names stand for, says that it comes from a validation shard."""
    return any(says_validation(part, code) for part in code.made_of(node))


def says_validation(node: ast.AST, code: Origins) -> bool:
    text = syntax.text_of(node) or ""
    if len(text) < 80 and len(text.split()) == 1:
        return bool(VAL_TEXT.fullmatch(text) or fnmatch.filter(SHARD, text.split("/")[-1]))
    if syntax.called(node) in ("iterdir", "listdir", "scandir"):  # of a folder that holds both
        names = [*map(syntax.name_of, syntax.every_node(node))]
        around = syntax.every_node(code.top[node]) if node in code.top else code.every
        texts = "".join(syntax.text_of(n) or "" for n in around)
        return any(map(DATA.fullmatch, names)) and "train" not in texts  # it chooses none
    return bool(VAL_NAME.fullmatch(syntax.name_of(node)))


def in_weights(target: ast.expr) -> bool:
    """Whether it is a part of the weights, by its names, and no result: model.bias[0], weights["told"]."""
    if isinstance(target, ast.Name) and syntax.stored(target):
        return False
    names = [*map(syntax.name_of, syntax.every_node(target)), syntax.text_of(getattr(target, "slice", None))]
    names = [name for name in names if name]
    return any(map(WEIGHTS.fullmatch, names)) and not any(map(RESULT.fullmatch, names))
