"""How far a film is from those that a model was trained on, and what may be wrong with it.

Two questions, each put to Gaussians: is it unlike the training films, by the Mahalanobis distance
in features of several layers (Lee et al. 2018, arXiv:1807.03888), the first of which is the film
itself at 16 x 16 px? And does it look more like a training film that was turned, inverted or cut
off (quadratic discriminant analysis at 16 x 16 px), as frontal chest X-rays are so much alike?
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
from PIL import Image

from .. import paths
from ..data import decoding
from ..data.dataset import Dataset
from ..files import read_json, replacing, sha256_of, write_atomically
from ..parameters import ModelSection
from . import fingerprint

if TYPE_CHECKING:
    import keras

SIDE = 16  # px
FITTED = 1000  # films, at most
ACCEPTED = 0.99  # share of validation films within each limit
# Least variance along an axis, over the largest and in all: of features that hardly vary.
FLOOR, TINY = 1e-6, 1e-12
FLAT = 4.0  # spread of grey values, of 255, under which a film is blank
UNLIKE = "unlike the training films"
Change = Callable[[np.ndarray], np.ndarray]  # of films; uint8, (n, size, size), in and out
Films = tuple[np.ndarray, np.ndarray]  # uint8, (n, size, size), and features, float32, (n, d)


def _part(left: float, top: float, right: float, bottom: float) -> Change:
    """What makes a part of a film, in shares of its sides, the whole film."""

    def cut(films: np.ndarray) -> np.ndarray:
        size = films.shape[1]
        box = tuple(round(side * size) for side in (left, top, right, bottom))
        cropped = (Image.fromarray(film).crop(box) for film in films)
        return np.stack([np.asarray(one.resize((size, size))) for one in cropped])

    return cut


# What may have been done to a film.
CHANGES: dict[str, Change] = {
    "nothing": lambda films: films,
    "inverted": lambda films: 255 - films,
    "upside down": lambda films: films[:, ::-1],
    "rotated by 90°": lambda films: np.rot90(films, 1, (1, 2)),
    "rotated by -90°": lambda films: np.rot90(films, -1, (1, 2)),
    "only its upper half": _part(0, 0, 1, 0.5),
    "only its lower half": _part(0, 0.5, 1, 1),
    "only its left half": _part(0, 0, 0.5, 1),
    "only its right half": _part(0.5, 0, 1, 1),
}


class Gaussian(NamedTuple):
    """Mean and covariance of films in some features."""

    mean: np.ndarray  # float32, (d,)
    whitening: np.ndarray  # float32, (d, d): differences from the mean, times this, spread by 1
    log_det: float  # of the covariance

    @classmethod
    def fit(cls, features: np.ndarray) -> Self:
        """Fit to features, (n, d), their covariance shrunk (Ledoit and Wolf 2004)."""
        from sklearn.covariance import ledoit_wolf  # takes a second to import

        mean, covariance = features.mean(axis=0), ledoit_wolf(features)[0]
        variances, axes = np.linalg.eigh(covariance.astype(np.float64))
        variances = np.maximum(variances, FLOOR * variances[-1] + TINY)
        whitening, log_det = axes / np.sqrt(variances), float(np.log(variances).sum())
        return cls(mean.astype(np.float32), whitening.astype(np.float32), log_det)

    def distance(self, features: np.ndarray) -> np.ndarray:
        """Return the Mahalanobis distance of features, (n, d); (n,)."""
        return np.linalg.norm((features - self.mean) @ self.whitening, axis=1)


class TrainingFilms(NamedTuple):
    """Statistics of a model's training films, to detect films unlike them."""

    layers: Sequence[Gaussian]  # of its features, layer by layer
    changed: Sequence[Gaussian]  # of training films at 16 x 16 px after each of CHANGES
    usual: np.ndarray  # (1 + layers,): distances in each that ACCEPTED of validation are within
    limit: float  # of the largest of the distances, each over the usual one
    margin: float  # of the log density as a film is, over that after the likeliest change

    @classmethod
    def fit(cls, train: Films, validation: Films, widths: Sequence[int]) -> Self:
        """Fit to films and features of them; of each layer so many as `widths` says."""
        changed = [Gaussian.fit(small(change(train[0]))) for change in CHANGES.values()]
        layers = [Gaussian.fit(part) for part in np.split(train[1], np.cumsum(widths)[:-1], axis=1)]
        found = cls(layers, changed, np.ones(1 + len(layers)), 1.0, 0.0)
        tiny = small(validation[0])
        usual = np.quantile(found._distances(tiny, validation[1]), ACCEPTED, axis=1)
        found = found._replace(usual=usual)
        limit = float(np.quantile(found.distance(tiny, validation[1]), ACCEPTED))
        density = found._as_changed(tiny)[1]
        margin = float(np.quantile(density[0] - density[1:].max(axis=0), 1 - ACCEPTED))
        return found._replace(limit=limit, margin=margin)

    def _distances(self, tiny: np.ndarray, features: np.ndarray) -> np.ndarray:
        ends = np.cumsum([layer.mean.size for layer in self.layers])[:-1]
        parts = np.split(features, ends, axis=1)
        each = [layer.distance(part) for layer, part in zip(self.layers, parts, strict=True)]
        return np.stack([self.changed[0].distance(tiny), *each])

    def distance(self, tiny: np.ndarray, features: np.ndarray) -> np.ndarray:
        """Return how far films, as `small` makes them, are from the training films; 1 at the limit.

        `features` are the network's; the result is (n,).
        """
        return (self._distances(tiny, features).T / self.usual).max(axis=1) / self.limit

    def _as_changed(self, tiny: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distances from films after each change, and log densities there; (changes, n)."""
        far = np.stack([one.distance(tiny) for one in self.changed])
        return far, -(far**2 + np.array([[one.log_det] for one in self.changed])) / 2

    def doubts(self, films: np.ndarray, tiny: np.ndarray, distance: np.ndarray) -> list[str]:
        """Return why no answer for a film is reliable; an empty text where nothing is wrong."""
        (far, density), names, found = self._as_changed(tiny), list(CHANGES), []
        likeliest = np.argmax(density[1:], axis=0) + 1
        for number, film in enumerate(films):
            change = likeliest[number]
            other = density[0, number] - density[change, number] < self.margin
            close = far[change, number] < self.usual[0] * self.limit
            said = f"{UNLIKE}, perhaps {names[change]}" if close else UNLIKE
            doubt = said if other or distance[number] > 1 else ""
            found.append("blank" if film.std() < FLAT else doubt)
        return found

    def save(self, file: Path) -> None:
        """Write everything as arrays."""
        arrays = {f"{kind}_{number}_{name}": np.asarray(value)
                  for kind in ("layers", "changed")
                  for number, gaussian in enumerate(getattr(self, kind))
                  for name, value in gaussian._asdict().items()}  # fmt: skip
        arrays |= {"usual": self.usual, "limits": np.array([self.limit, self.margin])}
        np.savez(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, file: Path) -> Self:
        """Read what was saved."""
        with np.load(file) as arrays:

            def gaussians(kind: str, count: int) -> list[Gaussian]:
                names = [f"{kind}_{number}_" for number in range(count)]
                return [Gaussian(*(arrays[one + name] for name in Gaussian._fields))
                        for one in names]  # fmt: skip

            usual, (limit, margin) = arrays["usual"], arrays["limits"].tolist()
            layers = gaussians("layers", len(usual) - 1)
            return cls(layers, gaussians("changed", len(CHANGES)), usual, limit, margin)


def small(films: np.ndarray) -> np.ndarray:
    """Return films, uint8, at 16 x 16 px, of zero mean and unit spread; float32, (n, 256)."""
    size = (SIDE, SIDE)
    made = [Image.fromarray(film).resize(size, Image.Resampling.BOX) for film in films]
    looks = decoding.standardised(np.stack([np.asarray(one) for one in made]))
    return looks.reshape(len(films), -1)


def preparation() -> str:
    """Return the digest of the code that films pass through on their way to an answer."""
    modules = ("data/decoding", "models/distance", "models/serving")
    return fingerprint.digest_of([sha256_of(paths.PACKAGE / f"{name}.py") for name in modules])


def keep(model: "keras.Model", section: ModelSection, data: Dataset, run: paths.RunFolder) -> None:
    """Keep the statistics of the training films beside a scored model, and complete its card."""
    from . import networks, serving  # TensorFlow, which ONNX does without

    card, made, known = read_json(run.model_card(section.name)), serving.graph(model), []
    for split in (data.splits["train"], data.splits[data.chosen_on]):
        rows = np.random.default_rng(0).permutation(len(split))[:FITTED]
        pixels = split.pixels[np.sort(rows)]
        known.append((pixels, networks.apply(made.features, pixels, lambda batch: batch)))
    with replacing(run.training_films(section.name)) as part:
        TrainingFilms.fit(known[0], known[1], made.widths).save(part)
    card["training_films"] = sha256_of(run.training_films(section.name))
    card["preprocessing"]["code"] = preparation()
    card["licence"] = f"weights: MIT; films: {data.source.licence}"
    write_atomically(run.model_card(section.name), json.dumps(card, indent=1))
