"""``.. automodules:: PACKAGE`` documents every public module of a package, each in a section."""

from __future__ import annotations

import importlib
import pkgutil
import re

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective


class AutoModules(SphinxDirective):
    """One section with an ``automodule`` for each module, so that none is forgotten."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The sections, in the order of the modules' names."""
        package = importlib.import_module(self.arguments[0])
        sections = []
        for found in pkgutil.iter_modules(package.__path__):
            if found.ispkg or found.name.startswith("_"):
                continue
            name = f"{package.__name__}.{found.name}"
            section = nodes.section(ids=[nodes.make_id(name)], names=[name])
            section += nodes.title("", found.name)
            source = self.get_source_info()[0]
            self.state.nested_parse(StringList([f".. automodule:: {name}"], source), 0, section)
            sections.append(section)
        return sections


def _name_aliases(app, what, name, object_, options, signature, returns):
    # Sphinx shows a name of autodoc_type_aliases that is part of a union by its own type.
    shorten = lambda text: text and re.sub(r"TypeAliasForwardRef\('(\w+)'\)", r"\1", text)
    return shorten(signature), shorten(returns)


def _skip_fields(app, what, name, object_, skip, options):
    # The class says what its fields are; of a named tuple's, Python only knows their number.
    return True if type(object_).__name__ == "_tuplegetter" else None


def setup(app) -> dict:
    """Registers the directive."""
    app.add_directive("automodules", AutoModules)
    app.connect("autodoc-process-signature", _name_aliases)
    app.connect("autodoc-skip-member", _skip_fields)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
