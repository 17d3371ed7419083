"""The experiments of docs/compose.md run as they stand, each section by itself."""

from __future__ import annotations

import re

import jax
import pytest


def sections(text: str) -> dict[str, list[tuple[int, str]]]:
    """Title of each section -> its blocks of Python, with the line of the page they begin at."""
    found: dict[str, list[tuple[int, str]]] = {}
    title, begin, lines = "", 0, None
    for number, line in enumerate(text.splitlines(), start=1):
        if lines is not None:
            if line == "```":
                found.setdefault(title, []).append((begin, "\n".join(lines)))
                lines = None
            else:
                lines.append(line)
        elif line.startswith("```"):
            assert line == "```python", f"line {number}: {line} is not run by any test"
            begin, lines = number + 1, []
        elif line.startswith("## "):
            title = line[3:]
    assert lines is None, f"the block at line {begin} has no end"
    return found


@pytest.fixture
def page(project_root):
    return project_root / "docs" / "compose.md"


@pytest.mark.guide
@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_section_runs(page, number, tmp_path, monkeypatch):
    title, blocks = list(sections(page.read_text()).items())[number - 1]
    assert title.startswith(f"{number}. ")
    assert "assert " in blocks[-1][1], f"section {title!r} ends with nothing that could fail"
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": f"compose_{number}"}
    # As a reader runs it: shapes broadcast, unlike in the other tests.
    with jax.numpy_rank_promotion("allow"):
        for begin, block in blocks:
            # Blank lines before it, so that a traceback names the line of the page.
            code = compile("\n" * (begin - 1) + block, str(page), "exec", dont_inherit=True)
            try:
                exec(code, namespace)
            except Exception as error:
                error.add_note(f"in section {title!r}, in the block at line {begin} of {page.name}")
                raise


def test_every_section_is_run(page):
    text = page.read_text()
    titles = list(sections(text))
    assert len(titles) == len(re.findall(r"^## ", text, re.MULTILINE)) == 5


def test_links_of_the_page_exist(page):
    text = page.read_text()
    anchors = {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^## (.*)$", text, re.MULTILINE)
    }
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert len(targets) > len(anchors) / 2
    for target in targets:
        inside = target.removeprefix("#")
        assert inside in anchors if target != inside else (page.parent / target).is_file(), target
