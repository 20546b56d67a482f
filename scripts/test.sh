#!/usr/bin/env bash
# The tests: compileall, ruff, shellcheck and pytest's fast tier.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # called as `sh scripts/test.sh`
set -euo pipefail
unset CDPATH
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tier=(-m "not slow")
system=
needs=requirements-dev.txt
case " $* " in
    *" -h "* | *" --help "*)
        cat <<'TEXT'
usage: bash scripts/test.sh [--all] [PYTEST'S ARGUMENTS]
  compileall, ruff, shellcheck and pytest's fast tests, in parallel (-n 0: one process);
  --all: the slow tests too. .venv is made if need be; system packages that tests use (bubblewrap, g++,
  python3-dev; for --all Chromium) are installed where root or sudo allow it.
  e.g. bash scripts/test.sh tests/run -k lock
TEXT
        exit
        ;;
esac
if [ "${1:-}" = --all ]; then
    tier=()
    system=--all
    needs=requirements-all.txt
    shift
fi
# shellcheck source=scripts/venv.sh
. "$root/scripts/venv.sh"
# shellcheck source=scripts/packages.sh
. "$root/scripts/packages.sh"
cd "$root"
[ -w . ] || venv_fail "$root cannot be written; use a clone of your own"
venv_check_choice
packages_ready $system
venv_ready "$needs"
unset PYTHONDONTWRITEBYTECODE # pytest keeps the tests as it rewrites them: then a worker starts in half the time
"$python" -m compileall -q train_gpt.py train_gpt_mlx.py data dev scripts tests
"$python" -m ruff check .
"$python" -m ruff format --check .
"$root/.venv/bin/shellcheck" -x scripts/*.sh .ci/run
exec "$python" -m pytest -n auto --dist worksteal "${tier[@]+"${tier[@]}"}" "$@"
