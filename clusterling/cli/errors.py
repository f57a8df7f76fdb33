"""How a verb fails: one line on stderr, a hint where there is one, and an exit code that scripts can tell apart."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """0 done, 1 failed, 2 wrong usage, 3 not found, 4 conflict (it exists already, or has changed), 5 out of time."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    TIMEOUT = 5


class CliError(Exception):
    """What stops a verb. `message` is one line without a full stop; `hint` is what to do, or ""."""

    def __init__(self, message: str, hint: str = "", code: int = Exit.FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code: int = code
