"""Files are there whole or not at all; tables come back as they were written."""

import csv
import errno
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from jaxad.run import files
from jaxad.run.errors import UserError
from jaxad.run.folder import RunFolder


def names(folder: pathlib.Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_takes_its_name_when_it_is_whole(tmp_path):
    target = tmp_path / "below" / "a.txt"
    with files.writing(target) as temporary:
        temporary.write_text("new")
        assert not target.exists() and temporary.parent == target.parent
    assert target.read_text() == "new" and names(target.parent) == ["a.txt"]


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_a_failure_leaves_what_was_there(tmp_path, failure):
    target = tmp_path / "a.txt"
    target.write_text("old")
    expected = UserError if isinstance(failure, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as raised, files.writing(target, advice="; tidy up") as temporary:
        temporary.write_text("ne")
        raise failure
    if expected is UserError:
        assert str(raised.value) == f"{target} could not be written: No space left; tidy up"
    assert target.read_text() == "old" and names(tmp_path) == ["a.txt"]


def test_a_folder_is_written_like_a_file(tmp_path):
    with files.writing(tmp_path / "folder") as temporary:
        temporary.mkdir()
        (temporary / "a").write_text("1")
    assert names(tmp_path / "folder") == ["a"]
    # One that holds something is never replaced.
    with (
        pytest.raises(UserError, match="--output x could not be written"),
        files.writing(tmp_path / "folder", what="--output x") as temporary,
    ):
        temporary.mkdir()
        (temporary / "b").write_text("2")
    assert names(tmp_path) == ["folder"] and names(tmp_path / "folder") == ["a"]


def test_writers_of_one_file_do_not_meet(tmp_path):
    target = tmp_path / "a"
    both = threading.Barrier(2)

    def write(text):
        with files.writing(target) as temporary:
            temporary.write_text(text)
            both.wait(timeout=30)

    threads = [threading.Thread(target=write, args=(letter * 1000,)) for letter in "xy"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert target.read_text() in ("x" * 1000, "y" * 1000) and names(tmp_path) == ["a"]


def test_the_longest_name_can_be_written(tmp_path):
    name = "é" * 127
    files.write_text(tmp_path / name, "x")
    assert names(tmp_path) == [name]


def test_what_a_kill_left_is_removed_and_nothing_else(tmp_path):
    with files.writing(tmp_path / "a[1].npy") as temporary:
        temporary.write_text("")
        kept = temporary.with_name(temporary.name.replace(".a[1]", ".b"))
        for path in (kept, tmp_path / ".hidden", tmp_path / "other.tmp"):
            path.write_text("mine")
        files.remove_unfinished(tmp_path)
        assert temporary.exists()
        files.remove_unfinished(tmp_path, "a[1].npy", older_than_seconds=0)
        assert not temporary.exists() and kept.exists()
        temporary.mkdir()
        (temporary / "part").write_text("")
        for path in tmp_path.iterdir():
            os.utime(path, (0, 0))
        files.remove_unfinished(tmp_path)
        assert names(tmp_path) == [".hidden", "other.tmp"]
        temporary.write_text("x")
    assert "a[1].npy" in names(tmp_path)


def test_a_folder_is_made_or_refused_in_one_sentence(tmp_path):
    files.make_folder(tmp_path / "a" / "b")
    assert names(tmp_path / "a" / "b") == []
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError) as raised:
            files.make_folder(path, what="--workdir x")
        text = f"--workdir x cannot be a folder: {tmp_path / 'file'} is a regular file"
        assert str(raised.value) == text


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files.tempfile, "TemporaryFile", refuse)
    with pytest.raises(UserError, match="cannot be written: Permission denied"):
        files.make_folder(tmp_path)


def test_json_is_valid_whatever_the_numbers(tmp_path):
    values = {1: np.float32(0.5), "a": (np.nan, np.inf, np.int64(3)), "b": np.arange(2)}
    files.write_json(tmp_path / "a.json", values)
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == {"1": 0.5, "a": [None, None, 3], "b": [0, 1]}


def test_names_that_are_not_unicode_can_be_written(tmp_path):
    files.write_text(tmp_path / "a", os.fsdecode(b"x\xff"))
    assert (tmp_path / "a").read_text() == "x?"


def test_a_table_comes_back(tmp_path):
    path = tmp_path / "a.csv"
    rows = [{"b": 'a "quoted", text\nof two lines', "a": 1, "left out": 5}, {"a": None, "b": 0.25}]
    files.write_csv(path, ["a", "b"], rows)
    with path.open(newline="") as stream:  # as Python's own reader sees it
        found = list(csv.reader(stream))
    assert found == [["a", "b"], ["1", rows[0]["b"]], ["", "0.25"]]
    assert files.read_csv(path) == [{"a": "1", "b": rows[0]["b"]}, {"b": "0.25"}]
    assert files.read_csv(tmp_path / "none.csv") == []


def test_a_line_that_a_kill_cut_off_is_dropped(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("step,loss\n1,0.5\n2,0.2")
    assert files.read_csv(path) == [{"step": "1", "loss": "0.5"}]
    path.write_text("step,loss\n1,0.5\n2\n")
    assert files.read_csv(path) == [{"step": "1", "loss": "0.5"}]


def test_files_that_belong_together_take_their_names_together(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text("old")
    with files.together():
        files.write_text(tmp_path / "a", "new", durable=True)
        files.write_text(tmp_path / "b", "new")
        assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text() == "old"
    assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text() == "new"
    with pytest.raises(UserError, match="No space left"), files.together():
        files.write_text(tmp_path / "a", "newer")
        with files.writing(tmp_path / "b") as temporary:
            temporary.write_text("ne")
            raise OSError(errno.ENOSPC, "No space left on device")
    assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text() == "new"
    assert names(tmp_path) == ["a", "b"]
    files.write_text(tmp_path / "a", "at once")
    assert (tmp_path / "a").read_text() == "at once"


def test_what_a_killed_process_left_goes_at_the_next_start(tmp_path):
    program = (
        "import os, signal, sys; from jaxad.run.files import writing\n"
        "with writing(sys.argv[1]) as temporary:\n"
        "    temporary.mkdir(); (temporary / 'part').write_text('x')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    target = tmp_path / "a"
    done = subprocess.run([sys.executable, "-c", program, str(target)], check=False)
    assert done.returncode == -signal.SIGKILL and len(names(tmp_path)) == 1
    files.remove_unfinished(tmp_path, "b")
    assert len(names(tmp_path)) == 1
    with files.writing(tmp_path / "mine") as temporary:
        temporary.write_text("being written")
        files.remove_unfinished(tmp_path)
    assert names(tmp_path) == ["mine"]
    files.remove_unfinished(tmp_path / "missing")


def test_a_run_is_cleaned_in_the_folders_of_its_folds_too(tmp_path):
    left = [tmp_path / place for place in (".", "figures", "folds/0", "folds/11")]
    for folder in left:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".timing.json.0123456789abcdef.tmp").write_text("x")
        os.utime(folder / ".timing.json.0123456789abcdef.tmp", (0, 0))
    RunFolder(tmp_path).remove_unfinished()
    assert not list(tmp_path.rglob("*.tmp"))


def test_what_another_machine_left_goes_when_it_is_old(tmp_path):
    for name in (".a.0123456789abcdef.tmp", f".a.{'0' * 8}-1-0123456789abcdef.tmp"):
        (tmp_path / name).write_text("")
        files.remove_unfinished(tmp_path)
        assert names(tmp_path) == [name]
        files.remove_unfinished(tmp_path, older_than_seconds=0)
        assert names(tmp_path) == []


def test_a_durable_write_reaches_the_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    synced = []
    original = files.sync
    monkeypatch.setattr(
        files,
        "sync",
        lambda path: (synced.append((path.name, (tmp_path / "a").exists())), original(path)),
    )
    files.write_text(tmp_path / "a", "x", durable=True)
    (file, before), folder = synced
    assert file.startswith(".a.") and not before and folder == (tmp_path.name, True)
