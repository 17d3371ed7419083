"""VQ-VAE whose anomaly map is dissimilarity times alignment of the discrete latent code.

Source: H. Gangloff, M.-T. Pham, L. Courtrai, S. Lefevre, "Leveraging Vector-Quantized Variational
Autoencoder Inner Metrics for Anomaly Detection", ICPR 2022. Equation numbers are the paper's.

Encoder: three times a 4x4 convolution of stride 2, ReLU and batch normalisation (twice for small
images: ``downsampling=2``), then three residual layers (ReLU, 3x3, ReLU, 1x1), with 256 channels
throughout, so that 256 x 256 images have 32 x 32 latents. The codebook has 512 codes of 256
values. The decoder mirrors the encoder. The likelihood is the continuous Bernoulli, and the
reconstruction is its mean.

Loss of one image (eq. 4, where a minus sign before log p is missing in print)::

    -log p(x | e) + || sg[z] - e ||^2 + beta || z - sg[e] ||^2

with sums over pixels, positions and channels, all divided by the number of pixel values h w c.
Adam is not affected by this constant; it makes losses of different image sizes comparable.

Maps: ``ssim`` = 1 - SSIM (eq. 5 prints SSIM itself), mean over channels; ``am``, the alignment map
(eq. 6): the squared distance of each latent to its code, repeated to image size; ``ssim*am``,
their product after grey dilation of the alignment map. With ``dilate_ssim``, as for UCSD, the map
``ssim`` is dilated too, by itself and in the product.
The image score is the mean of a map, as for CIFAR-10.

Where the paper is silent, and what is done here:

* beta is 0.25, and there is no ReLU between encoder and codebook (van den Oord et al. 2017 use
  0.25).
* The decoder too has ReLU before batch normalisation; the image itself is not normalised; all
  convolutions have biases.
* Residual layers add to their own input (``x + f(x)``), and a ReLU follows the decoder's stack.
* Codes start at the k-means centres of the untrained encoder's latents of training images. From
  random codes, a handful attract everything, and the rest are never chosen and never move.
* The alignment map is enlarged by repetition, the footprint of the dilation is one latent cell,
  and SSIM has a uniform window of 11 with the sample covariance, as in the group's later code.
  Eq. 5 prints the constants c1 = 0.01 and c2 = 0.03 where SSIM's authors square them; the default
  is the square, 1e-4 and 9e-4, as in that code (``ssim_constants``).
* The codebook is learned by gradient as in eq. 4 or, with ``codebook="ema"``, by exponential
  moving averages (van den Oord et al. 2017, appendix A.1), with counts and sums reduced over all
  devices.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int, Key, Shaped

from jaxad.data.batch import Batch
from jaxad.models.base import (
    Detection,
    LossOutput,
    Model,
    ModelOptions,
    Variables,
    apply,
    apply_for_loss,
    dtype_option,
    label_subtrees,
    ssim_window_option,
    to_unit_float,
)
from jaxad.models.layers.basic import BatchNorm, Conv, ConvTranspose
from jaxad.models.layers.codebook_start import codes_by_k_means
from jaxad.ops import continuous_bernoulli
from jaxad.ops.arrays import AnyArray
from jaxad.ops.morphology import grey_dilation
from jaxad.ops.resize import repeat_upsample
from jaxad.ops.ssim import ssim_map
from jaxad.ops.vector_quantisation import (
    CodeAverages,
    Quantisation,
    code_counts_and_sums,
    ema_update,
    init_averages,
    quantise,
)
from jaxad.run.options import option


@dataclasses.dataclass(frozen=True)
class VQVAEOptions(ModelOptions):
    """Options of ``vqvae``."""

    downsampling: int = option(3, "halvings of the side; 2 for small images", at_least=1)
    features: int = option(256, "width of every layer and length of a code", at_least=1)
    codes: int = option(512, "size of the codebook", at_least=1)
    residual_layers: int = option(3, "on each side", at_least=0)
    beta: float = option(0.25, "weight of the commitment term; the paper is silent", at_least=0)
    codebook: str = option(
        "gradient", "how it is learned; the paper: gradient", choices=("gradient", "ema")
    )
    decay: float = option(0.99, "of the moving averages (ema)", at_least=0, below=1)
    ssim_window: int = ssim_window_option(detection_only=True)
    dilation: int = option(
        0,
        "side of the grey dilation in pixels; 0: a latent cell; an even one moves the map by half",
        at_least=0,
        detection_only=True,
    )
    dilate_ssim: bool = option(False, "dilate the SSIM map too, as for UCSD", detection_only=True)
    ssim_constants: tuple[float, float] = option(
        (1e-4, 9e-4), "c1 and c2 of SSIM; eq. 5 prints 0.01,0.03", above=0, detection_only=True
    )
    ssim_channels: str = option(
        "mean",
        "how 1 - SSIM of the channels is joined; the group's later code: product",
        choices=("mean", "product"),
        detection_only=True,
    )
    dtype: str = dtype_option("of the convolutions")


class ResidualLayer(nn.Module):
    """``x + conv1x1(relu(conv3x3(relu(x))))`` at constant width."""

    features: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[AnyArray, "b h w d"]) -> Float[Array, "b h w d"]:
        """Adds the layer's correction."""
        x = jnp.asarray(x)
        y = Conv(self.features, (3, 3), dtype=self.dtype)(nn.relu(x))
        return x + Conv(self.features, (1, 1), dtype=self.dtype)(nn.relu(y))


