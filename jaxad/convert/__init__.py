"""Weights of PyTorch projects, converted to Flax (``jaxad convert``)."""
