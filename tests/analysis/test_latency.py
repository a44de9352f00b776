"""What is timed, in what order, and how often it is compiled; never how long it takes."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slimjax import UserError, create_model
from slimjax.analysis.latency import measure_latency, measure_layer_latency, random_variables
from slimjax.analysis.profile import profile_model
from slimjax.analysis.timing import WARM_UP_CALLS, Latency, time_in_turns
from slimjax.nn import WidthPlan
from slimjax.nn.tracing import trace_layers, variables_at

WIDTHS = (0.25, 1.0)


@pytest.fixture(scope="module")
def model():
    return create_model("mobilenet_v1_tiny", WIDTHS, 5)


@pytest.fixture
def compilations(monkeypatch):
    """The programs that are compiled."""
    compiled, compile_really = [], jax.stages.Lowered.compile

    def count(lowered, *args, **kwargs):
        compiled.append(lowered)
        return compile_really(lowered, *args, **kwargs)

    monkeypatch.setattr(jax.stages.Lowered, "compile", count)
    return compiled


def assert_sensible(latency):
    assert 0 < latency.median_ms <= latency.p95_ms < float("inf")


def test_every_width_is_compiled_once_for_what_it_reads(model, compilations):
    latencies = measure_latency(model, random_variables(model), image_size=16, batch_size=2, repeats=3)
    assert list(latencies) == list(WIDTHS)
    for latency in latencies.values():
        assert_sensible(latency)
    assert len(compilations) == len(WIDTHS)
    for lowered in compilations:
        variables, images = lowered.args_info[0]
        assert images.shape == (2, 16, 16, 3)
        # 11 convolutions, as many batch norms of four arrays, and a classifier of two.
        assert len(jax.tree.leaves(variables)) == 11 + 11 * 4 + 2


@pytest.mark.parametrize(("variables", "message"), [({}, "the variables lack"), (None, "variables are a NoneType")])
def test_variables_are_the_models(model, variables, message):
    with pytest.raises(UserError, match=message):
        measure_latency(model, variables, image_size=16)


def test_the_variables_that_a_width_reads_suffice(model):
    variables = random_variables(model)
    images = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
    for switch, width in enumerate(WIDTHS):
        read = variables_at(model, variables, width)
        assert set(read["batch_stats"]["stem"]["bn"]) == {f"switch_{switch}"}
        assert read["params"]["stem"]["conv"]["kernel"] is variables["params"]["stem"]["conv"]["kernel"]
        run = jax.jit(lambda v, width=width: model.apply(v, images, width=width))
        np.testing.assert_array_equal(run(read), run(variables))


def test_random_variables_are_like_those_of_a_new_network(model):
    new = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))

    def compare(path, ours, initialised):
        assert (ours.shape, ours.dtype) == (initialised.shape, initialised.dtype)
        if ours.ndim < 2:
            np.testing.assert_array_equal(ours, initialised, err_msg=str(path))
        elif "classifier" not in str(path) and ours.size > 1000:
            np.testing.assert_allclose(ours.std(), initialised.std(), rtol=0.1, err_msg=str(path))

    jax.tree.map_with_path(compare, random_variables(model), dict(new))


def test_every_distinct_layer_is_compiled_once(compilations):
    model = create_model("mobilenet_v1_tiny", (1.0,), 5)
    latencies = measure_layer_latency(model, image_size=16, repeats=2)
    assert list(latencies) == [1.0]
    assert len(latencies[1.0]) == len(profile_model(model, 16)[0].layers) == 23
    for latency in latencies[1.0]:
        assert_sensible(latency)
    # Batch norms that see what another has seen: block 1's first as the stem's; both of blocks 3 and 5 as those before.
    assert len(compilations) == 23 - 5


def test_layers_of_any_plan_and_batch_are_timed(compilations):
    base = create_model("mobilenet_v1_tiny", WIDTHS, 5).resolved_plans()
    odd = WidthPlan(0.25, tuple((layer, 5 if layer == "block_4" else count) for layer, count in base[0].features))
    model = create_model("mobilenet_v1_tiny", (0.25,), 5, plans=(odd,))
    shown = []

    def track(items, what, total, figures=None):
        shown.append((what, total))
        return items

    latencies = measure_layer_latency(model, image_size=8, batch_size=3, repeats=1, track=track)
    assert shown == [("timing layers, batch 3", 23)]
    assert [len(of_width) for of_width in latencies.values()] == [23]
    assert (3, 2, 2, 5) in {lowered.args_info[0][1].shape for lowered in compilations}


def test_a_layer_alone_computes_what_it_does_in_the_network(model):
    variables = random_variables(model)
    images = jax.random.normal(jax.random.key(0), (1, 16, 16, 3))

    @jax.jit
    def captured(variables, images):
        return model.apply(variables, images, width=0.25, capture_intermediates=True, mutable=["intermediates"])[1]

    stem, norm = trace_layers(model, 0.25, 16)[:2]
    outputs = captured(variables, images)["intermediates"]["stem"]
    read = {"params": variables["params"]["stem"]["conv"]}
    np.testing.assert_allclose(stem.call(read, images), outputs["conv"]["__call__"][0], rtol=1e-4, atol=1e-5)
    read = {collection: variables[collection]["stem"]["bn"] for collection in ("params", "batch_stats")}
    alone = norm.call(read, outputs["conv"]["__call__"][0])
    np.testing.assert_allclose(alone, outputs["bn"]["__call__"][0], rtol=1e-5, atol=1e-6)


def test_calls_take_turns_after_warming_up():
    called = []
    calls = {name: lambda name=name: called.append(name) for name in "ab"}
    latencies = time_in_turns(calls, repeats=3)
    warm_up = ["a"] * WARM_UP_CALLS + ["b"] * WARM_UP_CALLS
    assert called == warm_up + ["a", "b"] * 3
    assert all(isinstance(latency, Latency) for latency in latencies.values())


def test_medians_are_told_while_calls_are_timed():
    told = []

    def track(items, what, total, figures):
        for item in items:
            yield item
            told.append(figures())

    latencies = time_in_turns({("run", 0.25): lambda: None, 1.0: lambda: None}, 3, track)
    assert len(told) == 3
    medians = re.fullmatch(r"ms: run 0.25: (\S+)  1: (\S+)", told[-1]).groups()
    assert list(map(float, medians)) == pytest.approx([of.median_ms for of in latencies.values()], rel=5e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size=0 has to be at least 1"),
        ({"repeats": 0}, "repeats=0 has to be at least 1"),
        ({"image_size": 0}, "image_size=0 has to be at least 1 pixel"),
        (
            {"image_size": 10**6},
            r"at image_size=1000000 needs \d+.\d GB for its largest layer and cpu has",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused_before_compiling(model, compilations, arguments, message):
    for measure in (lambda **a: measure_latency(model, {}, **a), lambda **a: measure_layer_latency(model, **a)):
        with pytest.raises(UserError, match=message):
            measure(**arguments)
    assert not compilations
