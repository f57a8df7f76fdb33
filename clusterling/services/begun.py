"""Coroutines that were run up to their first wait by somebody else than a task.

Most requests never wait for anything. Running them where they come from, and giving only the rest of those that do
wait to a task or under a timer, spares the others a turn of the loop.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any, Generic, TypeVar

_T = TypeVar("_T")


class Begun(Generic[_T]):
    """A coroutine at its first wait. Await it, once, for the rest.

    `waits_for` is what `work.send(None)` returned: it is given to the task that awaits this, as if it came from there.
    """

    __slots__ = ("_waits_for", "_work")

    def __init__(self, work: Coroutine[Any, Any, _T], waits_for: Any) -> None:
        self._work = work
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, _T]:
        work, waits_for = self._work, self._waits_for
        # What was waited for may hold an error, whose traceback has this frame: it is kept nowhere here, for that would be a
        # circle, which stays until Python looks for garbage.
        self._waits_for = None
        try:
            while True:
                try:
                    sent = yield waits_for
                except BaseException as error:  # noqa: BLE001 - it is the coroutine's to handle, cancellation included
                    waits_for = None
                    waits_for = work.throw(error)
                else:
                    waits_for = None
                    waits_for = work.send(sent)
        except StopIteration as done:
            value: _T = done.value
            return value

    def close(self) -> None:
        """Ends the coroutine where it stands, for who will not await it."""
        self._work.close()
