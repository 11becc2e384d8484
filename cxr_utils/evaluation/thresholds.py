"""Fixed on validation after training: the decision thresholds, and the temperature of scores."""

import numpy as np
from scipy.optimize import minimize_scalar
from sklearn.metrics import roc_curve

# Under the first, scores of usual logits run into 1.0 and lose their order.
TEMPERATURES = (0.25, 20.0)


def fit_temperature(
    logits: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
) -> float:
    """Return the temperature that minimises the log loss (Guo et al. 2017, arXiv:1706.04599).

    In 0.25..20; over 1 where the model was too sure of itself. 1 where the classes are told apart
    without error, as any temperature would then make it surer of itself, up to scores of 0 and 1.
    Each image counts by its weight, of shape (n,), where there are weights.
    """
    if logits[labels == 1].min() > logits[labels == 0].max():
        return 1.0
    signs = 2 * labels - 1

    def loss(log_temperature: float) -> float:
        losses = np.logaddexp(0, -signs * logits / np.exp(log_temperature))
        return float(np.average(losses, weights=weights))

    return float(np.exp(minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded").x))


def choose(
    labels: np.ndarray,
    scores: np.ndarray,
    target: float = 0.97,
    weights: np.ndarray | None = None,
) -> dict[str, float]:
    """Return the operating points, fixed on calibrated scores of both classes.

    Each image counts by its weight, of shape (n,), where there are weights.
    ``half``: 0.5. ``youden``: the largest sensitivity + specificity (Youden 1950). ``sensitivity``:
    the highest threshold that reaches the `target`. Thresholds lie midway between two scores, so
    that they do not hang on one image.
    """
    alarms, hits, cuts = roc_curve(labels, scores, sample_weight=weights, drop_intermediate=False)
    # Cuts fall, and the first is infinite.
    middles = (np.minimum(cuts, 1.0) + np.append(cuts[1:], 0.0)) / 2
    youden, reached = np.argmax(hits - alarms), np.argmax(hits >= target)
    return {"half": 0.5, "youden": float(middles[youden]), "sensitivity": float(middles[reached])}
