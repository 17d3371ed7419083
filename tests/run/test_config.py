"""Configs: found, changed, checked, locked and written."""

from __future__ import annotations

import ast
import functools
import json
import pathlib
from itertools import combinations

import jax
import jax.numpy as jnp
import pytest

from jaxad import models
from jaxad.evaluation.postprocess import REDUCTIONS
from jaxad.run import config as config_module
from jaxad.run.config import (
    SIZES,
    SOURCES,
    apply_variants,
    flatten,
    from_json,
    load_config,
    load_settings,
    set_key,
    settings_of,
    shipped_folder,
    shipped_names,
    to_json,
)
from jaxad.run.errors import UserError
from jaxad.run.settings import GROUPS
from jaxad.training.optimizer import make_optimizer


def variants_of(name: str) -> list[str]:
    """The keys of the dict that the file gives to apply_variants."""
    tree = ast.parse((shipped_folder() / f"{name}.py").read_text())
    (call,) = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "apply_variants"
    ]
    known = call.args[2]
    if isinstance(known, ast.Name):
        (known,) = [
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == known.id
        ]
    return [key.value for key in known.keys]


ALL = [(name, variant) for name in shipped_names() for variant in ("", *variants_of(name))]


@functools.cache
def outputs_of(model: tuple[tuple[str, object], ...], shape: tuple[int, ...]):
    """What a model gives, by shapes alone; many variants change nothing of the model itself.

    Args:
      model: name and options, as pairs.
      shape: of the images.

    Returns:
      Names of maps and of scores, whether it is trained, and the labels of its parameters.
    """
    options = dict(model)
    built = models.build(options.pop("name"), shape, **options)
    variables = jax.eval_shape(built.init, jax.random.key(0))
    images = jax.ShapeDtypeStruct((2, *shape), jnp.uint8)
    detection = jax.eval_shape(built.detect, variables, images)
    trained = built.fit is None
    labels = built.param_labels(variables["params"]) if trained else None
    return set(detection.maps), set(detection.scores), trained, labels


@pytest.mark.parametrize("name, variant", ALL, ids=[":".join(pair) for pair in ALL])
def test_every_shipped_config_builds_and_names_what_its_model_gives(name, variant):
    config = load_config(f"{name}:{variant}")
    settings_of(config)
    assert config.variants == variant and config.is_locked
    shape = (*config.data.image_size, config.data.channels)
    maps, scores, trained, labels = outputs_of(tuple(config.model.items()), shape)
    assert config.evaluate.primary_map in maps
    assert config.evaluate.primary_score in scores | {f"{m}:{r}" for m in maps for r in REDUCTIONS}
    if trained:
        make_optimizer(settings_of(config).train, labels, total_steps=10)


@pytest.mark.parametrize("name", shipped_names())
def test_every_config_has_the_promised_variants_and_lists_all_of_them(name):
    variants = variants_of(name)
    assert {"small", "paper"} <= set(variants)
    text = (shipped_folder() / f"{name}.py").read_text()
    described = ast.get_docstring(ast.parse(text), clean=False)
    assert not [v for v in variants if f"  {v} " not in described and f"\n  {v}" not in described]


def test_variants_are_read_with_spaces_and_commas():
    assert load_config("cae: small , l2").variants == "small,l2"
    assert load_config("cae:l2,l2").variants == "l2"
    assert load_config("cae:,,").variants == ""


PAIRS = [(name, *pair) for name in shipped_names() for pair in combinations(variants_of(name), 2)]


@pytest.mark.parametrize("name, one, other", PAIRS, ids=[":".join(triple) for triple in PAIRS])
def test_two_variants_both_hold_in_any_order_or_are_refused(name, one, other, monkeypatch):
    functions = {}
    monkeypatch.setattr(
        config_module,
        "apply_variants",
        lambda config, variants, known, **options: (
            functions.update(known) or apply_variants(config, variants, known, **options)
        ),
    )
    found = []
    for variants in (f"{one},{other}", f"{other},{one}"):
        try:
            found.append(load_config(f"{name}:{variants}"))
        except UserError as error:
            assert one in str(error) and other in str(error)
            found.append(None)
    first, second = found
    if first is None:
        assert second is None
        return
    values = flatten(first)
    assert values | {"variants": ""} == flatten(second) | {"variants": ""}
    for variant in (one, other):
        if variant in SOURCES or (variant in SIZES and not {one, other} & {*SOURCES}):
            continue  # the other one refines it
        again = first.copy_and_resolve_references()
        with again.unlocked():
            functions[variant](again)
        assert flatten(again) == values, f"{variant} does not hold"
    try:
        models.build_from(settings_of(first))
    except UserError as error:
        assert "model." in str(error) or "data.image_size" in str(error)


