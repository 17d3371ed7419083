r"""AnoViT (Lee and Kang, IEEE Access 2022): vision transformer and transposed convolutions.

    jaxad train --workdir=RUN --config=anovit:small \
        --config.data.root=DIR --config.data.category=bottle

Variants
  small          128 x 128, patches of 8, 4 blocks of 192 features: minutes on 2 CPU cores
  medium         384 x 384, patches of 16, 6 blocks of 384 features, half the decoder, 800 steps of
                 8: half an hour to an hour on 2 CPU cores
  decoder2022    the decoder and the standardised input of the public code of 2022
  decoder2024    decoder and input of the public code of 2024 (the default)
  paper          the public code of 2022: its decoder, its 200 epochs (without its early stop); it
                 has no score of images, so that of the code of 2024 is taken
  reference      the code of 2024: Adam 1e-4 with betas 0.5 and 0.999, batches of 8, 20 epochs

Both published runs start from ImageNet weights of ViT-B/16 at 384:
--config.train.weights=DIR, made by `jaxad convert --from=timm-vit`.
"""

from jaxad.run.config import apply_variants

from . import common


def get_config(variants: str = ""):
    """The config of ``anovit``."""
    config = common.get_config("anovit")
    config.data.image_size = (384, 384)
    config.train.batch_size = 8
    config.train.learning_rate = 1e-4
    config.train.epochs = 20
    config.evaluate.smoothing = 6.0
    config.evaluate.primary_map = "l2"
    config.evaluate.primary_score = "l2_max"
    known = {
        "small": small,
        "medium": medium,
        "decoder2022": decoder2022,
        "decoder2024": decoder2024,
        "paper": paper,
        "reference": reference,
    }
    return apply_variants(config, variants, known, exclusive=[("decoder2022", "decoder2024")])


def small(config):
    """The same architecture, reduced."""
    config.data.image_size = (128, 128)
    config.model.patch = 8
    config.model.features = 192
    config.model.depth = 4
    config.model.heads = 4
    config.model.width = 0.5
    config.train.learning_rate = 1e-3
    config.train.schedule = "cosine"
    config.train.warmup_steps = 100
    config.train.steps = 800
    config.evaluate.smoothing = 2.0
    config.evaluate.primary_score = "l2:max"  # of the smoothed map


def medium(config):
    """The paper's size of images and patches, half its features, depth and decoder."""
    config.data.image_size = (384, 384)
    config.model.features = 384
    config.model.depth = 6
    config.model.heads = 6
    config.model.width = 0.5
    config.train.learning_rate = 5e-4
    config.train.schedule = "cosine"
    config.train.warmup_steps = 100
    config.train.steps = 800
    config.evaluate.primary_score = "l2:max"  # of the smoothed map


def decoder2022(config):
    """Six blocks up to the colours, tanh; input standardised by the training images."""
    config.model.decoder = "2022"
    config.model.normalise = "train"


def decoder2024(config):
    """Five blocks, a convolution, sigmoid; input in [0, 1]."""
    config.model.decoder = "2024"
    config.model.normalise = "none"


def paper(config):
    """The code of 2022."""
    decoder2022(config)
    config.data.holdout = 0.0
    config.train.epochs = 200
    config.evaluate.protocol = "anovit"


def reference(config):
    """The code of 2024."""
    decoder2024(config)
    config.data.holdout = 0.0
    config.train.betas = (0.5, 0.999)
    config.evaluate.protocol = "anovit"
