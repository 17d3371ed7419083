"""`convert` as a whole: what is written, what is refused, and that nothing is half there."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file

from jaxad.cli import main as cli
from jaxad.convert import convert as module
from jaxad.convert.convert import convert
from jaxad.convert.reading import open_weights
from jaxad.run.errors import UserError
from jaxad.training.weights import read_provenance, read_tree

SIZES = {"features": 16, "depth": 2, "mlp_features": 64, "heads": 2}


def test_the_folder_says_where_its_weights_are_from(files, tmp_path):
    record = convert("hf-mae", files / "hf_mae", tmp_path / "new" / "out")
    assert sorted(os.listdir(tmp_path / "new")) == ["out"]
    assert read_provenance(tmp_path / "new/out") == record
    data = (files / "hf_mae/model.safetensors").read_bytes()
    assert record["sha256"] == hashlib.sha256(data).hexdigest()
    assert record["bytes"] == len(data) and record["source"] == "model.safetensors"
    assert record["family"] == "hf-mae" and "CC BY-NC 4.0" in record["licence"]
    assert record["submodules"] == ["decoder", "encoder"] and record["stored_as"] == ["float32"]
    assert record["network"] == {
        "patch": 4,
        "channels": 3,
        "grid": [3, 3],
        "image_size": [12, 12],
        "layer_norm_epsilon": 1e-12,
        "encoder": SIZES,
        "decoder": {"features": 8, "depth": 1, "mlp_features": 32, "heads": 2},
    }


def test_what_is_left_out_is_recorded(files, tmp_path):
    record = convert("timm-vit", files / "timm_vit.pth", tmp_path / "out", heads=2)
    assert set(record["dropped"]) == {"head.weight", "head.bias"}
    assert record["network"]["encoder"] == SIZES
    assert record["absent"] == {} and record["submodules"] == ["encoder"]


def test_old_and_new_files_give_the_same_tree(files, tmp_path):
    for name in ("timm_vit", "timm_vit_old"):
        convert("timm-vit", files / f"{name}.pth", tmp_path / name, heads=2)
    new, old = (read_tree(tmp_path / name) for name in ("timm_vit", "timm_vit_old"))
    assert new["params"]["encoder"]["block_1"]["mlp"]["fc1"]["kernel"].shape == (16, 64)
    for path in ("class_token", "positions"):
        np.testing.assert_array_equal(
            new["params"]["encoder"][path], old["params"]["encoder"][path]
        )


def test_positions_are_resized_on_request(files, tmp_path):
    record = convert("hf-mae", files / "hf_mae", tmp_path / "out", image_size=20)
    assert record["network"]["grid"] == [5, 5] and record["network"]["image_size"] == [20, 20]
    assert record["positions_resized_from"] == [12, 12]
    tree = read_tree(tmp_path / "out")
    assert tree["params"]["encoder"]["positions"].shape == (1, 26, 16)
    assert tree["params"]["decoder"]["positions"].shape == (1, 26, 8)


def refused(match, *arguments, **options):
    with pytest.raises(UserError, match=match):
        convert(*arguments, **options)


def test_options_that_do_not_fit_are_refused(files, tmp_path):
    out, timm = tmp_path / "out", files / "timm_vit.pth"
    refused("did you mean 'timm-vit'", "tim-vit", timm, out)
    refused("no multiple of the patches' side, 4", "timm-vit", timm, out, heads=2, image_size=10)
    refused(r"shared by 3 heads; give .* --heads=N", "timm-vit", timm, out, heads=3)
    # 16 features are less than one usual head of 64.
    refused("--heads=N", "timm-vit", timm, out)
    refused("8 features cannot be shared by 16 heads.*--decoder-heads", "mae",
            files / "mae.pth", out, heads=2)  # fmt: skip
    refused("--stages is 5", "resnet18", timm, out, stages=5)
    refused("no such file", "timm-vit", tmp_path / "none.pth", out)
    refused("--from=mae expects; did you mean --from=hf-vit?", "mae", files / "hf_vit", out)
    refused(r"--from=resnet18 expects; did you mean --from=timm-vit\?", "resnet18", timm, out)
    assert os.listdir(tmp_path) == []


def test_a_folder_with_something_in_it_is_left_alone(files, tmp_path):
    (tmp_path / "mine").write_text("x")
    refused("is not empty", "hf-vit", files / "hf_vit", tmp_path)
    refused("is a file", "hf-vit", files / "hf_vit", tmp_path / "mine")
    (tmp_path / "empty").mkdir()
    convert("hf-vit", files / "hf_vit", tmp_path / "empty")
    assert (tmp_path / "mine").read_text() == "x"


def test_a_failure_leaves_nothing(files, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_text", fail)
    refused("No space left", "hf-vit", files / "hf_vit", tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_a_killed_conversion_leaves_no_half_folder_and_can_be_repeated(files, tmp_path):
    """Killed after the weights are written, before the folder takes its name."""
    script = (
        "import os, sys\n"
        "from jaxad.convert import convert as module\n"
        "module.write_text = lambda *_: os.kill(os.getpid(), 9)\n"
        "module.convert('hf-vit', sys.argv[1], sys.argv[2])\n"
    )
    out = tmp_path / "out"
    command = [sys.executable, "-c", script, str(files / "hf_vit"), str(out)]
    done = subprocess.run(command, env={**os.environ, "JAX_PLATFORMS": "cpu"}, check=False)
    assert done.returncode == -9 and not out.exists() and os.listdir(tmp_path)
    convert("hf-vit", files / "hf_vit", out)
    assert os.listdir(tmp_path) == ["out"]


def hub_folder(tmp_path, files, **changes):
    folder = tmp_path / "hub"
    shutil.copytree(files / "hf_vit", folder)
    for name, content in changes.items():
        (folder / name.replace("__", ".")).write_text(content)
    return folder


def test_folders_of_the_hub_are_checked(files, tmp_path):
    folder = hub_folder(tmp_path, files, config__json="{")
    refused("config.json cannot be read", "hf-vit", folder, tmp_path / "out")
    (folder / "config.json").write_text("[]")
    refused("holds no dict", "hf-vit", folder, tmp_path / "out")
    for text in ("[" * 100_000, '{"a": ' + "[" * 900 + "]" * 900 + "}"):
        (folder / "config.json").write_text(text)
        refused("config.json cannot be read: lists and objects lie more than", "hf-vit", folder,
                tmp_path / "out")  # fmt: skip
    for value in ('"x"', "NaN", "1e400", "true", "null", "-1", "0", "[1]", "1" + "0" * 400):
        (folder / "config.json").write_text(f'{{"layer_norm_eps": {value}}}')
        refused("layer_norm_eps of its config.json is", "hf-vit", folder, tmp_path / "out", heads=2)
    (folder / "config.json").write_text("{}")
    data = (folder / "model.safetensors").read_bytes()
    for damaged in (data[: len(data) // 2], b"version https://git-lfs", b"\xff" * 100, b""):
        (folder / "model.safetensors").write_bytes(damaged)
        refused("is damaged, or no safetensors file", "hf-vit", folder, tmp_path / "out")
    (folder / "model.safetensors").rename(folder / "model.safetensors.index.json")
    refused("several shards", "hf-vit", folder, tmp_path / "out")
    shutil.rmtree(folder)
    folder.mkdir()
    refused("neither model.safetensors nor pytorch_model.bin", "hf-vit", folder, tmp_path / "out")


def test_a_hub_folder_without_config_is_read_by_its_shapes(files, tmp_path):
    folder = hub_folder(tmp_path, files)
    (folder / "config.json").unlink()
    refused("--heads=N", "hf-vit", folder, tmp_path / "out")
    record = convert("hf-vit", folder, tmp_path / "out", heads=2)
    assert record["network"]["layer_norm_epsilon"] == 1e-12


def test_a_hub_folder_of_older_days_is_read(files, tmp_path):
    folder = tmp_path / "hub"
    folder.mkdir()
    shutil.copy(files / "timm_vit.pth", folder / "pytorch_model.bin")
    record = convert("timm-vit", folder, tmp_path / "out", heads=2)
    assert record["source"] == "pytorch_model.bin"


def test_other_things_than_tensors_are_named(tmp_path):
    """A dict of plain values, in the layout of torch.save."""
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps({"epoch": 1, "best": [0.5]}, protocol=2))
    refused("other things than tensors .*: best, epoch; .* under model or state_dict",
            "timm-vit", tmp_path / "x.pth", tmp_path / "out")  # fmt: skip


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model._orig_mod."])
def test_what_a_wrapped_network_puts_before_every_key_is_taken_off_and_said(
    files, tmp_path, capsys, prefix
):
    path = tmp_path / "wrapped.safetensors"
    state = open_weights(files / "timm_vit.pth").state
    save_file({prefix + key: value.read().copy() for key, value in state.items()}, path)
    words = ["convert", "--from=timm-vit", f"--input={path}", "--heads=2"]
    assert cli.main([*words, f"--output={tmp_path / 'out'}"]) == 0
    assert f"taken off: {prefix} before every key" in capsys.readouterr().out
    assert json.loads((tmp_path / "out/provenance.json").read_text())["prefix"] == prefix
    convert("timm-vit", files / "timm_vit.pth", tmp_path / "plain", heads=2)
    ours, plain = (flatten_dict(read_tree(tmp_path / name)) for name in ("out", "plain"))
    assert ours.keys() == plain.keys()
    for key, leaf in plain.items():
        np.testing.assert_array_equal(ours[key], leaf)


def test_a_prefix_of_some_keys_alone_stays(files, tmp_path):
    path = tmp_path / "some.safetensors"
    state = open_weights(files / "timm_vit.pth").state
    arrays = {f"module.{key}": value.read().copy() for key, value in state.items()}
    save_file({**arrays, "criterion.weight": np.zeros(3, np.float32)}, path)
    refused("no place: criterion.weight, module", "timm-vit", path, tmp_path / "out", heads=2)
