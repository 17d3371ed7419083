"""The ranges from which drawn defects take their size and strength."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

Range = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Ranges:
    """Ranges of size and strength.

    Attributes:
      size: diameter as a share of the shorter side, log-uniform; a scratch is three times as long.
      contrast: largest change of a channel by another colour, in [0, 1], uniform.
      scale: by which a part from elsewhere is enlarged, log-uniform.
      displacement: of a bent part, as a share of its size, uniform; at most 0.3, above which the
        part would fold over itself.
      visible: least change of a pixel that counts as a defect, in [0, 1]: the largest over the
        channels, smoothed by 1.5 pixels.
      least_area: fewest visible pixels of a defect; what has fewer is drawn again.
    """

    size: Range = (0.04, 0.25)
    contrast: Range = (0.1, 0.5)
    scale: Range = (0.7, 1.4)
    displacement: Range = (0.1, 0.3)
    visible: float = 0.03
    least_area: int = 6

    def __post_init__(self) -> None:
        for name in ("size", "contrast", "scale", "displacement"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} is a range above 0 and not falling, not {(low, high)}.")
        if max(*self.size, *self.contrast) > 1:
            raise ValueError("size and contrast are shares, at most 1.")
        if self.displacement[1] > 0.3:
            raise ValueError("displacement is at most 0.3.")


DEFAULT = Ranges()


def draw_from(key: Key[Array, ""], ends: Range, *, logarithmic: bool = False) -> Float[Array, ""]:
    """A number of a range, uniform or uniform in its logarithm."""
    low, high = (jnp.log(end) if logarithmic else jnp.float32(end) for end in ends)
    drawn = low + jax.random.uniform(key) * (high - low)
    return jnp.exp(drawn) if logarithmic else drawn
