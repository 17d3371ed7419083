"""The shared keys of every config, each stated once, and the settings of a run made of them.

A config (:mod:`jaxad.run.config`) is what a user edits; :class:`Settings` is what the code reads:
frozen, typed and checked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from jaxad.run.errors import UserError
from jaxad.run.options import Options, Rule, converted, option


@dataclasses.dataclass(frozen=True)
class Data(Options):
    """Which images, and how they are read."""

    group: ClassVar[str] = "data."

    name: str = option(
        "auto", "auto, mvtec, folder, listing, shards, synthetic, or of `jaxad data list`"
    )
    root: str = option("", "folder of the images, or a list of them; empty: generated images")
    category: str = option("", "sub-folder of root, normal class, or generated category")
    anomalous: str = option("", 'elpv: defect probabilities that are anomalous; "": 1/3,2/3,1')
    masks: str = option(
        "", 'folders of masks below the images, with commas; "": by name and content; none: no one'
    )
    image_size: tuple[int, int] = option(
        (128, 128), "(height, width) in pixels that the model sees", at_least=1
    )
    region: tuple[float, float, float, float] = option(
        (0.0, 0.0, 1.0, 1.0), "part of the image that is seen: (top, left, bottom, right), shares"
    )
    tiles: tuple[int, int] = option(
        (0, 0),
        "(side, overlap) in pixels of the photographs: tiles of them are what the model sees, each "
        "at image_size; 0,0: whole images",
        at_least=0,
    )
    tile_models: str = option(
        "shared",
        "one model for the tiles of all places (shared), or one for each place of photographs of "
        "one size (per_position)",
        choices=("shared", "per_position"),
    )
    channels: int = option(3, "3 (RGB) or 1 (gray)", at_least=1)
    range_16bit: str = option("full", '16-bit images: full, a bit depth ("12") or percentiles')
    limit: int = option(
        0, "good training images drawn at random, held-out ones among them; 0: all", at_least=0
    )
    limit_seed: int = option(0, "of that draw; a smaller limit draws a subset of a larger one's")
    alpha: str = option(
        "white", "transparent images: on white, or their colours alone", choices=("white", "ignore")
    )
    illumination: str = option(
        "none",
        "brought to that of the training images: level (brightness and contrast), or a gradient "
        "of light too",
        choices=("none", "level", "gradient"),
    )
    align: str = option(
        "none",
        "parts brought to one place (shift), or place and angle (turn), by the moments of what is "
        "not background; auto: whichever helps on good images, if any does",
        choices=("none", "shift", "turn", "auto"),
    )
    pages: str = option(
        "first",
        "of TIFF files and animations: the first, or each an image",
        choices=("first", "each"),
    )
    holdout: float = option(
        0.1,
        "share of the good training images kept for calibration (below 1, a data set's validation "
        "images instead); 1: all, where none is trained on",
        at_least=0,
        at_most=1,
    )
    calibration: str = option(
        "auto",
        "good images that thresholds come from; auto: held-out ones or, where data.holdout is 0 "
        "and the model has a closed form, all of them, cross-fitted",
        choices=("auto", "held_out", "cross_fitted"),
    )
    folds: int = option(
        5, "cross-fitting: parts, each scored by a model trained on the others", at_least=2
    )
    exclude: str = option(
        "", "training images to leave out: paths, separated by commas, or a list of them (txt, csv)"
    )
    pipeline: str = option(
        "auto", "auto takes tf.data where it is installed", choices=("auto", "tf", "memory")
    )
    stream: bool = option(False, "decode training images batch by batch, never all of them")
    memory_limit_mb: int = option(
        4096,
        "decoded images above this go to a memory-mapped file; models of places take no more",
        at_least=0,
    )
    limit_megapixels: float = option(
        178.0, "images above this are refused, by their header, before they are decoded", above=0
    )
    synthetic_seed: int = option(0, "of the generated images")


@dataclasses.dataclass(frozen=True)
class Augment(Options):
    """Changes of training images, on the device, keyed per image."""

    group: ClassVar[str] = "augment."

    flip_left_right: bool = option(False, "mirror half of the images left to right")
    flip_up_down: bool = option(False, "mirror half of the images top to bottom")
    rotate_degrees: float = option(
        0.0, "uniform in [-r, r]; 180 for parts that lie at any angle", at_least=0
    )
    shift: float = option(0.0, "uniform in [-s, s] as a share of the image side", at_least=0)
    crop: float = option(
        0.0,
        "least share of the area that a random crop keeps, enlarged again; 0: no crops",
        at_least=0,
        at_most=1,
    )
    brightness: float = option(
        0.0, "added to all pixels, uniform in [-b, b] of the full range", at_least=0
    )


@dataclasses.dataclass(frozen=True)
class Train(Options):
    """How a model is trained."""

    group: ClassVar[str] = "train."

    epochs: int = option(100, "passes over the training images", at_least=1)
    steps: int = option(0, "optimiser steps; overrides epochs when above 0", at_least=0)
    batch_size: int = option(8, "images in one optimiser step, over all devices", at_least=1)
    accumulate: int = option(1, "parts into which a batch is split to save memory", at_least=1)
    optimizer: str = option(
        "adam",
        "sgd has momentum 0.9; none: no step is taken, train.weights are the model",
        choices=("adam", "adamw", "sgd", "none"),
    )
    betas: tuple[float, float] = option(
        (0.9, 0.999), "adam, adamw: decay of the mean and of the square", at_least=0, below=1
    )
    learning_rate: float = option(1e-4, "of the optimiser, after the warm-up", at_least=0)
    schedule: str = option(
        "constant", "cosine: to zero at the last step", choices=("constant", "cosine")
    )
    warmup_steps: int = option(0, "in which the learning rate rises from zero", at_least=0)
    warmup_epochs: int = option(
        0, "the same as a share of train.epochs; overrides warmup_steps when above 0", at_least=0
    )
    weight_decay: float = option(
        0.0, "adamw: decoupled; adam, sgd: added to the gradient (L2)", at_least=0
    )
    decay_vectors: bool = option(True, "False: no weight decay of biases and normalisations")
    gradient_clip: float = option(0.0, "global norm; 0: none", at_least=0)
    learning_rate_multipliers: Mapping[str, float] = option(
        {}, "parameter label -> factor; 0 freezes"
    )
    weights: str = option("", "folder of `jaxad convert` whose weights the encoder starts from")
    log_every: int = option(20, "steps between rows of history.csv", at_least=1)
    checkpoint_every: int = option(
        100, "steps between checkpoints, each validated first", at_least=1
    )
    devices: int = option(0, "how many local devices; 0: all", at_least=0)
    force_pmap: bool = option(False, "take the multi-device path on one device too")

    @property
    def takes_steps(self) -> bool:
        """Whether anything is trained: without an optimiser, or at rate 0, weights stay as is."""
        return self.optimizer != "none" and self.learning_rate > 0


@dataclasses.dataclass(frozen=True)
class Evaluate(Options):
    """How a run is judged; all of it may change after training."""

    group: ClassVar[str] = "evaluate."

    batch_size: int = option(16, "images that detection takes at a time", at_least=1)
    smoothing: float = option(
        2.0, "sigma in pixels of the gaussian on every map; 0: none", at_least=0
    )
    primary_map: str = option("", "the map that is shown and thresholded")
    primary_score: str = option(
        "", "MAP:max, MAP:mean, MAP:top1 (mean of the highest 1 %), or a score of the model"
    )
    region_mask: str = option(
        "",
        "picture, or folder of pictures for single images, in which what is not black is judged "
        'and the rest counts nowhere; "": all',
    )
    coarse: str = option(
        "",
        "with data.tiles, the run folder of a model of whole photographs, whose map and score are "
        'joined to those of the tiles; "": none',
    )
    resolution: str = option(
        "model", "size at which pixels are judged", choices=("model", "original")
    )
    protocol: str = option("jaxad", "jaxad, or a paper's: vae_compare, mvtec_official ...")
    image_false_positive_rate: float = option(
        0.05, "of good images, that the image threshold is set for", at_least=0, below=1
    )
    pixel_false_positive_rate: float = option(
        0.005, "of their pixels, that the pixel threshold is set for", at_least=0, below=1
    )
    image_threshold: str = option(
        "", 'by hand: a score, or "fpr:0.02", "recall:0.95" on labelled images; "": calibrated'
    )
    aupro_limit: float = option(
        0.3, "false-positive rate to which AUPRO integrates", above=0, at_most=1
    )
    memory_limit_mb: int = option(
        2048, "maps that would take more are judged batch by batch", at_least=0
    )
    report_images: int = option(100, "most images shown in report.html", at_least=0)
    skip_unreadable: bool = option(
        False,
        "go on without test images that cannot be read, or whose masks cannot; they are named",
    )


@dataclasses.dataclass(frozen=True)
class ModelChoice:
    """Which architecture, and its options by name (:data:`jaxad.models.ARCHITECTURES`)."""

    name: str
    options: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The group ``model`` of a config."""
        return {"name": self.name, **self.options}


