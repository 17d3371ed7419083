"""The command line: light until a command runs, one sentence for a mistake, an exit code for scripts."""

from __future__ import annotations

import argparse
import errno
import json
import subprocess
import sys

import pytest

import jaxad
from jaxad.cli import main as cli, threshold
from jaxad.cli.arguments import COMMANDS
from jaxad.cli.status import FAILED_PARTS
from jaxad.run.config import load_settings, with_absolute_root
from jaxad.run.errors import UserError

HEAVY = ("jax", "tensorflow", "numpy", "scipy", "matplotlib", "flax", "orbax", "torch", "sklearn")


def modules_after(program: str) -> set[str]:
    program += "; import sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "program",
    [
        "import jaxad, jaxad.run.errors",
        "import jaxad.cli.main\ntry: jaxad.cli.main.main(['--help'])\nexcept SystemExit: pass\nif 1: pass",
        "import jaxad.cli.main; jaxad.cli.main.main(['trian'])",
    ],
    ids=["import", "help", "mistake"],
)
def test_nothing_heavy_is_imported_before_a_command_runs(program):
    found = modules_after(program)
    assert "jaxad" in found
    assert not found & set(HEAVY)


def test_metrics_are_read_without_jax():
    assert not modules_after("import jaxad; jaxad.metrics.evaluate_maps") & {"jax", "tensorflow"}


def test_training_in_memory_does_not_import_tensorflow():
    found = modules_after("import jaxad.training.train, jaxad.evaluation.evaluate")
    assert not found & {"tensorflow", "torch", "matplotlib"}


def fails(capsys, *words: str) -> str:
    """The sentence of a command that is refused."""
    assert cli.main(list(words)) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("jaxad: ") and output.err.count("\n") == 1
    return output.err


