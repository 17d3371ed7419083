"""Converted weights in a model's variables, and in a run."""

from __future__ import annotations

import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_backbone
import tiny_features
from flax import linen as nn
from flax.traverse_util import flatten_dict
from PIL import Image

from jaxad import models
from jaxad.convert.convert import convert
from jaxad.data.split import split_holdout
from jaxad.evaluation.detector import Detector
from jaxad.models.base import parameter_key
from jaxad.models.layers.vit import VisionTransformer
from jaxad.models.restore import _of_features
from jaxad.run.config import load_config
from jaxad.run.errors import UserError
from jaxad.training import preparation, train as training
from jaxad.training.backbones import BackboneWeights
from jaxad.training.checkpoints import Checkpoints, digest_of
from jaxad.training.train import train
from jaxad.training.weights import (
    DESCRIPTION,
    check_network,
    epsilon_note,
    load_weights,
    read_provenance,
    read_tree,
)

GOLDEN = pathlib.Path(__file__).parent.parent / "golden" / "convert"
OPTIONS = {"patch": 4, "features": 16, "depth": 2, "heads": 2}


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> pathlib.Path:
    """Folders of converted weights by family."""
    folder = tmp_path_factory.mktemp("weights")
    convert("hf-vit", GOLDEN / "hf_vit", folder / "hf-vit")
    convert("hf-mae", GOLDEN / "hf_mae", folder / "hf-mae")
    return folder


def vit_variables(shape=(12, 12, 3), **changes):
    model = models.build("vit_vae", shape, **{**OPTIONS, **changes})
    return jax.jit(model.init)(parameter_key(0))


