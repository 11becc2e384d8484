"""A model in ONNX: written by Keras' own export, answering without TensorFlow."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit

from ..files import replacing

if TYPE_CHECKING:
    from .serving import Graph

BATCH = 16
OUTPUTS = ("score", "logits", "features")  # of `serving.graph`, in its order


def engine(file: Path) -> tuple[Callable, dict[str, str]]:
    """Return what answers as `serving.in_keras` does, and the metadata of a file.

    Raises ImportError where the extra ``onnx`` is not installed.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(file)

    def answer(squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return tuple(session.run(OUTPUTS[1:], {"grey": squares}))

    return answer, session.get_modelmeta().custom_metadata_map


def export(made: Graph, about: dict[str, Any], file: Path) -> None:
    """Write a graph as ONNX by Keras' own export, its outputs by name, with metadata in the file.

    Raises ImportError where the extra ``onnx`` is not installed.
    """
    import onnx

    made.network(np.zeros((1, *made.network.input_shape[1:]), np.uint8))  # or Keras refuses
    with replacing(file) as part:
        made.network.export(part, format="onnx", verbose=False)
        written = onnx.load(part)
        names = {one.name: name for one, name in zip(written.graph.output, OUTPUTS, strict=True)}
        for output in written.graph.output:
            output.name = names[output.name]
        for node in written.graph.node:
            for ends in (node.input, node.output):
                ends[:] = [names.get(name, name) for name in ends]
        onnx.helper.set_model_props(written, {name: str(value) for name, value in about.items()})
        onnx.save(written, part)


def compared(
    one: Callable, other: Callable, films: np.ndarray, temperature: float
) -> tuple[float, list[float]]:
    """Return by how much scores of two engines differ at most, and films a second of each."""
    scores, speeds = [], []
    for answer in (one, other):
        answer(films[:BATCH])  # what is made at the first call is no matter of speed
        started, starts = time.perf_counter(), range(0, len(films), BATCH)
        found = np.concatenate([answer(films[start : start + BATCH])[0] for start in starts])
        speeds.append(len(films) / (time.perf_counter() - started))
        scores.append(expit(found.mean(axis=1) / temperature))
    return float(np.abs(scores[0] - scores[1]).max()), speeds
