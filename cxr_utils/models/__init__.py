"""From pixels to a trained model."""
