"""From a photograph of any size to what a model sees, as nodes of ONNX.

The region of interest is cut out and resized by Pillow's antialiased bilinear filter, as
:mod:`jaxad.data.images` does it, to the bit: Pillow weighs 8-bit pixels by integers of 22 bits and
rounds to 8 bits after the columns, then again after the rows. ONNX's own ``Resize`` with
``antialias=1`` differs from it by up to 19 of 255 near borders (onnxruntime 1.32).

Along each axis the outputs are computed in groups of neighbours, each group by one matrix product
with the pixels that it reaches; the matrices are computed from the image's size. Weights are split
into two parts of 11 bits, whose products with 8-bit pixels float32 adds up exactly.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxad.data.crop import Crop, is_whole
from jaxad.export.graph import Graph

GROUP = 16
"""Outputs of one matrix product: more of them waste work on zeros, fewer are too thin."""

_BITS = 22
_HALF_BITS = 11
_LUMA = (19595, 38470, 7471)
"""ITU-R 601's weights of red, green and blue in 1/65536, as Pillow has them."""


def preprocess(
    graph: Graph, images: str, *, size: Sequence[int], channels: int, region: Crop
) -> tuple[str, str]:
    """Adds the nodes.

    Args:
      graph: holds the images.
      images: name of ``(b, H, W, 3)`` uint8.
      size: ``(h, w)`` that the model sees.
      channels: of the model, 1 or 3; colour becomes gray by its luma.
      region: as ``data.region``.

    Returns:
      Names of ``(b, h, w, channels)`` uint8, and of the region in whole pixels: ``(4,)`` int64,
      top, left, bottom, right.
    """
    box = _box(graph, images, region)
    if not is_whole(region):
        images = graph.add(
            "Slice",
            images,
            graph.add("Slice", box, *map(graph.integers, (0, 2))),
            graph.add("Slice", box, *map(graph.integers, (2, 4))),
            graph.integers(1, 2),
        )
    if channels == 1:
        images = _gray(graph, images)
    # Columns before rows, as Pillow does it. The axis that is resized comes behind the batch, so
    # that the pixels that are added up are rows of one matrix.
    for side in (size[1], size[0]):
        images = graph.add("Transpose", images, perm=[0, 2, 1, 3])
        images = _resize_rows(graph, images, side)
    return images, box


def _box(g: Graph, images: str, region: Crop) -> str:
    """:func:`jaxad.data.crop.box_of` of the size of the images."""
    if is_whole(region):
        return g.add("Concat", g.integers(0, 0), g.add("Shape", images, start=1, end=3), axis=0)
    sides = g.add("Shape", images, start=1, end=3)
    count = g.cast(sides, np.float64)

    def rounded(shares: Sequence[float | int]) -> str:
        return g.cast(_nearest(g, g.add("Mul", g.constant(shares, np.float64), count)), np.int64)

    one = g.integers(1)
    first = g.add("Min", rounded(region[:2]), g.add("Sub", sides, one))
    last = g.add("Max", rounded(region[2:]), g.add("Add", first, one))
    return g.add("Concat", first, last, axis=0)


def _nearest(g: Graph, numbers: str) -> str:
    """Float64 rounded to whole numbers, halves up."""
    return g.add("Floor", g.add("Add", numbers, g.constant(0.5, np.float64)))


def _gray(g: Graph, images: str) -> str:
    """ITU-R 601's luma, rounded as Pillow does it; gray pixels stay what they are."""
    wide = g.cast(images, np.int32)
    weighed = g.add("Mul", wide, g.constant(_LUMA, np.int32))
    total = g.add("ReduceSum", weighed, g.integers(3), keepdims=1)
    luma = g.add("Div", g.add("Add", total, g.constant(1 << 15, np.int32)),
                 g.constant(1 << 16, np.int32))  # fmt: skip
    return g.cast(luma, np.uint8)


