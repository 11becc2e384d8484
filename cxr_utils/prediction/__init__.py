"""Apply a trained model to new films: ``load("reports/real", "baseline_cnn").predict(paths)``."""

from .model import load

__all__ = ["load"]
