"""Training, from a config to a run folder: ``train(config, workdir)`` reads as its contents."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterable

import jax
import numpy as np
import optax
from jaxtyping import Int
from ml_collections import ConfigDict

from jaxad.data.crop import check_crop
from jaxad.data.given import ImageLike
from jaxad.data.pipeline import BatchLoader, evaluation_batches
from jaxad.data.rows import ImageRows
from jaxad.data.streamed import StreamedImages
from jaxad.data.tiled import TiledImages
from jaxad.data.tiles import tiling_of
from jaxad.models.alignment import alignment_in_words
from jaxad.models.base import Model, Variables, parameter_key
from jaxad.run import config as config_lib, environment
from jaxad.run.errors import UserError
from jaxad.run.folder import RunFolder
from jaxad.run.progress import OnProgress, reporting_to
from jaxad.run.settings import Settings
from jaxad.training import processes
from jaxad.training.arrays import with_images
from jaxad.training.augment import make_augment
from jaxad.training.backbones import load_backbone
from jaxad.training.checkpoints import Checkpoints
from jaxad.training.history import check_finite
from jaxad.training.optimizer import make_optimizer
from jaxad.training.preparation import Setup, prepare
from jaxad.training.processes import log
from jaxad.training.session import Session, Validate
from jaxad.training.state import TrainState, create_state
from jaxad.training.step import make_train_step, make_validation_step
from jaxad.training.weights import load_weights


def train(
    config: ConfigDict | Settings,
    workdir: str | os.PathLike,
    images: Iterable[ImageLike] | None = None,
    *,
    on_progress: OnProgress | None = None,
) -> RunFolder:
    """Trains a model, or goes on with a run that was interrupted.

    A run stopped at any moment and started again with the same config and workdir ends with the
    same history and parameters as one that was never stopped.

    Several processes that :func:`jaxad.training.processes.start` (or
    :func:`jax.distributed.initialize`) has joined train one run together when all of them call
    this; the first one writes the run folder.

    Args:
      config: as :func:`jaxad.run.config.load_config` gives it.
      workdir: the run folder; created.
      images: good images to train on in place of ``data.root``: an array ``(n, h, w, c)``, or
        arrays, Pillow images, files (:func:`jaxad.data.given.given_images`). They are written to
        ``WORKDIR/images`` as PNG, since thresholds are set from them later.
      on_progress: is called with a :class:`jaxad.run.progress.Update` at every row of the history
        and while images are read. What it raises ends the training, which then can go on.

    Returns:
      The run folder.

    Raises:
      UserError: the config, the data or the folder does not allow it, or the loss is not finite.
    """
    config = config_lib.settings_of(config)
    if images is not None:
        config = with_images(config, RunFolder(workdir), images)
    config = config_lib.with_absolute_root(config)
    check_crop(config.data.region)
    tiling_of(config.data.tiles, config.data.image_size)
    environment.enable_compilation_cache()
    with (
        reporting_to(on_progress),
        processes.abort_on_failure(),
        contextlib.ExitStack() as stack,
    ):
        setup = processes.on_all(lambda: prepare(config, RunFolder(workdir), stack))
        processes.check_same(
            settings=config_lib.to_json(config), training_images=repr(setup.inputs.record)
        )
        _train_model(setup)
        _train_folds(setup)
        if processes.is_first():
            _record_streamed(setup)
    return setup.run


def _record_streamed(setup: Setup) -> None:
    """Adds what was decoded batch by batch to data.json: changed files and leaks are told by it.

    Of several processes each decodes its own rows, and those of the first are recorded.
    """
    images = setup.inputs.train
    if not isinstance(images, StreamedImages | TiledImages):
        return
    digests = images.known_digests()
    record = setup.run.read_json(setup.run.data)
    names = record["training"]
    seen = {names[row]: digest for row, digest in sorted(digests.items())}
    if seen.keys() <= record.get("pixels", {}).keys():
        return
    setup.run.write_json(setup.run.data, record | {"pixels": record.get("pixels", {}) | seen})


def _train_model(setup: Setup) -> None:
    if setup.model.fit is not None:
        _fit(setup, setup.model.fit)
    elif not setup.config.train.takes_steps:
        _take_weights(setup)
    else:
        _optimise(setup)


def _train_folds(setup: Setup) -> None:
    """For cross-fitting: one model per fold, trained on all others; each has a run folder.

    A model that says itself what the others would needs none; of tiles it leaves out one, not all
    of a photograph, so there every fold has a model.
    """
    inputs, folds = setup.inputs, setup.inputs.folds
    leaves_out = setup.model.left_out is not None and not any(setup.config.data.tiles)
    if folds is None or leaves_out:
        return
    count, begun = int(folds.max()) + 1, time.perf_counter()
    fitted_together = functools.cache(functools.partial(_fit_to_others, setup, folds))
    for number in range(count):
        run = setup.run.fold(number)
        if setup.model.fit is None:
            log(f"cross-fitting: fold {number + 1} of {count}")
        others = ImageRows(inputs.train, np.flatnonzero(folds != number))
        with contextlib.ExitStack() as stack:
            checkpoints = processes.on_all(functools.partial(_open_checkpoints, run, stack))
            fold = setup._replace(
                inputs=inputs._replace(train=others), run=run, checkpoints=checkpoints
            )
            if setup.model.fit_to_others is None:
                _train_model(fold)
            else:
                _fit(fold, lambda _, number=number: fitted_together()[number])
    log(f"cross-fitted in {count} folds in {time.perf_counter() - begun:.1f} s")


def _fit_to_others(setup: Setup, folds: Int[np.ndarray, " n"]) -> list[Variables]:
    """The models of all folds, each of which has not seen its own, fitted together.

    Raises:
      ValueError: there are too few images beside a fold.
    """
    fit, images = setup.model.fit_to_others, setup.inputs.train
    assert fit is not None
    rows = [np.flatnonzero(folds == i) for i in range(int(folds.max()) + 1)]
    return fit([BatchLoader(ImageRows(images, some)) for some in rows])


def _open_checkpoints(run: RunFolder, stack: contextlib.ExitStack) -> Checkpoints | None:
    """Those of a fold, in the first process; the stack closes them and ends the fold's lock."""
    if not processes.is_first():
        return None
    run.create()
    stack.enter_context(run.locked())
    return stack.enter_context(contextlib.closing(Checkpoints(run.checkpoints)))


