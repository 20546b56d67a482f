#!/usr/bin/env bash
# Checks a submission folder against its track; runs nothing that lies in it:
#   bash scripts/check_submission_folder.sh FOLDER [--record] [--track NAME] [--json]
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # called as `sh scripts/check_submission_folder.sh`
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/golf.sh" check "$@"
