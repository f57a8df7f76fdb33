"""The writer of stderr, where there is a log: a thread, so that who reads it, or does not, keeps nobody else waiting.

A pipe that nobody empties takes 64 KiB, and then holds whoever writes for as long as that lasts: an event loop may not be that
one. So a line is made where something happened, and waits here to be written, within bounds. Lines for which there is no room
are dropped, and how many is told where they would have been (`log-lines-dropped`). What is said to people goes the same way.

Rules of this file
- Nothing that emits waits. `flush`, at the end of the process, waits for a bounded time.
- There is one lock, which its owner may take again: what is collected as garbage while it is held may log, in either thread.
- The descriptor is written to, and not `sys.stderr`: its lock would be held by a thread that waits for ever, and the
  interpreter, which wants it to end, would not get it.
"""

from __future__ import annotations

import logging
import os
import select
import sys
import threading
from collections import deque
from typing import Final, TextIO

from typing_extensions import override

WAITING_BYTES_MAX: Final = 4 << 20  # Of lines that are not yet written.
FLUSH_S: Final = 2.0  # At the end of the process, for whoever reads still.


_of_stderr: LogWriter | None = None


def to_stderr() -> logging.Handler:
    """A handler that writes to stderr, as `say` does from now on; that waits only where stderr is none of the system's."""
    global _of_stderr  # noqa: PLW0603 - there is one stderr
    try:
        _of_stderr = LogWriter(sys.stderr)
    except (AttributeError, OSError, ValueError):
        return logging.StreamHandler(sys.stderr)
    return _of_stderr


def say(text: str) -> bool:
    """Writes a line to stderr where a log is written there; else returns False."""
    writer = _of_stderr
    if writer is None or writer.stream is not sys.stderr:
        return False
    writer.say(text)
    return True


class LogWriter(logging.Handler):
    """Writes lines to a stream's descriptor, from a thread of its own. Raises OSError where the stream has none."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.stream = stream
        self._descriptor = stream.fileno()
        self._lines: deque[bytes] = deque()
        self._size = 0  # Of these, together.
        self._dropped = 0  # That nothing has been told of yet.
        self._writes = False  # A line that is no more among these.
        self._changed = threading.Condition(threading.RLock())
        threading.Thread(target=self._run, name="log", daemon=True).start()

    @override
    def createLock(self) -> None:
        self.lock = None

    @override
    def handle(self, record: logging.LogRecord) -> bool:
        passes = bool(self.filter(record))
        if passes:
            self.emit(record)
        return passes

    @override
    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self._line(record)
        except Exception:  # noqa: BLE001 - as every handler: what cannot be told ends no request
            self.handleError(record)
            return
        self._offer(line)

    def say(self, text: str) -> None:
        """Writes the text behind what was logged before."""
        self._offer(_encoded(text))

    @override
    def flush(self) -> None:
        """Waits until all is written, or for `FLUSH_S` where nobody reads."""
        with self._changed:
            self._changed.wait_for(lambda: not self._lines and not self._writes, FLUSH_S)

    def _line(self, record: logging.LogRecord) -> bytes:
        return _encoded(self.format(record))

    def _offer(self, line: bytes) -> None:
        """Adds a line, if there is room."""
        with self._changed:
            if self._size + len(line) > WAITING_BYTES_MAX:
                self._dropped += 1
                return
            self._tell_of_dropped()
            self._put(line)
            self._changed.notify_all()

    def _put(self, line: bytes) -> None:
        self._lines.append(line)
        self._size += len(line)

    def _tell_of_dropped(self) -> None:
        """Adds a line about those for which there was no room."""
        if not self._dropped:
            return
        record = logging.LogRecord(
            __name__, logging.WARNING, __file__, 0, "log-lines-dropped lines=%d", (self._dropped,), None
        )
        self._dropped = 0
        self._put(self._line(record))

    def _run(self) -> None:
        while True:
            with self._changed:
                self._writes = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._lines)
                line = self._lines.popleft()
                self._size -= len(line)
                self._writes = True
                if not self._lines:
                    self._tell_of_dropped()
            _write(self._descriptor, line)


def _encoded(text: str) -> bytes:
    return f"{text}\n".encode(errors="backslashreplace")


def _write(descriptor: int, line: bytes) -> None:
    """All of the line; nothing where the other end is closed."""
    left = memoryview(line)
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:
            select.select((), (descriptor,), ())
        except OSError:
            return
