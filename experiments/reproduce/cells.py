"""The grid: which networks are trained for which claim of the paper, and the configuration of each.

A cell is one run. Runs that are compared have the same recipe: `config_of` starts them all from the recipe of data set
and scale and changes what the method is about, through `configs/published.py`, and nothing else.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from types import ModuleType

from ml_collections import ConfigDict
from slimjax.configs import (
    cifar10,
    digits,
    fashion_mnist,
    published,
    s_mobilenet_v1,
    s_mobilenet_v1_8switch,
    s_mobilenet_v2,
    s_resnet50,
    s_shufflenet,
)

from slimjax.errors import UserError

SLIMMABLE, NAIVE, INCREMENTAL = "slimmable", "naive", "incremental"
EIGHT_SWITCHES, SHARED_AFFINE = "slimmable_8", "shared_affine"
PRIVATE_TAIL, QUARTER_RATE = "private_tail", "quarter_rate"

DATASETS = {"fashion_mnist": fashion_mnist, "cifar10": cifar10, "digits": digits}


@dataclass(frozen=True)
class Family:
    """A family of networks, by the published row that it stands for.

    Attributes:
      model: the network for small images, of slimjax.MODELS.
      row: the published configuration, whose widths are taken.
    """

    model: str
    row: ModuleType

    @property
    def widths(self) -> tuple[float, ...]:
        """Those of the published row, ascending."""
        return self.row.get_config().model.widths


FAMILIES = {
    "mobilenet_v1": Family("mobilenet_v1_tiny", s_mobilenet_v1),
    "mobilenet_v2": Family("mobilenet_v2_tiny", s_mobilenet_v2),
    "shufflenet": Family("shufflenet_tiny", s_shufflenet),
    "resnet": Family("resnet_tiny", s_resnet50),
}


@dataclass(frozen=True)
class Scale:
    """How much of the data the runs of a grid see, which is the same for all of them.

    Attributes:
      seeds: one grid for each.
      train_split: in tfds's slicing language.
      eval_split: likewise; all of it is evaluated every time.
      num_epochs: of every run, and of every phase of incremental training.
      evals_per_epoch: how often a run is evaluated, and saved.
      batch_size: images of a step.
      learning_rate: peak, for this batch size.
      stem: `imagenet` halves the resolution in the first convolution, `small` keeps it.
      log_every_steps: steps between points of the training curves.
    """

    seeds: tuple[int, ...]
    train_split: str
    eval_split: str
    num_epochs: float
    evals_per_epoch: int
    batch_size: int
    learning_rate: float
    stem: str
    log_every_steps: int


# Evaluations and phases fall on whole steps, and both on points of the training curves.
SCALES = {
    "tiny": Scale((0, 1), "train[:1280]", "test[:256]", 2.0, 2, 64, 0.1, "imagenet", 5),
    "small": Scale((0, 1, 2), "train[:19200]", "test[:4000]", 2.0, 2, 64, 0.1, "imagenet", 25),
    "full": Scale((0, 1, 2), "train[:48000]", "test", 2.0, 2, 128, 0.2, "small", 25),
}


@dataclass(frozen=True)
class Cell:
    """One run of the grid.

    Attributes:
      family: one of FAMILIES.
      method: one of this module's names, or `individual=WIDTH`, also with `_quarter_rate` behind it.
      seed: of initialisation and of the order of the images.
    """

    family: str
    method: str
    seed: int

    @property
    def name(self) -> str:
        """Of its workdir and in the results, such as `mobilenet_v1/individual=0.25/seed_0`."""
        return f"{self.family}/{self.method}/seed_{self.seed}"


def individual(width: float) -> str:
    """The method that trains one width by itself."""
    return f"individual={width:g}"


def quarter_rate(method: str) -> str:
    """The method that trains as `slimmable` or an individual network does, at a quarter of the learning rate."""
    return QUARTER_RATE if method == SLIMMABLE else f"{method}_{QUARTER_RATE}"


_AT_QUARTER_RATE = {
    quarter_rate(method): method for method in (SLIMMABLE, *map(individual, FAMILIES["mobilenet_v2"].widths))
}
"""By the names of `quarter_rate`."""


@dataclass(frozen=True)
class Experiment:
    """What is compared for one claim of the paper.

    Attributes:
      title: for people.
      runs: families and methods, the reference first.
    """

    title: str
    runs: tuple[tuple[str, str], ...]

    def cells(self, seed: int) -> list[Cell]:
        """Its runs with a seed."""
        return [Cell(family, method, seed) for family, method in self.runs]


def _methods(family: str, *methods: str) -> tuple[tuple[str, str], ...]:
    return tuple((family, method) for method in (SLIMMABLE, *methods))


def _table_3(family: str) -> Experiment:
    methods = (individual(width) for width in FAMILIES[family].widths)
    return Experiment(f"Table 3, {family}: individual and slimmable networks", _methods(family, *methods))


# The most telling ones first: a grid that is stopped has those.
EXPERIMENTS = {
    "figure2": Experiment("Figure 2: naive and switchable batch norm", _methods("mobilenet_v1", NAIVE)),
    "table3_mobilenet_v1": _table_3("mobilenet_v1"),
    "table3_mobilenet_v2": _table_3("mobilenet_v2"),
    "table4": Experiment("Table 4: 4 and 8 switches", _methods("mobilenet_v1", EIGHT_SWITCHES)),
    "affine": Experiment("Private and shared scale and bias", _methods("mobilenet_v1", SHARED_AFFINE)),
    "incremental": Experiment("Incremental and joint training", _methods("mobilenet_v1", INCREMENTAL)),
    "table3_shufflenet": _table_3("shufflenet"),
    "table3_resnet": _table_3("resnet"),
    "mobilenet_v2": Experiment(
        "MobileNet v2 with a lower learning rate, and with a last batch norm for each width",
        _methods("mobilenet_v2", *_AT_QUARTER_RATE, PRIVATE_TAIL),
    ),
}
"""What is compared, by the name that --experiments takes."""


def grid(experiments: Iterable[str], seeds: Iterable[int], methods: Collection[str] = ()) -> list[Cell]:
    """The cells of some experiments, each once: all that the first seed needs, then the next seed's.

    Args:
      experiments: names of EXPERIMENTS.
      seeds: in the order in which they are run.
      methods: those that are run; all where none is given.

    Raises:
      UserError: if there is no such experiment, or none of them has such a method.
    """
    names = list(experiments)
    for name in names:
        if name not in EXPERIMENTS:
            raise UserError(f"--experiments={name} is unknown; choose among {', '.join(EXPERIMENTS)}")
    known = dict.fromkeys(method for name in names for _, method in EXPERIMENTS[name].runs)
    for method in methods:
        if method not in known:
            raise UserError(
                f"--methods={method} is not compared in {', '.join(names)}; choose among {', '.join(known)}"
            )
    cells = (cell for seed in seeds for name in names for cell in EXPERIMENTS[name].cells(seed))
    return [cell for cell in dict.fromkeys(cells) if not methods or cell.method in methods]


def is_calibrated(cell: Cell) -> bool:
    """Whether a run is also evaluated with calibrated statistics: those whose scales and biases are compared."""
    return (cell.family, cell.method) in EXPERIMENTS["affine"].runs


def config_of(cell: Cell, dataset: str, scale: str) -> ConfigDict:
    """The configuration of a cell.

    Raises:
      UserError: if data set or scale are unknown, or the data set is too small for the scale.
    """
    config = recipe(dataset, scale)
    config.seed = cell.seed
    config.model.name = FAMILIES[cell.family].model
    config.model.widths = FAMILIES[cell.family].widths
    if cell.method == EIGHT_SWITCHES:
        config.model.widths = s_mobilenet_v1_8switch.get_config().model.widths
    elif cell.method == SHARED_AFFINE:
        config.model.batch_norm = "shared_affine"
    elif cell.method == PRIVATE_TAIL:
        config.model.tail_bn = "private"
    elif cell.method in _AT_QUARTER_RATE:
        config = published.with_method(config, _AT_QUARTER_RATE[cell.method])
        config.learning_rate /= 4
    else:
        config = published.with_method(config, cell.method)
    return config


def recipe(dataset: str, scale: str) -> ConfigDict:
    """What all runs of a grid share: images, number of epochs, optimiser and schedule; see `config_of`."""
    if dataset not in DATASETS or scale not in SCALES:
        raise UserError(
            f"--dataset={dataset} --scale={scale}: the data sets are {', '.join(DATASETS)}, the scales "
            f"{', '.join(SCALES)}"
        )
    if dataset == "digits" and scale != "tiny":
        raise UserError(f"--dataset=digits has too few images for --scale={scale}; it takes --scale=tiny")
    config, of_scale = DATASETS[dataset].get_config(), SCALES[scale]
    config.dataset.train_split, config.dataset.eval_split = of_scale.train_split, of_scale.eval_split
    # So few epochs show hardly an image twice.
    config.dataset.augmentation, config.dataset.flip = "none", False
    config.dataset.shuffle_buffer = 60_000
    config.model.stem = of_scale.stem
    config.batch_size, config.learning_rate = of_scale.batch_size, of_scale.learning_rate
    config.num_train_steps, config.num_epochs = None, of_scale.num_epochs
    config.optimizer.weight_decay = 1e-4
    config.schedule.warmup_steps, config.schedule.warmup_epochs = None, 0.1
    config.log_every_steps = of_scale.log_every_steps
    config.eval_every_steps, config.eval_every_epochs = None, 1 / of_scale.evals_per_epoch
    config.checkpoint_every_steps, config.checkpoint_every_epochs = None, 1 / of_scale.evals_per_epoch
    config.keep_checkpoints = 1
    return config
