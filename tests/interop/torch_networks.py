"""PyTorch networks in the layouts of public checkpoints, written for the tests: module names are what is tested.

A switch is set on every module from outside (`logits_at`) and is the index of a width.
"""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

GROUPS = 3
V1_TINY_STAGES = ((64, 1, 1), (128, 2, 2), (256, 2, 2))
V1_STAGES = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2))
V2_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
RESNET50_STAGES = ((256, 3, 1), (512, 4, 2), (1024, 6, 2), (2048, 3, 2))
RESNET_TINY_STAGES = ((64, 1, 1), (128, 1, 2), (256, 1, 2))
SHUFFLE_STAGES, SHUFFLE_TINY_STAGES = ((240, 4), (480, 8), (960, 4)), ((96, 2), (192, 2))
V2_TINY_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 2, 2))


class Conv(nn.Module):
    """A convolution with one `weight`, of which each switch takes leading channels."""

    def __init__(self, inputs, outputs, size=1, stride=1, depthwise=False):
        super().__init__()
        self.inputs, self.outputs, self.stride, self.depthwise = inputs, outputs, stride, depthwise
        self.weight = nn.Parameter(torch.empty(max(outputs), 1 if depthwise else max(inputs), size, size))

    def forward(self, x):
        inputs, outputs = self.inputs[self.switch], self.outputs[self.switch]
        weight = self.weight[:outputs] if self.depthwise else self.weight[:outputs, :inputs]
        padding = (weight.shape[-1] - 1) // 2
        return functional.conv2d(x, weight, None, self.stride, padding, 1, inputs if self.depthwise else 1)


class Norm(nn.Module):
    """A batch norm for each switch under `bn.K`."""

    def __init__(self, features):
        super().__init__()
        self.bn = nn.ModuleList(nn.BatchNorm2d(count) for count in features)

    def forward(self, x):
        return self.bn[self.switch](x)


class Classifier(nn.Linear):
    """Sees the leading inputs."""

    def forward(self, x):
        return functional.linear(x, self.weight[:, : x.shape[1]], self.bias)


class Block(nn.Module):
    """Modules in a sequence under a name, and the input added where asked for."""

    def __init__(self, name, modules, residual):
        super().__init__()
        self.name, self.residual = name, residual
        setattr(self, name, nn.Sequential(*modules))

    def forward(self, x):
        y = getattr(self, self.name)(x)
        return x + y if self.residual else y


class Network(nn.Module):
    """`features`, the mean over the image, and a classifier."""

    def __init__(self, features, classifier):
        super().__init__()
        self.features, self.classifier = nn.Sequential(*features), nn.Sequential(*classifier)

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


