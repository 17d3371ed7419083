"""conv, depthwise_conv and conv_transpose against lax, value and gradients; the layers against linen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxad.ops.convolution import conv, conv_transpose, depthwise_conv

LAYOUT = ("NHWC", "HWIO", "NHWC")
# Sums of up to 16 * 128 products of unit normals in another order: float32 rounding stays below
# 1e-5 of the largest entry; a wrong or missing tap changes it by far more than 1e-4.
RELATIVE = 1e-4


def lax_conv(x, kernel, *, stride, padding):
    strides = (stride, stride) if isinstance(stride, int) else stride
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=LAYOUT)


def lax_depthwise_conv(x, kernel, *, stride, padding):
    strides = (stride, stride) if isinstance(stride, int) else stride
    return lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=LAYOUT, feature_group_count=x.shape[-1]
    )


def lax_conv_transpose(x, kernel, *, stride, padding):
    strides = (stride, stride) if isinstance(stride, int) else stride
    return lax.conv_transpose(x, kernel, strides, padding, dimension_numbers=LAYOUT)


def assert_close(actual, expected):
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    scale = max(float(np.abs(expected).max()), 1e-6) if expected.size else 1.0
    np.testing.assert_allclose(actual, expected, rtol=0, atol=RELATIVE * scale)


def arrays(shape, kernel_shape, seed=0):
    x_key, k_key = jax.random.split(jax.random.key(seed))
    return jax.random.normal(x_key, shape), jax.random.normal(k_key, kernel_shape)


def value_and_gradients(function, x, kernel):
    """Value, and both gradients for a cotangent that differs in every entry."""

    def run(x, kernel):
        y, pull = jax.vjp(function, x, kernel)
        return y, *pull(jnp.sin(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))

    return jax.jit(run)(x, kernel)


# (b, h, w, ci, co), kernel size, stride, padding
CONV = [
    ((2, 8, 8, 5, 7), (3, 3), 1, "SAME"),
    ((1, 7, 9, 3, 20), (3, 3), 1, "VALID"),
    ((2, 6, 6, 5, 7), (1, 1), 1, "SAME"),
    ((2, 7, 6, 18, 7), (1, 1), 2, "SAME"),
    ((2, 8, 8, 20, 7), (4, 4), 2, "SAME"),
    ((2, 8, 8, 20, 7), (4, 4), 2, ((1, 1), (1, 1))),
    ((1, 9, 7, 17, 3), (4, 4), 2, "SAME"),
    ((1, 9, 7, 17, 3), (4, 4), 2, "VALID"),
    ((2, 9, 11, 1, 4), (7, 7), 2, ((3, 3), (3, 3))),
    ((2, 9, 11, 16, 4), (3, 3), 2, ((1, 1), (1, 1))),
    ((1, 11, 10, 16, 4), (3, 3), 3, "SAME"),
    ((1, 11, 10, 16, 4), (2, 3), 4, "VALID"),
    ((1, 10, 12, 16, 2), (3, 4), (2, 1), ((0, 2), (1, 3))),
    ((1, 10, 12, 16, 2), (3, 4), (1, 3), ((-1, 2), (1, -2))),
    ((1, 8, 8, 3, 16), (4, 4), 4, "VALID"),
    # The forms of the kernel gradient: by taps, by patches; see the thresholds in the module.
    ((1, 5, 6, 32, 128), (3, 3), 1, "SAME"),
    ((1, 7, 6, 33, 128), (4, 4), 2, ((0, 2), (-1, 3))),
    ((2, 7, 6, 3, 128), (4, 4), 2, "SAME"),
]
TRANSPOSE = [
    ((2, 4, 4, 7, 18), (4, 4), 2, "SAME"),
    ((2, 4, 4, 7, 18), (4, 4), 2, ((2, 2), (2, 2))),
    ((1, 5, 3, 3, 17), (4, 4), 2, "VALID"),
    ((2, 4, 5, 20, 3), (4, 4), 2, "SAME"),
    ((2, 4, 5, 4, 1), (4, 4), 2, "SAME"),
    ((2, 4, 5, 1, 16), (3, 3), 2, ((1, 1), (1, 1))),
    ((2, 4, 5, 4, 16), (3, 3), 2, ((1, 2), (1, 2))),
    ((2, 4, 5, 4, 16), (3, 3), 2, "SAME"),
    ((1, 4, 3, 4, 16), (9, 9), 3, ((7, 7), (7, 7))),
    ((1, 3, 3, 4, 16), (7, 7), 5, ((5, 5), (5, 5))),
    ((1, 3, 4, 4, 16), (2, 2), 3, "SAME"),
    ((1, 3, 4, 4, 16), (1, 1), 2, "VALID"),
    ((1, 3, 4, 4, 16), (3, 2), (2, 1), "SAME"),
    ((2, 4, 4, 6, 16), (3, 3), 1, "SAME"),
    ((1, 5, 6, 3, 16), (3, 4), 2, ((-1, 2), (1, -2))),
    ((1, 3, 4, 128, 32), (4, 4), 2, "SAME"),
    ((1, 3, 4, 128, 33), (3, 4), 2, ((1, -1), (2, 3))),
    ((2, 3, 4, 128, 3), (4, 4), 2, "SAME"),
]

# (b, h, w, c), kernel size, stride, padding
DEPTHWISE = [
    ((2, 6, 7, 5), (3, 3), 1, "SAME"),
    ((1, 7, 6, 4), (5, 5), 1, "SAME"),
    ((2, 8, 8, 3), (3, 3), 2, "SAME"),
    ((1, 8, 10, 3), (5, 5), 2, "SAME"),
    ((1, 7, 9, 3), (5, 5), 2, "SAME"),
    ((1, 7, 9, 3), (3, 3), 2, "SAME"),
    ((1, 9, 8, 2), (5, 3), (1, 3), "VALID"),
    ((1, 9, 8, 2), (2, 4), (3, 2), ((0, 2), (1, 3))),
    ((1, 9, 8, 2), (3, 3), 2, ((-1, 2), (1, -2))),
    ((1, 9, 8, 2), (1, 2), 4, "SAME"),
    ((1, 4, 4, 1), (5, 5), 1, "SAME"),
]


@pytest.mark.parametrize(("sizes", "kernel", "stride", "padding"), CONV)
def test_conv_equals_lax(sizes, kernel, stride, padding):
    x, weights = arrays(sizes[:4], (*kernel, *sizes[3:]))
    options = {"stride": stride, "padding": padding}
    ours = value_and_gradients(lambda x, k: conv(x, k, **options), x, weights)
    theirs = value_and_gradients(lambda x, k: lax_conv(x, k, **options), x, weights)
    for actual, expected in zip(ours, theirs, strict=True):
        assert_close(actual, expected)


@pytest.mark.parametrize(("sizes", "kernel", "stride", "padding"), TRANSPOSE)
def test_conv_transpose_equals_lax(sizes, kernel, stride, padding):
    x, weights = arrays(sizes[:4], (*kernel, *sizes[3:]))
    options = {"stride": stride, "padding": padding}
    ours = value_and_gradients(lambda x, k: conv_transpose(x, k, **options), x, weights)
    theirs = value_and_gradients(lambda x, k: lax_conv_transpose(x, k, **options), x, weights)
    for actual, expected in zip(ours, theirs, strict=True):
        assert_close(actual, expected)


def test_strides_by_default():
    x, weights = arrays((1, 6, 6, 2), (3, 3, 2, 2))
    np.testing.assert_array_equal(conv(x, weights), conv(x, weights, stride=1))
    np.testing.assert_array_equal(conv_transpose(x, weights), conv_transpose(x, weights, stride=2))


@pytest.mark.parametrize(("shape", "kernel", "stride", "padding"), DEPTHWISE)
def test_depthwise_conv_equals_lax(shape, kernel, stride, padding):
    x, weights = arrays(shape, (*kernel, 1, shape[3]))
    options = {"stride": stride, "padding": padding}
    ours = value_and_gradients(lambda x, k: depthwise_conv(x, k, **options), x, weights)
    theirs = value_and_gradients(lambda x, k: lax_depthwise_conv(x, k, **options), x, weights)
    for actual, expected in zip(ours, theirs, strict=True):
        assert_close(actual, expected)


def test_depthwise_conv_sums_bfloat16_in_float32():
    """In bfloat16, with 8 bits, a sum of ones would stop at 256, and one of 3 s lose digits."""
    x, weights = jnp.ones((1, 20, 20, 2), jnp.bfloat16), jnp.full((5, 5, 1, 2), 3.0, jnp.bfloat16)
    y, pull = jax.vjp(depthwise_conv, x, weights)
    of_x, of_kernel = pull(jnp.ones_like(y))
    assert {a.dtype for a in (y, of_x, of_kernel)} == {jnp.dtype(jnp.bfloat16)}
    assert float(of_kernel[2, 2, 0, 0]) == 400.0
    # 75, and at the corner 3 of 5 rows and columns are inside
    assert float(y[0, 9, 9, 0]) == float(of_x[0, 9, 9, 0]) == 75.0 and float(y[0, 0, 0, 0]) == 27.0


OPTIONS = {"stride": 2, "padding": "SAME"}
# Channels of input and kernel for which the forms with a form of their own on CPU are taken.
PAIRS = [
    (conv, lax_conv, OPTIONS, (32, (32, 128))),
    (conv_transpose, lax_conv_transpose, OPTIONS, (128, (128, 32))),
    (depthwise_conv, lax_depthwise_conv, OPTIONS, (5, (1, 5))),
]


def loss(function, options):
    return lambda x, kernel: jnp.sum(jnp.sin(function(x, kernel, **options)))


@pytest.mark.parametrize(("ours", "theirs", "options", "channels"), PAIRS)
def test_under_vmap_over_inputs_and_kernels(ours, theirs, options, channels):
    x, kernel = arrays((3, 2, 4, 4, channels[0]), (3, 4, 4, *channels[1]))
    for axes in [(0, 0), (0, None), (None, 0)]:
        one_x = x if axes[0] == 0 else x[0]
        one_kernel = kernel if axes[1] == 0 else kernel[0]
        results = [
            jax.jit(jax.vmap(jax.grad(loss(f, options), (0, 1)), axes))(one_x, one_kernel)
            for f in (ours, theirs)
        ]
        for actual, expected in zip(*results, strict=True):
            assert_close(actual, expected)


@pytest.mark.parametrize(("ours", "theirs", "options", "channels"), PAIRS)
def test_under_pmap_on_four_devices_with_different_data(ours, theirs, options, channels):
    x, kernel = arrays((4, 2, 4, 4, channels[0]), (4, 4, *channels[1]))

    def step(x, kernel):
        gradient = jax.grad(loss(ours, options), 1)(x, kernel)
        return jax.lax.psum(gradient, "data")

    actual = jax.pmap(step, axis_name="data", in_axes=(0, None), out_axes=None)(x, kernel)
    expected = jax.grad(loss(theirs, options), 1)(x.reshape(8, 4, 4, -1), kernel)
    assert_close(actual, expected)


@pytest.mark.parametrize(("ours", "theirs", "options", "channels"), PAIRS)
def test_under_remat_and_scan_and_without_jit(ours, theirs, options, channels):
    x, kernel = arrays((2, 4, 4, channels[0]), (4, 4, *channels[1]))
    expected = jax.grad(loss(theirs, options), 1)(x, kernel)
    assert_close(jax.grad(loss(ours, options), 1)(x, kernel), expected)
    assert_close(jax.grad(jax.checkpoint(loss(ours, options)), 1)(x, kernel), expected)

    def total(kernel):
        def add(carry, image):
            return carry + loss(ours, options)(image[None], kernel), None

        return jax.lax.scan(add, 0.0, x)[0]

    assert_close(jax.jit(jax.grad(total))(kernel), expected)


@pytest.mark.parametrize(("ours", "theirs", "options", "channels"), PAIRS)
def test_second_derivatives(ours, theirs, options, channels):
    x, kernel = arrays((1, 4, 4, channels[0]), (4, 4, *channels[1]))

    def gradient_norm(function):
        def norm(x, kernel):
            gradients = jax.grad(loss(function, options), (0, 1))(x, kernel)
            return sum(jnp.sum(g**2) for g in gradients)

        return jax.jit(jax.grad(norm, (0, 1)))

    for actual, expected in zip(
        gradient_norm(ours)(x, kernel), gradient_norm(theirs)(x, kernel), strict=True
    ):
        assert_close(actual, expected)


@pytest.mark.parametrize(("ours", "theirs", "options", "channels"), PAIRS)
def test_forward_mode_is_refused(ours, theirs, options, channels):
    x, kernel = arrays((1, 4, 4, channels[0]), (4, 4, *channels[1]))
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(lambda x: ours(x, kernel, **options), (x,), (x,))


@pytest.mark.parametrize(("ours", "theirs", "options", "channels"), PAIRS[:2])
def test_each_platform_is_lowered_to_its_own_form(ours, theirs, options, channels):
    x, kernel = arrays((1, 4, 4, channels[0]), (4, 4, *channels[1]))

    def gradients(x, kernel):
        return jax.grad(loss(ours, options), (0, 1))(x, kernel)

    # A dilated input is what the CPU form avoids and what cuDNN wants.
    assert "lhs_dilate = [2, 2]" not in lowered(gradients, "cpu", x, kernel)
    assert "lhs_dilate = [2, 2]" in lowered(gradients, "cuda", x, kernel)
    assert "optimization_barrier" in lowered(gradients, "cpu", x, kernel)
    assert "optimization_barrier" not in lowered(gradients, "cuda", x, kernel)


def lowered(function, platform, *arguments):
    """What a platform is given to compile."""
    return jax.export.export(jax.jit(function), platforms=[platform])(*arguments).mlir_module()


def test_a_depthwise_convolution_is_native_elsewhere():
    x, kernel = arrays((1, 4, 4, 5), (3, 3, 1, 5))
    value_and_pull = lambda x, kernel: jax.vjp(depthwise_conv, x, kernel)[1](x)
    assert "stablehlo.convolution" not in lowered(value_and_pull, "cpu", x, kernel)
    assert "feature_group_count = 5" in lowered(value_and_pull, "cuda", x, kernel)
    assert "stablehlo.convolution" not in lowered(depthwise_conv, "cpu", x, kernel)
    assert "feature_group_count = 5" in lowered(depthwise_conv, "cuda", x, kernel)


def test_one_exported_function_serves_two_platforms():
    x, kernel = arrays((1, 4, 4, 3), (4, 4, 3, 16))
    function = jax.jit(lambda x, kernel: conv_transpose(x, kernel, stride=2))
    exported = jax.export.export(function, platforms=["cpu", "cuda"])(x, kernel)
    assert_close(exported.call(x, kernel), lax_conv_transpose(x, kernel, **OPTIONS))


@pytest.mark.parametrize("function", [conv, conv_transpose, depthwise_conv])
def test_bad_arguments_are_named(function):
    x, kernel = arrays((1, 4, 4, 2), (3, 3, 1 if function is depthwise_conv else 2, 2))
    with pytest.raises(ValueError, match="stride"):
        function(x, kernel, stride=0)
    with pytest.raises(ValueError, match="'same'"):
        function(x, kernel, padding="same")
    with pytest.raises(ValueError, match=r"\(top, bottom\)"):
        function(x, kernel, padding=((1, 1),))
