"""Data sets in COCO's format: annotations, the tfds data set that is made of them, and batches."""