class Residual(nn.Module):
    """ResNet's block: `body`, and `shortcut` where shapes change."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        hidden = [count // 4 for count in outputs]
        self.body = nn.Sequential(
            *conv_norm(inputs, hidden),
            *conv_norm(hidden, hidden, 3, stride),
            *conv_norm(hidden, outputs, activation=nn.Identity),
        )
        if inputs != outputs:
            self.shortcut = nn.Sequential(Conv(inputs, outputs, 1, stride), Norm(outputs))

    def forward(self, x):
        return functional.relu(self.body(x) + (self.shortcut(x) if hasattr(self, "shortcut") else x))


class Shuffle(nn.Module):
    """Channels of the groups take turns."""

    def forward(self, x):
        return x.unflatten(1, (GROUPS, -1)).transpose(1, 2).flatten(1, 2)


class ShuffleBlock(nn.Module):
    """ShuffleNet's block: grouped 1x1 convolutions `a_G` and `c_G` with a depthwise one in `b` between them."""

    def __init__(self, inputs, outputs, stride, grouped):
        super().__init__()
        self.stride, self.grouped = stride, grouped
        hidden = [count // 4 for count in outputs]
        branch = outputs if stride == 1 else [o - i for i, o in zip(inputs, outputs, strict=True)]
        for group in range(GROUPS):
            modules = conv_norm(third(inputs) if grouped else inputs, third(hidden))
            setattr(self, f"a_{group}", nn.Sequential(*modules))
            setattr(self, f"c_{group}", nn.Sequential(Conv(third(hidden), third(branch)), Norm(third(branch))))
        self.b = nn.Sequential(Shuffle(), Conv(hidden, hidden, 3, stride, depthwise=True), Norm(hidden))

    def forward(self, x):
        parts = x.chunk(GROUPS, 1) if self.grouped else [x] * GROUPS
        y = self.b(in_groups(self, "a", parts))
        y = in_groups(self, "c", y.chunk(GROUPS, 1))
        if self.stride == 1:
            return functional.relu(x + y)
        return functional.relu(torch.cat([y, functional.avg_pool2d(x, 3, 2, 1)], 1))


class ShuffleNet(nn.Module):
    """Stems `head_G`, which pool as well where they have strides, then the blocks as `features`."""

    def __init__(self, widths, stages, stem_stride, classes):
        super().__init__()
        inputs, images = [int(24 * width) for width in widths], [3] * len(widths)
        for group in range(GROUPS):
            pooling = [nn.MaxPool2d(3, 2)] if stem_stride == 2 else []
            modules = [*conv_norm(images, third(inputs), 3, stem_stride), *pooling]
            setattr(self, f"head_{group}", nn.Sequential(*modules))
        features = []
        for count, repeats in stages:
            outputs = [int(count * width) for width in widths]
            for index in range(repeats):
                features.append(ShuffleBlock(inputs, outputs, 2 if index == 0 else 1, grouped=len(features) > 0))
                inputs = outputs
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(Classifier(max(inputs), classes))

    def forward(self, x):
        x = self.features(in_groups(self, "head", [x] * GROUPS))
        return self.classifier(x.mean((2, 3)))


def third(features):
    return [count // GROUPS for count in features]


def in_groups(module, name, parts):
    return torch.cat([getattr(module, f"{name}_{group}")(part) for group, part in enumerate(parts)], 1)


def round8(channels):
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def conv_norm(inputs, outputs, size=1, stride=1, depthwise=False, activation=nn.ReLU):
    return [Conv(inputs, outputs, size, stride, depthwise), Norm(outputs), activation()]


def conv_norm_relu6(*arguments, **options):
    return conv_norm(*arguments, activation=nn.ReLU6, **options)


def mobilenet_v1(widths, stages=V1_TINY_STAGES, stem_stride=1, classes=7):
    def scaled(count):
        return [round8(count * width) for width in widths]

    inputs = scaled(32)
    features = [nn.Sequential(*conv_norm_relu6([3] * len(widths), inputs, 3, stem_stride))]
    for count, repeats, first_stride in stages:
        for index in range(repeats):
            outputs = scaled(count)
            depthwise = conv_norm_relu6(inputs, inputs, 3, first_stride if index == 0 else 1, depthwise=True)
            features.append(Block("body", depthwise + conv_norm_relu6(inputs, outputs), residual=False))
            inputs = outputs
    return Network(features, [Classifier(max(inputs), classes)])


def mobilenet_v2(widths, stages=V2_TINY_STAGES, stem_stride=1, private_tail=False, classes=7):
    def scaled(count):
        return [round8(count * width) for width in widths]

    inputs = scaled(32)
    features = [nn.Sequential(*conv_norm_relu6([3] * len(widths), inputs, 3, stem_stride))]
    for expansion, count, repeats, first_stride in stages:
        for index in range(repeats):
            outputs, stride = scaled(count), first_stride if index == 0 else 1
            hidden = [expansion * i for i in inputs]
            body = conv_norm_relu6(inputs, hidden) if expansion > 1 else []
            body += conv_norm_relu6(hidden, hidden, 3, stride, depthwise=True)
            features.append(Block("body", [*body, Conv(hidden, outputs), Norm(outputs)], residual=index > 0))
            inputs = outputs
    tail = [1280] * len(widths)
    norm = Norm(tail) if private_tail else nn.BatchNorm2d(1280)
    features.append(nn.Sequential(Conv(inputs, tail), norm, nn.ReLU6()))
    return Network(features, [Classifier(1280, classes)])


def shufflenet(widths, stages, stem_stride=2, classes=7):
    return ShuffleNet(widths, stages, stem_stride, classes)


def resnet(widths, stages, stem=(64, 7, 2), classes=7):
    count, size, stride = stem
    inputs = [int(count * width) for width in widths]
    modules = conv_norm([3] * len(widths), inputs, size, stride)
    features = [nn.Sequential(*modules, nn.MaxPool2d(3, 2, 1) if stride == 2 else nn.Identity())]
    for count, repeats, first_stride in stages:
        outputs = [int(count * width) for width in widths]
        for index in range(repeats):
            features.append(Residual(inputs, outputs, first_stride if index == 0 else 1))
            inputs = outputs
    return Network(features, [Classifier(max(inputs), classes)])


class TorchvisionResidual(nn.Module):
    """Torchvision's bottleneck."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        hidden = outputs // 4
        self.conv1, self.bn1 = torchvision_conv(inputs, hidden), nn.BatchNorm2d(hidden)
        self.conv2, self.bn2 = torchvision_conv(hidden, hidden, 3, stride), nn.BatchNorm2d(hidden)
        self.conv3, self.bn3 = torchvision_conv(hidden, outputs), nn.BatchNorm2d(outputs)
        shortcut = torchvision_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)
        self.downsample = nn.Sequential(*shortcut) if inputs != outputs else None

    def forward(self, x):
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)))
        return functional.relu(self.bn3(self.conv3(y)) + (self.downsample(x) if self.downsample else x))


class TorchvisionResNet(nn.Module):
    """Torchvision's ResNet-50."""

    def __init__(self, classes):
        super().__init__()
        self.conv1, self.bn1, inputs = torchvision_conv(3, 64, 7, 2), nn.BatchNorm2d(64), 64
        for stage, (outputs, repeats, first_stride) in enumerate(RESNET50_STAGES, start=1):
            blocks = []
            for index in range(repeats):
                blocks.append(TorchvisionResidual(inputs, outputs, first_stride if index == 0 else 1))
                inputs = outputs
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.fc = nn.Linear(2048, classes)

    def forward(self, x):
        x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        return self.fc(self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3)))


