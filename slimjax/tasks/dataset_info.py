"""What is known of a data set before an image of it is read."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """What training needs to know of a data set before it reads a single image.

    Attributes:
      name: as in the config.
      num_classes: labels are 0 .. num_classes - 1.
      num_train_examples: examples of `train_split`, over all hosts.
      num_eval_examples: examples of `eval_split`, over all hosts.
      class_names: one per label, in label order.
      class_ids: what the data set's own files call the labels, in label order; empty where they do not.
    """

    name: str
    num_classes: int
    num_train_examples: int
    num_eval_examples: int
    class_names: tuple[str, ...]
    class_ids: tuple[int, ...] = ()
