import json
import os
import platform
import subprocess
import sys

import pytest

from jaxad.data.cache import prepare_images
from jaxad.data.synthetic.dataset import ensure_dataset
from jaxad.run import environment

PROGRAM = """
import json, resource, sys
import numpy as np
from jaxad.run.environment import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else None
def touch():
    np.ones(16 * 2**20).sum()  # 128 MiB: 32,768 pages of 4 KiB
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    touch()
print(json.dumps([kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before]))
"""


def faults(how: str) -> tuple[bool | None, int]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True
    )
    return tuple(json.loads(done.stdout))


def test_freed_memory_is_reused_where_the_c_library_can():
    kept, with_it = faults("keep")
    _, without = faults("not")
    assert kept is (platform.libc_ver()[0] == "glibc")
    if kept:
        # Huge pages, where a system gives them unasked, make few faults of many.
        assert with_it < max(200, without / 10)


def test_the_description_names_what_a_run_ran_on():
    found = environment.describe(seed=3)
    assert found["seed"] == 3 and found["versions"]["jax"] and found["devices"]
    json.dumps(found)


def test_the_cache_folder_is_one_for_all(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXAD_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert environment.cache_folder() == tmp_path / "xdg" / "jaxad"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert environment.cache_folder() == tmp_path / ".cache" / "jaxad"
    monkeypatch.setenv("JAXAD_CACHE", str(tmp_path / "mine"))
    assert environment.cache_folder() == tmp_path / "mine"
    # Decoded and generated images obey it too.
    root = ensure_dataset(category="metal", image_size=(16, 16), train=1, test_good=0,
                          test_per_defect=0)  # fmt: skip
    assert root.parent == tmp_path / "mine" / "synthetic"
    images = prepare_images([root / "metal/train/good/000.png"], image_size=(8, 8), channels=3,
                            memory_limit_mb=0)  # fmt: skip
    assert images.filename.parent == tmp_path / "mine" / "images"


@pytest.mark.parametrize(
    "command, status", [("train --config=pca --workdir=run", 2), ("config", 0)]
)
def test_too_small_an_address_space_is_a_sentence(command, status):
    """The libraries that need more end in a segmentation fault, and print nothing."""
    done = subprocess.run(
        ["sh", "-c", f"ulimit -v 1000000 && exec {sys.executable} -m jaxad {command}"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
    )
    assert done.returncode == status, done.stderr
    sentence = "jaxad: this process may use 1.0 GB of address space (ulimit -v), and needs at least"
    assert done.stderr.startswith(sentence) == (status == 2)
    assert done.stderr.count("\n") == (status == 2)


def test_the_cache_may_be_below_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("JAXAD_CACHE", "~/cache")
    assert environment.cache_folder() == tmp_path / "cache"
