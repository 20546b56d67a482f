"""Finds code that may learn from validation tokens.

An expression is held out if it, or what its names stand for (origins.py), names a validation shard. Reported
is where such meets a gradient, a count, the weights or a file, and where log_probs takes a gradient. It goes
by names; the scorer's audit is the proof.
"""

import ast
import fnmatch
import re
from collections import defaultdict
from functools import lru_cache

from golf.check import syntax
from golf.check.origins import SCORER, Origins, given_by, origins

SHARD = ("val", "fineweb_val_000000.bin")  # patterns must not take it in
# Texts: a shard's name, a knob.
VAL_TEXT = re.compile(r"(.*[/_*])?(val|valid|validation)([/_*.].*)?|VAL_(DATA|FILES|TOKENS|PATH)\w*")
VAL_NAME = re.compile(
    r"(?i)(.*_)?(val|valid|validation)_(tokens?|data|data_path|files|ids|stream|batch(es)?|loader|shards?"
    r"|targets?|inputs?|set|seqs?|sequences?|x|y|docs?)"
)
LISTS = frozenset("glob iglob rglob iterdir listdir scandir".split())  # a folder that may hold both
TESTS = frozenset("startswith endswith match fullmatch search".split())
# What an artifact is made of; results are kept among them, too.
WEIGHTS = re.compile(r"(?i)(.*_)?(weights?|params?|parameters|model|emb|artifact|state_dict|blob|code)")
RESULT = re.compile(r"(?i)(.*_)?(loss|bpb|bits|nats|score|ppl|metrics?|acc|accuracy|time|seconds|best)")
# Take the gradient, or fit, of their arguments or of the object; the makers return such functions.
GRADIENTS = frozenset("backward grad vjp jvp jacrev jacfwd hessian linearize lstsq partial_fit".split())
MAKERS = frozenset("value_and_grad grad grad_and_value".split())
# Counts of validation tokens are learnt, too; those that log_probs takes are of targets already scored.
COUNTS = frozenset("bincount Counter histogram histc at index_add_ scatter_add_".split())
TABLES = COUNTS | {*"unique one_hot searchsorted index_add scatter_add index_put_ groupby".split()}
# In files, from which it may be learnt later.
KEEPS = re.compile(r"numpy\.save\w*|shutil\.(copy\w*|move)|os\.(rename|replace)|tofile|write_bytes|rename")
CHOSEN = re.compile(r"(\w+_)?val_(loss|bpb|nats|bits|ppl)")  # results, by which nothing may be chosen
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
            keeps = any(map(KEEPS.fullmatch, code.full_names(node.func) or {syntax.called(node)}))
            direct = keeps or node in teaching or names[node] & TABLES
            fills = syntax.called(node)[-1:] == "_" and in_weights(node.func)
            given = [*node.args, *(word.value for word in node.keywords), *[node.func] * bool(direct)]
            learns = direct or fills or teachers & {*code.callees(node)}
            if learns and any(is_held_out(n, code) for n in given):
                lines.add(node.lineno)
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], (ast.Lt, ast.LtE, ast.Gt, ast.GtE)):
            words = [syntax.text_of(n) or syntax.name_of(n) for n in syntax.every_node(node)]
            lines |= {node.lineno} if any(map(CHOSEN.fullmatch, words)) else set()
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
    if syntax.called(node) in LISTS:
        words = [syntax.text_of(n) or syntax.name_of(n) for n in code.made_of(node)]
        beside = "__file__" in words and not any("data" in word for word in words)  # the script
        return not (beside or any(leaves_out(pattern, code) for pattern in patterns(node, code)))
    return bool(VAL_NAME.fullmatch(syntax.name_of(node)))


def patterns(node: ast.Call, code: Origins) -> list[ast.expr]:
    """By what a call chooses among the files of a folder, or its function does: p.name.startswith("x")."""
    if "glob" in syntax.called(node):
        return node.args[:1]
    around = syntax.every_node(code.top[node]) if node in code.top else code.every
    nots = {part for n in around if isinstance(n, ast.UnaryOp) for part in syntax.every_node(n)}
    return [n.args[0] for n in around if syntax.called(n) in TESTS and n.args and n not in nots]


def leaves_out(pattern: ast.expr, code: Origins) -> bool:
    """Whether no validation shard fits, or an argument says which shards do: its texts are in sight."""
    parts = syntax.every_node(pattern)
    parts += tuple(v for n in parts if isinstance(n, (ast.Name, ast.Attribute)) for v in code.reaching(n))
    text = " ".join(re.sub(r"\[.*?\]|\\.", "", syntax.text_of(part) or "") for part in parts)
    fits = all(word in SHARD[1] for word in re.findall("[A-Za-z]+", text))
    return not fits or any(in_sight(n, code) for n in parts if is_argument(n, code))


def is_argument(node: ast.AST, code: Origins) -> bool:
    return isinstance(node, ast.Name) and code.key(node) in code.unknown


def in_sight(node: ast.expr, code: Origins, hops: int = HAND_OVERS) -> bool:
    """Whether it is written out which texts it may be."""
    values = [node]
    if is_argument(node, code):
        values = handed_over(code)[code.key(node)]
        return hops > 0 and all(in_sight(value, code, hops - 1) for value in values)
    if isinstance(node, ast.Attribute):  # of settings
        return any(re.search("train|val", syntax.text_of(n) or "") for n in code.made_of(node))
    if isinstance(node, ast.Name):
        values = [one for v in code.reaching(node) for one in getattr(getattr(v, "value", v), "elts", [v])]
    return bool(values) and all(syntax.text_of(value) is not None for value in values)


@lru_cache(maxsize=2)
def handed_over(code: Origins) -> dict[tuple, list[ast.expr]]:
    """What calls give each argument."""
    found = defaultdict(list)
    for key, value in code.given(code.every):
        found[key].append(value)
    return found


def in_weights(target: ast.expr) -> bool:
    """Whether it is a part of the weights, by its names, and no result: model.bias[0], weights["told"]."""
    if isinstance(target, ast.Name) and syntax.stored(target):
        return False
    names = [*map(syntax.name_of, syntax.every_node(target)), syntax.text_of(getattr(target, "slice", None))]
    names = [name for name in names if name]
    return any(map(WEIGHTS.fullmatch, names)) and not any(map(RESULT.fullmatch, names))
