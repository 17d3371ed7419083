"""The pure training and validation steps: no state outside their arguments, no host in between."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from jaxad.data.batch import Batch
from jaxad.models.base import LossOutput, Model, Variables, to_unit_float
from jaxad.training.augment import Augment, no_augment
from jaxad.training.state import TrainState


class StepMetrics(NamedTuple):
    """What one step reports; equal on every device, numpy arrays once on the host.

    Attributes:
      means: name -> scalar, averaged over the global batch: ``loss``, the model's terms, and
        ``gradient_norm``.
      sums: name -> array, summed over the global batch.
      scalars: name -> scalar.
    """

    means: Mapping[str, Float[Array | np.ndarray, ""]]
    sums: Mapping[str, Array | np.ndarray]
    scalars: Mapping[str, Array | np.ndarray]


class ValidationTotals(NamedTuple):
    """Sums over the valid images of a batch, and how many ``examples`` there were."""

    sums: Mapping[str, Float[Array | np.ndarray, ""]]
    examples: Float[Array | np.ndarray, ""]


def example_keys(
    seed: int | Int[Array, ""], step: Int[Array | np.ndarray, ""], count: int, axis_name: str | None
) -> Key[Array, " b"]:
    """One key per example from (seed, step, place in the global batch).

    Device d of N holds the places ``d * count ...``, so N devices draw what one would draw.
    """
    first = jax.lax.axis_index(axis_name) * count if axis_name else 0
    key = jax.random.fold_in(jax.random.key(seed), step)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, first + jnp.arange(count))


def make_gradient_fn(model: Model, *, axis_name: str | None, accumulate: int = 1) -> Callable:
    """Builds ``(variables, batch, keys) -> (gradients, LossOutput)`` over the global batch.

    Args:
      model: whose loss is differentiated.
      axis_name: the mapped axis, or None on one device.
      accumulate: parts into which each device's batch is split, one after the other.

    Returns:
      The function; gradients are means over the global batch. With parts, per-example values are
      concatenated, sums added, and collections passed on from part to part.
    """

    def part(variables: Variables, batch: Batch, keys: Key[Array, " b"]) -> tuple[Any, LossOutput]:
        collections = {k: v for k, v in variables.items() if k != "params"}

        def mean_loss(params):
            output = model.loss({"params": params, **collections}, batch, keys, True)
            return jnp.mean(output.per_example), output

        return jax.grad(mean_loss, has_aux=True)(variables["params"])

    def accumulated(variables, batch, keys):
        split = lambda x: x.reshape(accumulate, -1, *x.shape[1:])
        params = variables["params"]

        def body(carry, inputs):
            total, collections = carry
            gradients, output = part({"params": params, **collections}, *inputs)
            total = jax.tree.map(lambda t, g: t + g / accumulate, total, gradients)
            collections = {**collections, **output.collections}
            return (total, collections), output._replace(collections={})

        collections = {k: v for k, v in variables.items() if k != "params"}
        start = (jax.tree.map(jnp.zeros_like, params), collections)
        (gradients, collections), outputs = jax.lax.scan(
            body, start, (jax.tree.map(split, batch), split(keys))
        )
        return gradients, LossOutput(
            per_example=outputs.per_example.reshape(-1),
            terms={k: v.reshape(-1) for k, v in outputs.terms.items()},
            collections=collections,
            sums={k: v.sum(axis=0) for k, v in outputs.sums.items()},
            scalars={k: v[-1] for k, v in outputs.scalars.items()},
        )

    def gradient_fn(variables, batch, keys):
        gradients, output = (part if accumulate == 1 else accumulated)(variables, batch, keys)
        if axis_name:
            gradients = jax.lax.pmean(gradients, axis_name)
        return gradients, output

    return gradient_fn


def make_train_step(
    model: Model,
    optimizer: optax.GradientTransformation,
    augment: Augment = no_augment,
    *,
    seed: int | Int[Array, ""],
    axis_name: str | None = None,
    accumulate: int = 1,
) -> Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]:
    """Builds the training step ``(state, batch) -> (state, metrics)``.

    Args:
      model: whose loss is minimised.
      optimizer: of the parameters.
      augment: of the images; the default leaves them as they are.
      seed: of what augmentation and loss draw; may be traced, for many seeds in one ``vmap``.
      axis_name: the mapped axis, or None on one device.
      accumulate: parts into which each device's batch is split.
    """
    gradient_fn = make_gradient_fn(model, axis_name=axis_name, accumulate=accumulate)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        keys = example_keys(seed, state.step, batch.image.shape[0], axis_name)
        augment_keys, model_keys = jax.vmap(lambda k: jax.random.split(k, 2), out_axes=1)(keys)
        batch = batch._replace(image=augment(to_unit_float(batch.image), augment_keys))
        gradients, output = gradient_fn(state.variables, batch, model_keys)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        new_state = TrainState(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            collections={**state.collections, **output.collections},
            opt_state=opt_state,
        )
        means = {"loss": jnp.mean(output.per_example)}
        means |= {name: jnp.mean(values) for name, values in output.terms.items()}
        sums = output.sums
        if axis_name:
            means = jax.lax.pmean(means, axis_name)
            sums = jax.lax.psum(sums, axis_name)
        means["gradient_norm"] = optax.tree.norm(gradients)
        return new_state, StepMetrics(means, sums, output.scalars)

    return train_step


def make_validation_step(
    model: Model, *, seed: int, axis_name: str | None = None
) -> Callable[[Variables, Batch], ValidationTotals]:
    """Builds ``(variables, batch) -> totals``, without augmentation.

    Keys come from the image's index alone, so whatever a loss draws (a mask, a latent) is the
    same at every validation.
    """

    def validation_step(variables: Variables, batch: Batch) -> ValidationTotals:
        root = jax.random.fold_in(jax.random.key(seed), 2**31 - 1)
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(root, batch.index)
        output = model.loss(variables, batch, keys, False)
        values = {"loss": output.per_example, **output.terms}
        totals = ValidationTotals(
            {name: jnp.sum(jnp.where(batch.valid, v, 0.0)) for name, v in values.items()},
            jnp.sum(batch.valid.astype(jnp.float32)),
        )
        return jax.lax.psum(totals, axis_name) if axis_name else totals

    return validation_step
