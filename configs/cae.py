r"""Convolutional autoencoder of Bergmann et al. (VISAPP 2019), AE-SSIM and AE-L2.

    jaxad train --workdir=RUN --config=cae:small \
        --config.data.root=DIR --config.data.category=bottle

Variants
  small      128 x 128, width as published, 1500 steps of 8: minutes on 2 CPU cores
  medium     256 x 256, width and code as published, 3000 steps of 16: half an hour to an hour on 2
             CPU cores
  l2         squared error (AE-L2)
  ssim       1 - SSIM (AE-SSIM; the default)
  l2+ssim    their sum
  texture    for regular textures: trained on random crops, tested on overlapping tiles
  paper      256 x 256, 200 epochs, Adam 2e-4 with weight decay 1e-5, batch 128
  reference  as paper, but with the sigmoid at the output of a common implementation
"""

from jaxad.run.config import apply_variants

from . import common


def get_config(variants: str = ""):
    """The config of ``cae``."""
    config = common.get_config("cae")
    config.data.image_size = (256, 256)
    config.train.batch_size = 32
    config.train.learning_rate = 2e-4
    config.train.optimizer = "adam"
    config.train.weight_decay = 1e-5
    config.train.epochs = 200
    config.evaluate.primary_map = "l2*ssim"
    config.evaluate.primary_score = "l2*ssim:mean"
    known = {
        "small": small,
        "medium": medium,
        "l2": l2,
        "ssim": ssim,
        "l2+ssim": l2_ssim,
        "texture": texture,
        "paper": paper,
        "reference": reference,
    }
    return apply_variants(config, variants, known, exclusive=[("l2", "ssim", "l2+ssim")])


def small(config):
    """128 x 128, with the squared error: it converges in far fewer steps than SSIM alone."""
    config.data.image_size = (128, 128)
    config.model.loss = "l2+ssim"
    config.model.latent = 100
    config.train.batch_size = 8
    config.train.learning_rate = 1e-3
    config.train.schedule = "cosine"
    config.train.steps = 1500


def medium(config):
    """256 x 256 and the paper's code, with the loss, steps and rate that suit a CPU."""
    config.data.image_size = (256, 256)
    config.model.loss = "l2+ssim"
    config.train.batch_size = 16
    config.train.learning_rate = 1e-3
    config.train.schedule = "cosine"
    config.train.steps = 3000


def l2(config):
    """AE-L2."""
    config.model.loss = "l2"
    config.evaluate.primary_map = "l2"
    config.evaluate.primary_score = "l2:top1"


def ssim(config):
    """AE-SSIM."""
    config.model.loss = "ssim"
    config.evaluate.primary_map = "ssim"
    config.evaluate.primary_score = "ssim:top1"


def l2_ssim(config):
    """Both terms, and the product of both maps."""
    config.model.loss = "l2+ssim"
    config.evaluate.primary_map = "l2*ssim"
    config.evaluate.primary_score = "l2*ssim:mean"


def texture(config):
    """Crops of half the side, whatever the image size (128 of 256 in the paper)."""
    config.model.tile = config.data.image_size[0] // 2
    config.model.tile_stride = config.model.tile // 4
    config.model.latent = 100
    config.augment.flip_left_right = True
    config.augment.flip_up_down = True


def paper(config):
    """What the paper states."""
    config.train.batch_size = 128
    config.model.output = "linear"
    config.model.tile_stride = 30
    config.evaluate.smoothing = 0.0
    ssim(config)


def reference(config):
    """The third-party implementation's output."""
    paper(config)
    config.model.output = "sigmoid"
    config.model.tile_stride = 32
