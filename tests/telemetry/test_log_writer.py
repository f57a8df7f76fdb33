"""The log is written by a thread of its own: who does not read it keeps nobody waiting."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typing_extensions import override

from clusterling.cli import log_writer, logs
from clusterling.cli.log_writer import LogWriter
from tests.cli.processes import clusterling, serving


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe's ends, to read and to write."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def filled(end: int) -> int:
    """How many bytes were written until the pipe had no room."""
    os.set_blocking(end, False)
    count = 0
    try:
        while True:
            count += os.write(end, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(end, True)
        return count


def writer_to(end: int) -> LogWriter:
    writer = LogWriter(os.fdopen(end, "w", closefd=False))
    writer.setFormatter(logs.TextLines())
    return writer


def told(number: int, more: str = "") -> logging.LogRecord:
    values = (number, more)
    return logging.LogRecord(
        "clusterling.x", logging.WARNING, "x.py", 7, "counted number=%d more=%s", values, None
    )


def counted_to(line: str, expected: int) -> int:
    """The number of the next line, behind one that has the expected number, or tells how many from that on were dropped."""
    if "log-lines-dropped" in line:
        return expected + int(line.rpartition("lines=")[2])
    if "counted" not in line:
        return expected  # What the pipe was filled with.
    assert f"number={expected} " in f"{line} "
    return expected + 1


def read_from(end: int, until: str) -> list[str]:
    """The lines up to one that has the text."""
    text = ""
    while until not in text or not text.endswith("\n"):
        text += os.read(end, 1 << 16).decode()
    return text.splitlines()


def test_lines_are_written_whole_and_in_order(pipe: tuple[int, int]) -> None:
    writer = writer_to(pipe[1])
    for number in range(100):
        writer.emit(told(number))
    writer.flush()
    lines = os.read(pipe[0], 1 << 16).decode().splitlines()
    assert [line.split()[-1] for line in lines] == [f"number={number}" for number in range(100)]


def test_who_logs_into_a_full_pipe_waits_for_nobody_and_what_is_dropped_is_counted(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_writer, "WAITING_BYTES_MAX", 100_000)
    filled(pipe[1])
    writer = writer_to(pipe[1])
    writer.emit(told(0))
    while writer._lines:  # Until it waits for the pipe: from then on nothing makes room.
        time.sleep(0.001)
    for number in range(1, 5_000):
        writer.emit(told(number))
    lines = read_from(pipe[0], "log-lines-dropped")
    kept = [line for line in lines if "counted" in line]
    last = len(kept) - 1
    assert 0 < len(kept) < 5_000
    assert f" number={last}" in kept[-1], "what came first is kept"
    assert lines[-1].endswith(f"log-lines-dropped lines={5_000 - len(kept)}")
    writer.emit(told(5_000))
    assert read_from(pipe[0], "counted")[-1].endswith("number=5000")


def test_what_was_dropped_is_told_before_what_comes_after_it(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_writer, "WAITING_BYTES_MAX", 3_000)
    filled(pipe[1])
    writer = writer_to(pipe[1])
    for number in range(100):
        writer.emit(told(number, "m" * 900))
    expected, lines = 0, ""
    while expected < 100:
        lines += os.read(pipe[0], 1 << 16).decode()
        *whole, lines = lines.split("\n")
        for line in whole:
            expected = counted_to(line, expected)
    writer.emit(told(100))
    assert counted_to(read_from(pipe[0], "number=100")[-1], expected) == 101


class Remembering(logs.TextLines):
    """Has a line logged in the middle of telling what was dropped, as what is collected just then may."""

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__()
        self.logger = logger

    @override
    def format(self, record: logging.LogRecord) -> str:
        if str(record.msg).startswith("log-lines-dropped"):
            self.logger.warning("collected here=%s", True)
        return super().format(record)


def test_what_is_logged_while_the_writer_tells_what_was_dropped_holds_nobody(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_writer, "WAITING_BYTES_MAX", 3_000)
    filled(pipe[1])
    writer = writer_to(pipe[1])
    logger = logging.Logger("clusterling.x")
    logger.addHandler(writer)
    writer.setFormatter(Remembering(logger))
    for number in range(100):
        logger.warning("counted number=%d more=%s", number, "m" * 900)
    lines = read_from(pipe[0], "log-lines-dropped")
    collected, dropped = (sum(text in line for line in lines) for text in ("collected", "log-lines-dropped"))
    assert collected - dropped in {0, 1}, (
        "each time that lines were dropped, one is collected, and then they are told of"
    )


def test_the_end_of_a_process_waits_for_nobody_who_does_not_read(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_writer, "FLUSH_S", 0.01)
    filled(pipe[1])
    writer = writer_to(pipe[1])
    writer.emit(told(1))
    writer.flush()
    assert read_from(pipe[0], "counted")


def test_a_log_that_nobody_can_read_any_more_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    writer = writer_to(writing)
    os.close(reading)
    for number in range(10):
        writer.emit(told(number))
    writer.flush()
    os.close(writing)


def test_a_server_whose_stderr_is_full_serves_and_ends(pipe: tuple[int, int], tmp_path: Path) -> None:
    filled(pipe[1])
    end = Path(f"/dev/fd/{pipe[1]}")
    if not end.exists():
        pytest.skip("there is no /dev/fd here")
    with serving(tmp_path / "data", "--log-level", "debug", stderr=end) as server:
        for name in ("team-a", "team-b"):
            made = clusterling("create", name, "--data-dir", str(server.data_dir))
            assert made.returncode == 0, made.stderr
        assert server.stop(signal.SIGTERM) == 0
