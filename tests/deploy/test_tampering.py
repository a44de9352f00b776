"""Bundles whose files were tampered with or damaged: what is wrong is named, and nothing loads wrongly."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from slimjax import SlimmableRuntime, UserError
from slimjax.deploy.bundle import read_manifest

BUNDLE = Path(__file__).parent / "data" / "bundle_v2"


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(BUNDLE, tmp_path / "copy")


def rewrite(bundle, change):
    """Alters a manifest as somebody would who knows how its checksum is made."""
    path = bundle / "manifest.json"
    content = json.loads(path.read_text())
    content.pop("sha256")
    change(content)
    checksum = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps({**content, "sha256": checksum}))


def altered_byte(bundle):
    path = bundle / "stablehlo" / "width_0.5.bin"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)


def linked_out(bundle):
    path = bundle / "weights.safetensors"
    shutil.move(path, bundle.with_name("elsewhere"))
    path.symlink_to(bundle.with_name("elsewhere"))


def renamed_file(content):
    content["files"]["../outside"] = content["files"].pop("stablehlo/width_0.5.bin")


def swapped_programs(content):
    programs = content["programs"]["stablehlo"]
    programs["0.5"]["file"], programs["1"]["file"] = programs["1"]["file"], programs["0.5"]["file"]


def other_shape(content):
    content["tensors"]["stem/conv/kernel"]["shape"][3] += 1


def long_name(content):
    content["files"]["a" * 300] = content["files"]["weights.safetensors"]


def fewer_classes(content):
    content["num_classes"] = 4
    content["outputs"]["logits"]["shape"] = [4]
    content["class_names"].pop()


TAMPERED = {
    "no manifest": (lambda b: (b / "manifest.json").unlink(), "is no bundle: it has no manifest.json"),
    "not JSON": (lambda b: (b / "manifest.json").write_text("{"), "manifest.json is damaged"),
    "other JSON": (lambda b: (b / "manifest.json").write_text("[1]"), "is not the manifest of a slimjax bundle"),
    "altered manifest": (
        lambda b: (b / "manifest.json").write_text((b / "manifest.json").read_text().replace("0.25", "0.35")),
        "manifest.json was altered",
    ),
    "truncated weights": (lambda b: os.truncate(b / "weights.safetensors", 100), "it is truncated or altered"),
    "altered program": (altered_byte, "width_0.5.bin was altered: its checksum is not the manifest's"),
    "missing program": (lambda b: (b / "stablehlo" / "width_0.5.bin").unlink(), "width_0.5.bin is missing"),
    "a link out of the bundle": (linked_out, "weights.safetensors is missing from the bundle"),
    "newer": (lambda b: rewrite(b, lambda m: m.update(format_version=3)), "is of format version 3, this slimjax reads"),
    "a path out of the bundle": (lambda b: rewrite(b, renamed_file), "'../outside', which is no path within"),
    "an unknown key": (lambda b: rewrite(b, lambda m: m.update(more=1)), "has to have exactly"),
    "a wrong type": (lambda b: rewrite(b, lambda m: m.update(num_classes="5")), "num_classes is '5'"),
    "an older format than there is": (lambda b: rewrite(b, lambda m: m.update(format_version=0)), "format version 0"),
    "a huge number": (lambda b: rewrite(b, lambda m: m["input"].update(mean=[10**400] * 3)), "is damaged: it is not"),
    "no number": (
        lambda b: rewrite(b, lambda m: m["input"].update(mean=[float("nan")] * 3)),
        "NaN is no number of JSON",
    ),
    "other figures at a width": (
        lambda b: rewrite(b, lambda m: m["widths"][0].update(figures={})),
        "its widths have different figures",
    ),
    "a name that a terminal obeys": (
        lambda b: rewrite(b, lambda m: m.update(model="\x1b[2J")),
        r"'\x1b[2J' is no name of a model or a figure",
    ),
    "a long name": (lambda b: rewrite(b, long_name), "cannot be read (File name too long)"),
    "too few logits": (lambda b: rewrite(b, fewer_classes), "puts out something else than logits [4] an image"),
    "a missing width": (lambda b: rewrite(b, lambda m: m["widths"].pop()), "has programs of the widths"),
    "another width's program": (lambda b: rewrite(b, swapped_programs), "takes other arguments than the manifest says"),
    "another shape": (lambda b: rewrite(b, other_shape), "stem/conv/kernel is float32"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_what_was_tampered_with_is_refused_by_name(copy, name):
    tamper, message = TAMPERED[name]
    tamper(copy)
    with pytest.raises(UserError) as refused:
        SlimmableRuntime.load(copy)
    assert message in str(refused.value)


def test_whatever_byte_changes_nothing_loads_wrongly(copy):
    """Random damage to random files: refused, or a manifest that says the very same, such as with another space."""
    rng, genuine = np.random.default_rng(0), read_manifest(BUNDLE)
    files = sorted(path for path in BUNDLE.rglob("*") if path.is_file())
    refused = 0
    for number in range(300):
        source = files[rng.integers(len(files))]
        target, content = copy / source.relative_to(BUNDLE), bytearray(source.read_bytes())
        place = int(rng.integers(len(content)))
        if number % 3 == 0:
            content[place] = int(rng.integers(256))
        elif number % 3 == 1:
            del content[place:]
        else:
            content[place:place] = rng.bytes(int(rng.integers(1, 9)))
        target.write_bytes(content)
        try:
            assert read_manifest(copy) == genuine
        except UserError:
            refused += 1
        target.write_bytes(source.read_bytes())
    assert refused > 290
