"""A terminal that keeps what is shown on it."""

import io
import re


class Terminal(io.StringIO):
    """What is printed to a person."""

    def isatty(self) -> bool:
        return True

    def text(self) -> str:
        """All of it, without colours and moves of the cursor."""
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.getvalue())
