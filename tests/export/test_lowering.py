"""Functions of JAX as graphs of ONNX, against JAX: every model, then single operations."""

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from jax import lax
from model_cases import CASES, cases
from onnx import checker, helper

from jaxad import models
from jaxad.evaluation.postprocess import make_detect
from jaxad.export.graph import Graph, described
from jaxad.export.lowering import NotConvertible, lower
from jaxad.export.onnx_file import OPSET, RULES
from jaxad.models.base import parameter_key
from jaxad.ops.morphology import connected_to
from jaxad.ops.ranking import limit_of_highest, mean_of_highest

TOLERANCE = 1e-5
"""Of the largest value: float32 sums of a thousand numbers, added up in another order."""


def session(function, shape, dtype=np.uint8):
    """onnxruntime with a function of ``(batch, *shape)`` that gives a dict of arrays."""
    assert RULES
    graph = Graph()
    found = lower(function, graph, {"x": (shape, np.dtype(dtype))})
    for name, value in found.items():
        graph.output(name, value.name)
    model = helper.make_model(
        graph.finish(
            "function",
            [described("x", dtype, ("batch", *shape))],
            [described(name, value.dtype, value.shape) for name, value in found.items()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=8,
    )
    checker.check_model(model)
    return onnxruntime.InferenceSession(model.SerializeToString())


def of_model(case):
    """Images to maps and scores of a model with drawn parameters."""
    model = models.build(case.model, case.image_shape, **case.options)
    variables = jax.jit(model.init)(parameter_key(0))
    detect = make_detect(model, smoothing=1.0)

    def function(images):
        output = detect(variables, images)
        scores = {name.replace(":", "_"): values for name, values in output.scores.items()}
        return {**output.maps, **scores, "reconstruction": output.reconstruction}

    return function


@pytest.mark.parametrize("name", cases())
def test_every_model_gives_its_maps_and_scores(name):
    case = CASES[name]
    function = of_model(case)
    run = session(function, case.image_shape)
    images = np.random.default_rng(0).integers(0, 256, (3, *case.image_shape), np.uint8)
    expected = jax.jit(function)(images)
    for count in (1, 3):
        found = run.run([*expected], {"x": images[:count]})
        for (key, whole), values in zip(expected.items(), found, strict=True):
            want = np.asarray(whole[:count])
            assert values.dtype == want.dtype and values.shape == want.shape
            if key == "reconstruction":  # a half may be rounded either way
                assert np.abs(values.astype(int) - want).max() <= 1
                continue
            np.testing.assert_allclose(
                values, want, rtol=0, atol=TOLERANCE * np.abs(whole).max(), err_msg=key
            )


def conv(**options):
    kernel = jnp.asarray(np.random.default_rng(1).normal(size=(3, 4, 2, 6)), jnp.float32)
    layout = ("NHWC", "HWIO", "NHWC")
    return lambda x: lax.conv_general_dilated(x, kernel, dimension_numbers=layout, **options)


RNG = np.random.default_rng(2)
MATRIX = jnp.asarray(RNG.normal(size=(7, 5, 2)), jnp.float32)
OPERATIONS = {
    "convolution, strided, dilated, cropped": conv(
        window_strides=(2, 1), padding=((-1, 2), (3, 0)), rhs_dilation=(1, 2)
    ),
    "transposed convolution": conv(
        window_strides=(1, 1), padding=((2, 1), (2, 3)), lhs_dilation=(2, 3)
    ),
    "transposed convolution, padded beyond the kernel": conv(
        window_strides=(1, 1), padding=((4, 3), (5, 0)), lhs_dilation=(2, 2)
    ),
    "einsum over two axes": lambda x: jnp.einsum("bijc,kjc->bik", x, MATRIX),
    "einsum between images": lambda x: jnp.einsum("bijc,bkjc->bcik", x, x),
    "free side as a number": lambda x: x / x.shape[0] + jnp.float32(x.shape[0]),
    "largest and smallest of windows": lambda x: (
        lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 2, 1), (1, 1, 2, 1), "SAME")
        + lax.reduce_window(x, jnp.inf, lax.min, (1, 3, 2, 1), (1, 1, 2, 1), "SAME")
    ),
    "sums of windows": lambda x: lax.reduce_window(
        x, 0.0, lax.add, (1, 3, 2, 1), (1, 2, 1, 1), ((0, 0), (1, 1), (0, 1), (0, 0))
    ),
    "reversed scan": lambda x: lax.scan(
        lambda sum, row: (sum * 0.5 + row, sum), x[:, 0], jnp.moveaxis(x, 1, 0), reverse=True
    )[1],
    "a state that is its own output": lambda x: lax.scan(
        lambda sum, row: (sum + row,) * 2, x[:, 0], jnp.moveaxis(x, 1, 0)
    )[1],
    "a loop that ends by what it computes": lambda x: lax.map(
        lambda image: lax.while_loop(
            lambda state: (state[1] < 60) & (jnp.sum(state[0]) < image[0, 0, 0] + 40),
            lambda state: (state[0] + jnp.abs(image), state[1] + 1),
            (image, 0),
        )[0],
        x,
    ),
    "what is connected to seeds": lambda x: lax.map(
        lambda image: connected_to(image[..., 0] > 1.5, image[..., 0] > -0.3), x
    ).astype(jnp.float32),
    "the highest of an array": lambda x: lax.map(
        lambda image: (
            (image.ravel() >= limit_of_highest(image.ravel(), 9))
            * mean_of_highest(image.ravel(), 9)
        ),
        x,
    ),
    "parts along an axis": lambda x: jnp.subtract(*jnp.unstack(x[:, :2], axis=1)),
    "rows by computed places": lambda x: MATRIX[jnp.argmax(x, axis=2) % 7],
    "a block by a computed place": lambda x: jax.vmap(
        lambda image: lax.dynamic_slice_in_dim(image, 1, 2, axis=1)
    )(x),
    "negative padding": lambda x: lax.pad(x, 1.5, ((0, 0, 0), (-1, 2, 0), (1, -2, 0), (0, 0, 0))),
    "any and all": lambda x: x * (x > 2).any((1, 2), keepdims=True) + (x < 2).all(3, keepdims=True),
    "elementary functions": lambda x: (
        jnp.expm1(x) + jnp.log1p(x * x) + jnp.round(3 * x) + jnp.sign(x) + x**3 + jnp.clip(x, 0, 1)
    ),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_single_operations(name):
    function = lambda x: {"y": OPERATIONS[name](x)}
    run = session(function, (6, 5, 2), np.float32)
    for count in (1, 4):
        x = np.random.default_rng(count).normal(size=(count, 6, 5, 2)).astype(np.float32)
        want = np.asarray(function(x)["y"])
        (found,) = run.run(["y"], {"x": x})
        np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-5)