@pytest.mark.parametrize(
    "spec, key, value",
    [
        ("vae_grf:paper,matern32", "family", "matern32"),
        ("vae_grf:matern32,paper", "family", "matern32"),
        ("vae_grf:reference,exponential", "family", "exponential"),
        ("vae_grf:paper", "family", "identity"),
        ("vae_grf:paper,small,matched,exponential", "learn", "no"),
    ],
)
def test_a_field_is_what_its_variant_names(spec, key, value):
    config = load_settings(spec)
    assert config.model.options[key] == value and config.evaluate.protocol == "vae_compare"
    module = models.build_from(config).module
    learned = {"no": "no"}.get(config.model.options["learn"], "image")
    expected = "no" if module.prior.family == "identity" else learned
    assert (module.prior.family, module.prior.learn) == (config.model.options["family"], expected)


def test_a_field_without_range_is_not_learned():
    with pytest.raises(UserError, match=r"nothing to learn by model\.learn=elbo"):
        models.build_from(load_settings("vae_grf:reference,elbo"))


def test_overrides_come_after_variants():
    assert load_config("cae:small", {"data.image_size": "64,96"}).data.image_size == (64, 96)


@pytest.mark.parametrize(
    "spec, overrides, sentence",
    [
        ("vqvea", {}, r"no config named 'vqvea'; did you mean 'vqvae'\?"),
        ("common", {}, r"common holds the keys of every config but no model"),
        ("configs/vqvea.py", {}, r"file configs/vqvea.py does not exist; did you mean 'vqvae'\?"),
        ("vqvae:smal", {}, r"config of 'vqvae' has no variant 'smal'; did you mean 'small'\?"),
        ("vqvae", {"train.epoch": "3"}, r"unknown config key 'train.epoch'; .*'train.epochs'\?"),
        ("vqvae", {"batch_size": "3"}, "did you mean 'evaluate.batch_size' or 'train.batch_size'"),
        ("vqvae", {"model.chanels": "3"}, "did you mean 'model.ssim_channels'"),
        ("vqvae", {"trian.steps": "3"}, r"did you mean 'train.steps'\?"),
        ("vqvae", {"data.path": "x"}, r"key 'data.path'; `jaxad config NAME` lists every key"),
        ("vqvae", {"epochs": "3"}, r"unknown config key 'epochs'; did you mean 'train.epochs'\?"),
        ("vqvae", {"trian.epochs": "3"}, r"unknown config key 'trian'; .*'train.epochs'\?"),
        ("vqvae", {"zzz": "3"}, r"unknown config key 'zzz'; `jaxad config NAME` lists every key"),
        ("vqvae", {"seed.x": "3"}, r"unknown config key 'seed.x'"),
        ("vqvae", {"train": "3"}, r"'train' is a group; set one of its keys: train.accumulate, "),
        ("cae", {"train.learning_rate_multipliers": "1"}, r"is a group.*multipliers.LABEL"),
        ("vqvae", {"train.epochs": "many"}, r"'train.epochs' takes a whole number, not 'many'"),
        ("vqvae", {"train.epochs": "2.5"}, r"'train.epochs' takes a whole number, not 2.5"),
        ("vqvae", {"train.epochs": "true"}, r"'train.epochs' takes a whole number, not True"),
        ("vqvae", {"train.epochs": "None"}, r"'train.epochs' takes a whole number, not None"),
        ("vqvae", {"train.learning_rate": "nan"}, r"takes a number, not 'nan'"),
        ("vqvae", {"train.force_pmap": "1"}, r"'train.force_pmap' takes True or False, not 1"),
        ("vqvae", {"data.image_size": "1,2,3"}, r"takes 2 numbers, not \(1, 2, 3\)"),
        ("vqvae", {"data.image_size": "64,big"}, r"takes numbers such as 256,256, not '64,big'"),
        ("vqvae", {"data.image_size": "64.5,64"}, r"takes numbers such as 256,256"),
        ("vqvae", {"data.root": 3}, r"'data.root' takes text, not 3"),
    ],
)
def test_mistakes_are_sentences_that_name_the_nearest(spec, overrides, sentence):
    with pytest.raises(UserError, match=sentence):
        load_config(spec, overrides)


