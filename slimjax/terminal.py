"""Where output goes: to a terminal that a person watches, or somewhere else."""

import os
from typing import TextIO


def is_terminal(stream: TextIO) -> bool:
    """Whether a stream is a terminal on which what was printed can be drawn anew.

    A notebook gives the commands that it runs a terminal too, but keeps all that they ever print there. Some terminals,
    such as editors', say themselves that they draw nothing anew.
    """
    can_redraw = os.environ.get("TERM") not in ("dumb", "unknown")
    return stream.isatty() and can_redraw and "JPY_PARENT_PID" not in os.environ
