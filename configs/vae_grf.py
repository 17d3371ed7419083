r"""VAE with a Gaussian random field on a torus as prior (VAE-GRF, Gangloff et al.).

    jaxad train --workdir=RUN --config=vae_grf:small \
        --config.data.root=DIR --config.data.category=bottle

Variants
  small        128 x 128, half the channels, 64 latent channels: minutes on 2 CPU cores
  medium       256 x 256, width and latents as published, 2000 steps of 8: half an hour to an hour
               on 2 CPU cores
  matern32     Matern 3/2 correlation (the default, as the method is named for)
  exponential  exponential correlation
  identity     no correlation: the standard normal prior
  elbo         range and deviation learned through the lower bound instead of from the image
  matched      range fixed at the images' correlation length: samples correlate most like images
  inner        also the maps l2, kl and gradient: inner metrics, to compare with vqvae's
  paper        as arXiv 2408.13561 says: identity correlation, KL weight 1
  reference    as its code ran: identity, KL weight 0.75 of the lower bound, lambda limited
"""

from jaxad.run.config import apply_variants

from . import common


def get_config(variants: str = ""):
    """The config of ``vae_grf``."""
    config = common.get_config("vae_grf")
    config.data.image_size = (256, 256)
    config.train.batch_size = 8
    config.train.learning_rate = 1e-4
    config.train.learning_rate_multipliers.prior = 100.0  # as in the authors' code
    config.train.epochs = 100
    config.evaluate.primary_map = "mad*ssim"
    config.evaluate.primary_score = "mad*ssim:top1"  # the paper has no image score
    known = {
        "small": small,
        "medium": medium,
        "matern32": matern32,
        "exponential": exponential,
        "identity": identity,
        "elbo": elbo,
        "matched": matched,
        "inner": inner,
        "paper": paper,
        "reference": reference,
    }
    exclusive = [("matern32", "exponential", "identity"), ("elbo", "matched")]
    return apply_variants(config, variants, known, exclusive=exclusive)


def small(config):
    """The same architecture, reduced."""
    config.data.image_size = (128, 128)
    config.model.latent = 64
    config.model.width = 32
    config.train.learning_rate = 1e-3
    config.train.learning_rate_multipliers.prior = 10.0
    config.train.schedule = "cosine"
    config.train.steps = 1500


def medium(config):
    """The paper's sizes, at a rate that needs fewer steps."""
    config.data.image_size = (256, 256)
    config.train.learning_rate = 1e-3
    config.train.learning_rate_multipliers.prior = 10.0
    config.train.schedule = "cosine"
    config.train.steps = 2000


def matern32(config):
    """The field that the method is named for."""
    config.model.family = "matern32"


def exponential(config):
    """A rougher field."""
    config.model.family = "exponential"


def identity(config):
    """The standard normal prior, which has neither range nor deviation."""
    config.model.family = "identity"


def elbo(config):
    """Range and deviation through the KL divergence."""
    config.model.learn = "elbo"


def matched(config):
    """The range of the training images' correlation, not learned."""
    config.model.learn = "no"
    config.model.start_range = 0.0


def inner(config):
    """The maps of the parts of the lower bound too."""
    config.model.bound_maps = True


def paper(config):
    """Identity correlation; judged as the paper does."""
    identity(config)
    config.data.holdout = 0.0
    config.evaluate.smoothing = 0.0
    config.evaluate.protocol = "vae_compare"


def reference(config):
    """As the public code ran for the paper's table."""
    paper(config)
    config.model.kl_unit = "vae_compare_grf"
    config.model.mean_clip = 1e-5
