"""Lists that users write: paths that a key names, and tables as csv."""

from __future__ import annotations

import csv
import io
import pathlib

from jaxad.run.errors import UserError


def listed_paths(text: str, *, key: str) -> list[str]:
    """The paths that a config's key names, each once.

    Args:
      text: paths separated by commas or line breaks; one that ends in ``.txt`` or ``.csv`` is a
        file that lists more, one a line, or in its column ``path``.
      key: named in errors.

    Raises:
      UserError: a list cannot be read.
    """
    paths: list[str] = []
    for entry in filter(None, (part.strip() for part in text.replace("\n", ",").split(","))):
        if not entry.lower().endswith((".txt", ".csv")):
            paths.append(entry)
            continue
        try:
            content = pathlib.Path(entry).read_text(encoding="utf-8")
        except OSError as error:
            raise UserError(f"the list {entry} of {key} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise UserError(f"the list {entry} of {key} cannot be read: {error}") from None
        rows = [row for row in csv.reader(io.StringIO(content, newline="")) if any(row)]
        column = rows[0].index("path") if rows and "path" in rows[0] else None
        listed = rows if column is None else rows[1:]
        paths += [row[column or 0].strip() for row in listed]
    return list(dict.fromkeys(filter(None, paths)))


def table_rows(text: str) -> list[tuple[int, dict[str, str]]]:
    """The rows of a table, each with the number of its line.

    Args:
      text: its first line names the columns; cells are separated by commas, semicolons or tabs,
        whichever that line has most of. Cells beyond the columns are dropped.

    Raises:
      ValueError: it is no table.
    """
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, restkey="")
    try:
        return [
            (reader.line_num, {name: cell or "" for name, cell in row.items() if name})
            for row in reader
        ]
    except csv.Error as error:
        raise ValueError(str(error)) from error
