"""The models of cross-fitting that are fitted together, where the model can."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from jaxad.data.pipeline import BatchLoader
from jaxad.data.rows import ImageRows
from jaxad.models.base import Variables
from jaxad.training.preparation import Setup


class FoldsTogether:
    """The models of all folds, fitted together when the first is asked for."""

    def __init__(self, setup: Setup, folds: Int[np.ndarray, " n"]):
        """Keeps what they are fitted to.

        Args:
          setup: of the run; its model has ``fit_to_others``.
          folds: of its training images.
        """
        self._setup, self._folds = setup, folds
        self._found: list[Variables] | None = None

    def variables(self, number: int) -> Variables:
        """Of the model that has not seen a fold.

        Raises:
          ValueError: there are too few images beside a fold.
        """
        if self._found is None:
            fit, images = self._setup.model.fit_to_others, self._setup.inputs.train
            assert fit is not None
            rows = [np.flatnonzero(self._folds == i) for i in range(int(self._folds.max()) + 1)]
            self._found = fit([BatchLoader(ImageRows(images, some)) for some in rows])
        return self._found[number]
