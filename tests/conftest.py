"""Settings shared by all tests: four virtual CPU devices, strict shapes, the place of real images."""

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import shutil
import sys
import tempfile

import pytest

# Before JAX is imported anywhere: four devices, so that pmap is tested on every machine.
os.environ.setdefault("JAX_PLATFORMS", os.environ.get("JAXAD_TEST_PLATFORM", "cpu"))

# Most of the time of these tests is compilation, and nearly half of that is optimisation which tiny
# shapes never pay back. `make test-all` compiles as users do.
if not os.environ.get("JAXAD_FULL_OPTIMISATION"):
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    # XLA's older way to compile fused operations takes a third of the time off, and programs that
    # are compiled in one part a twelfth of the rest. Other versions of XLA may not have the switches,
    # and one that they do not know ends the process.
    if importlib.metadata.version("jaxlib").startswith("0.10."):
        switches = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {switches}".strip()

# Nothing of a test goes into, or comes from, the cache of whoever runs it.
os.environ["JAXAD_CACHE"] = tempfile.mkdtemp(prefix="jaxad-tests-")

import jax
import jaxtyping
from stripes import write_stripes

# Arguments and results are checked against their annotations. As for mypy, a whole number may
# stand for a float.
jaxtyping.install_import_hook(
    "jaxad", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
)

jax.config.update("jax_num_cpu_devices", 4)
# Tiny programs compile in less than the second from which on the cache keeps them; here it keeps all.
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
# A forgotten axis must fail, not broadcast.
jax.config.update("jax_numpy_rank_promotion", "raise")

PROJECT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def project_root() -> pathlib.Path:
    return PROJECT


@pytest.fixture(scope="session")
def load_tool():
    """Imports a script of tools/ by name, such as "studies/restore", as if it had been run."""

    def load(name: str):
        path = PROJECT / "tools" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        sys.path.insert(0, str(path.parent))  # a script finds the modules beside it
        try:
            spec.loader.exec_module(module)
        finally:
            sys.path.remove(str(path.parent))
        return module

    return load


@pytest.fixture(scope="module", autouse=True)
def forget_compiled_functions():
    """What a file of tests compiled is of no use to the next: a process would grow to 6 GB."""
    yield
    jax.clear_caches()


@pytest.fixture
def unchecked():
    """Arguments of any type and shape get through, as they do for whoever has no checks."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


def pytest_unconfigure():
    shutil.rmtree(os.environ["JAXAD_CACHE"], ignore_errors=True)


@contextlib.contextmanager
def edited_json(path: pathlib.Path):
    """The values of a JSON file of a run, written back as by someone who edits it by hand."""
    values = json.loads(path.read_text())
    del values["content_sha256"]
    yield values
    path.write_text(json.dumps(values))


@pytest.fixture(scope="session")
def edited():
    return edited_json


TINY = {
    "data.image_size": "16,16",
    "data.pipeline": "memory",
    "model.features": "4",
    "model.codes": "4",
    "model.residual_layers": "1",
    "train.batch_size": "4",
    "train.steps": "12",
    "train.log_every": "2",
    "train.checkpoint_every": "4",
    "train.devices": "1",
    "evaluate.batch_size": "4",
}


@pytest.fixture(scope="session")
def tiny() -> dict[str, str]:
    """Overrides of the config vqvae: 16 x 16 pixels, four codes, a dozen steps, one device."""
    return TINY


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> pathlib.Path:
    """A data set in the MVTec layout: 20 good training images, 3 good and 3 defective to test."""
    root = tmp_path_factory.mktemp("data") / "stripes"
    write_stripes(root)
    return root


@pytest.fixture(scope="session")
def real_data() -> pathlib.Path:
    """The folder of real images, or a skip where there is none."""
    root = pathlib.Path(os.environ.get("JAXAD_DATA", PROJECT.parent / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no real images at {root} (set JAXAD_DATA)")
    return root
