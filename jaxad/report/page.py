"""The frame of all our pages: style sheet, navigation, inlined images, escaping, atomic writing.

A page is one file that fetches nothing and runs no script; its content security policy makes the
browser hold to that.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Collection, Iterable, Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jaxad.report.content import Scale, is_missing
from jaxad.report.figures import colour_table
from jaxad.report.style import STYLE
from jaxad.report.tables import MISSING, format_score, format_value


def escape(value: object) -> str:
    """Text that is safe inside an element and inside a quoted attribute."""
    return html.escape(str(value), quote=True)


def breakable(path: str) -> str:
    """A path as HTML that may wrap after each folder."""
    return escape(path).replace("/", "/<wbr>")


def data_uri(pixels: UInt8[np.ndarray, "h w c"], *, sharp: bool = False) -> str:
    """Encodes pixels for an ``src`` attribute.

    Args:
      pixels: (h, w, c) uint8, c is 1 or 3.
      sharp: keeps colour at full resolution, for drawn lines; photographs need it not.

    Returns:
      A data URI: JPEG at quality 85, or PNG where that is smaller (flat images).
    """
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    jpeg, png = io.BytesIO(), io.BytesIO()
    image.save(jpeg, "JPEG", quality=85, optimize=True, subsampling=0 if sharp else 2)
    image.save(png, "PNG")
    smaller, kind = min((jpeg, "jpeg"), (png, "png"), key=lambda one: one[0].tell())
    return f"data:image/{kind};base64,{base64.b64encode(smaller.getvalue()).decode()}"


def picture(pixels: UInt8[np.ndarray, "h w c"], *, alt: str, sharp: bool = False) -> str:
    """An image element that is decoded when it comes into view."""
    height, width = pixels.shape[:2]
    return (
        f'<img src="{data_uri(pixels, sharp=sharp)}" alt="{escape(alt)}" width="{width}" '
        f'height="{height}" loading="lazy" decoding="async">'
    )


def enlargeable(image: str, *, alt: str) -> str:
    """An image that fills the window on a click and goes back on the next, without a script."""
    return (
        f'<label class="zoom"><input type="checkbox" aria-label="enlarge {escape(alt)}">'
        f"{image}</label>"
    )


def table(
    headers: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    marked: int | None = None,
    kind: str = "figures",
) -> str:
    """A table from cells that are HTML already; the first column heads its row.

    Args:
      headers: HTML of the heading cells.
      rows: HTML of the body cells, row by row.
      marked: index of a row to set in bold.
      kind: class of the table in the style sheet.
    """
    head = "".join(f'<th scope="col">{cell}</th>' for cell in headers)
    body = []
    for index, (first, *rest) in enumerate(rows):
        cells = f'<th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in rest)
        bold = ' class="marked"' if index == marked else ""
        body.append(f"<tr{bold}>{cells}</tr>")
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def sortable_table(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    keys: Sequence[Sequence[object]],
    *,
    name: str,
    smallest_first: Collection[int] = (),
) -> str:
    """A table whose column headings sort it, by the style sheet alone: no script runs.

    A hidden radio button per column stands before the table; the checked one chooses which of the
    places that every row carries is its order.

    Args:
      headers: HTML of the heading cells, at most :data:`~jaxad.report.style.SORTABLE_COLUMNS`.
      rows: HTML of the body cells; the first heads its row, and its column means the order given.
      keys: per row, what each column sorts by: numbers or texts; missing ones come last.
      name: of the table, unique on the page.
      smallest_first: columns that sort upwards; others have the largest first.

    Returns:
      HTML.
    """
    places = [[0] * len(headers) for _ in rows]
    for column in range(len(headers)):
        known = [i for i, key in enumerate(keys) if column and not is_missing(key[column])]
        # Stable in both directions: rows that are equal keep the order given.
        down = column not in smallest_first
        known.sort(key=lambda i: keys[i][column], reverse=down)
        order = known + [i for i in range(len(rows)) if i not in known]
        for place, row in enumerate(order):
            places[row][column] = place
    buttons, head = [], []
    for column, cell in enumerate(headers):
        mark = f'{name}-{column}"{" checked" if column == 0 else ""}'
        buttons.append(f'<input type="radio" name="{name}" id="{mark} aria-label="sort by {cell}">')
        head.append(
            f'<th scope="col" role="columnheader"><label for="{name}-{column}">{cell}</label></th>'
        )
    body = []
    for (first, *rest), order in zip(rows, places, strict=True):
        style = ";".join(f"--s{column}:{place}" for column, place in enumerate(order))
        cells = "".join(f'<td role="cell">{cell}</td>' for cell in rest)
        body.append(
            f'<tr role="row" style="{style}"><th scope="row" role="rowheader">{first}</th>'
            f"{cells}</tr>"
        )
    return (
        f'<div class="sorter">{"".join(buttons)}<div class="scroll"><table role="table" '
        f'class="figures sortable" style="--columns:{len(headers)}"><thead role="rowgroup">'
        f'<tr role="row">{"".join(head)}</tr></thead><tbody role="rowgroup">{"".join(body)}'
        "</tbody></table></div></div>"
    )


def figure(value: object, *, why: str = "") -> str:
    """A figure for a table cell; an undefined one is "–" that tells its reason on hovering."""
    if is_missing(value):
        return f'<span title="{escape(why)}">{MISSING}</span>'
    return escape(format_value(value))


def colour_bar(scale: Scale) -> str:
    """The legend of all heat maps: the scale's ends and the pixel threshold on it."""
    stops = ", ".join("#" + colour_table()[i].tobytes().hex() for i in range(0, 256, 15))
    mark = ""
    if scale.threshold is not None and scale.low < scale.threshold < scale.high:
        share = 100 * (scale.threshold - scale.low) / (scale.high - scale.low)
        side = " left" if share > 60 else ""
        mark = (
            f'<i class="mark{side}" style="left:{share:.1f}%"><span>pixel threshold '
            f"{format_score(scale.threshold)}</span></i>"
        )
    return (
        f'<div class="colourbar"><span>{format_score(scale.low)}</span>'
        f'<div class="ramp" style="background:linear-gradient(90deg, {stops})">{mark}</div>'
        f"<span>{format_score(scale.high)}</span></div>"
    )


def page(title: str, sections: Sequence[tuple[str, str, str]], *, lead: str = "") -> str:
    """Assembles a page.

    Args:
      title: heading and window title, as text.
      sections: (anchor, heading as text, body as HTML) in order; they make the contents.
      lead: HTML between the heading and the first section.

    Returns:
      The HTML document.
    """
    contents = "".join(f'<a href="#{name}">{escape(text)}</a>' for name, text, _ in sections)
    body = "\n".join(
        f'<section id="{name}"><h2>{escape(text)}</h2>\n{content}\n</section>'
        for name, text, content in sections
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; \
style-src 'unsafe-inline'">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<nav aria-label="contents">{contents}</nav>
<main>
<header><h1>{escape(title)}</h1>{lead}</header>
{body}
<footer>Written by jaxad. This page is one file; it loads nothing from anywhere.</footer>
</main>
</body>
</html>
"""
