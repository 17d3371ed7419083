"""Files of PyTorch weights that look alike, told apart by keys that only one kind has."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable

KINDS: tuple[tuple[str, str], ...] = (
    ("visual.conv1.weight", "a CLIP of OpenAI or OpenCLIP"),
    ("*vision_model.embeddings.*", "a CLIP or SigLIP of Hugging Face"),
    ("*blocks.*.ls1.gamma", "a DINOv2, or another ViT with layer scale"),
    ("*encoder.layer.*.layer_scale1.lambda1", "a DINOv2 of Hugging Face"),
    ("*lambda_1", "a BEiT of Hugging Face"),
    ("*blocks.*.gamma_1", "a BEiT or CaiT"),
    ("*relative_position_bias_table", "a Swin transformer"),
    ("*embeddings.distillation_token", "a distilled DeiT of Hugging Face"),
    ("encoder.layers.encoder_layer_0.*", "a ViT of torchvision"),
    ("dist_token", "a distilled DeiT (it has a second token beside the class token)"),
    ("*reg_token", "a ViT with register tokens"),
    ("layer1.0.conv3.weight", "a ResNet of bottleneck blocks (ResNet50 and larger)"),
    ("layer1.2.conv1.weight", "a ResNet34"),
    ("blocks.*.conv_pw.weight", "an EfficientNet or MobileNet of timm"),
    ("features.*.block.*.0.weight", "an EfficientNet or MobileNet of torchvision"),
    ("stages.*.blocks.*.conv_dw.weight", "a ConvNeXt of timm"),
    ("conv_encoder.*", "a VAE of vae_grf or VAE-compare, whose encoder is no trunk alone"),
)
"""Pattern of a key (``*`` is anything) and what has it, the more specific first."""


def kind_of(keys: Iterable[str]) -> str:
    """What a file looks like by its keys, with an article; empty where it is no known kind."""
    keys = list(keys)
    return next((what for pattern, what in KINDS if fnmatch.filter(keys, pattern)), "")
