"""How weights move: AdamW, its schedule, and the average of weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from cxr_utils.models import callbacks, networks, optimizer


def test_fused_adamw_is_keras_adamw():
    rng = np.random.default_rng(0)
    start = rng.normal(size=(4, 3)).astype("float32")
    gradients = rng.normal(size=(20, 4, 3)).astype("float32")
    ours, theirs = keras.Variable(start), keras.Variable(start)
    fused = optimizer.AdamW(0.01, weight_decay=0.1)
    plain = keras.optimizers.AdamW(0.01, weight_decay=0.1)
    for moved in gradients:
        for kind, variable in ((fused, ours), (plain, theirs)):
            kind.apply([tf.constant(moved)], [variable])
    assert np.allclose(ours.numpy(), theirs.numpy(), atol=1e-5)
    assert not np.allclose(ours.numpy(), start, atol=0.01)


def test_each_weight_has_its_share_of_rate_and_decay_and_biases_do_not_decay():
    start, nothing = np.ones((2, 2), np.float32), tf.zeros((2, 2))
    variables = [keras.Variable(start, name=name) for name in ("kernel", "other", "bias")]
    adamw = optimizer.AdamW(0.01, weight_decay=0.0, shares=[1.0, 0.3, 1.0])
    adamw.apply([tf.ones((2, 2))] * 3, variables)
    first, second, _ = (1 - variable.numpy()[0, 0] for variable in variables)
    assert second == pytest.approx(0.3 * first, rel=1e-3)
    variables = [keras.Variable(start, name=name) for name in ("kernel", "other", "bias")]
    optimizer.AdamW(0.01, 0.5, [1.0, 0.3, 1.0]).apply([nothing] * 3, variables)
    first, second, third = (1 - variable.numpy()[0, 0] for variable in variables)
    assert (first, second, third) == pytest.approx((0.005, 0.0015, 0), abs=1e-6)


def test_learning_rate_rises_then_falls():
    schedule = optimizer.cosine(0.1, epochs=10, steps=5, warmup_epochs=2.0)
    rates = np.array([float(schedule(step)) for step in range(50)])
    assert rates.argmax() == 10 and rates.max() == pytest.approx(0.1) and rates[0] > 0
    assert (np.diff(rates[:11]) > 0).all() and (np.diff(rates[10:]) < 0).all() and rates[-1] < 1e-3
    assert float(optimizer.cosine(0.1, 1, 1, 0.0)(0)) == pytest.approx(0.1)


def test_average_follows_the_weights(smoke):
    """A weight that jumps is followed slowly, statistics of batch norm too; a count is taken as
    it is."""
    settings = smoke.resnet50v2.model_copy(update={"backbone": "EfficientNetB0", "weights": "none"})
    network = networks.build(settings)
    network.compile("adam")
    average = callbacks.MovingAverage(0.9)
    average.set_model(network)
    average.on_train_begin()
    start = network.get_weights()
    assert any("moving_" in weight.path for weight in network.weights)
    assert any(not kept.dtype.is_floating for kept in average.average)
    network.set_weights([weight + 1 for weight in start])
    left = 1.0
    for step in range(400, 412):
        network.optimizer.iterations.assign(step + 1)
        average.on_train_batch_end(step)
        left *= 0.9**4 if step % 4 == 0 else 1
    trained = network.get_weights()
    average.on_epoch_end(0)
    for kept, first in zip(network.get_weights(), start, strict=True):
        expected = 1 - left if np.issubdtype(kept.dtype, np.floating) else 1
        assert np.allclose(kept - first, expected, atol=1e-4)
    average.on_epoch_begin(1)
    assert all((a == b).all() for a, b in zip(trained, network.get_weights(), strict=True))
