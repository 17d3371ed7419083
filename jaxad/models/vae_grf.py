"""VAE whose prior is a stationary Gaussian random field on a torus.

Source: H. Gangloff, M.-T. Pham, L. Courtrai, S. Lefevre, "Unsupervised Anomaly Detection Using
Variational Autoencoder with Gaussian Random Field Prior" (VAE-GRF), and its public code; column
"VAE-GRF" of arXiv 2408.13561. Network, likelihood and maps are those of :mod:`jaxad.models.vae`.
A priori, each channel of the latents is an independent zero-mean field whose covariance between
two sites depends on their distance on the torus. All channels share two scalars, range and
standard deviation. The posterior stays independent at every site, so the KL divergence has a
closed form, by FFT (:mod:`jaxad.ops.grf`).

How the two scalars are learned (``learn``):

* ``"image"``, as the authors do: they are constants in the KL, and maximise the likelihood of the
  *training image itself* as such a field, gray and less its mean, with the range in pixels. The
  range of the latents is this divided by the side of a latent cell. Their parameters have the
  label ``prior`` and a learning rate of their own, 100 times that of the network in the published
  code.
* ``"elbo"``: through the KL divergence, as part of the lower bound.
* ``"no"``: fixed.

``start_range=0`` starts from the training images, at the range whose correlation falls to 1/e
where that of the images does. Fixed there (variant ``matched``), samples of the prior come closest
to the images' correlation length. Neither way of learning finds it. The likelihood of the image is
about its smoothness, since a field without noise must explain the noise of the pixels too. The
lower bound prefers short ranges, because a posterior that is independent at every site pays for
every correlation of the prior (:func:`jaxad.ops.grf.kl_divergence`), and because the network can
correlate pixels by itself.

Where paper and code disagree or are silent, and what is done here:

* arXiv 2408.13561 ran its VAE-GRF column with the *identity* as correlation, which is the standard
  normal prior; range and deviation are then neither used nor learned. What differs from its VAE
  column is the KL weight, 0.75 instead of 1/1024 of the evidence lower bound. So that table
  compares two weights and not two priors. ``paper`` and ``reference`` keep the identity; the
  default is the Matern field that the method is named for.
* That paper does not mention the likelihood of the image, which the code adds to the objective.
* The code evaluates the covariance at the nearest copy of a site. This is not positive definite
  for ranges that are not small against the torus, and yields NaN (``wrap="nearest"``; here
  eigenvalues are then raised to a floor, and the history reports the smallest). The default,
  ``wrap="sum"``, adds up all copies and is positive definite at any range.
* Its Matern 3/2 lacks the usual root of 3, a factor in the unit of the range.
* Its later version limits the range to [0.1, 10] pixels after every step; this is not done here.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping
from typing import cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Key

from jaxad.data.batch import Batch
from jaxad.models.base import Model, Variables, label_subtrees, to_unit_float
from jaxad.models.layers.variational import Posterior, kl_unit_option
from jaxad.models.vae import VAEOptions, build_convolutional, latent_grid
from jaxad.ops import grf
from jaxad.ops.arrays import AnyArray
from jaxad.ops.correlation import correlation_length, radial_autocorrelation
from jaxad.run.errors import UserError
from jaxad.run.options import option

LEARN = ("image", "elbo", "no")
GRAY = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in a gray image (ITU-R BT.601, four digits as in torchvision)."""

MATCHED_IMAGES = 256
"""Training images whose correlation length is measured for ``start_range=0``."""


