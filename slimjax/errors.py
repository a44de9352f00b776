"""The one exception that means: the user, not the code, can mend this."""

import difflib
from collections.abc import Iterable

USAGE_ERROR = 2
"""Exit code after a mistake of the user's."""

TERMINATED = 143
"""Exit code of what SIGTERM has kept from being finished."""

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells expect."""

CLOSED_PIPE = 141
"""Exit code once nobody reads what is printed, as shells expect."""


class UserError(ValueError):
    """A mistake in what the user gave: a config value, a path, a data set, a checkpoint.

    The message is one line that gives the value, what is allowed and what to do. Command lines print it without a stack
    trace; library callers catch it as a ValueError.
    """


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a clause that names what `name` resembles; empty if it resembles nothing known."""
    matches = difflib.get_close_matches(name, known, n=3)
    return f" (did you mean {' or '.join(repr(match) for match in matches)}?)" if matches else ""
