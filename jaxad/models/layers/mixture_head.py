"""A mixture density network over patch embeddings, as in VT-ADL (Mishra et al., ISIE 2021).

For every patch, linear maps without bias of the rectified embedding give the weights, means and
covariances of K Gaussians: equations 4 to 6 of the paper, with the sizes of its public code.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxad.models.layers.basic import uniform_within
from jaxad.ops import mixture_density

LARGEST_HEAD = 20_000_000
"""Parameters of the covariances above which a full covariance is refused."""


class Mixture(NamedTuple):
    """Densities of every patch.

    Attributes:
      logits: of the weights.
      log_densities: of the components at the target.
      log_variances: of the components; for full covariances of the conditional variances.
    """

    logits: Float[Array, "b n k"]
    log_densities: Float[Array, "b n k"]
    log_variances: Float[Array, "b n k d"]


class MixtureHead(nn.Module):
    """The mixture density network.

    Attributes:
      components: number of Gaussians K.
      covariance: ``"diagonal"`` or ``"full"``.
      variance_floor: added to every variance.
      published: take the softplus as logarithm of the variance, without floor.
    """

    components: int
    covariance: str = "diagonal"
    variance_floor: float = 0.0
    published: bool = False

    @nn.compact
    def __call__(self, condition: Float[Array, "b n d"], target: Float[Array, "b n d"]) -> Mixture:
        """The mixture given the condition, at the target; float32."""
        d, k = condition.shape[-1], self.components
        x = nn.relu(condition.astype(jnp.float32))

        def linear(*shape: int, name: str):
            draw = uniform_within(d**-0.5)
            return nn.DenseGeneral(shape, use_bias=False, kernel_init=draw, name=name)(x)

        logits, means = linear(k, name="weights"), linear(k, d, name="means")
        if self.covariance == "full":
            raw = linear(k, d * (d + 1) // 2, name="covariances")
            factors = mixture_density.cholesky_of_raw(raw, dimensions=d, floor=self.variance_floor)
            log_densities = mixture_density.full_log_densities(target, means, factors)
            log_variances = 2.0 * jnp.log(jnp.diagonal(factors, axis1=-2, axis2=-1))
            return Mixture(logits, log_densities, log_variances)
        raw = linear(k, d, name="variances")
        if self.published:
            log_variances = nn.softplus(raw)
        else:
            log_variances = mixture_density.log_variance_of_softplus(raw, floor=self.variance_floor)
        log_densities = mixture_density.diagonal_log_densities(target, means, log_variances)
        return Mixture(logits, log_densities, log_variances)


def check_mixture(covariance: str, density: str, components: int, features: int) -> None:
    """Refuses densities that do not exist or are too large.

    Raises:
      ValueError: says why.
    """
    if covariance == "diagonal":
        return
    if density == "published":
        raise ValueError("model.density=published has diagonal covariances only")
    count = features * components * features * (features + 1) // 2
    if count > LARGEST_HEAD:
        raise ValueError(
            f"model.covariance=full with {components} components of {features} features takes "
            f"{count:,} parameters for the covariances alone; lower model.features or "
            "model.components, or set model.covariance=diagonal"
        )
