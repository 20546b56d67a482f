"""Rules about code, read as a syntax tree and never run: what reaches out, hides or reads ahead.

allowed.py lists what is fine. Whatever else code reaches (reach.py, guards.py) or holds (source.py) goes to
a reviewer, and so does what may learn from validation text (learning.py) or hang on more than the artifact
(steering.py). Code can hide from all of this; the scorer's sandbox and the reviewer are what stops it.
"""

import ast
import warnings
from collections.abc import Iterator
from pathlib import PurePosixPath

from golf.check import syntax
from golf.check.folder import Folder, quoted
from golf.check.learning import validation_gradients
from golf.check.modules import Modules
from golf.check.reach import reached
from golf.check.source import MEANING, Totals, faults_of, totals
from golf.check.steering import other_sources
from golf.check.syntax import OneForm, every_node
from golf.core.findings import FAIL, HUMAN
from golf.core.packed import SUFFIX, fault, source_name

SOURCE_LIMIT, FILES_LIMIT = 256 << 10, 20  # bytes of all files; the longest trainers have 110,000
LINES_SHOWN = 8

# Rule -> its level, what the file does, and what to do where that helps.
REACHES = {
    "code-network": (HUMAN, "reaches the network"),
    "code-process": (HUMAN, "starts processes"),
    "code-exec": (HUMAN, "runs or imports what is not in sight"),
    "code-native": (HUMAN, "runs native code"),
    "code-pickle": (FAIL, "reads pickles, which run code when read; torch.load: weights_only=True"),
    "code-import": (FAIL, "imports what is not in Python, the requirements or this folder; ship it as score"),
    "code-unlisted": (HUMAN, "uses names that are not on the list (scripts/golf/check/allowed.py)"),
    "code-indirect": (HUMAN, "reaches names in a way that cannot be followed; write them out"),
    "code-outside": (HUMAN, "names places or secrets outside the run"),
}


def code(folder: Folder) -> None:
    """Checks every Python file: it compiles; findings list what a reviewer must see."""
    paths = [path for path in folder.files if path.endswith(".py")]
    if len(paths) > FILES_LIMIT:
        text = f"{len(paths)} Python files; put it into {FILES_LIMIT} at most, so that people can read it"
        folder.fail("code-syntax", text)
    size = sum(folder.files[path] for path in paths)
    if size > SOURCE_LIMIT:
        folder.fail("code-syntax", f"{size:,} bytes of Python, over {SOURCE_LIMIT:,}: too long to be read")
        return
    packed = [path for path in paths[:FILES_LIMIT] if path.endswith(SUFFIX)]
    trees = {path: parse(folder, path) for path in paths[:FILES_LIMIT] if path not in packed}
    trees = {path: tree for path, tree in trees.items() if tree is not None}
    modules = Modules({module_name(path): tree for path, tree in trees.items()})
    sums = Totals()
    for path, tree in trees.items():
        check_tree(folder, path, tree, modules)
        sums.add(totals(folder.read(path), tree))
    check_scoring(folder, [*trees])
    for path in packed:
        check_packed(folder, path)
    for name, (found, most) in sums.over().items():
        text = f"the code holds {found:,} {MEANING[name]}, over {most:,} for its size"
        folder.human("code-opaque", f"{text}: is it data disguised as code? weights belong in the artifact")


def check_packed(folder: Folder, path: str) -> None:
    """A finding if a packed script is not the plain one beside it.

    Both have the same syntax tree, so the code rules read the plain file alone and can name its lines. Its
    comments do not count, but a run may read them.
    """
    plain = source_name(path)
    if not folder.has(plain):
        text = f"{quoted(path)} lacks {quoted(plain)}, which it was made from; ship that with the role source"
        folder.fail("code-packed", text)
    elif why := fault(folder.read(path), folder.read(plain)):
        text = f"{quoted(path)} {why}; ship what PACK_SCRIPT=1 made of {quoted(plain)}"
        folder.fail("code-packed", text)