def test_what_has_no_counterpart_is_named():
    for function, word in (
        (lambda x: jnp.sort(x, axis=1), "sort"),
        (lambda x: jnp.fft.fft(x, axis=1).real, "fft"),
        (lambda x: lax.cond(x.sum() > 0, lambda x: x, lambda x: -x, x), "computed value"),
    ):
        with pytest.raises(NotConvertible, match=word):
            session(lambda x, f=function: {"y": f(x)}, (6, 5), np.float32)


def test_a_loop_that_ends_image_by_image_is_named():
    with pytest.raises(NotConvertible, match="ends image by image"):
        session(
            lambda x: {
                "y": jax.vmap(lambda v: lax.while_loop(lambda s: s < v[0], lambda s: s + 1, 0.0))(x)
            },
            (4,),
            np.float32,
        )


def test_what_is_computed_twice_is_one_node_and_what_nobody_needs_none():
    graph = Graph()
    lower(
        lambda x: {"y": jnp.exp(x) + jnp.exp(x), "unused": jnp.cos(x)},
        graph,
        {"x": ((4,), np.dtype(np.float32))},
    )
    kinds = [node.op_type for node in graph._nodes]
    assert kinds.count("Exp") == 1 and "Cos" in kinds
    last = next(node.output[0] for node in graph._nodes if node.op_type == "Add")
    finished = graph.finish("f", [], [described(last, np.float32, ("batch", 4))])
    assert [node.op_type for node in finished.node] == ["Exp", "Add"]
