"""What a submission can read of this machine: Python, the packages that scoring needs, libraries.

Everything else is text, weights or tools that would help to predict text without being counted: other
packages, documentation, word lists, headers, man pages, caches. So the list is of what is shown.
"""

import contextlib
import csv
import importlib.metadata
import mmap
import os
import re
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# What an entry may import besides Python's library, with all that these depend on.
# docs/track_spec.md tells it to people.
DISTRIBUTIONS = ("torch", "numpy", "sentencepiece", "tqdm", "mlx", "brotli")
OF_MLX = ("mlx-cpu", "mlx-cuda-12", "mlx-cuda-13")  # its "extras" on Linux
# Folders of prose, of programs, of other languages' sources and of tests: in Python's library, in packages.
NOT_OF_PYTHON = re.compile(
    r"test|tests|idle_test|idlelib|lib2to3|pydoc_data|ensurepip|turtledemo|config-.*|.*-packages"
)
NOT_OF_PACKAGES = frozenset(("bin", "doc", "docs", "include", "share", "test", "tests"))
PROGRAMS_ASKED_FOR = ("torch_shm_manager",)  # PyTorch is not imported where it lacks this one
METADATA = (".dist-info", ".egg-info", ".data", ".pth")
LINKER_CACHE = Path("/etc/ld.so.cache")
LIBRARY_FOLDERS = ("/lib", "/usr/lib", "/lib64", "/usr/lib64")  # where the linker has no cache
DRIVER_FOLDERS = ("/usr/lib/wsl/lib", "/usr/lib/wsl/drivers")  # CUDA's under WSL2
CPU_FILES = ("online", "possible", "present")  # how many threads a library starts
# Times that a page is used until once more changes nothing: it is referenced, active, both. /proc tells.
MOST_USED = 3
DROP_CACHES = Path("/proc/sys/vm/drop_caches")
POINTERS = Path("/proc/sys/kernel/kptr_restrict")
STORE = Path("/nix/store")  # NixOS: nothing lies elsewhere, nor in folders of one kind


@dataclass(frozen=True)
class View:
    """Paths that are shown, read-only, each at its own place; and folders in them that are not."""

    shown: frozenset[Path]
    hidden: frozenset[Path]
    python: Path  # the interpreter
    packages: tuple[Path, ...]  # the folders on its path, besides its library's

    def includes(self, path: Path) -> bool:
        """Whether what lies at `path` can be read."""
        around = [path, *path.parents]
        nearest = next((p for p in around if p in self.shown or p in self.hidden), None)
        return nearest in self.shown


