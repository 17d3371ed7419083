"""``{config-keys}`` GROUP: the table of a config's keys, from the dataclasses that state them.

GROUP is a group of shared keys (``data``, ``train``, ...), ``models`` for a section per model, or
nothing for the keys that belong to no group.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from jaxad.models import ARCHITECTURES
from jaxad.run.config import default_config, flatten, load_config, shipped_names
from jaxad.run.options import Rule
from jaxad.run.settings import GROUPS, TOP_LEVEL

COLUMNS = ("key", "default", "meaning", "allowed")
AFTER_TRAINING = "after training"


def table(rows: Iterable[tuple[str, ...]], columns: tuple[str, ...] = COLUMNS) -> str:
    """A Markdown table."""
    lines = [columns, ("---",) * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def shown(value: Any) -> str:
    """A value as it is written on a command line."""
    if value in ("", {}):
        return "empty"
    text = ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
    return f"`{text}`"


def row(key: str, default: Any, rule: Rule, *, mark_detection: bool = False) -> tuple[str, ...]:
    """The row of one key."""
    meaning = rule.meaning.replace("|", "\\|").replace("*", "\\*").replace("<", "\\<")
    cells = (f"`{key}`", shown(default), meaning, rule.wanted())
    return (*cells, "yes" if rule.detection_only else "") if mark_detection else cells


def group_table(group: str) -> str:
    """The table of one group of shared keys; of the keys without a group if empty."""
    if not group:
        values = flatten(default_config())
        return table(row(key, values[key], rule) for key, rule in TOP_LEVEL.items())
    options = GROUPS[group]
    defaults = options.defaults()
    return table(row(f"{group}.{n}", defaults[n], rule) for n, rule in options.rules().items())


def changed_keys(name: str) -> dict[str, Any]:
    """The shared keys to which a model's config gives another default."""
    shared = flatten(default_config())
    config = flatten(load_config(name))
    return {
        key: value
        for key, value in config.items()
        if not key.startswith("model.") and value != shared.get(key)
    }


def model_sections() -> Iterable[tuple[str, str]]:
    """Each model's name and the Markdown of its section."""
    for name in sorted(ARCHITECTURES, key=shipped_names().index):
        options = ARCHITECTURES[name].options
        defaults = options.defaults()
        rows = [
            row(f"model.{option}", defaults[option], rule, mark_detection=True)
            for option, rule in options.rules().items()
        ]
        changed = ", ".join(
            f"`{key}={shown(value).strip('`')}`" for key, value in changed_keys(name).items()
        )
        text = table(rows, (*COLUMNS, AFTER_TRAINING))
        yield name, f"{text}\n\nOther defaults of shared keys: {changed}." if changed else text


class ConfigKeys(SphinxDirective):
    """The table of a group, or the sections of all models."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The nodes of the table or of the sections."""
        group = self.arguments[0] if self.arguments else ""
        if group != "models":
            return self.parse_text_to_nodes(group_table(group))
        found = []
        for name, text in model_sections():
            section = nodes.section(names=[f"config-{nodes.make_id(name)}"])
            self.state.document.note_explicit_target(section)
            section += nodes.title("", "", nodes.literal("", name))
            section += self.parse_text_to_nodes(text)
            found.append(section)
        return found


def setup(app) -> dict:
    """Registers the directive."""
    app.add_directive("config-keys", ConfigKeys)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
