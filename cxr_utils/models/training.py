"""From a notebook's ``fit`` to a trained model, or back from disk where it was trained before."""

import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from sklearn.utils.class_weight import compute_class_weight

from .. import paths
from ..data.dataset import Dataset, Split
from ..data.splits import chosen_on
from ..files import read_json, replacing, sha256_of, write_atomically
from ..parameters import ModelSection, Params, Resnet50v2, UsageError
from . import fingerprint, hardware, networks, robustness, weights
from .callbacks import Saved
from .optimizer import AdamW, cosine

HEAD_BATCH = 32


@dataclass(frozen=True)
class Trained:
    """A trained model."""

    model: keras.Model  # in float32, with the weights of its best epoch
    card: dict[str, Any]  # what the model card says of the training

    @property
    def history(self) -> pd.DataFrame:
        """One row an epoch: its number, its losses (nats), learning_rate and seconds."""
        return pd.DataFrame(self.card["history"])


@dataclass
class Job:
    """One attempt at a training, as the notebook's ``train`` takes it."""

    precision: str  # float32 or bfloat16
    seed: int  # of the order of the images and their changes
    strategy: tf.distribute.Strategy  # shares each batch among the devices
    start: weights.Start  # the weights to start from
    epochs: int  # passes over the training images, which differ with weights
    rate: float  # peak of the learning rate, which differs with weights
    model: keras.Model  # the network in float32 on one device, which is validated and kept
    saved: Saved  # the last finished epoch
    epoch: int  # the epoch to go on with, from 0
    notes: dict[str, Any]  # precision, fell_back_from, and what training the head alone came to


def train_or_load(
    train: Callable[[Job], keras.Model],
    section: ModelSection,
    params: Params,
    data: Dataset,
    run: paths.RunFolder,
) -> Trained:
    """Train a model, or load it where the same training was done before in this run folder.

    `train` is the notebook's function that builds, compiles and fits the network, and returns it;
    `data` is decoded at the model's size. Where ``precision: auto`` took bfloat16 and a loss was
    not finite, it is trained in float32. With ``evaluation.members`` > 1 it is an ensemble of
    trainings from the run's seed and those after it, on one split and from the same weights; its
    card tells of the first one, but for parameters and seconds, which are those of all.

    Raises
    ------
    UsageError
        A batch is larger than the data or the memory, devices cannot share it, or the weights that
        were asked for cannot be had.
    FloatingPointError
        The loss is not finite, in float32 or where another precision was asked for by name.
    """
    tf.config.experimental.enable_op_determinism()  # scores of a loaded model are the same, too
    digest, recipe = data.manifest.digest, fingerprint.recipe_of(train)
    if fingerprint.is_trained(section, params, digest, recipe, run):
        return _loaded(section.name, run)
    return _trained(train, data, weights.find(section), section, params, run)


def _loaded(name: str, run: paths.RunFolder) -> Trained:
    print(f"{name}: loaded, trained before with the same data, parameters and code")
    model = keras.models.load_model(run.model(name), compile=False, safe_mode=True)
    return Trained(model, read_json(run.model_card(name)))


def _trained(
    train: Callable[[Job], keras.Model],
    data: Dataset,
    start: weights.Start,
    section: ModelSection,
    params: Params,
    run: paths.RunFolder,
) -> Trained:
    """Train a model from some weights, and keep it and its card."""
    name, digest, recipe = section.name, data.manifest.digest, fingerprint.recipe_of(train)
    key = fingerprint.training_key(section, params, digest, start.digest, recipe)
    card_file, model_file = run.model_card(name), run.model(name)
    known = read_json(card_file)
    if known.get("training_key") == key and known.get("sha256") == sha256_of(model_file):
        return _loaded(name, run)  # a member of an ensemble that was stopped
    card_file.unlink(missing_ok=True)
    saved = Saved(run.checkpoint(name), key)
    if params.evaluation.members == 1:
        trained = fit(train, section, params.seed, data.splits, start, saved)
    else:
        trained = _ensemble(partial(_trained, train, data, start), section, params, run)
    with replacing(model_file) as part:
        trained.model.save(part)
    libraries = fingerprint.versions(fingerprint.TRAINING_LIBRARIES)
    used = {"python": platform.python_version(), **libraries}
    trained.card.update(training_key=key, versions=used, sha256=sha256_of(model_file))
    write_atomically(card_file, json.dumps(trained.card, indent=1))
    saved.discard()
    return trained


def _ensemble(
    train: Callable[..., Trained], section: ModelSection, params: Params, run: paths.RunFolder
) -> Trained:
    """Train a model from several seeds, all in one arithmetic; each is kept in its own folder."""
    count, alone = params.evaluation.members, params.evaluation.model_copy(update={"members": 1})
    each: list[Trained] = []
    for number in range(count):
        print(f"member {number + 1} of {count}, seed {params.seed + number}", flush=True)
        one = params.model_copy(update={"seed": params.seed + number, "evaluation": alone})
        member = run.member(number + 1).make()
        each.append(train(section, one, member))
        if each[-1].card["precision"]["fell_back_from"]:
            same = section.model_copy(update={"precision": "float32"})
            told = {"precision": each[-1].card["precision"]}
            found = _ensemble(train, same, params, run)
            return Trained(found.model, found.card | told)
    network = networks.ensemble([trained.model for trained in each], section.name)
    seconds = sum(trained.card["seconds"] for trained in each)
    told = {"parameters": network.count_params(), "seconds": seconds, "members": count}
    return Trained(network, each[0].card | told)


