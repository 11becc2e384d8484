"""From a network and images to a trained model, or back from disk where it was trained before."""

from __future__ import annotations

import contextlib
import json
import math
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from .. import paths
from ..data.dataset import Split
from ..data.manifest import SCORED
from ..data.splits import chosen_on
from ..files import read_json, replacing, sha256_of, write_atomically
from ..parameters import Augmentation, ModelSection, Params, Resnet50v2, UsageError
from . import fingerprint, hardware, networks, robustness, transfer, weights
from .checkpoint import Checkpoint, Progress
from .gradient import Loss, run_epoch, training_step
from .optimizer import AdamW, Average, LossScale, learning_rates


@dataclass(frozen=True)
class Trained:
    """A trained model.

    Parameters
    ----------
    model : keras.Model
        In float32, with the weights of its best epoch.
    history : DataFrame
        One row an epoch: epoch, loss, validation_loss, stress_loss (where the validation is our own),
        validation_accuracy, learning_rate, seconds.
    card : dict
        What the model card says of the training.
    """

    model: keras.Model
    history: pd.DataFrame
    card: dict


def fit_or_load(
    name: str, params: Params, digest: str, parts: dict[str, Split], run: paths.RunFolder
) -> Trained:
    """Train a model, or load it where the same training was done before in this run folder.

    Parameters
    ----------
    name : str
        ``baseline_cnn`` or ``resnet50v2``.
    params : Params
        All parameters of the run.
    digest : str
        The manifest's digest.
    parts : dict of Split
        ``train``, and ``validation`` or, as in the original protocol, ``val`` in its place.
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
    card_file, model_file = run.model_card(name), run.model(name)
    if fingerprint.is_trained(name, params, digest, run):
        card = read_json(card_file)
        print(f"{name}: loaded, trained before with the same data, parameters and code")
        return Trained(
            keras.models.load_model(model_file, compile=False, safe_mode=True),
            pd.DataFrame(card["history"]),
            card,
        )
    start = weights.find(getattr(params, name))
    key = fingerprint.training_key(name, params, digest, start.digest)
    card_file.unlink(missing_ok=True)
    checkpoint = Checkpoint(run.checkpoint(name), key)
    trained = fit(getattr(params, name), params.augmentation, params.seed, parts, start, checkpoint)
    versions = {
        "python": platform.python_version(),
        **fingerprint.versions(fingerprint.TRAINING_LIBRARIES),
    }
    card = {
        "model": name,
        "training_key": key,
        "start": start.digest,
        **trained.card,
        "versions": versions,
        "history": trained.history.to_dict("records"),
    }
    with replacing(model_file) as part:
        trained.model.save(part)
    card["sha256"] = sha256_of(model_file)
    write_atomically(card_file, json.dumps(card, indent=1))
    checkpoint.discard()
    return Trained(trained.model, trained.history, card)


def fit(
    settings: ModelSection,
    augmentation: Augmentation,
    seed: int,
    parts: dict[str, Split],
    start: weights.Start | None = None,
    checkpoint: Checkpoint | None = None,
) -> Trained:
    """Train a model with AdamW and keep its best epoch, by log loss on the stress validation.

    Parameters
    ----------
    settings : BaselineCnn or Resnet50v2
        The model's section of the parameters.
    augmentation : Augmentation
        Changes to the training images.
    seed : int
        The same seed, data and machine give the same weights.
    parts : dict of Split
        ``train``, and ``validation`` or, as in the original protocol, ``val`` in its place.
    start : Start, optional
        The weights to start from; those that `settings` asks for where left out.
    checkpoint : Checkpoint, optional
        Where the state is kept after each epoch, and taken from where it is this training's.

    Returns
    -------
    Trained

    Raises
    ------
    UsageError
        There are fewer training images than a batch, a batch does not fit into memory or cannot be shared
        evenly, or the weights that were asked for cannot be had.
    FloatingPointError
        The loss became NaN, in bfloat16 and, where ``auto`` had chosen that, in float32 as well.
    """
    start = start or weights.find(settings)
    if settings.precision != "auto":
        return _fit(settings, augmentation, seed, parts, start, checkpoint)
    # A training that has fallen back to float32 and was stopped then goes on in float32.
    precision = (checkpoint.notes().get("precision") if checkpoint else None) or hardware.precision(
        "auto"
    )
    fixed = settings.model_copy(update={"precision": precision})
    try:
        return _fit(fixed, augmentation, seed, parts, start, checkpoint)
    except FloatingPointError as error:
        if precision == "float32":
            raise
        print(
            f"in {precision} {str(error).split(';')[0]}: the training starts again in float32",
            flush=True,
        )
        if checkpoint:
            checkpoint.discard()
    trained = _fit(
        fixed.model_copy(update={"precision": "float32"}),
        augmentation,
        seed,
        parts,
        start,
        checkpoint,
    )
    return replace(trained, card=trained.card | {"fell_back_from": precision})


def _fit(
    settings: ModelSection,
    augmentation: Augmentation,
    seed: int,
    parts: dict[str, Split],
    start: weights.Start,
    checkpoint: Checkpoint | None,
) -> Trained:
    """Train in the precision that `settings` names; see `fit`."""
    train, chosen = parts["train"], parts[chosen_on(parts)]
    if len(train) < settings.batch_size:
        raise UsageError(
            f"batch_size = {settings.batch_size}: there are only {len(train)} training images; take a smaller batch"
        )
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(seed)
    file, origin = start
    made = _prepare(settings, augmentation, train, file)
    progress = Progress(made.model, made.variables, checkpoint, settings.precision)
    print(
        f"{len(train)} images, {made.epochs} {'epochs' if made.epochs > 1 else 'epoch'} of {made.steps} batches of {settings.batch_size}, "
        f"{made.about}, weights: {origin}",
        flush=True,
    )
    if progress.rows:
        print(
            f"going on after epoch {len(progress.rows)}, where this training was stopped before",
            flush=True,
        )
    elif file and isinstance(settings, Resnet50v2) and settings.head_epochs:
        progress.head = transfer.train_head(made.model, settings, train, chosen, made.loss, seed)
        if not math.isfinite(progress.head["validation_loss"]):
            raise FloatingPointError(
                f"the loss of the head alone is not finite; take a smaller learning_rate than {settings.learning_rate}"
            )
        made.network.set_weights(made.model.get_weights())
        print(
            f"head alone: validation loss {progress.head['validation_loss']:.4f} after {settings.head_epochs} epochs",
            flush=True,
        )
    for epoch in range(len(progress.rows), made.epochs):
        if progress.waited >= settings.patience:
            print(f"stopped: no better epoch for {settings.patience}", flush=True)
            break
        row = _run_epoch(made, settings.batch_size, parts, seed, epoch)
        progress.add(row)
        _report(row, made.epochs)
    made.model.set_weights(progress.kept)
    history = pd.DataFrame(progress.rows)
    card = {
        "network": getattr(settings, "backbone", "small residual CNN"),
        "weights": origin,
        "precision": made.about,
        "parameters": made.model.count_params(),
        "head": progress.head,
        "chosen_by": progress.criterion,
        "best_epoch": int(history[progress.criterion].idxmin()) + 1,
    }
    return Trained(made.model, history, card)


@dataclass(frozen=True)
class _Prepared:
    """All that a training needs before its first step."""

    network: keras.Model  # is trained, in its precision and on its devices
    model: keras.Model  # validates and is kept, in float32 on one device
    optimizer: AdamW | LossScale
    average: Average | None
    loss: Loss
    step: Callable[..., tf.Tensor]
    epochs: int
    steps: int
    rates: np.ndarray
    rate_name: str
    about: str

    @property
    def variables(self) -> list[tf.Variable]:
        """All that changes in training; beside the weights these are the seeds of dropout and what the optimizer keeps."""
        averaged = self.average.state if self.average else []
        return (
            [variable.value for variable in self.network.variables]
            + self.optimizer.state
            + averaged
        )


def _prepare(
    settings: ModelSection, augmentation: Augmentation, train: Split, file: Path | None
) -> _Prepared:
    precision, devices = hardware.precision(settings.precision), hardware.devices(settings.strategy)
    if settings.batch_size % len(devices):
        raise UsageError(
            f"batch_size = {settings.batch_size}: {len(devices)} devices cannot share it evenly; take a multiple"
        )
    strategy = tf.distribute.MirroredStrategy(devices) if len(devices) > 1 else None
    steps = len(train) // settings.batch_size
    with strategy.scope() if strategy else contextlib.nullcontext():
        network = networks.build(settings, precision, transfer=bool(file))
        hardware.check_memory(network, settings.batch_size, devices)
        if file and isinstance(settings, Resnet50v2):
            weights.put(weights.backbone_of(network), settings.backbone, file)
            epochs, peak, shares = (
                settings.tuning_epochs,
                settings.tuning_rate,
                transfer.shares(network, settings.early_rate),
            )
        else:
            epochs, peak, shares = settings.epochs, settings.learning_rate, None
        plain = AdamW(
            [weight.value for weight in network.trainable_variables], settings.weight_decay, shares
        )
        optimizer = LossScale(plain) if precision == "float16" else plain
        loss = Loss.of(settings, train.labels)
        step = training_step(network, optimizer, augmentation, loss, strategy)
    model = networks.build(settings, transfer=bool(file))
    model.set_weights(network.get_weights())
    return _Prepared(
        network=network,
        model=model,
        optimizer=optimizer,
        average=Average(network, settings.average) if settings.average else None,
        loss=loss,
        step=step,
        epochs=epochs,
        steps=steps,
        rate_name="tuning_rate" if file else "learning_rate",
        rates=learning_rates(peak, epochs, steps, settings.warmup_epochs),
        about=precision + (f" on {len(devices)} devices" if strategy else ""),
    )


def _run_epoch(
    made: _Prepared, batch_size: int, parts: dict[str, Split], seed: int, epoch: int
) -> dict[str, float]:
    """Train for an epoch, hand the weights (or their average) to the model that is kept, and validate it."""
    started = time.perf_counter()
    rates = made.rates[epoch * made.steps : (epoch + 1) * made.steps]
    try:
        loss = run_epoch(
            made.step,
            parts["train"],
            batch_size,
            rates,
            seed,
            epoch,
            made.average.follow if made.average else None,
        )
    except (tf.errors.ResourceExhaustedError, MemoryError):
        raise UsageError(
            f"batch_size = {batch_size}: a step does not fit into memory; take a smaller one"
        ) from None
    made.model.set_weights(made.average.weights() if made.average else made.network.get_weights())
    found = _validate(made.model, parts)
    if not math.isfinite(loss + sum(found.values())):
        raise FloatingPointError(
            f"the loss is {loss} in epoch {epoch + 1}; take a smaller {made.rate_name} than {made.rates.max():g}"
        )
    return {
        "epoch": epoch + 1,
        "loss": loss,
        **found,
        "learning_rate": float(rates[-1]),
        "seconds": time.perf_counter() - started,
    }


def _report(row: dict[str, float], epochs: int) -> None:
    losses = [
        f"{name.replace('_', ' ')} {row[name]:.4f}"
        for name in ("loss", "validation_loss", "stress_loss")
        if name in row
    ]
    accuracy = f"validation accuracy {row['validation_accuracy']:.4f}"
    print(
        f"epoch {row['epoch']}/{epochs}: {', '.join(losses)}, {accuracy}, {row['seconds']:.0f} s",
        flush=True,
    )


def _validate(model: keras.Model, parts: dict[str, Split]) -> dict[str, float]:
    """Log loss and accuracy on the images that choices are made on, and log loss on shifted copies of them."""
    chosen = parts[chosen_on(parts)]
    found = networks.logits(model, chosen.pixels)
    losses = {"validation_loss": robustness.log_loss(found, chosen.labels)}
    if "validation" in parts:
        losses["stress_loss"] = robustness.log_loss(
            robustness.mixed_logits(model, chosen), chosen.labels
        )
    return losses | {"validation_accuracy": float(np.mean((found >= 0) == chosen.labels))}


def score_splits(
    model: keras.Model, splits: dict[str, Split], flips: bool = False
) -> dict[str, np.ndarray]:
    """Return the logits of every split that is scored (all but ``train``), with test-time flips or without."""
    return {
        name: networks.logits(model, splits[name].pixels, flips=flips)
        for name in SCORED
        if name in splits
    }
