"""Other ways to train the network of `restore`, and averaged weights: each data set, each seed.

    python tools/studies/restore_variants.py --output=docs/results/restore_variants_cpu.json \
        --data bottle=mvtec_ad/bottle transistor=mvtec_ad/transistor magnetic_tile=magnetic_tile

The closed-form parts are fitted once for a data set; every network is trained on all good images,
for as many steps as the config has, and all test images are judged at the size that the model
sees. The networks:

- ``joint``: that of the model, with the weights of the last step and, as ``averaged``, an
  exponential mean of the weights of all steps.
- ``coarse``: the same on blocks of twice the side, which sees larger surroundings; ``two scales``
  is the mean of its probability and that of ``joint``.
- ``restoring``: no probability, only the restoration of drawn defects; the map is the error.
- ``inpainting``: no drawn defects. Cells of 8 and of 16 pixels are hidden, a third of the image at
  a time (V. Zavrtanik, M. Kristan, D. Skocaj, "Reconstruction by inpainting for visual anomaly
  detection", Pattern Recognition 2021), and replaced by the linear reconstruction; the map is the
  error of what was hidden, the mean of both sizes.

A map ``residual * ...`` scales the residual of ``own_features`` as the model does: by the root of
the probability, or of the error as a share of its 99.9 % quantile on training images, plus 0.3.
Figures in percent: image AUROC (the mean of the highest hundredth), pixel AUROC, AUPRO. The file is
written after every row, and rows that it holds are not computed again.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from own_features import FIGURES, Images

import jaxad
from jaxad import metrics
from jaxad.data.batch import Batch
from jaxad.data.pipeline import BatchLoader, evaluation_batches
from jaxad.evaluation.postprocess import finish
from jaxad.models.base import Variables, to_unit_float
from jaxad.models.layers import folded_pca, training_defects
from jaxad.models.layers.folded_pca import FOLDS
from jaxad.models.layers.restoring_network import RestoringNetwork
from jaxad.models.layers.whitened_patches import averaged
from jaxad.models.restore import L1_WEIGHT, Restore, RestoreOptions
from jaxad.run.config import settings_of
from jaxad.run.environment import processor_name
from jaxad.run.files import write_json
from jaxad.training.optimizer import make_schedule
from jaxad.training.step import example_keys

DECAY = 0.99
"""Of the averaged weights, by step; their mean is of about the last hundred steps."""

CELLS, PARTS = (8, 16), 3
"""Pixels of a hidden cell; the image is hidden in so many parts."""

FLOOR, QUANTILE = 0.3, 0.999

Params = Any


def restore_of(images: Images, times: int) -> Restore:
    """The model's parts, on blocks of so many times its side."""
    h, w, c = shape = images.config.image_shape
    parts = Restore(shape, RestoreOptions())
    parts.cell *= times
    parts.small = (h // parts.cell, w // parts.cell, c)
    parts.network = RestoringNetwork(parts.network.widths, parts.cell)
    return parts


def hidden(shape: tuple[int, ...], cell: int, part: jax.Array) -> jax.Array:
    """Where part 0, 1 or 2 of an image is hidden: ``(b, h, w)`` for the parts ``(b,)``."""
    row, column = jnp.arange(shape[1]) // cell, jnp.arange(shape[2]) // cell
    return (row[:, None] + column[None]) % PARTS == part[:, None, None]


class Networks:
    """The three losses and their maps, of one data set."""

    def __init__(self, parts: Restore, variables: Variables):
        self.parts, self.fixed = parts, variables

    def joint(self, params: Params, batch: Batch, keys: jax.Array) -> jax.Array:
        """The model's own loss."""
        return jnp.mean(self.parts.loss(self.fixed | {"params": params}, batch, keys, True)[0])

    def restoring(self, params: Params, batch: Batch, keys: jax.Array) -> jax.Array:
        """The error of the restored image alone."""
        good = to_unit_float(batch.image)
        kinds, share = self.parts.kinds, self.parts.options.good
        drawn, masks = training_defects.draw_on(
            self.fixed["donors"], good, keys, kinds=kinds, good=share
        )
        folds = jnp.asarray(batch.index) % FOLDS
        found = self.parts.restore(self.fixed | {"params": params}, drawn, folds)
        return L1_WEIGHT * jnp.mean(self.parts.losses(*found, good, masks)["l1"])

    def inpaint(
        self, params: Params, images: jax.Array, hide: jax.Array, folds: jax.Array
    ) -> jax.Array:
        """Images whose hidden pixels the network has filled in."""
        small = averaged(images, self.parts.cell)
        linear = folded_pca.reconstruct(self.fixed["linear"], small, folds)
        whole = jnp.repeat(jnp.repeat(linear, self.parts.cell, 1), self.parts.cell, 2)
        seen = jnp.where(hide[..., None], whole, images)
        restored, _ = self.parts.network.apply({"params": params}, seen, linear)
        return restored

    def inpainting(self, params: Params, batch: Batch, keys: jax.Array) -> jax.Array:
        """The error of what was hidden."""
        good, folds = to_unit_float(batch.image), jnp.asarray(batch.index) % FOLDS
        part = jax.vmap(lambda key: jax.random.randint(key, (), 0, PARTS * len(CELLS)))(keys)
        hides = [hidden(good.shape, cell, part % PARTS) for cell in CELLS]
        hide = jnp.where((part < PARTS)[:, None, None], *hides)
        error = jnp.abs(self.inpaint(params, good, hide, folds) - good)
        return L1_WEIGHT * jnp.mean(
            (1 + self.parts.options.defect_weight * hide)[..., None] * error
        )

    def probability(self, params: Params, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The probability of a defect, and the error of the restored image."""
        folds = jnp.full(len(images), FOLDS)
        restored, logits = self.parts.restore(self.fixed | {"params": params}, images, folds)
        error = jnp.mean(jnp.abs(images - jnp.clip(restored, 0, 1)), axis=-1)
        return jax.nn.sigmoid(logits), error

    def inpainting_error(self, params: Params, images: jax.Array) -> jax.Array:
        """The error of every pixel when it is hidden, the mean of the cells' sizes."""
        folds, total = jnp.full(len(images), FOLDS), jnp.zeros(images.shape[:3])
        for cell in CELLS:
            for part in range(PARTS):
                hide = hidden(images.shape, cell, jnp.full(len(images), part))
                filled = jnp.clip(self.inpaint(params, images, hide, folds), 0, 1)
                total += jnp.where(hide, jnp.mean(jnp.abs(images - filled), axis=-1), 0)
        return total / len(CELLS)


def train(
    images: Images,
    variables: Variables,
    seed: int,
    loss: Callable[[Params, Batch, jax.Array], jax.Array],
) -> tuple[Params, Params, float]:
    """The weights of the last step, their exponential mean, and CPU seconds."""
    settings = images.config.train
    optimizer = optax.adam(make_schedule(settings, total_steps=settings.steps))

    @jax.jit
    def step(params, mean, state, number, batch):
        keys = example_keys(seed, number, len(batch.image), None)
        gradient = jax.grad(loss)(params, batch, keys)
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        # As a mean of all steps at first, so that the start does not stay in it.
        kept = jnp.minimum(DECAY, number / (number + 1))
        mean = jax.tree.map(lambda a, b: kept * a + (1 - kept) * b, mean, params)
        return params, mean, state

    params = mean = variables["params"]
    state = optimizer.init(params)
    pixels, rng = np.asarray(images.train), np.random.default_rng(seed)
    order = np.concatenate(
        [rng.permutation(len(pixels)) for _ in range(settings.steps)]
    )[: settings.steps * settings.batch_size].reshape(settings.steps, -1)  # fmt: skip
    begun = time.process_time()
    for number, rows in enumerate(order):
        batch = Batch(pixels[rows], np.int32(rows), np.ones(len(rows), bool))
        params, mean, state = step(params, mean, state, np.float32(number), batch)
    jax.block_until_ready(params)
    return params, mean, time.process_time() - begun


def maps_of(
    images: Images, parts: dict[str, Networks], trained: dict[str, Params]
) -> dict[str, np.ndarray]:
    """Name -> maps of all test images, and with ``good `` before it the errors of good ones."""
    joint, coarse = parts["joint"], parts["coarse"]

    @jax.jit
    def raw(trained, pixels):
        pixels = to_unit_float(pixels)
        found = {}
        for name in ("joint", "averaged", "coarse", "restoring"):
            of = coarse if name == "coarse" else joint
            found[f"p {name}"], found[f"e {name}"] = of.probability(trained[name], pixels)
        found["e inpainting"] = joint.inpainting_error(trained["inpainting"], pixels)
        features = {"params": joint.fixed["features"]}
        residual = joint.parts.features.detect(features, pixels).maps["residual"]
        return found | {"residual": residual}

    few = images.train[:: max(1, len(images.train) // 64)]
    good = [raw(trained, batch.image) for batch in evaluation_batches(few, batch_size=16)]
    largest = {
        name: float(np.quantile(np.concatenate([np.asarray(one[name]) for one in good]), QUANTILE))
        for name in good[0]
        if name.startswith("e ")
    }

    @jax.jit
    def judged(trained, pixels):
        found = raw(trained, pixels)
        shown = {"residual": found["residual"]}
        scales = {
            name: found[f"p {name}"] for name in ("joint", "averaged", "coarse")
        } | {"two scales": (found["p joint"] + found["p coarse"]) / 2}  # fmt: skip
        for name in ("joint", "averaged", "restoring", "inpainting"):
            shown[f"error {name}"] = found[f"e {name}"]
        for name in ("restoring", "inpainting"):
            scales[name] = jnp.minimum(found[f"e {name}"] / largest[f"e {name}"], 1)
        for name, scale in scales.items():
            shown[f"residual * {name}"] = found["residual"] * jnp.sqrt(scale + FLOOR)
        return finish(shown, {}, smoothing=images.config.evaluate.smoothing)

    kept: dict[str, list[np.ndarray]] = {}
    for batch in evaluation_batches(images.test, batch_size=16):
        maps, scores = judged(trained, batch.image)
        for name, values in [*maps.items(), *scores.items()]:
            kept.setdefault(name, []).append(np.asarray(values)[batch.valid])
    return {name: np.concatenate(values) for name, values in kept.items()}


def row_of(images: Images, parts: dict[str, Networks], seed: int) -> dict[str, Any]:
    """The figures of all maps, and the CPU seconds of each training."""
    trained, seconds = {}, {}
    for name in ("joint", "coarse", "restoring", "inpainting"):
        of = parts["coarse" if name == "coarse" else "joint"]
        loss = of.joint if name == "coarse" else getattr(of, name)
        drawn = of.parts.init(jax.random.key(seed))
        trained[name], mean, seconds[name] = train(images, drawn, seed, loss)
        if name == "joint":
            trained["averaged"] = mean
        print(f"{name}: {seconds[name]:.0f} s", flush=True)
    found = maps_of(images, parts, trained)
    figures = {}
    for name in (name for name in found if ":" not in name):
        judged = metrics.evaluate_maps(
            list(found[name]), images.masks, labels=images.labels,
            image_scores=found[f"{name}:top1"].tolist(),
        )  # fmt: skip
        figures[name] = [round(100 * judged[of], 1) for of in FIGURES if judged[of] is not None]
    return {"cpu_seconds": {k: round(v, 1) for k, v in seconds.items()}, "figures": figures}


def fitted(root: str) -> tuple[Images, dict[str, Networks]]:
    """A data set, and both networks with their closed-form parts."""
    images = Images(root)
    images.config = settings_of(jaxad.load_config("restore", {"data.root": root}))
    joint, coarse = restore_of(images, 1), restore_of(images, 2)
    loader = BatchLoader(images.train)
    fixed = joint.initialise(joint.init(jax.random.key(0)), loader)
    components = fixed["linear"]["axes"].shape[1]
    linear = folded_pca.fit(loader, joint.shape, components, coarse.cell)
    return images, {
        "joint": Networks(joint, fixed),
        "coarse": Networks(coarse, fixed | {"linear": linear}),
    }


def main() -> None:
    """Reads the command line, prints and writes the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--data", nargs="+", required=True, metavar="NAME=DIR")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--output", type=pathlib.Path, required=True)
    args = parser.parse_args()
    for name, root in (item.split("=", 1) for item in args.data):
        rows = json.loads(args.output.read_text())["rows"] if args.output.exists() else []
        missing = [s for s in args.seeds if (name, s) not in [(r["data"], r["seed"]) for r in rows]]
        if not missing:
            continue
        images, parts = fitted(root)
        for seed in missing:
            rows.append({"data": name, "seed": seed} | row_of(images, parts, seed))
            print(rows[-1], flush=True)
            write_json(args.output, {"processor": processor_name(), "rows": rows})


if __name__ == "__main__":
    main()
