"""The documentation site: `make docs` builds it into docs/_build/html."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

import jax

from jaxad import __version__

jax.Array.__name__ = "Array"  # else signatures show the module of its C++ class

project = "jaxad"
author = copyright = "The jaxad authors"
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "automodules",
    "config_keys",
    "mathml",
    "references",
]
exclude_patterns = ["_build"]
templates_path: list[str] = []

# Every reference must lead somewhere, but for the types of other packages: the build asks no
# network for their inventories.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(jax|jaxlib|jaxtyping|flax|nn|optax|orbax|chex|np|numpy|jnp|PIL|pathlib)(\..*)?"),
    (
        r"py:.*",
        r"(collections|contextlib|typing|argparse|ml_collections|tensorflow|tf|concurrent)(\..*)?",
    ),
    (r"py:.*", r"[a-zA-Z]"),  # type variables
]

# A type in a signature stands without its module: two modules may have one of that name.
suppress_warnings = ["ref.python"]

smartquotes = False  # they would change what is to be typed
default_role = "code"  # of `names` in docstrings
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "member-order": "bysource", "show-inheritance": True}
autodoc_preserve_defaults = True
autodoc_type_aliases = {"npt.ArrayLike": "ArrayLike", "ArrayLike": "ArrayLike"}
autodoc_typehints = "signature"
autodoc_inherit_docstrings = False
add_module_names = False
python_maximum_signature_line_length = 88
napoleon_use_ivar = True
napoleon_attr_annotations = False  # the signature has them; their stars would be read as markup
napoleon_numpy_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = "jaxad"
html_math_renderer = "mathml"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
