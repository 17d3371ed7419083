"""Two-dimensional convolutions that are fast on CPU, gradients included.

:func:`conv`, :func:`depthwise_conv` and :func:`conv_transpose` equal ``lax.conv_general_dilated``
(of feature groups) and ``lax.conv_transpose`` in value, in parameters and in every gradient; only
the arithmetic that computes them differs, and only on CPU. There XLA runs a plain forward
convolution at the speed of a matrix product, but a convolution over a dilated input (the value of a
transposed convolution, the input gradient of a strided one) multiplies the zeros between the
samples, kernel gradients become convolutions with image-sized windows, and a depthwise convolution
is done number by number. So on CPU

* a convolution over an input dilated by ``s`` is done in sub-pixel form: one plain convolution for
  each of the ``s x s`` output phases, each with every ``s``-th tap of the kernel, interleaved
  (Shi et al., "Is the deconvolution layer the same as a convolutional layer?", 2016);
* a kernel gradient is a sum over positions of an outer product, that is one matrix product for
  each kernel row between the shifted inputs and the cotangent;
* a depthwise convolution is a sum over the taps of the kernel, each a shifted input times one
  number per channel, which XLA makes one loop of.

Other platforms get XLA's own gradients. The choice is made when a computation is lowered
(``jax.lax.platform_dependent``), so one traced function serves every device.

All have a ``custom_vjp``: reverse-mode derivatives of any order are right, forward
mode (``jax.jvp``, ``jax.jacfwd``) raises a TypeError.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Pair = tuple[int, int]
Pads = tuple[Pair, ...]
"""(before, after) of rows and of columns."""
Padding = str | Sequence[Sequence[int]]

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def conv(
    x: Float[Array, "b h w ci"],
    kernel: Float[Array, "kh kw ci co"],
    *,
    stride: int | Pair = 1,
    padding: Padding = "SAME",
) -> Float[Array, "b h2 w2 co"]:
    """Convolution (cross-correlation, as in every deep-learning library).

    Equals ``lax.conv_general_dilated(x, kernel, (s, s), padding)`` in NHWC / HWIO.

    Args:
      x: ``(b, h, w, ci)``.
      kernel: ``(kh, kw, ci, co)``, of the dtype of ``x``.
      stride: step between outputs, one number or one for each axis.
      padding: ``"SAME"``, ``"VALID"`` or ``((top, bottom), (left, right))``.

    Returns:
      ``(b, h', w', co)``.

    Raises:
      ValueError: for a stride below 1, or a padding that is neither a known name nor two pairs.
    """
    strides = _strides(stride)
    return _conv(x, kernel, strides, _pads(x, kernel, strides, padding))


def depthwise_conv(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "kh kw 1 c"],
    *,
    stride: int | Pair = 1,
    padding: Padding = "SAME",
) -> Float[Array, "b h2 w2 c"]:
    """Convolution of every channel with a kernel of its own.

    Equals ``lax.conv_general_dilated(x, kernel, (s, s), padding, feature_group_count=c)`` in
    NHWC / HWIO.

    Args:
      x: ``(b, h, w, c)``.
      kernel: ``(kh, kw, 1, c)``, of the dtype of ``x``.
      stride: as of :func:`conv`.
      padding: as of :func:`conv`; ``"SAME"`` pads as TensorFlow does, at stride 2 one row and
        column more after an image of even sides than before it.

    Returns:
      ``(b, h', w', c)``.

    Raises:
      ValueError: for a stride below 1, or a padding that is neither a known name nor two pairs.
    """
    strides = _strides(stride)
    return _depthwise(x, kernel, strides, _pads(x, kernel, strides, padding))


def conv_transpose(
    x: Float[Array, "b h w ci"],
    kernel: Float[Array, "kh kw ci co"],
    *,
    stride: int | Pair = 2,
    padding: Padding = "SAME",
) -> Float[Array, "b h2 w2 co"]:
    """Transposed convolution: a convolution over ``x`` with ``stride - 1`` zeros between samples.

    Equals ``lax.conv_transpose(x, kernel, (s, s), padding)`` in NHWC / HWIO, and thereby linen's
    ``ConvTranspose`` with its default ``transpose_kernel=False``.

    Args:
      x: ``(b, h, w, ci)``.
      kernel: ``(kh, kw, ci, co)``, of the dtype of ``x``.
      stride: magnification, one number or one for each axis.
      padding: ``"SAME"`` (output ``s h x s w``), ``"VALID"``, or ``((top, bottom), (left,
        right))`` around the dilated input. PyTorch's padding ``p`` is ``k - 1 - p`` here.

    Returns:
      ``(b, h', w', co)``.

    Raises:
      ValueError: for a stride below 1, or a padding that is neither a known name nor two pairs.
    """
    strides = _strides(stride)
    if isinstance(padding, str):
        name = _named(padding)
        rows, columns = (
            _transposed_pads(k, s, name) for k, s in zip(kernel.shape[:2], strides, strict=True)
        )
        return _conv_transpose(x, kernel, strides, (rows, columns))
    return _conv_transpose(x, kernel, strides, _as_pads(padding))


# Arithmetic.


def _strided(x: Array, kernel: Array, strides: Pair, pads: Pads) -> Array:
    """A forward convolution; negative padding crops."""
    x, pads = _crop(x, pads)
    return lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=_LAYOUT)


def _grouped(x: Array, kernel: Array, strides: Pair, pads: Pads) -> Array:
    """A depthwise convolution, as XLA has it; negative padding crops."""
    x, pads = _crop(x, pads)
    return lax.conv_general_dilated(
        x, kernel, strides, pads, dimension_numbers=_LAYOUT, feature_group_count=x.shape[3]
    )


def _tap_by_tap(x: Array, kernel: Array, strides: Pair, pads: Pads) -> Array:
    """:func:`_grouped` as a sum over the taps; XLA makes one loop of it."""
    kh, kw = kernel.shape[:2]
    wide = jnp.promote_types(x.dtype, jnp.float32)
    out = tuple(
        (n + sum(p) - k) // s + 1
        for n, p, k, s in zip(x.shape[1:3], pads, (kh, kw), strides, strict=True)
    )
    total = jnp.zeros((x.shape[0], *out, x.shape[3]), wide)
    for (i, j), tap in _shifted(x, out, (kh, kw), strides, pads):
        total += tap.astype(wide) * kernel[i, j].astype(wide)[None, None]
    return total.astype(x.dtype)


def _depthwise_kernel_gradient(
    x: Array, cotangent: Array, size: Sequence[int], strides: Pair, pads: Pads
) -> Array:
    """The gradient of :func:`_grouped` with respect to its kernel: a sum over positions a tap."""
    wide = jnp.promote_types(x.dtype, jnp.float32)
    sums = [
        jnp.sum(tap.astype(wide) * cotangent.astype(wide), axis=(0, 1, 2))
        for _, tap in _shifted(x, cotangent.shape[1:3], size, strides, pads)
    ]
    return jnp.stack(sums).reshape(*size, 1, x.shape[3]).astype(x.dtype)


def _shifted(
    x: Array, out: Sequence[int], size: Sequence[int], strides: Pair, pads: Pads
) -> Iterator[tuple[Pair, Array]]:
    """For every tap of a kernel the inputs that it meets, ``(b, *out, c)``."""
    x, pads = _crop(x, pads)
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    b, c = x.shape[0], x.shape[3]
    stops = tuple((n - 1) * s + 1 for n, s in zip(out, strides, strict=True))
    for i, j in itertools.product(range(size[0]), range(size[1])):
        yield (
            (i, j),
            lax.slice(x, (0, i, j, 0), (b, i + stops[0], j + stops[1], c), (1, *strides, 1)),
        )


def _dilated(x: Array, kernel: Array, strides: Pair, pads: Pads) -> Array:
    """A convolution over ``x`` with ``s - 1`` zeros between samples, as XLA has it."""
    return lax.conv_general_dilated(
        x, kernel, (1, 1), pads, lhs_dilation=strides, dimension_numbers=_LAYOUT
    )


def _sub_pixel(x: Array, kernel: Array, strides: Pair, pads: Pads) -> Array:
    """:func:`_dilated` as one plain convolution per output phase, interleaved.

    Output ``o = s q + r`` reads the dilated input at ``o + k - before``; that is a sample, number
    ``(o + k - before) / s``, only for the taps ``k`` congruent to ``before - r`` modulo ``s``. So
    phase ``r`` is a convolution of ``x`` with these taps.
    """
    # With few output channels (an image) a phase is too thin a matrix product to be worth it.
    if strides != (1, 1) and kernel.shape[3] < _FEW_CHANNELS:
        return _dilated(x, kernel, strides, pads)
    return _by_phases(_strided, x, kernel, strides, pads)


def _by_phases(
    convolve: Callable[..., Array], x: Array, kernel: Array, strides: Pair, pads: Pads
) -> Array:
    """A convolution over ``x`` with ``s - 1`` zeros between samples, from plain ones.

    ``convolve(x, kernel, (1, 1), pads)`` is the plain one.
    """
    if strides == (1, 1):
        return convolve(x, kernel, strides, pads)
    size = tuple(
        (n - 1) * s + 1 + sum(p) - k + 1
        for n, s, p, k in zip(x.shape[1:3], strides, pads, kernel.shape[:2], strict=True)
    )
    rows, columns = (
        [_phase(r, *of_axis) for r in range(of_axis[1])]
        for of_axis in zip(x.shape[1:3], strides, pads, kernel.shape[:2], size, strict=True)
    )
    b, co = x.shape[0], kernel.shape[3]
    height, width = rows[0][1], columns[0][1]
    phases = []
    for row_taps, _, row_pads in rows:
        for column_taps, _, column_pads in columns:
            taps = kernel[row_taps, column_taps]
            if 0 in taps.shape:
                # A stride larger than the kernel leaves phases that read zeros only.
                phases.append(jnp.zeros((b, height, width, co), x.dtype))
            else:
                phases.append(convolve(x, taps, (1, 1), (row_pads, column_pads)))
    s_rows, s_columns = strides
    stacked = jnp.stack(phases).reshape(s_rows, s_columns, b, height, width, co)
    interleaved = stacked.transpose(2, 3, 0, 4, 1, 5).reshape(
        b, height * s_rows, width * s_columns, co
    )
    return interleaved[:, : size[0], : size[1]]


def _phase(r: int, n: int, s: int, pads: Pair, k: int, size: int) -> tuple[slice, int, Pair]:
    """Taps, length and padding of the convolution that makes outputs ``r``, ``r + s``, ....

    Every phase has the length of the first; what this adds at the end is cut after interleaving.
    """
    first = (pads[0] - r) % s
    count = len(range(first, k, s))
    shift = (r + first - pads[0]) // s
    length = -(-size // s)
    return slice(first, None, s), length, (-shift, length - 1 + count - 1 + shift - (n - 1))


def _kernel_gradient(
    x: Array, cotangent: Array, size: Sequence[int], strides: Pair, pads: Pads
) -> Array:
    """The gradient of :func:`_strided` with respect to its kernel.

    ``gradient[i, j] = sum over (b, q, r) of x[b, s q + i, s r + j, :] cotangent[b, q, r, :]^T``

    One matrix product for each tap costs a copy of the input for each tap, which pays when the
    cotangent has many channels; a thin input is first gathered to patches, so that the product is
    not thin too; in between XLA's own form is the fastest.
    """
    ci, co = x.shape[3], cotangent.shape[3]
    if size != (1, 1) and co < _MANY_CHANNELS:
        kernel = jax.ShapeDtypeStruct((*size, ci, co), x.dtype)
        return jax.linear_transpose(lambda kernel: _strided(x, kernel, strides, pads), kernel)(
            cotangent
        )[0]
    shifted = [tap for _, tap in _shifted(x, cotangent.shape[1:3], size, strides, pads)]
    over_positions = (((0, 1, 2), (0, 1, 2)), ((), ()))
    if ci < _THIN:
        patches = jnp.concatenate(shifted, axis=3)
        return lax.dot_general(patches, cotangent, over_positions).reshape(*size, ci, co)
    # The product with the cotangent on the left is up to twice as fast; the barrier keeps XLA from
    # folding the transposition of its small result into it.
    products = [
        lax.optimization_barrier(lax.dot_general(cotangent, tap, over_positions)).T
        for tap in shifted
    ]
    return jnp.stack(products).reshape(*size, ci, co)


# Channel counts at which one form overtakes another, measured with AVX-512 on two cores. They
# decide the speed only.
_FEW_CHANNELS = 16
_THIN = 32
_MANY_CHANNELS = 128


# The functions with their derivatives. A strided convolution and a convolution over a dilated
# input are each other's input gradient, with the kernel turned around; see `_turned`.


Convolution = Callable[[Array, Array, Pair, Pads], Array]
"""Of an input and a kernel, with strides and padding in numbers."""

Gradients = Callable[[Array, Array, Array, Pair, Pads], tuple[Array, Array]]
"""Those of input and kernel, from both, the output's cotangent, strides and padding."""


