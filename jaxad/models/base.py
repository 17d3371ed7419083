"""The model contract: a model is a bundle of pure functions.

Every architecture of :mod:`jaxad.models` builds one :class:`Model`. Its functions take their
variables as arguments and keep no state, so they can be jitted, vmapped, differentiated and
pmapped, and a training step, an evaluation or an experiment of yours can be written without
knowing which architecture is behind it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int, Key, Shaped

from jaxad.data.batch import Batch
from jaxad.ops.arrays import AnyArray
from jaxad.ops.ssim import BACKENDS as SSIM_BACKENDS
from jaxad.run.options import Options, option

DTYPES = ("float32", "bfloat16")

Variables = Mapping[str, Any]
"""Flax variables: ``{"params": ..., <other collections>: ...}``."""


class LossOutput(NamedTuple):
    """What one evaluation of a loss returns.

    Attributes:
      per_example: ``(b,)`` float32, the quantity whose mean over the global batch is minimised.
      terms: name -> ``(b,)``; the parts of the loss, for the history. They need not add up to
        ``per_example`` (a weight may lie between), and are averaged over the global batch.
      collections: updated non-parameter collections (batch statistics, moving averages), already
        reduced over devices by the model; ``{}`` where there is none or ``train`` is False.
      sums: name -> array to be summed over the global batch (codebook counts, memory hits).
      scalars: name -> scalar that is equal on every device (a learned range, a temperature).
    """

    per_example: Float[Array, " b"]
    terms: dict[str, Float[Array, " b"]]
    collections: dict[str, Any]
    sums: dict[str, Array]
    scalars: dict[str, Array]


class Detection(NamedTuple):
    """What a model says about images; raw values, no normalisation per image.

    Attributes:
      maps: name -> ``(b, h, w)`` float32 anomaly map at the resolution of the model's input,
        larger = more anomalous.
      scores: name -> ``(b,)`` float32 image scores that are not a reduction of a map.
      reconstruction: ``(b, h, w, c)`` float32 in [0, 1].
    """

    maps: dict[str, Float[Array, "b h w"]]
    scores: dict[str, Float[Array, " b"]]
    reconstruction: Float[Array, "b h w c"]


class Unseen(NamedTuple):
    """What models that have not seen some good images say of these.

    Attributes:
      places: which images, from 0, in the order in which they were given.
      maps: as of :class:`Detection`.
      scores: likewise.
    """

    places: Int[np.ndarray, " b"]
    maps: Mapping[str, Float[AnyArray, "b h w"]]
    scores: Mapping[str, Float[AnyArray, " b"]]


class Model(NamedTuple):
    """A model as pure functions (``b h w c`` images throughout).

    Attributes:
      module: the Flax (linen) module, which gives access to the layers.
      image_shape: ``(h, w, c)`` of the images that it takes.
      init: ``key -> variables``.
      loss: ``(variables, batch, keys (b,), train) -> LossOutput``; ``batch.image`` may be uint8
        or float in [0, 1]; ``keys`` holds one PRNG key per example.
      detect: ``(variables, images) -> Detection``; deterministic.
      trimmed: optional ``(variables, compact) -> (detect, variables)``: the same detection by
        these variables alone, without what they have decided against or do not use. Unless it is
        to be compact, parameters may be there twice where that is faster.
      param_labels: ``params -> pytree of labels`` of the same structure; the config maps a label
        to an optimiser.
      initialise: optional ``(variables, batches) -> variables``, a start that depends on the data
        (a codebook from clusters), taken once before the first step; ``batches``, and with
        ``backbone`` that argument, as for ``fit``.
      fit: for closed-form models only, else None: ``(batches) -> variables`` where ``batches``
        can be iterated several times, each pass yielding
        :class:`~jaxad.data.batch.Batch` of good images. With ``backbone`` it also takes
        ``backbone=``, the variables of that network, which become part of the result.
      solve: optional, with ``fit``: ``(images (n, h, w, c)) -> variables``, the same fit as a pure
        function of all images, which can be compiled and mapped: so the models of positions are
        fitted (:func:`jaxad.models.positions.per_position`). With ``backbone`` it takes
        ``backbone=`` too, and leaves it out of its result.
      learn_backbone: optional, with ``solve``: ``(batches) -> variables`` of the network that
        ``solve`` takes as ``backbone``, where it is learned from the images of all positions.
      fit_to_others: optional, with ``fit``: ``(parts) -> [variables]``, where ``parts`` are the
        batches of each fold, and the variables those of a model fitted to all other folds, in
        little more time than one model takes.
      left_out: optional, with ``fit``: ``(variables, batches, folds (n,)) -> Unseen`` of all n
        images, in any order: what models fitted to the other folds say of each, from the variables
        of the model that is fitted to all of them, without fitting those.
      backbone: name of the pretrained network that ``fit`` or ``initialise`` builds on
        (:data:`jaxad.models.layers.backbones.BACKBONES`); empty: none.
      diagnostics: optional ``(variables, images) -> {name: array}``, what the model knows and how
        it used it on these ``b`` images; jitted. The report draws an array by its shape and the
        end of its name; the name is its caption, with spaces for underscores:

        * ``()``: a line of a table (a noise level, a learned range);
        * ``(k,)``, ``*_counts``: how often each of k entries was used (codes, memory items), as
          sorted bars, with the entries used and unused and the perplexity;
        * ``(k,)``: bars in their own order (a spectrum, a loss per level);
        * ``(i, j)``: one matrix in colours (a correlation function, similarities);
        * ``(b, i, j)`` integer: a map of categories beside each image (code indices);
        * ``(b, i, j)`` float: a map on one colour scale beside each image (an entropy);
        * ``(n, h, w, c)``, uint8 or float in [0, 1], c of 1 or 3: pictures (axes, memory items).

        Values must be finite. An array of any other kind is left out, with a note on the page.
      sample: optional ``(variables, key, n) -> (n, h, w, c)`` images in [0, 1], drawn from the
        model's own distribution of good images; jitted with ``n`` static. ``h`` and ``w`` may be
        smaller than in ``image_shape`` where the model describes patches. Both may raise
        ValueError with one clear sentence, which the report then shows in their place.
    """

    module: nn.Module
    image_shape: tuple[int, int, int]
    init: Callable[[Key[Array, ""]], Variables]
    loss: Callable[..., LossOutput]
    detect: Callable[..., Detection]
    param_labels: Callable[[Any], Any]
    trimmed: Callable[[Variables, bool], tuple[Callable[..., Detection], Variables]] | None = None
    initialise: Callable[..., Variables] | None = None
    fit: Callable[..., Variables] | None = None
    solve: Callable[..., Variables] | None = None
    learn_backbone: Callable[[Iterable[Batch]], Variables] | None = None
    fit_to_others: Callable[[Sequence[Iterable[Batch]]], list[Variables]] | None = None
    left_out: Callable[..., Iterable[Unseen]] | None = None
    backbone: str = ""
    diagnostics: Callable[[Variables, Array], dict[str, Array]] | None = None
    sample: Callable[[Variables, Array, int], Array] | None = None


def for_detection(
    model: Model, variables: Variables, *, compact: bool = False
) -> tuple[Model, Variables]:
    """A model and its variables as detection alone needs them: ``trimmed``, where it has that."""
    if model.trimmed is None:
        return model, variables
    detect, kept = model.trimmed(variables, compact)
    return model._replace(detect=detect, trimmed=None), kept


def to_unit_float(images: Shaped[AnyArray, "*b h w c"]) -> Float[Array, "*b h w c"]:
    """Brings images to float32 in [0, 1]: uint8 is divided by 255, floats pass through."""
    unit = jnp.asarray(images, jnp.float32)
    return unit / 255.0 if images.dtype == jnp.uint8 else unit


def parameter_key(seed: int) -> Key[Array, ""]:
    """The key that parameters are drawn from.

    Its generator is XLA's own: the default one (threefry) is unrolled for every parameter, and
    compiling the start of a small network on a CPU then takes 25 s instead of 3.
    """
    return jax.random.key(seed, impl="rbg")


def label_all_trainable(params: Any) -> Any:
    """The usual ``param_labels``: every leaf carries the label ``"default"``."""
    return jax.tree.map(lambda _: "default", params)


@dataclasses.dataclass(frozen=True)
class ModelOptions(Options):
    """Options of an architecture; they stand in a config's group ``model``."""

    group: ClassVar[str] = "model."


