# shellcheck shell=bash
# Sourced by test.sh: the system's packages that the tests use beside Python's. packages_ready
# installs what is missing where it may (apt-get as root, or by sudo without a password), else says so.

packages_missing() {
    local base=${PYTHON:-python3}
    "$base" -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv # Debian's python3 comes without
    command -v git >/dev/null || echo git
    command -v bwrap >/dev/null || echo bubblewrap
    # PyTorch and MLX compile with these.
    command -v g++ >/dev/null || echo g++
    "$base" -c 'import os, sysconfig; open(os.path.join(sysconfig.get_path("include"), "Python.h"))' 2>/dev/null ||
        echo python3-dev
}

# packages_need PACKAGE...: installs them, or says that they are missing.
packages_need() {
    local as_root=()
    echo "installing $* by apt-get"
    [ "$(id -u)" = 0 ] || as_root=(sudo -n)
    {
        "${as_root[@]+"${as_root[@]}"}" true 2>/dev/null &&
            "${as_root[@]+"${as_root[@]}"}" apt-get update -qq >/dev/null &&
            "${as_root[@]+"${as_root[@]}"}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
                --no-install-recommends -o DPkg::Lock::Timeout=120 "$@" >/dev/null
    } || echo "$(basename "$0"): warning: $* could not be installed; their tests are skipped or fail" >&2
}

# With --all a browser too: apart from the others, since not every Linux has one by this name.
packages_ready() {
    local missing browser
    [ "$(uname -s)" = Linux ] && command -v apt-get >/dev/null || return 0
    missing=$(packages_missing)
    # shellcheck disable=SC2086 # words
    [ -z "$missing" ] || packages_need $missing
    [ "${1:-}" = --all ] || return 0
    for browser in chromium chromium-browser google-chrome; do
        command -v "$browser" >/dev/null && return
    done
    packages_need chromium
}
