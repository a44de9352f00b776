"""The straightforward PyTorch train step of the four slimmable families, to compare speed with.

Written from the paper (SNet, algorithm 1): for each width slice the shared kernels, forward, loss, backward (gradients
add up in `.grad`); then one SGD Nesterov update. Eager, channels_last, one private BatchNorm2d per width (MobileNet
v2's 1280-channel tail is shared). Grouped convolutions are PyTorch's own, on kernels sliced inside each group.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

V1_BLOCKS = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2))
V2_BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
RESNET50_BLOCKS = ((256, 3, 1), (512, 4, 2), (1024, 6, 2), (2048, 3, 2))
SHUFFLENET_BLOCKS = ((240, 4), (480, 8), (960, 4))
V2_TAIL, SHUFFLENET_GROUPS = 1280, 3

Channels = dict[float, int]
Activation = Callable[[torch.Tensor], torch.Tensor]


def relu(x: torch.Tensor) -> torch.Tensor:
    """ReLU in place."""
    return functional.relu(x, inplace=True)


def relu6(x: torch.Tensor) -> torch.Tensor:
    """ReLU6 in place."""
    return functional.relu6(x, inplace=True)


class ConvBN(nn.Module):
    """Convolution on slices of one kernel, per group where outputs are grouped, a BN for each width, activation."""

    def __init__(
        self,
        inputs: Channels,
        outputs: Channels,
        kernel_size: int = 1,
        stride: int = 1,
        activation: Activation | None = None,
        groups: int = 1,
        output_groups: int = 1,
        depthwise: bool = False,
        share_bn: bool = False,
    ) -> None:
        super().__init__()
        self.inputs, self.outputs, self.stride, self.depthwise = inputs, outputs, stride, depthwise
        self.groups, self.output_groups = groups, max(groups, output_groups)
        self.activation, self.padding = activation, kernel_size // 2
        fan_in = 1 if depthwise else max(inputs.values()) // groups
        self.weight = nn.Parameter(torch.empty(max(outputs.values()), fan_in, kernel_size, kernel_size))
        nn.init.normal_(self.weight, std=(2.0 / (kernel_size**2 * max(outputs.values()))) ** 0.5)
        norms = [nn.BatchNorm2d(c) for c in ([max(outputs.values())] if share_bn else outputs.values())]
        self.norms = nn.ModuleList(norms * len(outputs) if share_bn else norms)

    def forward(self, x: torch.Tensor, width: float) -> torch.Tensor:
        """[batch, inputs[width], height, width] to [batch, outputs[width], height', width']."""
        inputs, outputs = self.inputs[width], self.outputs[width]
        groups = inputs if self.depthwise else self.groups
        y = functional.conv2d(x, self._active(inputs, outputs), None, self.stride, self.padding, 1, groups)
        y = self.norms[list(self.outputs).index(width)](y)
        return self.activation(y) if self.activation else y

    def _active(self, inputs: int, outputs: int) -> torch.Tensor:
        if self.depthwise:
            return self.weight[:outputs]
        if self.output_groups == 1:
            return self.weight[:outputs, :inputs]
        grouped = self.weight.unflatten(0, (self.output_groups, -1))
        return grouped[:, : outputs // self.output_groups, : inputs // self.groups].flatten(0, 1)


class Chain(nn.ModuleList):
    """Units one after the other."""

    def forward(self, x: torch.Tensor, width: float) -> torch.Tensor:
        """Images [batch, channels, height, width] through all of them."""
        for unit in self:
            x = unit(x, width)
        return x


class Residual(nn.Module):
    """A chain that is added to its input, or to a shortcut of it."""

    def __init__(self, chain: Chain, shortcut: nn.Module | None = None, activation: Activation | None = None) -> None:
        super().__init__()
        self.chain, self.shortcut, self.activation = chain, shortcut, activation

    def forward(self, x: torch.Tensor, width: float) -> torch.Tensor:
        """[batch, channels, height, width] to the chain's output shape."""
        y = self.chain(x, width) + (self.shortcut(x, width) if self.shortcut else x)
        return self.activation(y) if self.activation else y


