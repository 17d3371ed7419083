"""What is printed and what stands in tables: nothing acts on whoever reads it, and names come back."""

from __future__ import annotations

import csv
import io
import os

import pytest
from hypothesis import given, strategies as st

from jaxad.cli import main as cli
from jaxad.run.files import csv_line
from jaxad.run.text import csv_cell, from_csv_cell, from_printable, printable, say

ANYTHING = st.text(
    st.one_of(
        st.characters(exclude_categories=()),  # lone surrogates too
        st.sampled_from("\x1b\x9b\r\n\t\\'=+-@xu0419\uff1d\u202e\udcff"),
    )
)


@given(ANYTHING)
def test_printed_text_does_nothing_and_comes_back(text):
    shown = printable(text)
    assert not set(shown) & {chr(c) for c in (*range(32), *range(127, 160), *range(0x202A, 0x202F))}
    shown.encode()
    assert from_printable(shown) == text


def test_printed_names():
    assert printable("a/ü \\users 😀.png") == "a/ü \\users 😀.png"
    assert printable(os.fsdecode(b"a\xff\x1b[2J\n.png")) == "a\\xff\\u001b[2J\\u000a.png"
    assert printable("\\x41") == "\\u005cx41"


def test_lines_of_a_message_stay_lines(capsys):
    say("a \x1b]0;title\x07 b\nc\r")
    assert capsys.readouterr().out == "a \\u001b]0;title\\u0007 b\nc\\u000d\n"


@given(ANYTHING)
def test_a_cell_is_no_formula_and_comes_back(text):
    cell = csv_cell(text)
    (row,) = csv.reader(io.StringIO(csv_line([text, 1]), newline=""))
    assert row == [cell, "1"] and from_csv_cell(cell) == text
    if cell[:1] in "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20" and cell:
        float(cell)


@pytest.mark.parametrize("number", [-0.5, "-0.5", "+1e-5", -3, "-inf"])
def test_numbers_stay_numbers(number):
    assert float(csv_cell(number)) == float(number)


@pytest.mark.parametrize(
    "name", ["=1+1", "+a", "-a.png", '@SUM("x")', "'=1", "\t=1", "\n=1", "\uff1d1+1"]
)
def test_names_that_read_like_formulas(name):
    assert csv_cell(name) == f"'{name}" and from_csv_cell(f"'{name}") == name


def test_a_failure_is_one_line_without_escape_codes(tmp_path, capsys):
    bad = tmp_path / "a\x1b[31m\nb.npz"
    bad.write_bytes(b"")
    assert cli.main(["convert", "--from=mae", f"--input={bad}", f"--output={tmp_path}/o"]) == 2
    error = capsys.readouterr().err
    assert "\x1b" not in error, error
    assert error.count("\n") == 1 and "a\\u001b[31m\\u000ab.npz" in error
