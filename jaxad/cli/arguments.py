"""The arguments of every command, and their help."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from jaxad import __version__
from jaxad.cli import benchmark, commands, select, train
from jaxad.run.errors import UserError, did_you_mean


def parser() -> argparse.ArgumentParser:
    """Reads a command line.

    What it reads has ``run``, the function of the command, ``takes_overrides``, whether words of
    the form ``--config.KEY=VALUE`` may follow, and ``computes``, whether it loads JAX.
    """
    whole = _Parser(
        prog="jaxad",
        description="Find and localise defects in images after seeing only good ones.",
        epilog="`jaxad COMMAND --help` tells more; any key of a config can be overridden, "
        "for example --config.train.epochs=20.",
        allow_abbrev=False,
    )
    whole.add_argument("--version", action="version", version=f"jaxad {__version__}")
    group = whole.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        description = f"{command.text[0].upper()}{command.text[1:]}. {command.more}".strip()
        one = group.add_parser(name, help=command.text, description=description, allow_abbrev=False)
        one.set_defaults(
            run=command.run, takes_overrides=command.takes_overrides, computes=command.computes
        )
        command.add_arguments(one)
        one.set_defaults(options=[word for a in one._actions for word in a.option_strings])
    return whole


class _Parser(argparse.ArgumentParser):
    """Mistakes in a command become one sentence, as all others do."""

    def error(self, message: str) -> NoReturn:
        """Raises instead of printing the usage and leaving.

        Raises:
          UserError: always.
        """
        wrong_command = re.match(r"argument COMMAND: invalid choice: '(.*?)'", message)
        if wrong_command:
            message = f"there is no command {wrong_command[1]!r}" + did_you_mean(
                wrong_command[1], COMMANDS
            )
        raise UserError(f"{message.rstrip('?')}; see {self.prog} --help")


def _path(value: str) -> str:
    """A path; an empty one, as of a variable that a shell does not know, would be this folder.

    Raises:
      argparse.ArgumentTypeError: it is empty.
    """
    if not value.strip():
        raise argparse.ArgumentTypeError("it is empty; give a file or a folder (. is this one)")
    return value


def _add_train(command: argparse.ArgumentParser) -> None:
    command.add_argument("--config", required=True, metavar="NAME[:VARIANT,...]",
                     help="a shipped config or a file, with variants: vqvae:small")  # fmt: skip
    command.add_argument(
        "--workdir", required=True, type=_path, help="run folder; training resumes there"
    )
    command.add_argument("--exclude", metavar="PATH[,PATH...]",
                     help="training images to leave out, or a list of them: the run's "
                     "odd_images.csv (data.exclude)")  # fmt: skip
    command.add_argument("--distributed", action="store_true",
                     help="one of several processes; the cluster says which")  # fmt: skip
    command.add_argument("--coordinator", default="", metavar="HOST:PORT",
                     help="without a cluster: address of the first process")  # fmt: skip
    command.add_argument(
        "--processes", type=int, default=0, metavar="N", help="number of processes"
    )
    command.add_argument("--process", type=int, default=-1, metavar="I",
                     help="number of this process, from 0")  # fmt: skip


def _add_evaluate(command: argparse.ArgumentParser) -> None:
    command.add_argument("--workdir", required=True, type=_path, help="run folder of `jaxad train`")
    command.add_argument("--checkpoint", default="last", help="last (default), best or a step")
    command.add_argument("--data-root", help="where the data set is now, if it has moved")
    command.add_argument("--skip-unreadable", action="store_const", const="True",
                     help="go on without test images that cannot be read, or whose masks cannot; "
                     "they are counted and named (evaluate.skip_unreadable)")  # fmt: skip
    _add_threshold(command)


def _add_predict(command: argparse.ArgumentParser) -> None:
    command.add_argument("--workdir", required=True, type=_path, help="run folder of `jaxad train`")
    command.add_argument("--input", required=True, type=_path, nargs="+", action="extend",
                     metavar="PATH", help="files and folders, separated by spaces")  # fmt: skip
    command.add_argument(
        "--output", required=True, type=_path, help="folder of the results; created"
    )
    command.add_argument("--checkpoint", default="last", help="last (default), best or a step")
    command.add_argument("--tiff", action="store_true",
                     help="also write the raw maps as float TIFF in MVTec's layout")  # fmt: skip
    command.add_argument("--submission", action="store_true",
                     help="also write maps and thresholded maps as the server of MVTec AD 2 reads "
                     "them")  # fmt: skip
    command.add_argument("--no-overlays", action="store_true", help="write no pictures")
    command.add_argument(
        "--data-root", help="where the training images are now, if they have moved"
    )
    _add_threshold(command)


def _add_benchmark(command: argparse.ArgumentParser) -> None:
    command.add_argument("--configs", default=[], nargs="+", metavar="CONFIG",
                     help="with variants, separated by spaces: pca vqvae:small")  # fmt: skip
    command.add_argument("--paper", default="", metavar="ID",
                     help="fill a printed table (docs/tables.md) with its configs, categories and "
                     "protocol; several ids separated by commas")  # fmt: skip
    command.add_argument("--variant", default="", metavar="NAME",
                     help="variant of the paper's configs; small runs on a CPU")  # fmt: skip
    command.add_argument("--categories", default="", help="of the data set, separated by commas")
    command.add_argument("--columns", choices=("all", "own"), default="all",
                         help="of a paper's table: all that there is a model for, or its own "
                         "methods alone")  # fmt: skip
    command.add_argument("--weights", default=[], nargs="+", action="extend", metavar="CONFIG=DIR",
                     help="converted weights that the runs of one config start from: "
                     "vit_vae=DIR")  # fmt: skip
    command.add_argument("--seeds", default="0", help="separated by commas (default: 0)")
    command.add_argument(
        "--workdir", required=True, type=_path, help="folder of all runs; resumes there"
    )
    command.add_argument("--parallel", type=int, default=1, metavar="N",
                     help="run N cells at a time, each in a process with its share of the GPUs "
                     "(default 1: one cell after the other, each on all devices)")  # fmt: skip
    command.add_argument("--failures-since", type=float, default=0.0, help=argparse.SUPPRESS)


def _add_config(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "config", nargs="?", metavar="NAME[:VARIANT,...]", help="leave it out to list the names"
    )


def _add_convert(command: argparse.ArgumentParser) -> None:
    command.add_argument("--from", required=True, dest="family", metavar="FAMILY",
                     help="resnet18, efficientnet-lite0, -lite1 or -lite2, timm-vit, hf-vit, mae, "
                     "hf-mae, dinov2 or hf-dinov2")  # fmt: skip
    command.add_argument("--input", required=True, type=_path, dest="source", metavar="FILE",
                     help=".pth, .bin or .safetensors, or a folder of the hub")  # fmt: skip
    command.add_argument(
        "--output", required=True, type=_path, help="new folder; for --config.train.weights"
    )
    command.add_argument("--image-size", type=int, default=0, metavar="PIXELS",
                     help="resize position embeddings to images of this side")  # fmt: skip
    command.add_argument("--heads", type=int, default=0, metavar="N",
                     help="attention heads (default: one for 64 features)")  # fmt: skip
    command.add_argument("--decoder-heads", type=int, default=0, metavar="N",
                     help="heads of a masked autoencoder's decoder (default 16)")  # fmt: skip
    command.add_argument("--stages", type=int, default=2, metavar="N",
                     help="how many of layer1 to layer4 of a ResNet18 (default 2)")  # fmt: skip


def _sides(text: str) -> tuple[int, ...]:
    """Whole numbers between commas; how many there must be, who takes them knows.

    Raises:
      UserError: one is none.
    """
    try:
        return tuple(map(int, text.split(",")))
    except ValueError:
        raise UserError(f"--photograph-size takes HEIGHT,WIDTH in pixels, not {text}") from None


def _add_export(command: argparse.ArgumentParser) -> None:
    command.add_argument("--workdir", required=True, type=_path, help="run folder of `jaxad train`")
    command.add_argument("--output", required=True, type=_path, metavar="FILE",
                     help="the file; FILE.json beside it describes it; web: a folder")  # fmt: skip
    command.add_argument("--format", default="stablehlo", metavar="stablehlo|onnx|web",
                     help="stablehlo (default): needs jax; onnx: for onnxruntime and others, takes "
                     "images of any size; web: a folder that judges in the browser")  # fmt: skip
    command.add_argument("--photograph-size", type=_sides, metavar="HEIGHT,WIDTH",
                     help="of the photographs that the file of a run with tiles takes (default: "
                     "of those that it was trained on)")  # fmt: skip
    command.add_argument("--runtime", metavar="FOLDER",
                     help="web: the npm package onnxruntime-web (default: "
                     "node_modules/onnxruntime-web)")  # fmt: skip
    command.add_argument("--checkpoint", default="last", help="last (default), best or a step")
    command.add_argument(
        "--data-root", help="where the training images are now, if they have moved"
    )
    _add_threshold(command)


def _add_data(command: argparse.ArgumentParser) -> None:
    command.add_argument("action", choices=["list", "inspect", "prepare", "defects", "generate"],
                     help="list: what the published data sets need; inspect: counts, sizes, "
                     "masks of a folder; prepare: decode a config's images once; defects: draw "
                     "defects on good images; generate: draw a data set to try")  # fmt: skip
    command.add_argument(
        "--name", default="", help="auto (default), mvtec, folder, listing, or of `data list`"
    )
    command.add_argument(
        "--root", default="", help="inspect: folder of the images; generate: the new folder"
    )
    command.add_argument("--category", default="", help="inspect: sub-folder of root, normal class")
    command.add_argument(
        "--anomalous", default="", help="inspect: as the key data.anomalous (elpv)"
    )
    command.add_argument("--masks", default="", metavar="FOLDER",
                     help="inspect: folders of masks, as the key data.masks")  # fmt: skip
    command.add_argument("--pages", default="first", choices=["first", "each"],
                     help="inspect: of TIFF files, as the key data.pages")  # fmt: skip
    command.add_argument("--sheet", default="", metavar="FILE",
                     help="inspect, defects: write a contact sheet (PNG)")  # fmt: skip
    command.add_argument("--seed", type=int, default=0, help="defects: of what is drawn")
    command.add_argument("--config", default="", metavar="NAME[:VARIANT,...]",
                     help="prepare: as of `jaxad train`, with keys too")  # fmt: skip
    command.add_argument("--shards", default="", metavar="DIR",
                     help="prepare: write record shards here, for streaming")  # fmt: skip


def _add_select(command: argparse.ArgumentParser) -> None:
    command.add_argument("--root", required=True, type=_path, help="folder of the images")
    command.add_argument("--minutes", type=float, default=10.0, metavar="N",
                     help="budget of all models together, those of earlier calls among them "
                     "(default 10)")  # fmt: skip
    command.add_argument("--workdir", default="jaxad-select",
                     help="folder of the page, the ranking and the runs; resumes there (default: "
                     "jaxad-select)")  # fmt: skip
    command.add_argument("--configs", default=[], nargs="+", metavar="CONFIG",
                     help="models to try in place of the usual ones: pca vqvae:small")  # fmt: skip
    command.add_argument("--name", default="", help="of the layout, as the key data.name")
    command.add_argument("--category", default="", help="sub-folder of root, as data.category")
    command.add_argument("--seed", type=int, default=0,
                     help="of the images left out, the defects and the training")  # fmt: skip


def _add_score(command: argparse.ArgumentParser) -> None:
    command.add_argument("--maps", required=True, metavar="DIR",
                     help="float TIFFs: anomaly_maps/CATEGORY/test/KIND/NAME.tiff")  # fmt: skip
    command.add_argument(
        "--root", required=True, type=_path, help="folder of the data set (MVTec layout)"
    )
    command.add_argument("--category", default="", help="the only category to score (default: all)")
    command.add_argument("--resolution", default="image", metavar="image|map",
                     help="size at which maps and masks are compared (default image)")  # fmt: skip
    command.add_argument("--aupro-limit", type=float, default=0.3, metavar="FPR",
                     help="rate to which AUPRO integrates (default 0.3)")  # fmt: skip
    command.add_argument("--memory-limit-mb", type=float, default=2048, metavar="MB",
                     help="above it pixel metrics come as bounds (default 2048)")  # fmt: skip
    command.add_argument("--output", metavar="FILE", help="JSON file for all metrics")


def _add_demo(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--workdir", default="jaxad-demo", help="folder of the runs (default: jaxad-demo)"
    )


def _add_threshold(command: argparse.ArgumentParser) -> None:
    command.add_argument("--threshold", metavar="SCORE",
                     help="image threshold by hand: a score, fpr:0.02 or recall:0.95 on labelled "
                     "test images; auto: calibrated (evaluate.image_threshold)")  # fmt: skip


class _Command(NamedTuple):
    """One command.

    Attributes:
      text: what it does, as the list of commands says it.
      add_arguments: declares its arguments.
      run: ``(arguments, overrides) -> status``; None for 0.
      takes_overrides: whether ``--config.KEY=VALUE`` may follow.
      computes: whether it loads JAX, and needs the memory for it.
      more: behind the text in its own help.
    """

    text: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[..., Any]
    takes_overrides: bool = False
    computes: bool = True
    more: str = ""


COMMANDS = {
    "train": _Command(
        "train a model on the good images of a data set",
        _add_train,
        train.run,
        takes_overrides=True,
        more="The images are those of --config.data.root=DIR, without it generated ones. Variants "
        "follow the name of a config after a colon, --config=vqvae:small,ema. Any key of a config "
        "can be set, --config.train.epochs=20: `jaxad config` lists the configs, `jaxad config "
        "vqvae:small` every key of one with its meaning.",
    ),
    "evaluate": _Command(
        "measure a run on its test images; writes a report",
        _add_evaluate,
        commands.evaluate,
        takes_overrides=True,
        more="Keys --config.evaluate.KEY=VALUE and a threshold stay with the run: later calls of "
        "`jaxad evaluate` and `jaxad predict` go by them.",
    ),
    "predict": _Command(
        "judge any images: scores, decisions, maps",
        _add_predict,
        commands.predict,
        takes_overrides=True,
        more="Keys --config.evaluate.KEY=VALUE and a threshold hold for this call; to keep them, "
        "give them to `jaxad evaluate`.",
    ),
    "benchmark": _Command(
        "train and evaluate a grid of runs; one table",
        _add_benchmark,
        benchmark.run,
        takes_overrides=True,
    ),
    "config": _Command(
        "list the configs, or show every key of one",
        _add_config,
        commands.config,
        takes_overrides=True,
        computes=False,
    ),
    "convert": _Command(
        "convert PyTorch weights for train.weights", _add_convert, commands.convert
    ),
    "export": _Command(
        "write a run as one file: for jax alone, or as ONNX",
        _add_export,
        commands.export,
        takes_overrides=True,
    ),
    "data": _Command(
        "inspect a folder, list known data sets, prepare images",
        _add_data,
        commands.data,
        takes_overrides=True,
    ),
    "select": _Command(
        "choose a model by defects drawn on your good images",
        _add_select,
        select.run,
        takes_overrides=True,
        more="Only good images are needed. Models are fitted without some of them, and judged on "
        "these and on defects drawn there. Keys --config.data.KEY=VALUE hold for all of them.",
    ),
    "score": _Command(
        "measure anomaly maps of any tool against a data set", _add_score, commands.score
    ),
    "demo": _Command("train models on generated images, compare them", _add_demo, commands.demo),
}
"""Every command by its name, in the order of the help."""