class ShuffleUnit(nn.Module):
    """Grouped 1x1, shuffle, depthwise, grouped 1x1; the input is added or, at stride 2, pooled and appended."""

    def __init__(self, inputs: Channels, outputs: Channels, stride: int, first: bool) -> None:
        super().__init__()
        self.stride, groups = stride, SHUFFLENET_GROUPS
        hidden = {w: c // 4 for w, c in outputs.items()}
        added = {w: c - (inputs[w] if stride == 2 else 0) for w, c in outputs.items()}
        self.reduce = ConvBN(inputs, hidden, 1, 1, relu, 1 if first else groups, groups)
        self.depthwise = ConvBN(hidden, hidden, 3, stride, depthwise=True)
        self.expand = ConvBN(hidden, added, groups=groups)

    def forward(self, x: torch.Tensor, width: float) -> torch.Tensor:
        """[batch, inputs[width], height, width] to [batch, outputs[width], height', width']."""
        y = functional.channel_shuffle(self.reduce(x, width), SHUFFLENET_GROUPS)
        y = self.expand(self.depthwise(y, width), width)
        if self.stride == 1:
            return relu(x + y)
        return relu(torch.cat([y, functional.avg_pool2d(x, 3, 2, 1)], 1))


class MaxPool(nn.Module):
    """3x3 with stride 2."""

    def __init__(self, padding: int) -> None:
        super().__init__()
        self.padding = padding

    def forward(self, x: torch.Tensor, width: float) -> torch.Tensor:
        """[batch, channels, height, width] to half the height and width."""
        del width
        return functional.max_pool2d(x, 3, 2, self.padding)


Scaled = Callable[[int], Channels]


def round_channels(channels: float, divisor: int = 8) -> int:
    """Nearest multiple of 8, never below 90 % of `channels`."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def mobilenet_v1(rgb: Channels, scaled: Scaled) -> tuple[Chain, Channels]:
    """Features of MobileNet v1 and their channels."""
    channels = scaled(32)
    units = Chain([ConvBN(rgb, channels, 3, 2, relu6)])
    for out, repeats, first_stride in V1_BLOCKS:
        for i in range(repeats):
            outputs, stride = scaled(out), first_stride if i == 0 else 1
            units.append(ConvBN(channels, channels, 3, stride, relu6, depthwise=True))
            units.append(ConvBN(channels, outputs, activation=relu6))
            channels = outputs
    return units, channels


def mobilenet_v2(rgb: Channels, scaled: Scaled) -> tuple[Chain, Channels]:
    """Features of MobileNet v2 and their channels."""
    channels = scaled(32)
    units = Chain([ConvBN(rgb, channels, 3, 2, relu6)])
    for expand, out, repeats, first_stride in V2_BLOCKS:
        for i in range(repeats):
            outputs, stride = scaled(out), first_stride if i == 0 else 1
            hidden = {w: expand * c for w, c in channels.items()}
            chain = Chain([] if expand == 1 else [ConvBN(channels, hidden, activation=relu6)])
            chain.append(ConvBN(hidden, hidden, 3, stride, relu6, depthwise=True))
            chain.append(ConvBN(hidden, outputs))
            units.append(Residual(chain) if i > 0 else chain)
            channels = outputs
    tail = dict.fromkeys(channels, V2_TAIL)
    units.append(ConvBN(channels, tail, activation=relu6, share_bn=True))
    return units, tail


def resnet50(rgb: Channels, scaled: Scaled) -> tuple[Chain, Channels]:
    """Features of ResNet-50 and their channels."""
    channels = scaled(64)
    units = Chain([ConvBN(rgb, channels, 7, 2, relu), MaxPool(padding=1)])
    for out, repeats, first_stride in RESNET50_BLOCKS:
        for i in range(repeats):
            outputs, stride = scaled(out), first_stride if i == 0 else 1
            hidden = {w: c // 4 for w, c in outputs.items()}
            chain = Chain(
                [
                    ConvBN(channels, hidden, activation=relu),
                    ConvBN(hidden, hidden, 3, stride, relu),
                    ConvBN(hidden, outputs),
                ]
            )
            units.append(Residual(chain, ConvBN(channels, outputs, 1, stride) if i == 0 else None, relu))
            channels = outputs
    return units, channels


def shufflenet(rgb: Channels, scaled: Scaled) -> tuple[Chain, Channels]:
    """Features of ShuffleNet v1, 3 groups, and their channels."""
    sizes = [scaled(24), *(scaled(out) for out, repeats in SHUFFLENET_BLOCKS for _ in range(repeats))]
    units = Chain([ConvBN(rgb, sizes[0], 3, 2, relu, output_groups=SHUFFLENET_GROUPS), MaxPool(padding=0)])
    for number, (inputs, outputs) in enumerate(pairwise(sizes)):
        units.append(ShuffleUnit(inputs, outputs, 2 if inputs != outputs else 1, first=number == 0))
    return units, sizes[-1]


FAMILIES = {"mobilenet_v1": mobilenet_v1, "mobilenet_v2": mobilenet_v2, "resnet50": resnet50, "shufflenet": shufflenet}


class Network(nn.Module):
    """Features of a family, global mean and a classifier over leading inputs."""

    def __init__(self, name: str, widths: Sequence[float], num_classes: int = 1000) -> None:
        super().__init__()
        rounding = round_channels if name.startswith("mobilenet") else int
        self.features, self.channels = FAMILIES[name](
            dict.fromkeys(widths, 3), lambda channels: {width: rounding(channels * width) for width in widths}
        )
        self.classifier = nn.Linear(max(self.channels.values()), num_classes)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: torch.Tensor, width: float) -> torch.Tensor:
        """Images [batch, 3, height, width] to logits [batch, num_classes]."""
        x = self.features(x, width).mean((2, 3))
        return functional.linear(x, self.classifier.weight[:, : self.channels[width]], self.classifier.bias)


def make_step(name: str, widths: Sequence[float], batch_size: int, image_size: int) -> Callable[[], None]:
    """Builds the model and random data and returns a function that runs one whole train step on two threads.

    Args:
      name: one of FAMILIES.
      widths: ascending.
      batch_size: images of a step.
      image_size: height and width of the images, pixels.
    """
    torch.manual_seed(0)
    torch.set_num_threads(2)
    model = Network(name, widths).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.045, momentum=0.9, nesterov=True, weight_decay=1e-4)
    image = torch.randn(batch_size, 3, image_size, image_size).to(memory_format=torch.channels_last)
    label = torch.randint(0, 1000, (batch_size,))

    def step() -> None:
        optimizer.zero_grad()
        for width in widths:
            functional.cross_entropy(model(image, width), label).backward()
        optimizer.step()

    return step


def make_forward(name: str, width: float, batch_size: int, image_size: int) -> Callable[[], None]:
    """Builds the network of one width for inference and returns a function that classifies random images.

    Args:
      name: one of FAMILIES.
      width: of it.
      batch_size: images of a call.
      image_size: height and width of the images, pixels.
    """
    torch.manual_seed(0)
    torch.set_num_threads(2)
    model = Network(name, (width,)).to(memory_format=torch.channels_last).eval()
    image = torch.randn(batch_size, 3, image_size, image_size).to(memory_format=torch.channels_last)

    def forward() -> None:
        with torch.inference_mode():
            model(image, width)

    return forward
