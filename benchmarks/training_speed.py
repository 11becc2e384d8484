"""How fast a network trains here, beside the network alone and the ways people feed it today.

    python benchmarks/training_speed.py ../path/to/chest_xray --model baseline_cnn --steps 100
    python benchmarks/training_speed.py phantom --model resnet50v2 --steps 30
    python benchmarks/training_speed.py ../path/to/chest_xray --whole
    python benchmarks/training_speed.py ../path/to/chest_xray --head path/to/weights.h5 --set resnet50v2.backbone=Xception

The same images, network, batch, optimizer's rule and float32 arithmetic in one run, each way in a process of its own, in turn; the
median of the rounds counts. The network alone takes one batch of tensors in memory again and again, without augmentation: no way of
feeding it can be faster. Ours runs as in a real training, with deterministic operations.

With ``--whole`` one epoch of each model is timed with its validation, ours (a pass over validation and one over its shifted copies)
against ``flow_from_directory`` in float32, and multiplied by the epochs of the parameters. With ``--head`` an epoch of the head on
features computed once is timed against one with the frozen backbone in the loop.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

WARM_UP = 5  # steps before the clock starts
WAYS = {
    "limit": "the network alone, on tensors in memory",
    "ours": "this project, augmentation included",
    "generator": "ImageDataGenerator.flow_from_directory",
    "dataset": "image_dataset_from_directory, as in the Keras guides",
}


def main() -> None:
    """Measure each way and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="a folder in the Kaggle layout, or phantom")
    parser.add_argument("--model", choices=("baseline_cnn", "resnet50v2"), default="baseline_cnn")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--whole",
        action="store_true",
        help="time whole epochs of both models with their validation",
    )
    parser.add_argument(
        "--head",
        metavar="WEIGHTS",
        help="time the head stage from this file of weights, or none for random ones",
    )
    parser.add_argument("--way", choices=(*WAYS, "head"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.way:
        print(
            json.dumps(
                measure_epoch(asked)
                if asked.whole
                else measure_head(asked)
                if asked.head
                else measure(asked)
            )
        )
    elif asked.whole:
        compare_whole()
    elif asked.head:
        found = _in_own_process("head", sys.argv[1:])
        print(
            f"head: {found['features']:.1f} s for all features once, then {found['epoch']:.2f} s an epoch"
        )
        slower = found["loop"] / found["epoch"]
        print(
            f"with the frozen backbone in the loop an epoch takes {found['loop']:.1f} s, {slower:.0f} times as long"
        )
    else:
        compare_ways(asked)


def _in_own_process(way: str, arguments: list[str]) -> dict[str, float]:
    command = [sys.executable, __file__, *arguments, "--way", way]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    return json.loads(done.stdout.splitlines()[-1])


def compare_whole() -> None:
    """Time an epoch of each model both ways, in turn, and print what all epochs of the parameters come to."""
    totals = {"ours": 0.0, "generator": 0.0}
    for model in ("baseline_cnn", "resnet50v2"):
        for way in totals:
            found = _in_own_process(way, [*sys.argv[1:], "--model", model])
            totals[way] += found["ready"] + found["epochs"] * found["epoch"]
            print(
                f"  {model:<14} {WAYS[way]:<45} {found['ready']:6.1f} s before, {found['epoch']:6.1f} s an epoch, {found['epochs']} epochs"
            )
    print(
        f"all epochs: {totals['ours']:.0f} s against {totals['generator']:.0f} s, {totals['generator'] / totals['ours']:.2f} times as fast"
    )


def compare_ways(asked: argparse.Namespace) -> None:
    """Time steps of one model each way, in turn, and print the medians."""
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(asked.rounds):
        for way in WAYS:
            found[way].append(_in_own_process(way, sys.argv[1:]))
    limit = statistics.median(entry["rate"] for entry in found["limit"])
    print(f"{asked.model}, {asked.steps} steps, {asked.rounds} rounds, {os.cpu_count()} cores")
    for way, title in WAYS.items():
        rate = statistics.median(entry["rate"] for entry in found[way])
        memory = max(entry["megabytes"] for entry in found[way])
        print(
            f"  {title:<56} {rate:7.1f} images/s  {rate / limit:5.2f} of the limit  {memory:6.0f} MB at most"
        )


def _asked_for(asked: argparse.Namespace):
    from cxr_utils import profiles
    from cxr_utils.data import sources

    source = str(Path(asked.source).resolve()) if os.path.lexists(asked.source) else asked.source
    # From random weights in the same arithmetic for all, whatever this machine could have.
    chosen = profiles.load(
        "default",
        ["resnet50v2.weights=none", f"{asked.model}.precision=float32", *asked.set],
        source,
    )
    return chosen, getattr(chosen, asked.model), sources.fetch(chosen.data).root


def measure(asked: argparse.Namespace) -> dict[str, float]:
    """Train one way for some steps; returns images a second and the peak of memory."""
    chosen, settings, root = _asked_for(asked)
    feed = {"limit": _limit, "ours": _ours, "generator": _generator, "dataset": _dataset}[asked.way]
    seconds = feed(chosen, settings, root, asked.steps)
    return {
        "rate": asked.steps * settings.batch_size / seconds,
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def measure_epoch(asked: argparse.Namespace) -> dict[str, float]:
    """Time what comes before the first step, and one epoch with its validation."""
    from cxr_utils.data import dataset
    from cxr_utils.models import networks, training

    chosen, settings, root = _asked_for(asked)
    started = time.perf_counter()
    if asked.way == "ours":
        data = dataset.open_data(chosen, settings.image_size)
        trained = training.fit(
            settings.model_copy(update={"epochs": 1}), chosen.augmentation, chosen.seed, data.splits
        )
        epoch = float(trained.history["seconds"].iloc[0])
    else:
        feed, network = (
            _generated(chosen, settings, root, 0.15, "training"),
            networks.build(settings),
        )
        _compiled(network, settings)
        before = time.perf_counter()
        plain = chosen.model_copy(update={"augmentation": _no_changes(chosen.augmentation)})
        network.fit(
            feed,
            validation_data=_generated(plain, settings, root, 0.15, "validation"),
            epochs=1,
            verbose=0,
        )
        epoch = time.perf_counter() - before
    return {
        "ready": time.perf_counter() - started - epoch,
        "epoch": epoch,
        "epochs": settings.epochs,
    }


def measure_head(asked: argparse.Namespace) -> dict[str, float]:
    """Time the head stage on features computed once, and steps of it with the frozen backbone in the loop."""
    import numpy as np
    import tensorflow as tf

    from cxr_utils import paths
    from cxr_utils.data import dataset
    from cxr_utils.models import augmentation, gradient, networks, optimizer, transfer, weights

    chosen, _, _ = _asked_for(asked)
    settings = chosen.resnet50v2
    data, model = (
        dataset.open_data(chosen, settings.image_size),
        networks.build(settings, transfer=True),
    )
    if asked.head != "none":
        weights.put(
            weights.backbone_of(model),
            settings.backbone,
            paths.from_root(Path(asked.head).resolve()),
        )
    train, loss = data.splits["train"], gradient.Loss()
    found = transfer.train_head(
        model, settings, train, data.splits["validation"], loss, chosen.seed
    )
    weights.backbone_of(model).trainable = False
    adamw = optimizer.AdamW(
        [weight.value for weight in model.trainable_variables], settings.weight_decay
    )

    @tf.function(autograph=False)
    def step(pixels, labels, rate, _, number):
        with tf.GradientTape() as tape:
            found = loss(labels, model(augmentation.to_float(pixels), training=True)[:, 0])
        adamw.apply(tape.gradient(found, adamw.variables), rate, number)
        return found

    whole = len(train) // transfer.HEAD_BATCH
    rates = np.full(min(asked.steps, whole), 1e-3, np.float32)
    gradient.run_epoch(step, train, transfer.HEAD_BATCH, rates[:WARM_UP], 1, 0)
    tf.constant(0).numpy()
    started = time.perf_counter()
    gradient.run_epoch(step, train, transfer.HEAD_BATCH, rates, 1, 1)
    loop = (time.perf_counter() - started) / len(rates) * whole
    return {"features": found["features_seconds"], "epoch": found["epoch_seconds"], "loop": loop}


def _limit(chosen, settings, root, steps) -> float:
    import numpy as np
    import tensorflow as tf

    from cxr_utils.models import networks, optimizer

    network = networks.build(settings)
    adamw = optimizer.AdamW(
        [variable.value for variable in network.trainable_variables], settings.weight_decay
    )
    images = tf.constant(
        np.random.default_rng(0).uniform(
            size=(settings.batch_size, settings.image_size, settings.image_size, 1)
        ),
        tf.float32,
    )
    labels, rate = tf.constant(np.arange(settings.batch_size) % 2, tf.float32), tf.constant(1e-3)

    @tf.function(autograph=False)
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(
                tf.nn.sigmoid_cross_entropy_with_logits(
                    labels, network(images, training=True)[:, 0]
                )
            )
        adamw.apply(tape.gradient(loss, adamw.variables), rate, tf.constant(0.0))
        return loss

    return _timed(step, steps)


def _ours(chosen, settings, root, steps) -> float:
    import numpy as np
    import tensorflow as tf

    from cxr_utils.data import dataset
    from cxr_utils.models import gradient, networks, optimizer

    tf.config.experimental.enable_op_determinism()
    data = dataset.open_data(
        chosen.model_copy(update={"data": chosen.data.model_copy(update={"source": str(root)})}),
        settings.image_size,
    )
    network = networks.build(settings)
    adamw = optimizer.AdamW(
        [variable.value for variable in network.trainable_variables], settings.weight_decay
    )
    step = gradient.training_step(network, adamw, chosen.augmentation)
    train, rates = data.splits["train"], np.full(steps, 1e-3, np.float32)
    whole = len(train) // settings.batch_size
    gradient.run_epoch(step, train, settings.batch_size, rates[: min(WARM_UP, whole)], 1, 0)
    started = time.perf_counter()
    for epoch, first in enumerate(range(0, steps, whole), start=1):
        gradient.run_epoch(step, train, settings.batch_size, rates[first : first + whole], 1, epoch)
    return time.perf_counter() - started


def _generator(chosen, settings, root, steps) -> float:
    return _fitted(settings, _generated(chosen, settings, root), steps)


def _no_changes(augmentation):
    return augmentation.model_copy(update=dict.fromkeys(type(augmentation).model_fields, 0))


def _generated(chosen, settings, root, validation=0.0, subset=None):
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    changes = chosen.augmentation
    return ImageDataGenerator(
        rescale=1 / 255,
        validation_split=validation,
        horizontal_flip=changes.flip,
        rotation_range=changes.rotation,
        width_shift_range=changes.shift,
        height_shift_range=changes.shift,
        zoom_range=changes.zoom,
        brightness_range=(1 - changes.brightness, 1 + changes.brightness),
    ).flow_from_directory(
        root / "train",
        target_size=(settings.image_size, settings.image_size),
        color_mode="grayscale",
        class_mode="binary",
        batch_size=settings.batch_size,
        subset=subset,
    )


def _dataset(chosen, settings, root, steps) -> float:
    import keras
    import tensorflow as tf
    from keras import layers

    changes = chosen.augmentation
    loaded = keras.utils.image_dataset_from_directory(
        root / "train",
        image_size=(settings.image_size, settings.image_size),
        color_mode="grayscale",
        batch_size=settings.batch_size,
        verbose=False,
    )
    layered = [
        layers.Rescaling(1 / 255),
        layers.RandomFlip("horizontal"),
        layers.RandomRotation(changes.rotation / 360),
        layers.RandomTranslation(changes.shift, changes.shift),
        layers.RandomZoom(changes.zoom),
        layers.RandomContrast(changes.contrast),
    ]

    def change(images, labels):
        for layer in layered:
            images = layer(images, training=True) if layer is not layered[0] else layer(images)
        return images, labels

    return _fitted(
        settings,
        loaded.map(change, num_parallel_calls=tf.data.AUTOTUNE).repeat().prefetch(tf.data.AUTOTUNE),
        steps,
    )


def _fitted(settings, feed, steps) -> float:
    """Seconds of Keras' own loop."""
    from cxr_utils.models import networks

    network = networks.build(settings)
    _compiled(network, settings)
    network.fit(feed, steps_per_epoch=WARM_UP, epochs=1, verbose=0)
    started = time.perf_counter()
    network.fit(feed, steps_per_epoch=steps, epochs=1, verbose=0)
    return time.perf_counter() - started


def _compiled(network, settings) -> None:
    import keras

    network.compile(
        keras.optimizers.AdamW(1e-3, weight_decay=settings.weight_decay),
        keras.losses.BinaryCrossentropy(from_logits=True),
    )


def _timed(step, steps) -> float:
    for _ in range(WARM_UP):
        step()
    started = time.perf_counter()
    for _ in range(steps):
        loss = step()
    loss.numpy()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
