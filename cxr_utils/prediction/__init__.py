"""New films in, careful answers out: ``load("reports/real", "baseline_cnn").predict(paths)``."""

from .model import load

__all__ = ["load"]