class VQVAE(nn.Module):
    """Encoder, codebook and decoder.

    Attributes:
      channels: of the images.
      downsampling: number of halvings.
      features: width of every layer and length of a code.
      codes: size of the codebook.
      residual_layers: on each side.
      codebook_by_gradient: False keeps the codebook out of the parameters (moving averages).
      axis_name: mapped axis for batch statistics.
      dtype: of the computation; parameters, normalisation and distances are float32.
    """

    channels: int
    downsampling: int = 3
    features: int = 256
    codes: int = 512
    residual_layers: int = 3
    codebook_by_gradient: bool = True
    axis_name: str | None = None
    dtype: Any = jnp.float32

    def setup(self):
        """Declares the layers and the codebook."""
        n, f, dtype = self.downsampling, self.features, self.dtype
        self.down = [Conv(f, (4, 4), strides=2, dtype=dtype) for _ in range(n)]
        self.down_norm = [BatchNorm(axis_name=self.axis_name, dtype=dtype) for _ in range(n)]
        self.encoder_residual = [ResidualLayer(f, dtype) for _ in range(self.residual_layers)]
        self.decoder_residual = [ResidualLayer(f, dtype) for _ in range(self.residual_layers)]
        self.up = [ConvTranspose(f, (4, 4), strides=2, dtype=dtype) for _ in range(n - 1)]
        self.up_norm = [BatchNorm(axis_name=self.axis_name, dtype=dtype) for _ in range(n - 1)]
        self.to_image = ConvTranspose(self.channels, (4, 4), strides=2, dtype=dtype)
        shape, draw = (self.codes, self.features), nn.initializers.normal(1.0)
        if self.codebook_by_gradient:
            self.codebook = self.param("codebook", draw, shape)
        else:
            own = lambda name, start: self.variable("codebook", name, start)
            self.moving_codes = own("codes", lambda: draw(self.make_rng("params"), shape))
            start = lambda: init_averages(self.moving_codes.value)
            self.moving_counts = own("counts", lambda: start().counts)
            self.moving_sums = own("sums", lambda: start().sums)

    def code_vectors(self) -> Float[Array, "k d"]:
        """The codebook."""
        return self.codebook if self.codebook_by_gradient else self.moving_codes.value

    def encode(self, images: Float[AnyArray, "b h w c"], *, train: bool) -> Float[Array, "b i j d"]:
        """Latents before quantisation, float32."""
        x = jnp.asarray(images)
        for conv, norm in zip(self.down, self.down_norm, strict=True):
            x = norm(nn.relu(conv(x)), train=train)
        for layer in self.encoder_residual:
            x = layer(x)
        return x.astype(jnp.float32)

    def decode(self, latents: Float[Array, "b i j d"], *, train: bool) -> Float[Array, "b h w c"]:
        """Logits of the continuous Bernoulli, float32."""
        x = latents
        for layer in self.decoder_residual:
            x = layer(x)
        x = nn.relu(x)
        for conv, norm in zip(self.up, self.up_norm, strict=True):
            x = norm(nn.relu(conv(x)), train=train)
        return self.to_image(x).astype(jnp.float32)

    def __call__(
        self, images: Float[AnyArray, "b h w c"], *, train: bool = False
    ) -> tuple[Float[Array, "b h w c"], Quantisation, Float[Array, "b i j d"]]:
        """Logits, the quantisation and the latents before it, of images in [0, 1]."""
        latents = self.encode(images, train=train)
        quantised = quantise(latents, self.code_vectors())
        return self.decode(quantised.quantised, train=train), quantised, latents

    def update_averages(
        self, latents: Float[Array, "b i j d"], indices: Int[Array, "b i j"], decay: float
    ) -> None:
        """One step of the moving averages, from the latents of the whole global batch."""
        counts, sums = code_counts_and_sums(latents, indices, self.codes)
        if self.axis_name:
            # Reduced before the decay: the decayed averages of parts are not those of the whole.
            counts, sums = jax.lax.psum((counts, sums), self.axis_name)
        averages = CodeAverages(self.moving_counts.value, self.moving_sums.value)
        averages, codes = ema_update(averages, counts, sums, decay=decay)
        self.moving_counts.value, self.moving_sums.value = averages
        self.moving_codes.value = codes


