"""What XLA is told when it compiles detection for a CPU.

Recent versions hand products, convolutions and reductions to kernels of YNNPACK. Detection is
slower by those of convolutions and reductions, three times where SSIM is taken over windows;
those of products are as fast or faster. Training steps gain by some of them and lose by others, so
they are compiled as XLA does by itself. ``tools/benchmarks/compilation.py`` measures it.
"""

from __future__ import annotations

import functools
import os

import jax

_KERNELS = "xla_cpu_experimental_ynn_fusion_type"
_OPTIONS = {_KERNELS: "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}


def detection_options() -> dict[str, str]:
    """Options of ``jax.jit`` for programs of detection.

    There are none where the user has chosen (``XLA_FLAGS``), on other devices than CPUs, and in
    versions of XLA that do not know them.
    """
    chosen = _KERNELS in os.environ.get("XLA_FLAGS", "")
    return {} if chosen or jax.default_backend() != "cpu" or not _known() else dict(_OPTIONS)


@functools.cache
def _known() -> bool:
    """Whether this version of XLA takes the options: to one that does not they are an error."""
    try:
        jax.jit(lambda: 0, compiler_options=_OPTIONS).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
