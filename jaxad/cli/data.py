"""`jaxad data`: what a folder holds, known data sets, images prepared, defects drawn on them."""

from __future__ import annotations

import pathlib
import shlex
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxad.data.contact_sheet import write_contact_sheet
from jaxad.data.crop import size_of_whole
from jaxad.data.datasets import list_categories, read_table
from jaxad.data.deep_range import resolve_range_16bit
from jaxad.data.images import spread
from jaxad.data.inspection import inspect_table
from jaxad.data.published.catalogue import CATALOGUE
from jaxad.data.synthetic.dataset import CATEGORIES, DEFAULT_CATEGORY, ensure_dataset
from jaxad.data.table import SampleTable
from jaxad.report.tables import format_metrics_table
from jaxad.run.config import load_settings, with_absolute_root
from jaxad.run.errors import UserError, did_you_mean
from jaxad.run.files import writing
from jaxad.run.settings import Data


def list_datasets(name: str = "") -> str:
    """Says what the published data sets are, what each needs, from where, under which licence.

    Args:
      name: only this one, in full; by default all, in short.

    Raises:
      UserError: the name is unknown.
    """
    if name and name not in CATALOGUE:
        raise UserError(f"no published data set {name!r}{did_you_mean(name, CATALOGUE)}")
    parts = []
    for each, published in CATALOGUE.items():
        if name in ("", each):
            lines = [
                f"{each}: {published.title} ({published.reference})",
                f"  {published.about}",
                f"  data.root: {published.needs}",
                f"  from: {published.source}",
                f"  licence: {published.licence}",
            ]
            categories = [category for category in published.categories if category]
            if categories:
                lines.append(f"  data.category: {', '.join(categories)}")
            if name:
                lines.append(f"  counts: {published.counts_from}")
            parts.append("\n".join(lines))
    if not name:
        parts.append(
            "any other data: data.name=auto reads the MVTec layout, other folders of images, and "
            "the shards of `jaxad data prepare`\n"
            f"synthetic: generated, nothing is needed; data.category: {', '.join(CATEGORIES)}"
        )
    return "\n\n".join(parts)


def inspect(
    root: str,
    *,
    name: str = "auto",
    category: str = "",
    anomalous: str = "",
    masks: str = "",
    pages: str = "first",
    sheet: str = "",
) -> str:
    """Reads a data set and says what it holds.

    Args:
      root: as ``data.root``.
      name: as ``data.name``.
      category: as ``data.category``; where ``root`` holds several and none is named, all of them
        are counted, without a look into the files.
      anomalous: as ``data.anomalous``.
      masks: as ``data.masks``.
      pages: as ``data.pages``.
      sheet: file of a contact sheet (PNG); empty for none.

    Raises:
      UserError: the folder cannot be read as the data set.
    """
    if name == "synthetic":
        root, name = str(_generated(category)), "mvtec"
    categories = list_categories(root, name=name)
    if not category and len(categories) > 1 and (name not in CATALOGUE or CATALOGUE[name].folders):
        return _overview(root, name, categories, masks)
    table = read_table(
        root, name=name, category=category, anomalous=anomalous, masks=masks, pages=pages
    )
    found = inspect_table(table)
    headings = {
        "split": "split", "kind": "kind", "images": "images", "masks": "masks",
        "median_percent": "marked % (median)", "largest_percent": "(largest)",
    }  # fmt: skip
    lines = [
        f"{table.root}, read as {table.name}" + (f", {table.category}" if table.category else ""),
        format_metrics_table([row._asdict() for row in found.rows], headings),
        "sizes: " + _sizes(found.sizes),
        "formats: " + ", ".join(f"{n} {ending}" for ending, n in found.formats.items()),
    ]
    if found.components:
        lines.append(f"defects (connected components of the masks): {found.components}")
    if found.vanishing:
        at = ", ".join(f"{n} at {side} x {side}" for side, n in found.vanishing.items())
        lines.append(f"note: defects smaller than a pixel of the model, by data.image_size: {at}")
    lines += [f"note: {note}" for note in found.notes]
    if sheet:
        write_contact_sheet(table, sheet)
        lines.append(f"contact sheet: {sheet}")
    return "\n".join(lines)


def _generated(category: str) -> pathlib.Path:
    """The generated images as configs take them by default, from the cache or made now."""
    data = load_settings("pca", {"data.name": "synthetic", "data.category": category}).data
    from jaxad.training.inputs import open_table

    return pathlib.Path(open_table(data).root)


def defects(root: str, overrides: Mapping[str, Any], *, sheet: str, seed: int = 0) -> str:
    """Draws every kind of defect on some of a folder's good images, into one picture.

    Args:
      root: as ``data.root``.
      overrides: of the keys under ``data``; by default images are 256 x 256 RGB.
      sheet: PNG file.
      seed: of the defects.

    Raises:
      UserError: the folder cannot be read as a data set, or the picture cannot be written.
    """
    from jaxad.data.defects.sheet import COLUMNS, write_defect_sheet
    from jaxad.training.inputs import decode, open_table

    own = {"data.root": root, "data.image_size": (256, 256)}
    settings = with_absolute_root(load_settings("pca", {**own, **overrides})).data
    table = open_table(settings)
    good = spread(table.train_good(), COLUMNS)
    if not good:
        raise UserError(f"{table.root} holds no good training image to draw on")
    range_16bit = table.range_16bit or resolve_range_16bit(
        [s.path for s in good], settings.range_16bit, crop=settings.region
    )
    seen = write_defect_sheet(decode(good, settings, range_16bit), sheet, seed=seed)
    faint = [
        f"{kind} ({len(good) - n} of {len(good)})" for kind, n in seen.items() if n < len(good)
    ]
    lines = [f"defects drawn on {len(good)} good images: {sheet}"]
    if faint:
        lines.append("note: defects that could not be seen on some images: " + ", ".join(faint))
    return "\n".join(lines)


