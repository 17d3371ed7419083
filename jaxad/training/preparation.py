"""What stands before the first step: the model, the checks, the images, the run folder."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxad import models
from jaxad.data.digests import check_unchanged
from jaxad.data.region_mask import keep_region_mask
from jaxad.data.streamed import StreamedImages
from jaxad.data.tiled import TiledImages
from jaxad.models.base import Model, parameter_key
from jaxad.models.positions import megabytes, per_position
from jaxad.run import config as config_lib, environment
from jaxad.run.coarse import keep_coarse
from jaxad.run.errors import UserError
from jaxad.run.folder import RunFolder
from jaxad.run.settings import Settings
from jaxad.training import processes
from jaxad.training.backbones import load_backbone
from jaxad.training.checkpoints import Checkpoints
from jaxad.training.inputs import Inputs, open_table, prepare_inputs
from jaxad.training.parallel import Devices
from jaxad.training.processes import log
from jaxad.training.weights import (
    check_complete,
    check_network,
    epsilon_note,
    read_provenance,
)

CHANGEABLE = (
    "evaluate.",
    "data.pipeline",
    "data.stream",
    "data.memory_limit_mb",
    "data.limit_megapixels",
    "train.devices",
)
"""Keys that may differ when a run is resumed: they do not change what is learned. Those of
:func:`jaxad.models.detection_keys` do not either."""

LENGTHS = ("train.steps", "train.epochs")
"""Keys that may be raised to train a run longer. A constant learning rate goes on as it is; other
schedules are those of the new length, from the step where the run goes on."""


class Setup(NamedTuple):
    """What a run trains with.

    Attributes:
      config: of the run.
      devices: that share a batch.
      model: of the config, for the devices.
      inputs: the images.
      run: the run folder.
      checkpoints: of the run; None in all processes but the first.
    """

    config: Settings
    devices: Devices
    model: Model
    inputs: Inputs
    run: RunFolder
    checkpoints: Checkpoints | None


def prepare(config: Settings, run: RunFolder, stack: contextlib.ExitStack) -> Setup:
    """Builds the model and reads the images; the first process also locks and fills the run folder.

    Args:
      config: of the run.
      run: the run folder; created.
      stack: ends the lock and closes the checkpoints.

    Raises:
      UserError: the config, the data or the folder does not allow it.
    """
    devices = Devices(
        config.train.devices, force_pmap=config.train.force_pmap, several_processes=True
    )
    model = _build_model(config, devices)
    weights: dict[str, Any] = {}
    if processes.is_first() and not run.has_checkpoint():  # else there is no more need of them
        weights = _weights_record(config, model)
    table = open_table(config.data)  # a wrong folder leaves no run folder behind
    if processes.is_first():
        run.create()
        stack.enter_context(run.locked())
        run.remove_unfinished()
        _check_same_run(run, config, closed_form=model.fit is not None)
    closed_form = model.fit is not None
    inputs = prepare_inputs(
        config, train=_is_trained(model, config), closed_form=closed_form, table=table
    )
    if inputs.grid is not None:
        model = _of_places(model, inputs.grid.places, config)
    if config.train.takes_steps and not closed_form:
        _check_batches(config, inputs, devices)
    checkpoints = None
    if processes.is_first():
        _record_run(run, config, inputs, weights)
        checkpoints = stack.enter_context(contextlib.closing(Checkpoints(run.checkpoints)))
    return Setup(config, devices, model, inputs, run, checkpoints)


def _build_model(config: Settings, devices: Devices) -> Model:
    model = models.build_from(config, axis_name=devices.axis_name)
    try:
        # Some options fail only once parameters are to be made (no features, say).
        jax.eval_shape(model.init, parameter_key(0))
    except (ArithmeticError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"the model {config.model.name!r} cannot be made with these options: {reason}"
        ) from error
    if model.fit is not None and processes.count() > 1:
        raise UserError(
            f"the model {config.model.name!r} is fitted in closed form, which one process does; "
            "start it in one"
        )
    if _is_trained(model, config):
        return model
    if processes.count() > 1:
        raise UserError("nothing is trained here, which one process does; start it in one")
    for key in ("illumination", "align"):
        if config.data[key] != "none":
            raise UserError(
                f"data.{key}={config.data[key]} is fitted to training images, and nothing is "
                "trained here; leave it at none"
            )
    return model


def _is_trained(model: Model, config: Settings) -> bool:
    """Whether anything is learned from images; else weights are taken as they are."""
    return model.fit is not None or config.train.takes_steps


def _of_places(model: Model, count: int, config: Settings) -> Model:
    """The models of all places of tiles.

    Raises:
      UserError: they take too much memory.
    """
    needed, limit = megabytes(model, count), config.data.memory_limit_mb
    if needed > limit:
        raise UserError(
            f"the models of {count} places (data.tile_models=per_position) take {needed:.0f} MB, "
            f"more than data.memory_limit_mb={limit}; take a smaller model, a smaller "
            "data.image_size or larger tiles, or raise it"
        )
    return per_position(model, count)


def _weights_record(config: Settings, model: Model) -> dict[str, Any]:
    """Where the weights are from that the encoder starts with; {} where it starts at random.

    Raises:
      UserError: they are no such folder, belong to another network, or leave parts of a model at
        random that nothing trains.
    """
    if model.backbone:
        return _origin(load_backbone(model.backbone, config.train.weights).provenance)
    if not config.train.weights:
        if not _is_trained(model, config):
            raise UserError(
                "nothing is trained (train.optimizer=none, or a learning rate of 0) and "
                "train.weights is empty, so the model would be a random one; give converted "
                "weights, or train"
            )
        return {}
    if model.fit is not None:
        raise UserError(
            f"the model {config.model.name!r} is fitted in closed form and starts from no weights; "
            "leave train.weights empty"
        )
    record = read_provenance(config.train.weights)
    check_network(record, config.model.options)
    if note := epsilon_note(record, config.model.options):
        log(f"note: {note}")
    if not _is_trained(model, config):
        check_complete(jax.eval_shape(model.init, parameter_key(0)), record)
    return _origin(record)


def _origin(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a run says of its weights; ``package`` where they were installed."""
    known = ("family", "source", "sha256", "licence", "package")
    return {key: record[key] for key in known if key in record}


