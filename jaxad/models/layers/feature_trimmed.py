"""What detection needs of a fitted :mod:`jaxad.models.feature_pca`, and no more.

Of one image a CPU spends most of its time reading parameters, so those that do nothing are left
out: axes of zeros, where there were fewer good images than axes; of two covariances the one that
the fit decided against. And where that of positions decides, which looks at some channels, the axes
give back these alone; for that they are there a second time, of these channels.
"""

from __future__ import annotations

import numpy as np

from jaxad.models.base import Variables
from jaxad.models.layers.feature_reconstruction import FeaturePCA


def trimmed(
    module: FeaturePCA, variables: Variables, *, compact: bool
) -> tuple[FeaturePCA, Variables]:
    """The module and the variables of the same detection.

    Args:
      module: of the model.
      variables: fitted.
      compact: nothing is there a second time.
    """
    module, params = _without_empty_axes(module, dict(variables["params"]))
    module, params = _with_one_covariance(module, params)
    if not compact:
        module, params = _of_judged_channels(module, params)
    return module, {**variables, "params": params}


def _without_empty_axes(module: FeaturePCA, params: Variables) -> tuple[FeaturePCA, Variables]:
    names = ("axes", "shrinkage", "picture_axes")
    if not module.components:
        return module, params
    used = np.flatnonzero(np.asarray(params["shrinkage"]))
    count = int(used[-1]) + 1 if used.size else 0
    others = {name: leaf for name, leaf in params.items() if name not in names}
    some = {name: params[name][:count] for name in names if count}
    return module.clone(components=count), others | some


def _with_one_covariance(module: FeaturePCA, params: Variables) -> tuple[FeaturePCA, Variables]:
    if not (module.pooled and module.channels):
        return module, params
    if float(np.asarray(params["by_position"])) > 0.5:
        module, unused = module.clone(pooled=False), ["whitening"]
    else:
        module, unused = module.clone(channels=()), ["factors", "by_position"]
    return module, {name: leaf for name, leaf in params.items() if name not in unused}


def _of_judged_channels(module: FeaturePCA, params: Variables) -> tuple[FeaturePCA, Variables]:
    by_position = module.channels and not module.pooled
    # The plain residual is of all channels.
    if not module.components or not by_position or module.plain:
        return module, params
    layout = module.layout
    if not all(channels for *_, channels in layout.part(module.channels).stages):
        return module, params
    judged = np.ascontiguousarray(np.asarray(params["axes"])[:, layout.columns(module.channels)])
    return module.clone(alone=True), {**params, "judged_axes": judged}
