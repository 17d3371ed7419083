"""Our pages: their templates, and what these are given.

All HTML stands in ``report/templates``; text that comes into it is escaped. A page is one file that
fetches nothing and is complete without scripts. It has one, ``page.js``, which gives a page of
images its slider and filters, and all pages the choice of dark or light; the content security
policy names it by its hash, so that the browser runs no other.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
import numpy as np
from jaxtyping import UInt8
from markupsafe import Markup

from jaxad.report.charts import MODEL_COLOURS
from jaxad.report.content import is_known
from jaxad.report.figures import MAP_WEIGHT, legend
from jaxad.report.pictures import data_uri
from jaxad.report.tables import format_score, format_value
from jaxad.report.terms import TERMS

SORTABLE_COLUMNS = 24
"""Most columns of a table that can be sorted by any of them."""


class Section(NamedTuple):
    """A part of a page; without a body it is left out."""

    anchor: str
    heading: str
    body: str


class Picture(NamedTuple):
    """An image on a page.

    Attributes:
      pixels: (h, w, c) uint8, c is 1 or 3.
      alt: what screen readers say.
    """

    pixels: UInt8[np.ndarray, "h w c"]
    alt: str

    @property
    def uri(self) -> Markup:
        """A data URI."""
        return data_uri(self.pixels)


class Cell(NamedTuple):
    """A cell of a table that is more than its text.

    Attributes:
      text: what it shows.
      key: number or text that it is sorted by; None comes last.
      why: shown on hovering.
      link: where the text leads.
      best: in bold.
      chance: what guessing gives, of a figure that is not better; None of others.
    """

    text: str
    key: Any = None
    why: str = ""
    link: str = ""
    best: bool = False
    chance: float | None = None


class Table(NamedTuple):
    """A table; the first cell of a row heads it.

    Attributes:
      headers: one per column.
      rows: of texts and cells.
      marked: index of a row to set in bold.
      kind: class in the style sheet.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    marked: int | None = None
    kind: str = "metrics"


def metric_cell(value: object, *, why: str = "", best: bool = False) -> Cell:
    """A metric in a table; an undefined one is "–" that tells its reason on hovering."""
    known = is_known(value)
    return Cell(format_value(value), value if known else None, "" if known else why, best=best)


def sortable_table(
    headers: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    name: str,
    smallest_first: Collection[int] = (),
) -> Markup:
    """A table whose column headings sort it.

    Args:
      headers: at most :data:`SORTABLE_COLUMNS`.
      rows: the first cell heads its row, and its column means the order given.
      name: of the table, unique on the page.
      smallest_first: columns that sort upwards; others have the largest first.

    Returns:
      HTML.
    """
    places = [[0] * len(headers) for _ in rows]
    for column in range(len(headers)):
        known = [i for i, row in enumerate(rows) if column and is_known(row[column].key)]
        # Stable in both directions: rows that are equal keep the order given.
        down = column not in smallest_first
        known.sort(key=lambda i: rows[i][column].key, reverse=down)
        for place, row in enumerate(known + [i for i in range(len(rows)) if i not in known]):
            places[row][column] = place
    return fragment("parts", "sortable", headers, rows, places, name)


@functools.cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxad.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["score"] = format_score
    # A path may wrap after each folder.
    environment.filters["breakable"] = lambda path: Markup("/<wbr>").join(path.split("/"))
    environment.globals |= {
        "heat_colours": ", ".join("#" + one.tobytes().hex() for one in legend(17)),
        "map_weight": MAP_WEIGHT,
        "model_colours": MODEL_COLOURS,
        "sortable_columns": SORTABLE_COLUMNS,
        "terms": TERMS,
    }
    return environment


def fragment(template: str, macro: str, *values: Any, **named: Any) -> Markup:
    """What a macro makes of its arguments: HTML without blanks around it.

    Args:
      template: name of the file in ``report/templates`` before ``.html.j2``.
      macro: its name there.
      *values: of the macro.
      **named: likewise.
    """
    module = _templates().get_template(f"{template}.html.j2").module
    return Markup(getattr(module, macro)(*values, **named)).strip()


def text_page(template: str, **values: Any) -> str:
    """A whole template as text, such as Markdown."""
    return _templates().get_template(template).render(values)


class Live(NamedTuple):
    """What makes a page one to work with.

    Attributes:
      data: for its script.
      extra: HTML behind the last section.
    """

    data: Mapping[str, Any]
    extra: Markup


def page(
    title: str, sections: Sequence[Section], *, lead: str = "", live: Live | None = None
) -> str:
    """Assembles a page.

    Args:
      title: heading and window title, as text.
      sections: in order; they make the contents.
      lead: HTML between the heading and the first section.
      live: of a page of images; None for others.

    Returns:
      The HTML document.
    """
    shown = [section for section in sections if section.body]
    script = _script()
    return text_page(
        "page.html.j2",
        title=title,
        sections=shown,
        lead=lead,
        live=live,
        script=script,
        allowed=Markup(f"'{integrity(script)}'"),
    )


def integrity(content: str | bytes) -> str:
    """The digest of a script as pages name it, in a policy or beside its address."""
    content = content.encode() if isinstance(content, str) else content
    return "sha256-" + base64.b64encode(hashlib.sha256(content).digest()).decode()


@functools.cache
def _script() -> Markup:
    return Markup(pathlib.Path(__file__).with_name("page.js").read_text(encoding="utf-8"))
