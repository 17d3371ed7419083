"""Exported files: what is read is what was written, or one sentence says what is damaged."""

import hashlib
import pathlib
import random
import shutil
import signal
import subprocess
import sys

import pytest

import jaxad
from jaxad.run.errors import UserError
from jaxad.run.exported import read_exported, write_exported

RECORD = {"image_threshold": 0.25, "outputs": {"score": {"shape": ["batch"]}}, "reason": None}


@pytest.fixture
def file(tmp_path):
    write_exported(tmp_path / "a.onnx", bytes(range(256)), RECORD)
    return tmp_path / "a.onnx"


def test_it_is_read_as_it_was_written(file, tmp_path):
    assert read_exported(file) == (bytes(range(256)), RECORD)
    assert jaxad.read_exported(str(file)).record == RECORD
    # As a set, under other names, it is the same.
    for part in ("", ".json", ".sha256"):
        shutil.copy(f"{file}{part}", tmp_path / f"b.onnx{part}")
    assert read_exported(tmp_path / "b.onnx").data == bytes(range(256))


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="sha256sum is not here")
def test_sha256sum_checks_it(file):
    check = ["sha256sum", "--check", "--strict", "a.onnx.sha256"]
    assert subprocess.run(check, cwd=file.parent, capture_output=True).returncode == 0
    file.write_bytes(b"")
    done = subprocess.run(check, cwd=file.parent, capture_output=True, text=True)
    assert done.returncode == 1 and "a.onnx: FAILED" in done.stdout


@pytest.mark.parametrize("part", ["", ".json", ".sha256"])
def test_whatever_is_damaged_is_noticed(file, part):
    path = pathlib.Path(f"{file}{part}")
    content, rng, refused = path.read_bytes(), random.Random(part), 0
    for _ in range(200):
        damaged = bytearray(content)
        place = rng.randrange(len(damaged))
        match rng.randrange(4):
            case 0 | 1:
                damaged[place] ^= 1 << rng.randrange(8)
            case 2:
                del damaged[place:]
            case 3:
                damaged[place : place + 16] = rng.randbytes(16)
        path.write_bytes(damaged)
        try:
            assert read_exported(file) == (bytes(range(256)), RECORD)
            assert part == ".sha256", "only the names there make no difference"
        except UserError as error:
            assert "is damaged: its digest is not that in" in str(error)
            refused += 1
    assert refused > (50 if part == ".sha256" else 190)


@pytest.mark.parametrize("part", ["", ".json", ".sha256"])
def test_a_part_that_is_missing_is_named(file, part):
    pathlib.Path(f"{file}{part}").unlink()
    with pytest.raises(
        UserError, match=rf"a\.onnx{part} cannot be read: No such .* copy all three"
    ):
        read_exported(file)


def test_the_parts_of_two_exports_are_not_mixed(file):
    other = file.with_name("b.onnx")
    write_exported(other, b"another", RECORD | {"image_threshold": 0.5})
    shutil.copy(f"{other}.json", f"{file}.json")
    with pytest.raises(UserError, match=r"a\.onnx\.json is damaged"):
        read_exported(file)


def test_a_name_of_several_lines(tmp_path):
    file = tmp_path / "a\nb\\\udcff"
    write_exported(file, b"content", RECORD)
    assert read_exported(file) == (b"content", RECORD)
    first = file.with_name(file.name + ".sha256").read_text().splitlines()[0]
    assert first.startswith(hashlib.sha256(b"content").hexdigest())


def test_what_a_killed_export_left_goes_at_the_next(tmp_path):
    program = (
        "import os, pathlib, signal, sys; from jaxad.run import exported\n"
        "def killed(path, content, what):\n"
        "    if path.suffix == '.sha256': os.kill(os.getpid(), signal.SIGKILL)\n"
        "    write(path, content, what=what)\n"
        "write, exported.write_bytes = exported.write_bytes, killed\n"
        "exported.write_exported(pathlib.Path(sys.argv[1]), b'x', {})\n"
    )
    target = tmp_path / "a.onnx"
    done = subprocess.run([sys.executable, "-c", program, str(target)], check=False)
    assert done.returncode == -signal.SIGKILL and len(list(tmp_path.iterdir())) == 2
    write_exported(target, b"x", RECORD)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "a.onnx",
        "a.onnx.json",
        "a.onnx.sha256",
    ]