def _with_forms(native: Convolution, on_cpu: Convolution, gradients: Gradients) -> Convolution:
    """A convolution that a CPU computes, and differentiates, in other forms than XLA's own.

    Args:
      native: as XLA has it, on all other platforms; its gradients are those that XLA makes of it.
      on_cpu: equal to it in value; may be the same.
      gradients: those of a CPU, equal to XLA's.
    """

    @functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
    def convolve(x: Array, kernel: Array, strides: Pair, pads: Pads) -> Array:
        if on_cpu is native:  # of which one copy is enough
            return native(x, kernel, strides, pads)
        return lax.platform_dependent(
            x,
            kernel,
            cpu=lambda x, kernel: on_cpu(x, kernel, strides, pads),
            default=lambda x, kernel: native(x, kernel, strides, pads),
        )

    def forward(x, kernel, strides, pads):
        return convolve(x, kernel, strides, pads), (x, kernel)

    def backward(strides, pads, residuals, cotangent):
        def pulled(x, kernel, cotangent):
            _, pull = jax.vjp(lambda x, kernel: native(x, kernel, strides, pads), x, kernel)
            return pull(cotangent)

        return lax.platform_dependent(
            *residuals,
            cotangent,
            cpu=lambda x, kernel, cotangent: gradients(x, kernel, cotangent, strides, pads),
            default=pulled,
        )

    convolve.defvjp(forward, backward)
    return convolve


