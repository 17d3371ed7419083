"""Losses of a map of logits against a mask: focal loss and soft Dice.

Sources: T.-Y. Lin, P. Goyal, R. Girshick, K. He, P. Dollar, "Focal Loss for Dense Object
Detection", ICCV 2017, equation 4; F. Milletari, N. Navab, S.-A. Ahmadi, "V-Net", 3DV 2016, section
3, with the plain sums of later implementations in the denominator in place of sums of squares.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def focal_loss(
    logits: Float[Array, "*b"], targets: Float[Array, "*b"], *, gamma: float = 2.0
) -> Float[Array, "*b"]:
    """``-(1 - p_t)^gamma log p_t`` of every value, without the factor alpha.

    Args:
      logits: of the probability that the target is 1.
      targets: in [0, 1].
      gamma: 0 gives the cross-entropy.
    """
    # Logarithms of p and 1 - p, and powers by them: a probability that is rounded to 0 or 1 has
    # neither a logarithm nor the derivative of a root.
    yes, no = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    return -targets * yes * jnp.exp(gamma * no) - (1.0 - targets) * no * jnp.exp(gamma * yes)


def dice_loss(
    probabilities: Float[Array, "b h w"], targets: Float[Array, "b h w"], *, smooth: float = 1.0
) -> Float[Array, " b"]:
    """``1 - (2 sum p t + s) / (sum p + sum t + s)`` of every image, in [0, 1).

    Args:
      probabilities: in [0, 1].
      targets: in [0, 1].
      smooth: s, in pixels; with it an empty mask has the loss 0 where nothing is predicted.
    """
    over = (1, 2)
    both = jnp.sum(probabilities * targets, axis=over)
    total = jnp.sum(probabilities, axis=over) + jnp.sum(targets, axis=over)
    return 1.0 - (2.0 * both + smooth) / (total + smooth)
