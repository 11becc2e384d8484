"""What this machine computes with: devices that share a batch, the arithmetic that is fastest, and memory."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import keras
import psutil
import tensorflow as tf

from .. import paths
from ..files import read_json, write_atomically
from ..parameters import UsageError
from .networks import leaves

FASTER = 1.1  # bfloat16 must beat float32 by this much, so that a noisy measurement decides nothing
FLAGS = ("avx512_bf16", "amx_bf16")


def devices(strategy: str) -> list[str]:
    """Return the devices that share each batch: every GPU for ``auto``, else one of them, or the CPU."""
    found = [device.name for device in tf.config.list_logical_devices("GPU")]
    return (found if strategy == "auto" else found[:1]) or [
        tf.config.list_logical_devices("CPU")[0].name
    ]


def precision(asked: str) -> str:
    """Return ``float32``, ``bfloat16`` or ``float16``: what was asked for, or for ``auto`` the faster of the first two."""
    if asked != "auto":
        return asked
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        capability = tf.config.experimental.get_device_details(gpus[0]).get(
            "compute_capability", (0, 0)
        )
        return "bfloat16" if tuple(capability) >= (8, 0) else "float32"
    return "bfloat16" if _bfloat16_pays() else "float32"


def _bfloat16_pays() -> bool:
    """Tell whether this CPU has bfloat16 and is faster with it, measured once and kept, as having it is not enough.

    Some virtual machines show the instructions and not the tiles: there a training step took 1.4 times as long.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    processor = " ".join(
        sorted({line for line in lines if line.startswith(("model name", "flags"))})
    )
    if not any(flag in processor for flag in FLAGS):
        return False
    kept = paths.cache_folder() / "bfloat16.json"
    known = read_json(kept)
    key = f"{processor} tensorflow {tf.__version__}"
    if not isinstance(known.get(key), float):
        known = {key: _speed_of(tf.float32) / _speed_of(tf.bfloat16)}
        write_atomically(kept, json.dumps(known))
    return known[key] > FASTER


def _speed_of(kind: tf.DType, repeats: int = 7) -> float:
    """Return the median seconds of a convolution and its gradient, of the size that a ResNet has many of."""
    images = tf.cast(tf.fill([16, 12, 12, 128], 0.5), kind)
    kernel = tf.Variable(tf.fill([3, 3, 128, 128], 0.01))

    @tf.function(autograph=False)
    def step():
        with tf.GradientTape() as tape:
            tape.watch(images)
            found = tf.reduce_sum(
                tf.cast(tf.nn.conv2d(images, tf.cast(kernel, kind), 1, "SAME"), tf.float32)
            )
        return [
            tf.reduce_sum(tf.cast(gradient, tf.float32))
            for gradient in tape.gradient(found, [kernel, images])
        ]

    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        for value in step():
            value.numpy()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def check_memory(network: keras.Model, batch_size: int, used: Sequence[str]) -> None:
    """Raise UsageError where a training step cannot fit into memory, by what the maps of the layers with weights alone take.

    A GPU says by itself that a batch is too large; without one the system would end the process without a word.

    Parameters
    ----------
    network : keras.Model
        The network.
    batch_size : int
        Images in a step.
    used : sequence of str
        The devices, from `devices`.
    """
    if any("GPU" in device for device in used):
        return
    maps = sum(
        math.prod(layer.output.shape[1:]) for layer in leaves(network) if hasattr(layer, "kernel")
    )
    needed = (4 if network.compute_dtype == "float32" else 2) * batch_size * maps
    free = psutil.virtual_memory().available
    if needed > free:
        raise UsageError(
            f"batch_size = {batch_size}: a step takes more than {needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are free; "
            f"at most {batch_size * free // needed} images of this size fit; take a smaller batch_size or image_size"
        )
