"""The sections of a report that show what a model learned: what it rebuilds, imagines, and uses."""

from __future__ import annotations

import numpy as np

from jaxad.report import diagnostics
from jaxad.report.content import Learned
from jaxad.report.diagnostics import numbered
from jaxad.report.page import Picture, Section, fragment


def sections(learned: Learned | None) -> list[Section]:
    """Reconstructions, samples and diagnostics; without a body where there are none."""
    if learned is None:
        return []
    return [
        Section("reconstructions", "Reconstructions", _reconstructions(learned)),
        Section("samples", "Samples", _samples(learned)),
        Section("inside", "Inside the model", _inside(learned)),
    ]


def _reconstructions(learned: Learned) -> str:
    if not len(learned.images):
        return ""
    error = np.abs(learned.images.astype(np.float64) - learned.reconstructions).mean((1, 2, 3))
    photographs = numbered(learned.images, alt="photograph")
    rebuilt = numbered(learned.reconstructions, alt="reconstruction of photograph")
    words, mean = [f"differs by {off:.1f}" for off in error], f"{error.mean():.1f}"
    ssim = ""
    if learned.similarity is not None:
        words = [f"{one}, SSIM {s:.3f}" for one, s in zip(words, learned.similarity, strict=True)]
        ssim = f"{learned.similarity.mean():.3f}"
    tiles = list(zip(photographs, rebuilt, words, strict=True))
    return fragment("learned", "reconstructions", learned.origin, tiles, mean, ssim)


def _samples(learned: Learned) -> str:
    if learned.samples is None:
        return ""
    _, h, w, _ = learned.samples.shape
    whole = learned.samples.shape[1:] == learned.images.shape[1:]
    photographs: list[Picture] = []
    if learned.photographs is not None:
        photographs = numbered(learned.photographs, alt="training photograph")
    return fragment(
        "learned",
        "samples",
        numbered(learned.samples, alt="sample"),
        "images" if whole else f"patches of {h} × {w} pixels",
        photographs,
        "" if whole else ", their middle",
    )


def _inside(learned: Learned) -> str:
    drawn = diagnostics.draw(learned.diagnostics, learned.images, learned.origin)
    return fragment("learned", "inside", learned.notes, len(learned.images), learned.origin, *drawn)
