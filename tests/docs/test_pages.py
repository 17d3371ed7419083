"""README and guides: every command is understood, the ones for newcomers run as they stand."""

from __future__ import annotations

import csv
import json
import pathlib
import re
import shutil

import pytest

import jaxad
from jaxad.cli.main import main
from jaxad.run.config import flatten, load_settings, shipped_names

PAGES = ("README.md", "checkpoints/README.md", "docs/*.md", "docs/models/*.md", "docs/results/*.md")


def all_pages(root):
    return [page for pattern in PAGES for page in sorted(root.glob(pattern))]


def test_every_command_is_understood(project_root, reading):
    count = 0
    for page in all_pages(project_root):
        for words in reading.commands(page.read_text(encoding="utf-8")):
            count += 1
            try:
                reading.understand(words)
            except Exception as error:
                error.add_note(f"{page.relative_to(project_root)}: jaxad {' '.join(words)}")
                raise
    assert count > 60


def test_every_key_that_is_named_exists(project_root):
    known = {key for name in shipped_names() for key in flatten(load_settings(name))}
    known |= {"data.json", "model.safetensors"}  # names of files
    for page in all_pages(project_root):
        text = page.read_text(encoding="utf-8")
        named = re.findall(r"--config\.([a-z_0-9.]+)=", text)
        named += re.findall(r"`((?:data|augment|model|train|evaluate)\.[a-z_0-9]+)[`=]", text)
        opened = "train.learning_rate_multipliers."  # to any label
        assert {key for key in named if not key.startswith(opened)} <= known, page.name


def test_every_relative_link_leads_to_a_file(project_root):
    # Sphinx checks what is inside docs; README and checkpoints are read without it.
    for page in (project_root / "README.md", project_root / "checkpoints" / "README.md"):
        links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        assert links
        for link in links:
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_readme_is_short(project_root):
    assert len((project_root / "README.md").read_text(encoding="utf-8").split()) < 900


def run_all(commands, tiny):
    for words in commands:
        if words[0] == "train" and not words[1].startswith(
            ("--config=pca", "--config=feature_pca")
        ):
            words = [*words, *(f"--config.{key}={value}" for key, value in tiny.items())]
        assert main(words) == 0, words


def run_python(blocks):
    for block in blocks:
        exec(compile(block, "page", "exec", dont_inherit=True), {})


@pytest.mark.guide
def test_five_minutes_of_the_readme(project_root, reading, parts, tiny):
    page = (project_root / "README.md").read_text(encoding="utf-8")
    section = page.partition("## Five minutes")[2].partition("## ")[0]
    shutil.move("parts/flange", "mvtec_ad/bottle")
    shutil.copytree("mvtec_ad/bottle/test/good", "new")
    (parts / "new" / "000.png").rename(parts / "new" / "003.png")
    run_all(reading.commands(section), tiny)
    run_python(reading.blocks(section, "python"))
    assert (parts / "runs" / "first" / "report.html").exists()
    with open("results/scores.csv") as file:
        assert {row["decision"] for row in csv.DictReader(file)} <= {"0", "1"}
    # No picture of any of these runs contradicts the decision about it.
    judged = json.loads(pathlib.Path("results/predictions.json").read_text())["images"]
    assert all(bool(one["regions"]) == one["decision"] for one in judged) and judged
    for run in ("runs/first", "runs/first-vqvae"):
        predictions = jaxad.load_detector(run).predict("mvtec_ad/bottle")
        assert {one.decision for one in predictions} <= {True, False}
        assert all(one.mask.any() == one.decision for one in predictions)


@pytest.mark.guide
def test_the_tutorial(project_root, reading, parts, tiny):
    page = (project_root / "docs" / "tutorial.md").read_text(encoding="utf-8")
    steps = reading.commands(page)
    # The first step draws the folder, which is there already.
    assert steps.pop(0) == ["data", "generate", "--root=parts"]
    assert [words[0] for words in steps][:4] == ["data", "train", "evaluate", "predict"]
    run_all([words for words in steps if words[0] != "benchmark"], tiny)
    run_python(reading.blocks(page, "python"))


@pytest.mark.guide
@pytest.mark.parametrize("name", ["deployment", "metrics", "python"])
def test_blocks_of_python(project_root, reading, parts, name):
    page = (project_root / "docs" / f"{name}.md").read_text(encoding="utf-8")
    if name == "deployment":
        shutil.copytree("parts/flange/test/good", "new")
        assert main(["train", "--config=pca", "--config.data.root=parts/flange", "--workdir=RUN",
                     "--config.data.image_size=32,32"]) == 0  # fmt: skip
    namespace = {}
    for block in reading.blocks(page, "python"):
        exec(compile(block, name, "exec", dont_inherit=True), namespace)
