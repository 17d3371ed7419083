r"""Principal components of the good images: the linear baseline of every table.

Closed form, no training steps; seconds on a CPU.

    jaxad train --workdir=RUN --config=pca \
        --config.data.root=DIR --config.data.category=bottle

Variants
  small    30 components (the baseline's own setting for bottles and metal surfaces)
  patch    for textures: components of 16 x 16 patches at any position
  paper    the model of Tipping & Bishop (1999), without smoothing of the maps
  reference  the same; there is no code of the authors to follow
"""

from jaxad.run.config import apply_variants

from . import common


def get_config(variants: str = ""):
    """The config of ``pca``."""
    config = common.get_config("pca")
    # Nothing is held out: thresholds come from cross-fitting, which takes seconds here.
    config.data.holdout = 0.0
    config.evaluate.primary_map = "l1*ssim"
    config.evaluate.primary_score = "l1*ssim:top1"
    return apply_variants(
        config, variants, {"small": small, "patch": patch, "paper": paper, "reference": paper}
    )


def small(config):
    """Already small: thirty components at 128 x 128."""
    config.model.components = 30


def patch(config):
    """Patches at any position; few components, since more of them rebuild the defects too."""
    config.model.patch = 16
    config.model.components = 16
    config.evaluate.primary_map = "nll"
    config.evaluate.primary_score = "nll:top1"


def paper(config):
    """The plain model."""
    config.evaluate.smoothing = 0.0
