"""How fast the notebooks' ``fit`` trains, beside the network alone and the way of the Keras guides.

    python benchmarks/training_speed.py ../path/to/chest_xray
    python benchmarks/training_speed.py phantom --model resnet50v2 --steps 30
    python benchmarks/training_speed.py ../path/to/chest_xray --before ../another/checkout

The same images, network, batch size, loss and float32 arithmetic in one run, each way in a process
of its own, in turn; the median of the rounds counts. The network alone takes one batch of tensors
again and again: no way of feeding it can be faster. ``keras`` is ours with Keras' own AdamW in
place of the fused one. ``--before`` asks the same benchmark of another checkout for its own way.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WARM_UP = 5  # steps before the clock starts
STEPS = {"baseline_cnn": 100, "resnet50v2": 30}
WAYS = {
    "limit": "the network alone, on tensors in memory",
    "ours": "the notebook's fit, augmentation included",
    "keras": "the same with Keras' own AdamW",
    "dataset": "image_dataset_from_directory + fit, as in the Keras guides",
}


def main() -> None:
    """Measure each way and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="a folder in the Kaggle layout, or phantom")
    parser.add_argument("--model", choices=STEPS, help="both where left out")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--before", type=Path, help="another checkout to be compared with")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.way:
        print(json.dumps(measure(asked)))
        return
    for model in [asked.model] if asked.model else STEPS:
        compare(asked, model, asked.steps or STEPS[model])


def compare(asked: argparse.Namespace, model: str, steps: int) -> None:
    """Time steps of one model each way, in turn, and print the medians."""
    ways = dict(WAYS) | (
        {"before": f"the notebook's way in {asked.before}"} if asked.before else {}
    )
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for _ in range(asked.rounds):
        for way in ways:
            found[way].append(_in_own_process(way, asked, model, steps))
    rates = {way: statistics.median(entry["rate"] for entry in found[way]) for way in ways}
    print(f"{model}, {steps} steps, {asked.rounds} rounds, {os.cpu_count()} cores")
    for way, title in ways.items():
        memory = max(entry["megabytes"] for entry in found[way])
        share = f"ours is {rates['ours'] / rates[way]:5.2f} of it"
        print(f"  {title:<58} {rates[way]:7.1f} images/s  {share}  {memory:6.0f} MB", flush=True)


def _in_own_process(way: str, asked: argparse.Namespace, model: str, steps: int) -> dict:
    root = asked.before if way == "before" else Path(__file__).parents[1]
    command = [sys.executable, str(root / "benchmarks" / "training_speed.py"), asked.source]
    command += ["--model", model, "--steps", str(steps)]
    command += [part for text in asked.set for part in ("--set", text)]
    command += ["--way", "ours" if way == "before" else way]
    env = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(root.resolve())}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=env)
    return json.loads(done.stdout.splitlines()[-1])


def measure(asked: argparse.Namespace) -> dict[str, float]:
    """Train one way for some steps; return images a second and the peak of memory in MB."""
    import tensorflow as tf

    from cxr_utils import profiles
    from cxr_utils.data import dataset

    local = os.path.lexists(asked.source)
    source = str(Path(asked.source).resolve()) if local else asked.source
    # From random weights in the same arithmetic for all, whatever this machine could have.
    fixed = ["resnet50v2.weights=none", f"{asked.model}.precision=float32"]
    chosen = profiles.load("default", [*fixed, *asked.set], source)
    section = chosen.sections[asked.model]
    tf.config.experimental.enable_op_determinism()
    data = dataset.open_data(chosen, section.image_size)
    way = {"limit": _limit, "dataset": _dataset}.get(asked.way, _notebook)
    seconds = way(chosen, section, data, asked)
    return {
        "rate": asked.steps * section.batch_size / seconds,
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _clock(steps: int):
    """A callback that times so many steps after the first few, and then ends the training."""
    import keras

    class Clock(keras.callbacks.Callback):
        done, started, seconds = 0, 0.0, 0.0

        def on_train_batch_end(self, batch, logs=None):
            self.done += 1
            if self.done == WARM_UP:
                self.started = time.perf_counter()
            if self.done == WARM_UP + steps:
                self.seconds = time.perf_counter() - self.started
                self.model.stop_training = True

    return Clock()


def _notebook(chosen, section, data, asked) -> float:
    import keras
    from cells import namespace_of

    from cxr_utils import paths
    from cxr_utils.models import callbacks, hardware, training, weights

    run = paths.RunFolder(Path(tempfile.mkdtemp()))
    names = namespace_of(section, chosen.augmentation, chosen.seed, data.splits, run)
    if asked.way == "keras":
        plain = keras.optimizers.AdamW
        names["training"].AdamW = lambda rate, decay, shares=None: plain(rate, weight_decay=decay)
    clock = _clock(asked.steps)
    names["watching"] = lambda job: [callbacks.MovingAverage(section.average), clock]
    strategy = hardware.strategy_for(hardware.devices("single"), section.batch_size)
    job = training.Job(
        section.precision, chosen.seed, strategy, weights.Start("random"), 3,
        section.learning_rate, None, None, 0, {},
    )  # fmt: skip
    names["train"](job)
    return clock.seconds


def _limit(chosen, section, data, asked) -> float:
    import numpy as np
    import tensorflow as tf

    from cxr_utils.models import optimizer

    side = section.image_size
    images = np.random.default_rng(0).uniform(size=(section.batch_size, side, side, 1))
    labels = tf.constant(np.arange(section.batch_size) % 2, tf.float32)
    feed = tf.data.Dataset.from_tensors((tf.constant(images, tf.float32), labels)).repeat()
    return _fitted(section, feed, asked.steps, optimizer.AdamW(1e-3, section.weight_decay))


def _dataset(chosen, section, data, asked) -> float:
    import keras
    import tensorflow as tf
    from keras import layers

    changes = chosen.augmentation
    loaded = keras.utils.image_dataset_from_directory(
        data.source.root / "train",
        image_size=(section.image_size, section.image_size),
        color_mode="grayscale",
        batch_size=section.batch_size,
        verbose=False,
    )
    changing = [
        layers.RandomFlip("horizontal"),
        layers.RandomRotation(changes.rotation / 360),
        layers.RandomTranslation(changes.shift, changes.shift),
        layers.RandomZoom(changes.zoom),
        layers.RandomContrast(changes.contrast),
    ]

    def change(images, labels):
        images = images / 255.0
        for layer in changing:
            images = layer(images, training=True)
        return images, labels

    feed = loaded.map(change, num_parallel_calls=tf.data.AUTOTUNE).repeat()
    own = keras.optimizers.AdamW(1e-3, weight_decay=section.weight_decay)
    return _fitted(section, feed.prefetch(tf.data.AUTOTUNE), asked.steps, own)


def _fitted(section, feed, steps, optimizer) -> float:
    import keras

    from cxr_utils.models import networks

    network, clock = networks.build(section), _clock(steps)
    network.compile(optimizer, keras.losses.BinaryCrossentropy(from_logits=True))
    network.fit(feed, steps_per_epoch=WARM_UP + steps, epochs=1, verbose=0, callbacks=[clock])
    return clock.seconds


if __name__ == "__main__":
    main()
