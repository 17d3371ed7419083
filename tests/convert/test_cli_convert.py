"""The verb `convert` and the script for masked autoencoders."""

from __future__ import annotations

import os

import pytest

from jaxad.cli import commands, main as cli


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
    "family, network, words",
    [
        ("efficientnet-lite1", {"variant": 1}, "feature_pca --config.model.backbone=efficientnet_lite1"),
        ("dinov2", {"encoder": {"features": 384, "depth": 12}, "registers": 4},
         "feature_pca:dinov2 --config.model.backbone=dinov2_s14_reg"),
        ("hf-dinov2", {"encoder": {"features": 768, "depth": 12}},
         "feature_pca:dinov2 --config.model.backbone=dinov2_b14"),
    ],
)  # fmt: skip
def test_the_next_command_names_what_the_weights_are_for(family, network, words):
    record = {"family": family, "network": network}
    said = commands._training_with(record, "out")
    assert said == f"jaxad train --config={words} --config.train.weights=out"


def test_weights_that_several_models_take_name_none():
    of_size = {"encoder": {"features": 768, "depth": 12}}
    for family, network in (
        ("mae", of_size),
        ("resnet18", {}),
        ("dinov2", {"encoder": {"features": 1536}}),
    ):
        said = commands._training_with({"family": family, "network": network}, "out")
        assert said == "jaxad train --config.train.weights=out"


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


def test_a_folder_with_a_space_is_quoted():
    said = commands._training_with({"family": "resnet18", "network": {}}, "my weights")
    assert said == "jaxad train --config.train.weights='my weights'"