GROUPS: dict[str, type[Options]] = {
    "data": Data,
    "augment": Augment,
    "train": Train,
    "evaluate": Evaluate,
}
"""Groups of shared keys; ``model`` is each architecture's own."""

TOP_LEVEL = {
    "variants": Rule("which variants were applied (filled in; not to be set)"),
    "seed": Rule("of parameters, data order, augmentation, the held-out images"),
    "model.name": Rule("the architecture; the other keys of model are its options"),
}
"""Keys that belong to no group."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a run, checked; in the order of a config.

    Attributes:
      variants: those that were applied.
      seed: of parameters, data order, augmentation, the held-out images.
    """

    variants: str = ""
    seed: int = 0
    data: Data = dataclasses.field(default_factory=Data)
    augment: Augment = dataclasses.field(default_factory=Augment)
    model: ModelChoice
    train: Train = dataclasses.field(default_factory=Train)
    evaluate: Evaluate = dataclasses.field(default_factory=Evaluate)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(h, w, c)`` of the images that the model sees."""
        return (*self.data.image_size, self.data.channels)

    def changed(self, group: str, **values: Any) -> Settings:
        """The same settings but for some values of a group."""
        return dataclasses.replace(
            self, **{group: dataclasses.replace(getattr(self, group), **values)}
        )

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, in the order of a config."""
        return {**dataclasses.asdict(self), "model": self.model.to_dict()}

    @classmethod
    def of(cls, values: Mapping[str, Any], *, source: str = "the config") -> Settings:
        """Settings from nested plain values; a missing key has its default.

        Args:
          values: as :meth:`to_dict` gives them.
          source: named in errors.

        Raises:
          UserError: an unknown key, or a value that its key does not take.
        """
        unknown = set(values) - {*GROUPS, "model", "variants", "seed"}
        if unknown:
            raise UserError(f"{source} holds an unknown key {min(unknown)!r}")
        for name in (*GROUPS, "model"):
            if not isinstance(values.get(name, {}), Mapping):
                raise UserError(f"{source}: {name!r} is {values[name]!r}, not a group of keys")
        model = dict(values.get("model", {}))
        groups: dict[str, Any] = {
            name: group.of(values.get(name, {}), what=f"{source}: the group {name!r}")
            for name, group in GROUPS.items()
        }
        return cls(
            model=ModelChoice(converted("model.name", model.pop("name", ""), ""), model),
            variants=converted("variants", values.get("variants", ""), ""),
            seed=converted("seed", values.get("seed", 0), 0),
            **groups,
        )
