"""The page on packages: what it names is used where it says, and its commands run."""

import re
import tomllib

import pytest

from jaxad.cli.main import main
from jaxad.data import pipeline

# Name on the package index -> what a file of Python imports.
IMPORTED = {
    "jax": "jax",
    "flax": "flax",
    "optax": "optax",
    "orbax-checkpoint": "orbax",
    "tensorflow-datasets": "tensorflow_datasets",
    "numpy": "numpy",
    "scikit-learn": "sklearn",
    "dm-pix": "dm_pix",
    "ml-collections": "ml_collections",
    "pytest": "pytest",
    "chex": "chex",
}
# jaxad/data/tensorflow.py imports TensorFlow for these, with GPUs hidden from it.
BY_WAY_OF = {
    "jaxad/data/pipeline.py": r"tf = import_tensorflow\(\)",
    "jaxad/data/published/tfds_builders.py": r"tfds = import_tensorflow_datasets\(",
}


@pytest.fixture
def page(project_root):
    return (project_root / "docs" / "packages.md").read_text(encoding="utf-8")


def rows(page):
    section = page.partition("## Where each package is used")[2].partition("###")[0]
    for line in section.strip().splitlines()[2:]:
        package, needed, where = (cell.strip() for cell in line.strip("|").split("|"))
        yield package.split()[0], needed, re.findall(r"`([a-z_/0-9]+\.py)`", where)


def test_each_package_is_imported_where_the_page_says(page, project_root):
    found = {name: (needed, files) for name, needed, files in rows(page)}
    assert found.keys() == IMPORTED.keys()
    for name, (_, files) in found.items():
        assert files, name
        for file in files:
            text = (project_root / file).read_text(encoding="utf-8")
            directly = rf"^\s*(import|from) {IMPORTED[name]}\b"
            assert re.search(BY_WAY_OF.get(file, directly), text, re.MULTILINE), (name, file)


def test_each_package_is_a_dependency_where_the_page_says(page, project_root):
    project = tomllib.loads((project_root / "pyproject.toml").read_text())["project"]
    names = lambda wanted: {re.match(r"[\w-]+", one).group().lower() for one in wanted}
    extras = project["optional-dependencies"]
    for name, needed, _ in rows(page):
        if needed == "always":
            assert name in names(project["dependencies"]), name
        else:
            assert name in names(extras[re.fullmatch(r"`jaxad\[(\w+)\]`", needed).group(1)]), name
    for extra in re.findall(r"'jaxad\[(\w+)\]'", page):
        assert extra in extras


def test_the_commands_train_through_tensorflow(page, reading, parts, tiny, monkeypatch):
    pytest.importorskip("tensorflow_datasets")
    used = []
    original = pipeline.import_tensorflow
    monkeypatch.setattr(pipeline, "import_tensorflow", lambda: used.append("tf") or original())
    for words in reading.commands(page):
        if words[0] in ("train", "data"):
            kept = {k: v for k, v in tiny.items() if k != "data.pipeline"}
            if words[0] == "data":
                kept = {k: v for k, v in kept.items() if k.startswith("data.")}
            words = [*words, *(f"--config.{key}={value}" for key, value in kept.items())]
        assert main(words) == 0, words
    assert used and (parts / "runs/tf/metrics.json").is_file()
