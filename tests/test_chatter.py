"""What libraries print to file descriptors, held back or let through."""

import os
import sys

import pytest

from slimjax.chatter import silence_unless_failing, without_lines


def test_only_known_lines_are_held_back(capfd):
    with without_lines(b"known", b"noise"):
        os.write(2, b"a known line\nan error\nnoise\n")
        assert capfd.readouterr().err == ""
    assert capfd.readouterr().err == "an error\n"


def test_what_succeeds_is_silent(capfd):
    with silence_unless_failing():
        os.write(1, b"chatter\n")
        os.write(2, b"chatter\n")
        print("chatter")
        print("chatter", file=sys.stderr)
    os.write(2, b"afterwards\n")
    assert capfd.readouterr() == ("", "afterwards\n")


def fail_noisily():
    with silence_unless_failing():
        os.write(1, b"first\n")
        os.write(2, b"second\n")
        raise ValueError("broken")


def test_what_fails_is_told_in_full(capfd):
    with pytest.raises(ValueError, match="broken"):
        fail_noisily()
    assert capfd.readouterr() == ("", "first\nsecond\n")
