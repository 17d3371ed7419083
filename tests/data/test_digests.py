"""Images that were exchanged under the same names are named."""

from __future__ import annotations

import hashlib
import os
import pathlib
import zipfile

import pytest

from jaxad.data.digests import check_unchanged, contents_of
from jaxad.data.files import member_path
from jaxad.data.table import Sample, SampleTable
from jaxad.run.errors import UserError


def table_of(root: pathlib.Path, *paths: str) -> SampleTable:
    samples = tuple(Sample(path, "train", "good") for path in paths)
    return SampleTable(str(root), "folder", "", samples)


@pytest.fixture
def table(tmp_path):
    names = [f"good/{i}.png" for i in range(6)]
    (tmp_path / "good").mkdir()
    for i, name in enumerate(names):
        (tmp_path / name).write_bytes(bytes([i]) * (i + 1))
    return table_of(tmp_path, *(str(tmp_path / name) for name in names))


def test_sizes_and_digests_by_name(table, tmp_path):
    found = contents_of(table, table.samples)
    assert found["bytes"] == {f"good/{i}.png": i + 1 for i in range(6)}
    assert found["sha256"]["good/2.png"] == hashlib.sha256(b"\2\2\2").hexdigest()
    assert contents_of(table, table.samples, hashed=False) == found | {"sha256": {}}
    os.remove(tmp_path / "good/3.png")
    with pytest.raises(UserError, match=r"good/3.png cannot be read: No such file"):
        contents_of(table, table.samples)


def test_what_changed_is_named(table, tmp_path):
    before = contents_of(table, table.samples)
    (tmp_path / "good/0.png").write_bytes(b"longer")
    (tmp_path / "good/2.png").write_bytes(b"abc")
    now = contents_of(table, table.samples)
    with pytest.raises(
        UserError,
        match=r"since RUN was started with them: good/0.png \(1 bytes then, 6 now\), good/2.png "
        r"\(other content of the same size\); restore them",
    ):
        check_unchanged(before, now, run="RUN")
    sizes = contents_of(table, table.samples, hashed=False)
    with pytest.raises(UserError, match=r"good/0.png \(1 bytes then, 6 now\); restore"):
        check_unchanged(before, sizes, run="RUN")
    for i in range(6):
        (tmp_path / f"good/{i}.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"good/2.png \(3 bytes then, 0 now\) and 3 more; restore"):
        check_unchanged(before, contents_of(table, table.samples), run="RUN")


def test_what_one_of_them_does_not_name_is_not_compared(table):
    now = contents_of(table, table.samples)
    check_unchanged({}, now, run="RUN")  # a run of before there were digests
    check_unchanged(now, contents_of(table, table.samples[:2]), run="RUN")
    check_unchanged(contents_of(table, table.samples[:2]), now, run="RUN")


def test_containers_count_as_files_and_folders_as_theirs(tmp_path):
    archive = tmp_path / "all.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.png", b"a")
    shards = tmp_path / "shards"
    shards.mkdir()
    (shards / "part").write_bytes(b"1234")
    table = table_of(
        tmp_path, member_path(archive, "a.png"), member_path(archive, "b.png"),
        member_path(shards, "/train/0.png"),
    )  # fmt: skip
    expected = {"all.zip": archive.stat().st_size, "shards/part": 4}
    assert contents_of(table, table.samples)["bytes"] == expected
    # The root itself, and what lies outside of it.
    assert list(contents_of(table_of(archive), table.samples[:1])["bytes"]) == ["all.zip"]
    assert list(contents_of(table_of(shards), table.samples[:1])["bytes"]) == [archive.as_posix()]