def same(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_the_encoder_is_filled_and_nothing_else(weights):
    before = vit_variables()
    after = load_weights(before, weights / "hf-vit")
    assert jax.tree.structure(after) == jax.tree.structure(before)
    source = flatten_dict(read_tree(weights / "hf-vit"))
    for path, leaf in flatten_dict(after).items():
        assert (leaf.shape, leaf.dtype) == (flatten_dict(before)[path].shape, jnp.float32)
        expected = source[path] if path[1] == "encoder" else flatten_dict(before)[path]
        np.testing.assert_array_equal(leaf, expected, err_msg="/".join(path))


class Decoder(nn.Module):
    """The parameters of a masked autoencoder's decoder that the golden file has."""

    @nn.compact
    def __call__(self, tokens):
        from jaxad.models.layers.vit import Transformer

        stack = Transformer(features=8, depth=1, heads=2)
        x = nn.Dense(8, name="embed")(tokens)
        self.param("mask_token", nn.initializers.zeros, (1, 1, 8))
        variables = stack.init(parameter_key(0), x)["params"]
        for name, value in variables.items():
            self.param(name, lambda _, v=value: v)
        return nn.Dense(48, name="predict")(x)


class Autoencoder(nn.Module):
    """Fixed positions, as masked autoencoders have them."""

    size: int = 12

    def setup(self):
        self.encoder = VisionTransformer(
            features=16, depth=2, heads=2, patch=4, image_size=(self.size,) * 2, position="sincos"
        )
        self.decoder = Decoder()

    def __call__(self, images):
        return self.decoder(self.encoder(images))


def autoencoder_variables(size=12):
    images = jnp.zeros((1, size, size, 3))
    return jax.jit(Autoencoder(size).init)(parameter_key(0), images)


def test_a_masked_autoencoder_gets_its_decoder_and_keeps_its_constant_positions(weights):
    after = flatten_dict(load_weights(autoencoder_variables(), weights / "hf-mae"))
    source = flatten_dict(read_tree(weights / "hf-mae"))
    assert set(source) - set(after) == {
        ("params", "encoder", "positions"),
        ("params", "decoder", "positions"),
    }
    for path, leaf in after.items():
        np.testing.assert_array_equal(leaf, source[path], err_msg="/".join(path))


def test_a_decoder_of_another_kind_is_not_touched(weights):
    """A ViT whose own decoder has the same name, started from a masked autoencoder."""

    class Other(nn.Module):
        def setup(self):
            self.encoder = VisionTransformer(16, 2, 2, patch=4, image_size=(12, 12))
            self.decoder = nn.Dense(5)

        def __call__(self, x):
            return self.decoder(self.encoder(x))

    before = jax.jit(Other().init)(parameter_key(0), jnp.zeros((1, 12, 12, 3)))
    after = load_weights(before, weights / "hf-mae")
    assert same(*(jax.tree.leaves(v["params"]["decoder"]) for v in (before, after)))
    assert not same(*(jax.tree.leaves(v["params"]["encoder"]) for v in (before, after)))


def test_positions_that_are_no_constants_do_not_pass_for_them(weights, tmp_path):
    """Resized ones are no table of sines any more."""
    convert("hf-mae", GOLDEN / "hf_mae", tmp_path / "resized", image_size=20)
    with pytest.raises(UserError, match="resized by --image-size, or learned"):
        load_weights(jax.eval_shape(lambda: autoencoder_variables(20)), tmp_path / "resized")


@pytest.mark.parametrize(
    "shape, changes, sentence",
    [
        ((20, 20, 3), {}, r"positions is \(1, 10, 16\), .*\(1, 26, 16\) \(convert the file again "
                          r"with --image-size=20\)"),
        ((12, 12, 1), {}, "take images of 3 channels, the model's have 1: set data.channels=3"),
        ((12, 12, 3), {"depth": 3}, "block_2/attention/out/bias is missing in the folder; "),
        ((12, 12, 3), {"depth": 1}, "block_1/attention/out/bias is not in the model; "),
        ((12, 12, 3), {"features": 32}, r"mlp/fc1/kernel is \(16, 64\), the model's is \(32, 128\)"),
    ],
)  # fmt: skip
def test_every_leaf_that_does_not_fit_is_named(weights, shape, changes, sentence):
    variables = jax.eval_shape(lambda: vit_variables(shape, **changes))
    with pytest.raises(UserError, match=sentence):
        load_weights(variables, weights / "hf-vit")


def test_the_sizes_of_the_network_are_compared_all_at_once(weights):
    """The heads are in no shape; the others are said before forty leaves are."""
    record = read_provenance(weights / "hf-mae")
    right = {**OPTIONS, "decoder_features": 8, "decoder_depth": 1, "decoder_heads": 2}
    check_network(record, right)
    check_network(record, {})
    with pytest.raises(UserError, match=r"set model\.heads=2 \(now 4\), or take other"):
        check_network(record, {**right, "heads": 4})
    with pytest.raises(
        UserError, match=r"model\.depth=2 \(now 3\), model\.decoder_heads=2 \(now 1"
    ):
        check_network(record, {**right, "depth": 3, "decoder_heads": 1})
    # A decoder of another kind may have an option of the same name.
    check_network(record, {**OPTIONS, "decoder_features": 99})
    with pytest.raises(UserError, match=r"model\.width=64 \(now 32\)"):
        check_network({"network": {"width": 64}}, {"width": 32})


def test_an_epsilon_that_differs_is_said(weights):
    record = read_provenance(weights / "hf-mae")
    assert "--config.model.layer_norm_epsilon=1e-12" in epsilon_note(
        record, {"layer_norm_epsilon": 1e-6}
    )
    assert epsilon_note(record, {"layer_norm_epsilon": 1e-12}) == epsilon_note(record, {}) == ""


def test_weights_that_are_not_those_that_were_converted_are_refused(weights, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(weights / "hf-vit", copy)
    record = read_provenance(copy)
    assert record["weights_sha256"] == digest_of(read_tree(copy))
    for digest, fits in (("0" * 64, False), (None, True)):  # None: of before there were digests
        written = DESCRIPTION.write(record | {"weights_sha256": digest})
        (copy / "provenance.json").write_text(written)
        if fits:
            assert read_tree(copy).keys() == {"params"}
        else:
            with pytest.raises(UserError, match=r"damaged .its weights are not what was written"):
                read_tree(copy)


def test_folders_of_another_kind_are_refused(weights, tmp_path):
    variables = jax.eval_shape(vit_variables)
    with pytest.raises(
        UserError, match=r"no folder of `jaxad convert`: it has no provenance\.json"
    ):
        load_weights(variables, tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(weights / "hf-vit", copy)
    shutil.rmtree(copy / "weights")
    with pytest.raises(UserError, match=r"is damaged .*; convert the file again"):
        load_weights(variables, copy)
    good = (copy / "provenance.json").read_text()
    (copy / "provenance.json").write_text('{"schema": 99}')
    with pytest.raises(UserError, match=r"has schema 99, .*use the version of jaxad that wrote it"):
        load_weights(variables, copy)
    for text in ("{", "[]", "{}", good.replace("hf-vit", "hf-mae"), good.replace("{", "[", 1)):
        (copy / "provenance.json").write_text(text)
        with pytest.raises(UserError, match=r"provenance\.json is damaged .*; convert the file"):
            load_weights(variables, copy)
    for part in ({"network": {"encoder": 5}}, {"network": {"layer_norm_epsilon": "small"}}):
        (copy / "provenance.json").write_text(
            DESCRIPTION.write(read_provenance(weights / "hf-vit") | part)
        )
        with pytest.raises(UserError, match=r"'network' is .*, not the sizes of a network"):
            read_provenance(copy)


def test_folders_of_before_the_digest_of_the_description_are_read(weights, tmp_path):
    (tmp_path / "provenance.json").write_text(
        json.dumps(read_provenance(weights / "hf-vit") | {"schema_version": 1})
    )
    assert read_provenance(tmp_path)["family"] == "hf-vit"


def test_a_model_without_an_encoder_says_so(weights):
    with pytest.raises(UserError, match="the model has no encoder"):
        load_weights({"params": {"layer": {"kernel": jnp.zeros(3)}}}, weights / "hf-vit")


def config(data, weights, **changes):
    overrides = {
        "data.root": str(data),
        "data.image_size": "12,12",
        "data.pipeline": "memory",
        "data.holdout": "0.0",
        "model.patch": "4",
        "model.features": "16",
        "model.depth": "2",
        "model.heads": "2",
        "train.weights": str(weights),
        "train.batch_size": "4",
        "train.steps": "1",
        "train.learning_rate_multipliers.encoder": "0.0",
        "train.devices": "1",
        **changes,
    }
    return load_config("vit_vae", overrides)


def test_a_run_starts_from_the_weights_and_records_them(weights, tiny_data, tmp_path, capsys):
    """With a frozen encoder, that of the checkpoint is the file's."""
    moved = tmp_path / "weights"
    shutil.copytree(weights / "hf-vit", moved)
    run = train(config(tiny_data, moved), tmp_path / "run")
    assert f"the encoder starts from {moved}" in capsys.readouterr().err
    record = json.loads(run.environment.read_text())["weights"]
    assert record["family"] == "hf-vit" and record["source"] == "model.safetensors"
    assert len(record["sha256"]) == 64 and record["licence"]
    checkpoints = Checkpoints(run.checkpoints, read_only=True)
    found = flatten_dict(dict(checkpoints.restore_variables(vit_variables())[0]))
    for path, leaf in flatten_dict(read_tree(moved)).items():
        np.testing.assert_array_equal(found[path], leaf, err_msg="/".join(path))
    # A run that goes on does not read the folder again.
    shutil.rmtree(moved)
    train(config(tiny_data, moved), tmp_path / "run")
    assert "already trained" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"train\.weights is .* there"):
        train(config(tiny_data, ""), tmp_path / "run")


def test_mistakes_are_found_before_the_data_is_read(weights, tmp_path):
    missing = tmp_path / "no-data"
    for data, folder, changes, sentence in (
        (missing, tmp_path, {}, "no folder of `jaxad convert`"),
        (missing, weights / "hf-vit", {"model.heads": "4"}, "set model.heads=2"),
    ):
        with pytest.raises(UserError, match=sentence):
            train(config(data, folder, **changes), tmp_path / "run")
    pca = load_config("pca", {"train.weights": str(weights / "hf-vit")})
    with pytest.raises(UserError, match="fitted in closed form and starts from no weights"):
        train(pca, tmp_path / "run")


def save(picture: np.ndarray, path: pathlib.Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


def mae_config(data, weights, **changes):
    sizes = {"decoder_features": "8", "decoder_depth": "1", "decoder_heads": "2", "block": "1"}
    overrides = {
        "data.root": str(data),
        "data.image_size": "12,12",
        "data.pipeline": "memory",
        **{f"model.{name}": str(value) for name, value in OPTIONS.items()},
        **{f"model.{name}": value for name, value in sizes.items()},
        "model.layer_norm_epsilon": "1e-12",
        "train.weights": str(weights),
        "train.optimizer": "none",
        "train.devices": "1",
        **changes,
    }
    return load_config("mae", overrides)


def test_a_pretrained_model_is_a_detector_at_once(weights, tmp_path, capsys):
    """Five good images, fewer than a batch; two are read, for the threshold, the others damaged."""
    for i in range(5):
        save(np.full((12, 12, 3), 40 * i, np.uint8), tmp_path / "data/train/good" / f"{i}.png")
    folder, options = weights / "hf-mae", {"data.holdout": "0.4"}
    settings = mae_config(tmp_path / "data", folder, **options)
    held_out = split_holdout(5, share=0.4, seed=0)[1]
    for i in {*range(5)} - {*held_out}:
        (tmp_path / "data/train/good" / f"{i}.png").write_bytes(b"no image")
    run = train(settings, tmp_path / "run")
    record = json.loads(run.data.read_text())
    assert record["training"] == []
    assert record["holdout"] == [f"train/good/{i}.png" for i in held_out]
    assert "nothing was trained" in capsys.readouterr().err
    detector = Detector.load(run.path)
    source = flatten_dict(read_tree(folder))
    for path, leaf in flatten_dict(dict(detector.variables)).items():
        np.testing.assert_array_equal(leaf, source[path], err_msg="/".join(path))
    output = detector(np.zeros((1, 12, 12, 3), np.uint8))
    assert output.maps["ssim+l1"].shape == (1, 12, 12) and detector.step == 0
    # One copy of the weights and what Orbax writes beside arrays as small as these, which varies
    # by some thousand bytes; with an optimiser's moments it would be three copies.
    copies = [p for p in run.checkpoints.rglob("*") if p.name == "d" and p.is_dir()]
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(detector.variables))
    written = sum(p.stat().st_size for d in copies for p in d.iterdir())
    assert written < 2.5 * size, (written, size)
    train(settings, tmp_path / "run")
    assert "the run has its weights" in capsys.readouterr().err


def test_without_training_nothing_may_stay_random(weights, tmp_path):
    """At rate 0 a model without weights, or a decoder without its own, would detect by chance."""
    convert("mae", GOLDEN / "timm_vit.pth", tmp_path / "encoder", heads=2)
    rate_0 = {"train.optimizer": "adamw", "train.learning_rate": "0.0", "train.steps": "1"}
    for folder, sentence in (
        ("", "train.weights is empty, so the model would be a random one"),
        (tmp_path / "encoder", r"lacks decoder of the model \(this file holds no decoder"),
    ):
        for changes in ({}, rate_0):
            with pytest.raises(UserError, match=sentence):
                train(mae_config(tmp_path, folder, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    # The decoder of another kind does not serve either.
    other = config(tmp_path, weights / "hf-mae", **{"train.optimizer": "none"})
    with pytest.raises(UserError, match=r"lacks up_0, up_1, .* of the model: it would stay random"):
        train(other, tmp_path / "run")


def test_all_good_images_may_be_held_out_only_where_nothing_is_trained(
    weights, tiny_data, tmp_path
):
    all_of_them = {"data.holdout": "1.0"}
    run = train(mae_config(tiny_data, weights / "hf-mae", **all_of_them), tmp_path / "run")
    assert len(json.loads(run.data.read_text())["holdout"]) == 20
    with pytest.raises(UserError, match=r"data\.holdout=1 leaves no image to train on"):
        train(config(tiny_data, weights / "hf-vit", **all_of_them), tmp_path / "other")


def test_a_network_trained_over_a_pretrained_one_keeps_it_through_a_resumption(
    tmp_path, monkeypatch
):
    """Images are brought to one brightness too: what wraps the model passes the network on."""
    folder = tmp_path / "data" / "train" / "good"
    folder.mkdir(parents=True)
    for number, image in enumerate(tiny_features.images_of(8)):
        Image.fromarray(image).save(folder / f"{number}.png")
    pretrained = BackboneWeights(tiny_features.network(), {"family": "tiny", "source": "drawn"})
    for module in (preparation, training):
        monkeypatch.setattr(module, "load_backbone", lambda *_: pretrained)
    keys = {
        "data.root": tmp_path / "data",
        "data.image_size": tiny_features.SHAPE[:2],
        "data.illumination": "level",
        "data.pipeline": "memory",
        "data.holdout": 0,
        "model.backbone": tiny_backbone.NAME,
        "model.width": 4,
        "model.levels": 2,
        "model.kinds": "patch",
        "train.batch_size": 4,
        "train.devices": 1,
    }
    found = {}
    for steps in (1, 3):
        config = load_config("restore", {**keys, "train.steps": steps})
        run = train(config, tmp_path / "run")
        detector = Detector.load(run.path)
        found[steps] = jax.tree.map(np.asarray, detector.variables)
        output = detector(tiny_features.images_of(2, seed=1))
        assert np.isfinite(output.maps["residual*probability"]).all()
    own = {name: tree["backbone"] for name, tree in _of_features(found[3]).items()}
    jax.tree.map(np.testing.assert_array_equal, own, dict(pretrained.variables))
    jax.tree.map(np.testing.assert_array_equal, found[1]["features"], found[3]["features"])
    first, last = (jax.tree.leaves(found[steps]["params"]) for steps in (1, 3))
    assert not same(first, last)
    assert run.read_json(run.environment)["weights"]["family"] == "tiny"
