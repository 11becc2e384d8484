"""One step of a training: the loss, the optimizer, the average of weights, precision and devices."""

import os
import subprocess
import sys
from itertools import chain
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from cxr_utils import paths
from cxr_utils.data import dataset
from cxr_utils.models import gradient, hardware, networks, optimizer, training
from cxr_utils.parameters import UsageError


def test_loss_is_keras_own():
    labels, logits = (
        np.array([1, 1, 0, 1, 0], np.float32),
        np.array([2, -1, 0.5, 0, -3], np.float32),
    )
    plain = keras.losses.BinaryCrossentropy(from_logits=True)(labels, logits)
    smooth = keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.2)(labels, logits)
    assert float(gradient.Loss()(labels, logits)) == pytest.approx(float(plain), abs=1e-6)
    assert float(gradient.Loss(0.2)(labels, logits)) == pytest.approx(float(smooth), abs=1e-6)


def test_class_weights_let_both_classes_weigh_alike(smoke):
    labels = np.array([1, 1, 1, 0])
    loss = gradient.Loss.of(smoke.baseline_cnn.model_copy(update={"class_weights": True}), labels)
    assert (
        loss.weights[0] * 1 == pytest.approx(loss.weights[1] * 3)
        and np.mean([loss.weights[label] for label in labels]) == 1
    )
    assert gradient.Loss.of(smoke.baseline_cnn, labels).weights == (1.0, 1.0)
    sick, healthy = (
        float(loss(np.array([label], np.float32), np.zeros(1, np.float32))) for label in (1, 0)
    )
    assert healthy == pytest.approx(3 * sick)


def test_fused_adamw_is_keras_adamw():
    rng = np.random.default_rng(0)
    start, gradients = (
        rng.normal(size=(4, 3)).astype("float32"),
        rng.normal(size=(20, 4, 3)).astype("float32"),
    )
    for share in (1.0, 0.3):
        ours, theirs = keras.Variable(start), keras.Variable(start)
        fused = optimizer.AdamW([ours.value], weight_decay=0.1, shares=[share])
        keras_own = keras.optimizers.AdamW(
            0.01 * share, weight_decay=0.1, beta_1=0.9, beta_2=0.999, epsilon=1e-7
        )
        for number, moved in enumerate(gradients):
            fused.apply([tf.constant(moved)], tf.constant(0.01), tf.constant(float(number)))
            keras_own.apply([keras.ops.convert_to_tensor(moved)], [theirs])
        assert np.allclose(ours.numpy(), theirs.numpy(), atol=1e-5) and not np.allclose(
            ours.numpy(), start, atol=0.01
        )


def test_learning_rate_rises_then_falls():
    rates = optimizer.learning_rates(0.1, epochs=10, steps=5, warmup_epochs=2.0)
    assert len(rates) == 50 and rates.argmax() == 9 and rates.max() == pytest.approx(0.1)
    assert (np.diff(rates[:10]) > 0).all() and (np.diff(rates[10:]) < 0).all() and rates[-1] < 1e-3


def test_average_follows_the_weights(smoke):
    """A weight that stays is its own average; one that jumps is followed slowly, and batch norm statistics are among them."""
    network = networks.build(smoke.baseline_cnn)
    average = optimizer.Average(network, 0.9)
    start = network.get_weights()
    assert any("moving_" in weight.path for weight in network.weights)
    network.set_weights([weight + 1 for weight in start])
    left = 1.0
    for number in range(400, 412):
        average.follow(number)
        left *= 0.9**4 if number % 4 == 0 else 1
    for kept, first in zip(average.weights(), start, strict=True):
        assert np.allclose(kept - first, 1 - left, atol=1e-4)


def test_float16_steps_are_scaled_and_overflow_moves_nothing(smoke):
    network = networks.build(smoke.baseline_cnn, "float16")
    assert (
        network.compute_dtype == "float16"
        and network.get_layer("head_logit").kernel.dtype == "float32"
    )
    weight = tf.Variable([1.0, 2.0])
    half = optimizer.LossScale(optimizer.AdamW([weight], 0.0))
    half.apply([tf.constant([np.inf, 1.0])], tf.constant(0.1), tf.constant(0.0))
    assert (weight.numpy() == [1, 2]).all() and half.scale.numpy() == optimizer.FIRST_SCALE / 2
    half.apply([tf.constant([1.0, 1.0])], tf.constant(0.1), tf.constant(1.0))
    assert (
        (weight.numpy() < [1, 2]).all()
        and half.scale.numpy() == optimizer.FIRST_SCALE / 2
        and half.good.numpy() == 1
    )
    assert {id(half.scale), id(half.good)} < {id(variable) for variable in half.state}


TWO_DEVICES = """
import sys
import numpy as np
import tensorflow as tf
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
from cxr_utils import parameters as params
from cxr_utils.data import dataset as images
from cxr_utils.models import hardware, networks as models, training
hardware.devices = lambda strategy: ["CPU:0", "CPU:1"]
asked = ["data.source=phantom", "baseline_cnn.image_size=32", "baseline_cnn.average=0.5", f"baseline_cnn.precision={sys.argv[1]}"]
smoke = params.load("smoke", asked)
data = images.open_data(smoke, 32)
runs = [training.fit(smoke.baseline_cnn, smoke.augmentation, 3, data.splits) for _ in range(2)]
same = all((a == b).all() for a, b in zip(runs[0].model.get_weights(), runs[1].model.get_weights(), strict=True))
logits = models.logits(runs[0].model, data.splits["test"].pixels)
print(runs[0].card["precision"], "| same", same, "| finite", np.isfinite(logits).all(), "| rows", len(runs[0].history))
"""


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_two_devices_share_a_training(precision):
    """Two logical CPUs: TensorFlow makes them only before it has started, so in a process of its own."""
    command = [sys.executable, "-c", TWO_DEVICES, precision]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ.copy(), check=False
    )
    assert done.returncode == 0, done.stderr
    assert (
        done.stdout.splitlines()[-1]
        == f"{precision} on 2 devices | same True | finite True | rows 2"
    )