def forward(
    module: VQVAE, images: Float[AnyArray, "b h w c"], train: bool, *, decay: float
) -> tuple[Float[Array, "b h w c"], Quantisation]:
    """Logits and codes; in training, a codebook of moving averages takes its step."""
    logits, quantised, latents = module(images, train=train)
    if train and not module.codebook_by_gradient:
        module.update_averages(latents, quantised.indices, decay)
    return logits, quantised


def loss(
    module: VQVAE,
    variables: Variables,
    batch: Batch,
    keys: Key[Array, " b"],
    train: bool,
    *,
    beta: float,
    decay: float,
) -> LossOutput:
    """Eq. 4 over the number of pixel values, and how often each code was chosen."""
    del keys  # nothing is drawn
    images = to_unit_float(batch.image)
    step = functools.partial(forward, decay=decay)
    (logits, quantised), collections = apply_for_loss(step, module, variables, images, train=train)
    values = math.prod(images.shape[1:])
    log_likelihood = continuous_bernoulli.log_likelihood(images, logits)
    nll = -jnp.sum(log_likelihood, axis=(1, 2, 3)) / values
    commitment = jnp.sum(quantised.commitment_loss, axis=(1, 2)) / values
    per_example = nll + beta * commitment
    terms = {"nll": nll, "commitment": commitment}
    if module.codebook_by_gradient:
        terms["codebook"] = jnp.sum(quantised.codebook_loss, axis=(1, 2)) / values
        per_example = per_example + terms["codebook"]
    sums = {"codes": count_codes(module, quantised)}
    return LossOutput(per_example, terms, dict(collections), sums, {})


