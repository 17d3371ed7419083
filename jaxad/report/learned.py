"""The sections of a report that show what a model learned: what it rebuilds, imagines, and uses."""

from __future__ import annotations

import numpy as np

from jaxad.report import diagnostics
from jaxad.report.content import Learned
from jaxad.report.page import escape


def sections(learned: Learned | None) -> list[tuple[str, str, str]]:
    """(anchor, heading, body) of reconstructions, samples and diagnostics; no body, no section."""
    if learned is None:
        return []
    return [
        ("reconstructions", "Reconstructions", _reconstructions(learned)),
        ("samples", "Samples", _samples(learned)),
        ("inside", "Inside the model", _inside(learned)),
    ]


def _reconstructions(learned: Learned) -> str:
    if not len(learned.images):
        return ""
    error = np.abs(learned.images.astype(np.float64) - learned.reconstructions).mean((1, 2, 3))
    tiles = [
        diagnostics.pair(
            diagnostics.small(image, alt=f"photograph {number}"),
            diagnostics.small(rebuilt, alt=f"reconstruction of photograph {number}"),
            f"differs by {off:.1f}",
        )
        for number, (image, rebuilt, off) in enumerate(
            zip(learned.images, learned.reconstructions, error, strict=True), start=1
        )
    ]
    return (
        f"<p>{len(tiles)} {escape(learned.origin)} (left) and what the model makes of them (right)"
        f", with the mean absolute difference in gray levels of 255; {error.mean():.1f} on "
        f'average.</p><div class="tiles">{"".join(tiles)}</div>'
    )


def _samples(learned: Learned) -> str:
    samples, photographs = learned.samples, learned.photographs
    if samples is None:
        return ""
    h, w = samples.shape[1:3]
    whole = samples.shape[1:] == learned.images.shape[1:]
    what = "images" if whole else f"patches of {h} × {w} pixels"
    text = (
        f"<p>{len(samples)} {what} drawn at random from the model's own distribution, decoded "
        "without any photograph as input: they show what the model takes for good. The same "
        "random numbers are used in every report.</p>"
    )
    columns = f"<div><h3>From the model</h3>{diagnostics.mosaic(samples, alt='sample')}</div>"
    if photographs is not None and len(photographs):
        part = "" if whole else ", their middle"
        beside = diagnostics.mosaic(photographs, alt="training photograph")
        columns += f"<div><h3>Good training images{part}</h3>{beside}</div>"
    return f'{text}<div class="sides">{columns}</div>'


def _inside(learned: Learned) -> str:
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in learned.notes)
    if not learned.diagnostics:
        return notes
    body = diagnostics.render(learned.diagnostics, learned.images, learned.origin)
    text = (
        "<p>What the model says of itself; what depends on images was measured on "
        f"{len(learned.images)} {escape(learned.origin)}.</p>"
    )
    return f"{notes}{text}{body}"
