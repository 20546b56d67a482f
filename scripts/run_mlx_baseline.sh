#!/usr/bin/env bash
# Trains, packs and scores what an env file describes with the MLX trainer: on the GPU of a Mac with
# Apple Silicon, elsewhere on the processor.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # called as `sh scripts/run_mlx_baseline.sh`
set -euo pipefail
unset CDPATH
if [ $# -lt 1 ]; then
    cat >&2 <<USAGE
usage: [NAME=value ...] bash scripts/run_mlx_baseline.sh CONFIG.env
  e.g. bash scripts/run_mlx_baseline.sh configs/local_apple_mlx.env
  NAME=value wins over the file: SEED=42, SEEDS=1337,42,2025, DEVICE=cpu, MICRO_BATCH_TOKENS=4096 ...
USAGE
    exit 2
fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ "$(uname -s)-$(uname -m)" != Darwin-arm64 ]; then
    echo "run_mlx_baseline.sh: no Apple Silicon here: MLX's CPU backend, made for checks, not for speed"
fi
exec bash "$here/golf.sh" run --trainer "$here/../train_gpt_mlx.py" "$@"
