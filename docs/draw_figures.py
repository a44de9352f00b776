"""Draws the figures of docs/slimming.md from the networks as they are built, into docs/figures.

python docs/draw_figures.py [FOLDER]
"""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from flax.traverse_util import flatten_dict
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullLocator

from slimjax import create_model, profile_model
from slimjax.analysis import plot_style
from slimjax.cli import told
from slimjax.models import SlimmableNetwork
from slimjax.nn.tracing import active_masks
from slimjax.paths import check_writable

FIGURES = Path(__file__).parent / "figures"
INCHES = 5.2
"""Of a figure's width, so that its letters can be read on a phone."""

# Of the first colour of all plots, from dark to light, so that grey prints keep the order of the widths.
SHADES = LinearSegmentedColormap.from_list("shades", ["#04243d", plot_style.COLOURS[0], "#cfe3f2"])(
    np.linspace(0, 1, 4)
)


class Block(NamedTuple):
    """A block of a network at one width.

    Attributes:
      name: its key in the variables' tree.
      features: channels that it puts out.
      macs: multiply-adds of one image.
    """

    name: str
    features: int
    macs: int


def mobilenet_v2() -> SlimmableNetwork:
    """The paper's, at its four widths."""
    return create_model("mobilenet_v2", (0.35, 0.5, 0.75, 1.0), num_classes=1000)


def narrowest_readers(model: SlimmableNetwork, *path: str) -> np.ndarray:
    """Which switch is the narrowest that reads each connection of a kernel.

    Args:
      model: the network.
      *path: of the layer, such as "tail", "conv".

    Returns:
      [in_features, features] int: the index of a width, taken at the kernel's first pixel.
    """
    masks = [flatten_dict(active_masks(model, width))[*path, "kernel"][0, 0] for width in model.widths]
    return np.argmax(np.stack(masks), axis=0)


def blocks_at(model: SlimmableNetwork, width: float, image_size: int = 224) -> list[Block]:
    """What every block puts out and costs at a width, in the order of the network."""
    (profile,) = (row for row in profile_model(model, image_size) if row.width == width)
    blocks: dict[str, Block] = {}
    for layer in profile.layers:
        name = layer.path.partition("/")[0]
        macs = layer.macs + (blocks[name].macs if name in blocks else 0)
        blocks[name] = Block(name, layer.output_shape[-1], macs)
    return list(blocks.values())


def kernels_figure() -> Figure:
    """Three kernels, coloured by the narrowest width that reads each connection, and one layer's batch norms."""
    figure = Figure(figsize=(INCHES, 7.4), layout="constrained")
    plain, norms, tail, grouped = figure.subplots(4, height_ratios=(2, 1.2, 2.6, 2.2))
    model = mobilenet_v2()
    shufflenet = create_model("shufflenet", (0.5, 1.0, 2.0), num_classes=1000)
    _draw_kernel(plain, model, "block_8/expand/conv", "MobileNet v2, a 1x1 convolution: one kernel for all widths")
    _draw_batch_norms(norms, model, ("block_8", "expand", "bn"))
    _draw_kernel(tail, model, "tail/conv", "its tail: outputs are not slimmed, inputs are")
    _draw_kernel(grouped, shufflenet, "block_5/reduce/conv", "ShuffleNet, 3 groups: the leading outputs of each group")
    # What each width reads of the first group, and where the groups end.
    grouped.set_xticks([0, 20, 40, 80, 160, 240])
    grouped.set_xlabel("output channels of the kernel", fontsize="small")
    legend = {"ncols": 4, "fontsize": "x-small", "title_fontsize": "x-small"}
    figure.legend(handles=_patches(model), title="MobileNet v2: read by", loc="outside upper center", **legend)
    figure.legend(handles=_patches(shufflenet), title="ShuffleNet: read by", loc="outside lower center", **legend)
    return figure


