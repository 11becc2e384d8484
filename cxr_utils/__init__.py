"""Helpers of the chest X-ray analysis; the notebooks tell the story, this package does the work.

Data flows through the folders in this order, and so do imports: ``data`` (from a folder of X-rays
to pixels and a split by patient), ``models`` (from pixels to a trained model), ``evaluation`` (from
predictions to numbers), ``reporting`` (from numbers to what people read), ``pipeline`` (from
notebooks to a folder of reports), then ``prediction`` (from new films to answers) and ``studies``
(many runs). ``models`` and ``evaluation`` do not know each other.

Importing the package has no side effects and does not import TensorFlow.
"""

__version__ = "0.1.0"
