"""Choosing a model without a defect: candidates judged by defects drawn on good images left out.

:mod:`~jaxad.selection.select` is the story; it takes :mod:`~jaxad.selection.candidates` one after
the other, has each fitted and judged (:mod:`~jaxad.selection.judge`) on the same images
(:mod:`~jaxad.selection.trial`), ranks what they gave (:mod:`~jaxad.selection.ranking`) and writes
the page (:mod:`~jaxad.selection.page`). The literature calls this model selection with synthetic
anomalies.
"""
