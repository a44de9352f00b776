"""Bundles and the runtime against the networks they were made from."""

import json
import math
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from sklearn.datasets import load_digits

from slimjax import SlimmableRuntime, UserError, fold_batch_norm, profile_model
from slimjax.deploy.bundle import InputEntry, read_manifest, read_weights
from slimjax.deploy.exporting import export_bundle
from slimjax.deploy.formats import Tolerance, Written, stablehlo
from slimjax.deploy.source import Trained
from slimjax.training.progress import Progress

WIDTHS = (0.35, 0.5, 1.0)
MEAN, STDDEV = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)
QUIET = Progress(enabled=False)


def digits(count):
    """Colours of 0 to 255 [count, 16, 16, 3]."""
    grey = load_digits().images[:count].repeat(2, 1).repeat(2, 2)
    return np.rint(grey[..., None] * [15.0, 12.0, 9.0]).astype(np.uint8)


def normalised(colours):
    return ((colours / 255 - MEAN) / STDDEV).astype(np.float32)


@pytest.fixture(scope="module")
def trained(create_small, random_variables):
    """A network of a family that has a batch norm shared by all widths, too."""
    model = create_small("mobilenet_v2", WIDTHS)
    return Trained(
        name="mobilenet_v2",
        task="classification",
        model=model,
        variables=random_variables(model),
        class_names=tuple("abcde"),
        input=InputEntry.square(16, "float32", MEAN, STDDEV, 16),
        image_size=16,
        figures={width: {"top1_error": 10 / width} for width in WIDTHS},
        images=normalised(digits(16)),
    )


@pytest.fixture(scope="module")
def bundle(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("bundles") / "bundle"
    export_bundle(trained, path, WIDTHS, QUIET)
    return path


@pytest.fixture(scope="module")
def runtime(bundle):
    return SlimmableRuntime.load(bundle)


@pytest.fixture(scope="module")
def logits(trained):
    """What the network computes at every width for four digits."""
    images = normalised(digits(4))
    return {width: np.asarray(trained.model.apply(trained.variables, images, width=width)) for width in WIDTHS}


@pytest.fixture
def copy(bundle, tmp_path):
    return shutil.copytree(bundle, tmp_path / "copy")


@pytest.mark.parametrize("name", ["mobilenet_v1", "resnet50", "shufflenet"])
def test_every_family_runs_as_it_was_trained(trained_small, network_logits, relative_error, name, tmp_path):
    trained = trained_small(name, (0.5, 1.0))
    export_bundle(trained, tmp_path / "bundle", (0.5, 1.0), QUIET)
    runtime = SlimmableRuntime.load(tmp_path / "bundle")
    for width in runtime.widths:
        found = runtime.predict(trained.images, width=width)
        assert relative_error(found, network_logits(trained, trained.images, width)) < 1e-5


@pytest.mark.parametrize("width", WIDTHS)
def test_predictions_are_the_networks(runtime, logits, relative_error, width):
    images = normalised(digits(4))
    assert relative_error(runtime.predict(images, width=width), logits[width]) < 1e-5
    assert relative_error(runtime.predict(images[:1], width=width), logits[width][:1]) < 1e-5
    assert relative_error(runtime.predict_async(images, width=width).result(), logits[width]) < 1e-5


def test_the_manifest_tells_what_is_in_it(runtime, trained):
    assert (runtime.widths, runtime.input_shape) == (WIDTHS, (None, 16, 16, 3))
    manifest = runtime.manifest
    for entry, row in zip(manifest.widths, profile_model(trained.model, 16), strict=True):
        assert (entry.width, entry.params, entry.macs) == (row.width, row.params, row.macs)
        assert entry.figures == {"top1_error": 10 / row.width}
        check = manifest.programs["stablehlo"][f"{row.width:g}"].check
        assert (check.images, check.agreement) == (16, 1.0)
        assert check.largest_difference < 1e-5
    assert manifest.class_names == tuple("abcde")


def test_kernels_are_stored_once_for_all_widths(bundle, trained):
    tensors = read_weights(bundle, read_manifest(bundle))
    _, own = fold_batch_norm(trained.model, trained.variables)
    expected = flatten_dict(own["params"], sep="/")
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, expected[name])


def test_some_widths_leave_out_the_others_batch_norms(trained, tmp_path, logits, relative_error):
    export_bundle(trained, tmp_path / "bundle", (1.0, 0.35), QUIET)
    runtime = SlimmableRuntime.load(tmp_path / "bundle")
    assert runtime.widths == (0.35, 1.0)
    assert not [name for name in runtime.manifest.tensors if "switch_1" in name]
    assert relative_error(runtime.predict(normalised(digits(4)), width=0.35), logits[0.35]) < 1e-5


