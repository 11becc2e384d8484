"""What this machine trains with: the devices that share a batch, the fastest arithmetic, memory."""

import json
import math
import statistics
import timeit
from pathlib import Path

import keras
import psutil
import tensorflow as tf

from .. import paths
from ..files import read_json, write_atomically
from ..parameters import UsageError

FASTER = 1.1  # bfloat16 must beat float32 by this much, or noise in a measurement would decide
FLAGS = ("avx512_bf16", "amx_bf16")
# On AMX the weight gradient of Xception's block1_conv2 at 128 px (oneDNN's brgconv_bwd_w, in
# TensorFlow 2.21) reads memory that nothing has written; which sizes are safe is not known.
NOT_IN_BFLOAT16 = ("Xception",)


def devices(strategy: str) -> list[str]:
    """Return what shares a batch: every GPU for ``auto``, else one of them, or the CPU."""
    gpus = [device.name for device in tf.config.list_logical_devices("GPU")]
    cpu = tf.config.list_logical_devices("CPU")[0].name
    return (gpus if strategy == "auto" else gpus[:1]) or [cpu]


def strategy_for(used: list[str], batch_size: int) -> tf.distribute.Strategy:
    """Return the strategy that shares batches; raises UsageError where that is not even."""
    if batch_size % len(used):
        raise UsageError(f"batch_size = {batch_size}: {len(used)} devices cannot share it evenly; "
                         "take a multiple")  # fmt: skip
    return tf.distribute.MirroredStrategy(used) if len(used) > 1 else tf.distribute.get_strategy()


def precision(asked: str, backbone: str) -> str:
    """Return ``float32`` or ``bfloat16``: as asked, or for ``auto`` the faster for a `backbone`."""
    if asked != "auto":
        return asked
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        faster = tuple(details.get("compute_capability", (0, 0))) >= (8, 0)
    else:
        faster = backbone not in NOT_IN_BFLOAT16 and _bfloat16_pays()
    return "bfloat16" if faster else "float32"


def _bfloat16_pays() -> bool:
    """Tell whether this CPU is faster in bfloat16, measured once and kept.

    To have the instructions is not enough: some virtual machines show them and are slower with
    them.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    processor = " ".join({line: "" for line in lines if line.startswith(("model name", "flags"))})
    if not any(flag in processor for flag in FLAGS):
        return False
    kept, key = paths.cache_folder() / "bfloat16.json", f"{processor} tensorflow {tf.__version__}"
    known = read_json(kept)
    if not isinstance(known.get(key), float):
        known = {key: _speed_of(tf.float32) / _speed_of(tf.bfloat16)}
        write_atomically(kept, json.dumps(known))
    return known[key] > FASTER


def _speed_of(kind: tf.DType, repeats: int = 7) -> float:
    """Return the median seconds of a convolution of a ResNet and its gradient."""
    images = tf.cast(tf.fill([16, 12, 12, 128], 0.5), kind)
    kernel = tf.Variable(tf.fill([3, 3, 128, 128], 0.01))

    @tf.function(autograph=False)
    def step():
        with tf.GradientTape() as tape:
            tape.watch(images)
            maps = tf.nn.conv2d(images, tf.cast(kernel, kind), 1, "SAME")
            found = tf.reduce_sum(tf.cast(maps, tf.float32))
        slopes = tape.gradient(found, [kernel, images])
        return [tf.reduce_sum(tf.cast(slope, tf.float32)) for slope in slopes]

    seconds = timeit.repeat(lambda: [one.numpy() for one in step()], repeat=repeats + 1, number=1)
    return statistics.median(seconds[1:])


def check_memory(model: keras.Model, batch_size: int, kind: str, used: list[str]) -> None:
    """Raise UsageError where a batch cannot fit into memory, by the maps of layers with kernels.

    A GPU says so by itself; without one the system would end the process without a word. `kind` is
    the arithmetic, ``float32`` or ``bfloat16``.
    """
    if any("GPU" in device for device in used):
        return
    layers = [layer for layer in model._flatten_layers() if hasattr(layer, "kernel")]
    maps = sum(math.prod(layer.output.shape[1:]) for layer in layers)
    needed = (4 if kind == "float32" else 2) * batch_size * maps
    free = psutil.virtual_memory().available
    if needed > free:
        said = f"a step takes over {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free"
        remedy = f"at most {batch_size * free // needed} images of this size fit; take fewer"
        raise UsageError(f"batch_size = {batch_size}: {said}; {remedy}, or smaller ones")