def fit(
    train: Callable[[Job], keras.Model],
    section: ModelSection,
    seed: int,
    splits: dict[str, Split],
    start: weights.Start,
    saved: Saved,
) -> Trained:
    """Train a model; see `train_or_load`."""
    images = len(splits["train"])
    if images < section.batch_size:
        raise UsageError(f"batch_size = {section.batch_size}: there are only {images} training "
                         "images; take a smaller batch")  # fmt: skip
    # A training that has fallen back to float32 and was stopped then goes on in float32.
    backbone = getattr(section, "backbone", "")
    precision = saved.notes.get("precision") or hardware.precision(section.precision, backbone)
    try:
        job = _attempt(train, section, seed, start, saved, precision)
    except FloatingPointError as error:
        if section.precision != "auto" or precision == "float32":
            remedy = f"take a smaller {'tuning_rate' if start.file else 'learning_rate'}"
            remedy += " or precision=float32" * (precision != "float32")
            raise FloatingPointError(f"{error}; {remedy}") from None
        print(f"in {precision} {error}: the training starts again in float32", flush=True)
        saved.discard()
        job = _attempt(train, section, seed, start, saved, "float32", precision)
    return Trained(job.model, _card(job, section))


def _attempt(
    train: Callable[[Job], keras.Model],
    section: ModelSection,
    seed: int,
    start: weights.Start,
    saved: Saved,
    precision: str,
    fell_back_from: str | None = None,
) -> Job:
    """Train in one precision; the job's model is the trained one."""
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(seed)  # of the head, which is trained in this model
    used = hardware.devices(section.strategy)
    strategy = hardware.strategy_for(used, section.batch_size)
    model = networks.build(section, weights=start.file)
    hardware.check_memory(model, section.batch_size, precision, used)
    epochs, rate = section.epochs, section.learning_rate
    if isinstance(section, Resnet50v2) and start.file:
        epochs, rate = section.tuning_epochs, section.tuning_rate
    kept = saved.notes
    epoch = epochs if kept.get("stopped") else len(kept.get("rows", []))
    if epoch:
        print(f"going on after epoch {epoch}, where this training was stopped", flush=True)
    notes = {"precision": precision, "fell_back_from": fell_back_from, "head": None}
    notes |= {name: kept[name] for name in notes if name in kept}
    job = Job(precision, seed, strategy, start, epochs, rate, model, saved, epoch, notes)
    keras.utils.set_random_seed(seed)
    try:
        model.set_weights(train(job).get_weights())
    except (tf.errors.ResourceExhaustedError, MemoryError):
        raise UsageError(f"batch_size = {section.batch_size}: a step does not fit into memory; "
                         "take a smaller one") from None  # fmt: skip
    return job


def _card(job: Job, section: ModelSection) -> dict[str, Any]:
    """What the model card says of a training."""
    kept = job.saved.notes
    rows, best = kept["rows"], kept["best_epoch"] + 1
    return {
        "model": section.name,
        "title": section.title,
        "builder": section.builder,
        "network": getattr(section, "backbone", section.builder),
        "parameters": job.model.count_params(),
        "members": 1,
        "start": job.start.told(),
        "precision": {
            "asked": section.precision,
            "used": job.precision,
            "fell_back_from": job.notes["fell_back_from"],
            "devices": job.strategy.num_replicas_in_sync,
        },
        "epochs": {"planned": job.epochs, "done": len(rows), "best": best},
        "chosen_by": "stress_loss" if "stress_loss" in rows[0] else "validation_loss",
        "head": job.notes["head"],
        "seconds": sum(row["seconds"] for row in rows),
        "history": rows,
    }


def class_weight(split: Split) -> dict[int, float]:
    """Return weights for ``fit`` by which both classes weigh alike, whatever their images."""
    shares = compute_class_weight("balanced", classes=np.array([0, 1]), y=split.labels)
    return dict(enumerate(shares.tolist()))


def train_head(
    network: keras.Model,
    job: Job,
    section: Any,
    splits: dict[str, Split],
    class_weight: dict[int, float] | None = None,
) -> None:
    """Train the last layer alone, on pooled features of the images as they are.

    Without this, random weights in the head would send noise through a good backbone. The backbone
    does not change meanwhile, so that its features are computed once, in float32. `network`, in
    training and compiled, is given the trained head; the job's notes tell what this came to.
    Raises UsageError where the loss is not finite.
    """
    model, train, chosen = job.model, splits["train"], splits[chosen_on(splits)]
    features = networks.features(model, train.pixels)
    layers = [model.get_layer(name) for name in networks.HEAD[1:]]
    head = keras.Sequential([keras.Input(features.shape[1:]), *layers])
    steps = -(-len(train) // HEAD_BATCH)
    rate = cosine(section.learning_rate, section.head_epochs, steps, section.warmup_epochs)
    head.compile(AdamW(rate, section.weight_decay), network.loss)
    labels = train.labels.astype(np.float32)
    head.fit(features, labels, HEAD_BATCH, section.head_epochs, 0, class_weight=class_weight)
    found = robustness.log_loss(networks.logits(model, chosen.pixels), chosen.labels)
    if not np.isfinite(found):
        raise UsageError(f"learning_rate = {section.learning_rate}: the loss of the head alone is "
                         f"{found}; take a smaller one")  # fmt: skip
    network.set_weights(model.get_weights())
    job.notes["head"] = {"epochs": section.head_epochs, "validation_loss": found}
