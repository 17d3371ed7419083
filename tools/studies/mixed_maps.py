"""What the maps of feature_pca gain from the plain residual, and from pixels.

    python tools/studies/mixed_maps.py --output=mixed_maps.json \
        --data bottle=mvtec_ad/bottle screw=mvtec_ad/screw

Fits ``feature_pca`` and, at the same size, ``pca``, and judges mixtures of their maps by all test
images (image AUROC of the mean of the highest hundredth, pixel AUROC, AUPRO):

* ``plain``: the geometric mean of the whitened map and that of the residual as it is, what
  ``model.plain=0.5`` gives;
* ``sum W``: both maps less their mean over good images, over their standard deviation there, the
  one of pixels times W;
* ``product W``: the map of features times that of pixels, over its mean on good images and plus a
  half, to the power W.

Mean and deviation of features come from good images that were left out (48 of them), those of
pixels from a model of half of the good images on 48 of the other half. ``explained`` is the share
of the variance of unseen good pixels about their mean that `pca` reconstructs, a figure that a rule
of good images alone could go by.
"""

from __future__ import annotations

import argparse
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxad
from jaxad import metrics, models
from jaxad.data.pipeline import BatchLoader, evaluation_batches
from jaxad.evaluation.detector import make_detect
from jaxad.evaluation.inputs import read_truths
from jaxad.models.base import Model, apply, to_unit_float
from jaxad.models.layers import feature_fit
from jaxad.models.layers.feature_passes import Passes
from jaxad.models.layers.feature_reconstruction import to_image
from jaxad.ops.blur import gaussian_blur
from jaxad.run.config import settings_of
from jaxad.run.environment import processor_name
from jaxad.run.files import write_json
from jaxad.training.backbones import load_backbone
from jaxad.training.inputs import decode, open_table

SOME = 48
FIGURES = ("image_auroc", "pixel_auroc", "aupro")
MIXED = (0.25, 0.5)


class Maps:
    """The maps of ``feature_pca``: whitened as the model decided, and plain."""

    def __init__(self, model: Model, variables: Any, smoothing: float):
        """Of a fitted model."""
        module, (h, w, _) = model.module, model.image_shape
        layout = module.layout

        def both(residuals):
            white = apply(module, variables, residuals, method="distances")
            plain = jnp.mean(jnp.square(layout.on_finest_grid(residuals)), axis=-1)
            return [
                gaussian_blur(to_image(squares, (h, w)), sigma=smoothing)
                for squares in (white, plain.reshape(white.shape))
            ]

        self._both = jax.jit(both)
        self._residuals = jax.jit(lambda images: apply(module, variables, to_unit_float(images))[0])

    def of_residuals(self, parts) -> tuple[np.ndarray, np.ndarray]:
        """Both maps of residuals."""
        found = [[np.asarray(x) for x in self._both(part)] for part in parts]
        white, plain = zip(*found, strict=True)
        return np.concatenate(white), np.concatenate(plain)

    def of_images(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Both maps of images."""
        return self.of_residuals(
            self._residuals(images[i : i + 16]) for i in range(0, len(images), 16)
        )


def left_out(model: Model, variables: Any, weights: Any, images: np.ndarray, ridge: float):
    """Residuals of some good images that the others are reconstructed by."""
    module, params = model.module, variables["params"]
    passes = Passes(module.backbone, weights, module.layout, module.picture, BatchLoader(images))
    rows = np.concatenate([part.vectors for part in passes])
    rows = jnp.asarray((rows - np.asarray(params["mean"])) / np.asarray(params["deviation"]))
    told = feature_fit.ridge_of(feature_fit.gram_matrix(rows), ridge=ridge).leave_one_out
    some = np.unique(np.linspace(0, len(images) - 1, SOME).astype(int))
    return feature_fit.mixtures(told[some], rows)


def pixel_maps(root: str, size: tuple[int, int], train: np.ndarray, test: np.ndarray):
    """Maps of ``pca`` on test images and on unseen good ones, and what it explains of these."""
    sides = ",".join(map(str, size))
    config = settings_of(jaxad.load_config("pca", {"data.root": root, "data.image_size": sides}))
    model = models.build_from(config)
    assert model.fit is not None
    detect = jax.jit(make_detect(model, smoothing=config.evaluate.smoothing))

    def judged(variables, images):
        maps = []
        for batch in evaluation_batches(images, batch_size=8, pipeline="memory"):
            found = detect(variables, batch.image).maps[config.evaluate.primary_map]
            maps.append(np.asarray(found)[batch.valid])
        return np.concatenate(maps)

    half = np.arange(len(train)) % 2 == 0
    of_half, unseen = model.fit(BatchLoader(train[half])), train[~half][:SOME]
    mean, left, spread = train[half].mean(axis=0) / 255, 0.0, 0.0
    for one in unseen:
        shown = np.asarray(model.detect(of_half, one[None]).reconstruction[0])
        left += float(np.sum(np.square(shown - one / 255)))
        spread += float(np.sum(np.square(mean - one / 255)))
    of_test = judged(model.fit(BatchLoader(train)), test)
    return of_test, judged(of_half, unseen), 1 - left / spread


def mixtures(root: str):
    """``(name, maps)`` of every mixture, the masks and labels of the images, and ``explained``."""
    config = settings_of(jaxad.load_config("feature_pca", {"data.root": root}))
    table = open_table(config.data)
    samples, good = list(table.test()), list(table.train_good())
    decoded = [decode(of, config.data, (0.0, 65535.0)) for of in (good, samples)]
    train, test = (np.stack([images[i] for i in range(len(images))]) for images in decoded)
    masks = [truth.mask for truth in read_truths(samples, config)]
    labels = np.array([int(sample.label) for sample in samples])
    model = models.build_from(config)
    assert model.fit is not None and model.backbone
    weights = load_backbone(model.backbone).variables
    variables = model.fit(BatchLoader(train), backbone=weights)
    maps = Maps(model, variables, config.evaluate.smoothing)
    white, plain = maps.of_images(test)
    ridge = config.model.options["ridge"]
    white_good, _ = maps.of_residuals(left_out(model, variables, weights, train, ridge))
    pixels, pixels_good, explained = pixel_maps(root, config.data.image_size, train, test)
    found = {"features": white, "pixels": pixels, "plain": np.sqrt(white * plain)}
    z, z_pixels = (
        (x - g.mean()) / g.std() for x, g in ((white, white_good), (pixels, pixels_good))
    )
    for weight in MIXED:
        found[f"sum {weight}"] = z + weight * z_pixels
        found[f"product {weight}"] = white * (pixels / pixels_good.mean() + 0.5) ** weight
    return found, masks, labels, explained


def main() -> None:
    """Reads the command line, prints the rows and writes them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--data", nargs="+", required=True, metavar="NAME=DIR")
    parser.add_argument("--output", required=True, type=pathlib.Path)
    arguments = parser.parse_args()
    rows = []
    for named in arguments.data:
        name, _, root = named.partition("=")
        found, masks, labels, explained = mixtures(root)
        for how, maps in found.items():
            pixels = np.sort(maps.reshape(len(maps), -1), axis=1)
            scores = pixels[:, -max(1, pixels.shape[1] // 100) :].mean(axis=1).tolist()
            figures = metrics.evaluate_maps(list(maps), masks, labels=labels, image_scores=scores)
            row = {"data": name, "mixture": how, **{key: 100 * figures[key] for key in FIGURES}}
            rows.append({**row, "explained": explained})
            print(row, flush=True)
            write_json(arguments.output, {"processor": processor_name(), "rows": rows})


if __name__ == "__main__":
    main()
