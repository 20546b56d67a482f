"""train_gpt.py and train_gpt_mlx.py: the same sections and names in the same order, and identical
text wherever the framework does not matter."""

import ast
import re

import pytest
import trainer_kit as kit

TORCH, MLX = (kit.REPO / name for name in ("train_gpt.py", "train_gpt_mlx.py"))

# What either has alone, and what says the same in the words of another framework; all else is identical.
TORCH_ALONE = {
    "CPU_BLOCK", "rope_tables", "attend_by_products", "Optimizers.state",
    "attempt", "try_graph",
}  # fmt: skip
MLX_ALONE = {
    "Knobs.mlx_max_microbatch_tokens", "Knobs.grad_accum_steps", "Knobs.mlx_eager_eval",
    "Knobs.logit_chunk_tokens", "QUERY_BLOCK", "project_vjp", "Linear.__init__", "Linear.forward",
    "Optimizers.reset", "Run.build", "REMEDIES",
}  # fmt: skip
TRANSLATED = {
    "Knobs.device", "Knobs.compile", "rotate", "rms_norm", "project", "Linear", "attend",
    "Attention.__init__", "Attention.forward", "MLP.__init__", "MLP.forward", "Block.__init__",
    "Block.forward", "GPT.__init__", "GPT.features", "GPT.head", "GPT.logits", "GPT.nats", "GPT.loss",
    "newton_schulz", "Optimizers", "Optimizers.__init__",
    "Optimizers.column_steps", "Optimizers.schedule", "Optimizers.apply",
    "TrainData.__init__", "TrainData.batch", "Scorer.__init__", "Scorer.log_probs",
    "load_scorer", "score_stream", "CHECKPOINT", "save_checkpoint", "read_checkpoint",
    "pick_device", "pick_dtype", "Run.__init__", "Run.pick_micro_batch", "Run.batch",
    "Run.update", "describe", "warm_up", "train", "export", "run_all", "main",
}  # fmt: skip


def definitions(path) -> dict[str, str]:
    """Name -> source of each top-level function, assignment and knob, and of each method and other
    statement of a class; `Class` alone is its line and docstring. What PyTorch calls forward is
    __call__ in MLX."""
    source, found = path.read_text(), {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            start = [node.lineno, *(d.lineno for d in node.decorator_list)]
            body = [n for n in node.body if not is_docstring(n)]
            end = first_line(body[0]) - 1 if body else node.end_lineno
            head = source.splitlines()[min(start) - 1 : end]
            found[node.name] = "\n".join(head).strip()
            found |= {f"{node.name}.{name}": text for name, text in named(body, source)}
        else:
            found |= dict(named([node], source))
    return found


def is_docstring(node) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def first_line(node) -> int:
    return min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])


def named(nodes, source):
    for node in nodes:
        lines = source.splitlines()[first_line(node) - 1 : node.end_lineno]
        if isinstance(node, ast.FunctionDef):
            yield node.name.replace("__call__", "forward"), "\n".join(lines)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            target = ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)
            yield target, "\n".join(lines)


@pytest.fixture(scope="module")
def twins():
    return definitions(TORCH), definitions(MLX)


def test_sections_have_the_same_headings_in_the_same_order():
    headings = [re.findall(r"^# ---- ([^.:,]+)", path.read_text(), re.M) for path in (TORCH, MLX)]
    assert headings[0] == headings[1] and len(headings[0]) >= 8


def test_names_are_the_same_in_the_same_order(twins):
    torch_names, mlx_names = ([n for n in twin if n not in TORCH_ALONE | MLX_ALONE] for twin in twins)
    assert torch_names == mlx_names


def test_what_one_has_alone_is_there(twins):
    assert TORCH_ALONE == set(twins[0]) - set(twins[1]) and MLX_ALONE == set(twins[1]) - set(twins[0])


def test_text_without_a_framework_is_identical(twins):
    differing = {name for name in twins[0].keys() & twins[1].keys() if twins[0][name] != twins[1][name]}
    assert differing - TRANSLATED == set()


def test_nothing_is_called_translated_that_is_identical(twins):
    assert {name for name in TRANSLATED if twins[0].get(name) == twins[1].get(name)} == set()


def test_requirements_differ_in_the_framework_alone():
    lines = [
        {line for line in (kit.REPO / name).read_text().splitlines() if line and line[0] != "#"}
        for name in ("requirements-cuda.txt", "requirements-mlx.txt")
    ]
    assert {re.split(r"\W", line)[0] for line in lines[0] ^ lines[1]} == {"torch", "mlx"}
