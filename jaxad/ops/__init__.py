"""Pure maths on arrays, with JAX only: everything can be jitted, vmapped and differentiated.

`continuous_bernoulli`, `grf`, `memory` and `mixture_density` are used by their module names,
since the ``mean`` of a distribution or the ``read`` of a memory says little alone.
"""

from jaxad.ops import (
    continuous_bernoulli as continuous_bernoulli,
    grf as grf,
    memory as memory,
    mixture_density as mixture_density,
)
from jaxad.ops.blur import gaussian_blur as gaussian_blur
from jaxad.ops.correlation import (
    correlation_length as correlation_length,
    radial_autocorrelation as radial_autocorrelation,
)
from jaxad.ops.morphology import (
    grey_closing as grey_closing,
    grey_dilation as grey_dilation,
    grey_erosion as grey_erosion,
    grey_opening as grey_opening,
)
from jaxad.ops.patches import patchify as patchify, unpatchify as unpatchify
from jaxad.ops.positions import sincos_positions as sincos_positions
from jaxad.ops.resize import (
    bilinear_resize_align_corners as bilinear_resize_align_corners,
    repeat_upsample as repeat_upsample,
)
from jaxad.ops.ssim import ssim_map as ssim_map
from jaxad.ops.tiles import (
    average_tiles as average_tiles,
    extract_tiles as extract_tiles,
    random_crops as random_crops,
    tile_positions as tile_positions,
)
from jaxad.ops.vector_quantisation import (
    CodeAverages as CodeAverages,
    Quantisation as Quantisation,
    code_counts_and_sums as code_counts_and_sums,
    ema_update as ema_update,
    init_averages as init_averages,
    nearest_code as nearest_code,
    perplexity as perplexity,
    quantise as quantise,
)