@cache
def view() -> View:
    """The view of this machine, found once."""
    python = Path(os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable))
    library = Path(os.path.realpath(sysconfig.get_path("stdlib")))
    shown, hidden = {python, library}, set()
    if STORE.is_dir() and python.is_relative_to(STORE):
        shown.add(STORE)
    for folder, names, _ in os.walk(library):
        out = [name for name in names if NOT_OF_PYTHON.fullmatch(name)]
        hidden.update(Path(folder, name) for name in out)
        names[:] = [name for name in names if name not in out]
    found = {d: Path(os.path.realpath(d.locate_file(""))) for d in distributions()}
    for distribution, site in found.items():
        roots, prose = recorded(distribution)
        shown.update(path for path in (site / root for root in roots) if path.exists())
        hidden.update(path for path in (site / folder for folder in prose) if path.is_dir())
    for folder in library_folders(python):
        shown.add(folder)
        hidden.update(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
    shown.update(Path(path) for path in DRIVER_FOLDERS if Path(path).is_dir())
    shown.update(loaders(shown))
    shown.update(p for p in (Path("/sys/devices/system/cpu", n) for n in CPU_FILES) if p.exists())
    packages = tuple(dict.fromkeys(found.values()))
    return View(frozenset(shown), frozenset(hidden - shown), python, packages)


def forgets_names() -> bool:
    """Whether forget_names can do what it says: root alone may ask for it."""
    return os.access(DROP_CACHES, os.W_OK)


def forget_names() -> None:
    """Has the kernel forget which names were looked up, those in vain too: they are found faster the next
    time, and a pass could tell the next something by them."""
    if forgets_names():
        DROP_CACHES.write_bytes(b"2")  # names and inodes, not what files hold


def hides_pointers() -> bool:
    """Whether /proc tells nobody but root where in the kernel's memory a socket lies."""
    return POINTERS.is_file() and POINTERS.read_text(encoding="ascii").strip() != "0"


def read_ahead(most_bytes: int, times: int = 1) -> bool:
    """Has the kernel read all that is shown `times` times, up to `most_bytes`; whether that was all.

    A file that is in memory is read faster: by what it reads, one pass could tell the next something,
    which it cannot where all was read before. By filling the memory it can have files forgotten, so this
    is done before each pass; where all is in memory, it takes a tenth of a second.
    """
    what, done = view(), 0
    apart = {str(path) for path in (*what.shown, *what.hidden)}
    for top in sorted(what.shown):
        folders = os.walk(top) if top.is_dir() else [(str(top.parent), [], [top.name])]
        for folder, names, files in folders:
            names[:] = [name for name in names if f"{folder}/{name}" not in apart]
            for file in files:
                with contextlib.suppress(OSError, ValueError):  # the latter: it is shorter now
                    done += have_read(f"{folder}/{file}", times)
                if done > most_bytes:
                    return False
    return True


def have_read(path: str, times: int) -> int:
    """The file's size, once all of it is in memory, used `times` times."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        size = os.fstat(fd).st_size
        for _ in range(times if size else 0):
            mmap.mmap(fd, size, mmap.MAP_SHARED | mmap.MAP_POPULATE, mmap.PROT_READ).close()
        return size
    finally:
        os.close(fd)


def distributions() -> list[importlib.metadata.Distribution]:
    """DISTRIBUTIONS and what they require, as far as they are installed.

    Markers are not evaluated: what one excludes here is not installed, or of no harm.
    """
    found, wanted = {}, [*DISTRIBUTIONS, *OF_MLX]
    for name in wanted:
        name = normal(name)
        if name in found:
            continue
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
            continue
        needs = [need for need in found[name].requires or () if not re.search(r"\bextra\s*==", need)]
        wanted += (re.match(r"\s*([\w.-]*)", need)[1] for need in needs)
    return [distribution for distribution in found.values() if distribution]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def recorded(distribution: importlib.metadata.Distribution) -> tuple[set[str], set[str]]:
    """Paths in its site folder by its RECORD: the files and topmost folders that are its own, and
    the folders of prose in them. Its metadata are left out: most of that is a README.

    A folder that holds other folders alone may be shared (nvidia/), and its folders count one by one.
    """
    files = [path.split("/") for path in file_list(distribution)]
    if not files:  # Debian's packages keep no list
        names = (distribution.read_text("top_level.txt") or distribution.metadata["Name"]).split()
        return {at for name in names for at in (name, f"{name}.py")}, set()
    files = [f for f in files if f[0] != "__pycache__" and not f[0].endswith(METADATA)]
    own = {tuple(parts[:-1]) for parts in files}
    roots, prose = set(), set()
    for parts in files:
        folders = [tuple(parts[:n]) for n in range(1, len(parts))]
        if out := [f for f in folders if f[-1] in NOT_OF_PACKAGES]:
            prose.add("/".join(out[0]))
            roots |= {"/".join(parts)} if parts[-1] in PROGRAMS_ASKED_FOR else set()
        else:
            roots.add("/".join(next((f for f in folders if f in own), parts)))
    return roots, prose


def file_list(distribution: importlib.metadata.Distribution) -> list[str]:
    """Its files in its site folder, by its RECORD, or by what setuptools once wrote."""
    if record := distribution.read_text("RECORD"):  # ten times as fast as .files
        paths = [row[0] for row in csv.reader(record.splitlines()) if row]
    else:
        paths = [str(path) for path in distribution.files or ()]
    return [path for path in paths if not path.startswith(("../", "/"))]


def library_folders(python: Path) -> list[Path]:
    """Where shared libraries lie: the linker's folders, and the one that came with Python."""
    try:
        cached = re.findall(rb"(/[^\0]+)/[^\0/]+\.so", LINKER_CACHE.read_bytes())
        folders = [os.fsdecode(folder) for folder in sorted(set(cached))]
    except OSError:
        folders = [*LIBRARY_FOLDERS]
    folders += library_path()
    if not python.is_relative_to("/usr"):
        folders.append(str(python.parent.parent / "lib"))
    paths = dict.fromkeys(Path(os.path.realpath(folder)) for folder in folders)
    return [path for path in paths if path.is_dir()]


def library_path() -> list[str]:
    """LD_LIBRARY_PATH's folders, without empty and relative ones: those mean the working directory, which is
    a submission's when bubblewrap starts, as whoever runs the scorer."""
    return [p for p in re.split("[:;]", os.environ.get("LD_LIBRARY_PATH", "")) if p.startswith("/")]


def loaders(shown: set[Path]) -> Iterator[Path]:
    """The dynamic linkers, where programs name them, as far as their folders are not shown."""
    for folder in links():
        for loader in Path("/", folder).glob("ld-*.so*"):
            place = Path(os.path.realpath(loader.parent), loader.name)
            if place.parent not in shown:
                yield place


def links() -> list[str]:
    """The names of /lib, /lib64 and the like, which may be links into /usr."""
    return sorted(path.name for path in Path("/").glob("lib*") if path.is_dir())
