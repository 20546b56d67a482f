"""Where the sample text comes from: packages of named versions, of which prose alone is kept."""

import json
import lzma
import re
import shutil
import subprocess

import pytest
from conftest import REPO, load_script

builder = load_script(REPO / "data" / "build_sample_text.py")

needs_dpkg = pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="NOT TESTED: no dpkg-deb here")

# ---- Packages


def make_deb(folder, name, version):
    root = folder / "root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN").chmod(0o755)  # dpkg-deb wants it so, whatever the umask
    control = f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: a <a@b>\nDescription: x\n"
    (root / "DEBIAN" / "control").write_text(control)
    (root / "usr").mkdir()
    (root / "usr" / "text").write_text("inside")
    command = ["dpkg-deb", "--build", root, folder / f"{name}_{version}_all.deb"]
    subprocess.run(command, check=True, capture_output=True)
    shutil.rmtree(root)


@needs_dpkg
def test_a_packages_files_are_read(tmp_path):
    make_deb(tmp_path, "dict-devil", builder.PACKAGES["dict-devil"])
    assert builder.read_package(tmp_path, "dict-devil") == {"./usr/text": b"inside"}


@needs_dpkg
@pytest.mark.parametrize(
    "version, message", [("9.9-1", "is version 9.9-1; the sample text is made"), (None, "apt-get download")]
)
def test_another_version_or_none_is_one_line(version, message, tmp_path, capsys):
    if version:
        make_deb(tmp_path, "sqlite3-doc", version)
    assert builder.main([str(tmp_path), "--out", str(tmp_path / "text.jsonl.xz")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error and not (tmp_path / "text.jsonl.xz").exists()


# ---- The text that is committed


@pytest.mark.slow
def test_the_packages_give_the_committed_text_and_licence(tmp_path):
    """Byte for byte: whatever changes in the builder shows here."""
    words = [f"{name}={version}" for name, version in builder.PACKAGES.items()]
    apt = shutil.which("apt-get")
    if not apt or subprocess.run([apt, "download", *words], cwd=tmp_path, capture_output=True).returncode:
        pytest.skip("NOT TESTED: the Debian packages of the sample text cannot be fetched here")
    assert builder.main([str(tmp_path), "--out", str(tmp_path / "sample_text.jsonl.xz")]) == 0
    for name in ("sample_text.jsonl.xz", "SAMPLE_TEXT_LICENSE"):
        assert (tmp_path / name).read_bytes() == (REPO / "data" / name).read_bytes()


def test_the_committed_text_is_prose_and_its_licence_lies_beside():
    packed = (REPO / "data" / "sample_text.jsonl.xz").read_bytes()
    texts = [json.loads(line)["text"] for line in lzma.decompress(packed).decode().splitlines()]
    assert 2_400_000 < sum(len(text.encode()) for text in texts) < 2_800_000 and len(packed) < 1_000_000
    assert min(map(len, texts)) >= builder.MIN_CHARS and len(set(texts)) == len(texts)
    for pattern in (r"</?[a-z]+[ >]\w*=", r"&[a-z]+;", r"\{\w+\}", "sqlite>", "last modified on", "\t"):
        assert sum(bool(re.search(pattern, text)) for text in texts) <= 3, pattern
    assert not any(builder.COARSE.search(text) for text in texts)
    licence = (REPO / "data" / "SAMPLE_TEXT_LICENSE").read_text()
    assert all(f"{name} {version}" in licence for name, version in builder.PACKAGES.items())
    assert licence.lower().count("public domain") >= 3
