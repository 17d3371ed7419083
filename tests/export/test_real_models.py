"""Every system at the sizes that users train, on photographs: onnxruntime against jaxad."""

import jax
import numpy as np
import onnxruntime
import pytest
from onnx import helper

from jaxad import models
from jaxad.data.images import decode, resize
from jaxad.evaluation.export import make_program
from jaxad.evaluation.export_view import Decisions
from jaxad.evaluation.postprocess import make_detect
from jaxad.export.graph import Graph, described
from jaxad.export.lowering import lower
from jaxad.export.onnx_file import OPSET, RULES
from jaxad.export.preprocessing import preprocess
from jaxad.models.base import parameter_key
from jaxad.run.config import load_settings

TOLERANCE = 1e-4
"""Of the largest value of a map, and relative to a score. The parameters are drawn, so that maps
amplify the rounding of float32 as no trained model does."""

SYSTEMS = (
    "pca",
    "pca:patch",
    "feature_pca",
    "cae:small",
    "cae:small,texture",
    "vqvae:small",
    "vae:small",
    "vae_grf:small",
    "vit_vae:small",
    "anovit:small",
    "vit_memory:small",
    "vt_adl:small",
    "mae:small",
    "mae:small,fast",
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def photographs(real_data):
    files = sorted((real_data / "mvtec_ad/bottle/test").glob("*/*.*"))[::10][:8]
    return np.stack([decode(str(file), channels=3) for file in files])


def drawn(model):
    """Parameters at random, those too that a model fitted in closed form starts with at 0 or 1."""
    variables = jax.jit(model.init)(parameter_key(0))
    if model.fit is None:
        return variables
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noise = [
        0.1 * jax.random.normal(k, x.shape, x.dtype) if x.ndim else 0
        for k, x in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(tree, [x + n for x, n in zip(leaves, noise, strict=True)])


@pytest.mark.parametrize("name", SYSTEMS)
def test_photographs_get_the_same_scores_and_maps(name, photographs):
    assert RULES
    config = load_settings(name)
    model = models.build_from(config)
    variables = drawn(model)
    primary = (config.evaluate.primary_map, config.evaluate.primary_score)
    program = make_program(
        model,
        variables,
        Decisions(*primary),
        smoothing=config.evaluate.smoothing,
    )
    height, width, channels = model.image_shape
    graph = Graph()
    region = (0.0, 0.0, 1.0, 1.0)
    seen, _ = preprocess(graph, "image", size=(height, width), channels=channels, region=region)
    found = lower(program, graph, {seen: (model.image_shape, np.dtype(np.uint8))})
    outputs = [found["score"], found["map"]]
    written = helper.make_model(
        graph.finish(
            "f",
            [described("image", np.uint8, ("batch", "height", "width", 3))],
            [described(v.name, v.dtype, v.shape) for v in outputs],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=8,
    )
    session = onnxruntime.InferenceSession(written.SerializeToString())
    resized = np.stack([resize(image, (height, width)) for image in photographs])
    detect = jax.jit(make_detect(model, smoothing=config.evaluate.smoothing))
    worst = 0.0
    for count in (1, 8):
        expected = detect(variables, resized[:count])
        score, values = session.run([v.name for v in outputs], {"image": photographs[:count]})
        want = np.asarray(expected.maps[primary[0]])
        scores = np.asarray(expected.scores[primary[1]])
        worst = max(worst, np.abs(score / scores - 1).max())
        np.testing.assert_allclose(score, scores, rtol=TOLERANCE)
        np.testing.assert_allclose(values, want, rtol=0, atol=TOLERANCE * np.abs(want).max())
    print(f"{name}: scores differ by {worst:.1e}")
