"""Classification data: tfds data sets, image folders and scikit-learn's digits as deterministic NumPy batches.

Importing this package does not import TensorFlow (seconds); calling `load_info`, `count_classes`, `train_batches` and
`eval_batches` does.
"""

from slimjax.tasks.classification.data.config import check_dataset_config, per_process_batch_size
from slimjax.tasks.classification.data.pipeline import Batch, count_classes, eval_batches, load_info, train_batches

__all__ = [
    "Batch",
    "check_dataset_config",
    "count_classes",
    "eval_batches",
    "load_info",
    "per_process_batch_size",
    "train_batches",
]
