"""Settings shared by all tests: four virtual CPU devices, strict shapes, the place of real images."""

import os
import pathlib

import pytest

# Before JAX is imported anywhere: four devices, so that pmap is tested on every machine.
os.environ.setdefault("JAX_PLATFORMS", os.environ.get("JAXAD_TEST_PLATFORM", "cpu"))

import jax

jax.config.update("jax_num_cpu_devices", 4)
# A forgotten axis must fail, not broadcast.
jax.config.update("jax_numpy_rank_promotion", "raise")

PROJECT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def project_root() -> pathlib.Path:
    return PROJECT


@pytest.fixture(scope="session")
def real_data() -> pathlib.Path:
    """The folder of real images, or a skip where there is none."""
    root = pathlib.Path(os.environ.get("JAXAD_DATA", PROJECT.parent / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no real images at {root} (set JAXAD_DATA)")
    return root
