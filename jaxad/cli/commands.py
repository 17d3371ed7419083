"""What the shorter commands do with their arguments, and what they print.

Heavy imports happen inside a command, so that help is instant.
"""

from __future__ import annotations

import argparse
import shlex
from typing import Any

from jaxad.cli import threshold
from jaxad.cli.status import FAILED_PARTS, interrupted
from jaxad.run.errors import UserError
from jaxad.run.text import counted, say


def evaluate(arguments: argparse.Namespace, overrides: dict[str, str]) -> None:
    """Prints the metrics, what decides, and what it rejects."""
    from jaxad.evaluation.evaluate import evaluate
    from jaxad.evaluation.inputs import NoTestImages
    from jaxad.evaluation.keep import keep_keys
    from jaxad.report.tables import format_metrics_table
    from jaxad.run.folder import RunFolder

    where = {"checkpoint": arguments.checkpoint, "data_root": arguments.data_root}
    try:
        result = evaluate(arguments.workdir, overrides=overrides, **where)
    except NoTestImages as nothing:
        if not overrides:
            raise
        keep_keys(arguments.workdir, overrides, **where)
        say(threshold.kept(overrides))
        say(f"note: {nothing}")
        return
    rows = [{"map": name, **metrics} for name, metrics in result["maps"].items()]
    columns = ["map", "image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "aupro"]
    say(format_metrics_table(rows, columns))
    say(f"decides: map {result['primary_map']}, score {result['primary_score']} (of the config, "
        f"not chosen on the test images), {threshold.in_words(result)}")  # fmt: skip
    if result["image_threshold"] is not None and not result["threshold_set_by_hand"]:
        run = RunFolder(arguments.workdir)
        for line in threshold.origin(run.read_json(run.calibration), run.odd_images):
            say(line)
    if decisions := result["decisions"]:
        say(f"rejected: {decisions['defective_rejected']} of {decisions['defective']} defective, "
              f"{decisions['good_rejected']} of {decisions['good']} good test images")  # fmt: skip
    for name, reason in result["undefined"].items():
        if "." not in name:
            say(f"{name}: – because {reason}")
    for note in result["notes"]:
        say(f"note: {note}")
    if overrides:
        say(threshold.kept(overrides))
    say(f"report: {arguments.workdir}/report.html")


def predict(arguments: argparse.Namespace, overrides: dict[str, str]) -> int:
    """Judges images, and prints how many were accepted."""
    from jaxad.evaluation.predict_files import predict_files
    from jaxad.run.folder import RunFolder

    try:
        result = predict_files(
            arguments.workdir,
            arguments.input,
            arguments.output,
            checkpoint=arguments.checkpoint,
            data_root=arguments.data_root,
            overlays=not arguments.no_overlays,
            tiff=arguments.tiff,
            submission=arguments.submission,
            overrides=overrides,
        )
    except KeyboardInterrupt:
        return interrupted("the tables hold what was done so far")
    counts = result["counts"]
    others = [f"{n} {name}" for name, n in counts.items() if n and name != "images"]
    say(", ".join([counted(counts["images"], "image"), *others])
          + f"; {threshold.in_words(result)}")  # fmt: skip
    if result["image_threshold"] is not None and not result["threshold_set_by_hand"]:
        odd_images = RunFolder(arguments.workdir).odd_images
        for line in threshold.origin(result["calibration"], odd_images):
            say(line)
    if unlike := result["unlike_training"]:
        have = f"{counted(unlike, 'image')} {'has' if unlike == 1 else 'have'}"
        say(f"{have} a brightness or size that the training images do not have: see the column "
            "notes")  # fmt: skip
    say(f"tables: {arguments.output}/scores.csv, {arguments.output}/predictions.json")
    say(f"page: {arguments.output}/report.html")
    return FAILED_PARTS if counts["unreadable"] else 0


def config(arguments: argparse.Namespace, overrides: dict[str, str]) -> None:
    """Lists the configs, or the keys of one with their meanings."""
    from jaxad.run.config import load_settings, shipped_names, shipped_summary

    if arguments.config is None:
        for name in shipped_names():
            say(f"{name:<12} {shipped_summary(name)}")
        return
    from jaxad.models import described

    for key, value, rule in described(load_settings(arguments.config, overrides)):
        meaning = "; ".join(filter(None, (rule.meaning, rule.wanted())))
        say(f"{f'{key} = {value!r}':<44} # {meaning}")


def convert(arguments: argparse.Namespace, overrides: dict[str, str]) -> None:
    """Converts weights, and says what was left out and under which licence they are."""
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
    say(f"next: {_training_with(record, str(arguments.output))} ...")


def _training_with(record: dict[str, Any], folder: str) -> str:
    """The command that trains with converted weights, as far as they decide it."""
    from jaxad.models.layers.backbones import backbone_of_weights

    weights = f"--config.train.weights={shlex.quote(folder)}"
    name = backbone_of_weights(record["family"], record["network"])
    if name.startswith("efficientnet"):
        return f"jaxad train --config=feature_pca --config.model.backbone={name} {weights}"
    if name:  # sides of images are multiples of the patch's
        return f"jaxad train --config=feature_pca:dinov2 --config.model.backbone={name} {weights}"
    return f"jaxad train {weights}"


def export(arguments: argparse.Namespace, overrides: dict[str, str]) -> None:
    """Writes the program, and says what it takes."""
    from jaxad.export.formats import export

    record = export(
        arguments.workdir,
        arguments.output,
        format=arguments.format,
        runtime=arguments.runtime,
        photograph_size=arguments.photograph_size,
        checkpoint=arguments.checkpoint,
        data_root=arguments.data_root,
        overrides=overrides,
    )
    size = " x ".join(str(side) for side in record["input"]["shape"][1:])
    say(f"{arguments.output}: {record['bytes'] / 1e6:.1f} MB, takes uint8 images of {size} "
        f"({record['format']})")  # fmt: skip
    if record["image_threshold"] is None:
        say(f"no threshold inside: {record['no_threshold_because']}")
    if arguments.format == "web":
        folder = shlex.quote(str(arguments.output))
        say(f"try it: python -m http.server --directory {folder}")
    else:
        say(f"described in {arguments.output}.json")


def data(arguments: argparse.Namespace, overrides: dict[str, str]) -> None:
    """Calls what :mod:`jaxad.cli.data` has for the action."""
    from jaxad.cli import data as data_command

    if overrides and arguments.action not in ("prepare", "defects"):
        raise UserError(f"jaxad data {arguments.action} takes no keys of a config; see --help")
    if arguments.action == "list":
        said = data_command.list_datasets(arguments.name)
    elif arguments.action == "prepare":
        if not arguments.config:
            raise UserError("jaxad data prepare needs --config, and the data as its overrides")
        said = data_command.prepare(arguments.config, overrides, shards=arguments.shards)
    elif arguments.action == "generate":
        if not arguments.root:
            raise UserError("jaxad data generate needs --root, the new folder")
        said = data_command.generate(arguments.root, arguments.category)
    elif arguments.action == "defects":
        if not (arguments.root and arguments.sheet):
            raise UserError("jaxad data defects needs --root, the folder, and --sheet, a PNG file")
        for flag in ("name", "category", "masks"):
            if value := getattr(arguments, flag):
                overrides = {f"data.{flag}": value, **overrides}
        said = data_command.defects(
            arguments.root, overrides, sheet=arguments.sheet, seed=arguments.seed
        )
    else:
        if not arguments.root and arguments.name not in ("elpv", "synthetic"):
            raise UserError("jaxad data inspect needs --root, the folder of the images")
        said = data_command.inspect(
            arguments.root,
            name=arguments.name or "auto",
            category=arguments.category,
            anomalous=arguments.anomalous,
            masks=arguments.masks,
            pages=arguments.pages,
            sheet=arguments.sheet,
        )
    say(said)


def score(arguments: argparse.Namespace, overrides: dict[str, str]) -> None:
    """Prints the metrics of maps."""
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
    columns += ["au_spro"] * any("au_spro" in row for row in rows)
    say(format_metrics_table(rows, columns))
    for name, metrics in result["categories"].items():
        for metric, reason in metrics["undefined"].items():
            if "." not in metric:
                say(f"{name}: {metric}: – because {reason}")
    if arguments.output:
        say(f"all metrics: {arguments.output}")


def demo(arguments: argparse.Namespace, overrides: dict[str, str]) -> None:
    """Runs the demo."""
    from jaxad.run.environment import keep_freed_memory

    keep_freed_memory()
    from jaxad.cli.demo import demo

    demo(arguments.workdir)