def torchvision_conv(inputs, outputs, size=1, stride=1, groups=1):
    return nn.Conv2d(inputs, outputs, size, stride, (size - 1) // 2, groups=groups, bias=False)


def torchvision_resnet50(classes=7):
    return TorchvisionResNet(classes)


def torchvision_mobilenet_v2(classes=7):
    def conv_norm(inputs, outputs, size=1, stride=1, groups=1):
        modules = torchvision_conv(inputs, outputs, size, stride, groups), nn.BatchNorm2d(outputs), nn.ReLU6()
        return nn.Sequential(*modules)

    features, inputs = [conv_norm(3, 32, 3, 2)], 32
    for expansion, outputs, repeats, first_stride in V2_STAGES:
        for index in range(repeats):
            hidden, stride = expansion * inputs, first_stride if index == 0 else 1
            modules = [conv_norm(inputs, hidden)] if expansion > 1 else []
            modules += [conv_norm(hidden, hidden, 3, stride, hidden), torchvision_conv(hidden, outputs)]
            features.append(Block("conv", [*modules, nn.BatchNorm2d(outputs)], residual=index > 0))
            inputs = outputs
    features.append(conv_norm(inputs, 1280))
    return Network(features, [nn.Dropout(0.2), nn.Linear(1280, classes)])


def randomised(network, widest=0):
    """Random weights, statistics and affines; logits of order one at the switch of the widest. For evaluation.

    Not the statistics of images: with those, deep random networks magnify every rounding.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("num_batches_tracked"):
                tensor.fill_(1000)
            elif tensor.ndim > 1:
                tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
            elif name.endswith(("bias", "running_mean")):
                tensor.normal_(0, 0.2, generator=generator)
            else:
                tensor.uniform_(0.5, 1.5, generator=generator)
        for conv, norm in pairs_of(network):
            # The kernel is random for all its inputs; a switch that sees fewer of them would otherwise fade away.
            for inputs, private in zip(conv.inputs, norm.bn, strict=True):
                private.weight *= 1 if conv.depthwise else (max(conv.inputs) / inputs) ** 0.5
        images = torch.randn(2, 3, 64, 64, generator=generator)
        scale = at_switch(network.eval(), widest)(images).std()
        (*_, weight, _) = network.parameters()
        weight /= scale
    return network


def pairs_of(network):
    """Every convolution that a private batch norm follows, and that."""
    sequences = [module for module in network.modules() if isinstance(module, nn.Sequential)]
    pairs = [pair for sequence in sequences for pair in pairwise(sequence)]
    return [(conv, norm) for conv, norm in pairs if isinstance(conv, Conv) and isinstance(norm, Norm)]


def at_switch(network, switch):
    """The network with all its modules at a switch."""
    for module in network.modules():
        module.switch = switch
    return network


def logits_at(network, switch, images):
    with torch.no_grad():
        return at_switch(network, switch)(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
