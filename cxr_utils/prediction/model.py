"""A trained model with all that it needs to answer for films that it has not seen."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from threadpoolctl import ThreadpoolController

from .. import paths, profiles
from ..data import films, manifest
from ..data.decoding import Square
from ..data.films import Film
from ..files import read_json, sha256_of, within
from ..models import distance, fingerprint, onnx
from ..models.distance import TrainingFilms
from ..models.onnx import BATCH
from ..parameters import UsageError
from . import search

if TYPE_CHECKING:
    import keras

ENSEMBLE = "ensemble"  # the mean of a run's models
AHEAD = 64  # names that are found before their films are read
CARD = ("image_size", "fit", "threshold", "temperature", "members", "test_time_flips", "synthetic")
FIELDS = ("path", "sha256", "probability", "decision", "interval", "unsure", "distance",
          "model", "run", "digest", "synthetic", "error")  # fmt: skip
Answer = dict[str, Any]  # FIELDS: text, numbers, two numbers (interval) or None
_blas = functools.cache(ThreadpoolController)  # made once, as it looks for every library


@dataclass(frozen=True)
class Part:
    """One of the models behind an answer."""

    card: dict[str, Any]
    training: TrainingFilms
    engine: onnx.Engine
    network: keras.Model | None = None  # where the engine is Keras'

    @property
    def square(self) -> Square:
        """What a film is made into."""
        return Square(self.card["image_size"], self.card["fit"])

    @property
    def threshold(self) -> float:
        """The run's decision threshold, as a calibrated logit."""
        return float(logit(np.clip(self.card["threshold"], 1e-9, 1 - 1e-9)))

    def judge(self, squares: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
        """Return logits, (n,), those of each view, (n, views), distances, (n,), and doubts.

        Logits are calibrated, and less the threshold's. The views are the seeds of an ensemble or,
        of a single network, a film and its mirror image.
        """
        _, logits, features = self.engine(squares)
        margins = logits.astype(np.float64) / self.card["temperature"] - self.threshold
        used = margins if self.card["test_time_flips"] else margins[..., :1]
        views = used.mean(axis=2) if self.card["members"] > 1 else margins[:, 0]
        tiny = distance.small(squares)
        with _blas().limit(limits=1):  # its threads would wait busily, in the way of the engine's
            far = self.training.distance(tiny, features)
            doubts = self.training.doubts(squares, tiny, far)
        return used.mean(axis=(1, 2)), views, far, doubts


@dataclass(frozen=True)
class Model:
    """A trained model, or the mean of a run's models; see `load`."""

    name: str
    folder: paths.RunFolder
    parts: Sequence[Part]

    @property
    def digest(self) -> str:
        """SHA-256 of the model's file; of several, of their digests."""
        each = [part.card["sha256"] for part in self.parts]
        return each[0] if len(each) == 1 else fingerprint.digest_of(each)

    @property
    def synthetic(self) -> bool:
        """Whether any of it was trained on drawings."""
        return any(part.card["synthetic"] for part in self.parts)

    def predict(self, named: Iterable[str | Path]) -> pd.DataFrame:
        """Return an answer for each of the files, folders and patterns; columns: `FIELDS`."""
        return pd.DataFrame(self.answers(search.find(map(str, named), sys.stdin)), columns=FIELDS)

    def answers(self, files: Iterable[Path]) -> Iterator[Answer]:
        """Yield an answer for each file, in order, as soon as it is known."""
        about: Answer = {"model": self.name, "run": self.folder.name, "digest": self.digest}
        about["synthetic"] = self.synthetic
        for batch in _read(files, [part.square for part in self.parts]):
            seen = [film for film in batch if not film.error]
            judged = self._judged(seen) if seen else iter(())
            for film in batch:
                known = about | {"path": film.path, "sha256": film.sha256, "error": film.error}
                known |= {} if film.error else next(judged)
                yield {name: None if known.get(name) == "" else known.get(name) for name in FIELDS}

    def _judged(self, seen: Sequence[Film]) -> Iterator[Answer]:
        each = [part.judge(np.stack([film.squares[number] for film in seen]))
                for number, part in enumerate(self.parts)]  # fmt: skip
        for place, film in enumerate(seen):
            margins, views, far, doubts = zip(
                *([values[place] for values in part] for part in each), strict=True
            )
            spread = np.array(margins) if len(each) > 1 else views[0]
            answer = self._decided(float(np.mean(margins)), spread.min(), spread.max())
            reasons = dict.fromkeys([film.concern, *doubts, answer["unsure"]])
            answer["unsure"] = "; ".join(filter(None, reasons))
            answer["distance"] = round(float(max(far)), 4)
            yield answer if np.isfinite(margins).all() else {"error": "the model gives no number"}

    def _decided(self, margin: float, low: float, high: float) -> Answer:
        """What margins over the threshold come to: probability, decision, interval, nearness."""
        cut = np.mean([part.threshold for part in self.parts])
        shares = [round(float(expit(end + cut)), 6) for end in (margin, low, high)]
        return {
            "probability": shares[0],
            "decision": manifest.LABELS[int(margin >= 0)],
            "interval": shares[1:],
            "unsure": "near the threshold" if low < 0 <= high else "",
        }

    def look(self, files: Sequence[Path], size: int) -> tuple[list[int], np.ndarray, np.ndarray]:
        """Return which films can be read, these at another size, and where PNEUMONIA is seen.

        The last by Grad-CAM, the mean of the models', each with a peak of 1; both are of shape (n,
        size, size). Of a model in Keras only.
        """
        from ..models import explanation

        squares = [part.square for part in self.parts]
        asked = [*squares, Square(size, squares[0].fit)]
        read = [films.read(file, asked) for file in files]
        rows = [row for row, film in enumerate(read) if not film.error]
        if not rows:
            return [], np.empty((0, size, size), np.uint8), np.empty((0, size, size))
        *own, shown = (
            np.stack(one) for one in zip(*(read[row].squares for row in rows), strict=True)
        )
        heat = [explanation.scaled(explanation.grad_cam(part.network, pixels), size)
                for part, pixels in zip(self.parts, own, strict=True)]  # fmt: skip
        return rows, shown, np.mean(heat, axis=0)


def _read(files: Iterable[Path], squares: Sequence[Square]) -> Iterator[list[Film]]:
    """Yield films, read on every core: those that are named so far, a batch at most.

    Nothing is read while a model answers: that takes every core as well, and both would be slower.
    """
    named: Queue[Path | BaseException | None] = Queue(AHEAD)

    def feed() -> None:  # apart, as the next name may be long in coming
        try:
            for file in files:
                named.put(file)
            named.put(None)
        except BaseException as error:
            named.put(error)

    Thread(target=feed, daemon=True).start()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        following = named.get()
        while isinstance(following, Path):
            batch = [following]
            while len(batch) < BATCH and named.queue and isinstance(named.queue[0], Path):
                batch.append(named.queue[0])
                named.get()
            yield list(pool.map(films.read, batch, [squares] * len(batch)))
            following = named.get()
    if following:
        raise following


def load(
    run: str | Path, name: str = "", engine: str = "keras", allow_synthetic: bool = False
) -> Model:
    """Load a trained model of a run, as in ``load("reports/real", "baseline_cnn").predict(paths)``.

    Parameters
    ----------
    run : str or Path
        The folder of the run, or its name in ``reports/``; or a copy with its ``models`` alone.
    name : str
        A model's, or ``ensemble`` for the mean of all; by default the one with the lowest loss
        where choices were made.
    engine : {"keras", "onnx"}
        By TensorFlow, or by onnxruntime from what ``export`` has written.
    allow_synthetic : bool
        Take a model that was trained on the phantom.

    Raises
    ------
    UsageError
        There is no such run or model, it is damaged, incomplete or of other code, or SYNTHETIC.
    """
    places = [Path(run).expanduser().resolve(), paths.REPORTS / run]
    folder = paths.RunFolder(next((one for one in places if (one / "models").is_dir()), places[0]))
    stems = (file.stem for file in folder.model_card("").parent.glob("*.json"))
    names = sorted(stem for stem in stems if "." not in stem)
    if not names:
        remedy = "give the folder of a run, or its name"
        raise UsageError(f"--run {run}: no trained model there; {remedy}")
    name = name or _best(folder, names)
    if name not in (*names, ENSEMBLE):
        known = f"{profiles.nearest(name, names)}; there are {', '.join(names)} and {ENSEMBLE}"
        raise UsageError(f"--model {name!r}: not in {folder.root}{known}")
    asked = names if name == ENSEMBLE else [name]
    cards = [read_json(folder.model_card(one)) for one in asked]
    if any(card.get("synthetic") for card in cards) and not allow_synthetic:
        said = f"{name} was trained on SYNTHETIC images; its answers say nothing about real X-rays"
        raise UsageError(f"{folder.root}: {said}; --allow-synthetic uses it anyway")
    parts = [_part(folder, *of, engine) for of in zip(asked, cards, strict=True)]
    return Model(name, folder, parts)


def _best(folder: paths.RunFolder, names: Sequence[str]) -> str:
    scores = within(read_json(folder.metrics), "models")
    chosen = [within(scores, name, "validation") or within(scores, name, "val") for name in names]
    losses = [scored.get("loss", np.nan) for scored in chosen]
    if len(names) > 1 and np.isnan(losses).any():
        known = f"{', '.join(names)} or {ENSEMBLE}"
        raise UsageError(f"{folder.root}: no scores to choose a model by; give --model {known}")
    return names[int(np.argmin(losses))]


def _part(folder: paths.RunFolder, name: str, card: dict[str, Any], engine: str) -> Part:
    """One model, whole and of this code; raises UsageError."""
    again = "repeat run_all.py for this run, which keeps what is valid"
    kept, file = folder.training_films(name), folder.model(name)
    if not kept.is_file() or card.get("training_films") != sha256_of(kept):
        raise UsageError(f"{kept}: missing, damaged or of another training; {again}")
    if within(card, "preprocessing").get("code") != distance.preparation() or set(CARD) - set(card):
        said = "made by another revision, with different preprocessing or scoring code"
        raise UsageError(f"{file}: {said}; {again}, or use that revision")
    training = TrainingFilms.load(kept)
    if engine == "onnx":
        return Part(card, training, _from_onnx(folder.onnx(name), card))
    if card.get("sha256") != sha256_of(file):
        raise UsageError(f"{file}: missing, damaged or of another training; {again}")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    from ..models import serving

    network = keras.models.load_model(file, compile=False, safe_mode=True)
    made = serving.graph(network, card["test_time_flips"], card["temperature"])
    return Part(card, training, serving.in_keras(made), network)


def _from_onnx(file: Path, card: dict[str, Any]) -> onnx.Engine:
    remedy = f"python -m cxr_utils export --run {file.parents[1]} --model {file.stem} --force"
    try:
        engine, about = onnx.engine(file)
    except ImportError:
        said = "onnxruntime is not installed; pip install 'cxr-utils[onnx]'"
        raise UsageError(f"--engine onnx: {said}") from None
    except Exception as error:  # onnxruntime's are of many kinds
        said = f"missing or damaged ({type(error).__name__})"
        raise UsageError(f"{file}: {said}; {remedy}") from None
    if any(about.get(name) != str(card.get(name)) for name in onnx.TOLD):
        raise UsageError(f"{file}: does not match its model card; {remedy}")
    return engine
