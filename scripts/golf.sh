#!/usr/bin/env bash
# The one door to the tools: scripts/golf.sh COMMAND ...; without a command it lists them.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # called as `sh scripts/golf.sh`
set -euo pipefail
unset CDPATH
# What the caller has closed (`>&-`) leads to /dev/null.
true 3>&2 || exec 2>/dev/null
{ true 3>&1; } 2>/dev/null || exec >/dev/null
{ true 3<&0; } 2>/dev/null || exec </dev/null
self=$(readlink -f -- "${BASH_SOURCE[0]}" 2>/dev/null) || self=${BASH_SOURCE[0]} # a link to it may lie in ~/bin
root=$(cd "$(dirname "$self")/.." && pwd)
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    [ -x "$root/.venv/bin/python" ] && PYTHON="$root/.venv/bin/python"
fi
if ! said=$("$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>&1); then
    why=${said:+: ${said%%$'\n'*}} # it does not start, as with a PYTHONHASHSEED that is no number
    echo "golf.sh: error: $PYTHON is not Python 3.10 or newer$why; run scripts/quickstart.sh or set PYTHON" >&2
    exit 2
fi
export PYTHONPATH="$root/scripts${PYTHONPATH:+:$PYTHONPATH}"
# Not python -m: that would import a submission's argparse.py where someone stands in its folder.
exec "$PYTHON" -c 'import sys; sys.path[0] = sys.argv.pop(1); from golf.cli import main; sys.exit(main())' \
    "$root/scripts" "$@"
