#!/usr/bin/env bash
# Trains, packs and scores what an env file describes, on CUDA unless DEVICE says otherwise:
#   bash scripts/run_cuda_baseline.sh configs/local_4090_baseline.env SEED=42
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # called as `sh scripts/run_cuda_baseline.sh`
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/golf.sh" run --default DEVICE=cuda "$@"
