"""A small data set in COCO's format, as files and as a configuration has it."""

import json

from slimjax.configs import shapes_keypoint_rcnn

from slimjax.tasks.detection.data.shapes import write_shapes

SPLITS = {"train2017": 40, "val2017": 12}


def write_files(folder):
    """Files laid out as COCO's are, unpacked."""
    write_shapes(folder, SPLITS, seed=1)
    for path in (folder / "annotations").iterdir():
        path.write_text(json.dumps(with_odd_ids(json.loads(path.read_text()))))


def with_odd_ids(content):
    """Ids as data sets have them: with gaps, in no order, beyond 32 bits."""

    def of_image(id_):
        return 2**33 + (id_ * 7919) % 1009

    categories = [{**category, "id": {1: 90, 2: 3, 3: 17}[category["id"]]} for category in content["categories"]]
    images = [{**image, "id": of_image(image["id"])} for image in content["images"]]
    annotations = [
        {
            **entry,
            "id": 10 * entry["id"],
            "image_id": of_image(entry["image_id"]),
            "category_id": {1: 90, 2: 3, 3: 17}[entry["category_id"]],
        }
        for entry in content["annotations"]
    ]
    return {**content, "categories": categories, "images": images, "annotations": annotations}


def config_of(prepared):
    config = shapes_keypoint_rcnn.get_config()
    config.detection.masks = True
    config.batch_size = 4
    config.dataset.name, config.dataset.data_dir = "coco/instances", str(prepared)
    config.dataset.train_split, config.dataset.eval_split = SPLITS
    return config
