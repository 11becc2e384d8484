"""Helpers of the chest X-ray analysis; the notebooks tell the story, this package does the work.

Read the modules in the order in which the data flows:

``paths`` and ``params`` (where files lie, what a run is asked for), ``published``, ``download``,
``pixels``, ``phantom``, ``manifest``, ``folds``, ``sources`` and ``images`` (from a folder of X-rays to
pixels and a split by patient), ``metrics`` and ``uncertainty`` (scores, and how sure they are),
``shortcuts`` and ``audit`` (what may be wrong with the data), ``augmentation``, ``models``, ``weights``,
``stress``, ``hardware``, ``optimizer``, ``gradient``, ``transfer``, ``checkpoint``, ``keys`` and ``training``
(from pixels to a trained model), ``gradcam``, ``evaluation``, ``calibration`` and ``scoring`` (from a
model to predictions and ``metrics.json``), ``names``, ``plots``, ``model_plots``, ``data_findings``,
``findings``, ``closer_look``, ``comparison``, ``beside_published``, ``recommendations``, ``model_card`` and
``slider`` (from numbers to figures, tables and sentences), and ``run_state``, ``provenance``, ``occupancy``, ``report``,
``execution``, ``pipeline``, ``repetition``, ``reference``, ``description`` and ``cli`` (from notebooks to a folder of reports).

Importing the package has no side effects and does not import TensorFlow.
"""

__version__ = "0.1.0"
