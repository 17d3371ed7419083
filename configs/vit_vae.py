r"""VAE with a vision transformer as encoder (arXiv 2408.13561, column "ViT-VAE").

    jaxad train --workdir=RUN --config=vit_vae:small \
        --config.data.root=DIR --config.data.category=bottle

Variants
  small      128 x 128, 4 blocks of 192 features: minutes on 2 CPU cores
  medium     224 x 224, patches of 16, 6 blocks of 384 features, 2000 steps of 8: half an hour to an
             hour on 2 CPU cores
  elbo       KL weight 1 of the evidence lower bound: better samples, blurred reconstructions
  inner      also the maps l2, kl and gradient: inner metrics, to compare with vqvae's
  paper      as the paper says: 224 x 224, ViT-B/16, KL weight 1, Adam 1e-4, batches of 8
  reference  as its code ran: KL weight 1/196 of the evidence lower bound, lambda limited

The authors' encoder starts from google/vit-base-patch16-224: --config.train.weights=DIR, made by
`jaxad convert --from=hf-vit`. Without it `paper` and `reference` start from random values.
"""

from jaxad.run.config import apply_variants

from . import common


def get_config(variants: str = ""):
    """The config of ``vit_vae``."""
    config = common.get_config("vit_vae")
    config.data.image_size = (224, 224)
    config.train.batch_size = 8
    config.train.learning_rate = 1e-4
    config.train.epochs = 100
    config.evaluate.primary_map = "mad*ssim"
    config.evaluate.primary_score = "mad*ssim:mean"  # the paper has no image score
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
    config.model.features = 192
    config.model.depth = 4
    config.model.heads = 3
    config.train.learning_rate = 1e-3
    config.train.schedule = "cosine"
    config.train.warmup_steps = 100
    config.train.steps = 2000


def medium(config):
    """The paper's size of images and patches, half its features and depth."""
    config.data.image_size = (224, 224)
    config.model.features = 384
    config.model.depth = 6
    config.model.heads = 6
    config.train.learning_rate = 5e-4
    config.train.schedule = "cosine"
    config.train.warmup_steps = 100
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
