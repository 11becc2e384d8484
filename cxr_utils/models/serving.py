"""A trained model as one graph, from grey pixels to a score, as new films are scored."""

from typing import NamedTuple

import keras
import numpy as np

from . import explanation, networks
from .onnx import BATCH, Engine

MOST = 256  # features of a layer; wider ones are subsampled evenly
LEAST = 8  # channels of a layer that is used


class Graph(NamedTuple):
    """A model from grey pixels on."""

    network: keras.Model
    widths: list[int]  # features of each layer

    @property
    def features(self) -> keras.Model:
        """The part that gives the graph's third output, without the pass over the mirror image."""
        return keras.Model(self.network.inputs, self.network.outputs[2])


def graph(model: keras.Model, flips: bool = True, temperature: float = 1.0) -> Graph:
    """Return a trained model from grey pixels on: uint8, (n, size, size).

    Its outputs are ``score``, P(pneumonia), (n,), by the `temperature` of logits that, with
    `flips`, are the means of a film's and its mirror image's; ``logits`` before calibration, (n,
    members, 2), of each member for the film and its mirror image; and ``features``, (n, d), the
    means over maps of its first member's layers.
    """
    grey = keras.Input(model.input_shape[1:3], dtype="uint8", name="grey")
    film = keras.layers.Rescaling(1 / 255, name="film")(grey)[..., None]
    views = [film, keras.ops.flip(film, axis=2)]
    maps: list[keras.KerasTensor] = []
    logits = []
    for network in networks.members(model):
        known = explanation.with_maps(network, _layers)
        for view in views:
            *found, logit = keras.tree.flatten(known(view))
            maps = maps or found
            logits.append(logit)
    joined = keras.layers.Reshape((-1, 2), name="views")(keras.ops.concatenate(logits, axis=1))
    used = joined if flips else joined[..., :1]
    score = keras.ops.sigmoid(keras.ops.mean(used, axis=(1, 2)) / temperature)
    means = [keras.ops.mean(one[..., :: -(-one.shape[-1] // MOST)], axis=(1, 2)) for one in maps]
    outputs = [score, joined, keras.ops.concatenate(means, axis=1)]
    return Graph(keras.Model(grey, outputs, name=model.name), [one.shape[-1] for one in means])


def _layers(network: keras.Model) -> list[keras.Operation]:
    found = explanation.stages(network).values()
    return [step for step in found if step.output.shape[-1] >= LEAST]


def in_keras(made: Graph) -> Engine:
    """Return what answers by TensorFlow."""

    def answer(squares: np.ndarray) -> tuple[np.ndarray, ...]:
        # Filled up, so that the graph is made for one shape only.
        full = np.zeros((BATCH, *squares.shape[1:]), np.uint8)
        full[: len(squares)] = squares
        return tuple(found[: len(squares)] for found in made.network.predict_on_batch(full))

    return answer
