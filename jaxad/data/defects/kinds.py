"""The kinds of drawn defects, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxad.data.defects import contents, shapes


class Kind(NamedTuple):
    """A kind of defect.

    Attributes:
      about: what it looks like, in a line.
      shape: of :mod:`~jaxad.data.defects.shapes`.
      content: of :mod:`~jaxad.data.defects.contents`.
      stretch: what its size is multiplied by.
      from_other: whether parts are taken from another image than the one drawn on.
    """

    about: str
    shape: Callable[..., Any]
    content: Callable[..., Any]
    stretch: float = 1.0
    from_other: bool = False


KINDS = {
    "patch": Kind("a rectangle from another place (CutPaste)", shapes.rectangle, contents.moved),
    "copy": Kind("a part once more, in another place", shapes.blob, contents.moved),
    "turned": Kind("a part from another image, turned and scaled", shapes.blob, contents.turned,
                   from_other=True),
    "grown": Kind("such a part without a visible border (NSA, by Poisson editing)", shapes.blob,
                  contents.grown_in, from_other=True),
    "scratch": Kind("a thin bent line of another colour", shapes.scratch, contents.tinted, 3.0),
    "stain": Kind("a ragged patch of another colour", shapes.cloud, contents.tinted, 1.5),
    "missing": Kind("a part filled from its surroundings", shapes.blob, contents.emptied),
    "warp": Kind("a bent part", shapes.blob, contents.warped, 1.5),
    "blur": Kind("a part out of focus", shapes.blob, contents.blurred, 1.5),
}  # fmt: skip
"""Name of a kind -> what it is."""
