"""The command line. Heavy imports happen inside a command, so that help is instant."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from jaxad import __version__
from jaxad.run import interruption
from jaxad.run.errors import UserError, did_you_mean
from jaxad.run.text import say

COMMANDS = (
    "train",
    "evaluate",
    "predict",
    "benchmark",
    "config",
    "convert",
    "export",
    "data",
    "score",
    "demo",
)
SHORT_FORMS = {"exclude": "data.exclude", "threshold": "evaluate.image_threshold"}
"""Arguments that set a key of the config."""
FAILED_PARTS = 1
USER_ERROR = 2
INTERRUPTED = 130
MACHINE_REFUSES = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
)
_NO_MEMORY = (
    "there is not enough memory for this; less is needed with smaller batches "
    "(evaluate.batch_size, train.batch_size, or train.accumulate), a smaller data.image_size, and "
    "data.stream=True"
)
_DEVICE_IS_FULL = "RESOURCE_EXHAUSTED"
"""How XLA begins to say that a device, the processor too, has no more memory to give."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
      Exit status: 0 done, 1 done but for the parts that are named (files, cells), 2 a mistake that
      the user can mend, 130 interrupted, 143 terminated.
    """
    if argv is None:
        _hush_libraries()
        interruption.listen()
    try:
        return _run(argv)
    except BaseException:
        # Signals become other errors in libraries and in imports of theirs.
        if interruption.came() is None:
            raise
        return _interrupted("the same command goes on where it stopped")


def _run(argv: Sequence[str] | None) -> int:
    try:
        # A shell leaves the ~ of --workdir=~/run alone.
        words = [_at_home(word) for word in (sys.argv[1:] if argv is None else argv)]
        arguments, rest = _parser().parse_known_args(words)
        # `--input=a b c` means three inputs, though argparse takes only the first for its own.
        inputs = getattr(arguments, "input", None)
        overrides = _overrides(
            rest,
            allowed=hasattr(arguments, "takes_overrides"),
            more_inputs=inputs if isinstance(inputs, list) else None,
        )
        for flag, key in SHORT_FORMS.items():
            value = getattr(arguments, flag, None)
            if value is not None:
                overrides[key] = value
        return arguments.run(arguments, overrides) or 0
    except UserError as error:
        say(f"jaxad: {error}", one_line=True, file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        return _interrupted("the same command goes on where it stopped")
    except MemoryError:
        say(f"jaxad: {_NO_MEMORY}", file=sys.stderr)
        return USER_ERROR
    except RuntimeError as error:
        if not str(error).startswith(_DEVICE_IS_FULL):
            raise
        say(f"jaxad: {_NO_MEMORY}", file=sys.stderr)
        return USER_ERROR
    except BrokenPipeError:
        # The reader of a pipe has gone (`jaxad ... | head`): nothing is left to say to anyone.
        sys.stderr.close()
        return USER_ERROR
    except OSError as error:
        # What the machine refuses (a full disk, a missing right) is nobody's bug.
        if error.errno not in MACHINE_REFUSES:
            raise
        place = f"{error.filename}: " if error.filename else ""
        say(f"jaxad: {place}{error.strerror}", one_line=True, file=sys.stderr)
        return USER_ERROR


def _interrupted(consequence: str) -> int:
    terminated = interruption.came() == signal.SIGTERM
    word = "terminated" if terminated else "interrupted"
    say(f"\njaxad: {word}; {consequence}", file=sys.stderr)
    return 128 + signal.SIGTERM if terminated else INTERRUPTED


def _at_home(word: str) -> str:
    """``--option=~/x`` or ``~/x`` with the home folder in place of ``~``."""
    flag, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return f"{flag}{equals}{os.path.expanduser(value)}" if value.startswith("~") else word


def _hush_libraries() -> None:
    """Keeps threads and coroutines of libraries from printing tracebacks of their own.

    When a disk fills up, dozens of them fail at once; the failure comes to :func:`main` as one
    exception, and that is what is reported.
    """
    default = sys.excepthook
    main_thread = threading.main_thread()

    def only_from_the_main_thread(*failure) -> None:
        if threading.current_thread() is main_thread:
            default(*failure)

    sys.excepthook = only_from_the_main_thread
    sys.unraisablehook = lambda _: None
    logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)


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


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="jaxad",
        description="Find and localise defects in images after seeing only good ones.",
        epilog="`jaxad COMMAND --help` tells more; any key of a config can be overridden, "
        "for example --config.train.epochs=20.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"jaxad {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    sub = _command(
        commands,
        "train",
        _train,
        "train a model on the good images of a data set",
        more="The images are those of --config.data.root=DIR, without it generated ones. Variants "
        "follow the name of a config after a colon, --config=vqvae:small,ema. Any key of a config "
        "can be set, --config.train.epochs=20: `jaxad config` lists the configs, `jaxad config "
        "vqvae:small` every key of one with its meaning.",
    )
    sub.add_argument("--config", required=True, metavar="NAME[:VARIANT,...]",
                     help="a shipped config or a file, with variants: vqvae:small")  # fmt: skip
    sub.add_argument("--workdir", required=True, help="run folder; training resumes there")
    sub.add_argument("--exclude", metavar="PATH[,PATH...]",
                     help="training images to leave out, or a list of them: the run's "
                     "odd_images.csv (data.exclude)")  # fmt: skip
    sub.add_argument("--distributed", action="store_true",
                     help="one of several processes; the cluster says which")  # fmt: skip
    sub.add_argument("--coordinator", default="", metavar="HOST:PORT",
                     help="without a cluster: address of the first process")  # fmt: skip
    sub.add_argument("--processes", type=int, default=0, metavar="N", help="number of processes")
    sub.add_argument("--process", type=int, default=-1, metavar="I",
                     help="number of this process, from 0")  # fmt: skip
    sub.set_defaults(takes_overrides=True)

    sub = _command(
        commands, "evaluate", _evaluate, "measure a run on its test images; writes a report"
    )
    sub.add_argument("--workdir", required=True, help="run folder of `jaxad train`")
    sub.add_argument("--checkpoint", default="last", help="last (default), best or a step")
    sub.add_argument("--data-root", help="where the data set is now, if it has moved")
    _add_threshold(sub)
    sub.set_defaults(takes_overrides=True)

    sub = _command(commands, "predict", _predict, "judge any images: scores, decisions, maps")
    sub.add_argument("--workdir", required=True, help="run folder of `jaxad train`")
    sub.add_argument("--input", required=True, nargs="+", action="extend", metavar="PATH",
                     help="files and folders, separated by spaces")  # fmt: skip
    sub.add_argument("--output", required=True, help="folder of the results; created")
    sub.add_argument("--checkpoint", default="last", help="last (default), best or a step")
    sub.add_argument("--tiff", action="store_true",
                     help="also write the raw maps as float TIFF in MVTec's layout")  # fmt: skip
    sub.add_argument("--no-overlays", action="store_true", help="write no pictures")
    sub.add_argument("--data-root", help="where the training images are now, if they have moved")
    _add_threshold(sub)
    sub.set_defaults(takes_overrides=True)

    sub = _command(
        commands, "benchmark", _benchmark, "train and evaluate a grid of runs; one table"
    )
    sub.add_argument("--configs", default=[], nargs="+", metavar="CONFIG",
                     help="with variants, separated by spaces: pca vqvae:small")  # fmt: skip
    sub.add_argument("--paper", default="", metavar="ID",
                     help="fill a printed table (docs/tables.md) with its configs, categories and "
                     "protocol; several ids separated by commas")  # fmt: skip
    sub.add_argument("--variant", default="", metavar="NAME",
                     help="variant of the paper's configs; small runs on a CPU")  # fmt: skip
    sub.add_argument("--categories", default="", help="of the data set, separated by commas")
    sub.add_argument("--weights", default=[], nargs="+", action="extend", metavar="CONFIG=DIR",
                     help="converted weights that the runs of one config start from: "
                     "vit_vae=DIR")  # fmt: skip
    sub.add_argument("--seeds", default="0", help="separated by commas (default: 0)")
    sub.add_argument("--workdir", required=True, help="folder of all runs; resumes there")
    sub.add_argument("--parallel", type=int, default=1, metavar="N",
                     help="run N cells at a time, each in a process with its share of the GPUs "
                     "(default 1: one cell after the other, each on all devices)")  # fmt: skip
    sub.add_argument("--failures-since", type=float, default=0.0, help=argparse.SUPPRESS)
    sub.set_defaults(takes_overrides=True)

    sub = _command(commands, "config", _config, "list the configs, or show every key of one")
    sub.add_argument(
        "config", nargs="?", metavar="NAME[:VARIANT,...]", help="leave it out to list the names"
    )
    sub.set_defaults(takes_overrides=True)

    sub = _command(commands, "convert", _convert, "convert PyTorch weights for train.weights")
    sub.add_argument("--from", required=True, dest="family", metavar="FAMILY",
                     help="resnet18, efficientnet-lite0, -lite1 or -lite2, timm-vit, hf-vit, mae, "
                     "hf-mae, dinov2 or hf-dinov2")  # fmt: skip
    sub.add_argument("--input", required=True, dest="source", metavar="FILE",
                     help=".pth, .bin or .safetensors, or a folder of the hub")  # fmt: skip
    sub.add_argument("--output", required=True, help="new folder; for --config.train.weights")
    sub.add_argument("--image-size", type=int, default=0, metavar="PIXELS",
                     help="resize position embeddings to images of this side")  # fmt: skip
    sub.add_argument("--heads", type=int, default=0, metavar="N",
                     help="attention heads (default: one for 64 features)")  # fmt: skip
    sub.add_argument("--decoder-heads", type=int, default=0, metavar="N",
                     help="heads of a masked autoencoder's decoder (default 16)")  # fmt: skip
    sub.add_argument("--stages", type=int, default=2, metavar="N",
                     help="how many of layer1 to layer4 of a ResNet18 (default 2)")  # fmt: skip

    sub = _command(commands, "export", _export, "write a run as one file that needs only jax")
    sub.add_argument("--workdir", required=True, help="run folder of `jaxad train`")
    sub.add_argument("--output", required=True, metavar="FILE",
                     help="the StableHLO file; FILE.json beside it describes it")  # fmt: skip
    sub.add_argument("--checkpoint", default="last", help="last (default), best or a step")
    sub.add_argument("--data-root", help="where the training images are now, if they have moved")
    _add_threshold(sub)
    sub.set_defaults(takes_overrides=True)

    sub = _command(
        commands, "data", _data, "inspect a folder, list known data sets, prepare images"
    )
    sub.add_argument("action", choices=["list", "inspect", "prepare"],
                     help="list: what the published data sets need; inspect: counts, sizes, "
                     "masks of a folder; prepare: decode a config's images once")  # fmt: skip
    sub.add_argument("--name", default="", help="auto (default), mvtec, folder, or of `data list`")
    sub.add_argument("--root", default="", help="inspect: folder of the images")
    sub.add_argument("--category", default="", help="inspect: sub-folder of root, normal class")
    sub.add_argument("--anomalous", default="", help="inspect: as the key data.anomalous (elpv)")
    sub.add_argument("--masks", default="", metavar="FOLDER",
                     help="inspect: folders of masks, as the key data.masks")  # fmt: skip
    sub.add_argument("--sheet", default="", metavar="FILE",
                     help="inspect: write a contact sheet (PNG)")  # fmt: skip
    sub.add_argument("--config", default="", metavar="NAME[:VARIANT,...]",
                     help="prepare: as of `jaxad train`, with keys too")  # fmt: skip
    sub.add_argument("--shards", default="", metavar="DIR",
                     help="prepare: write record shards here, for streaming")  # fmt: skip
    sub.set_defaults(takes_overrides=True)

    sub = _command(commands, "score", _score, "measure anomaly maps of any tool against a data set")
    sub.add_argument("--maps", required=True, metavar="DIR",
                     help="float TIFFs: anomaly_maps/CATEGORY/test/KIND/NAME.tiff")  # fmt: skip
    sub.add_argument("--root", required=True, help="folder of the data set (MVTec layout)")
    sub.add_argument("--category", default="", help="the only category to score (default: all)")
    sub.add_argument("--resolution", default="image", metavar="image|map",
                     help="size at which maps and masks are compared (default image)")  # fmt: skip
    sub.add_argument("--aupro-limit", type=float, default=0.3, metavar="FPR",
                     help="rate to which AUPRO integrates (default 0.3)")  # fmt: skip
    sub.add_argument("--memory-limit-mb", type=float, default=2048, metavar="MB",
                     help="above it pixel metrics come as bounds (default 2048)")  # fmt: skip
    sub.add_argument("--output", metavar="FILE", help="JSON file for all metrics")

    sub = _command(commands, "demo", _demo, "train two models on generated images, compare them")
    sub.add_argument(
        "--workdir", default="jaxad-demo", help="folder of the runs (default: jaxad-demo)"
    )
    return parser


def _add_threshold(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--threshold", metavar="SCORE",
                     help="image threshold by hand: a score, fpr:0.02 or recall:0.95 on labelled "
                     "test images; auto: calibrated (evaluate.image_threshold)")  # fmt: skip


def _command(commands, name: str, run, text: str, more: str = "") -> argparse.ArgumentParser:
    description = text[0].upper() + text[1:] + "."
    sub = commands.add_parser(
        name, help=text, description=f"{description} {more}".strip(), allow_abbrev=False
    )
    sub.set_defaults(run=run)
    return sub


def _overrides(
    rest: Sequence[str], *, allowed: bool, more_inputs: list[str] | None = None
) -> dict[str, str]:
    """Reads ``--config.KEY=VALUE`` and ``--config.KEY VALUE``; other words go to ``more_inputs``.

    Raises:
      UserError: an argument that is neither known nor an override.
    """
    overrides: dict[str, str] = {}
    words = iter(rest)
    for word in words:
        if more_inputs is not None and not word.startswith("-"):
            more_inputs.append(word)
            continue
        if not (allowed and word.startswith("--config.")):
            raise UserError(f"unknown argument {word!r}; see --help")
        key, equals, value = word.removeprefix("--config.").partition("=")
        following = value if equals else next(words, None)
        if following is None:
            raise UserError(f"{word} has no value; write {word}=VALUE")
        overrides[key] = following
    return overrides


def _train(arguments: argparse.Namespace, overrides: dict[str, str]) -> None:
    from jaxad.run.config import load_settings
    from jaxad.run.environment import keep_freed_memory

    keep_freed_memory()  # before anything starts threads
    from jaxad.evaluation.detector import check_primary_of
    from jaxad.evaluation.protocols.rules import get_protocol
    from jaxad.training import processes
    from jaxad.training.train import train

    config = load_settings(arguments.config, overrides)
    if not config.data.root and config.data.name in ("auto", "synthetic"):
        say("data.root is empty, so the images are generated ones; train on yours with "
            "--config.data.root=DIR", file=sys.stderr)  # fmt: skip
    get_protocol(config.evaluate.protocol)  # an unknown one is told now, not after training
    numbers = (arguments.coordinator, arguments.processes, arguments.process)
    if arguments.distributed or numbers != ("", 0, -1):
        processes.start(*numbers)
    if any(key.startswith("evaluate.primary_") for key in overrides):
        check_primary_of(config)
    run = train(config, arguments.workdir)
    if processes.is_first():
        say(f"trained; next: jaxad evaluate --workdir={run.path}")


def _evaluate(arguments: argparse.Namespace, overrides: dict[str, str]) -> None:
    from jaxad.evaluation.evaluate import evaluate
    from jaxad.report.tables import format_metrics_table

    result = evaluate(
        arguments.workdir,
        checkpoint=arguments.checkpoint,
        data_root=arguments.data_root,
        overrides=overrides,
    )
    rows = [{"map": name, **metrics} for name, metrics in result["maps"].items()]
    columns = ["map", "image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "aupro"]
    say(format_metrics_table(rows, columns))
    say(f"decides: map {result['primary_map']}, score {result['primary_score']}, "
          + _threshold_in_words(result))  # fmt: skip
    if decisions := result["decisions"]:
        say(f"rejected: {decisions['defective_rejected']} of {decisions['defective']} defective, "
              f"{decisions['good_rejected']} of {decisions['good']} good test images")  # fmt: skip
    for name, reason in result["undefined"].items():
        if "." not in name:
            say(f"{name}: – because {reason}")
    for note in result["notes"]:
        say(f"note: {note}")
    say(f"report: {arguments.workdir}/report.html")


def _threshold_in_words(result: Mapping[str, Any]) -> str:
    if result["image_threshold"] is None:
        return "no threshold"
    by_hand = f" (set by hand: {result['threshold_set_by_hand']})"
    return f"threshold {result['image_threshold']:.4g}" + by_hand * bool(
        result["threshold_set_by_hand"]
    )


def _predict(arguments: argparse.Namespace, overrides: dict[str, str]) -> int:
    from jaxad.evaluation.predict_files import predict_files

    try:
        result = predict_files(
            arguments.workdir,
            arguments.input,
            arguments.output,
            checkpoint=arguments.checkpoint,
            data_root=arguments.data_root,
            overlays=not arguments.no_overlays,
            tiff=arguments.tiff,
            overrides=overrides,
        )
    except KeyboardInterrupt:
        return _interrupted("the tables hold what was done so far")
    counts = result["counts"]
    say(", ".join(f"{number} {name}" for name, number in counts.items() if number))
    if result["unlike_training"]:
        say(f"{result['unlike_training']} images have a brightness or size that the training "
              "images do not have: see the column notes")  # fmt: skip
    say(f"tables: {arguments.output}/scores.csv, {arguments.output}/predictions.json")
    return FAILED_PARTS if counts["unreadable"] else 0


def _benchmark(arguments: argparse.Namespace, overrides: dict[str, str]) -> int:
    from jaxad.cli import benchmark as benchmark_command

    return benchmark_command.run(arguments, overrides)


def _config(arguments: argparse.Namespace, overrides: dict[str, str]) -> None:
    from jaxad.run.config import load_settings, shipped_names, shipped_summary

    if arguments.config is None:
        for name in shipped_names():
            say(f"{name:<12} {shipped_summary(name)}")
        return
    from jaxad.models import described

    for key, value, rule in described(load_settings(arguments.config, overrides)):
        meaning = "; ".join(filter(None, (rule.meaning, rule.wanted())))
        say(f"{f'{key} = {value!r}':<44} # {meaning}")


def _convert(arguments: argparse.Namespace, overrides: dict[str, str]) -> None:
    from jaxad.convert.convert import convert

    record = convert(
        arguments.family,
        arguments.source,
        arguments.output,
        image_size=arguments.image_size,
        heads=arguments.heads,
        decoder_heads=arguments.decoder_heads,
        stages=arguments.stages,
    )
    say(f"{record['source']} (sha256 {record['sha256'][:12]}...): {record['network']}")
    if record["prefix"]:
        say(f"taken off: {record['prefix']} before every key (a network that wrapped this one)")
    for reason in dict.fromkeys(record["dropped"].values()):
        keys = [key for key, why in record["dropped"].items() if why == reason]
        say(f"left out: {keys[0]}" + (f" and {len(keys) - 1} more" if len(keys) > 1 else "")
              + f" ({reason})")  # fmt: skip
    for submodule, meaning in record["absent"].items():
        say(f"no {submodule}: {meaning}")
    say(f"licence: {record['licence']}")
    say(f"next: jaxad train --config.train.weights={arguments.output} ...")


def _export(arguments: argparse.Namespace, overrides: dict[str, str]) -> None:
    from jaxad.evaluation.export import export

    record = export(
        arguments.workdir,
        arguments.output,
        checkpoint=arguments.checkpoint,
        data_root=arguments.data_root,
        overrides=overrides,
    )
    size = " x ".join(str(side) for side in record["input"]["shape"][1:])
    say(f"{arguments.output}: {record['bytes'] / 1e6:.1f} MB, takes uint8 images of {size}, "
          f"for {' and '.join(record['platforms'])}")  # fmt: skip
    if record["image_threshold"] is None:
        say(f"no threshold inside: {record['no_threshold_because']}")
    say(f"described in {arguments.output}.json")


def _data(arguments: argparse.Namespace, overrides: dict[str, str]) -> None:
    from jaxad.cli import data as data_command

    if overrides and arguments.action != "prepare":
        raise UserError(f"jaxad data {arguments.action} takes no keys of a config; see --help")
    if arguments.action == "list":
        say(data_command.list_datasets(arguments.name))
    elif arguments.action == "prepare":
        if not arguments.config:
            raise UserError("jaxad data prepare needs --config, and the data as its overrides")
        say(data_command.prepare(arguments.config, overrides, shards=arguments.shards))
    else:
        if not arguments.root and arguments.name not in ("elpv", "synthetic"):
            raise UserError("jaxad data inspect needs --root, the folder of the images")
        say(
            data_command.inspect(
                arguments.root,
                name=arguments.name or "auto",
                category=arguments.category,
                anomalous=arguments.anomalous,
                masks=arguments.masks,
                sheet=arguments.sheet,
            )
        )


def _score(arguments: argparse.Namespace, overrides: dict[str, str]) -> None:
    from jaxad.evaluation.score_maps import score_maps
    from jaxad.report.tables import format_metrics_table

    result = score_maps(
        arguments.maps,
        arguments.root,
        category=arguments.category,
        resolution=arguments.resolution,
        aupro_limit=arguments.aupro_limit,
        memory_limit_mb=arguments.memory_limit_mb,
        output=arguments.output,
    )
    rows = [{"category": name, **metrics} for name, metrics in result["categories"].items()]
    rows += [{"category": "mean", **result["mean"]}] if len(rows) > 1 else []
    columns = ["category", "image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "aupro", "method"]
    say(f"compared at the resolution of the {result['resolution']}s; image score: "
          f"{result['image_score']}; AUPRO to {result['aupro_limit']:g}")  # fmt: skip
    say(format_metrics_table(rows, columns))
    for name, metrics in result["categories"].items():
        for metric, reason in metrics["undefined"].items():
            if "." not in metric:
                say(f"{name}: {metric}: – because {reason}")
    if arguments.output:
        say(f"all metrics: {arguments.output}")


def _demo(arguments: argparse.Namespace, overrides: dict[str, str]) -> None:
    from jaxad.run.environment import keep_freed_memory

    keep_freed_memory()
    from jaxad.cli.demo import demo

    demo(arguments.workdir)


if __name__ == "__main__":
    sys.exit(main())
