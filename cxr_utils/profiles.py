"""Collects a notebook's parameters."""

from .parameters import gather, load

__all__ = ["gather", "load"]
