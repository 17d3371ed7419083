"""What the variants of shipped configs are for, as the configs' own docstrings say it."""

from __future__ import annotations

import ast
import re

from jaxad.run.config import shipped_folder, shipped_names, shipped_summary


def variants_of(name: str) -> dict[str, str]:
    """Variant -> what it is for, from the block "Variants" of a shipped config's docstring."""
    text = (shipped_folder() / f"{name}.py").read_text(encoding="utf-8")
    lines = (ast.get_docstring(ast.parse(text)) or "").partition("\nVariants\n")[2].split("\n")
    meanings: dict[str, str] = {}
    for line in lines:
        if not line.strip():
            break
        if start := re.fullmatch(r"  (\S+)\s+(.*)", line):
            variant, meaning = start.groups()
            meanings[variant] = meaning
        elif meanings:  # a long meaning goes on in the next line
            meanings[list(meanings)[-1]] += f" {line.strip()}"
    return meanings


def about_config(spec: str) -> str:
    """What ``NAME:variant,variant`` is and why, in words; empty for a config of one's own."""
    name, _, asked = spec.partition(":")
    if name not in shipped_names():
        return ""
    known = variants_of(name)
    words = [shipped_summary(name).rstrip(".")]
    words += [f"{variant}: {known[variant]}" for variant in asked.split(",") if variant in known]
    return "; ".join(words).replace("`", "")
