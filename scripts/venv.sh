# shellcheck shell=bash
# Sourced by quickstart.sh and test.sh: the virtual environment that they share.
# Needs $root, the repository; sets $python. venv_ready REQUIREMENTS is what callers want of it.
: "${root:?set root to the repository before sourcing venv.sh}"
python="$root/.venv/bin/python"
venv_reached= # set once the package index has answered

venv_fail() {
    echo "$(basename "$0"): error: $*" >&2
    exit 1
}

# venv_python_is_new PROGRAM: whether it is Python 3.10 or newer.
venv_python_is_new() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null
}

# The Python that .venv is made with: $PYTHON, and no other, where it is set; else the first of 3.10 or newer.
venv_base_python() {
    local candidate
    if [ -n "${PYTHON:-}" ]; then
        # .venv's own Python cannot make .venv anew: the Python that it was made with does.
        case "$PYTHON" in
            "$root"/.venv/*) "$PYTHON" -c 'import sys; print(sys._base_executable)' ;;
            *) echo "$PYTHON" ;;
        esac
        return
    fi
    for candidate in python3 python3.14 python3.13 python3.12 python3.11 python3.10; do
        if venv_python_is_new "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    venv_fail "no Python 3.10 or newer found (python3 is $(python3 -V 2>&1 || true)); install one, or set PYTHON=/path/to/python3"
}

# What a person asks for by PYTHON=... is what they get, or they are told.
venv_check_choice() {
    local asked made
    [ -n "${PYTHON:-}" ] || return 0
    command -v "$PYTHON" >/dev/null ||
        venv_fail "PYTHON=$PYTHON: there is no such program; set PYTHON=/path/to/python3, or unset it"
    venv_python_is_new "$PYTHON" ||
        venv_fail "PYTHON=$PYTHON is not Python 3.10 or newer ($("$PYTHON" -V 2>&1 | head -n 1)); set another, or unset it"
    asked=$("$PYTHON" -c "$venv_version")
    made=$("$python" -c "$venv_version" 2>/dev/null) || return 0
    [ "$made" = "$asked" ] ||
        venv_fail "PYTHON=$PYTHON is Python $asked, but .venv was made with $made; delete .venv to make it anew, or unset PYTHON"
}
venv_version='import sys; print("%d.%d" % sys.version_info[:2])'

# Whether .venv can be used: it lies where it was made (a copy's scripts still name the old place),
# its Python runs and has pip, and no installation was broken off in the middle of a package.
venv_whole() {
    local venv="$root/.venv"
    [ -x "$python" ] || return 1
    [ -f "$venv/.place" ] || [ ! -e "$venv/.unfinished" ] || return 1 # the making was broken off
    [ ! -f "$venv/.place" ] || [ "$(cat "$venv/.place")" = "$(cd "$venv" && pwd -P)" ] || return 1
    "$python" -c 'import pip' 2>/dev/null ||
        "$python" -m ensurepip >/dev/null 2>&1 || return 1
    [ ! -e "$venv/.unfinished" ] || venv_packages_are_whole
}

# pip writes a package's list of files, RECORD, last.
venv_packages_are_whole() {
    "$python" - <<'PY'
import importlib.metadata, sys
for package in importlib.metadata.distributions():
    for file in package.files or [None]:
        if file is None or not file.locate().is_file():
            sys.exit(1)
        # pip compiles anew what a package brings compiled, as NumPy does: then the size is another.
        if file.suffix != ".pyc" and file.size not in (None, file.locate().stat().st_size):
            sys.exit(1)
PY
}

venv_make() {
    local base version venv="$root/.venv"
    base=$(venv_base_python)
    version=$("$base" -c "$venv_version")
    "$base" -c 'import ensurepip, venv' 2>/dev/null ||
        venv_fail "python$version cannot make virtual environments; on Debian or Ubuntu: sudo apt install python$version-venv"
    ! "$base" -c 'import pip' 2>/dev/null || venv_reach "$base" || venv_fail "$venv_lost"
    echo "making   .venv with $("$base" -V)"
    # .unfinished goes when all is installed. Where it stayed, the next call looks closer.
    { rm -rf "$venv" && mkdir "$venv" && : >"$venv/.unfinished" && "$base" -m venv "$venv"; } ||
        venv_fail "could not make $venv; see the lines above"
    (cd "$venv" && pwd -P >.place)
}

# A fingerprint of what is to be installed: all requirements files, torch's index, the Python.
venv_stamp() {
    { echo "$1 ${TORCH_INDEX_URL:-}" && "$python" -V && cat "$root"/requirements*.txt; } | cksum
}

# Whether the stamp says that this requirements file was installed as it now is.
venv_installed() {
    local file="$root/.venv/.installed-$1"
    [ -f "$file" ] && [ "$(cat "$file")" = "$(venv_stamp "$1")" ]
}

# One call at a time makes .venv or installs into it. The lock is on this file, through descriptor 9,
# which this shell holds until it closes it or ends, however it ends.
venv_lock() {
    local base
    base=$(venv_base_python)
    exec 9<"$root/scripts/venv.sh"
    "$base" - <<'PY'
import fcntl
try:
    fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("waiting for another call that installs into .venv", flush=True)
    fcntl.flock(9, fcntl.LOCK_EX)
except OSError:
    pass  # a file system without locks
PY
}

# venv_reach PYTHON: whether its pip gets an answer from the index that it is set up with.
venv_reach() {
    [ -z "$venv_reached" ] || return 0
    venv_lost=$("$1" "$root/scripts/pip_reach.py" "$1") && venv_reached=1
}

venv_pip_install() {
    local quiet=(-q)
    [ -t 1 ] && quiet=()
    "$python" -m pip install "${quiet[@]+"${quiet[@]}"}" "$@"
}

# Plain PyTorch for Linux brings CUDA along; who has no use for it hears so before it is fetched.
venv_tell_of_cuda() {
    [ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] && [ -z "${TORCH_INDEX_URL:-}" ] || return 0
    [ ! -e /proc/driver/nvidia ] && [ ! -e /dev/dxg ] && ! command -v nvidia-smi >/dev/null || return 0
    "$python" -c 'import importlib.util as u, sys; sys.exit(not u.find_spec("torch"))' || cat <<TEXT
note     no NVIDIA device here, and plain PyTorch comes with about 3 GB of CUDA. To avoid that: Ctrl-C, then
             TORCH_INDEX_URL=ADDRESS bash scripts/$(basename "$0")
         with the address of PyTorch's CPU wheels: pytorch.org/get-started/locally shows it for Pip and CPU,
         after --index-url
TEXT
}

venv_install() {
    local lost
    export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_USER=0
    unset PIP_TARGET PIP_PREFIX # a person's own settings would install elsewhere
    : >"$root/.venv/.unfinished"
    if ! venv_reach "$python"; then # perhaps all is there already
        "$python" -m pip install -q --no-index -r "$root/$1" >/dev/null 2>&1 || venv_fail "$venv_lost"
    fi
    [ "$1" = requirements-mlx.txt ] || venv_tell_of_cuda
    echo "installing $1 into .venv (minutes, the first time)"
    if [ -n "${TORCH_INDEX_URL:-}" ] && [ "$1" != requirements-mlx.txt ]; then
        grep '^torch[=><]' "$root/requirements-cuda.txt" >"$root/.venv/torch.txt"
        lost=$("$python" "$root/scripts/pip_reach.py" "$python" --index-url "$TORCH_INDEX_URL") ||
            venv_fail "TORCH_INDEX_URL=$TORCH_INDEX_URL: $lost"
        venv_pip_install --no-deps --index-url "$TORCH_INDEX_URL" -r "$root/.venv/torch.txt" ||
            venv_fail "pip could not install torch from TORCH_INDEX_URL; see the lines above"
    fi
    venv_pip_install -r "$root/$1" ||
        venv_fail "pip could not install $1; see the lines above, then call this again"
    venv_stamp "$1" >"$root/.venv/.installed-$1"
    rm "$root/.venv/.unfinished"
}

# venv_ready requirements-x.txt: makes .venv if need be and installs what the file names, unless the
# stamp says that this was done. TORCH_INDEX_URL, where set, is where torch alone comes from.
venv_ready() {
    venv_check_choice
    venv_whole && venv_installed "$1" && return
    venv_lock
    venv_whole || venv_make
    venv_installed "$1" || venv_install "$1"
    exec 9<&-
}
