"""What a run ran on, and the user's cache folder."""

from __future__ import annotations

import ctypes
import os
import pathlib
import platform
import subprocess
import sys
from importlib import metadata
from typing import Any

from jaxad.run.errors import UserError

LEAST_ADDRESS_SPACE = 1_800_000_000
"""Bytes; with 1.3 GB JAX could start no threads on two cores, with 1.8 GB a small model ran."""
ADDRESS_SPACE_OF_A_CORE = 50_000_000
"""Bytes that the threads of each core take more, of several libraries."""
PACKAGES = (
    "jaxad",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "scipy",
    "pillow",
    "dm-pix",
    "tensorflow-cpu",
)


def cache_folder() -> pathlib.Path:
    """The user's cache folder of jaxad: ``$JAXAD_CACHE``, else under ``$XDG_CACHE_HOME``."""
    if os.environ.get("JAXAD_CACHE"):
        return pathlib.Path(os.path.expanduser(os.environ["JAXAD_CACHE"]))
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(os.path.expanduser(base)) / "jaxad"


def enable_compilation_cache() -> None:
    """Keeps compiled programs in the user's cache folder, so that a second run starts at once."""
    import jax

    # JAX makes the attributes of its settings at run time.
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled"))
    # JAX keeps only what took more than a second, which detection by most models falls short of:
    # it would be compiled anew at every start of `jaxad predict`, a fifth of its time for one.
    least = "jax_persistent_cache_min_compile_time_secs"
    if getattr(jax.config, least) == 1.0 and least.upper() not in os.environ:
        jax.config.update(least, 0.2)


def check_address_space() -> None:
    """Checks a limit of the address space (``ulimit -v``) before libraries die of it.

    They end the process with a segmentation fault, or because they cannot start a thread.

    Raises:
      UserError: it is smaller than what the libraries take before any image is read.
    """
    try:
        import resource
    except ImportError:  # not a POSIX system
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    needed = LEAST_ADDRESS_SPACE + (os.cpu_count() or 1) * ADDRESS_SPACE_OF_A_CORE
    if limit != resource.RLIM_INFINITY and limit < needed:
        raise UserError(
            f"this process may use {limit / 1e9:.1f} GB of address space (ulimit -v), and needs at "
            f"least {needed / 1e9:.1f} GB, more with larger images and models; raise the limit, or "
            "limit the memory by a container instead"
        )


def keep_freed_memory() -> bool:
    """Lets this process keep the memory that it frees, for the next training step to reuse.

    A step on a CPU allocates and frees gigabytes. glibc gives such blocks back to the system at
    once, and touching them anew, page by page, takes a quarter of the processor time of a step.
    For the command line, whose process ends with the work; to be called before JAX starts its
    threads. The process then holds its peak until it ends.

    Returns:
      Whether the C library took the settings (glibc does).
    """
    trim_threshold, mmap_max, arena_max = -1, -4, -8  # names of glibc's malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False  # not glibc
    # One arena, since those of threads live in blocks of their own; nothing by mmap; no trimming.
    return all(mallopt(name, value) for name, value in
               ((arena_max, 1), (mmap_max, 0), (trim_threshold, -1)))  # fmt: skip


def describe(seed: int) -> dict[str, Any]:
    """Versions, devices, commit and seed, for environment.json."""
    import jax

    devices = jax.local_devices()
    return {
        "versions": {"python": platform.python_version()} | _versions(),
        "platform": platform.platform(),
        "processor": processor_name(),
        "devices": [{"platform": d.platform, "kind": d.device_kind} for d in devices],
        "commit": commit(),
        "seed": seed,
        "command": [pathlib.Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def processor_name() -> str:
    """The processor's model name."""
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def commit() -> str | None:
    """The commit of the clone that jaxad runs from, if it does."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(pathlib.Path(__file__).parent), "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None
