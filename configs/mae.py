r"""Masked autoencoder with a sliding mask (He et al. 2022; Dini and Rahtu 2024).

    jaxad train --workdir=RUN --config=mae:small \
        --config.data.root=DIR --config.data.category=bottle

docs/results/mae_schedules.md compares the schedules of masks and says what training adds.

Variants
  small     128 x 128, patches of 8, 6 blocks of 192 features: minutes on 2 CPU cores
  medium    224 x 224, patches of 16, 8 blocks of 384 features, 1000 steps of 32: half an hour to an
            hour on 2 CPU cores
  fast      four random masks of three quarters of the patches instead of one mask per block (64
            passes): 38 times as fast, and at least as good on what was measured; can also be set
            after training
  b16       ViT-B/16 at 224 x 224, the published sizes (the default)
  l16       ViT-L/16
  h14       ViT-H/14
  paper     the detection of 2024: ViT-H/14, every block of 2 x 2 patches in turn; converted
            weights are the model as they are, nothing is trained
  reference the recipe that the code of 2022 gives for training: ViT-L/16, norm_pix, batches of
            4096, AdamW with betas 0.9 and 0.95, 40 epochs of warm-up, random crops, no decay of
            biases and normalisations

The published networks come from converted weights, --config.train.weights=DIR, made by
`jaxad convert --from=mae`; `paper` needs them, and --config.train.optimizer=none takes those of any
size as they are.
"""

from jaxad.run.config import apply_variants

from . import common


def get_config(variants: str = ""):
    """The config of ``mae``."""
    config = common.get_config("mae")
    config.data.image_size = (224, 224)
    config.train.batch_size = 32
    config.train.optimizer = "adamw"
    config.train.learning_rate = 1.5e-4
    config.train.weight_decay = 0.05
    config.train.schedule = "cosine"
    config.train.warmup_steps = 100
    config.train.epochs = 800
    config.evaluate.primary_map = "ssim+l1"
    config.evaluate.primary_score = "ssim+l1:mean"
    known = {
        "small": small,
        "medium": medium,
        "fast": fast,
        "b16": b16,
        "l16": l16,
        "h14": h14,
        "paper": paper,
        "reference": reference,
    }
    sizes = ("small", "medium", "b16", "l16", "h14")
    return apply_variants(config, variants, known, exclusive=[sizes])


def small(config):
    """The same architecture, reduced."""
    config.data.image_size = (128, 128)
    config.model.patch = 8
    config.model.features = 192
    config.model.depth = 6
    config.model.heads = 3
    config.model.decoder_features = 128
    config.model.decoder_depth = 2
    config.model.decoder_heads = 2
    config.train.optimizer = "adamw"  # no public weights have this size: it is trained
    config.train.learning_rate = 1e-3
    config.train.steps = 3000


def medium(config):
    """The published size of images and patches, half its features; trained from scratch."""
    config.data.image_size = (224, 224)
    config.model.patch = 16
    config.model.features = 384
    config.model.depth = 8
    config.model.heads = 6
    config.model.decoder_features = 256
    config.model.decoder_depth = 4
    config.model.decoder_heads = 8
    config.train.optimizer = "adamw"  # no public weights have this size: it is trained
    config.train.learning_rate = 5e-4
    config.train.steps = 1000


def fast(config):
    """Few passes with masks as in training; every patch is masked at least once."""
    config.model.schedule = "random"
    config.model.passes = 4
    config.model.block = 1


def b16(config):
    """ViT-B/16."""
    config.model.patch = 16
    config.model.features = 768
    config.model.depth = 12
    config.model.heads = 12


def l16(config):
    """ViT-L/16."""
    config.model.patch = 16
    config.model.features = 1024
    config.model.depth = 24
    config.model.heads = 16


def h14(config):
    """ViT-H/14."""
    config.model.patch = 14
    config.model.features = 1280
    config.model.depth = 32
    config.model.heads = 16


def paper(config):
    """ViT-H/14 as it was published, raw maps, image scores by their mean."""
    h14(config)
    config.train.optimizer = "none"
    config.data.holdout = 0.0
    config.evaluate.smoothing = 0.0
    config.evaluate.protocol = "mae"


def reference(config):
    """The public code's command for pre-training."""
    l16(config)
    config.model.norm_pix = True
    config.augment.flip_left_right = True
    config.augment.crop = 0.2
    config.train.warmup_epochs = 40
    config.train.decay_vectors = False
    config.train.batch_size = 4096
    config.train.accumulate = 64
    config.train.betas = (0.9, 0.95)
    config.train.learning_rate = 2.4e-3  # 1.5e-4 for every 256 images of a batch
