"""What may be told of an error that nobody foresaw: its classes and where it was raised. Its words may quote what a tenant keeps."""

from __future__ import annotations

from types import TracebackType
from typing import Final

FRAMES_MAX: Final = 30


class Elsewhere(Exception):
    """What another process did not foresee. `classes` and `stack` are as it told them; the words, if any, are its own."""

    def __init__(self, classes: str, stack: str, words: str = "") -> None:
        super().__init__(words)
        self.classes = classes
        self.stack = stack


def classes(error: BaseException, *, words: bool = False) -> str:
    """The classes of an error and of what it came from, `ValueError < KeyError`; with their `words` on demand."""
    found, seen = [], set[int]()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        name = one.classes if isinstance(one, Elsewhere) else type(one).__name__
        found.append(f"{name}: {one}" if words else name)
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return " < ".join(found)


def stack(error: BaseException) -> str:
    """Where it was raised, and what called that, innermost first: `registry/objects.py:120(create) < …`."""
    frames = []
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append(f"{short(code.co_filename)}:{trace.tb_lineno}({code.co_name})")
        trace = trace.tb_next
    if isinstance(error, Elsewhere) and error.stack:
        frames.append(error.stack)
    frames.reverse()
    return " < ".join(frames[:FRAMES_MAX])


def short(path: str) -> str:
    """The file and its directory, as upstream has callers."""
    return "/".join(path.split("/")[-2:])