def _fit(setup: Setup, fit: Callable[..., Variables]) -> None:
    """A closed-form model: one checkpoint, no steps."""
    checkpoints, images = setup.checkpoints, setup.inputs.train
    assert checkpoints is not None  # a closed form is fitted by one process
    is_fold = isinstance(images, ImageRows)  # the rows of the other folds
    if _has_model(setup.model, checkpoints):
        if not is_fold:
            log("already fitted, nothing to train")
        return
    begun = time.perf_counter()
    try:
        variables = fit(BatchLoader(images), **_pretrained(setup))
    except ValueError as error:
        raise UserError(str(error)) from error
    _save_untrained(setup, checkpoints, variables, begun=begun)
    seconds = time.perf_counter() - begun
    if not is_fold:
        what = "tiles" if any(setup.config.data.tiles) else "images"
        log(f"fitted {setup.config.model.name} to {len(images)} {what} in {seconds:.1f} s")
        if note := alignment_in_words(variables):
            log(note)


def _pretrained(setup: Setup) -> dict[str, Variables]:
    """What a model builds on, as its fit or its start takes it; {} for most."""
    name = setup.model.backbone
    if not name:
        return {}
    return {"backbone": load_backbone(name, setup.config.train.weights).variables}


def _take_weights(setup: Setup) -> None:
    """Converted weights as they are: one checkpoint, no steps, no optimiser, nothing drawn."""
    checkpoints, folder = setup.checkpoints, setup.config.train.weights
    assert checkpoints is not None  # checked: one process does it
    if latest := checkpoints.latest_step():
        log(f"already trained to step {latest}, nothing to train")
        return
    if _has_model(setup.model, checkpoints):
        log("the run has its weights")
        return
    begun = time.perf_counter()
    shapes = jax.eval_shape(setup.model.init, parameter_key(setup.config.seed))
    _save_untrained(setup, checkpoints, load_weights(shapes, folder), begun=begun)
    log(f"the model is {folder} as it is, nothing was trained")


def _save_untrained(
    setup: Setup, checkpoints: Checkpoints, variables: Variables, *, begun: float
) -> None:
    """Writes the only checkpoint of a run without steps."""
    collections = {name: value for name, value in variables.items() if name != "params"}
    state = TrainState(jax.numpy.int32(0), variables["params"], collections, ())
    checkpoints.save(jax.device_put(state), validation_loss=None)
    checkpoints.wait()
    seconds = time.perf_counter() - begun
    setup.run.write_json(setup.run.timing, {"train_seconds": seconds, "steps": 0})


