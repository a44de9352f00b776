"""The one exception that means: the user, not the code, can mend this."""


class UserError(ValueError):
    """A mistake in what the user gave: a config value, a path, a data set, a checkpoint.

    The message is one line that gives the value, what is allowed and what to do. Command lines print it without a stack
    trace; library callers catch it as a ValueError.
    """
