"""golf verify: an entry is trained again where there is no validation data, and what comes out decides."""

import json
import os
import shutil
import struct
import subprocess
import sys
import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest
from check_kit import relist
from conftest import REPO, load_script, passed, run_script, used_wrongly, write_shard
from golf.core import submission, track
from golf.core.errors import GolfError
from golf.score.claims import SeedEntry
from golf.verify import command, retrain
from golf.verify import comparison as verify
from score_kit import needs_user_namespace

EXAMPLES = REPO / "tests" / "fixtures" / "submissions"
MARK = 777  # the token that the validation shards hold, and nothing else does


@pytest.fixture
def data(tmp_path):
    """Train shards of small numbers and a validation shard of MARK, as a clone has them."""
    folder = tmp_path / "clone" / "data" / "datasets" / "tiny"
    for i in range(2):
        write_shard(folder / f"fineweb_train_{i:06}.bin", [1, *range(2, 400)] * 10)
    write_shard(folder / "fineweb_val_000000.bin", [1] + [MARK] * 5000)
    (folder.parents[1] / "tiny.model").write_bytes(b"tiny")
    return folder


def plan(tmp_path, data, script: str, *, limit=30.0, files=None, **env) -> retrain.Plan:
    folder = tmp_path / "entry"
    folder.mkdir(exist_ok=True)
    names = {"train_gpt.py": script, "final_model_seed5.bin": "claimed", **(files or {})}
    for name, text in names.items():
        (folder / name).write_text(text)
    paths = {path.name: path for path in folder.iterdir()}
    return retrain.Plan(entry=SeedEntry(5, paths, "train_gpt.py", "final_model_seed5.bin", 0, {}), env=env,
                        arguments=[], world=1, device="cpu", shards=sorted(data.glob("fineweb_train_*.bin")),
                        stand_in=2000, tokenizer=data.parents[1] / "tiny.model", data_name="tiny", budget=5.0,
                        limit=limit)  # fmt: skip


WRITE = """
import os, json, time
from pathlib import Path
def hand_in(what):
    Path("final_model.bin").write_text(json.dumps(what))
"""


def train(tmp_path, data, script, **more):
    done = retrain.train(plan(tmp_path, data, WRITE + script, **more), tmp_path / "out")
    return done, json.loads(done.artifact.read_text())


@needs_user_namespace
def test_an_honest_script_trains_and_finds_all_that_it_needs(tmp_path, data, monkeypatch):
    forgotten, began = [], time.monotonic()
    monkeypatch.setattr(retrain.view, "forget_names", lambda: forgotten.append(True))
    done, told = train(
        tmp_path,
        data,
        "import numpy as np\n"
        "data = Path(os.environ['DATA_PATH'])\n"
        "sizes = {p.name: int(np.fromfile(p, '<i4', 3)[2]) for p in sorted(data.iterdir())}\n"
        "print('train_seconds:2.5 tokens:100 steps:7')\n"
        "text = Path(os.environ['TOKENIZER_PATH']).read_text()\n"
        "hand_in([sizes, text, os.environ['SEED'], os.environ['LR']])\n",
        LR="0.1",
    )
    sizes = {f"fineweb_train_00000{i}.bin": 3990 for i in range(2)} | {"fineweb_val_000000.bin": 2000}
    assert told == [sizes, "tiny", "5", "0.1"]
    assert forgotten, "or names could tell of the validation text that another seed was scored on"
    assert done.steps == 7 and 0 < done.seconds < time.monotonic() - began
    assert "steps:7" in (tmp_path / "out/output.log").read_text()


HUNTS = {
    "a glob of the data folder": "places = list(Path(os.environ['DATA_PATH']).glob('*.bin'))",
    "links that are resolved": (
        "places = [q for p in Path(os.environ['DATA_PATH']).iterdir() for q in p.resolve().parent.iterdir()]"
    ),
    "folders above": "places = [p for i in range(4) for p in Path('./' + '../' * i).glob('*/*.bin')]",
    "the whole file system": (
        "places = [Path(d, f) for d, _, names in os.walk('/') for f in names"
        " if f.endswith(('.bin', '.jsonl', '.xz')) and not d.startswith(('/proc', '/sys'))]"
    ),
    "its absolute path": "places = [Path(CLONE)] + list(Path(CLONE).parent.glob('*'))",
    "the repository": "places = list(Path(REPO).glob('data/**/*')) + list(Path(REPO).glob('runs/**/*'))",
    "home": "places = [p for h in ('~', '/root', '/home') for p in Path(h).expanduser().glob('**/*.bin')]",
    "another process's root": "places = list(Path('/proc').glob('*/root' + CLONE))",
    "the objects of git": (
        "places = [p for d in [Path(REPO), *Path(REPO).parents] for p in (d / '.git').glob('**/*')]"
        " + list(Path(REPO).glob('.git'))"
    ),
    "temporary folders": (
        "places = [p for d in ('/tmp', '/var/tmp', '/dev/shm', '/run') for p in Path(d).glob('**/*')]"
    ),
    "where its mounts come from": (
        "roots = [line.split()[3] for line in open('/proc/self/mountinfo')]"
        "\nplaces = [p for root in roots if 'verify' in root for p in Path(root).parent.glob('**/*')]"
    ),
    "what lies beside its work": "places = list(Path('/verify').glob('**/*'))",
    "what was left open": "places = list(Path('/proc/self/fd').iterdir())",
}


