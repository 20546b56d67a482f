# shellcheck shell=bash
# Sourced by quickstart.sh and test.sh: the virtual environment that they share.
# Needs $root, the repository. venv_ready REQUIREMENTS sets $python.
: "${root:?set root to the repository before sourcing venv.sh}"

venv_fail() {
    echo "$(basename "$0"): error: $*" >&2
    exit 1
}

# The first Python of 3.10 or newer, the user's own choice ($PYTHON) first.
venv_base_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.14 python3.13 python3.12 python3.11 python3.10; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    venv_fail "no Python 3.10 or newer found (python3 is $(python3 -V 2>&1 || true)); install one, or set PYTHON=/path/to/python3"
}

venv_make() {
    local base version
    base=$(venv_base_python)
    version=$("$base" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
    "$base" -c 'import ensurepip, venv' 2>/dev/null ||
        venv_fail "$version cannot make virtual environments; on Debian or Ubuntu: sudo apt install $version-venv"
    echo "making   .venv with $("$base" -V)"
    "$base" -m venv --clear "$root/.venv" ||
        venv_fail "could not make $root/.venv; see the lines above"
}

# A fingerprint of what is to be installed: all requirements files, torch's index, the Python.
venv_stamp() {
    "$python" - "$root" "$1" "${TORCH_INDEX_URL:-}" <<'PY'
import hashlib, pathlib, sys
root, name, index = sys.argv[1:]
texts = [p.read_text() for p in sorted(pathlib.Path(root).glob("requirements-*.txt"))]
print(hashlib.sha256("\0".join([name, index, sys.version, *texts]).encode()).hexdigest())
PY
}

# venv_ready requirements-x.txt: makes .venv if need be and installs what the file names, unless the
# stamp says that this was done. TORCH_INDEX_URL, where set, is where torch alone comes from.
venv_ready() {
    local stamp_file="$root/.venv/.installed-$1" stamp quiet=(-q) torch
    python="$root/.venv/bin/python"
    "$python" -c '' 2>/dev/null || venv_make
    stamp=$(venv_stamp "$1")
    [ -f "$stamp_file" ] && [ "$(cat "$stamp_file")" = "$stamp" ] && return
    [ -t 1 ] && quiet=()
    export PIP_DISABLE_PIP_VERSION_CHECK=1
    echo "installing $1 into .venv (minutes, the first time)"
    if [ -n "${TORCH_INDEX_URL:-}" ] && [ "$1" != requirements-mlx.txt ]; then
        torch=$(grep '^torch[=><]' "$root/requirements-cuda.txt" || true)
        printf '%s\n' "$torch" >"$root/.venv/torch.txt"
        "$python" -m pip install "${quiet[@]+"${quiet[@]}"}" --no-deps --index-url "$TORCH_INDEX_URL" \
            -r "$root/.venv/torch.txt" ||
            venv_fail "pip could not install torch from TORCH_INDEX_URL; see the lines above"
    fi
    "$python" -m pip install "${quiet[@]+"${quiet[@]}"}" -r "$root/$1" ||
        venv_fail "pip could not install $1; see the lines above (no network? a proxy to set?), then call this again"
    echo "$stamp" >"$stamp_file"
}
