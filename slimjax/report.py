"""Shows what runs have learned: one HTML page that opens from disk, and its pictures as files beside it.

python -m slimjax.report --workdir=runs/digits                        into runs/digits/report
python -m slimjax.report --workdir=A --workdir=B --output=DIR         several runs of one data set, compared
python -m slimjax.report --workdir=DIR --checkpoint=best --nolatency  the best checkpoint, nothing timed
python -m slimjax.report --workdir=DIR --layer=stem --channel=3       another channel's images

Runs are all of classifiers, or all of detectors. Every checkpoint is evaluated at every width. A run of one width is
taken as an individual network, to be set against the slimmable ones of its model.
"""

import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from absl import flags
from etils import epath
from ml_collections import ConfigDict, config_flags

from slimjax import cli
from slimjax.allocator import keep_freed_memory
from slimjax.errors import UserError
from slimjax.paths import check_writable, folder_path

# What needs JAX is imported once the flags are known to be good.
if TYPE_CHECKING:
    from slimjax.reporting.layers import NormLayer
    from slimjax.reporting.parts import Section
    from slimjax.reporting.runs import Measured, MeasuredClassifier, MeasuredDetector, ReportedRun
    from slimjax.training.progress import Progress
    from slimjax.training.run import Run

config_flags.DEFINE_config_file("config", None, "--config.KEY=VALUE Sets one key of the trained configurations.")
_WORKDIRS = flags.DEFINE_multi_string("workdir", [], "Folder of a trained run; give it several times to compare runs.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "Of each run: latest, best, or a step.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the report; `report` in the first workdir if absent.")
_LATENCY = flags.DEFINE_boolean("latency", True, "Whether to time every width on this machine.")
_LAYER = flags.DEFINE_string("layer", None, "Convolution whose channel's images are shown; the last one if absent.")
_CHANNEL = flags.DEFINE_integer("channel", None, "Of that layer; the one that tells classes apart best if absent.")
_QUIET = cli.define_quiet()


def main() -> int:
    """Measures the runs and writes the page; returns the exit code."""
    if not _WORKDIRS.value:
        raise UserError("--workdir is missing; give the folder of a trained run, such as --workdir=runs/digits")
    if cli.config_is_given():
        raise UserError("--config is not for reports: trained runs bring their own configurations; leave it out")
    workdirs = [folder_path(workdir, "--workdir") for workdir in _WORKDIRS.value]
    output = folder_path(_OUTPUT.value, "--output") if _OUTPUT.value else workdirs[0] / "report"
    keep_freed_memory()
    from slimjax.reporting.runs import check_comparable, names_of

    names = names_of([str(workdir) for workdir in workdirs])
    configs = {str(workdir): cli.given_config(workdir, _CHECKPOINT.value) for workdir in workdirs}
    check_writable(output, "--output")
    check_comparable(configs)
    cli.use_compilation_cache()
    from slimjax.training.progress import Progress

    with Progress(enabled=not _QUIET.value) as progress:
        # Of all runs before the first data set is opened, which takes seconds.
        layers = [_layer(name, config) for name, config in zip(names, configs.values(), strict=True)]
        opened = [_opened(*of_run) for of_run in zip(names, workdirs, configs.values(), strict=True)]
        evaluated = [_evaluated(*of_run, layer, progress) for of_run, layer in zip(opened, layers, strict=True)]
        measured = _timed(evaluated, progress) if _LATENCY.value else evaluated
        with progress.announced("drawing"):
            page = _write(output, measured)
    _print(measured, page)
    return 0


def _layer(name: str, config: ConfigDict) -> "NormLayer | None":
    """The layer of a classifier that the flags name, once it and the channel are known to be there."""
    import jax

    from slimjax.reporting.layers import check_channel, find_layer
    from slimjax.tasks.classification.task import create_network
    from slimjax.training.mesh import check_platform

    check_platform(config.platform)
    if config.task != "classification":
        for flag in (_LAYER, _CHANNEL):
            if flag.value is not None:
                raise UserError(f"--{flag.name}={flag.value} is for classifiers, and {name} is none; leave it out")
        return None
    # Channels do not depend on the number of classes, which the data set would tell.
    layer = find_layer(create_network(config, 1, jax.default_backend()), _LAYER.value, name)
    check_channel(layer, _CHANNEL.value, name)
    return layer


def _opened(name: str, workdir: epath.Path, config: ConfigDict) -> "tuple[Run, ReportedRun]":
    """A run, and what is reported of it: the weights that the flags name."""
    from slimjax.reporting.metrics import read_curves
    from slimjax.reporting.runs import ReportedRun
    from slimjax.training.metric_writers import JSON_LINES
    from slimjax.training.run import create_run, trained_weights

    run = create_run(config, workdir)
    step, weights = trained_weights(run, _CHECKPOINT.value)
    run.checkpoints.close()
    reported = ReportedRun(
        name=name,
        workdir=str(workdir),
        step=step,
        config=config,
        model=run.task.model,
        variables={"params": weights.params, "batch_stats": weights.batch_stats},
        class_names=run.task.info.class_names,
        curves=read_curves(workdir / JSON_LINES),
        image_size=run.task.image_size,
        eval_batches=run.task.eval_batches,
        num_eval_batches=run.task.num_eval_batches,
    )
    return run, reported


def _evaluated(run: "Run", reported: "ReportedRun", layer: "NormLayer | None", progress: "Progress") -> "Measured":
    """What every width is worth on the evaluation split."""
    with progress.announced(f"evaluating step {reported.step} of {reported.workdir}"):
        if layer is not None:
            from slimjax.reporting.measuring import measure_classifier

            return measure_classifier(reported, layer, _CHANNEL.value, progress)
        from slimjax.reporting.detectors import measure_detector
        from slimjax.tasks.detection.task import DetectionTask

        assert isinstance(run.task, DetectionTask)
        return measure_detector(reported, run.task, run.mesh, progress)


def _timed(measured: "Sequence[Measured]", progress: "Progress") -> "list[Measured]":
    """The same with every width's latency."""
    from dataclasses import replace

    from slimjax.reporting.measuring import measure_latencies

    runs = [of_run.run for of_run in measured]
    with progress.announced(f"compiling and timing {sum(len(run.model.widths) for run in runs)} widths"):
        latencies = measure_latencies(runs, progress.track)
    return [replace(of_run, latencies=of) for of_run, of in zip(measured, latencies, strict=True)]


def _write(output: epath.Path, measured: "Sequence[Measured]") -> epath.Path:
    """Draws everything and writes the page, its pictures and its numbers; returns the page's path."""
    from slimjax.analysis.machine import describe_machine
    from slimjax.nn.plans import widths_text
    from slimjax.reporting.page import write_page
    from slimjax.reporting.summary import as_json

    machine = describe_machine()
    runs = [of_run.run for of_run in measured]
    what = "; ".join(
        f"{run.name}: {run.config.model.name}, step {run.step}, {widths_text(run.model.widths)}" for run in runs
    )
    subtitle = f"{measured[0].num_images:,} images of {runs[0].config.dataset.name}. {what}."
    command = shlex.join(["python", *sys.orig_argv[1:]])
    page = write_page(output, "What each width has learned", subtitle, command, _sections(measured, machine))
    (output / "report.json").write_text(as_json(measured, machine))
    return page


def _sections(measured: "Sequence[Measured]", machine: Mapping[str, object]) -> "list[Section]":
    """Of any runs, and between these what is special to classifiers or detectors."""
    from slimjax.reporting.runs import MeasuredClassifier, MeasuredDetector
    from slimjax.reporting.sections.batch_norms import batch_norm_section
    from slimjax.reporting.sections.comparison import comparison_section
    from slimjax.reporting.sections.costs import costs_section
    from slimjax.reporting.sections.curves import curves_section

    classifiers = [of_run for of_run in measured if isinstance(of_run, MeasuredClassifier)]
    detectors = [of_run for of_run in measured if isinstance(of_run, MeasuredDetector)]
    return [
        costs_section(measured, machine),
        comparison_section(measured),
        curves_section(measured),
        *(_of_classifiers(classifiers) if classifiers else []),
        *(_of_detectors(detectors) if detectors else []),
        batch_norm_section(measured),
    ]


def _of_detectors(measured: "Sequence[MeasuredDetector]") -> "list[Section]":
    from slimjax.reporting.sections.detections import detections_section

    return [detections_section(measured)]


def _of_classifiers(measured: "Sequence[MeasuredClassifier]") -> "list[Section]":
    from slimjax.reporting.measuring import collect_images
    from slimjax.reporting.runs import detailed
    from slimjax.reporting.sections.activations import activations_section, wanted_images
    from slimjax.reporting.sections.agreement import agreement_section
    from slimjax.reporting.sections.confusion import confusion_section
    from slimjax.reporting.sections.examples import chosen_images, examples_section

    images = {
        of_run.name: collect_images(of_run.run, {*wanted_images(of_run), *chosen_images(of_run)})
        for of_run in detailed(measured)
    }
    return [
        confusion_section(measured),
        agreement_section(measured),
        examples_section(measured, images),
        activations_section(measured, images),
    ]


def _print(measured: "Sequence[Measured]", page: epath.Path) -> None:
    from slimjax.analysis.tables import figures_table, print_table

    for of_run in measured:
        print(f"{of_run.name}: step {of_run.run.step}, {of_run.num_images:,} images")
        profiles = of_run.run.profiles
        print_table(figures_table(list(profiles.values()), [of_run.figures[width] for width in profiles]))
    print(f"report: {page}")


if __name__ == "__main__":
    from importlib.resources import files

    cli.run(main, default_config=str(files("slimjax.configs") / "digits.py"))
