r"""VQ-VAE with alignment map (Gangloff et al., ICPR 2022).

    jaxad train --workdir=RUN --config=vqvae:small \
        --config.data.root=DIR --config.data.category=bottle

Variants
  small      128 x 128, 64 channels, 256 codes, 1500 steps of 8: minutes on 2 CPU cores
  medium     256 x 256, 96 channels, 512 codes, 2500 steps of 8: half an hour to an hour on 2 CPU
             cores
  demo       after small: 64 x 64, 32 channels, 3000 steps instead of 1500: as `jaxad demo` trains
             it, one to two minutes on 2 CPU cores
  ema        codebook by moving averages instead of by gradient
  cifar10    two halvings, 32 x 32 colour images, mean score (section III)
  ucsd       two halvings, 128 x 128 gray frames; the SSIM map is dilated too
  paper      as the paper: 256 x 256, 256 channels, 512 codes (the default's sizes)
  reference  the same; no public code of the paper is known
"""

from jaxad.run.config import apply_variants

from . import common


def get_config(variants: str = ""):
    """The config of ``vqvae``."""
    config = common.get_config("vqvae")
    config.data.image_size = (256, 256)
    config.train.batch_size = 8  # silent in the paper, as are optimiser, rate and epochs
    config.train.learning_rate = 2e-4
    # Adam moves a value by at most the learning rate a step, and codes have far to go.
    config.train.learning_rate_multipliers.codebook = 20.0
    config.train.epochs = 100
    # Not the paper's: tools/studies/default_scores.py has why.
    config.evaluate.primary_map = "ssim"
    config.evaluate.primary_score = "ssim:top1"
    known = {
        "small": small,
        "medium": medium,
        "demo": demo,
        "ema": ema,
        "cifar10": cifar10,
        "ucsd": ucsd,
        "paper": paper,
        "reference": paper,
    }
    return apply_variants(config, variants, known, exclusive=[("demo", "cifar10", "ucsd")])


def small(config):
    """The same architecture, reduced."""
    config.data.image_size = (128, 128)
    config.model.features = 64
    config.model.codes = 256
    config.train.batch_size = 8
    config.train.learning_rate = 1e-3
    config.train.schedule = "cosine"
    config.train.steps = 1500


def medium(config):
    """The paper's size of images and codebook, less than half its channels."""
    config.data.image_size = (256, 256)
    config.model.features = 96
    config.train.batch_size = 8
    config.train.learning_rate = 1e-3
    config.train.schedule = "cosine"
    config.train.steps = 2500


def demo(config):
    """As much as fits into two minutes on 2 CPU cores."""
    config.data.image_size = (64, 64)
    config.model.features = 32
    config.train.steps = 3000
    config.evaluate.smoothing = 1.0


def ema(config):
    """Codebook by moving averages."""
    config.model.codebook = "ema"
    if "codebook" in config.train.learning_rate_multipliers:  # which are no parameters then
        del config.train.learning_rate_multipliers["codebook"]


def cifar10(config):
    """One class of CIFAR-10 as normal."""
    config.data.image_size = (32, 32)
    config.model.downsampling = 2
    config.train.batch_size = 128
    papers_score(config)


def ucsd(config):
    """UCSD pedestrians."""
    config.data.image_size = (128, 128)
    config.data.channels = 1
    config.model.downsampling = 2
    config.model.dilate_ssim = True
    papers_score(config)


def paper(config):
    """All good images trained on; raw maps, nothing smoothed; the paper's figures."""
    config.data.holdout = 0.0
    config.evaluate.smoothing = 0.0
    config.evaluate.protocol = "vqvae"
    papers_score(config)


def papers_score(config):
    """The fused map, and its mean as the score of an image."""
    config.evaluate.primary_map = "ssim*am"
    config.evaluate.primary_score = "ssim*am:mean"