def _has_model(model: Model, checkpoints: Checkpoints) -> bool:
    """Whether a run without steps has a whole checkpoint; a damaged one is renamed."""
    step = checkpoints.latest_step()
    if step is None:
        return False
    try:
        checkpoints.restore_variables(jax.eval_shape(model.init, parameter_key(0)))
    except UserError as error:
        checkpoints.set_aside(step, error)
        return False
    return True


def _optimise(setup: Setup) -> None:
    """Gradient training, from the last checkpoint or the first values to the last step."""
    config, options, devices = setup.config, setup.config.train, setup.devices
    total = options.steps or options.epochs * (len(setup.inputs.train) // options.batch_size)
    state, optimizer = _start(setup, total)
    first = int(state.step)
    if first >= total:
        return
    step_fn = devices.compile_step(
        make_train_step(
            setup.model,
            optimizer,
            make_augment(config.augment),
            seed=config.seed,
            axis_name=devices.axis_name,
            accumulate=options.accumulate,
        ),
        donate_state=True,
    )
    with Session(setup, _before_checkpoints(setup), first=first, total=total) as session:
        for step, batch in session:
            state, metrics = step_fn(state, batch)
            session.record(step, metrics, state)


def _start(setup: Setup, total: int) -> tuple[TrainState, optax.GradientTransformation]:
    """The state to go on from, that of the first process in all of them, and its optimiser."""
    config, model, checkpoints = setup.config, setup.model, setup.checkpoints
    drawn = jax.jit(model.init)(parameter_key(config.seed))
    labels = model.param_labels(drawn["params"])
    optimizer = make_optimizer(config.train, labels, total_steps=total)

    def begin() -> TrainState:
        if checkpoints is None:
            return create_state(drawn, optimizer)  # replaced by that of the first process
        if not checkpoints.latest_step():
            return create_state(_first_values(setup, drawn), optimizer)
        like = setup.devices.replicate(create_state(drawn, optimizer))
        state = checkpoints.restore_newest(like)
        step = int(state.step)
        if step >= total:
            log(f"already trained to step {step} of {total}, nothing to train")
        else:
            log(f"going on from step {step} of {total}")
        return state

    state = processes.broadcast_from_first(processes.on_all(begin))
    return setup.devices.replicate(state), optimizer


def _first_values(setup: Setup, variables: Variables) -> Variables:
    """The variables of a new run: as drawn, loaded from weights, or set by the training images."""
    weights, initialise = setup.config.train.weights, setup.model.initialise
    # The steps take over the buffers of the state, and whoever gave the weights may keep theirs.
    pretrained = jax.tree.map(jax.numpy.copy, _pretrained(setup))
    if weights and not pretrained:
        variables = load_weights(variables, weights)
        log(f"the encoder starts from {weights}")
    if initialise is not None:
        try:
            variables = initialise(variables, BatchLoader(setup.inputs.train), **pretrained)
        except ValueError as error:
            raise UserError(str(error)) from error
        if note := alignment_in_words(variables):
            log(note)
    return variables


def _before_checkpoints(setup: Setup) -> Validate:
    """What is done before a checkpoint: the record of images that are streamed, and validation.

    Returns:
      ``(state, step) -> {"validation_loss": ...}`` on held-out good images; {} without.
    """
    config, devices, images = setup.config, setup.devices, setup.inputs.holdout
    batch_size = -(-min(config.evaluate.batch_size, len(images)) // len(devices)) * len(devices)
    step = devices.compile_step(
        make_validation_step(setup.model, seed=config.seed, axis_name=devices.axis_name),
        donate_state=False,
    )

    def record_and_validate(state: TrainState, at: int) -> dict[str, float]:
        if processes.is_first():
            _record_streamed(setup)
        if not len(images):
            return {}
        batches = evaluation_batches(
            images,
            batch_size=batch_size,
            pipeline="memory",
            local_rows=devices.local_rows(batch_size),
        )
        totals = jax.device_get([step(state.variables, devices.split(b)) for b in batches])
        count = sum(float(t.examples) for t in totals)
        values = {n: sum(float(t.sums[n]) for t in totals) / count for n in totals[0].sums}
        check_finite(values, step=at, where="on held-out images")
        return {f"validation_{name}": value for name, value in values.items()}

    return record_and_validate
