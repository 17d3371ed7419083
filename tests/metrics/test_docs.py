"""The examples in the docstrings run, and the package stays free of JAX."""

import doctest
import subprocess
import sys

import pytest

from jaxad import metrics
from jaxad.metrics import bootstrap, pimo, pro, regions, roc, streaming, summary


@pytest.mark.parametrize(
    "module", [bootstrap, pimo, pro, regions, roc, streaming, summary], ids=lambda m: m.__name__
)
def test_examples(module):
    result = doctest.testmod(module)
    assert result.attempted > 0 and result.failed == 0


def test_imports_neither_jax_nor_other_heavy_packages():
    heavy = "{'jax', 'flax', 'tensorflow', 'torch', 'sklearn', 'matplotlib'}"
    code = f"import sys, jaxad.metrics; print(*sorted({heavy} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == []


@pytest.mark.parametrize("name", [n for n in metrics.__all__ if n != "UndefinedMetric"])
def test_everything_public_has_an_example_and_says_what_it_takes(name):
    text = getattr(metrics, name).__doc__
    assert ">>> " in text and "Args:" in text
