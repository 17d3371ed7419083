r"""Vision transformer with a memory and coordinate attention (Yang and Guo, Sensors 2024).

    jaxad train --workdir=RUN --config=vit_memory:small \
        --config.data.root=DIR --config.data.category=bottle

The ablation of table 6 is one command (on 2 CPU cores put ``small`` before each variant):

    jaxad benchmark --workdir=RUNS --config.data.root=DIR --categories=bottle,transistor \
        --configs vit_memory:base vit_memory:base_m vit_memory:base_ca vit_memory:base_m_ca

Variants
  small      128 x 128, patches of 8, 4 blocks of 192 features: minutes on 2 CPU cores
  medium     384 x 384, 6 blocks of 384 features, half the decoder, 800 steps of 8: half an hour to
             an hour on 2 CPU cores
  base       neither memory nor attention
  base_m     memory
  base_ca    coordinate attention
  base_m_ca  both (the default)
  before     the attention between encoder and memory (section 3.3) instead of after the memory
  memae      memory as in MemAE's code: dot product, threshold 5 / N, entropy weight 2e-4 (with
             small, on transistor, it collapsed to one item)
  paper      as the paper: 384 x 384, 768 features, 8 heads, Adam 2e-4, 200 epochs
  reference  the same; no public code of the paper is known
"""

from jaxad.run.config import apply_variants

from . import common


def get_config(variants: str = ""):
    """The config of ``vit_memory``."""
    config = common.get_config("vit_memory")
    config.data.image_size = (384, 384)
    config.train.batch_size = 8
    config.train.learning_rate = 2e-4
    config.train.epochs = 200
    config.evaluate.smoothing = 4.0  # the paper is silent on sigma
    config.evaluate.primary_map = "anomaly"
    config.evaluate.primary_score = "anomaly:max"
    known = {
        "small": small,
        "medium": medium,
        "base": base,
        "base_m": base_m,
        "base_ca": base_ca,
        "base_m_ca": base_m_ca,
        "before": before,
        "memae": memae,
        "paper": paper,
        "reference": paper,
    }
    parts = ("base", "base_m", "base_ca", "base_m_ca", "before")
    without_memory = [("base", "memae"), ("base_ca", "memae")]
    return apply_variants(config, variants, known, exclusive=[parts, *without_memory])


def small(config):
    """The same architecture, reduced."""
    config.data.image_size = (128, 128)
    config.model.patch = 8
    config.model.features = 192
    config.model.depth = 4
    config.model.heads = 4
    config.model.width = 0.5
    if config.model.memory_items:
        config.model.memory_items = 200
    config.train.learning_rate = 1e-3
    config.train.schedule = "cosine"
    config.train.warmup_steps = 100
    config.train.steps = 800
    config.evaluate.smoothing = 2.0


def medium(config):
    """The paper's size of images and patches, half its features and decoder."""
    config.data.image_size = (384, 384)
    config.model.features = 384
    config.model.depth = 6
    config.model.heads = 8
    config.model.width = 0.5
    config.train.learning_rate = 5e-4
    config.train.schedule = "cosine"
    config.train.warmup_steps = 100
    config.train.steps = 800


def base(config):
    """Encoder and decoder."""
    config.model.memory_items = 0
    config.model.attention = "none"


def base_m(config):
    """Memory."""
    config.model.attention = "none"


def base_ca(config):
    """Coordinate attention."""
    config.model.memory_items = 0


def base_m_ca(config):
    """Memory and coordinate attention."""
    config.model.attention = "after"


def before(config):
    """Coordinate attention, then memory."""
    config.model.attention = "before"


def memae(config):
    """Memory as in MemAE's code."""
    config.model.similarity = "dot"
    config.model.shrink = 5.0
    config.model.entropy_weight = 2e-4


def paper(config):
    """The paper's protocol."""
    config.data.holdout = 0.0
    config.evaluate.protocol = "vit_memory"
