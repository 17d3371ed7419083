"""The examples in the docstrings run, and the package stays free of JAX."""

import doctest
import subprocess
import sys

import pytest

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
