"""TensorFlow and its data sets, imported where they are needed and kept from the GPU."""

from __future__ import annotations

import os
from typing import Any

from jaxad.run.errors import UserError


def import_tensorflow() -> Any:
    """Imports TensorFlow with the GPUs hidden from it: they belong to JAX.

    Raises:
      UserError: the process has already run TensorFlow on a GPU.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Unused by tf.data, and said twice by each process before its log level counts.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    import tensorflow as tf

    try:
        tf.config.set_visible_devices([], "GPU")
    except RuntimeError as error:
        # Too late: the process has already run TensorFlow on the devices that it found.
        if tf.config.get_visible_devices("GPU"):
            raise UserError(
                "TensorFlow already holds a GPU in this process; "
                "set data.pipeline=memory or hide the GPU before using TensorFlow"
            ) from error
    return tf


def import_tensorflow_datasets(what: str) -> Any:
    """Imports TensorFlow Datasets.

    Args:
      what: needs it, such as "writing shards"; begins the sentence of the error.

    Raises:
      UserError: it is not installed.
    """
    try:
        import_tensorflow()  # first, so that it takes no GPU
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError(f"{what} needs TensorFlow Datasets; install jaxad[tf]") from error
    return tfds