def test_normalisation_can_be_baked_in(trained, tmp_path, logits, relative_error):
    entry = InputEntry.square(16, "uint8", MEAN, STDDEV, 16)
    export_bundle(Trained(**{**vars(trained), "input": entry}), tmp_path / "bundle", WIDTHS, QUIET)
    runtime = SlimmableRuntime.load(tmp_path / "bundle")
    assert relative_error(runtime.predict(digits(4), width=0.5), logits[0.5]) < 1e-5
    with pytest.raises(UserError, match="images are float32, this bundle takes uint8"):
        runtime.predict(normalised(digits(4)))


WITHOUT_FLAX = """
import sys
sys.modules["flax"] = sys.modules["slimjax.models"] = None
import numpy as np
from slimjax import SlimmableRuntime
runtime = SlimmableRuntime.load(sys.argv[1])
print(runtime.predict(np.ones((2, 16, 16, 3), np.float32), width=0.5).tolist())
"""


def test_it_runs_where_neither_flax_nor_the_models_are(bundle, runtime):
    run = subprocess.run([sys.executable, "-c", WITHOUT_FLAX, bundle], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    expected = runtime.predict(np.ones((2, 16, 16, 3), np.float32), width=0.5)
    np.testing.assert_allclose(json.loads(run.stdout), expected, rtol=1e-5, atol=1e-6)


def test_switching_compiles_nothing_and_copies_no_weights(bundle):
    before = {id(array) for array in jax.live_arrays()}
    runtime, images = SlimmableRuntime.load(bundle), normalised(digits(4))
    compilations = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: compilations.append(event) if "compile" in event else None
    )
    runtime.warm_up((4,))
    assert compilations
    compilations.clear()
    for width in WIDTHS * 2:
        runtime.predict(images, width=width)
    assert not compilations
    held = sum(array.nbytes for array in jax.live_arrays() if id(array) not in before)
    assert held == sum(tensor.nbytes for tensor in read_weights(bundle, read_manifest(bundle)).values())


def test_widths_are_chosen_by_what_calls_can_afford(runtime, logits, relative_error):
    images = normalised(digits(4))
    macs = {entry.width: entry.macs for entry in runtime.manifest.widths}
    choices = {
        1.0: [{}, {"max_macs": macs[1.0]}, {"max_top1_error": 10.0}, {"costs": {0.5: 1, 1.0: 2}, "max_cost": 2}],
        0.5: [{"max_macs": macs[1.0] - 1}, {"max_top1_error": 20.0}, {"costs": {0.5: 1, 1.0: 2}, "max_cost": 1.9}],
        0.35: [{"max_macs": macs[0.35]}, {"max_top1_error": 99.0}],
    }
    for width, criteria in choices.items():
        for criterion in criteria:
            assert relative_error(runtime.predict(images, **criterion), logits[width]) < 1e-5, criterion


def test_a_budget_goes_by_what_was_measured_on_this_device(copy, logits, relative_error):
    images = normalised(digits(4))
    runtime = SlimmableRuntime.load(copy)
    with pytest.raises(UserError, match=r"batches of 4 were not measured on this device; call runtime.calibrate"):
        runtime.predict(images, budget_ms=1.0)
    measured = runtime.calibrate(batch_sizes=(4,), repeats=5)
    assert all(0 < latency.median_ms <= latency.p95_ms for latency in measured[4].values())
    # Kept beside the bundle, which it is no part of.
    again = SlimmableRuntime.load(copy)
    assert relative_error(again.predict(images, budget_ms=1e6), logits[1.0]) < 1e-5
    assert relative_error(again.predict(images, budget_ms=1e-6), logits[0.35]) < 1e-5
    report = again.report()[4]
    assert report.calls == {0.35: 1, 0.5: 0, 1.0: 1}
    assert (report.overruns, report.narrowed) == (1, 0)
    stored = copy.with_name("copy.latency.json")
    stored.write_text(stored.read_text().replace("p95_ms", "p59_ms"))
    with pytest.raises(UserError, match="batches of 4 were not measured"):
        SlimmableRuntime.load(copy).predict(images, budget_ms=1.0)


