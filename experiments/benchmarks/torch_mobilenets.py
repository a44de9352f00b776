"""The straightforward PyTorch train step of S-MobileNet v1 and v2, to compare speed with.

Written from the paper (SNet, algorithm 1): for each width slice the shared kernels, forward, loss, backward (gradients
add up in `.grad`); then one SGD Nesterov update. Eager, channels_last, one private BatchNorm2d per width (v2's
1280-channel tail is shared).
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional

V1_BLOCKS = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2))
V2_BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
V2_TAIL = 1280

Channels = dict[float, int]


def round_channels(channels: float, divisor: int = 8) -> int:
    """Nearest multiple of 8, never below 90 % of `channels`."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


class SlimmableConvBN(nn.Module):
    """Convolution on leading slices of one kernel, BN private to each width, optional ReLU6."""

    def __init__(
        self,
        inputs: Channels,
        outputs: Channels,
        kernel_size: int,
        stride: int,
        depthwise: bool = False,
        activate: bool = True,
        share_bn: bool = False,
    ) -> None:
        super().__init__()
        self.inputs, self.outputs, self.stride, self.depthwise = inputs, outputs, stride, depthwise
        self.activate, self.padding = activate, kernel_size // 2
        fan_in = 1 if depthwise else max(inputs.values())
        self.weight = nn.Parameter(torch.empty(max(outputs.values()), fan_in, kernel_size, kernel_size))
        nn.init.normal_(self.weight, std=(2.0 / (kernel_size**2 * max(outputs.values()))) ** 0.5)
        norms = [nn.BatchNorm2d(c) for c in ([V2_TAIL] if share_bn else outputs.values())]
        self.norms = nn.ModuleList(norms * len(outputs) if share_bn else norms)

    def forward(self, x: torch.Tensor, width: float) -> torch.Tensor:
        """[batch, inputs[width], height, width] to [batch, outputs[width], height', width']."""
        inputs, outputs = self.inputs[width], self.outputs[width]
        weight = self.weight[:outputs] if self.depthwise else self.weight[:outputs, :inputs]
        groups = inputs if self.depthwise else 1
        y = functional.conv2d(x, weight, None, self.stride, self.padding, 1, groups)
        y = self.norms[list(self.outputs).index(width)](y)
        return functional.relu6(y, inplace=True) if self.activate else y


class SlimmableMobileNet(nn.Module):
    """S-MobileNet v1 or v2: a list of units, each a Sequential-like list of layers and whether it adds its input."""

    def __init__(self, name: str, widths: Sequence[float], num_classes: int = 1000) -> None:
        super().__init__()
        self.units, self.residual = nn.ModuleList(), []

        def scaled(channels: int) -> Channels:
            return {width: round_channels(channels * width) for width in widths}

        channels = scaled(32)
        self._add([SlimmableConvBN(dict.fromkeys(widths, 3), channels, 3, 2)], False)
        build = self._v1 if name == "mobilenet_v1" else self._v2
        channels = build(channels, scaled)
        self.features = channels
        self.classifier = nn.Linear(max(channels.values()), num_classes)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def _add(self, layers: list[nn.Module], residual: bool) -> None:
        self.units.append(nn.ModuleList(layers))
        self.residual.append(residual)

    def _v1(self, channels: Channels, scaled: Callable[[int], Channels]) -> Channels:
        for out, repeats, first_stride in V1_BLOCKS:
            for i in range(repeats):
                outputs = scaled(out)
                depthwise = SlimmableConvBN(channels, channels, 3, first_stride if i == 0 else 1, depthwise=True)
                self._add([depthwise, SlimmableConvBN(channels, outputs, 1, 1)], False)
                channels = outputs
        return channels

    def _v2(self, channels: Channels, scaled: Callable[[int], Channels]) -> Channels:
        for expand, out, repeats, first_stride in V2_BLOCKS:
            for i in range(repeats):
                outputs, stride = scaled(out), first_stride if i == 0 else 1
                hidden = {w: expand * c for w, c in channels.items()}
                layers = [] if expand == 1 else [SlimmableConvBN(channels, hidden, 1, 1)]
                layers.append(SlimmableConvBN(hidden, hidden, 3, stride, depthwise=True))
                layers.append(SlimmableConvBN(hidden, outputs, 1, 1, activate=False))
                self._add(layers, i > 0)
                channels = outputs
        tail = dict.fromkeys(channels, V2_TAIL)
        self._add([SlimmableConvBN(channels, tail, 1, 1, share_bn=True)], False)
        return tail

    def forward(self, x: torch.Tensor, width: float) -> torch.Tensor:
        """Images [batch, 3, height, width] to logits [batch, num_classes]."""
        for layers, residual in zip(self.units, self.residual, strict=True):
            y = x
            for layer in layers:
                y = layer(y, width)
            x = x + y if residual else y
        x = x.mean((2, 3))
        return functional.linear(x, self.classifier.weight[:, : self.features[width]], self.classifier.bias)


def make_step(name: str, widths: Sequence[float], batch_size: int, image_size: int) -> Callable[[], None]:
    """Builds the model and random data and returns a function that runs one whole train step on two threads.

    Args:
      name: `mobilenet_v1` or `mobilenet_v2`.
      widths: ascending.
      batch_size: images of a step.
      image_size: height and width of the images, pixels.
    """
    torch.manual_seed(0)
    torch.set_num_threads(2)
    model = SlimmableMobileNet(name, widths).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.045, momentum=0.9, nesterov=True, weight_decay=1e-4)
    image = torch.randn(batch_size, 3, image_size, image_size).to(memory_format=torch.channels_last)
    label = torch.randint(0, 1000, (batch_size,))

    def step() -> None:
        optimizer.zero_grad()
        for width in widths:
            functional.cross_entropy(model(image, width), label).backward()
        optimizer.step()

    return step