def parse(folder: Folder, path: str) -> ast.Module | None:
    """Returns the syntax tree; None, with a finding, if the file does not compile."""
    source = folder.read(path)
    faults = dict(faults_of(source))
    if faults:
        text = "plain UTF-8, short lines, no invisible characters, names in ASCII"
        folder.fail("code-text", f"{quoted(path)}: {show(faults)}; write it as {text}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(source, path, "exec", dont_inherit=True)
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = getattr(error, "msg", None) or error or type(error).__name__
        where = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        folder.fail("code-syntax", f"{quoted(path)}{where}: {reason}; ship the script that ran")
        return None


def module_name(path: str) -> str:
    """'kit/tables.py' as 'kit.tables'."""
    return path.removesuffix(".py").replace("/", ".")


def check_tree(folder: Folder, path: str, tree: ast.Module, modules: Modules) -> None:
    raised: dict[str, dict[int, str]] = {}
    try:
        for line, rule, name in reached(tree, modules, module_name(path)):
            raised.setdefault(rule, {}).setdefault(line, name)
    except RecursionError:
        raised["code-indirect"] = {1: "nested too deep to be followed"}
    for rule, lines in raised.items():
        level, meaning = REACHES[rule]
        folder.add(level, rule, f"{quoted(path)} {meaning}: {show(lines)}")
    uncounted(folder, path, tree, "code-exec" in raised)


def check_scoring(folder: Folder, paths: list[str]) -> None:
    """Findings of what may learn from validation tokens or steer. All files are read as one, whose functions
    call each other; a line's number tells its file, too."""
    whole = ast.Module([], [])
    for number, path in enumerate(paths):
        tree = OneForm().visit(ast.parse(folder.read(path)))
        for name, full in syntax.imports(tree, module_name(path)):
            module, _, last = full.rpartition(".")
            if f"{module.replace('.', '/')}.py" in paths and name != last:  # from kit import f as g
                tree.body[:0] = ast.parse(f"{name} = {last}").body
        whole.body += ast.increment_lineno(tree, number * SOURCE_LIMIT).body
    learns = "validation tokens may reach an optimizer; a model may learn only from targets already scored"
    steers = "scores may depend on more than the artifact and the text so far"
    raised: dict[tuple[str, str], dict[int, str]] = {}
    gradients = ((line, "gradient or count") for line in validation_gradients(whole))
    for text, lines in ((learns, gradients), (steers, other_sources(whole))):
        for line, what in lines:
            number, line = divmod(line, SOURCE_LIMIT)
            raised.setdefault((paths[number], text), {})[line] = what
    for (path, text), lines in raised.items():
        folder.human("code-val", f"{quoted(path)}: {text}: {show(lines)}")


def show(lines: dict[int, str]) -> str:
    """'line 3 (socket), line 9 (urllib.request)': the first LINES_SHOWN."""
    text = ", ".join(f"line {line} ({name})" for line, name in sorted(lines.items())[:LINES_SHOWN])
    return text + f" and {len(lines) - LINES_SHOWN} more" * (len(lines) > LINES_SHOWN)


# ---- What counts with the script


def uncounted(folder: Folder, path: str, tree: ast.Module, executes: bool) -> None:
    """Files that the code imports or names must count; logs only if the code can execute text."""
    beside = PurePosixPath(path).parent
    used = {str(beside / m): line for line, name in imported_modules(tree) for m in module_files(name)}
    for node in every_node(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value.split()) == 1:
            named = str(beside / PurePosixPath(node.value).name)
            if not folder.has(named):
                continue  # most texts; a role is looked up in a list
            if executes or folder.role(named) not in ("log", "artifact", "val"):
                used.setdefault(named, node.lineno)
    for sibling, line in used.items():
        known = folder.role(sibling) is not None and sibling != path  # else it is file-unlisted
        if known and not folder.counted(sibling):
            text = f"{quoted(path)} line {line} uses {quoted(sibling)}, which does not count"
            folder.fail("bytes-uncounted", f"{text}; list it with the role score")


def imported_modules(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every imported module."""
    for node in every_node(tree):
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