def test_what_a_call_waits_for_others_is_in_its_budget(copy):
    images = normalised(digits(4))
    runtime = SlimmableRuntime.load(copy)
    runtime.calibrate(batch_sizes=(4,), repeats=5)
    # Another batch size compiles first, so that the others are all asked for before one of them runs.
    calls, asked_at = [runtime.predict_async(normalised(digits(5)), width=1.0)], []
    for _ in range(50):
        calls.append(runtime.predict_async(images, budget_ms=1e4))
        asked_at.append(time.perf_counter())
    for call in calls:
        call.result()
    decisions, before_ms = runtime.report()[4].recent, 0.0
    for decision, asked in zip(decisions, asked_at, strict=True):
        # One runs after the other, so each has waited for all before it since it was asked for.
        assert 1e4 - decision.budget_ms >= before_ms - (asked - asked_at[0]) * 1e3
        before_ms += decision.latency_ms
    assert 1e4 - decisions[-1].budget_ms > 0.9 * (before_ms - decisions[-1].latency_ms)


def test_mistakes_in_a_call_are_named(runtime):
    images = normalised(digits(1))
    for criteria, message in [
        ({"width": 0.4}, r"width=0.4 is not one of this bundle's widths \(0.35, 0.5, 1.0\)"),
        ({"width": 0.5, "budget_ms": 1}, "width and budget_ms are given; a width is chosen by one of them"),
        ({"max_macs": 1}, "max_macs=1 is met by no width; known: .* at 0.35"),
        ({"max_cost": 1}, "costs and max_cost go together"),
        ({"width": np.array([0.5])}, "width=array.* has to be a number, one of this bundle's widths"),
        ({"costs": {0.5: 1}, "max_cost": math.nan}, "max_cost=nan has to be a number that is not negative"),
        ({"costs": {0.5: "x"}, "max_cost": 1}, r"costs=\{0.5: 'x'\} has to be a table of costs by width"),
        ({"costs": [1, 2], "max_cost": 1}, r"costs=\[1, 2\] has to be a table of costs by width"),
    ]:
        with pytest.raises(UserError, match=message):
            runtime.predict(images, **criteria)
    with pytest.raises(UserError, match=r"images of shape \(16, 16, 3\) have to be \[batch, 16, 16, 3\]"):
        runtime.predict(images[0])
    with pytest.raises(UserError, match="images are float64, this bundle takes float32: normalised by the manifest's"):
        runtime.predict_async(images.astype(np.float64))
    for call in (runtime.warm_up, runtime.calibrate):
        for sizes in (4, (), (0,), (1.5,)):
            with pytest.raises(UserError, match="has to be whole numbers of at least 1, such as"):
                call(sizes)


@pytest.mark.parametrize("threads", [0, 10**5, "2"])
def test_threads_are_cores_that_there_are(bundle, threads):
    with pytest.raises(UserError, match=r"has to be 1 to .*, the cores that this process may use"):
        SlimmableRuntime.load(bundle, threads=threads)


def test_threads_may_share_a_runtime_and_images_may_change_after_the_call(runtime, logits, relative_error):
    images = normalised(digits(4))
    with ThreadPoolExecutor(8) as pool:
        calls = [(width, pool.submit(runtime.predict, images, width=width)) for width in WIDTHS * 20]
    assert all(relative_error(call.result(), logits[width]) < 1e-5 for width, call in calls)
    camera, answers = images.copy(), []
    for width in WIDTHS * 5:
        answers.append((width, runtime.predict_async(camera, width=width)))
    camera[:] = 0
    assert all(relative_error(answer.result(), logits[width]) < 1e-5 for width, answer in answers)


def test_what_two_processes_measure_is_kept_together(copy):
    first, second = SlimmableRuntime.load(copy), SlimmableRuntime.load(copy)
    first.calibrate(batch_sizes=(1,), repeats=2)
    second.calibrate(batch_sizes=(2,), repeats=2)
    third = SlimmableRuntime.load(copy)
    for count in (1, 2):
        third.predict(normalised(digits(count)), budget_ms=1e6)


def test_what_is_beyond_tolerance_or_there_already_leaves_nothing_behind(trained, tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="there is there already"):
        export_bundle(trained, tmp_path / "there", WIDTHS, QUIET)
    with pytest.raises(UserError, match=r"width=0\.4 is not one of this model's widths"):
        export_bundle(trained, tmp_path / "new", (0.4,), QUIET)
    monkeypatch.setattr(stablehlo, "Written", partial(Written, tolerance=Tolerance(0.0, 0.0)))
    with pytest.raises(UserError, match=r"the stablehlo program of width 0\.35 differs from the network by"):
        export_bundle(trained, tmp_path / "new", WIDTHS, QUIET)
    assert os.listdir(tmp_path) == ["there"]
    with pytest.raises(UserError, match=r"/proc/new/bundle cannot be written .*; nothing was exported"):
        export_bundle(trained, Path("/proc/new/bundle"), WIDTHS, QUIET)
