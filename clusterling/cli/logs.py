r"""The log: one line an event to stderr, as text or as JSON. Only the command line does this: the library leaves logging alone.

Every call in this project is `event-name key=%s other=%d`, with its values as arguments. So the fields of a line are known
from the call itself, and what is in a value, though a tenant chose it, can be no other field and no other line: in text a
value with a blank, a quote or anything unprintable is quoted and escaped, in JSON it is a string.

Rules of this file
- A line is at most `LINE_CHARACTERS_MAX` long, a value `VALUE_CHARACTERS_MAX`; what was cut ends with `…`.
- Lines of one logical cluster, and lines of one event that names none, are bounded in rate; the next that is written says how
  many were not (`suppressed`).
- What an exception says may quote what a tenant keeps. Of one that nobody foresaw its class and where it happened are
  written; its words only with `--log-level debug`.
- Other libraries say what they like at `debug` (hpack tells all header fields), so theirs begins at `warning`.

JSON's keys are those of Kubernetes' components (component-base/logs/json): `ts` in milliseconds, `caller`, `msg`, `v`, `err`,
`logger`; and `level`, which those leave out.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Literal

from typing_extensions import override

from clusterling.cli.log_writer import to_stderr
from clusterling.telemetry import faults

Format = Literal["text", "json"]
FORMATS: Final[tuple[Format, ...]] = ("text", "json")
LEVELS: Final = ("debug", "info", "warning", "error")

LINE_CHARACTERS_MAX: Final = 8 * 1024
VALUE_CHARACTERS_MAX: Final = 1024
# Of one cluster, or of one call that is about none; and of all clusters together, which leave room for what is about none.
LINES_PER_S: Final = 10.0
LINES_AT_ONCE: Final = 100.0
CLUSTERS_LINES_PER_S: Final = 200.0
CLUSTERS_LINES_AT_ONCE: Final = 2000.0
SOURCES_MAX: Final = 4096  # That are told apart.

_OURS: Final = "clusterling"
_EVENT: Final = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_FIELD: Final = re.compile(r" ([A-Za-z_][\w.-]*)=(%(?:\.\d+)?[sdrf]|[^\s%]+)")
_PLAIN: Final = re.compile(r"[!#-<>-\[\]-~]+")

Value = str | int | float | bool | None


def configure(level: str, form: Format = "text") -> None:
    """Sends the log to stderr, from a thread of its own (log_writer.py)."""
    handler = to_stderr()
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    handler.addFilter(Bounded())
    threshold = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(handlers=[handler], level=max(threshold, logging.WARNING))
    logging.getLogger(_OURS).setLevel(threshold)
    logging.captureWarnings(True)


@lru_cache(maxsize=1024)
def _shape(template: str) -> tuple[str, tuple[tuple[str, str], ...]] | None:
    """The event and the fields of a call of ours; None where it is none."""
    event = _EVENT.match(template)
    if event is None:
        return None
    fields = []
    at = event.end()
    while at < len(template):
        field = _FIELD.match(template, at)
        if field is None:
            return None
        fields.append((field[1], field[2]))
        at = field.end()
    return event[0], tuple(fields)


def read(record: logging.LogRecord) -> tuple[str, dict[str, Value]]:
    """What happened, and the fields of that. What others log is all message."""
    values = record.args if isinstance(record.args, tuple) else ()
    shape = _shape(record.msg) if isinstance(record.msg, str) else None
    if shape is None or len(values) != sum(how.startswith("%") for _, how in shape[1]):
        said = record.getMessage()
        # asyncio says there how the exception reads.
        return _cut(said.partition("\n")[0] if record.exc_info and not _tells_all() else said), {}
    event, names = shape
    given = iter(values)
    return event, {name: _value(how, next(given)) if how.startswith("%") else how for name, how in names}


def _value(conversion: str, value: object) -> Value:
    """A number as one, all else as the call would have it in its line."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        if conversion.endswith("f"):
            return float(conversion % value)
        return value
    return _cut(conversion % (value,))


def _cut(text: str, most: int = VALUE_CHARACTERS_MAX) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _thrown(record: logging.LogRecord) -> Iterator[tuple[str, str]]:
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        yield "err", _cut(faults.classes(error, words=_tells_all()))
        yield "stack", faults.stack(error)


