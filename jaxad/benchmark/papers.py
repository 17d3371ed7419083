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
      configs: of the tables' columns, and the baseline.
      categories: of all their rows.
      overrides: for all configs but those of ``own_overrides``.
      own_overrides: for the baseline, for columns of other methods, and for configs that start
        from weights of their own.
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
    own_only: bool = False,
) -> Plan:
    """Fills in what a table says: configs, categories, data set, protocol, and the baseline.

    Columns of the paper's own method are run, and those of methods that it compares with where
    there is a model for them.

    Args:
      papers: ids of tables over one data set and of one paper (one grid fills them all).
      variant: such as ``"small"``, in addition to those of the columns.
      configs: only these columns' configs, as given without the variant; all by default.
      categories: only these; all by default.
      overrides: the user's, which go before the table's. Those of ``model.`` and ``train.`` are
        not for the baseline, but for ``train.devices``.
      weights: see :func:`with_weights`.
      own_only: leave out the methods that the paper compares with.

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
    columns = {
        column["config"]: column
        for table in tables
        for column in run_columns(table)
        if column["own"] or not own_only
    }
    specs = {one: _with_variant(one, variant) for one in columns}
    known = list(dict.fromkeys(one for table in tables for one in categories_of(table)))
    for what, asked, there in (("config", configs, specs), ("category", categories, known)):
        for one in asked:
            if one not in there:
                raise UserError(f"{first['id']} has no {what} {one!r}{did_you_mean(one, there)}")
    protocol = paper_of(first)["protocol"]
    of_table = {"data.name": first["data"], "evaluate.protocol": protocol, **first.get("keys", {})}
    common = of_table | given
    chosen = [one for one in specs if one in configs or not configs]
    first_own = specs[next(one for one in specs if columns[one]["own"])]
    others = {
        specs[one]: _of_other_method(first_own, columns[one], of_table, given)
        for one in chosen
        if not columns[one]["own"]
    }
    shown = [specs[one] for one in chosen]
    own = others | with_weights(shown, common, weights or {}, others)
    return Plan(
        papers=tuple(papers),
        variant=variant,
        configs=(*dict.fromkeys(shown), BASELINE),
        categories=tuple(one for one in known if one in categories or not categories),
        overrides=common,
        own_overrides={BASELINE: _baseline(first_own, common), **own},
    )


def with_weights(
    configs: Sequence[str],
    overrides: Mapping[str, Any],
    weights: Mapping[str, str],
    own_overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, dict[str, Any]]:
    """The keys of those configs that start from weights of their own.

    Args:
      configs: with their variants.
      overrides: of all but those of ``own_overrides``.
      weights: name of a config, ``vit_vae`` -> folder of `jaxad convert`.
      own_overrides: config -> keys in place of ``overrides``.

    Raises:
      UserError: a name that none of the configs has.
    """
    names = {spec: spec.partition(":")[0] for spec in configs}
    for name in weights:
        if name not in names.values():
            known = sorted({*names.values()})
            raise UserError(f"--weights names {name!r}, but runs are of " + ", ".join(known))
    return {
        spec: {**(own_overrides or {}).get(spec, overrides), "train.weights": weights[name]}
        for spec, name in names.items()
        if name in weights
    }


def categories_of(table: Table) -> list[str]:
    """What is run for a table: its rows' categories, or all of them where it prints but means."""
    categories = [row["category"] for row in table["rows"]]
    if categories != ["mean"]:
        return categories
    return [name for name in CATALOGUE[table["data"]].categories if name]


def run_columns(table: Table) -> list[Mapping[str, Any]]:
    """The columns that are run: the paper's own first, then others that a model stands for."""
    run = [column for column in table["columns"] if column.get("config")]
    return sorted(run, key=lambda column: not column["own"])


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
    size = {"data.image_size": tuple(side), "data.channels": config.data.channels}
    # The tables have no threshold to cross-fit for.
    shared = size | {"data.calibration": "held_out"} | _judged_as(spec, overrides)
    return {key: value for key, value in kept.items() if key not in _NAMES} | shared


_NAMES = ("evaluate.primary_map", "evaluate.primary_score")
"""Keys that name maps and scores of the table's own models, which others need not have."""


def _of_other_method(
    first_own: str,
    column: Mapping[str, Any],
    of_table: Mapping[str, Any],
    given: Mapping[str, Any],
) -> dict[str, Any]:
    """Keys of a method that the paper compares with, judged as the paper's own is.

    Of the user's keys it takes those of ``data.``, ``evaluate.`` and ``train.`` that are not of
    the paper's own model alone: its options, its weights, its maps.
    """
    judged = _judged_as(first_own, {**of_table, **given})
    general = {
        key: value
        for key, value in given.items()
        if not key.startswith("model.") and key not in (*_NAMES, "train.weights")
    }
    return {**of_table, **judged, **column.get("keys", {}), **general}


def _judged_as(spec: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Keys by which another model trains on and is judged on what this config is."""
    config = load_config(spec, overrides)
    keys = {
        "data.holdout": config.data.holdout,
        "evaluate.smoothing": config.evaluate.smoothing,
    }
    if not is_whole(config.data.region):
        keys["data.region"] = tuple(config.data.region)
    return keys


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
        seen = {row["config"] for row in rows}
        printed = [
            column
            for column in run_columns(table)
            if column["own"] or _with_variant(column["config"], variant) in seen
        ]
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
    in_print = "config" in printed
    spec = _with_variant(printed["config"], variant) if in_print else BASELINE
    column = Column(name=printed["name"], config=spec, printed=in_print)
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