def detect(
    module: VQVAE,
    variables: Variables,
    images: Shaped[AnyArray, "b h w c"],
    *,
    options: VQVAEOptions,
) -> Detection:
    """The maps of the head of this file."""
    images = to_unit_float(images)
    logits, quantised, _ = apply(module, variables, images)
    reconstruction = continuous_bernoulli.mean(logits)
    k1, k2 = map(math.sqrt, options.ssim_constants)
    similarity = ssim_map(images, reconstruction, window_size=options.ssim_window, k1=k1, k2=k2)
    over_channels = jnp.prod if options.ssim_channels == "product" else jnp.mean
    ssim = over_channels(1.0 - similarity, axis=-1)
    cell = 2**module.downsampling
    alignment = repeat_upsample(quantised.squared_distance, cell)
    dilate = functools.partial(grey_dilation, size=options.dilation or cell)
    if options.dilate_ssim:
        ssim = dilate(ssim)
    product = ssim * dilate(alignment)
    return Detection({"ssim": ssim, "am": alignment, "ssim*am": product}, {}, reconstruction)


def count_codes(module: VQVAE, quantised: Quantisation) -> Float[Array, " k"]:
    """How often each code was chosen."""
    return jnp.zeros(module.codes).at[quantised.indices.ravel()].add(1.0)


def build(
    image_shape: tuple[int, int, int], options: VQVAEOptions, *, axis_name: str | None = None
) -> Model:
    """Builds ``vqvae``.

    Args:
      image_shape: ``(h, w, c)``, sides divisible by ``2 ** downsampling``.
      options: of the model.
      axis_name: the mapped axis over which batch statistics and code counts are reduced.

    Raises:
      ValueError: options that do not fit together, or the images.
    """
    h, w, c = image_shape
    cell = 2**options.downsampling
    if h % cell or w % cell:
        raise ValueError(
            f"images of {h} x {w} cannot be halved {options.downsampling} times; set "
            f"data.image_size to multiples of {cell}"
        )
    module = VQVAE(
        c,
        options.downsampling,
        options.features,
        options.codes,
        options.residual_layers,
        options.codebook == "gradient",
        axis_name,
        jnp.dtype(options.dtype),
    )

    def init(key: Key[Array, ""]) -> Variables:
        return module.init(key, jnp.zeros((1, h, w, c)))

    return Model(
        module=module,
        image_shape=image_shape,
        init=init,
        loss=functools.partial(loss, module, beta=options.beta, decay=options.decay),
        detect=functools.partial(detect, module, options=options),
        param_labels=functools.partial(label_subtrees, codebook="codebook"),
        initialise=functools.partial(start_codebook, module),
        diagnostics=functools.partial(code_use, module),
    )


def start_codebook(module: VQVAE, variables: Variables, batches: Iterable[Batch]) -> Variables:
    """The variables with a codebook clustered from the untrained encoder's latents."""
    alone = module.clone(axis_name=None)
    encode = jax.jit(
        lambda v, x: alone.apply(
            v, to_unit_float(x), train=True, mutable=True, method=VQVAE.encode
        )[0]
    )
    centres = codes_by_k_means(lambda x: encode(variables, x), batches, module.codes)
    return set_codes(variables, centres)


def code_use(
    module: VQVAE, variables: Variables, images: Shaped[AnyArray, "b h w c"]
) -> dict[str, Array]:
    """``code_indices`` ``(b, h', w')`` and ``code_counts`` ``(codes,)`` over the batch."""
    _, quantised, _ = apply(module, variables, to_unit_float(images))
    counts = count_codes(module, quantised)
    return {"code_indices": quantised.indices, "code_counts": counts}


def set_codes(variables: Variables, centres: Float[Array, "k d"]) -> Variables:
    """The same variables with this codebook."""
    if "codebook" in variables["params"]:
        return {**variables, "params": {**variables["params"], "codebook": centres}}
    averages = init_averages(centres)
    # A copy: a buffer that stands twice in a state cannot be donated.
    moving = {"codes": centres, "counts": averages.counts, "sums": jnp.copy(averages.sums)}
    return {**variables, "codebook": moving}
