"""What a machine trains with: devices, arithmetic, memory."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import tensorflow as tf

from cxr_utils import paths
from cxr_utils.models import hardware, networks
from cxr_utils.parameters import UsageError

TWO_DEVICES = """
import sys
import tempfile
from pathlib import Path
import keras
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from cells import train_of
from cxr_utils import paths, profiles
from cxr_utils.data import dataset
from cxr_utils.models import callbacks, hardware, networks, training, weights
hardware.devices = lambda strategy: ["CPU:0", "CPU:1"]
asked = ["data.source=phantom", "baseline_cnn.image_size=32", "baseline_cnn.average=0.5"]
smoke = profiles.load("smoke", [*asked, f"baseline_cnn.precision={sys.argv[1]}"])
data, section = dataset.open_data(smoke, 32), smoke.baseline_cnn
"""
TRAIN_TWICE = """
runs = []
for _ in range(2):
    run = paths.RunFolder(Path(tempfile.mkdtemp())).make()
    train = train_of(section, smoke.augmentation, 3, data.splits, run)
    saved = callbacks.Saved(run.checkpoint("baseline_cnn"), "key")
    runs.append(training.fit(train, section, 3, data.splits, weights.Start("random"), saved))
again = training.fit(train, section, 3, data.splits, weights.Start("random"), saved)  # is done
moved = [run.model.get_weights() for run in (*runs, again)]
same = all((a == b).all() and (b == c).all() for a, b, c in zip(*moved, strict=True))
finite = np.isfinite(networks.logits(runs[0].model, data.splits["test"].pixels)).all()
told = runs[0].card["precision"]
print(told["used"], told["devices"], "| same", same, "| finite", finite, len(runs[0].history))
"""
WHOLE_BATCH = """
from cxr_utils.models.optimizer import AdamW
images = np.random.default_rng(0).uniform(size=(24, 16, 16, 1)).astype("float32")
labels, moved = (np.arange(24) % 3 == 0).astype("float32"), []
for devices in (["CPU:0"], ["CPU:0", "CPU:1"]):
    keras.utils.set_random_seed(0)
    with hardware.strategy_for(devices, 8).scope():
        flat, dense = keras.layers.Flatten(), keras.layers.Dense(1)
        network = keras.Sequential([keras.Input((16, 16, 1)), flat, dense])
        network.compile(AdamW(0.01, 0.1), keras.losses.BinaryCrossentropy(from_logits=True))
    network.fit(images, labels, 8, 2, verbose=0, shuffle=False, class_weight={0: 1.0, 1: 2.0})
    moved.append(network.get_weights())
assert all(np.allclose(a, b, atol=1e-5) for a, b in zip(*moved)), moved
"""


def run_on_two_devices(code, *arguments):
    """TensorFlow makes logical devices only before it has started: in a process of its own."""
    benchmarks = f"import sys; sys.path.append({str(paths.ROOT / 'benchmarks')!r})\n"
    return subprocess.run(
        [sys.executable, "-c", benchmarks + TWO_DEVICES + code, *arguments],
        capture_output=True,
        text=True,
        env=os.environ.copy(),
        cwd=Path(__file__).parent,
        check=False,
    )


@pytest.mark.long
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_two_devices_share_a_training(precision):
    done = run_on_two_devices(TRAIN_TWICE, precision)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{precision} 2 | same True | finite True 2"


def test_two_devices_take_the_gradient_of_the_whole_batch():
    """Without batch norm a step on two devices moves weights as a step on one does."""
    done = run_on_two_devices(WHOLE_BATCH, "float32")
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_batch_that_devices_cannot_share_stops():
    with pytest.raises(UsageError, match="3 devices cannot share it evenly"):
        hardware.strategy_for(["CPU:0", "CPU:1", "CPU:2"], 32)


def test_bfloat16_is_taken_where_it_is_faster(monkeypatch, tmp_path):
    """The measurement decides, once a machine: a second question is answered from the cache."""
    monkeypatch.setenv("CXR_CACHE", str(tmp_path))
    monkeypatch.setattr(hardware, "FLAGS", ("model name",))  # as if every CPU had it
    speeds = {tf.float32: 2.0, tf.bfloat16: 1.0}
    monkeypatch.setattr(hardware, "_speed_of", lambda kind: speeds[kind])
    assert (
        hardware.precision("auto", "") == "bfloat16"
        and hardware.precision("float32", "") == "float32"
    )
    assert hardware.precision("auto", "Xception") == "float32"  # on a CPU it may end in NaN
    speeds[tf.bfloat16] = 4.0
    assert hardware.precision("auto", "") == "bfloat16"
    (tmp_path / "bfloat16.json").write_text("damaged")
    assert hardware.precision("auto", "") == "float32"
    monkeypatch.setattr(hardware, "FLAGS", ("no such flag",))
    (tmp_path / "bfloat16.json").unlink()
    assert (
        hardware.precision("auto", "") == "float32" and not (tmp_path / "bfloat16.json").is_file()
    )


def test_speed_is_measured_in_both_kinds():
    assert (
        hardware._speed_of(tf.float32, repeats=1) > 0
        and hardware._speed_of(tf.bfloat16, repeats=1) > 0
    )


def test_a_batch_too_large_for_memory_stops_before_training(smoke, monkeypatch):
    network = networks.build(smoke.baseline_cnn)
    cpu = ["/device:CPU:0"]
    hardware.check_memory(network, 16, "float32", cpu)
    monkeypatch.setattr(
        hardware.psutil, "virtual_memory", lambda: SimpleNamespace(available=100_000_000)
    )
    hardware.check_memory(network, 1024, "float32", ["/device:GPU:0"])
    with pytest.raises(UsageError, match="images of this size fit") as refused:
        hardware.check_memory(network, 1024, "float32", cpu)
    most = int(str(refused.value).split("at most ")[1].split()[0])
    hardware.check_memory(network, most, "float32", cpu)
    hardware.check_memory(network, 2 * most, "bfloat16", cpu)
    with pytest.raises(UsageError):
        hardware.check_memory(network, most + 1, "float32", cpu)
