"""The papers' evaluation protocols, by name: what is evaluated, and how, as plain data.

A protocol changes the evaluation alone: training, the held-out share, smoothing and the size of
the images stay with the config. It is applied by :mod:`jaxad.evaluation.protocols.apply`; its name
and its statement in words stand beside its metrics in metrics.json and in the report.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxad.evaluation.protocols.masks import MASK_RESIZINGS
from jaxad.run.errors import UserError, did_you_mean

IMAGE_METRICS = {
    "image_auroc": "image AUROC",
    "image_ap": "image average precision",
    "image_pr_auc_trapezoid": "area under the image precision-recall polyline",
}
POOLED_METRICS = {
    "pixel_auroc": "pixel AUROC over the pixels of all images together",
    "pixel_ap": "pixel average precision, pooled likewise",
    "aupro": "AUPRO",
    "pro_as_released": 'pooled pixel AUROC, which the released code prints as "PRO"',
}
PER_IMAGE_METRICS = {
    "pixel_auroc_per_image_mean": "mean over images of the pixel AUROC inside each image",
    "pixel_auroc_per_image_std": "their population standard deviation",
    "pixel_auroc_mean_over_kinds": "the mean over kinds of defect of each kind's mean over images",
}
METRICS = IMAGE_METRICS | POOLED_METRICS | PER_IMAGE_METRICS
"""Every metric that a protocol can ask for, in words."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How one source evaluates anomaly maps and scores.

    Attributes:
      name: as in ``evaluate.protocol``.
      source: which paper or code it follows.
      metrics: keys of :data:`METRICS`.
      images: ``"all"`` test images, or the ``"defective"`` alone.
      mask_resizing: key of :data:`~jaxad.evaluation.protocols.masks.MASK_RESIZINGS`.
      resolution: maps and masks are compared at the ``"model"`` size, the ``"original"`` size of
        each image, or as the ``"config"`` says (``evaluate.resolution``).
      fusion: ``"raw"`` takes every map as the model gives it. ``"min_max"`` brings each map of
        each image to [0, 1], and makes a map named ``A*B`` anew, as the min-max of the product of
        the min-maxed A and B: that ranks pixels otherwise than the raw product does.
      image_score: ``"max"`` or ``"mean"`` of the map as formed; ``"own"``: the score of the
        model that ``evaluate.primary_score`` names, for other maps and without one the maximum;
        None: the source defines none.
      label: an image is anomalous by its ``"folder"``, or by its ``"mask"`` where it has one.
      aupro_limit: false-positive rate to which AUPRO integrates; None: ``evaluate.aupro_limit``.
      smoothing: sigma of the gaussian in the source's maps; None where it says nothing.
      note: what else a reader of the metrics must know, in sentences.
    """

    name: str
    source: str
    metrics: tuple[str, ...]
    images: Literal["all", "defective"] = "all"
    mask_resizing: str = "nearest"
    resolution: Literal["config", "model", "original"] = "model"
    fusion: Literal["raw", "min_max"] = "raw"
    image_score: Literal["max", "mean", "own"] | None = "own"
    label: Literal["folder", "mask"] = "folder"
    aupro_limit: float | None = 0.3
    smoothing: float | None = None
    note: str = ""

    @property
    def statement(self) -> str:
        """The protocol in words, from the same fields that are applied."""
        on_pixels = any(name not in IMAGE_METRICS for name in self.metrics)
        parts = [f"{self.source}: {_IMAGES[self.images]}."]
        if on_pixels:
            parts.append(f"Maps: {_FUSION[self.fusion]}, {_RESOLUTION[self.resolution]}.")
            parts.append(f"Masks: {self._masks()}.")
        parts.append(f"Image score: {_SCORES[self.image_score]}.")
        if self.label == "mask":
            parts.append("An image is anomalous when its mask marks a pixel.")
        parts.append(f"Figures: {'; '.join(map(self._metric, self.metrics))}.")
        return " ".join([*parts, *([self.note] if self.note else [])])

    def _masks(self) -> str:
        if self.resolution == "original":
            return "as they are, above zero is defective"
        return MASK_RESIZINGS[self.mask_resizing].statement

    def _metric(self, name: str) -> str:
        if name != "aupro":
            return METRICS[name]
        rate = "evaluate.aupro_limit" if self.aupro_limit is None else f"{self.aupro_limit:g}"
        return f"AUPRO up to a false-positive rate of {rate}"

    def departures(self, *, smoothing: float) -> list[str]:
        """Where the run's own settings differ from the source's, in sentences.

        Args:
          smoothing: ``evaluate.smoothing`` of the run.
        """
        if self.smoothing is None or smoothing == self.smoothing:
            return []
        return [f"evaluate.smoothing is {smoothing:g}, the source's maps have {self.smoothing:g}."]


_IMAGES = {
    "all": "all test images count",
    "defective": "defective test images alone count, good ones are left out",
}
_FUSION = {
    "raw": "as the model gives them, after evaluate.smoothing, of one scale over all images",
    "min_max": "min-max to [0, 1] inside each image; a map A*B is the min-max of the product of "
    "the min-maxed A and the min-maxed B; images with a constant map are skipped and counted",
}
_RESOLUTION = {
    "config": "at evaluate.resolution",
    "model": "at the size the model sees",
    "original": "brought bilinearly to the original size of each image",
}
_SCORES = {
    "max": "maximum of the map",
    "mean": "mean of the map",
    "own": "the model's own where the run names one, else the maximum of the map",
    None: "none is defined",
}
_ONE_CLASS = "Images whose mask is of one class at this size are skipped and counted."

PROTOCOLS: dict[str, Protocol] = {
    one.name: one
    for one in (
        Protocol(
            name="jaxad",
            source="The standard of this library",
            metrics=("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "aupro"),
            resolution="config",
            aupro_limit=None,
            note="The image score is evaluate.primary_score.",
        ),
        Protocol(
            name="vae_compare",
            source="VAE, VAE-GRF and ViT-VAE compared (2024), as its public code does",
            metrics=("pixel_auroc_per_image_mean", "pixel_auroc_per_image_std"),
            images="defective",
            mask_resizing="full_after_min_max",
            fusion="min_max",
            image_score=None,
            smoothing=0.0,
            note=f"{_ONE_CLASS} The public code draws 128 test images of MIAD with replacement; "
            "here each counts once.",
        ),
        Protocol(
            name="vae_grf_2024",
            source="VAE-GRF, the authors' public code of 2024",
            metrics=("pixel_auroc_mean_over_kinds",),
            images="defective",
            mask_resizing="full_after_min_max",
            fusion="min_max",
            image_score=None,
            smoothing=0.0,
            note=f"{_ONE_CLASS} The code's SSIM window of 15 is an option of the model.",
        ),
        Protocol(
            name="vt_adl",
            source="VT-ADL (2021), its paper and its released code",
            metrics=("pro_as_released", "aupro", "image_auroc", "image_pr_auc_trapezoid"),
            mask_resizing="above_zero",
            smoothing=4.0,
            note="The paper's text describes AUPRO, its released code computes the other figure. "
            "Both crop MVTec's images, scaled to 550 x 550, to their centre 512: that is "
            "data.region, set by the variant vt_adl:mvtec.",
        ),
        Protocol(
            name="anovit",
            source="AnoViT, the code of 2024",
            metrics=("image_auroc", "pixel_auroc"),
            mask_resizing="above_zero_not_antialiased",
            smoothing=6.0,
            note="There the image score is the maximum of the squared error over pixels and "
            "channels, before any smoothing.",
        ),
        Protocol(
            name="vqvae",
            source="VQ-VAE with alignment map (2022)",
            metrics=(
                "image_auroc",
                "pixel_auroc",
                "pixel_auroc_per_image_mean",
                "pixel_auroc_per_image_std",
                "pixel_auroc_mean_over_kinds",
            ),
            image_score="mean",
            smoothing=0.0,
            note="The paper says pooled for UCSD and nothing for MVTec, so all readings are given; "
            "it is silent on how masks are resized.",
        ),
        Protocol(
            name="vit_memory",
            source="Vision transformer with memory and coordinate attention (2024)",
            metrics=("image_auroc", "pixel_auroc", "aupro"),
            note="The paper is silent on the resizing of masks, on its image score and on the "
            "width of its smoothing.",
        ),
        Protocol(
            name="mae",
            source="Masked autoencoder with a sliding mask",
            metrics=("image_auroc",),
            image_score="mean",
            smoothing=0.0,
            note="The paper judges images alone.",
        ),
        Protocol(
            name="mvtec_official",
            source="The evaluation published with MVTec AD",
            metrics=("aupro", "image_auroc"),
            resolution="original",
            image_score="max",
            label="mask",
        ),
    )
}
"""Every protocol, by its name."""


def get_protocol(name: str) -> Protocol:
    """The protocol of a name.

    Raises:
      UserError: there is none of that name.
    """
    if name not in PROTOCOLS:
        raise UserError(f"evaluate.protocol is {name!r}" + did_you_mean(str(name), PROTOCOLS))
    return PROTOCOLS[name]
