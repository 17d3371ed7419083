"""The verb `convert` and the script for masked autoencoders."""

from __future__ import annotations

import os

import pytest

from jaxad.cli import main as cli


def test_it_converts_and_says_what_it_did(files, tmp_path, capsys):
    out = tmp_path / "vit"
    words = ["convert", "--from=timm-vit", f"--input={files / 'timm_vit.pth'}",
             f"--output={out}", "--heads=2", "--image-size=20"]  # fmt: skip
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    assert "timm_vit.pth (sha256 " in printed and "'grid': [5, 5]" in printed
    assert "left out: head.bias and 1 more (the classifier)" in printed
    assert f"train --config.train.weights={out}" in printed
    assert sorted(os.listdir(out)) == ["provenance.json", "weights"]


def test_a_file_without_decoder_says_so(files, tmp_path, capsys):
    """The encoder of timm and that of MAE have the same keys."""
    words = ["convert", "--from=mae", f"--input={files / 'timm_vit.pth'}",
             f"--output={tmp_path / 'mae'}", "--heads=2"]  # fmt: skip
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    assert "no decoder: this file holds no decoder" in printed
    assert "licence: CC BY-NC 4.0" in printed


@pytest.mark.parametrize(
    "words, sentence",
    [
        ("--from=mea --input=x --output=y", "--from=mea is unknown; did you mean 'mae'?"),
        ("--from=mae --input=x --output=y", "--input x: there is no such file or folder"),
        ("--from=mae --input=x", "the following arguments are required: --output"),
        ("--from=mae --input=x --output=y --config.seed=1", "unknown argument '--config.seed=1'"),
        ("--from=mae --input=x --output=y --heads=two", "invalid int value: 'two'"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, monkeypatch, capsys, words, sentence):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["convert", *words.split()]) == 2
    printed = capsys.readouterr()
    assert sentence in printed.err and printed.err.count("\n") == 1 and printed.out == ""
    assert os.listdir(tmp_path) == []