@pytest.mark.parametrize(
    "words, sentence",
    [
        ("trian", "there is no command 'trian'; did you mean 'train'; see jaxad --help"),
        ("train", "the following arguments are required: --config, --workdir"),
        (
            "train --config=pca --workdir=w --epochs=3",
            "unknown argument '--epochs=3'; did you mean '--config.train.epochs'?; see --help",
        ),
        ("train --config=pca --workdir=w --root=d", "; did you mean '--config.data.root'?"),
        ("train --config=pca --workdir=w --data.root=d", "; did you mean '--config.data.root'?"),
        ("predict --workdir=w --input=i --outpt=o", "are required: --output"),
        ("predict --workdir=w --input= --output=o", "argument --input: it is empty; give a file"),
        ("train --config=pca --workdir=", "argument --workdir: it is empty; give a file or a fol"),
        ("data inspect --rot=d", "unknown argument '--rot=d'; did you mean '--root'?"),
        ("data inspect photos", "unknown argument 'photos'; did you mean '--root=photos'?"),
        ("data inspect --root=my photos", "unknown argument 'photos'; a path that holds spaces st"),
        ("train --config=pca --workdir=w more", "'more'; a path that holds spaces stands in quota"),
        ("train --config=pca --workdir=w --qqqqq=1", "unknown argument '--qqqqq=1'; see --help"),
        (
            "train --config=pca --workdir=w --config.seed",
            "--config.seed has no value; write --conf",
        ),
        ("train --conf=pca --workdir=w", "required: --config"),
        ("demo --config.seed=3", "unknown argument '--config.seed=3'"),
        ("train --config=pac --workdir=w", "no config named 'pac'; did you mean 'pca'?"),
        ("train --config=pca:smal --workdir=w", "no variant 'smal'; did you mean 'small'?"),
        ("train --config=pca --workdir=w --config.sed=3", "unknown config key 'sed'; did you mean"),
    ],
)
def test_a_mistake_in_a_command_is_one_sentence(capsys, tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    assert sentence in fails(capsys, *words.split())
    assert list(tmp_path.iterdir()) == []


def test_every_command_answers_help_and_is_known_to_the_mistakes(capsys):
    for command in COMMANDS:
        with pytest.raises(SystemExit) as end:
            cli.main([command, "--help"])
        assert end.value.code == 0
        assert f"jaxad {command}" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    listed = capsys.readouterr().out.partition("commands:")[2].split()
    assert not set(COMMANDS) - set(listed)


def test_without_a_command_there_is_help(capsys):
    assert cli.main([]) == 0
    assert "usage: jaxad" in capsys.readouterr().out


def test_help_leads_on(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    for words in ("--config.data.root=DIR", "--config=vqvae:small,ema", "--config.train.epochs=20"):
        assert words in told


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"jaxad {jaxad.__version__}\n"


def test_overrides_with_and_without_an_equals_sign():
    words = ["--config.a=1", "--config.b.c", "x=y", "--config.d="]
    arguments = argparse.Namespace(takes_overrides=True)
    assert cli._overrides(words, arguments) == {"a": "1", "b.c": "x=y", "d": ""}


def replace_demo(monkeypatch, run):
    """Another function behind the command ``demo``."""
    monkeypatch.setitem(COMMANDS, "demo", COMMANDS["demo"]._replace(run=run))


@pytest.mark.parametrize(
    "failure, code, sentence",
    [
        (UserError("what and where"), 2, "jaxad: what and where\n"),
        (KeyboardInterrupt(), 130, "\njaxad: interrupted; the same command goes on where it st"),
        (
            OSError(errno.ENOSPC, "No space left", "/disk/file"),
            2,
            "jaxad: /disk/file: No space left\n",
        ),
        (OSError(errno.EACCES, "Permission denied"), 2, "jaxad: Permission denied\n"),
        (MemoryError(), 2, "jaxad: there is not enough memory for this; "),
        (
            RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes"),
            2,
            "jaxad: there is not enough memory for this; ",
        ),
    ],
)
def test_exit_codes(capsys, monkeypatch, failure, code, sentence):
    def run(arguments, overrides):
        raise failure

    replace_demo(monkeypatch, run)
    assert cli.main(["demo"]) == code
    assert capsys.readouterr().err.startswith(sentence)


@pytest.mark.parametrize(
    "bug", [FileNotFoundError(errno.ENOENT, "No such file", "x"), RuntimeError("INTERNAL: x")]
)
def test_a_bug_is_not_hidden(bug, monkeypatch):
    def run(arguments, overrides):
        raise bug

    replace_demo(monkeypatch, run)
    with pytest.raises(type(bug)):
        cli.main(["demo"])


def test_a_tilde_is_the_home_folder(monkeypatch, capsys):
    monkeypatch.setenv("HOME", "/home/someone")
    assert cli.main(["data", "inspect", "--root=~/photos"]) == 2
    assert "/home/someone/photos does not exist" in capsys.readouterr().err
    settings = load_settings("pca", {"data.root": "~/photos"})
    assert with_absolute_root(settings).data.root == "/home/someone/photos"


def test_success_is_zero(monkeypatch):
    replace_demo(monkeypatch, lambda arguments, overrides: None)
    assert cli.main(["demo"]) == 0
    replace_demo(monkeypatch, lambda arguments, overrides: FAILED_PARTS)
    assert cli.main(["demo"]) == 1


def test_names_of_the_package_exist():
    for name in jaxad.__all__:
        assert getattr(jaxad, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        jaxad.nothing  # noqa: B018


def test_data_inspect_counts_what_a_folder_holds(tiny_data, capsys):
    assert cli.main(["data", "inspect", f"--root={tiny_data}"]) == 0
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    for row in (
        ["train", "good", "20", "0", "–", "–"],
        ["test", "good", "3", "0", "–", "–"],
        ["test", "hole", "3", "3", "6.2500", "6.2500"],
    ):
        assert row in printed


def test_config_lists_names_and_shows_every_key(capsys):
    assert cli.main(["config"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.endswith(".") for line in lines)
    assert [line.split()[0] for line in lines] == [
        "anovit",
        "cae",
        "feature_pca",
        "mae",
        "own_features",
        "pca",
        "restore",
        "vae",
        "vae_grf",
        "vit_memory",
        "vit_vae",
        "vqvae",
        "vt_adl",
    ]
    assert cli.main(["config", "vqvae:small", "--config.train.epochs=7"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert "train.epochs = 7                             # passes over the training images; " \
        "at least 1" in printed  # fmt: skip
    values = [line.partition("#")[0].strip() for line in printed]
    assert "model.features = 64" in values and "data.stream = False" in values
    assert all(line.partition("# ")[2] for line in printed), "every key has a meaning"


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        (
            {},
            [
                "it comes from 31 good images, each scored by a model that was trained without it",
                ": 3.1 % of new good images",
                "(0.082 to 11 %)",
            ],
        ),
        ({"method": "held_out"}, ["it comes from 31 good images, which were held out of train"]),
        (
            {"false_positive_rate": 0.01},
            [
                "1 % (evaluate.image_false_positive_rate) cannot be promised by so few images, it "
                "takes 99: add good images"
            ],
        ),
        (
            {"false_positive_rate": 0.03, "method": "held_out"},
            ["it takes 33: train with --config.data.calibration=cross_fitted"],
        ),
        ({"false_positive_rate": 0.0}, ["0 % (", "by any number of images: ask for a higher rate"]),
        (
            {"odd_images": [{"path": name} for name in "abcd"]},
            [
                "4 of them score far above",
                ", and the highest sets the threshold: look at a, b, c, ...; ",
                "the other lines of RUN 2/odd.csv",
                "--exclude='RUN 2/odd.csv'",
            ],
        ),
        (
            {"odd_images": [{"path": "a"}], "held_out_rejected": 1},
            ["1 of them scores far above the others: look at a; "],
        ),
        ({"promised_false_positive_rate": None}, ["it comes from 31 good images"]),
    ],
)
def test_an_evaluation_says_where_its_threshold_comes_from(changes, lines):
    calibration = {
        "method": "cross_fitted",
        "false_positive_rate": 0.05,
        "held_out": 31,
        "held_out_rejected": 0,
        "promised_false_positive_rate": 1 / 32,
        "promised_interval": [0.00081637, 0.11218875],
        "odd_images": [],
    }
    said = "\n".join(threshold.origin(calibration | changes, "RUN 2/odd.csv"))
    assert all(part in said for part in lines), said
    assert ("look at" in said) == ("odd_images" in changes)
    assert ("promised" in said) == ("false_positive_rate" in changes)