def layers_figure() -> Figure:
    """Channels and multiply-adds of every block of MobileNet v2 at every width."""
    figure = Figure(figsize=(INCHES, 6), layout="constrained")
    channels, macs = figure.subplots(2, sharex=True)
    model = mobilenet_v2()
    for index, width in enumerate(model.widths):
        blocks = blocks_at(model, width)
        total = sum(block.macs for block in blocks) / 1e6
        style = {**plot_style.series_style(index), "markersize": 4, "linewidth": 1}
        features = [block.features for block in blocks[:-1]]
        channels.plot(range(len(features)), features, label=f"width {width:g}", **style)
        label = f"width {width:g}: {total:.1f} M in all"
        macs.plot(range(len(blocks)), [block.macs / 1e6 for block in blocks], label=label, **style)
    channels.set_yscale("log", base=2)
    channels.yaxis.set_major_locator(LogLocator(base=2, numticks=9))
    channels.yaxis.set_major_formatter("{x:g}")
    channels.yaxis.set_minor_locator(NullLocator())
    channels.set_ylabel("output channels")
    macs.set_ylabel("multiply-adds, millions")
    names = [block.name.removeprefix("block_") for block in blocks]
    macs.set_xticks(range(len(names)), names, fontsize="small", rotation=90)
    macs.set_ylim(0, 40)
    for axes in (channels, macs):
        axes.grid(visible=True, alpha=0.2)
    channels.legend(fontsize="small")
    macs.legend(fontsize="small", loc="upper center", ncols=2)
    figure.suptitle("MobileNet v2, 224 pixels: blocks by width", fontsize="medium")
    return figure


def save(figure: Figure, path: Path) -> None:
    """Writes an SVG in which nothing depends on when it was made."""
    with matplotlib.rc_context({"svg.hashsalt": "slimjax"}):
        figure.savefig(path, metadata={"Date": None, "Creator": None})


def _draw_kernel(axes: Axes, model: SlimmableNetwork, path: str, title: str) -> None:
    readers = narrowest_readers(model, *path.split("/"))
    in_features, features = readers.shape
    axes.imshow(SHADES[readers], extent=(0, features, in_features, 0), aspect="auto", interpolation="none")
    axes.set_title(title, fontsize="small")
    axes.set_ylabel("inputs", fontsize="small")
    axes.tick_params(labelsize="x-small")
    # How many of each a width reads. Where groups are sliced those are no places on the axis.
    read = [np.less_equal(readers, switch) for switch in range(len(model.widths))]
    axes.set_yticks(sorted({0, *(int(mask.any(axis=1).sum()) for mask in read)}))
    outputs = [mask.any(axis=0) for mask in read]
    if all(mask[: mask.sum()].all() for mask in outputs):
        axes.set_xticks(sorted({0, *(int(mask.sum()) for mask in outputs)}))


def _draw_batch_norms(axes: Axes, model: SlimmableNetwork, path: tuple[str, ...]) -> None:
    """A bar for every width's batch norm, over the columns of the kernel whose outputs it normalises."""
    scales = {
        key[len(path)]: int(mask.sum())
        for width in model.widths
        for key, mask in flatten_dict(active_masks(model, width)).items()
        if key[: len(path)] == path and key[-1] == "scale" and mask.any()
    }
    rows = range(len(model.widths))
    axes.barh(rows, [scales[f"switch_{row}"] for row in rows], color=SHADES, height=0.7)
    axes.set_yticks(rows, [f"{width:g}" for width in model.widths], fontsize="x-small")
    axes.invert_yaxis()
    axes.set_xlim(0, max(scales.values()))
    axes.set_xticks(sorted({0, *scales.values()}))
    axes.set_title("its batch norms: one for each width", fontsize="small")
    axes.set_ylabel("width", fontsize="small")
    axes.tick_params(labelsize="x-small")


def _patches(model: SlimmableNetwork) -> list[Patch]:
    """A legend's entry for every width."""
    *narrower, widest = model.widths
    labels = [*(f"{width:g} and wider" for width in narrower), f"{widest:g}"]
    return [Patch(facecolor=colour, label=label) for colour, label in zip(SHADES, labels, strict=False)]


def main(folder: Path) -> None:
    """Draws all figures into a folder."""
    check_writable(folder, "folder")
    folder.mkdir(parents=True, exist_ok=True)
    save(kernels_figure(), folder / "kernels.svg")
    save(layers_figure(), folder / "layers.svg")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=FIGURES)
    sys.exit(told(partial(main, parser.parse_args().folder)))
