"""Printed tables as benchmarks: which cells fill one, and its numbers beside theirs."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxad.benchmark.paper_page import Column, write_table
from jaxad.benchmark.printed import Table, get_table, paper_of
from jaxad.data.crop import crop_in_words, is_whole
from jaxad.data.published.catalogue import CATALOGUE
from jaxad.evaluation.protocols.rules import get_protocol
from jaxad.run.config import SOURCES, load_config
from jaxad.run.errors import UserError, did_you_mean
from jaxad.run.folder import RunFolder

BASELINE = "pca"
BASELINE_SIDE = 128
"""Largest side in pixels at which the baseline sees images."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A grid, such as the one that fills printed tables.

    Attributes:
      configs: of the tables' own columns, and the baseline.
      categories: of all their rows.
      overrides: for all configs but those of ``own_overrides``.
      own_overrides: for the baseline, and for configs that start from weights of their own.
      papers: ids of the tables.
      variant: of the configs.
    """

    configs: tuple[str, ...]
    categories: tuple[str, ...]
    overrides: Mapping[str, Any]
    own_overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    papers: tuple[str, ...] = ()
    variant: str = ""


def plan(
    papers: Sequence[str],
    *,
    variant: str = "",
    configs: Sequence[str] = (),
    categories: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
    weights: Mapping[str, str] | None = None,
) -> Plan:
    """Fills in what a table says: configs, categories, data set, protocol, and the baseline.

    Args:
      papers: ids of tables over one data set and of one paper (one grid fills them all).
      variant: such as ``"small"``, in addition to those of the columns.
      configs: only these columns' configs, as given without the variant; all by default.
      categories: only these; all by default.
      overrides: the user's, which go before the table's. Those of ``model.`` and ``train.`` are
        not for the baseline, but for ``train.devices``.
      weights: see :func:`with_weights`.

    Raises:
      UserError: unknown table, category or config, tables that share no grid, or no data.
    """
    tables = [get_table(one) for one in papers]
    first, given = tables[0], dict(overrides or {})
    for table in tables:
        if table["metric"]["key"] == "counts":
            raise UserError(
                f"{table['id']} counts images and is no experiment; "
                f"`jaxad data inspect --name={table['data']} --root=DIR` counts them"
            )
        shared = ("data", "keys")
        if paper_of(table) != paper_of(first) or any(table.get(k) != first.get(k) for k in shared):
            raise UserError(
                f"{first['id']} and {table['id']} are not filled by the same runs; "
                "give them workdirs of their own"
            )
    published = CATALOGUE[first["data"]]
    if not given.get("data.root"):
        raise UserError(
            f"{first['id']} needs {published.title}: --config.data.root=DIR, a "
            f"{published.needs}; from {published.source}"
        )
    specs = {one: _with_variant(one, variant) for table in tables for one in _specs(table)}
    known = list(dict.fromkeys(one for table in tables for one in categories_of(table)))
    for what, asked, there in (("config", configs, specs), ("category", categories, known)):
        for one in asked:
            if one not in there:
                raise UserError(f"{first['id']} has no {what} {one!r}{did_you_mean(one, there)}")
    protocol = paper_of(first)["protocol"]
    of_table = {"data.name": first["data"], "evaluate.protocol": protocol, **first.get("keys", {})}
    common = of_table | given
    chosen = [specs[one] for one in specs if one in configs or not configs]
    own = with_weights(chosen, common, weights or {})
    return Plan(
        papers=tuple(papers),
        variant=variant,
        configs=(*dict.fromkeys(chosen), BASELINE),
        categories=tuple(one for one in known if one in categories or not categories),
        overrides=common,
        own_overrides={BASELINE: _baseline(chosen[0], common), **own},
    )


def with_weights(
    configs: Sequence[str], overrides: Mapping[str, Any], weights: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """The keys of those configs that start from weights of their own.

    Args:
      configs: with their variants.
      overrides: of all.
      weights: name of a config, ``vit_vae`` -> folder of `jaxad convert`.

    Raises:
      UserError: a name that none of the configs has.
    """
    names = {spec: spec.partition(":")[0] for spec in configs}
    for name in weights:
        if name not in names.values():
            known = sorted({*names.values()})
            raise UserError(f"--weights names {name!r}, but runs are of " + ", ".join(known))
    return {
        spec: {**overrides, "train.weights": weights[name]}
        for spec, name in names.items()
        if name in weights
    }


def categories_of(table: Table) -> list[str]:
    """What is run for a table: its rows' categories, or all of them where it prints but means."""
    categories = [row["category"] for row in table["rows"]]
    if categories != ["mean"]:
        return categories
    return [name for name in CATALOGUE[table["data"]].categories if name]