@pytest.mark.parametrize(
    "key, text, value",
    [
        ("data.image_size", "128,96", (128, 96)),
        ("data.image_size", "(128, 96)", (128, 96)),
        ("data.image_size", "64", (64, 64)),
        ("data.image_size", [32, 16], (32, 16)),
        ("train.learning_rate", "1e-4", 1e-4),
        ("train.learning_rate", "1", 1.0),
        ("train.epochs", "20", 20),
        ("train.epochs", "2e1", 20),
        ("train.force_pmap", "true", True),
        ("train.force_pmap", "False", False),
        ("data.root", "1e-4", "1e-4"),
        ("data.root", "", ""),
        ("data.root", pathlib.Path("a/b"), "a/b"),
        ("train.learning_rate_multipliers.codebook", "0", 0.0),
        ("train.learning_rate_multipliers.encoder", "0.5", 0.5),
    ],
)
def test_text_becomes_the_type_of_the_key(key, text, value):
    found = flatten(load_config("vqvae", {key: text}))[key]
    assert found == value and type(found) is type(value)


def test_a_key_that_may_be_none(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from . import common\n"
        "from ml_collections import config_dict\n"
        "def get_config(variants=''):\n"
        "    config = common.get_config()\n"
        "    config.model.limit = config_dict.placeholder(int)\n"
        "    return config\n"
    )
    assert load_config(str(path)).model.limit is None
    assert load_config(str(path), {"model.limit": "None"}).model.limit is None
    config = load_config(str(path), {"model.limit": "3"})
    assert config.model.limit == 3
    assert flatten(from_json(to_json(config))) == flatten(config)


def test_a_config_is_locked():
    config = load_config("vqvae")
    with pytest.raises(AttributeError):
        config.train.epoch = 3
    with pytest.raises(AttributeError):
        config.train.learning_rate_multipliers.other = 3.0
    with pytest.raises(TypeError):
        config.train.epochs = "three"
    set_key(config, "train.learning_rate_multipliers.other", "0.5")
    with pytest.raises(AttributeError):
        config.train.learning_rate_multipliers.third = 3.0


@pytest.mark.parametrize("name", shipped_names())
def test_json_and_back(name):
    config = load_config(f"{name}:small")
    text = to_json(config)
    assert json.loads(text)["schema"] == 1
    again = from_json(text)
    assert flatten(again) == flatten(config)
    types = lambda one: {key: type(value) for key, value in flatten(one).items()}
    assert types(again) == types(config)
    assert json.loads(to_json(again)) == json.loads(text)


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("", r"config.json is damaged"),
        ('{"schema": 1, "seed"', r"config.json is damaged"),
        ("[1]", r"config.json is damaged .it holds no object.; restore it"),
        ('{"schema": 99}', r"config.json has schema 99, this jaxad reads 1; use the version"),
        ('{"train": 3}', r"config.json is damaged .'train' is 3, not an object"),
        ('{"seed": 1.5}', r"config.json is damaged .'seed' is 1.5, not a whole number"),
        ('{"model": {"name": 3}}', r"config.json: the config key 'model.name' takes text"),
        (
            '{"train": {"epochs": 0}}',
            r"config.json: the config key 'train.epochs' must be at least",
        ),
    ],
)
def test_a_damaged_config_json_is_a_sentence(text, sentence):
    with pytest.raises(UserError, match=sentence):
        from_json(text)


MINE = """
from jaxad.run.config import apply_variants
from . import common, vqvae

def get_config(variants=""):
    config = vqvae.get_config()
    config.train.epochs = 7
    {line}
    return apply_variants(config, variants, {{"tiny": tiny}})

def tiny(config):
    config.model.codes = 2
"""


def write_mine(folder: pathlib.Path, line: str = "") -> str:
    (folder / "mine.py").write_text(MINE.format(line=line))
    return str(folder / "mine.py")


def test_a_file_elsewhere_builds_on_the_shipped_ones(tmp_path):
    config = load_config(f"{write_mine(tmp_path)}:tiny", {"train.steps": "3"})
    assert (config.model.codes, config.train.epochs, config.train.steps) == (2, 7, 3)
    # Another file of the same name is another config.
    (tmp_path / "other").mkdir()
    path = write_mine(tmp_path / "other", "config.seed = 5")
    assert load_config(path).seed == 5 and load_config(write_mine(tmp_path)).seed == 0