def _conv_gradients(
    x: Array, kernel: Array, cotangent: Array, strides: Pair, pads: Pads
) -> tuple[Array, Array]:
    back = _input_gradient_pads(x.shape, kernel.shape, cotangent.shape, strides, pads)
    return (
        _sub_pixel(cotangent, _turned(kernel), strides, back),
        _kernel_gradient(x, cotangent, kernel.shape[:2], strides, pads),
    )


def _depthwise_gradients(
    x: Array, kernel: Array, cotangent: Array, strides: Pair, pads: Pads
) -> tuple[Array, Array]:
    back = _input_gradient_pads(x.shape, kernel.shape, cotangent.shape, strides, pads)
    return (
        _by_phases(_tap_by_tap, cotangent, jnp.flip(kernel, (0, 1)), strides, back),
        _depthwise_kernel_gradient(x, cotangent, kernel.shape[:2], strides, pads),
    )


def _conv_transpose_gradients(
    x: Array, kernel: Array, cotangent: Array, strides: Pair, pads: Pads
) -> tuple[Array, Array]:
    back = tuple(
        (k - 1 - before, (n - 1) * s + before + 1 - m)
        for k, s, n, m, (before, _) in zip(
            kernel.shape[:2], strides, x.shape[1:3], cotangent.shape[1:3], pads, strict=True
        )
    )
    gradient = _kernel_gradient(cotangent, x, kernel.shape[:2], strides, back)
    return _strided(cotangent, _turned(kernel), strides, back), _turned(gradient)


