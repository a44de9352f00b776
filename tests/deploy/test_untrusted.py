"""Bundles that are old, and bundles that were forged by somebody who knows how checksums are made."""

import copy
import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.lib import _jax
from jax._src.lib.mlir.dialects import hlo
from jax.extend.mlir import ir
from jax.interpreters.mlir import make_ir_context
from safetensors.numpy import load, save

from slimjax import SlimmableRuntime, UserError
from slimjax.deploy.bundle import manifest_checksum, read_manifest

DATA = Path(__file__).parent / "data"
KEPT, WEIGHTS, PROGRAM = DATA / "bundle_v2", "weights.safetensors", "stablehlo/width_0.5.bin"

# float32 is rounded in another order on other processors and by other versions; int8 may round another way altogether.
TOLERANCES = {
    ("jax", "stablehlo"): 1e-4,
    ("onnxruntime", "onnx"): 1e-4,
    ("litert", "litert"): 1e-4,
    ("litert", "litert_float16"): 1e-2,
    ("litert", "litert_int8"): 0.5,
}


@pytest.mark.parametrize(("backend", "program"), TOLERANCES)
@pytest.mark.parametrize("version", [1, 2])
def test_a_kept_bundle_loads_and_computes_what_it_did(relative_error, version, backend, program):
    """Against the logits of the network that it was made from."""
    bundle = DATA / f"bundle_v{version}"
    assert json.loads((bundle / "manifest.json").read_text())["format_version"] == version
    runtime = SlimmableRuntime.load(bundle, backend=backend, program=program)
    assert runtime.widths == (0.5, 1.0)
    with np.load(DATA / f"bundle_v{version}_logits.npz") as stored:
        for width in runtime.widths:
            found = runtime.predict(stored["images"], width=width)
            assert relative_error(found, stored[f"width_{width:g}"]) < TOLERANCES[backend, program]


def test_a_checksum_from_elsewhere_tells_whether_it_is_the_bundle_that_was_meant():
    sha256 = manifest_checksum(read_manifest(KEPT))
    assert json.loads((KEPT / "manifest.json").read_text())["sha256"] == sha256
    SlimmableRuntime.load(KEPT, sha256=sha256.upper())
    with pytest.raises(UserError, match=f"is of another bundle than the one asked for: its sha256 is {sha256}, not 00"):
        SlimmableRuntime.load(KEPT, sha256="00" * 32)


def exported(function, weights):
    """A program of the kept bundle's width .5, serialised, that computes something else."""
    (batch,) = jax.export.symbolic_shape("batch")
    shapes = tuple(jax.ShapeDtypeStruct(tensor.shape, tensor.dtype) for tensor in weights)
    images = jax.ShapeDtypeStruct((batch, 8, 8, 3), np.uint8)
    return jax.export.export(jax.jit(function), platforms=("cpu", "cuda", "tpu"))(shapes, images)


def colours(images):
    return images.astype(jnp.float32).mean((1, 2))


def endless(weights, images):
    return jax.lax.while_loop(lambda x: jnp.all(x < jnp.inf), lambda x: x, colours(images))


def native(weights, images):
    return colours(images) + jnp.sum(jax.lax.linalg.qr(weights[-1])[1])


def sorts(weights, images):
    return jnp.sort(colours(images))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (endless, "the program of width 0.5 has the operation 'stablehlo.while'; it is not a network's"),
        (sorts, "the program of width 0.5 has the operation 'stablehlo.sort'"),
        (native, "the program of width 0.5 calls "),
    ],
)
def test_programs_that_are_no_networks_are_refused_before_they_are_compiled(forged, function, message):
    manifest = read_manifest(KEPT)
    tensors = load((KEPT / WEIGHTS).read_bytes())
    weights = [tensors[name] for name in manifest.programs["stablehlo"]["0.5"].tensors]
    program = bytes(exported(function, weights).serialize())
    with pytest.raises(UserError, match=message):
        SlimmableRuntime.load(forged(KEPT, PROGRAM, lambda _: program))


AGAIN = """
func.func private @again(%arg0: tensor<f32>) -> tensor<f32> {
  %0 = func.call @again(%arg0) : (tensor<f32>) -> tensor<f32>
  return %0 : tensor<f32>
}
"""


def test_functions_that_call_themselves_are_refused(forged):
    def with_recursion(content):
        program = jax.export.deserialize(bytearray(content))
        with make_ir_context():
            module = program.mlir_module(serialized=False)
            again = ir.Module.parse(AGAIN)
            again.body.operations[0].clone(ir.InsertionPoint.at_block_begin(module.body))
            content = _jax.mlir.serialize_portable_artifact(module, hlo.get_current_version())
        return bytes(dataclasses.replace(program, mlir_module_serialized=content).serialize())

    with pytest.raises(UserError, match=r"the program of width 0\.5 has functions that call themselves"):
        SlimmableRuntime.load(forged(KEPT, PROGRAM, with_recursion))


def test_weights_that_are_not_finite_are_refused(forged):
    def diverged(content):
        tensors = load(content)
        tensors["classifier/bias"][1] = np.nan
        return save(tensors)

    with pytest.raises(UserError, match="classifier/bias has values that are not finite"):
        SlimmableRuntime.load(forged(KEPT, WEIGHTS, diverged))


def places(value, path=()):
    """Paths of all values within a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


OTHERS = (None, True, -1, 0, 1, 2**70, 0.5, 1e300, "", "a", "../x", "float32", [], [1], {}, {"a": 1})


@pytest.mark.parametrize("version", [1, 2])
def test_whatever_a_manifest_says_nothing_crashes_or_computes_something_else(relative_error, tmp_path, version):
    kept = DATA / f"bundle_v{version}"
    with np.load(DATA / f"bundle_v{version}_logits.npz") as stored:
        images, logits = stored["images"], stored["width_0.5"]
    genuine = json.loads((kept / "manifest.json").read_text())
    genuine.pop("sha256")
    rng, paths = np.random.default_rng(0), [path for path in places(genuine) if path]
    bundle, refused = shutil.copytree(kept, tmp_path / "bundle"), 0
    for _ in range(150):
        content = copy.deepcopy(genuine)
        *above, key = paths[rng.integers(len(paths))]
        parent = content
        for step in above:
            parent = parent[step]
        if rng.random() < 0.2:
            del parent[key]
        else:
            parent[key] = OTHERS[rng.integers(len(OTHERS))]
        checksum = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        (bundle / "manifest.json").write_text(json.dumps({**content, "sha256": checksum}))
        try:
            found = SlimmableRuntime.load(bundle).predict(images, width=0.5)
        except UserError:
            refused += 1
            continue
        except Exception as error:
            error.add_note(f"{above} {key} {parent}")
            raise
        assert relative_error(found, logits) < 1e-4, (above, key, parent)
    assert 80 < refused < 150


def test_whatever_the_weights_header_says_nothing_crashes(forged):
    rng, refused = np.random.default_rng(0), 0

    def damage(content):
        damaged = bytearray(content)
        size = int.from_bytes(content[:8], "little")
        for place in rng.integers(0, 8 + size, 3):
            damaged[place] = int(rng.integers(256))
        return bytes(damaged)

    for _ in range(100):
        try:
            SlimmableRuntime.load(forged(KEPT, WEIGHTS, damage))
        except UserError:
            refused += 1
    assert refused > 80
