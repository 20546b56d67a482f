"""Rules about code, read as a syntax tree and never run: what reaches out, hides or reads ahead.

They raise flags for a reviewer. Code that wants to hide from them can; the scorer's sandbox and the
reviewer are what stops it.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from pathlib import PurePosixPath

from . import check_flow
from .case import FAIL, HUMAN, Case, quoted

SOURCE_LIMIT, FILES_LIMIT = 1 << 20, 20
OPAQUE_RUN = 500  # characters without a space in one literal: data or packed code, not text
OPAQUE_NUMBERS = 300  # numbers in one literal
LINES_SHOWN = 8

# Rule -> its level, what it means, and the names that raise it: a module stands for all in it.
NAMES = {
    "code-network": (HUMAN, "reaches the network", """
        socket ssl http urllib urllib3 requests httpx aiohttp ftplib smtplib telnetlib xmlrpc
        websocket websockets paramiko boto3 huggingface_hub datasets wandb gdown kagglehub
        torch.hub"""),
    "code-process": (HUMAN, "starts processes", """
        subprocess multiprocessing pty os.system os.popen os.fork os.forkpty os.posix_spawn
        os.posix_spawnp os.execl os.execle os.execlp os.execlpe os.execv os.execve os.execvp
        os.execvpe os.spawnl os.spawnle os.spawnlp os.spawnlpe os.spawnv os.spawnve
        os.spawnvp os.spawnvpe
        asyncio.create_subprocess_exec asyncio.create_subprocess_shell torch.multiprocessing
        concurrent.futures.ProcessPoolExecutor"""),
    "code-exec": (HUMAN, "runs code that is not in sight", """
        exec eval compile __import__ globals __builtins__ builtins importlib runpy code codeop imp
        zipimport types.FunctionType types.CodeType"""),
    "code-native": (HUMAN, "runs native code", """
        ctypes cffi _ctypes torch.utils.cpp_extension torch.ops.load_library
        torch.classes.load_library cupy.RawKernel cupy.RawModule pycuda numpy.ctypeslib
        mlx.core.fast.metal_kernel"""),
    "code-pickle": (FAIL, "uses pickles, which run code when read; use the container", """
        pickle _pickle cPickle dill cloudpickle joblib shelve marshal pandas.read_pickle"""),
}  # fmt: skip
BUILTINS = {"exec", "eval", "compile", "__import__", "globals", "__builtins__"}
FLAGGED = {name: rule for rule, (_, _, names) in NAMES.items() for name in names.split()}


def code(case: Case) -> None:
    """Every Python file: it compiles, and what in it a reviewer must see."""
    paths = [path for path in case.files if path.endswith(".py")]
    if len(paths) > FILES_LIMIT:
        text = (
            f"{len(paths)} Python files; put it into {FILES_LIMIT} at most, which people can read"
        )
        case.fail("code-syntax", text)
    for path in paths[:FILES_LIMIT]:
        tree = parse(case, path)
        if tree is not None:
            check_tree(case, path, tree)


def parse(case: Case, path: str) -> ast.Module | None:
    """The syntax tree, None with a finding where there is none."""
    if case.files[path] > SOURCE_LIMIT:
        case.fail(
            "code-syntax", f"{quoted(path)} has {case.files[path]:,} bytes, too long to be read"
        )
        return None
    source = case.read(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(source, path, "exec", dont_inherit=True)
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = getattr(error, "msg", None) or error or type(error).__name__
        where = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        case.fail("code-syntax", f"{quoted(path)}{where}: {reason}; ship the script that ran")
        return None


def check_tree(case: Case, path: str, tree: ast.Module) -> None:
    raised: dict[str, dict[int, str]] = {}
    for line, name in flagged_names(tree):
        raised.setdefault(FLAGGED[name], {}).setdefault(line, name)
    for rule, lines in raised.items():
        level, meaning, _ = NAMES[rule]
        case.add(level, rule, f"{quoted(path)} {meaning}: {show(lines)}")
    loads = {line: "torch.load" for line in unsafe_loads(tree)}
    if loads:
        case.fail("code-pickle", f"{quoted(path)} unpickles: {show(loads)}; set weights_only=True")
    opaque = {node.lineno: "literal" for node in ast.walk(tree) if is_opaque(node)}
    if opaque:
        case.human("code-opaque", f"{quoted(path)} holds data or packed code: {show(opaque)}")
    teaching(case, path, tree)
    uncounted(case, path, tree, "code-exec" in raised)


def teaching(case: Case, path: str, tree: ast.Module) -> None:
    try:
        lines = {line: "gradient" for line in check_flow.validation_gradients(tree)}
    except (check_flow.Tangled, RecursionError):
        case.human(
            "code-val", f"{quoted(path)} is too tangled to follow validation tokens through it"
        )
        return
    if lines:
        text = "validation tokens may reach an optimizer; only targets already scored may teach"
        case.human("code-val", f"{quoted(path)}: {text}: {show(lines)}")


def show(lines: dict[int, str]) -> str:
    """'line 3 (socket), line 9 (urllib.request)': the first LINES_SHOWN."""
    text = ", ".join(f"line {line} ({name})" for line, name in sorted(lines.items())[:LINES_SHOWN])
    return text + f" and {len(lines) - LINES_SHOWN} more" * (len(lines) > LINES_SHOWN)


def flagged_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, key of FLAGGED) of each use, through imports under other names."""
    aliases = dict(imported(tree))
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, (ast.Attribute, ast.Name)) and isinstance(node.ctx, ast.Load):
            names = [dotted(node, aliases)]
        for name in names:
            parts = name.split(".")
            prefixes = (".".join(parts[:n]) for n in range(1, len(parts) + 1))
            yield from ((node.lineno, prefix) for prefix in prefixes if prefix in FLAGGED)


def imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(local name, full name) of what is imported; what a file defines on its own is '.name'."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name, f".{node.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((a.asname, a.name) for a in node.names if a.asname)
            yield from ((a.name.split(".")[0],) * 2 for a in node.names if not a.asname)
        elif isinstance(node, ast.ImportFrom):
            yield from ((a.asname or a.name, f"{node.module}.{a.name}") for a in node.names)


def dotted(node: ast.expr, aliases: dict[str, str]) -> str:
    """'os.system' of an attribute chain on an imported name; other chains begin with '?'."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    root = node.id if isinstance(node, ast.Name) else "?"
    return ".".join([aliases.get(root, root if root in BUILTINS else "?"), *reversed(parts)])


def unsafe_loads(tree: ast.Module) -> Iterator[int]:
    """Lines that may unpickle: torch.load without weights_only=True, numpy's allow_pickle."""
    aliases = dict(imported(tree))
    for node in (n for n in ast.walk(tree) if isinstance(n, ast.Call)):
        if isinstance(node.func, (ast.Attribute, ast.Name)):
            name = dotted(node.func, aliases)
            given = {k.arg: getattr(k.value, "value", k.value) for k in node.keywords}
            unsafe = name == "torch.load" and given.get("weights_only") is not True
            if unsafe or given.get("allow_pickle", False) is not False:
                yield node.lineno


def is_opaque(node: ast.AST) -> bool:
    """A literal that no person reads."""
    if isinstance(node, ast.Constant):
        value = node.value
        if isinstance(value, (str, bytes)):
            return max(map(len, value.split()), default=0) >= OPAQUE_RUN
        return isinstance(value, int) and abs(value) >> 1024 > 0
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        numbers = [
            e for e in node.elts if isinstance(e, ast.Constant) and not isinstance(e.value, str)
        ]
        return len(numbers) >= OPAQUE_NUMBERS
    return False


def uncounted(case: Case, path: str, tree: ast.Module, executes: bool) -> None:
    """Siblings that the code imports or names count with it; logs only where it runs code."""
    folder = PurePosixPath(path).parent
    used = {str(folder / m): line for line, name in modules(tree) for m in module_files(name)}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and len(node.value.split()) == 1
        ):
            named = str(folder / PurePosixPath(node.value).name)
            if not case.has(named):
                continue  # most texts; a role is looked up in a list
            if executes or case.role(named) not in ("log", "artifact", "val"):
                used.setdefault(named, node.lineno)
    for sibling, line in used.items():
        known = case.role(sibling) is not None and sibling != path  # else it is file-unlisted
        if known and not case.counted(sibling):
            text = f"{quoted(path)} line {line} uses {quoted(sibling)}, which does not count"
            case.fail("bytes-uncounted", f"{text}; list it with the role score")


def modules(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every imported module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = f"{node.module}." if node.module else ""
            yield from ((node.lineno, f"{base}{alias.name}") for alias in node.names)


def module_files(name: str) -> Iterator[str]:
    parts = name.split(".")
    for n in range(1, len(parts) + 1):
        yield "/".join(parts[:n]) + ".py"
        yield "/".join(parts[:n]) + "/__init__.py"


RULES = (code,)
