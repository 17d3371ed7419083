"""The page of the papers' tables: every table has a command that works, and its estimated time."""

import json
import re

import pytest

from jaxad.benchmark.papers import plan
from jaxad.benchmark.printed import paper_tables
from jaxad.cli.arguments import parser
from jaxad.cli.main import _overrides


@pytest.fixture(scope="module")
def page(project_root):
    return (project_root / "docs" / "tables.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def commands(page, reading):
    return [words for words in reading.commands(page) if words[0] == "benchmark"]


def test_every_table_with_own_columns_has_a_command(page, commands):
    own = [
        name for name, table in paper_tables().items() if any(c["own"] for c in table["columns"])
    ]
    papers = [w.removeprefix("--paper=") for words in commands for w in words if "--paper=" in w]
    given = [name for names in papers for name in names.split(",")]
    assert sorted(given) == sorted(own)
    others = set(paper_tables()) - set(own)
    assert others and all(f"`{name}`" in page for name in others)


def test_the_commands_are_understood(commands):
    workdirs = set()
    for words in commands:
        arguments, rest = parser().parse_known_args(words)
        planned = plan(arguments.paper.split(","), overrides=_overrides(rest, arguments))
        assert planned.categories
        workdirs.add(arguments.workdir)
    assert len(workdirs) == len(commands)  # no table writes over another's


def test_the_options_exist(page):
    known = {option for action in parser()._subparsers._group_actions[0].choices["benchmark"]._actions
             for option in action.option_strings}  # fmt: skip
    section = page.partition("## Options")[2].partition("## ")[0]
    named = set(re.findall(r"`(--[a-z]+)", section))
    assert named - {"--config"} <= known and len(named) > 4


def test_the_times_are_those_of_the_stored_estimate(page, load_tool, project_root):
    tool = load_tool("studies/estimate_tables")
    stored = json.loads((project_root / "docs" / "results" / "table_costs.json").read_text())
    assert tool.markdown(stored) in page
    # Counted by hand: 280 images in batches of 8, 100 epochs; 1,500 steps of the small variant.
    assert tool.steps_of(tool.load_settings("vqvae:paper"), 280) == 3500
    assert tool.steps_of(tool.load_settings("vqvae:small"), 280) == 1500
    assert (tool.in_words(0.31), tool.in_words(9.96), tool.in_words(48)) == (
        "19 min", "10.0 h", "2 days")  # fmt: skip


def test_operations_are_counted(load_tool):
    tool = load_tool("studies/estimate_tables")
    config = tool.load_settings("vt_adl:mnist", {"train.batch_size": 2})
    step, detection = tool.operations(config)
    # Forward and backward of two images: twice three times the forward pass, more or less.
    assert 4 < step / detection < 9