def _specs(table: Table) -> list[str]:
    return [column["config"] for column in table["columns"] if column["own"]]


def _with_variant(spec: str, variant: str) -> str:
    """``vqvae:cifar10,paper`` -> ``vqvae:paper,small,cifar10``: source, variant, the rest."""
    name, _, variants = spec.partition(":")
    if not variant:
        return spec
    own = variants.split(",")
    source = next((one for one in own if one in SOURCES), SOURCES[0])
    return f"{name}:{','.join([source, variant, *(one for one in own if one != source)])}"


def _baseline(spec: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Keys that let the baseline see and be judged on what a table's first config is."""
    config = load_config(spec, overrides)
    kept = {
        key: value
        for key, value in overrides.items()
        if not key.startswith(("model.", "train.")) or key == "train.devices"
    }
    side = [min(n, BASELINE_SIDE) for n in config.data.image_size]
    shared = {
        "data.image_size": tuple(side),
        "data.channels": config.data.channels,
        "data.holdout": config.data.holdout,
        "data.calibration": "held_out",  # the tables have no threshold to cross-fit for
        "evaluate.smoothing": config.evaluate.smoothing,
    }
    if not is_whole(config.data.region):
        shared["data.region"] = tuple(config.data.region)
    # What names a map or a score of the table's own models is not the baseline's.
    names = ("evaluate.primary_map", "evaluate.primary_score")
    return {key: value for key, value in kept.items() if key not in names} | shared


def write_paper_tables(
    root: pathlib.Path,
    papers: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    *,
    variant: str = "",
) -> None:
    """Writes ``table_ID.md``, ``.csv`` and ``.json`` for each printed table.

    Args:
      root: the benchmark's folder.
      papers: ids of the tables.
      rows: of the cells that are done or have failed.
      variant: with which the tables' configs were run.
    """
    baseline = {"name": BASELINE, "own": False}
    for one in papers:
        table = get_table(one)
        printed = [column for column in table["columns"] if column["own"]]
        columns = [_column(root, rows, table, each, variant) for each in [*printed, baseline]]
        statement = get_protocol(paper_of(table)["protocol"]).statement
        write_table(root, table, columns, categories_of(table), statement=statement)


def _column(
    root: pathlib.Path,
    rows: Sequence[Mapping[str, Any]],
    table: Table,
    printed: Mapping[str, Any],
    variant: str,
) -> Column:
    """Metrics of the runs that stand for a printed column, or of the baseline's."""
    spec = _with_variant(printed["config"], variant) if printed["own"] else BASELINE
    column = Column(name=printed["name"], config=spec, printed=printed["own"])
    key = table["metric"]["key"]
    std_key = key.replace("_mean", "_std") if key.endswith("_mean") else ""
    for row in rows:
        if row["config"] != spec:
            continue
        if row["error"]:
            column.errors.append(f"{row['folder']}: {row['error']}")
            continue
        run = RunFolder(root / row["folder"])
        metrics = run.read_json(run.metrics)
        ours = metrics["protocol_figures"]
        if printed.get("map"):
            ours = metrics["protocol_maps"].get(printed["map"], {})
        column.values.setdefault(row["category"], {})[row["seed"]] = ours.get(key)
        column.stds.setdefault(row["category"], {})[row["seed"]] = ours.get(std_key)
        column.settings = column.settings or _settings(run, printed.get("weights", ""))
    return column


def _settings(run: RunFolder, authors_weights: str) -> str:
    """How large, how long and from which weights, in words."""
    config = run.read_config()
    height, width = config.data.image_size
    timing = run.read_json(run.timing)
    steps = timing.get("steps") or 0
    trained = "closed form" if config.train.takes_steps else "weights as they are"
    if steps:
        trained = f"{steps} steps of {config.train.batch_size} images"
    holdout, smoothing = config.data.holdout, config.evaluate.smoothing
    held = f", {100 * holdout:g} % held out" if holdout else ""
    smooth = f", maps smoothed by {smoothing:g}" if smoothing else ""
    crop = config.data.region
    part = "" if is_whole(crop) else f" of {crop_in_words(crop)}"
    start = f", from {config.train.weights}" if config.train.weights else ""
    if authors_weights and not start:
        start = f", from random values where the authors start from {authors_weights}"
    return f"{height} x {width} pixels{part}, {trained}{start}{held}{smooth}"
