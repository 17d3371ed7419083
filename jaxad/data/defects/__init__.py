"""Defects drawn on good images, with their masks.

A defect is a shape (:mod:`~jaxad.data.defects.shapes`) in which something else is seen
(:mod:`~jaxad.data.defects.contents`); :mod:`~jaxad.data.defects.kinds` combines the two by name,
and :mod:`~jaxad.data.defects.draw` places them on the object
(:mod:`~jaxad.data.defects.foreground`). Everything but the search for the object is a pure
function of one image and one key, in JAX: it runs on the host or inside a compiled training step.
"""