class GaussianField(nn.Module):
    """A prior for latents on a grid (:class:`jaxad.models.layers.variational.Prior`).

    Attributes:
      image_size: ``(h, w)`` in pixels.
      cell: side of a latent cell in pixels.
      family: a key of :data:`jaxad.ops.grf.FAMILIES`.
      learn: ``"image"``, ``"elbo"`` or ``"no"``.
      start_range: in pixels; the latents' is this divided by ``cell``. 0: to be matched to images.
      start_deviation: standard deviation of a latent.
      wrap: ``"sum"`` or ``"nearest"`` copies (:func:`jaxad.ops.grf.covariance_base`).
    """

    image_size: tuple[int, int]
    cell: int
    family: grf.Family = "matern32"
    learn: str = "image"
    start_range: float = 1.0
    start_deviation: float = 1.0
    wrap: grf.Wrap = "sum"

    def setup(self):
        """Declares the logarithms of the two scalars: both stay positive."""
        starts = {"log_range": self.start_range or 1.0, "log_deviation": self.start_deviation}
        constant = lambda value: nn.initializers.constant(math.log(value))
        logs = {name: self.param(name, constant(start), ()) for name, start in starts.items()}
        self.logs = jax.lax.stop_gradient(logs) if self.learn == "no" else logs

    def base(
        self, logs: Mapping[str, Float[Array, ""]], shape: tuple[int, int], cell: int
    ) -> Float[Array, "h w"]:
        """Covariances with the first site of a torus whose cells are ``cell`` pixels wide."""
        return grf.covariance_base(
            shape,
            self.family,
            jnp.exp(logs["log_range"]) / cell,
            jnp.exp(2.0 * logs["log_deviation"]),
            wrap=self.wrap,
        )

    def latent_base(self) -> Float[Array, "i j"]:
        """Covariances of the latents with the first of them, as the KL divergence sees them."""
        h, w = self.image_size
        logs = jax.lax.stop_gradient(self.logs) if self.learn == "image" else self.logs
        return self.base(logs, (h // self.cell, w // self.cell), self.cell)

    def kl_divergence(self, posterior: Posterior) -> Float[Array, "b d"]:
        """KL(posterior || field) of every channel in nats, summed over positions."""
        eigenvalues = grf.eigenvalues(self.latent_base())
        return grf.kl_divergence(posterior.mean, posterior.log_variance, eigenvalues)

    def kl_shares(self, posterior: Posterior) -> Float[Array, "b i j"]:
        """What each position contributes to the divergence, summed over channels."""
        eigenvalues = grf.eigenvalues(self.latent_base())
        shares = grf.kl_shares(posterior.mean, posterior.log_variance, eigenvalues)
        return jnp.sum(shares, axis=-1)

    def image_loss(self, images: Float[AnyArray, "b h w c"]) -> Float[Array, " b"] | None:
        """Negative log-likelihood of gray images as fields, in nats per pixel."""
        if self.learn != "image" or self.family == "identity":
            return None
        h, w = images.shape[1:3]
        gray = to_gray(images)
        centred = gray - jnp.mean(gray, axis=(1, 2, 3), keepdims=True)
        eigenvalues = grf.eigenvalues(self.base(self.logs, (h, w), 1))
        return -grf.log_density(centred, eigenvalues)[:, 0] / (h * w)

    def sample(
        self, key: Key[Array, ""], shape: tuple[int, int, int, int]
    ) -> Float[Array, "n i j d"]:
        """Latents drawn from the field."""
        return grf.sample(key, shape, grf.eigenvalues(self.latent_base()))

    def scalars(self) -> dict[str, Float[Array, ""]]:
        """Range in pixels, standard deviation, smallest eigenvalue over the variance."""
        return {
            "range": jnp.exp(self.logs["log_range"]),
            "deviation": jnp.exp(self.logs["log_deviation"]),
            "smallest_eigenvalue": grf.smallest_eigenvalue(self.latent_base()),
        }

    def diagnostics(self) -> dict[str, Array]:
        """The scalars, and ``prior_covariance`` ``(i, j)`` of the latents with the middle one."""
        return {**self.scalars(), "prior_covariance": jnp.fft.fftshift(self.latent_base())}


@dataclasses.dataclass(frozen=True)
class VAEGRFOptions(VAEOptions):
    """Options of ``vae_grf``."""

    kl_unit: str = kl_unit_option("elbo")
    family: str = option(
        "matern32", "of the correlation; identity: the standard normal prior", choices=grf.FAMILIES
    )
    learn: str = option(
        "image", "how range and deviation are learned; the authors: image", choices=LEARN
    )
    start_range: float = option(
        1.0,
        "in pixels; the latents' is this divided by the side of a latent cell; 0: matched to the "
        "training images",
        at_least=0,
    )
    start_deviation: float = option(1.0, "standard deviation of a latent", above=0)
    wrap: str = option(
        "sum",
        "of all copies on the torus, or of the nearest (authors)",
        choices=("sum", "nearest"),
    )


def build(
    image_shape: tuple[int, int, int], options: VAEGRFOptions, *, axis_name: str | None = None
) -> Model:
    """Builds ``vae_grf``.

    Args:
      image_shape: ``(h, w, c)``, sides divisible by ``2 ** downsampling``.
      options: of the model.
      axis_name: the mapped axis over which batch statistics are reduced.

    Raises:
      ValueError: options that do not fit together, or the images.
    """
    latent_grid(image_shape, options)
    family = cast(grf.Family, options.family)  # one of its choices
    if family == "identity" and (options.learn == "elbo" or not options.start_range):
        raise ValueError(
            "model.family=identity has no range and no deviation: nothing to learn by "
            "model.learn=elbo, nothing to match by model.start_range=0"
        )
    learn = "no" if family == "identity" else options.learn
    prior = GaussianField(
        image_shape[:2],
        2**options.downsampling,
        family,
        learn,
        options.start_range,
        options.start_deviation,
        cast(grf.Wrap, options.wrap),
    )
    model = build_convolutional(
        image_shape,
        prior,
        options,
        axis_name=axis_name,
        param_labels=functools.partial(label_subtrees, prior="prior"),
    )
    if options.start_range or family == "identity":
        return model
    return model._replace(initialise=functools.partial(match_range, family))


def match_range(family: grf.Family, variables: Variables, batches: Iterable[Batch]) -> Variables:
    """The variables with the range whose correlation length is that of the images.

    Args:
      family: of the correlation.
      variables: of the model.
      batches: of good images; up to :data:`MATCHED_IMAGES` are looked at.

    Raises:
      UserError: no image varies, or all correlate over more than half their side.
    """
    found: list[Array] = []
    for batch in batches:
        found.append(to_gray(to_unit_float(jnp.asarray(batch.image)))[batch.valid, :, :, 0])
        if sum(map(len, found)) >= MATCHED_IMAGES:
            break
    gray = jnp.concatenate(found)[:MATCHED_IMAGES]
    length = correlation_length(radial_autocorrelation(gray))
    if math.isnan(length):
        raise UserError(
            "the training images have no correlation length (they are flat, or correlate over more "
            "than half their side); give model.start_range in pixels"
        )
    log_range = jnp.float32(math.log(length / grf.length_of_unit_range(family)))
    prior = {**variables["params"]["prior"], "log_range": log_range}
    return {**variables, "params": {**variables["params"], "prior": prior}}


def to_gray(images: Float[AnyArray, "b h w c"]) -> Float[Array, "b h w 1"]:
    """The gray image of colours, the channel mean of anything else."""
    c = images.shape[-1]
    return jnp.asarray(images) @ jnp.asarray(GRAY if c == 3 else (1.0 / c,) * c)[:, None]