def _check_same_run(run: RunFolder, config: Settings, *, closed_form: bool) -> None:
    if not run.has_checkpoint():
        return  # nothing to go on from: a mistake in the config may still be mended
    if not run.config.exists():
        raise UserError(f"{run.path} has checkpoints but no config.json; use a new --workdir")
    earlier = run.read_config()
    if earlier.model.name != config.model.name:
        raise UserError(
            f"{run.path} holds a run of the model {earlier.model.name!r}, not "
            f"{config.model.name!r}; use a new --workdir"
        )
    there, here = config_lib.flatten(earlier), config_lib.flatten(config)
    of_detection = models.detection_keys(config.model.name)
    for key in {**there, **here}:
        changeable = key.startswith(CHANGEABLE) or key in of_detection
        if key in LENGTHS:
            # A finished run may be trained longer, and a fit in closed form takes no steps at all.
            # Steps that are not given (0) leave the length to the epochs.
            changeable = closed_form or 0 < there[key] < here[key]
        # Lists and tuples are the same thing once they have been through JSON.
        if not changeable and repr(there.get(key)) != repr(here.get(key)):
            raise UserError(
                f"{run.path} holds a run with another config: {key} is {there.get(key)!r} there "
                f"and {here.get(key)!r} here; use a new --workdir"
            )


def _check_batches(config: Settings, inputs: Inputs, devices: Devices) -> None:
    options = config.train
    devices.check_batch_size("train.batch_size", options.batch_size)
    fewest = len(inputs.train)
    elsewhere = f"{len(inputs.holdout)} held out"
    if inputs.folds is not None:
        largest = int(np.bincount(inputs.folds).max())
        fewest, elsewhere = fewest - largest, f"{largest} in another fold"
    if options.batch_size > fewest:
        raise UserError(
            f"train.batch_size is {options.batch_size}, but there are {fewest} training "
            f"images (and {elsewhere}); take a smaller one"
        )
    per_device = options.batch_size // len(devices)
    if per_device % options.accumulate:
        raise UserError(
            f"train.accumulate is {options.accumulate}, which does not divide the {per_device} "
            "images that each device takes"
        )


def _record_run(run: RunFolder, config: Settings, inputs: Inputs, weights: dict[str, Any]) -> None:
    if run.has_checkpoint() and run.data.exists():
        before = {"folds": []} | run.read_json(run.data)
        if any(before[part] != inputs.record[part] for part in ("training", "holdout", "folds")):
            raise UserError(
                f"the training images in {inputs.record['root']} are not those that "
                f"{run.path} was started with; use a new --workdir"
            )
        check_unchanged(before, inputs.record, run=run.path)
        if isinstance(inputs.train, StreamedImages | TiledImages):
            known = before.get("pixels", {})
            pixels = ((row, known.get(name)) for row, name in enumerate(before["training"]))
            inputs.train.digests.update({row: digest for row, digest in pixels if digest})
        # What the run was started with stays, and what an evaluation has set since.
        earlier = run.read_config()
        longer = earlier.changed("train", steps=config.train.steps, epochs=config.train.epochs)
        if longer != earlier:
            run.write_config(longer)
        return
    run.write_json(run.data, inputs.record)
    run.write_config(keep_coarse(run, keep_region_mask(run, config)))
    described = environment.describe(config.seed)
    described |= {"weights": weights} if weights else {}
    described |= {"processes": processes.count()} if processes.count() > 1 else {}
    run.write_json(run.environment, described)