def _resize_rows(g: Graph, images: str, count: int) -> str:
    """``(b, n, m, c)`` uint8 to ``(b, count, m, c)``."""
    groups = -(-count // GROUP)
    batch, length, rest = (
        g.add("Shape", images, start=a, end=b) for a, b in ((0, 1), (1, 2), (2, 4))
    )
    places, weights = _weights(g, length, count, groups)
    numbers = g.add("ReduceProd", rest, keepdims=1)
    rows = g.add("Reshape", images, g.add("Concat", batch, length, numbers, axis=0))
    # (b, groups, reach, m c) by (groups, 2 GROUP, reach): the two halves of every output.
    reached = g.cast(g.add("Gather", rows, places, axis=1), np.float32)
    halves = g.cast(g.add("MatMul", weights, reached), np.int32)
    high, low = g.add_many(2, "Split", halves, g.integers(GROUP, GROUP), axis=2)
    high = g.add("Mul", high, g.constant(1 << _HALF_BITS, np.int32))
    half = g.constant(1 << (_BITS - 1), np.int32)
    total = g.add("Add", g.add("Add", high, low), half)
    value = g.add("Div", g.add("Max", total, g.constant(0, np.int32)),
                  g.constant(1 << _BITS, np.int32))  # fmt: skip
    value = g.add("Min", value, g.constant(255, np.int32))
    shape = g.add("Concat", batch, g.integers(groups * GROUP), rest, axis=0)
    value = g.add("Reshape", g.cast(value, np.uint8), shape)
    if groups * GROUP == count:
        return value
    return g.add("Slice", value, *map(g.integers, (0, count, 1)))


def _weights(g: Graph, length: str, count: int, groups: int) -> tuple[str, str]:
    """Where each group reads, ``(groups, reach)`` int64, and its weights, in two halves.

    Computed in float64, as Pillow does it, from the length of the axis.
    """

    def number(value: float) -> str:
        return g.constant(value, np.float64)

    many = g.cast(length, np.float64)
    scale = g.add("Div", many, number(count))
    support = g.add("Max", scale, number(1.0))
    # Middle, first and last pixel of every output, (groups, GROUP, 1).
    outputs = np.arange(groups * GROUP, dtype=np.float64).reshape(groups, GROUP, 1) + 0.5
    middle = g.add("Mul", g.constant(outputs), scale)
    begin = g.add("Max", _nearest(g, g.add("Sub", middle, support)), number(0.0))
    end = g.add("Min", _nearest(g, g.add("Add", middle, support)), many)
    # A group reads from its first output's first pixel on; (groups, 1, 1) and (reach,).
    first = g.add("Slice", begin, *map(g.integers, (0, 1, 1)))
    reach = g.add("Add", g.add("Mul", scale, number(GROUP - 1)), g.add("Mul", support, number(2)))
    reach = g.add("Squeeze", g.add("Add", g.cast(g.add("Ceil", reach), np.int64), g.integers(2)))
    steps = g.add("Range", g.constant(0, np.int64), reach, g.constant(1, np.int64))
    pixels = g.add("Add", first, g.cast(steps, np.float64))
    # The triangle of the filter, of the pixels between first and last.
    away = g.add(
        "Abs", g.add("Div", g.add("Sub", g.add("Add", pixels, number(0.5)), middle), support)
    )
    weight = g.add("Max", g.add("Sub", number(1.0), away), number(0.0))
    within = g.add("And", g.add("GreaterOrEqual", pixels, begin), g.add("Less", pixels, end))
    weight = g.add("Where", within, weight, number(0.0))
    total = g.add("ReduceSum", weight, g.integers(2), keepdims=1)
    weight = g.add("Div", weight, g.add("Max", total, number(1e-300)))
    # Integers of 22 bits, halves up; their upper bits, and what is left (it may be negative).
    fixed = _nearest(g, g.add("Mul", weight, number(1 << _BITS)))
    share = number(1 << _HALF_BITS)
    high = _nearest(g, g.add("Div", fixed, share))
    low = g.add("Sub", fixed, g.add("Mul", high, share))
    halves = g.cast(g.add("Concat", high, low, axis=1), np.float32)
    places = g.add("Min", pixels, g.add("Sub", many, number(1.0)))
    return g.cast(g.add("Squeeze", places, g.integers(1)), np.int64), halves
