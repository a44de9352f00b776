"""The one place that imports TensorFlow: without its chatter, and without letting it take an accelerator.

Other modules write `from slimjax.tensorflow_import import tf, tfds`, before anything else that imports TensorFlow, and
are themselves imported late.
"""

import contextlib
import io
import os
from collections.abc import Iterator

from absl import logging

from slimjax.chatter import without_lines

# TensorFlow's C++ prints these to file descriptor 2 while it loads, before it reads TF_CPP_MIN_LOG_LEVEL.
_LOADING_CHATTER = (
    b"absl::InitializeLog()",
    b"oneDNN custom operations are on",
    b"TensorFlow binary is optimized to use available CPU instructions",
    b"To enable the following instructions:",
)

# Level 1 hides notes such as "OUT_OF_RANGE: End of sequence", logged at the end of every finite data set.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
with without_lines(*_LOADING_CHATTER):
    import tensorflow as tf
    import tensorflow_datasets as tfds

    # The accelerator is JAX's; TensorFlow would reserve all its memory.
    tf.config.set_visible_devices([], "GPU")
    # Images are prepared beside each other, so an operation on one gains nothing from more threads, and resizing, which
    # takes no data set's options into account, would wait for them.
    with contextlib.suppress(RuntimeError):  # whoever has started TensorFlow before keeps their threads
        tf.config.threading.set_intra_op_parallelism_threads(1)
    # The first operation starts the runtime, which prints as well.
    tf.constant(0)

# tfds would otherwise ask the bucket gs://tfds-data at every start, and wait where there is no network.
tfds.core.utils.gcs_utils._is_gcs_disabled = True


@contextlib.contextmanager
def silent_tfds() -> Iterator[None]:
    """No progress bars, no log lines below errors and no prints of tfds."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()
        logging.set_verbosity(verbosity)


__all__ = ["silent_tfds", "tf", "tfds"]