@needs_user_namespace
@pytest.mark.parametrize("hunt", HUNTS, ids=lambda name: name)
def test_no_way_leads_to_validation_text(hunt, tmp_path, data):
    """Each of these finds the validation shard where a script runs as its author."""
    assert train(tmp_path, data, hunter(hunt, data), limit=600.0)[1] == []


@pytest.mark.parametrize(
    "hunt",
    ["a glob of the data folder", "links that are resolved", "its absolute path", "the objects of git"],
)
def test_the_hunts_find_it_without_a_sandbox(hunt, tmp_path, data):
    """Or the test above could not fail."""
    (tmp_path / "hunt.py").write_text(WRITE + hunter(hunt, data))
    environment = {"DATA_PATH": str(data), "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "hunt.py"], cwd=tmp_path, env=environment, check=True)
    assert json.loads((tmp_path / "final_model.bin").read_text())


def hunter(hunt: str, data: Path) -> str:
    """A script that hands in the paths at which it found the validation shard."""
    clone = data / "fineweb_val_000000.bin"
    return (
        f"CLONE, REPO = {str(clone)!r}, {str(REPO)!r}\n{HUNTS[hunt]}\n"
        "found = []\n"
        "for place in places:\n"
        "    try:\n"
        "        content = place.read_bytes()[:20000] if place.is_file() else b''\n"
        "    except OSError:\n"
        "        continue\n"
        f"    marked = {struct.pack('<H', MARK)!r} * 50 in content\n"  # three are in a .pyc of Python 3.10
        "    if marked or 'sample_text' in place.name or '.git' in place.parts:\n"
        "        found.append(str(place))\n"
        "hand_in(found)\n"
    )


@needs_user_namespace
def test_neither_its_artifact_nor_the_network_nor_texts_of_the_system_are_there(tmp_path, data):
    script = """
import ctypes, socket, sys
found = [str(p) for p in Path('/verify/entry').rglob('*') if p.suffix == '.bin']
found += [str(p) for p in Path('/usr/share').glob('*')] + [n for n in os.environ if n.startswith('SECRET')]
try:
    socket.create_connection(('127.0.0.1', 22), 1)
    found.append('network')
except OSError as error:
    pass
try:
    Path('/verify/entry/train_gpt.py').write_text('')
    found.append('writable')
except OSError:
    pass
mode = os.stat("/dev/full").st_mode  # a device of the machine's, which a user namespace makes root's own
os.chmod("/dev/full", 0o1666)
found += ["device"] * (os.stat("/dev/full").st_mode != mode)
found += os.listdir("/proc/1")  # bubblewrap, the same user; PTRACE_SEIZE
found += ["cores"] * (ctypes.CDLL(None).setrlimit(4, bytes(16)) == 0)  # by a program of the system's
found += ["ptrace"] * (ctypes.CDLL(None).ptrace(0x4206, 1, None, None) == 0)
hand_in(found)
"""
    mode = os.stat("/dev/full").st_mode
    assert train(tmp_path, data, script)[1] == [] and os.stat("/dev/full").st_mode == mode


@needs_user_namespace
@pytest.mark.parametrize("what", ["MEMORY_RESERVE", "DISK_RESERVE"])
def test_a_training_ends_before_the_machine_is_full(tmp_path, data, monkeypatch, what):
    monkeypatch.setattr(retrain, what, 1 << 60)
    with pytest.raises(GolfError, match="seed 5: training was ended: the"):
        train(tmp_path, data, "time.sleep(600)", limit=600.0)


@needs_user_namespace
@pytest.mark.parametrize("script, message", [
    ("print('out of ideas')", "no final_model.bin .exit code 0.*out of ideas"),
    ("raise SystemExit('no such shard')", "no final_model.bin .exit code 1.*no such shard"),
    ("os.symlink('/etc/passwd', 'final_model.bin')", "no final_model.bin"),
    ("os.mkdir('a'); hand_in(1); os.chdir('a'); hand_in(1)", "2 files final_model.bin"),
    ("hand_in(1); time.sleep(60)", "still running"),
])  # fmt: skip
def test_a_training_that_comes_to_nothing_is_one_line(script, message, tmp_path, data):
    limit = 3.0 if "sleep" in script else 30.0
    with pytest.raises(GolfError, match=message) as caught:
        retrain.train(plan(tmp_path, data, WRITE + script, limit=limit), tmp_path / "out")
    assert "\n" not in str(caught.value)


@needs_user_namespace
def test_our_clock_counts_until_the_artifact_is_written_last(tmp_path, data):
    done, told = train(tmp_path, data, "hand_in(1); time.sleep(1.5); hand_in([2, 3]); time.sleep(1.5)")
    assert told == [2, 3] and 1.5 <= done.seconds


# ---- What can be told on this machine


def claim(**more):
    command = "LR=0.1 SEED=5 python3 records/t/e/train_gpt.py --fast"
    return dict(command=command, hardware="2-core x86 CPU") | more


def test_the_configuration_is_the_commands_without_places(tmp_path, data):
    entry = plan(tmp_path, data, "").entry
    text = "LR=0.1 DATA_PATH=/a VAL_DATA_PATH=/b EVAL_ONLY=x RESUME=1 SEED=5 torchrun --nproc_per_node=2 "
    env, world, arguments = verify.configuration(tmp_path, claim(command=text + "train_gpt.py --fast"), entry)
    assert (env, world, arguments) == ({"LR": "0.1"}, 2, ["--fast"])


@pytest.mark.parametrize("command, message", [
    ("A='x python3 train_gpt.py", "quote"), ("bash -c 'python3 train_gpt.py'", "by hand"),
    ("python3 other.py", "by hand"),
    (f"TEXT={'a' * 5000} python3 train_gpt.py", "bytes long"),
    (f"python3 train_gpt.py {'a' * 5000}", "bytes long"),
])  # fmt: skip
def test_a_command_that_cannot_be_repeated_is_one_line(command, message, tmp_path, data):
    entry = plan(tmp_path, data, "").entry
    with pytest.raises(GolfError, match=message):
        verify.configuration(tmp_path, claim(command=command), entry)


@pytest.mark.parametrize(
    "hardware, device, message",
    [("NVIDIA GeForce RTX 4090", "cuda", "days"), ("Apple M4 Pro", "mlx", "MLX"), ("RTX 4090", None, "days")],
)
def test_what_was_trained_elsewhere_is_one_line(hardware, device, message, tmp_path, monkeypatch):
    monkeypatch.setattr(verify.machine, "has_nvidia", lambda: False)
    (tmp_path / "train_gpt.py").touch()
    if device:
        event = {"event": "start", "device": device}
        (tmp_path / "metrics_seed5.jsonl").write_text(json.dumps(event) + "\n")
    with pytest.raises(GolfError, match=message, check=used_wrongly):
        verify.pick_device(tmp_path, claim(hardware=hardware), "auto")


def test_a_cpus_entry_is_retrained_on_a_cpu(tmp_path):
    (tmp_path / "train_gpt.py").touch()
    assert verify.pick_device(tmp_path, claim(), "auto") == "cpu"


def test_fewer_train_shards_than_the_entry_had_are_one_line(tmp_path, data):
    entry = plan(tmp_path, data, "").entry
    assert len(verify.train_shards(tmp_path, data, entry)) == 2
    for count in (-1, 1, 3):
        event = {"event": "start", "train_files": count}
        (tmp_path / "metrics_seed5.jsonl").write_text(json.dumps(event) + "\n")
        if count < 3:
            (one,) = verify.train_shards(tmp_path, data, entry)
            assert one.name == "fineweb_train_000000.bin"
    with pytest.raises(GolfError, match="2 train shards; the entry had 3"):
        verify.train_shards(tmp_path, data, entry)


@pytest.mark.parametrize("text, count", [("4096", 4096), ("", 0), ("-1", 0), ("9" * 30, 0), ("x", 0)])
def test_the_stand_in_is_as_long_as_a_run_asks(text, count):
    assert verify.targets_asked({"VAL_MAX_TOKENS": text}) == count and verify.targets_asked({}) == 0


@needs_user_namespace
def test_shards_may_be_links_to_files_of_other_names(tmp_path, data):
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for i, path in enumerate(sorted(data.glob("fineweb_train_*.bin"))):
        path.rename(blobs / f"{i}abc")
        path.symlink_to(blobs / f"{i}abc")
    script = "hand_in(sorted(p.name for p in Path(os.environ['DATA_PATH']).iterdir()))"
    names = ["fineweb_train_000000.bin", "fineweb_train_000001.bin", "fineweb_val_000000.bin"]
    assert train(tmp_path, data, script)[1] == names


# ---- The rule


def seeds(*pairs, steps=(100, 100), in_time=False, failed=()):
    more = dict(claimed_steps=steps[1], steps=steps[0], seconds=10.0, in_time=in_time, failed=failed)
    return [verify.Seed(seed=i, claimed=a, retrained=b, **more) for i, (a, b) in enumerate(pairs)]


RULES = track.load("track_sample_5min") | dict(audit_control=None)
THREE = {"seeds": [dict(val_bpb=v) for v in (2.0, 2.005, 2.01)]}  # spread 0.005: 0.0122 allowed of three


@pytest.mark.parametrize("worse, steps, in_time, passed", [
    (-1e-9, (100, 100), False, True), (-0.3, (100, 100), False, True), (0.012, (100, 100), False, True),
    (0.013, (100, 100), False, False),
    (0.013, (300, 100), False, False),  # more training, and worse
    (0.013, (80, 100), False, None),  # a slower machine
    (0.0, (80, 100), False, True),
    (0.0, (300, 100), False, None),  # a faster one confirms nothing
    (0.0, (None, 100), False, True), (0.013, (100, None), False, None),
    # speed is no excuse where the clock ended neither training
    (0.012, (None, None), True, True), (0.013, (None, None), True, False),
])  # fmt: skip
def test_the_rule(worse, steps, in_time, passed):
    pairs = [(v["val_bpb"], v["val_bpb"] + worse) for v in THREE["seeds"]]
    (rule,) = verify.judge(RULES, THREE, seeds(*pairs, steps=steps, in_time=in_time))
    assert rule.passed is passed, rule.figure
    assert ("--steps" in rule.figure) is (passed is None and None not in steps)
    assert ("before the clock" in rule.figure) is in_time and "-0.0000" not in rule.figure


def test_one_seed_is_allowed_more_and_a_claimed_spread_buys_little():
    (one,) = verify.judge(RULES, THREE, seeds((2.0, 2.02)))
    assert one.passed is True  # 0.0212 of one
    wide = {"seeds": [dict(val_bpb=v) for v in (1.0, 2.0, 3.0)]}
    (rule,) = verify.judge(RULES, wide, seeds((2.0, 2.05)))
    assert rule.passed is False and "0.0424 allowed" in rule.figure


def test_the_references_seeds_stand_in_where_an_entry_has_one():
    rules = track.load("track_sample_5min")
    assert rules["audit_control"]
    spread, whose = verify.spread_of(rules, {"seeds": [dict(val_bpb=2.0)]})
    assert whose == "the audit control's seeds" and verify.LEAST_SPREAD <= spread <= verify.MOST_SPREAD
    assert verify.spread_of(RULES, {})[0] == verify.USUAL_SPREAD


def test_a_retrained_artifact_that_fails_the_audit_fails():
    rules = verify.judge(RULES, THREE, seeds((2.0, 2.0), failed=("causal",)))
    assert [r.passed for r in rules] == [True, False] and "causal" in rules[1].figure


def test_a_late_artifact_needs_a_person(tmp_path, data):
    made = plan(tmp_path, data, "")
    (seed,) = seeds((2.0, 2.0))
    found = [verify.clock([made], [replace(seed, seconds=s)], by_steps=False)[0] for s in (306, 304)]
    assert [rule.passed for rule in found] == [None, True]


def test_weights_beside_the_script_need_a_person(tmp_path, data):
    (rule,) = verify.extras(plan(tmp_path, data, "", files={"tools.py": "", "start.npz": ""}).entry)
    assert rule.passed is None and "start.npz" in rule.figure and "tools.py" not in rule.figure


# ---- Whole, with the bigram example


@pytest.fixture(scope="module")
def clone(tmp_path_factory, sample_data):
    """A folder with the sample data where an example can be made as in the repository; its track has
    no reference, since scoring that takes the longest."""
    root = tmp_path_factory.mktemp("clone")
    (root / "track.json").write_text(json.dumps(RULES))
    shutil.copytree(sample_data, root / "data")
    return root


def make_entry(root: Path, glob: str, monkeypatch) -> Path:
    """The bigram example, counted over the shards that `glob` finds, with the claims that it then has."""
    monkeypatch.chdir(root)
    make = load_script(EXAMPLES / "make.py")
    folder = root / "bigram"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(EXAMPLES / "bigram", folder)
    script = (folder / "train_gpt.py").read_text()
    assert '"fineweb_train_*.bin"' in script
    (folder / "train_gpt.py").write_text(script.replace('"fineweb_train_*.bin"', f'"{glob}"'))
    rules = track.load("track_sample_5min")
    make.make(folder, *make.stream.load(rules, Path(make.DATA)), rules)
    return folder


@needs_user_namespace
@pytest.mark.slow
@pytest.mark.parametrize("glob, code", [("fineweb_train_*.bin", 0), ("fineweb_*.bin", 1)])
def test_an_entry_that_trains_on_what_it_is_scored_on_fails(glob, code, clone, monkeypatch, capsys, tmp_path):
    """With the validation shard in the glob the bigram example claims a better score that is its own."""
    folder = make_entry(clone, glob, monkeypatch)
    monkeypatch.setattr(command, "REPO", tmp_path)
    data = clone / "data/datasets/sample_sp1024"
    args = Namespace(folder=folder, seed=None, device="auto", data=data, steps=False)
    assert command.main(args) == code
    report = json.loads((tmp_path / "runs" / "verify-bigram" / "verify.json").read_text())
    (seed,) = report["seeds"]
    assert (seed["retrained"] - seed["claimed"] > 0.05) is bool(code)
    assert report["verdict"] == ("FAIL" if code else "PASS"), capsys.readouterr().out


@needs_user_namespace
@pytest.mark.slow
def test_a_small_run_of_the_starter_comes_to_its_claim_again(clone, monkeypatch, tmp_path):
    """The trainer as it is runs in the sandbox, finds all it needs and ends as its log says."""
    knobs = dict(NUM_LAYERS=2, MODEL_DIM=64, NUM_HEADS=2, NUM_KV_HEADS=1, ITERATIONS=12, COMPILE=0)
    knobs |= dict(TRAIN_BATCH_TOKENS=1024, VAL_MAX_TOKENS=65536, DEVICE="cpu")
    knobs |= dict(RUN_ID="small", OUT_DIR=tmp_path, DATA_PATH=clone / "data/datasets/sample_sp1024")
    knobs |= dict(TOKENIZER_PATH=clone / "data/tokenizers/sample_1024_bpe.model", OMP_NUM_THREADS=1)
    env = {name: str(value) for name, value in knobs.items()}
    passed(run_script("golf.sh", "run", "configs/quickstart.env", env=env, timeout=600))
    folder = clone / "small"
    words = ("--author", "a", "--github-id", "b", "--blurb", "c", "--track", clone)
    done = run_script("golf.sh", "new", tmp_path / "small", "--out", folder, *words)
    assert folder.is_dir(), done.stdout + done.stderr
    readme = (folder / "README.md").read_text().replace(submission.IDEA, "Small, so that a test is short.")
    (folder / "README.md").write_text(readme)
    relist(folder)
    monkeypatch.setattr(command, "REPO", tmp_path)
    args = Namespace(folder=folder, seed=None, device="auto", data=knobs["DATA_PATH"], steps=True)
    assert command.main(args) == 0
    report = json.loads((tmp_path / "runs" / "verify-small" / "verify.json").read_text())
    (seed,) = report["seeds"]
    assert seed["steps"] == seed["claimed_steps"] == 12 and report["verdict"] == "PASS"
    assert seed["retrained"] == pytest.approx(seed["claimed"], abs=0.01)


def test_a_machine_that_allows_no_proc_of_its_own_is_told(monkeypatch):
    """As in most containers, where root's sandbox for scoring works all the same."""
    refusal = "bwrap: Can't mount proc on /newroot/proc: Operation not permitted\n"
    done = subprocess.CompletedProcess([], 1, "", refusal)
    monkeypatch.setattr(retrain.sandbox, "why_not", lambda: None)
    monkeypatch.setattr(retrain.subprocess, "run", lambda *args, **how: done)
    said = retrain.why_not.__wrapped__()
    assert "no user namespace with a /proc of its own here (bwrap: Can't mount proc" in said
