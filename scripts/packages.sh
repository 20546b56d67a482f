# shellcheck shell=bash
# Sourced by test.sh: the system's packages that the tests use beside Python's. packages_ready
# installs what is missing where it may (root, or sudo without a password), else says what to type.

# The lines PACKAGE=what for, of what this Linux lacks, by the names of its package manager ($1).
packages_missing() {
    local manager=$1 base=${PYTHON:-python3} compiler=g++ headers=python3-dev
    case "$manager" in
        dnf) compiler=gcc-c++ headers=python3-devel ;;
        pacman) compiler=gcc headers=python ;;
        apt-get) # Debian's own python3 comes without venv
            "$base" -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
            ;;
    esac
    command -v git >/dev/null || echo git
    command -v bwrap >/dev/null || echo bubblewrap
    # PyTorch and MLX compile with these.
    command -v g++ >/dev/null || echo "$compiler"
    "$base" -c 'import os, sysconfig; open(os.path.join(sysconfig.get_path("include"), "Python.h"))' 2>/dev/null ||
        echo "$headers"
}

packages_manager() {
    local manager
    for manager in apt-get dnf apk pacman; do
        command -v "$manager" >/dev/null && echo "$manager" && return
    done
    return 1
}

packages_install() {
    local manager=$1 as_root=()
    shift
    [ "$(id -u)" = 0 ] || as_root=(sudo -n)
    "${as_root[@]+"${as_root[@]}"}" true 2>/dev/null || return 1
    case "$manager" in
        apt-get)
            "${as_root[@]+"${as_root[@]}"}" apt-get update -qq &&
                "${as_root[@]+"${as_root[@]}"}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
                    --no-install-recommends -o DPkg::Lock::Timeout=120 "$@"
            ;;
        dnf) "${as_root[@]+"${as_root[@]}"}" dnf install -y -q "$@" ;;
        apk) "${as_root[@]+"${as_root[@]}"}" apk add -q "$@" ;;
        pacman) "${as_root[@]+"${as_root[@]}"}" pacman -S --noconfirm --needed "$@" ;;
    esac >/dev/null
}

# packages_need PACKAGE...: installs them, or says that they are missing.
packages_need() {
    echo "installing $* by $manager"
    packages_install "$manager" "$@" ||
        echo "$(basename "$0"): warning: $* could not be installed; their tests are skipped or fail" >&2
}

# With --all a browser too: apart from the others, since not every Linux has one by this name.
packages_ready() {
    local manager missing browser
    [ "$(uname -s)" = Linux ] || return 0
    manager=$(packages_manager) || return 0
    missing=$(packages_missing "$manager")
    # shellcheck disable=SC2086 # words
    [ -z "$missing" ] || packages_need $missing
    [ "${1:-}" = --all ] || return 0
    for browser in chromium chromium-browser google-chrome; do
        command -v "$browser" >/dev/null && return
    done
    packages_need chromium
}
