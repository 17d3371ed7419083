"""Images in: sample tables, one decoder, one cache, two pipelines that yield the same batches."""

from jaxad.data.batch import Batch
from jaxad.data.cache import prepare_images
from jaxad.data.datasets import find_images, list_categories, read_table
from jaxad.data.deep_range import resolve_range_16bit
from jaxad.data.images import decode, image_dimensions, read_image, resize
from jaxad.data.masks import read_mask
from jaxad.data.pipeline import evaluation_batches, training_batches
from jaxad.data.split import split_holdout
from jaxad.data.table import Sample, SampleTable

__all__ = [
    "Batch",
    "Sample",
    "SampleTable",
    "decode",
    "evaluation_batches",
    "find_images",
    "image_dimensions",
    "list_categories",
    "prepare_images",
    "read_image",
    "read_mask",
    "read_table",
    "resize",
    "resolve_range_16bit",
    "split_holdout",
    "training_batches",
]
