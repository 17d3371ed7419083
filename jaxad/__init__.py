"""jaxad: reconstruction-based visual anomaly detection as pure functions in JAX/Flax."""

__version__ = "0.1.0"
