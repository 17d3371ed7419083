"""Pure maths on arrays, with JAX only: everything can be jitted, vmapped and differentiated.

A function is imported from its module: ``from jaxad.ops.ssim import ssim_map``. The modules
`continuous_bernoulli`, `grf`, `memory` and `mixture_density` are used by their names, since a
distribution's ``mean`` or a memory's ``read`` says little alone.
"""
