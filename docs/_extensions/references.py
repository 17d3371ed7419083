"""References in prose must lead somewhere; types in signatures may belong to other packages."""

from __future__ import annotations

from docutils import nodes


def _leave_types_as_text(app, env, node, contnode):
    # A role in a docstring or a page has literal text; what autodoc makes of a type has not.
    if node.get("refdomain") == "py" and not isinstance(contnode, nodes.literal):
        return contnode
    return None


def setup(app) -> dict:
    """Connects to Sphinx's search for references."""
    app.connect("missing-reference", _leave_types_as_text)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
