"""Image classification: loss, metrics, data."""
