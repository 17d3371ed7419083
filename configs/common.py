"""The start of every model's config: all shared keys and the model's options, with defaults.

``jaxad config NAME`` lists them with their meanings; they are stated in
:mod:`jaxad.run.settings` and in the options of each model. Any key can be overridden:
``--config.train.epochs=20``.
"""

from ml_collections import ConfigDict

from jaxad.models import architecture
from jaxad.run.config import default_config


def get_config(model: str = "") -> ConfigDict:
    """The defaults that the config of a model starts from.

    Args:
      model: a name of :data:`jaxad.models.ARCHITECTURES`; empty: no model is chosen yet.
    """
    return default_config(model, architecture(model).options.defaults() if model else {})
