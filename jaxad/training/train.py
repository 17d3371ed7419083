"""Training, from a config to a run folder: ``train(config, workdir)`` reads as its contents."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any

import jax
import optax
from ml_collections import ConfigDict

from jaxad import models
from jaxad.data.pipeline import Passes, empty_batch, evaluation_batches, training_batches
from jaxad.models.base import Model, parameter_key
from jaxad.run import config as config_lib, environment
from jaxad.run.errors import UserError
from jaxad.run.files import write_json, write_text
from jaxad.run.folder import RunFolder
from jaxad.training import processes
from jaxad.training.augment import make_augment
from jaxad.training.checkpoints import Checkpoints
from jaxad.training.history import check_finite, summarise_steps
from jaxad.training.inputs import Inputs, prepare_inputs
from jaxad.training.optimizer import make_optimizer, make_schedule
from jaxad.training.parallel import Devices
from jaxad.training.processes import say
from jaxad.training.records import NoRecords, Records
from jaxad.training.state import TrainState, create_state
from jaxad.training.step import make_train_step, make_validation_step
from jaxad.training.weights import check_network, load_weights, read_provenance

CHANGEABLE = (
    "evaluate.",
    "data.pipeline",
    "data.stream",
    "data.memory_limit_mb",
    "train.devices",
)
"""Keys that may differ when a run is resumed: they do not change what is learned. Those of
:func:`jaxad.models.detection_keys` do not either."""


def train(config: ConfigDict, workdir: str | os.PathLike) -> RunFolder:
    """Trains a model, or goes on with a run that was interrupted.

    A run stopped at any moment and started again with the same config and workdir ends with the
    same history and parameters as one that was never stopped.

    Several processes that :func:`jaxad.training.processes.start` (or
    :func:`jax.distributed.initialize`) has joined train one run together when all of them call
    this; the first one writes the run folder.

    Args:
      config: as :func:`jaxad.run.config.load_config` gives it.
      workdir: the run folder; created.

    Returns:
      The run folder.

    Raises:
      UserError: the config, the data or the folder does not allow it, or the loss is not finite.
    """
    config_lib.check_values(config)
    config = config_lib.with_absolute_root(config)
    environment.enable_compilation_cache()
    devices = Devices(
        config.train.devices, force_pmap=config.train.force_pmap, several_processes=True
    )
    model_options = config.model.to_dict()
    name = model_options.pop("name")
    image_shape = (*config.data.image_size, config.data.channels)
    model = models.build(name, image_shape, axis_name=devices.axis_name, **model_options)
    _check_model(name, model)
    run = RunFolder(workdir)
    with processes.ending_together(), contextlib.ExitStack() as stack:
        inputs, checkpoints = processes.together(
            lambda: _prepare(config, model, run, devices, stack)
        )
        processes.check_same(
            settings=config_lib.to_json(config), training_images=repr(inputs.record)
        )
        if model.fit is not None:
            _fit(config, model, inputs, run, checkpoints)
        else:
            _optimise(config, model, inputs, run, checkpoints, devices)
    return run


def _prepare(
    config: ConfigDict,
    model: Model,
    run: RunFolder,
    devices: Devices,
    stack: contextlib.ExitStack,
) -> tuple[Inputs, Checkpoints | None]:
    """Images, and in the first process the run folder: locked, checked, with its checkpoints."""
    first = processes.is_first()
    if model.fit is not None and processes.count() > 1:
        raise UserError(
            f"the model {config.model.name!r} is fitted in closed form, which one process does; "
            "start it in one"
        )
    if first:
        # A run that goes on has no more need of them.
        weights = {} if run.has_checkpoint() else _weights_record(config, model)
        run.create()
        stack.enter_context(run.locked())
        _check_same_run(run, config)
    inputs = prepare_inputs(config)
    if model.fit is None:
        _check_batches(config, inputs, devices)
    if not first:
        return inputs, None
    _record_run(run, config, inputs, weights)
    checkpoints = Checkpoints(run.checkpoints)
    stack.callback(checkpoints.close)
    return inputs, checkpoints


def _check_model(name: str, model: Model) -> None:
    """Refuses options that only fail once parameters are to be made (no features, say)."""
    try:
        jax.eval_shape(model.init, parameter_key(0))
    except (ArithmeticError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"the model {name!r} cannot be made with these options: {reason}"
        ) from error


def _weights_record(config: ConfigDict, model: Model) -> dict[str, Any]:
    """Where the weights are from that the encoder starts with; {} where it starts at random."""
    if not config.train.weights:
        return {}
    if model.fit is not None:
        raise UserError(
            f"the model {config.model.name!r} is fitted in closed form and starts from no weights; "
            "leave train.weights empty"
        )
    record = read_provenance(config.train.weights)
    check_network(record, config.model)
    return {key: record[key] for key in ("family", "source", "sha256", "licence")}


def _check_same_run(run: RunFolder, config: ConfigDict) -> None:
    if not run.has_checkpoint():
        return  # nothing to go on from: a mistake in the config may still be mended
    if not run.config.exists():
        raise UserError(f"{run.path} has checkpoints but no config.json; use a new --workdir")
    there, here = config_lib.flatten(run.read_config()), config_lib.flatten(config)
    of_detection = models.detection_keys(config.model.name)
    for key in {**there, **here}:
        changeable = key.startswith(CHANGEABLE) or key in of_detection
        # Lists and tuples are the same thing once they have been through JSON.
        if not changeable and repr(there.get(key)) != repr(here.get(key)):
            raise UserError(
                f"{run.path} holds a run with another config: {key} is {there.get(key)!r} there "
                f"and {here.get(key)!r} here; use a new --workdir"
            )


def _check_batches(config: ConfigDict, inputs: Inputs, devices: Devices) -> None:
    options = config.train
    devices.check_batch_size("train.batch_size", options.batch_size)
    if options.batch_size > len(inputs.train):
        raise UserError(
            f"train.batch_size is {options.batch_size}, but there are {len(inputs.train)} training "
            f"images (and {len(inputs.holdout)} held out); take a smaller one"
        )
    per_device = options.batch_size // len(devices)
    if per_device % options.accumulate:
        raise UserError(
            f"train.accumulate is {options.accumulate}, which does not divide the {per_device} "
            "images that each device takes"
        )


def _record_run(
    run: RunFolder, config: ConfigDict, inputs: Inputs, weights: dict[str, Any]
) -> None:
    if run.has_checkpoint() and run.data.exists():
        before = run.read_json(run.data)
        if (before["training"], before["holdout"]) != (
            inputs.record["training"],
            inputs.record["holdout"],
        ):
            raise UserError(
                f"the training images in {inputs.record['root']} are not those that "
                f"{run.path} was started with; use a new --workdir"
            )
        return  # what the run was started with stays, and what an evaluation has set since
    write_json(run.data, inputs.record)
    write_text(run.config, config_lib.to_json(config))
    described = environment.describe(config.seed)
    described |= {"weights": weights} if weights else {}
    described |= {"processes": processes.count()} if processes.count() > 1 else {}
    write_json(run.environment, described)


def _fit(
    config: ConfigDict, model: Model, inputs: Inputs, run: RunFolder, checkpoints: Checkpoints
) -> None:
    """A closed-form model: one checkpoint, no steps."""
    if checkpoints.latest_step() is not None:
        say("already fitted")
        return
    begun = time.perf_counter()
    try:
        variables = model.fit(Passes(inputs.train))
    except ValueError as error:
        raise UserError(str(error)) from error
    state = TrainState(jax.numpy.int32(0), variables["params"], {}, ())
    checkpoints.save(jax.device_put(state), validation_loss=None)
    checkpoints.wait()
    seconds = time.perf_counter() - begun
    write_json(run.timing, {"train_seconds": seconds, "steps": 0})
    say(f"fitted {config.model.name} to {len(inputs.train)} images in {seconds:.1f} s")


def _optimise(
    config: ConfigDict,
    model: Model,
    inputs: Inputs,
    run: RunFolder,
    checkpoints: Checkpoints | None,
    devices: Devices,
) -> None:
    """Gradient training: resume or start, then step, report, validate and save."""
    options = config.train
    steps_per_epoch = len(inputs.train) // options.batch_size
    total = options.steps or options.epochs * steps_per_epoch
    state, optimizer, first = _start(config, model, inputs, checkpoints, devices, total)
    if first >= total:
        return
    step_fn = devices.compile_step(
        make_train_step(
            model,
            optimizer,
            make_augment(config.augment),
            seed=config.seed,
            axis_name=devices.axis_name,
            accumulate=options.accumulate,
        ),
        donate_state=True,
    )
    validate = _make_validate(config, model, inputs, devices)
    schedule = make_schedule(options, total_steps=total)
    share = devices.share(options.batch_size)
    batches = training_batches(
        inputs.train,
        batch_size=options.batch_size,
        seed=config.seed,
        start_step=first,
        pipeline=config.data.pipeline,
        share=share,
    )
    meetings = processes.Meetings()
    batches = meetings.going_on(batches, lambda: empty_batch(inputs.train, share))
    sizes = {"first": first, "total": total, "images_each": options.batch_size}
    records = processes.together(
        lambda: Records(run, checkpoints, **sizes) if checkpoints else NoRecords()
    )
    pending: list[Any] = []
    with records:
        for step in range(first + 1, total + 1):
            state, metrics = step_fn(state, devices.split(next(batches)))
            # Kept on the device until the next report: reading them here would wait for it.
            pending.append(metrics)
            saving = step % options.checkpoint_every == 0 or step == total
            if not (saving or step % options.log_every == 0):
                continue
            meetings.meet()
            row = {"step": step, "epoch": step // steps_per_epoch}
            row |= summarise_steps(jax.device_get(pending), first_step=step - len(pending) + 1)
            row["learning_rate"] = float(schedule(step - 1))
            pending = []
            if saving:
                row |= validate(state, step)
            with meetings.keeping():
                records.write(row, state if saving else None)
        with meetings.keeping():
            records.wait()
        meetings.meet()


def _start(
    config: ConfigDict,
    model: Model,
    inputs: Inputs,
    checkpoints: Checkpoints | None,
    devices: Devices,
    total: int,
) -> tuple[TrainState, optax.GradientTransformation, int]:
    """The state to go on from, its optimiser, and how many steps it has behind it.

    With several processes it is that of the first one, which has the checkpoints.
    """
    drawn = jax.jit(model.init)(parameter_key(config.seed))
    labels = model.param_labels(drawn["params"])
    optimizer = make_optimizer(config.train, labels, total_steps=total)

    def begin() -> TrainState:
        first = checkpoints.latest_step() if checkpoints else None
        variables = drawn
        if checkpoints and not first:
            if config.train.weights:
                variables = load_weights(variables, config.train.weights)
                say(f"the encoder starts from {config.train.weights}")
            if model.initialise is not None:
                variables = model.initialise(variables, Passes(inputs.train))
        state = devices.replicate(create_state(variables, optimizer))
        if not first:
            return state
        verb = "already trained to" if first >= total else "going on from"
        say(f"{verb} step {first} of {total}")
        return checkpoints.restore_state(state, first)

    state = devices.replicate(processes.from_first(processes.together(begin)))
    return state, optimizer, int(state.step)


def _make_validate(config: ConfigDict, model: Model, inputs: Inputs, devices: Devices):
    """Builds ``(state, step) -> {"validation_loss": ...}`` on held-out good images; {} without."""
    if not len(inputs.holdout):
        return lambda state, step: {}
    batch_size = -(-min(config.evaluate.batch_size, len(inputs.holdout)) // len(devices))
    batch_size *= len(devices)
    step = devices.compile_step(
        make_validation_step(model, seed=config.seed, axis_name=devices.axis_name),
        donate_state=False,
    )

    def validate(state: TrainState, at: int) -> dict[str, float]:
        batches = evaluation_batches(
            inputs.holdout,
            batch_size=batch_size,
            pipeline="memory",
            share=devices.share(batch_size),
        )
        totals = [step(state.variables, devices.split(batch)) for batch in batches]
        totals = jax.device_get(totals)
        count = sum(float(t.count) for t in totals)
        values = {n: sum(float(t.sums[n]) for t in totals) / count for n in totals[0].sums}
        check_finite(values, step=at, where="on held-out images")
        return {f"validation_{name}": value for name, value in values.items()}

    return validate
