r"""VAE with a ResNet18 encoder and a grid of latents (arXiv 2408.13561, column "VAE").

    jaxad train --workdir=RUN --config=vae:small \
        --config.data.root=DIR --config.data.category=bottle

Variants
  small      128 x 128, half the channels, 64 latent channels: minutes on 2 CPU cores
  medium     256 x 256, width and latents as published, 2000 steps of 8: half an hour to an hour on
             2 CPU cores
  elbo       KL weight 1 of the evidence lower bound: better samples, blurred reconstructions
  inner      also the maps l2, kl and gradient: inner metrics, to compare with vqvae's
  paper      as the paper says: 256 x 256, KL weight 1, Adam 1e-4, batches of 8, 100 epochs
  reference  as its code ran: KL weight 1/1024 of the evidence lower bound, lambda limited
"""

from jaxad.run.config import apply_variants

from . import common


def get_config(variants: str = ""):
    """The config of ``vae``."""
    config = common.get_config("vae")
    config.data.image_size = (256, 256)
    config.train.batch_size = 8
    config.train.learning_rate = 1e-4
    config.train.epochs = 100
    config.evaluate.primary_map = "mad*ssim"
    config.evaluate.primary_score = "mad*ssim:top1"  # the paper has no image score
    known = {
        "small": small,
        "medium": medium,
        "elbo": elbo,
        "inner": inner,
        "paper": paper,
        "reference": reference,
    }
    return apply_variants(config, variants, known)


def small(config):
    """The same architecture, reduced."""
    config.data.image_size = (128, 128)
    config.model.latent = 64
    config.model.width = 32
    config.train.learning_rate = 1e-3
    config.train.schedule = "cosine"
    config.train.steps = 1500


def medium(config):
    """The paper's sizes, at a rate that needs fewer steps."""
    config.data.image_size = (256, 256)
    config.train.learning_rate = 1e-3
    config.train.schedule = "cosine"
    config.train.steps = 2000


def elbo(config):
    """The evidence lower bound."""
    config.model.kl_unit = "elbo"


def inner(config):
    """The maps of the parts of the lower bound too."""
    config.model.bound_maps = True


def paper(config):
    """KL weight 1; raw maps, all good images trained on, judged as the paper does."""
    elbo(config)
    config.data.holdout = 0.0
    config.evaluate.smoothing = 0.0
    config.evaluate.protocol = "vae_compare"


def reference(config):
    """As the public code ran for the paper's table."""
    paper(config)
    config.model.kl_unit = "vae_compare"
    config.model.mean_clip = 1e-5
