#!/usr/bin/env bash
# The tests: ruff, shellcheck and pytest's fast tier; --all adds the slow one. Further arguments go
# to pytest: bash scripts/test.sh tests/test_run.py -k lock
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/venv.sh
. "$root/scripts/venv.sh"
cd "$root"
tier=(-m "not slow")
if [ "${1:-}" = --all ]; then
    tier=()
    shift
fi
venv_ready requirements-dev.txt
"$python" -m ruff check .
"$root/.venv/bin/shellcheck" -x scripts/*.sh .ci/run
exec "$python" -m pytest "${tier[@]+"${tier[@]}"}" "$@"