def test_a_shipped_file_is_found_by_its_path_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        load_config("configs/vqvae.py:small").model.features
        == load_config("vqvae:small").model.features
    )


@pytest.mark.parametrize(
    "line, sentence",
    [
        ("config.train.epoch = 3", r"sets an unknown key 'train.epoch'; .*'train.epochs'"),
        ("del config.train['epochs']", r"lacks the key 'train.epochs'; start it from common"),
        ("config.train = 1 / 0", r"mine.py fails at line 8: ZeroDivisionError: division by zero"),
        ("import nothing_of_this_name", r"fails at line 8: ModuleNotFoundError: No module named"),
        ("this is no python", r"fails at line \d+: SyntaxError"),
    ],
)
def test_mistakes_in_a_file_are_sentences(tmp_path, line, sentence):
    with pytest.raises(UserError, match=sentence):
        load_config(write_mine(tmp_path, line))


def test_a_file_without_get_config_is_a_sentence(tmp_path):
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(UserError, match=r"defines no function get_config"):
        load_config(str(tmp_path / "empty.py"))


BOUNDED = {
    group.group + name: rule
    for group in (*GROUPS.values(), *(a.options for a in models.ARCHITECTURES.values()))
    for name, rule in group.rules().items()
    if (rule.at_least, rule.above) != (None, None)
}


@pytest.mark.parametrize("key", [key for key in BOUNDED if not key.startswith("model.")])
def test_values_that_no_run_can_work_with_are_refused(key):
    rule = BOUNDED[key]
    too_small = "0" if rule.above is not None else str(int(rule.at_least) - 1)
    with pytest.raises(UserError, match=rf"config key '{key}' must be "):
        load_settings("vqvae", {key: too_small})
    if rule.below is not None:
        with pytest.raises(UserError, match=r"from 0 to below 1, not \(?1\.0"):
            load_settings("vqvae", {key: "1"})


def test_not_a_number_is_refused_where_python_sets_it():
    for value in (float("nan"), float("inf")):
        with pytest.raises(UserError, match=r"'train.learning_rate' must be 0 or more"):
            load_settings("vqvae", {"train.learning_rate": value})


def test_a_choice_is_refused_with_all_that_are_known():
    with pytest.raises(
        UserError, match=r"'train.optimizer' must be one of adam, adamw, sgd, none, not"
    ):
        load_settings("vqvae", {"train.optimizer": "adm"})


@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_every_option_has_a_meaning_and_takes_its_default(name):
    for group in (*GROUPS.values(), models.ARCHITECTURES[name].options):
        group()  # checks every default
        for option, rule in group.rules().items():
            assert rule.meaning and "\n" not in rule.meaning, option


@pytest.mark.parametrize("name", shipped_names())
def test_python_and_the_config_build_the_same_model(name):
    """What a config leaves alone is what `models.build` takes: one default, said once."""
    options = load_config(name).model.to_dict()
    assert options.pop("name") == name
    assert options == models.ARCHITECTURES[name].options.defaults()


@pytest.mark.parametrize("name", shipped_names())
def test_every_key_is_described(name):
    settings = load_settings(name)
    assert {key for key, _, _ in models.described(settings)} == set(flatten(settings))


def test_a_run_written_before_a_key_existed_has_its_default():
    config = load_config("pca", {"train.epochs": 7})
    values = json.loads(to_json(config))
    del values["evaluate"]["protocol"], values["train"]["weights"], values["content_sha256"]
    read = from_json(json.dumps(values))
    assert flatten(read) == flatten(config)


@pytest.mark.parametrize(
    ("spec", "score"),
    [
        ("vqvae:small,demo", "ssim:top1"),
        ("vqvae:small,paper", "ssim*am:mean"),
        ("vqvae:reference", "ssim*am:mean"),
        ("vqvae:small,cifar10", "ssim*am:mean"),
        ("vqvae:ucsd", "ssim*am:mean"),
    ],
)
def test_the_papers_score_stays_in_its_variants(spec, score):
    evaluate = load_config(spec).evaluate
    assert evaluate.primary_score == score
    assert score.startswith(f"{evaluate.primary_map}:")
