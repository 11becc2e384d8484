"""From a network and images to a trained model, or back from disk where it was trained before."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from . import models, paths, stress
from .augmentation import augment, to_float
from .checkpoint import Checkpoint
from .images import Fold
from .manifest import SCORED_FOLDS
from .optimizer import AdamW, learning_rates
from .params import Augmentation, ModelSection, Params, UsageError

# What decides a model's weights: when one of these changes, it is trained again.
MODULES = ("pixels", "manifest", "images", "augmentation", "stress", "models", "optimizer", "training")
LIBRARIES = ("tensorflow", "keras", "numpy", "pillow")


@dataclass(frozen=True)
class Trained:
    """A trained model.

    Parameters
    ----------
    model : keras.Model
        In float32, with the weights of its best epoch.
    history : DataFrame
        One row an epoch: epoch, loss, validation_loss, stress_loss, validation_accuracy,
        learning_rate, seconds.
    card : dict
        What the model card says of the training.
    """

    model: keras.Model
    history: pd.DataFrame
    card: dict


def bfloat16_in_hardware() -> bool:
    """Tell whether the GPU or the CPU computes in bfloat16 itself (elsewhere it is slower than float32)."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
        return tuple(capability) >= (8, 0)
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def fit_or_load(name: str, params: Params, digest: str, parts: dict[str, Fold], run: paths.RunFolder) -> Trained:
    """Train a model, or load it where the same training was done before in this run folder.

    Parameters
    ----------
    name : str
        ``baseline_cnn`` or ``resnet50v2``.
    params : Params
        All parameters of the run.
    digest : str
        The manifest's digest.
    parts : dict of Fold
        ``train`` and ``validation``.
    run : RunFolder
        Where the model and its card are kept.

    Returns
    -------
    Trained

    Raises
    ------
    UsageError
        There are fewer training images than a batch, or the weights that were asked for cannot be had.
    FloatingPointError
        The loss became NaN.
    """
    key = training_key(name, params, digest)
    card_file, model_file = run.model_card(name), run.model(name)
    if card_file.is_file() and model_file.is_file():
        card = json.loads(card_file.read_text(encoding="utf-8"))
        if card.get("training_key") == key:
            print(f"{name}: loaded, trained before with the same data, parameters and code")
            return Trained(keras.models.load_model(model_file, compile=False), pd.DataFrame(card["history"]), card)
    card_file.unlink(missing_ok=True)
    checkpoint = Checkpoint(run.checkpoint(name), key)
    trained = fit(getattr(params, name), params.augmentation, params.seed, parts, checkpoint)
    versions = {"python": platform.python_version(), **{library: version(library) for library in LIBRARIES}}
    card = {"model": name, "training_key": key, **trained.card, "versions": versions, "history": trained.history.to_dict("records")}
    part = model_file.with_name(f".part.{model_file.name}")
    trained.model.save(part)
    part.replace(model_file)
    paths.write_atomically(card_file, json.dumps(card, indent=1))
    checkpoint.discard()
    return Trained(trained.model, trained.history, card)


