#!/usr/bin/env bash
# From a fresh clone to a checked submission: installs, trains a small net for a few minutes on the
# sample text that the clone carries, packs and scores it, and makes a submission folder of it.
# Call it again at any time: what is there is used again, only the run is new.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # called as `sh scripts/quickstart.sh`
set -euo pipefail
unset CDPATH
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
usage="usage: [TORCH_INDEX_URL=ADDRESS] [DEVICE=cpu] [PYTHON=python3.12] bash scripts/quickstart.sh"
case "$*" in
    "") ;;
    -h | --help)
        echo "$usage"
        sed -n '/^# From/,/^# Call/s/^# /  /p' "$root/scripts/quickstart.sh"
        exit
        ;;
    *)
        echo "$usage" >&2
        exit 2
        ;;
esac
# shellcheck source=scripts/venv.sh
. "$root/scripts/venv.sh"
cd "$root"
track=track_sample_5min
run_id="quickstart-$(date +%Y%m%d-%H%M%S)-$$"
run_dir="${OUT_DIR:-runs}/$run_id"
requirements=requirements-cuda.txt trainer=train_gpt.py
baseline="run_cuda_baseline.sh configs/local_4090_baseline.env"
if [ "$(uname -s)-$(uname -m)" = Darwin-arm64 ]; then # Apple Silicon: its GPU, by MLX
    requirements=requirements-mlx.txt trainer=train_gpt_mlx.py
    baseline="run_mlx_baseline.sh configs/local_apple_mlx.env"
fi

# 1. What it needs.
venv_ready "$requirements"
export PYTHON="$python"

# 2. The sample data: 2.5 MB of English that every clone carries, cut into tokens.
"$python" data/build_sample_dataset.py

# 3. Train, pack, score: on the GPU if there is one, else on the processor.
unset SEEDS RESUME DATA_PATH VAL_DATA_PATH TOKENIZER_PATH EVAL_ONLY
RUN_ID="$run_id" bash scripts/golf.sh run --no-summary --trainer "$trainer" configs/quickstart.env

# 4. A submission folder of it, checked against the track. If the check fails, the results below are shown all the same.
code=0
bash scripts/golf.sh new "$run_dir" --out "$run_dir-submission" --track "$track" || code=$?

# 5. The results. The range to expect is in the config, beside the settings that it belongs to.
expect=$(sed -n 's/^# expect val_bpb: *//p' configs/quickstart.env)
bash scripts/golf.sh summary "$run_dir" ${expect:+--expect "$expect"}

# 6. Three lines that the model writes. If that fails, it says why; the run is complete all the same.
echo "writes"
bash scripts/golf.sh sample "$run_dir" --tokens 150 | "$python" -c '
import sys, textwrap
text = sys.stdin.buffer.read().decode("utf-8", "replace")  # fold would cut between the bytes of a letter
lines = textwrap.wrap(text, 109, initial_indent=" " * 9, subsequent_indent=" " * 9)
sys.stdout.buffer.write("\n".join([*lines[:3], ""]).encode())' || true
cat <<TEXT
more     bash scripts/golf.sh sample $run_dir --prompt "Once"; curves: $run_dir/report.html
entry    $run_dir-submission/ (what a pull request would add under records/$track/; the texts that
         FAIL lines above name are yours to write)
next     change $trainer or configs/quickstart.env and run this again, or train on the real data:
         .venv/bin/python data/cached_challenge_fineweb.py --variant sp1024 --train-shards 2
         bash scripts/$baseline
TEXT
exit $code