_conv = _with_forms(_strided, _strided, _conv_gradients)
_depthwise = _with_forms(_grouped, _tap_by_tap, _depthwise_gradients)
_conv_transpose = _with_forms(_dilated, _sub_pixel, _conv_transpose_gradients)


# Padding and strides.


def _turned(kernel: Array) -> Array:
    """The kernel of the transposed map: both spatial axes reversed, channels swapped."""
    return jnp.flip(kernel, (0, 1)).swapaxes(2, 3)


def _input_gradient_pads(
    x: Sequence[int], kernel: Sequence[int], out: Sequence[int], strides: Pair, pads: Pads
) -> Pads:
    """Padding with which the turned kernel over the dilated cotangent gives the shape of ``x``."""
    return tuple(
        (k - 1 - before, n - 1 + before - (m - 1) * s)
        for n, k, m, s, (before, _) in zip(x[1:3], kernel[:2], out[1:3], strides, pads, strict=True)
    )


def _crop(x: Array, pads: Pads) -> tuple[Array, Pads]:
    """Does the negative part of a padding by slicing, since XLA's fast CPU path refuses it."""
    if min(map(min, pads)) >= 0:
        return x, pads
    (top, bottom), (left, right) = (tuple(max(-p, 0) for p in pair) for pair in pads)
    x = x[:, top : x.shape[1] - bottom, left : x.shape[2] - right]
    return x, tuple((max(before, 0), max(after, 0)) for before, after in pads)


def _strides(stride: int | Pair) -> Pair:
    pair = (stride, stride) if isinstance(stride, int) else tuple(stride)
    if len(pair) != 2 or min(pair) < 1:
        raise ValueError(f"stride must be a positive integer or a pair of them, not {stride!r}")
    return pair


def _pads(x: Array, kernel: Array, strides: Pair, padding: Padding) -> Pads:
    """The padding of a forward convolution in numbers."""
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, _named(padding))
    return _as_pads(padding)


def _named(padding: str) -> str:
    if padding not in ("SAME", "VALID"):
        raise ValueError(f"padding must be 'SAME', 'VALID' or two pairs, not {padding!r}")
    return padding


def _as_pads(padding: Sequence[Sequence[int]]) -> Pads:
    if [len(pair) for pair in padding] != [2, 2]:
        raise ValueError(
            f"padding must be 'SAME', 'VALID' or ((top, bottom), (left, right)), not {padding!r}"
        )
    return tuple((int(before), int(after)) for before, after in padding)


def _transposed_pads(k: int, s: int, padding: str) -> Pair:
    """Padding of the dilated input that ``lax.conv_transpose`` takes for a named padding."""
    if padding == "SAME":
        total = k + s - 2
        before = k - 1 if s > k - 1 else -(-total // 2)
    else:
        total = k + s - 2 + max(k - s, 0)
        before = k - 1
    return before, total - before
