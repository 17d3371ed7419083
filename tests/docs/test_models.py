"""The pages on models and results name only configs that exist."""

import pathlib
import re

from jaxad import models
from jaxad.run.config import load_config

DOCS = pathlib.Path(__file__).parents[2] / "docs"
SPEC = re.compile(rf"\b(?:{'|'.join(models.ARCHITECTURES)}):[a-z0-9_+,]+")


def test_every_named_config_can_be_loaded():
    pages = [*(DOCS / "models").glob("*.md"), *(DOCS / "results").glob("*.md")]
    specs = {spec.rstrip(",") for page in pages for spec in SPEC.findall(page.read_text())}
    assert len(specs) > 30
    for spec in sorted(specs):
        load_config(spec)
