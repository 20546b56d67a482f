"""Env files: what is read, what is refused, what wins."""

import re

import pytest
from conftest import REPO, passed, refused, run_golf, run_script, used_wrongly
from golf.core import envfile, runlog, trainers
from golf.core.errors import GolfError
from run.conftest import golf, write_config


@pytest.mark.parametrize(("line", "value"), [
    ("A=1", "1"), ("export A=1", "1"),
    ("A=a b  # why", "a b"),
    ("A='x # y' # z", "x # y"), ('A="it\'s"', "it's"), ("A=", ""), ("A=# nothing", ""),
    ("A=1 # not `x`, not $(x)", "1"), ("A='1' # not `x`", "1"), ("A=a#b", "a#b"), ("  A=1", "1"),
])  # fmt: skip
def test_env_values(tmp_path, line, value):
    path = tmp_path / "a.env"
    for end in ("\n", "\r\n", "\r"):
        path.write_bytes(f"\ufeff# note\n\n{line}\n".replace("\n", end).encode())
        assert envfile.parse(path) == {"A": value}


@pytest.mark.parametrize(
    "line",
    ["A = 1", "A", "A='1", 'A="1" 2', "A=$(touch x)", "A='`x`'", "A=`x`", "1A=2", "A=x\0y", "set A=1", "A: 1",
     "A=5$;rm", "A=1; B=2", "A=1 B=2", "export A=1 B=2", "A=x && y", "A=x > y", "A=\u201cx\u201d", "A=$'x'",
     "A=my\\ x", "A=x\\", "A=C:\\x", "A='C:\\x'", "A=%HOME%/x", "A=x\x0cy", "A=x\u200by", "A=x\x85y"],
)  # fmt: skip
def test_env_lines_refused_with_file_and_line(tmp_path, line):
    path = tmp_path / "a.env"
    path.write_text(f"B=1\n{line}\n")
    with pytest.raises(GolfError, match=r"a\.env:2: ", check=used_wrongly):
        envfile.parse(path)


@pytest.mark.parametrize(
    "value", ["~", "~/x", "'~/x'", "~other/x", "$HOME/x", '"${HOME}/x"', "'$HOME/x'", "/a:~/b", "$RUN_ID"]
)
def test_what_only_a_shell_expands_is_refused(tmp_path, monkeypatch, value):
    """Or a folder that is called ~ is made, and somebody removes it with rm -r ~."""
    monkeypatch.setenv("HOME", "/home/me")
    bare = value.strip("'\"")
    (tmp_path / "mine.env").write_text(f"RUN_ID=x\nOUT_DIR={value}\n")
    with pytest.raises(GolfError, match=r"mine.env:2: ~ and \$NAME are not expanded") as told:
        envfile.parse(tmp_path / "mine.env")
    if bare in ("~/x", "$HOME/x", "${HOME}/x"):
        assert str(told.value).endswith("write /home/me/x")
    monkeypatch.setenv("OUT_DIR", "")  # as it was before, it is again after
    envfile.set_words([f"OUT_DIR={bare}"], {"OUT_DIR": ""})
    with pytest.raises(GolfError, match=r"OUT_DIR: ~ and \$NAME are not expanded"):
        envfile.settings({}, {"OUT_DIR": ""})


def test_a_user_without_a_home_is_told_all_the_same(tmp_path, monkeypatch):
    # neither HOME nor an entry of passwd
    monkeypatch.setattr(envfile.os.path, "expanduser", lambda path: path)
    monkeypatch.setattr(envfile.Path, "home", lambda: 1 / 0)
    (tmp_path / "a.env").write_text("OUT_DIR=~/x\n")
    with pytest.raises(GolfError, match="a.env:1: .* not expanded here; write the value itself"):
        envfile.parse(tmp_path / "a.env")


@pytest.mark.parametrize(("content", "words"), [
    (b"A=1\nB=\xe9\n", "not UTF-8 text (byte 6)"), ("A=1\n".encode("utf-16"), "not UTF-8 text"),
    (b"A=1\n" * (1 << 19), "over 1,048,576 bytes"), (None, "not a regular file"),
])  # fmt: skip
def test_what_is_no_env_file_is_refused_in_a_line(tmp_path, content, words):
    path = tmp_path / "a.env"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(GolfError, match=re.escape(words)):
        envfile.parse(path)


