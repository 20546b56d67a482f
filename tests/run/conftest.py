"""golf run on the tiny repository, and its one line of an error."""

from conftest import run_golf


def golf(repo, *args, config="tiny.env", **env):
    return run_golf("run", f"configs/{config}", *args, env=env, repo=repo)


def write_config(repo, text, name="mine.env"):
    (repo / "configs" / name).write_bytes(text.encode())
    return name


def one_line(text: str) -> str:
    """The only line of an error message; a traceback or a second line fails the test."""
    assert "Traceback" not in text
    (line,) = text.strip().splitlines()
    return line
