"""submission.json: its command, and the template that the documentation shows."""

import json
import shlex
import subprocess
import sys

import pytest
from conftest import REPO
from golf.core import schema, submission, track


@pytest.mark.parametrize("value", ["plain", "two words", "it's", 'say "x"', "$HOME;rm -rf", "a=b", "", "ä"])
def test_any_value_survives_a_shell(value):
    line = submission.command_line({"NAME": value, "SEED": "1"}, ["python3", "a b/train_gpt.py"])
    assert submission.parse_command(line) == ({"NAME": value, "SEED": "1"}, ["python3", "a b/train_gpt.py"])
    code = "import os, sys; print(ascii([os.environ['NAME'], *sys.argv[1:]]))"
    command = line.replace("python3", f"{shlex.quote(sys.executable)} -c {shlex.quote(code)}")
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ascii([value, "a b/train_gpt.py"])


def test_template_is_what_the_schema_asks_for():
    template = json.loads((REPO / "docs/submission_template.json").read_text())
    assert schema.errors("submission", template) == []
    asked = schema.validator("submission").schema["properties"]
    assert set(template) == set(asked)
    assert {e["role"] for e in template["files"]} <= set(submission.ROLES)
    assert asked["files"]["items"]["properties"]["role"]["enum"] == list(submission.ROLES)
    seed, track_ = (template["seeds"][0], track.read(REPO / f"records/{template['track']}/track.json"))
    assert seed["val_loss"] == pytest.approx(sum(s[0] for s in seed["segments"]) / track_["targets"])
    assert len(seed["segments"]) == submission.SEGMENTS