def _tells_all() -> bool:
    return logging.getLogger(_OURS).isEnabledFor(logging.DEBUG)


class TextLines(logging.Formatter):
    """`2026-01-31T12:00:00.123Z WARNING clusterling.services.filters request-failed id=… cluster=…`."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        event, fields = read(record)
        at = (
            datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z")
        )
        parts = [at, record.levelname, record.name, _escaped(event)]
        parts += [f"{name}={_quoted(value)}" for name, value in _all(record, fields)]
        return _cut(" ".join(parts), LINE_CHARACTERS_MAX)


class JsonLines(logging.Formatter):
    """`{"ts":…,"level":"warning","logger":"clusterling.services.filters","caller":"services/filters.py:77","msg":…}`."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        event, fields = read(record)
        line: dict[str, Value] = {
            "ts": round(record.created * 1000, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "caller": f"{faults.short(record.pathname)}:{record.lineno}",
            "msg": event,
        }
        if record.levelno < logging.ERROR:
            # Errors have none upstream.
            line["v"] = 4 if record.levelno < logging.INFO else 0
        written = json.dumps(line, separators=(",", ":"))
        for name, value in _all(record, fields):
            key = "err" if name == "error" else name
            more = f",{json.dumps(key)}:{json.dumps(value)}}}"
            if key in line or len(written) + len(more) > LINE_CHARACTERS_MAX:
                continue
            line[key] = value
            written = written[:-1] + more
        return written


def _all(record: logging.LogRecord, fields: Mapping[str, Value]) -> Iterator[tuple[str, Value]]:
    # What there is not (a name, in a list) says nothing.
    yield from ((name, value) for name, value in fields.items() if value != "")
    suppressed = getattr(record, "suppressed", 0)
    if suppressed:
        yield "suppressed", suppressed
    yield from _thrown(record)


def _quoted(value: Value) -> str:
    if not isinstance(value, str):
        return json.dumps(value)
    return value if _PLAIN.fullmatch(value) else f'"{_escaped(value)}"'


def _escaped(text: str) -> str:
    """Without line breaks, and whatever else a terminal or a reader of lines could take for more than text."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return "".join(c if c.isprintable() and c not in '"\\' else json.dumps(c)[1:-1] for c in text)


class _Bucket:
    """How many lines a source may still write, and how many it wanted to beyond that."""

    __slots__ = ("at_s", "lines", "suppressed")

    def __init__(self, lines: float, at_s: float) -> None:
        self.lines = lines
        self.at_s = at_s
        self.suppressed = 0

    def take(self, now_s: float, per_s: float, most: float) -> bool:
        self.lines = min(most, self.lines + (now_s - self.at_s) * per_s)
        self.at_s = now_s
        if self.lines < 1:
            self.suppressed += 1
            return False
        self.lines -= 1
        return True


class Bounded(logging.Filter):
    """Lets through so many lines of each source a second, and so many of all clusters. Sources are clusters, else calls."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._sources: OrderedDict[str, _Bucket] = OrderedDict()
        self._clusters = _Bucket(CLUSTERS_LINES_AT_ONCE, clock())

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        cluster = read(record)[1].get("cluster")
        # Where a line names no cluster, by the call and not by what it says: that may differ in each.
        source = str(cluster or f"{record.name}:{record.lineno}")
        now_s = self._clock()
        bucket = self._sources.get(source)
        if bucket is None:
            bucket = self._sources[source] = _Bucket(LINES_AT_ONCE, now_s)
            if len(self._sources) > SOURCES_MAX:
                self._sources.popitem(last=False)
        self._sources.move_to_end(source)
        if not bucket.take(now_s, LINES_PER_S, LINES_AT_ONCE):
            return False
        if cluster and not self._clusters.take(now_s, CLUSTERS_LINES_PER_S, CLUSTERS_LINES_AT_ONCE):
            bucket.suppressed += 1
            return False
        if bucket.suppressed:
            record.suppressed = bucket.suppressed
            bucket.suppressed = 0
        return True
