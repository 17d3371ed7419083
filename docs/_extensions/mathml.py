"""Equations as MathML, by the converter in docutils: no script and no network in the reader's page.

Browsers draw MathML themselves. LaTeX that the converter does not know is a warning, so that
`make docs` fails instead of showing it raw.
"""

from __future__ import annotations

from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

logger = logging.getLogger(__name__)


def _convert(node, *, as_block: bool) -> str:
    # Numbered equations are not used here; MyST wraps several lines in an environment by itself.
    text = node.astext().strip()
    try:
        return tex2mathml(text, as_block=as_block)
    except MathError as error:
        logger.warning("%s in the equation %r", error, text, location=node)
        return ""


def _inline(translator, node) -> None:
    from docutils.nodes import SkipNode

    translator.body.append(_convert(node, as_block=False))
    raise SkipNode


def _display(translator, node) -> None:
    from docutils.nodes import SkipNode

    translator.body.append(translator.starttag(node, "div", CLASS="math"))
    translator.body.append(_convert(node, as_block=True))
    translator.body.append("</div>\n")
    raise SkipNode


def setup(app) -> dict:
    """Registers the renderer ``mathml``."""
    app.add_html_math_renderer("mathml", (_inline, None), (_display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
