"""Where PyTorch checkpoints keep the layers of each family: the layouts, name by name.

`slimmable` is the layout of the public slimmable checkpoints: kernels at their widest and, for every convolution, one
batch norm per width under `bn.K`, or a plain one that all widths share. `torchvision` is that of its plain networks.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from slimjax.errors import UserError
from slimjax.models import MobileNetV1, MobileNetV2, ResNet, ShuffleNet, SlimmableNetwork
from slimjax.models.shufflenet import GROUPS

LAYOUT_NAMES = ("slimmable", "torchvision")

Blocks = Mapping[int, Collection[str]]
"""The names of every block's layers, by the block's number, which counts from 1."""


@dataclass(frozen=True)
class Layer:
    """Where a checkpoint keeps a layer.

    Attributes:
      path: keys of the layer in the network's variables, joined by slashes.
      kernels: modules that hold its kernel, one for each group of outputs if the checkpoint keeps those apart.
      norms: modules that hold its batch norm, likewise.
    """

    path: str
    kernels: tuple[str, ...]
    norms: tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """The layout of one family in one kind of checkpoint; the same table serves reading and writing.

    Attributes:
      layers: of a network whose blocks are given, in the order of the network.
      classifier: the module that holds the classifier.
      marker: an entry that checkpoints of this layout have, and those of the family's other layouts have not.
      slimmable: whether it has batch norms of several widths.
    """

    layers: Callable[[Blocks], Iterator[Layer]]
    classifier: str
    marker: str
    slimmable: bool = True

    @property
    def name(self) -> str:
        """As users ask for it, among LAYOUT_NAMES."""
        return LAYOUT_NAMES[0 if self.slimmable else 1]


def _pair(path: str, module: str, kernel: int = 0) -> Layer:
    """A layer whose kernel and batch norm follow each other in a sequence of modules."""
    return Layer(path, (f"{module}.{kernel}",), (f"{module}.{kernel + 1}",))


def _grouped(path: str, module: str) -> Layer:
    """A layer that the checkpoint keeps as one pair for each group of ShuffleNet."""
    modules = [f"{module}_{group}" for group in range(GROUPS)]
    return Layer(path, tuple(f"{module}.0" for module in modules), tuple(f"{module}.1" for module in modules))


def _slimmable_mobilenet_v1(blocks: Blocks) -> Iterator[Layer]:
    yield _pair("stem", "features.0")
    for number in blocks:
        yield _pair(f"block_{number}_depthwise", f"features.{number}.body", 0)
        yield _pair(f"block_{number}_pointwise", f"features.{number}.body", 3)


def _slimmable_mobilenet_v2(blocks: Blocks) -> Iterator[Layer]:
    yield _pair("stem", "features.0")
    for number, layers in blocks.items():
        expanded = {"expand": 0, "depthwise": 3, "project": 6}
        for layer, index in (expanded if "expand" in layers else {"depthwise": 0, "project": 3}).items():
            yield _pair(f"block_{number}/{layer}", f"features.{number}.body", index)
    yield _pair("tail", f"features.{len(blocks) + 1}")


def _torchvision_mobilenet_v2(blocks: Blocks) -> Iterator[Layer]:
    yield _pair("stem", "features.0")
    for number, layers in blocks.items():
        place = f"features.{number}.conv"
        *activated, last = ("expand", "depthwise", "project") if "expand" in layers else ("depthwise", "project")
        for index, layer in enumerate(activated):
            yield _pair(f"block_{number}/{layer}", f"{place}.{index}")
        yield _pair(f"block_{number}/{last}", place, len(activated))
    yield _pair("tail", f"features.{len(blocks) + 1}")


def _slimmable_resnet(blocks: Blocks) -> Iterator[Layer]:
    yield _pair("stem", "features.0")
    for number, layers in blocks.items():
        for layer, index in {"reduce": 0, "spatial": 3, "expand": 6}.items():
            yield _pair(f"block_{number}/{layer}", f"features.{number}.body", index)
        if "shortcut" in layers:
            yield _pair(f"block_{number}/shortcut", f"features.{number}.shortcut")


def _torchvision_resnet(blocks: Blocks) -> Iterator[Layer]:
    yield Layer("stem", ("conv1",), ("bn1",))
    stage = index = 0
    for number, layers in blocks.items():
        # Every stage changes the shapes in its first block, and nowhere else.
        stage, index = (stage + 1, 0) if "shortcut" in layers else (stage, index + 1)
        place = f"layer{stage}.{index}"
        for count, layer in enumerate(("reduce", "spatial", "expand"), start=1):
            yield Layer(f"block_{number}/{layer}", (f"{place}.conv{count}",), (f"{place}.bn{count}",))
        if "shortcut" in layers:
            yield _pair(f"block_{number}/shortcut", f"{place}.downsample")


def _slimmable_shufflenet(blocks: Blocks) -> Iterator[Layer]:
    yield _grouped("stem", "head")
    for number in blocks:
        # The stem, pooling included, is apart, so that the first block is the first of the features.
        place = f"features.{number - 1}"
        yield _grouped(f"block_{number}/reduce", f"{place}.a")
        yield _pair(f"block_{number}/depthwise", f"{place}.b", 1)
        yield _grouped(f"block_{number}/expand", f"{place}.c")


LAYOUTS: dict[type[SlimmableNetwork], tuple[Layout, ...]] = {
    MobileNetV1: (Layout(_slimmable_mobilenet_v1, "classifier.0", "features.1.body.0.weight"),),
    MobileNetV2: (
        Layout(_slimmable_mobilenet_v2, "classifier.0", "features.1.body.0.weight"),
        Layout(_torchvision_mobilenet_v2, "classifier.1", "features.1.conv.0.0.weight", slimmable=False),
    ),
    ResNet: (
        Layout(_slimmable_resnet, "classifier.0", "features.1.body.0.weight"),
        Layout(_torchvision_resnet, "fc", "layer1.0.conv1.weight", slimmable=False),
    ),
    ShuffleNet: (Layout(_slimmable_shufflenet, "classifier.0", "features.0.a_0.0.weight"),),
}
"""What checkpoints of a family look like, by the class of its networks."""


def layers_by_block(params: Mapping[str, Any]) -> Blocks:
    """The blocks of a network by its parameters: `block_N/LAYER`, or `block_N_LAYER` where blocks are no modules."""
    blocks: dict[int, list[str]] = {}
    for key, layers in params.items():
        if found := re.fullmatch(r"block_(\d+)(?:_(\w+))?", key):
            blocks.setdefault(int(found[1]), []).extend([found[2]] if found[2] else layers)
    return dict(sorted(blocks.items()))


def layouts_of(model: SlimmableNetwork) -> tuple[Layout, ...]:
    """The layouts that checkpoints of the model's family may have; UserError for a family that has none."""
    if type(model) not in LAYOUTS:
        known = ", ".join(family.__name__ for family in LAYOUTS)
        raise UserError(f"no PyTorch layout is known for {type(model).__name__}; known are those of {known}")
    return LAYOUTS[type(model)]


def layout_of(model: SlimmableNetwork, name: str) -> Layout:
    """The layout of the model's family of a name; UserError if there is none, or it cannot hold the model."""
    layouts = {layout.name: layout for layout in layouts_of(model)}
    if name not in layouts:
        raise UserError(f"layout={name!r} is none of {type(model).__name__}'s; choose one of {', '.join(layouts)}")
    if model.folding is not None:
        raise UserError(
            f"the network is folded (folding={model.folding!r}) and has no batch norms; give the trained one"
        )
    if not layouts[name].slimmable and model.widths != (1.0,):
        raise UserError(
            f"layout={name!r} is of plain networks of widths=(1.0,), but the model's widths are {model.widths}; take "
            f"layout={LAYOUT_NAMES[0]!r}"
        )
    return layouts[name]
