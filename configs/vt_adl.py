r"""VT-ADL (Mishra et al., ISIE 2021): vision transformer with a mixture density network.

    jaxad train --workdir=RUN --config=vt_adl:small \
        --config.data.root=DIR --config.data.category=bottle

The study of noise and of the number of Gaussians (figure 4) is one command on 2 CPU cores:

    jaxad benchmark --workdir=RUNS --config.data.root=DIR --categories=bottle --configs \
        vt_adl:small,k1 vt_adl:small,k10 vt_adl:small vt_adl:small,no_noise \
        vt_adl:small,k50 vt_adl:small,k150

Variants
  small      128 x 128, patches of 16, 3 blocks of 128 features, 20 Gaussians: minutes on 2 cores
  medium     512 x 512, patches of 64, 6 blocks of 256 features, 50 Gaussians, 3000 steps of 8: half
             an hour to an hour on 2 CPU cores
  mnist      32 x 32, patches of 8, score by reconstruction alone (the paper gives no sizes; the
             rest is its table I)
  mvtec      the part of MVTec's images that the paper takes: the centre 512 of 550 pixels
  k1         one Gaussian
  k10        10 Gaussians
  k50        50 Gaussians
  k150       150 Gaussians
  no_noise   without noise on the embeddings
  full       full covariances of few Gaussians over 16 features
  paper      as the paper: 512 x 512, patches of 64, 150 Gaussians, noise 0.2, Adam 1e-4 with
             weight decay 1e-4, 400 epochs, all good images; maps are not smoothed
  reference  what the public code computes: its density, 10 Gaussians, noise on everything, maps
             smoothed by 4 pixels
"""

import functools

from jaxad.run.config import apply_variants

from . import common


def get_config(variants: str = ""):
    """The config of ``vt_adl``."""
    config = common.get_config("vt_adl")
    config.data.image_size = (512, 512)
    config.train.batch_size = 8
    config.train.learning_rate = 1e-4
    config.train.weight_decay = 1e-4
    config.train.epochs = 400
    config.evaluate.smoothing = 4.0
    config.evaluate.primary_map = "nll"
    config.evaluate.primary_score = "reconstruction+nll"
    known = {
        "small": small,
        "medium": medium,
        "mnist": mnist,
        "mvtec": mvtec,
        "k1": functools.partial(gaussians, k=1),
        "k10": functools.partial(gaussians, k=10),
        "k50": functools.partial(gaussians, k=50),
        "k150": functools.partial(gaussians, k=150),
        "no_noise": no_noise,
        "full": full,
        "paper": paper,
        "reference": reference,
    }
    exclusive = [("k1", "k10", "k50", "k150", "full"), ("mnist", "mvtec"), ("mnist", "full")]
    return apply_variants(config, variants, known, exclusive=exclusive)


def small(config):
    """The same architecture, reduced."""
    config.data.image_size = (128, 128)
    config.model.patch = 16
    config.model.features = 128
    config.model.depth = 3
    config.model.heads = 4
    config.model.mlp_features = 256
    config.model.decoder = "doubling"
    config.model.components = 20
    config.train.learning_rate = 1e-3
    config.train.schedule = "cosine"
    config.train.warmup_steps = 100
    config.train.steps = 1500


def medium(config):
    """The paper's size of images and patches, half its features, the decoder that doubles."""
    config.data.image_size = (512, 512)
    config.model.features = 256
    config.model.depth = 6
    config.model.heads = 8
    config.model.mlp_features = 512
    config.model.decoder = "doubling"
    config.model.components = 50
    config.train.learning_rate = 5e-4
    config.train.schedule = "cosine"
    config.train.warmup_steps = 100
    config.train.steps = 3000


def mnist(config):
    """One digit as normal."""
    config.data.image_size = (32, 32)
    config.data.channels = 1
    config.model.patch = 8
    config.model.features = 64
    config.model.depth = 3
    config.model.heads = 4
    config.model.mlp_features = 128
    config.model.decoder = "doubling"
    config.evaluate.smoothing = 0.0
    config.evaluate.primary_score = "reconstruction"


def mvtec(config):
    """MVTec's images are scaled to 550 x 550 and cropped to their centre; others are not."""
    margin = (550 - 512) / 2 / 550
    config.data.region = (margin, margin, 1 - margin, 1 - margin)


def gaussians(config, *, k):
    """This many Gaussians."""
    config.model.components = k


def no_noise(config):
    """As the paper's second run."""
    config.model.noise = 0.0


def full(config):
    """Full covariances, which only few features allow."""
    config.model.covariance = "full"
    config.model.features = 16
    config.model.heads = 4
    config.model.components = 5


def paper(config):
    """The paper's protocol, which smooths no map."""
    config.data.holdout = 0.0
    config.evaluate.smoothing = 0.0
    config.evaluate.protocol = "vt_adl"


def reference(config):
    """What the public code computes."""
    config.data.holdout = 0.0
    config.model.density = "published"
    config.model.attention_scale = "full"
    config.model.components = 10
    config.evaluate.protocol = "vt_adl"
    config.evaluate.primary_score = "published"
