"""Optax chains from the config."""

from __future__ import annotations

from typing import Any

import jax
import optax

from jaxad.run.errors import UserError, did_you_mean
from jaxad.run.settings import Train


def make_schedule(train: Train, *, total_steps: int) -> optax.Schedule:
    """The learning rate of each step.

    Args:
      train: ``config.train``.
      total_steps: at which a cosine schedule reaches zero.
    """
    warmup_steps = train.warmup_steps
    if train.warmup_epochs:
        warmup_steps = round(total_steps * min(1.0, train.warmup_epochs / train.epochs))
    if train.schedule == "constant":
        main = optax.constant_schedule(train.learning_rate)
    else:
        main = optax.cosine_decay_schedule(train.learning_rate, max(1, total_steps - warmup_steps))
    if not warmup_steps:
        return main
    warmup = optax.linear_schedule(0.0, train.learning_rate, warmup_steps)
    return optax.join_schedules([warmup, main], [warmup_steps])


def make_optimizer(train: Train, labels: Any, *, total_steps: int) -> optax.GradientTransformation:
    """The optimiser of all parameters.

    Args:
      train: ``config.train``.
      labels: pytree of labels, of the structure of the parameters (``model.param_labels``).
      total_steps: length of the run, for schedules.

    Raises:
      UserError: a multiplier for a label that no parameter carries.
    """
    schedule = make_schedule(train, total_steps=total_steps)
    present = set(jax.tree.leaves(labels))
    for label in train.learning_rate_multipliers:
        if label not in present:
            raise UserError(
                f"train.learning_rate_multipliers names {label!r}, which no parameter carries"
                + did_you_mean(label, present)
            )
    chains = {
        label: _chain(train, schedule, train.learning_rate_multipliers.get(label, 1.0))
        for label in present
    }
    per_label = optax.multi_transform(chains, labels)
    if train.gradient_clip > 0:
        # Over all parameters together, so before they part by label.
        return optax.chain(optax.clip_by_global_norm(train.gradient_clip), per_label)
    return per_label


def _chain(train: Train, schedule: optax.Schedule, multiplier: float):
    if multiplier == 0.0:
        return optax.set_to_zero()
    rate = lambda step: schedule(step) * multiplier
    decay, (b1, b2) = train.weight_decay, train.betas
    # A scalar is a range or a temperature, which zero says nothing of; a vector is a bias, or the
    # scale of a normalisation.
    least = 1 if train.decay_vectors else 2
    mask = lambda params: jax.tree.map(lambda leaf: leaf.ndim >= least, params)
    coupled = [optax.add_decayed_weights(decay, mask)] if decay else []
    if train.optimizer == "adam":
        return optax.chain(*coupled, optax.adam(rate, b1=b1, b2=b2))
    if train.optimizer == "sgd":
        return optax.chain(*coupled, optax.sgd(rate, momentum=0.9))
    return optax.adamw(rate, b1=b1, b2=b2, weight_decay=decay, mask=mask)
