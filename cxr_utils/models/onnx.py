"""A model in ONNX: written by Keras' own export, answering without TensorFlow."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files import replacing, sha256_of, write_atomically

if TYPE_CHECKING:
    import keras

BATCH = 16  # films that are scored at once; on a CPU larger batches are no faster
# From uint8, (n, size, size), n at most BATCH, to what `serving.graph` gives.
Engine = Callable[[np.ndarray], tuple[np.ndarray, ...]]
# Fields of the model card that are copied into the file's metadata.
TOLD = ("sha256", "threshold", "temperature", "test_time_flips", "source", "synthetic", "licence",
        "fit")  # fmt: skip
OUTPUTS = ("score", "logits", "features")  # of `serving.graph`, in its order


def engine(file: Path) -> tuple[Engine, dict[str, str]]:
    """Return what answers as `serving.in_keras` does, and the metadata of a file.

    Raises ValueError where the file is not as `export` left it, and ImportError where the extra
    ``onnx`` is not installed.
    """
    import onnxruntime

    if digest_file(file).read_text() != sha256_of(file):
        raise ValueError
    options = onnxruntime.SessionOptions()  # its threads would wait busily while films are read
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(file, options)

    def answer(squares: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(session.run(OUTPUTS, {"grey": squares}))

    return answer, session.get_modelmeta().custom_metadata_map


def digest_file(file: Path) -> Path:
    """Return where the SHA-256 of a model in ONNX stands, beside it."""
    return file.with_name(f"{file.name}.sha256")


def export(network: keras.Model, about: dict[str, Any], file: Path) -> None:
    """Write a graph as ONNX by Keras' own export, its outputs by name, with metadata in the file.

    Raises ImportError where the extra ``onnx`` is not installed.
    """
    import onnx

    network(np.zeros((1, *network.input_shape[1:]), np.uint8))  # or Keras refuses
    with replacing(file) as part:
        network.export(part, format="onnx", verbose=False)
        written = onnx.load(part)
        names = {one.name: name for one, name in zip(written.graph.output, OUTPUTS, strict=True)}
        for output in written.graph.output:
            output.name = names[output.name]
        for node in written.graph.node:
            for ends in (node.input, node.output):
                ends[:] = [names.get(name, name) for name in ends]
        onnx.helper.set_model_props(written, {name: str(value) for name, value in about.items()})
        onnx.save(written, part)
    write_atomically(digest_file(file), sha256_of(file))


def compared(one: Engine, other: Engine, films: np.ndarray) -> tuple[float, list[float]]:
    """Return by how much scores of two engines differ at most, and films a second of each."""
    scores, speeds = [], []
    for answer in (one, other):
        answer(films[:BATCH])  # warm-up, not timed
        started, starts = time.perf_counter(), range(0, len(films), BATCH)
        scores.append(np.concatenate([answer(films[start : start + BATCH])[0] for start in starts]))
        speeds.append(len(films) / (time.perf_counter() - started))
    return float(np.abs(scores[0] - scores[1]).max()), speeds