def training_key(name: str, params: Params, digest: str) -> str:
    """Return a digest of all that decides a model's weights: data, parameters, code and libraries."""
    settings = getattr(params, name)
    asked = {
        "seed": params.seed,
        "validation_fraction": params.data.validation_fraction,
        "fit": params.data.fit,
        "augmentation": params.augmentation.model_dump(),
        "model": settings.model_dump(),
        "weights": paths.digest(paths.from_root(getattr(settings, "weights", ""))),
        "manifest": digest,
        "libraries": {library: version(library) for library in LIBRARIES},
        "modules": {module: paths.digest(paths.PACKAGE / f"{module}.py") for module in MODULES},
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def fit(
    settings: ModelSection, augmentation: Augmentation, seed: int, parts: dict[str, Fold], checkpoint: Checkpoint | None = None
) -> Trained:
    """Train a model with AdamW and keep its best epoch, by log loss on the stress validation.

    Parameters
    ----------
    settings : ModelSection
        The model's section of the parameters.
    augmentation : Augmentation
        Changes to the training images.
    seed : int
        The same seed, data and machine give the same weights.
    parts : dict of Fold
        ``train`` and ``validation``.
    checkpoint : Checkpoint, optional
        Where the state is kept after each epoch, and taken from where it is this training's.

    Returns
    -------
    Trained

    Raises
    ------
    UsageError
        There are fewer training images than a batch, or the weights that were asked for cannot be had.
    FloatingPointError
        The loss became NaN.
    """
    train, validation = parts["train"], parts["validation"]
    if len(train) < settings.batch_size:
        raise UsageError(f"batch_size = {settings.batch_size}: there are only {len(train)} training images; take a smaller batch")
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(seed)
    precision = settings.precision
    if precision == "auto":
        precision = "bfloat16" if bfloat16_in_hardware() else "float32"
    network = models.build(settings, precision)
    weights = models.load_weights(network, settings)
    model = network if precision == "float32" else models.build(settings)
    steps = len(train) // settings.batch_size
    rates = learning_rates(settings, steps)
    optimizer = AdamW([variable.value for variable in network.trainable_variables], settings.weight_decay)
    step = training_step(network, optimizer, augmentation)
    state = _State(network, optimizer, checkpoint)
    print(f"{len(train)} images in {steps} batches of {settings.batch_size}, {precision}, weights: {weights}", flush=True)
    if state.rows:
        print(f"going on after epoch {len(state.rows)}, where this training was stopped before", flush=True)
    for epoch in range(len(state.rows), settings.epochs):
        started = time.perf_counter()
        loss = run_epoch(step, train, settings.batch_size, rates[epoch * steps : (epoch + 1) * steps], seed, epoch)
        if model is not network:
            model.set_weights(network.get_weights())
        found = _validate(model, validation)
        if not math.isfinite(loss + found["stress_loss"]):
            raise FloatingPointError(f"the loss is {loss} in epoch {epoch + 1}; take a smaller learning_rate than {settings.learning_rate}")
        rate = float(rates[epoch * steps + steps - 1])
        row = {"epoch": epoch + 1, "loss": loss, **found, "learning_rate": rate, "seconds": time.perf_counter() - started}
        state.add(row)
        _report(row, settings.epochs)
    model.set_weights(state.kept)
    history = pd.DataFrame(state.rows)
    card = {
        "network": getattr(settings, "backbone", "small residual CNN"),
        "weights": weights,
        "precision": precision,
        "parameters": model.count_params(),
        "best_epoch": int(history["stress_loss"].idxmin()) + 1,
    }
    return Trained(model, history, card)


def _report(row: dict[str, float], epochs: int) -> None:
    losses = ", ".join(f"{name.replace('_', ' ')} {row[name]:.4f}" for name in ("loss", "validation_loss", "stress_loss"))
    print(
        f"epoch {row['epoch']}/{epochs}: {losses}, validation accuracy {row['validation_accuracy']:.4f}, {row['seconds']:.0f} s", flush=True
    )


class _State:
    """What a training has reached: its weights, its best ones, and a row for each epoch; taken up from a checkpoint."""

    def __init__(self, network: keras.Model, optimizer: AdamW, checkpoint: Checkpoint | None) -> None:
        # Beside the weights these hold the seeds of dropout, which a training that goes on needs as well.
        self.variables = [variable.value for variable in network.variables] + optimizer.state
        self.network, self.checkpoint = network, checkpoint
        self.kept, self.rows = network.get_weights(), []
        saved = checkpoint.load() if checkpoint else None
        if saved:
            arrays, self.rows = saved
            for variable, array in zip(self.variables, arrays, strict=False):
                variable.assign(array)
            self.kept = arrays[len(self.variables) :]

    def add(self, row: dict[str, float]) -> None:
        """Note an epoch, and keep its weights where it is the best so far."""
        if all(row["stress_loss"] < earlier["stress_loss"] for earlier in self.rows):
            self.kept = self.network.get_weights()
        self.rows.append(row)
        if self.checkpoint:
            self.checkpoint.save([variable.numpy() for variable in self.variables] + self.kept, self.rows)


def _validate(model: keras.Model, validation: Fold) -> dict[str, float]:
    """Log loss and accuracy on the validation images, and log loss on shifted copies of them."""
    found = models.logits(model, validation.pixels)
    return {
        "validation_loss": stress.log_loss(found, validation.labels),
        "stress_loss": stress.log_loss(stress.mixed_logits(model, validation), validation.labels),
        "validation_accuracy": float(np.mean((found >= 0) == validation.labels)),
    }


def training_step(network: keras.Model, optimizer: AdamW, augmentation: Augmentation):
    """Return one gradient step, augmentation included, as a single graph: there is no input pipeline to wait for.

    Returns
    -------
    callable
        Takes pixels (uint8, shape (n, size, size)), labels (float32, shape (n,)), the learning rate and a seed
        (int32, shape (2,)); returns the mean loss.
    """

    @tf.function(autograph=False, jit_compile=False)
    def step(pixels, labels, rate, seed):
        images = augment(to_float(pixels), augmentation, seed)
        with tf.GradientTape() as tape:
            logit = network(images, training=True)[:, 0]
            loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels, logit))
        optimizer.apply(tape.gradient(loss, optimizer.variables), rate)
        return loss

    return step


def run_epoch(step, train: Fold, batch_size: int, rates: np.ndarray, seed: int, epoch: int) -> float:
    """Run one pass over shuffled full batches, one for each of `rates`, and return the mean loss."""
    order = np.random.default_rng([seed, 2, epoch]).permutation(len(train))
    losses = []
    for number, rate in enumerate(rates):
        rows = np.sort(order[number * batch_size : (number + 1) * batch_size])
        labels = tf.constant(train.labels[rows], tf.float32)
        draw = tf.constant([seed, epoch * len(rates) + number], tf.int32)
        losses.append(step(tf.constant(train.pixels[rows]), labels, tf.constant(rate), draw))
    return float(np.mean([float(loss) for loss in losses]))


def score_folds(model: keras.Model, folds: dict[str, Fold]) -> dict[str, np.ndarray]:
    """Return the logits of every fold that is scored (all but ``train``)."""
    return {name: models.logits(model, folds[name].pixels) for name in SCORED_FOLDS if name in folds}