def label_subtrees(params: Any, **labels: str) -> Any:
    """Labels by sub-tree.

    Args:
      params: of a model.
      **labels: name of a sub-tree -> its label; all others are labelled ``"default"``.
    """
    label_all = lambda subtree, label: jax.tree.map(lambda _: label, subtree)
    return {name: label_all(tree, labels.get(name, "default")) for name, tree in params.items()}


def label_encoder(params: Any) -> Any:
    """``"encoder"`` for the sub-tree of that name (a trunk), ``"default"`` for everything else."""
    return label_subtrees(params, encoder="encoder")


def apply(module: nn.Module, variables: Variables, *args: Any, **options: Any) -> Any:
    """The output of a module that changes no collection; Flax types it as a pair too."""
    return module.apply(variables, *args, **options)


def apply_for_loss(
    function: Callable[..., Any], module: nn.Module, variables: Variables, *args: Any, train: bool
) -> tuple[Any, dict[str, Any]]:
    """What a loss needs of a network: its result, and the collections that training changes.

    Args:
      function: of the bound module and ``args``; takes ``train``.
      module: of the model.
      variables: of the module.
      *args: of the function.
      train: whether collections other than parameters change; else the second result is ``{}``.
    """
    if not train:
        return nn.apply(function, module)(variables, *args, train=False), {}
    mutable = [name for name in variables if name != "params"]
    result, changed = nn.apply(function, module, mutable=mutable)(variables, *args, train=True)
    return result, dict(changed)


def dtype_option(of: str = "of the network's computation") -> Any:
    """The option ``dtype``."""
    return option("float32", of, choices=DTYPES)


def ssim_window_option(
    meaning: str = "side of the uniform window of SSIM", *, detection_only: bool = False
) -> Any:
    """The option ``ssim_window``."""
    return option(11, meaning, at_least=1, detection_only=detection_only)


def ssim_backend_option() -> Any:
    """The option ``ssim_backend``."""
    return option(
        "auto",
        "whose gaussian SSIM is trained with; auto: jaxad's on a CPU, dm_pix's on other devices",
        choices=SSIM_BACKENDS,
    )