def test_two_devices_take_the_gradient_of_the_whole_batch():
    """Without batch norm or augmentation, a step on two devices moves weights as a step on one does."""
    code = TWO_DEVICES.split("hardware.devices")[0] + (
        "import keras\n"
        "from cxr_utils.models import gradient, optimizer\n"
        "off = params.Augmentation(flip=False, **{name: 0.0 for name in params.Augmentation.model_fields if name != 'flip'})\n"
        "pixels = np.random.default_rng(0).integers(0, 256, (8, 16, 16)).astype(np.uint8)\n"
        "moved = []\n"
        "for strategy in (None, tf.distribute.MirroredStrategy(['CPU:0', 'CPU:1'])):\n"
        "    keras.utils.set_random_seed(0)\n"
        "    with (strategy or tf.distribute.get_strategy()).scope():\n"
        "        network = keras.Sequential([keras.Input((16, 16, 1)), keras.layers.Flatten(), keras.layers.Dense(1)])\n"
        "        adamw = optimizer.AdamW([weight.value for weight in network.trainable_variables], 0.1)\n"
        "    step = gradient.training_step(network, adamw, off, strategy=strategy)\n"
        "    labels = tf.constant(np.arange(8) % 3 == 0, tf.float32)\n"
        "    for number in range(3):\n"
        "        loss = step(tf.constant(pixels), labels, tf.constant(0.01), tf.constant([1, number]), tf.constant(float(number)))\n"
        "    moved.append([float(loss), *network.get_weights()])\n"
        "assert all(np.allclose(a, b, atol=1e-5) for a, b in zip(*moved)), moved\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ.copy(),
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_batch_that_devices_cannot_share_stops(smoke, monkeypatch):
    monkeypatch.setattr(hardware, "devices", lambda _: ["CPU:0", "CPU:1", "CPU:2"])
    with pytest.raises(UsageError, match="3 devices cannot share it evenly"):
        training.fit(
            smoke.baseline_cnn,
            smoke.augmentation,
            1,
            dataset.open_data(smoke, smoke.baseline_cnn.image_size).splits,
        )


def test_bfloat16_is_taken_where_it_is_faster(monkeypatch, tmp_path):
    """The measurement decides, once a machine: a second question is answered from the cache."""
    monkeypatch.setenv("CXR_CACHE", str(tmp_path))
    monkeypatch.setattr(hardware, "FLAGS", ("model name",))  # as if every CPU had it
    speeds = {tf.float32: 2.0, tf.bfloat16: 1.0}
    monkeypatch.setattr(hardware, "_speed_of", lambda kind: speeds[kind])
    assert hardware.precision("auto") == "bfloat16" and hardware.precision("float32") == "float32"
    speeds[tf.bfloat16] = 4.0
    assert hardware.precision("auto") == "bfloat16"
    (tmp_path / "bfloat16.json").write_text("damaged")
    assert hardware.precision("auto") == "float32"
    monkeypatch.setattr(hardware, "FLAGS", ("no such flag",))
    (tmp_path / "bfloat16.json").unlink()
    assert hardware.precision("auto") == "float32" and not (tmp_path / "bfloat16.json").is_file()


def test_speed_is_measured_in_both_kinds():
    assert (
        hardware._speed_of(tf.float32, repeats=1) > 0
        and hardware._speed_of(tf.bfloat16, repeats=1) > 0
    )


def test_a_batch_too_large_for_memory_stops_before_training(smoke, monkeypatch):
    network = networks.build(smoke.baseline_cnn)
    cpu = ["/device:CPU:0"]
    hardware.check_memory(network, 16, cpu)
    monkeypatch.setattr(
        hardware.psutil, "virtual_memory", lambda: SimpleNamespace(available=100_000_000)
    )
    hardware.check_memory(network, 1024, ["/device:GPU:0"])
    with pytest.raises(UsageError, match="images of this size fit") as refused:
        hardware.check_memory(network, 1024, cpu)
    most = int(str(refused.value).split("at most ")[1].split()[0])
    hardware.check_memory(network, most, cpu)
    with pytest.raises(UsageError):
        hardware.check_memory(network, most + 1, cpu)
    assert paths.cache_folder().is_dir()


def test_an_epoch_shows_each_image_once_with_its_label(smoke):
    """Full batches in a new order each epoch; the label that comes with an image is that image's."""
    train = dataset.open_data(smoke, 32).splits["train"]
    label_of = {
        image.tobytes(): label for image, label in zip(train.pixels[:], train.labels, strict=True)
    }
    seen = []

    def step(pixels, labels, *_):
        seen.append(
            [
                (image.tobytes(), label)
                for image, label in zip(pixels.numpy(), labels.numpy(), strict=True)
            ]
        )
        return tf.constant(1.0)

    steps = len(train) // 8
    for epoch in (0, 1, 0):
        assert (
            gradient.run_epoch(step, train, 8, np.ones(steps, np.float32), seed=1, epoch=epoch)
            == 1.0
        )
    first, second, again = (
        list(chain(*seen[start : start + steps])) for start in (0, steps, 2 * steps)
    )
    assert first == again != second and len(first) == 8 * steps
    assert all(label_of[image] == label for image, label in first + second)
    assert len({image for image, _ in first}) >= 0.95 * len(
        first
    )  # the phantom may hold an image twice, the order may not