def prepare(config_name: str, overrides: Mapping[str, Any], *, shards: str = "") -> str:
    """Decodes and resizes all images of a config's data set once, into files in the cache.

    Training, calibration and evaluation with the same data, image size, channels, held-out share
    and seed then map these files into memory; every process reads the rows that it needs.

    Args:
      config_name: as of `jaxad train`.
      overrides: of its keys.
      shards: folder for record shards instead (folder data sets only): a data set of its own, of
        large files, that training can stream; see :mod:`jaxad.data.published.tfds_builders`.

    Raises:
      UserError: as of `jaxad train`.
    """
    if shards:
        return _prepare_shards(load_settings(config_name, overrides).data, shards)
    from jaxad.training.inputs import decode, open_table, prepare_inputs

    own = {"data.memory_limit_mb": 0, "data.stream": False}
    config = with_absolute_root(load_settings(config_name, {**overrides, **own}))
    table = open_table(config.data)
    inputs = prepare_inputs(config)
    arrays = {"training": inputs.train, "held-out": inputs.holdout}
    if table.test() and not any(config.data.tiles):  # photographs are judged as they are
        range_16bit = tuple(inputs.record["range_16bit"])
        arrays["test"] = decode(list(table.test()), config.data, range_16bit)
    lines = [
        f"{len(array)} {what} images, {array.nbytes / 2**20:.0f} MiB: {_file(array)}"
        for what, array in arrays.items()
        if isinstance(array, np.ndarray) and len(array)  # nothing is streamed with these keys
    ]
    return "\n".join(lines)


def generate(root: str, category: str) -> str:
    """Draws a data set with known defects into a new folder, and says where it is.

    Args:
      root: the new folder.
      category: one of :data:`jaxad.data.synthetic.dataset.CATEGORIES`; ``""`` is the default.

    Raises:
      UserError: the folder exists or cannot be written, or the category is unknown.
    """
    if pathlib.Path(root).exists():
        raise UserError(f"{root} exists; give --root a new folder")
    with writing(root) as temporary:
        shutil.copytree(ensure_dataset(category=category), temporary)
    folder = pathlib.Path(root) / (category or DEFAULT_CATEGORY)
    return f"next: jaxad data inspect --root={shlex.quote(str(folder))}"


def _prepare_shards(data: Data, folder: str) -> str:
    from jaxad.data.published.tfds_builders import prepare_shards

    if not data.root:
        raise UserError("shards are made of images in a folder: set data.root")
    written = prepare_shards(
        data.root,
        data.name,
        category=data.category,
        anomalous=data.anomalous,
        masks=data.masks,
        pages=data.pages,
        # Whole images, of which a run cuts its region as it does of photographs: prepared larger,
        # so that the region comes out at the size of the config. Tiles are cut of them as they are.
        image_size=None if any(data.tiles) else size_of_whole(data.region, data.image_size),
        channels=data.channels,
        range_16bit=data.range_16bit,
        alpha=data.alpha,
        data_dir=folder,
    )
    return f"shards: {written}; train on them with --config.data.root={written}"


def _file(array: Any) -> str:
    return str(pathlib.Path(getattr(array, "filename", "") or "memory"))


def _overview(root: str, name: str, categories: tuple[str, ...], masks: str) -> str:
    tables = {c: read_table(root, name=name, category=c, masks=masks) for c in categories}
    rows = [_overview_row(category, table) for category, table in tables.items()]
    columns = ["category", "train", "test good", "test anomalous", "kinds", "masks"]
    lines = [f"{root}, {len(categories)} categories", format_metrics_table(rows, columns)]
    if name in CATALOGUE:
        missing = [c for c in CATALOGUE[name].categories if c not in categories]
        if missing:
            lines.append(f"note: categories that are not there: {', '.join(missing)}")
    lines += [f"note: {c}: {note}" for c, table in tables.items() for note in table.notes]
    lines.append("--category=NAME looks into the files of one")
    return "\n".join(lines)


def _overview_row(category: str, table: SampleTable) -> dict[str, Any]:
    test = table.test()
    return {
        "category": category,
        "train": len(table.train_good()),
        "test good": sum(s.label == 0 for s in test),
        "test anomalous": sum(s.label for s in test),
        "kinds": len(table.kinds()),
        "masks": sum(s.mask is not None for s in test),
    }


def _sizes(sizes: Mapping[tuple[int, int], int], at_most: int = 5) -> str:
    shown = [f"{n} of {h} x {w}" for (h, w), n in list(sizes.items())[:at_most]]
    more = [f"{len(sizes) - at_most} other sizes"] if len(sizes) > at_most else []
    return ", ".join(shown + more) + " (height x width)"
