r"""Features in closed form and a U-Net trained on drawn defects; no pretrained weights by default.

    jaxad train --workdir=RUN --config=restore \
        --config.data.root=DIR --config.data.category=bottle

Variants
  pretrained 256 x 256 pixels, over feature_pca instead of own_features: needs jaxad[features]
  small      64 x 64 pixels, 300 steps; not measured
  paper      there is none of the whole model; its defaults on maps as they come, without smoothing
  reference  the same; there is no code of authors to follow
"""

from jaxad.run.config import apply_variants

from . import common


def get_config(variants: str = ""):
    """The config of ``restore``."""
    config = common.get_config("restore")
    config.train.batch_size = 8
    config.train.steps = 500
    config.train.learning_rate = 2e-3
    config.train.schedule = "cosine"
    config.evaluate.primary_map = "residual*probability"
    config.evaluate.primary_score = "residual*probability:top1"
    known = {"pretrained": pretrained, "small": small, "paper": paper, "reference": paper}
    return apply_variants(config, variants, known, exclusive=[("pretrained", "small")])


def pretrained(config):
    """Over features of a pretrained network, at the size of ``feature_pca``."""
    config.data.image_size = (256, 256)
    config.model.backbone = "efficientnet_lite0"
    config.evaluate.smoothing = 4.0


def small(config):
    """Images of half the side."""
    config.data.image_size = (64, 64)
    config.train.steps = 300
    config.evaluate.smoothing = 1.0


def paper(config):
    """The plain map."""
    config.evaluate.smoothing = 0.0
