r"""Linear reconstruction of features learned from the good images: no pretrained weights.

Closed form, no training steps; under a minute on 2 CPU cores.

    jaxad train --workdir=RUN --config=own_features \
        --config.data.root=DIR --config.data.category=bottle

Variants
  small      64 x 64 pixels; not measured
  pooled     one covariance for all positions
  paper      there is none of the whole model; its defaults on maps as they come, without smoothing
  reference  the same; there is no code of authors to follow
"""

from jaxad.run.config import apply_variants

from . import common


def get_config(variants: str = ""):
    """The config of ``own_features``."""
    config = common.get_config("own_features")
    # Nothing is held out: thresholds come from cross-fitting, whose folds need no second fit here.
    config.data.holdout = 0.0
    config.data.folds = 20
    config.evaluate.primary_map = "residual"
    config.evaluate.primary_score = "residual:top1"
    known = {"small": small, "pooled": pooled, "paper": paper, "reference": paper}
    return apply_variants(config, variants, known)


def small(config):
    """Images of half the side."""
    config.data.image_size = (64, 64)
    config.evaluate.smoothing = 1.0


def pooled(config):
    """For few good images, or parts that lie anywhere."""
    config.model.covariance = "pooled"


def paper(config):
    """The plain map."""
    config.evaluate.smoothing = 0.0