def test_names_that_libraries_read_are_accepted():
    names = """GLOO_SOCKET_IFNAME TOKENIZERS_PARALLELISM UCX_TLS KMP_AFFINITY MKL_NUM_THREADS TMPDIR
        OPENBLAS_NUM_THREADS TRITON_CACHE_DIR TORCHINDUCTOR_CACHE_DIR LD_LIBRARY_PATH http_proxy
        AGX_RELAX_CDM_CTXSTORE_TIMEOUT NVIDIA_TF32_OVERRIDE MALLOC_ARENA_MAX PYTHONHASHSEED CC TZ"""
    for name in names.split():
        assert envfile.is_known(name, {}), name
    for name in ("TMPDIRR", "MODEL_DIMM", "LRATE", "PROXY"):
        assert not envfile.is_known(name, {}), name


@pytest.mark.slow
def test_names_that_our_messages_recommend_are_accepted():
    """Every NAME=value in a message or a page of this repository can stand in some trainer's config."""
    knobs = {}
    for script in (REPO / "train_gpt.py", REPO / "train_gpt_mlx.py", *REPO.glob("records/*/*/train_gpt.py")):
        knobs |= trainers.read_knobs(script)
    paths = [*REPO.glob("scripts/**/*.py"), *REPO.glob("data/*.py"), *REPO.glob("*.py"), REPO / "README.md",
             *REPO.glob("docs/*.md"), *REPO.glob("data/*.md"), *REPO.glob("configs/*.env")]  # fmt: skip
    found = set()
    for path in paths:
        text = path.read_text(encoding="utf-8")
        found |= set(re.findall(r"\b(?:set|export|with|or|unset) `?([A-Z][A-Z0-9]*_[A-Z0-9_]+)=?\b", text))
        found |= set(re.findall(r"\b([A-Z][A-Z0-9]*_[A-Z0-9_]+)=[\w./-]", text))
    assert {"TORCH_INDEX_URL", "AGX_RELAX_CDM_CTXSTORE_TIMEOUT", "OUT_DIR", "HF_ENDPOINT"} <= found
    code = "\n".join(path.read_text(encoding="utf-8") for path in paths if path.suffix == ".py")
    assigned = re.findall(r"(?m)^\s*([A-Z][A-Z0-9_, ]+?)(?:: \w+)? = ", code)
    ours = {name for names in assigned for name in names.split(", ")}  # constants
    strange = {name for name in found - ours if not envfile.is_known(name, knobs)}
    assert not strange


def test_unknown_name_names_the_nearest(tiny_repo):
    config = write_config(tiny_repo, "ITERATIONS=3\r\nMODEL_DIMM=64\r\n")
    refused(golf(tiny_repo, config=config), "mine.env:2", "did you mean MODEL_DIM?")
    names = "TRAIN_MAX_SEQ_LEN=1\nOMP_NUM_THREADS=1\nNPROC_PER_NODE=1\nPYTORCH_X=1\nHF_X=1\n"
    assert golf(tiny_repo, config=write_config(tiny_repo, names)).returncode == 0


def test_environment_wins_and_paths_count_from_where_they_stand(tiny_repo, tmp_path):
    config = write_config(tiny_repo, "RUN_ID=a\nMODEL_DIM=64\nDATA_PATH=data/datasets/tiny\n")
    done = run_script(
        "golf.sh", "run", tiny_repo / "configs" / config, "--default", "DEVICE=cpu",
        env={"MODEL_DIM": "32", "OUT_DIR": "here"}, cwd=tmp_path, repo=tiny_repo,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    settings = runlog.read_run(tmp_path / "here" / "a")["start"]["config"]
    assert (settings["MODEL_DIM"], settings["DEVICE"]) == (32, "cpu")
    assert settings["DATA_PATH"] == "data/datasets/tiny"


def test_settings_behind_the_config_do_what_they_do_before_it(tiny_repo):
    config = write_config(tiny_repo, "RUN_ID=a\nMODEL_DIM=64\n")
    done = golf(tiny_repo, "MODEL_DIM=32", "--trainer", "train_gpt.py", "RUN_ID=b", config=config, RUN_ID="c")
    assert done.returncode == 0, done.stderr
    assert runlog.read_run(tiny_repo / "runs/b")["start"]["config"]["MODEL_DIM"] == 32
    env = {"RUN_ID": "d"}
    done = passed(run_golf("run", "MODEL_DIM=16", f"configs/{config}", env=env, repo=tiny_repo))
    assert runlog.read_run(tiny_repo / "runs/d")["start"]["config"]["MODEL_DIM"] == 16
    done = run_script("run_cuda_baseline.sh", f"configs/{config}", "MODEL_DIMM=1", repo=tiny_repo)
    refused(done, "'MODEL_DIMM=1': unknown name MODEL_DIMM; did you mean MODEL_DIM?")
    for words, said in ((["b.env"], "2 configs"), (["--nonsense"], "unrecognized arguments")):
        refused(golf(tiny_repo, *words), said)
    refused(golf(tiny_repo, "--no-summary", "x"))
