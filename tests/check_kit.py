"""What the tests of golf new and golf check share: a submission that passes, and its spoilers."""

import hashlib
import json
import shutil
import zlib
from pathlib import Path

import pytest
from conftest import container, passed, run_golf, tiny_repo
from golf.check import command as check
from golf.core import submission, track
from golf.core.files import sha256


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """(repository, folder, output): three finished seeds, and the submission made of them."""
    repo = tiny_repo.__wrapped__(tmp_path_factory.mktemp("made"))
    rules = json.loads((repo / "records/track_tiny/track.json").read_text())
    del rules["record_hardware"]  # the runs are a CPU's
    (repo / "records/track_tiny/track.json").write_text(json.dumps(rules))
    env = {"RUN_ID": "r", "SEEDS": "1,2,3"}
    passed(run_golf("run", "configs/tiny.env", env=env, repo=repo))
    runs = [f"runs/r-s{seed}" for seed in (1, 2, 3)]
    words = ["--name", "my idea", "--author", "A. Thor", "--github-id", "athor", "--blurb", "It helps."]
    done = passed(run_golf("new", *runs, *words, "--lane", "record", repo=repo))
    (folder,) = (repo / "records/track_tiny").glob("*_my-idea")
    readme = (folder / "README.md").read_text()
    (folder / "README.md").write_text(readme.replace(submission.IDEA, "Wider is better."))
    return repo, folder, done.stdout


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    """A copy of the submission that a test may spoil, under a track folder of its own."""
    repo, source, _ = made
    records = tmp_path / "records"
    monkeypatch.setattr(track, "RECORDS", records)
    (records / "track_tiny").mkdir(parents=True)
    shutil.copyfile(repo / "records/track_tiny/track.json", records / "track_tiny/track.json")
    return Path(shutil.copytree(source, records / "track_tiny" / source.name))


def found(folder, level=None) -> set[str]:
    """Ids of the findings on a folder."""
    return {f.rule for f in check.check_folder(folder).findings if level in (None, f.level)}


def edit(folder, change) -> None:
    """Applies `change` to the object in submission.json."""
    path = folder / "submission.json"
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def relist(folder) -> None:
    """Lists all files anew, by their sizes and hashes."""

    def change(value):
        for file in value["files"]:
            path = folder / file["path"]
            file.update(bytes=path.stat().st_size, sha256=sha256(path))

    edit(folder, change)


def edit_track(folder, change) -> None:
    path = folder.parent / "track.json"
    rules = json.loads(path.read_text())
    change(rules)
    path.write_text(json.dumps(rules))


def replace_text(folder, name, old, new) -> None:
    """Replaces text in a file of the folder and lists its new size and hash."""
    text = (folder / name).read_text()
    assert old in text
    write(folder, name, text.replace(old, new))


def write(folder, name, content, role=None) -> None:
    """Writes a file and lists it: anew, or as a new file with a role."""
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def change(value):
        entry = {"bytes": path.stat().st_size, "sha256": sha256(path)}
        old = next((e for e in value["files"] if e["path"] == name), None)
        if old is None:
            value["files"].append({"path": name, "role": role, **entry})
        else:
            old.update(entry)

    edit(folder, change)


def remove(folder, name) -> None:
    """Removes a file and its listing."""
    (folder / name).unlink()
    edit(folder, lambda v: v["files"].remove(listing(v, name)))


def listing(value, path) -> dict:
    return next(entry for entry in value["files"] if entry["path"] == path)


def add_code(folder, code) -> None:
    """Appends code to the script, which is then not what ran."""
    write(folder, "train_gpt.py", (folder / "train_gpt.py").read_text() + code)


def another_run(folder, mark, better=0.0) -> None:
    """Scores, logs, metrics and artifacts of another run, so many nats better: all that is claimed agrees."""
    claim = json.loads((folder / "submission.json").read_text())
    for seed in claim["seeds"]:
        name = seed["seed"]
        loss = seed["val_loss"] - better
        bpb = seed["val_bpb"] * loss / seed["val_loss"]
        segments = [[nats * loss / seed["val_loss"], size] for nats, size in seed["segments"]]
        for path in (f"train_seed{name}.log", f"metrics_seed{name}.jsonl"):
            text = (folder / path).read_text()
            text = text.replace(f"val_loss:{seed['val_loss']:.8f} val_bpb:{seed['val_bpb']:.8f}",
                                f"val_loss:{loss:.8f} val_bpb:{bpb:.8f}")  # fmt: skip
            lines = [json.loads(x) for x in text.splitlines()] if path.endswith("jsonl") else []
            for event in lines:
                if event.get("kind") == "sliding":
                    event.update(val_loss=loss, val_bpb=bpb, segments=segments)
                if event["event"] == "export":
                    event["artifact_sha256"] = repack(folder / seed["artifact"], mark)
            more = "".join(json.dumps(x) + "\n" for x in lines) or f"{text}# {mark}\n"
            (folder / path).write_text(more)
        seed.update(val_loss=loss, val_bpb=bpb, segments=segments)
    shutil.copy(folder / f"train_seed{claim['seeds'][0]['seed']}.log", folder / "train.log")
    for key in ("val_loss", "val_bpb"):
        claim[key] = sum(seed[key] for seed in claim["seeds"]) / len(claim["seeds"])
    (folder / "submission.json").write_text(json.dumps(claim))
    relist(folder)


def repack(path, mark) -> str:
    """Another artifact of the same size: its noise is of another run."""
    blob = bytearray(path.read_bytes())
    coded = zlib.decompress(blob[20:])
    noise = coded[:-8] + hashlib.sha256(mark.encode()).digest()[:8]
    path.write_bytes(container(noise, coded=zlib.compress(noise, 0)))
    return sha256(path)
