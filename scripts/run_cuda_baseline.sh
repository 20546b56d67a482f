#!/usr/bin/env bash
# Trains, packs and scores what an env file describes, on CUDA unless DEVICE says otherwise.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # called as `sh scripts/run_cuda_baseline.sh`
set -euo pipefail
unset CDPATH
if [ $# -lt 1 ]; then
    cat >&2 <<USAGE
usage: [NAME=value ...] bash scripts/run_cuda_baseline.sh CONFIG.env
  e.g. bash scripts/run_cuda_baseline.sh configs/local_4090_baseline.env
  NAME=value wins over the file: SEED=42, SEEDS=1337,42,2025, NPROC_PER_NODE=2, DEVICE=cpu ...
USAGE
    exit 2
fi
exec bash "$(dirname "${BASH_SOURCE[0]}")/golf.sh" run --default DEVICE=cuda "$@"
