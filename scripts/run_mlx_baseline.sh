#!/usr/bin/env bash
# Trains, packs and scores what an env file describes with the MLX trainer: on the GPU of a Mac with
# Apple Silicon, elsewhere on the processor:
#   bash scripts/run_mlx_baseline.sh configs/local_apple_mlx.env SEED=42
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # called as `sh scripts/run_mlx_baseline.sh`
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
if [ "$(uname -s)-$(uname -m)" != Darwin-arm64 ] && [ $# -gt 0 ]; then
    echo "run_mlx_baseline.sh: no Apple Silicon here: MLX's CPU backend, made for checks, not for speed"
fi
exec bash "$here/golf.sh" run --trainer "$here/../train_gpt_mlx.py" "$@"
