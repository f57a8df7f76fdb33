"""The lines of the log: their fields, their bounds, and that nobody can write others into them."""

from __future__ import annotations

import ast
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterling.cli import logs
from clusterling.telemetry import faults
from tests.conftest import ROOT

LEVELS = {"debug", "info", "warning", "error", "exception"}


def record(
    message: str, *values: object, level: int = logging.WARNING, error: BaseException | None = None
) -> logging.LogRecord:
    thrown = None if error is None else (type(error), error, error.__traceback__)
    name = "clusterling.services.filters"
    return logging.LogRecord(name, level, "/x/clusterling/services/filters.py", 70, message, values, thrown)


def as_json(one: logging.LogRecord) -> dict[str, Any]:
    line = logs.JsonLines().format(one)
    assert "\n" not in line
    found: dict[str, Any] = json.loads(line)
    return found


def as_text(one: logging.LogRecord) -> str:
    return logs.TextLines().format(one)


def calls() -> Iterator[tuple[str, str]]:
    """Every call of a logger in the product: where it is, and its template."""
    for path in sorted((ROOT / "clusterling").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            of = node.func.value
            logs_it = isinstance(of, ast.Name) and of.id in {"_log", "logger"} and node.func.attr in LEVELS
            if logs_it or node.func.attr == "_tell":
                first = node.args[0] if node.args else None
                if isinstance(first, ast.Constant) and isinstance(first.value, str):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", first.value


def test_every_call_in_the_tree_is_an_event_with_fields() -> None:
    found = list(calls())
    assert len(found) > 50
    events = {"event": "event"}
    for where, template in found:
        values = [0] * template.count("%")
        event, fields = logs.read(record(template, *values))
        events[where] = event
        assert event == template.partition(" ")[0], f"{where}: {template!r}"
        assert len(fields) == template.count("="), where


def test_a_field_is_what_the_call_gave_whatever_it_says() -> None:
    one = record("thing-done id=%s count=%d took=%.2f", 'x cluster=evil"\nforged', 3, 0.125)
    assert logs.read(one)[1] == {"id": 'x cluster=evil"\nforged', "count": 3, "took": 0.12}
    assert as_json(one)["id"] == 'x cluster=evil"\nforged'
    assert as_text(one).endswith(r'thing-done id="x cluster=evil\"\nforged" count=3 took=0.12')


def test_json_has_the_keys_of_kubernetes_components() -> None:
    line = as_json(record("thing-failed error=%r", ValueError("so"), level=logging.INFO))
    assert line.pop("ts") > 1e12
    assert line == {
        "level": "info",
        "logger": "clusterling.services.filters",
        "caller": "services/filters.py:70",
        "msg": "thing-failed",
        "v": 0,
        "err": "ValueError('so')",
    }
    assert "v" not in as_json(record("thing-failed", level=logging.ERROR))


def test_what_other_libraries_say_is_a_message_on_one_line() -> None:
    one = record("it said\n2026-01-01T00:00:00.000Z ERROR clusterling forged %s", "é\u2028\x1b[31m")
    assert as_json(one)["msg"].count("\n") == 1
    text = as_text(one)
    assert text.endswith(r"it said\n2026-01-01T00:00:00.000Z ERROR clusterling forged é\u2028\u001b[31m")


@given(st.text(max_size=3000), st.text(max_size=3000))
def test_no_value_makes_a_second_line_or_a_long_one(first: str, second: str) -> None:
    one = record("thing-done first=%s second=%s", first, second)
    text = as_text(one)
    assert len(text.splitlines()) == 1
    assert text.isprintable()
    assert len(text) <= logs.LINE_CHARACTERS_MAX
    line = logs.JsonLines().format(one)
    assert len(line.splitlines()) == 1
    assert len(line) <= logs.LINE_CHARACTERS_MAX
    assert json.loads(line)["msg"] == "thing-done"


def test_of_an_exception_the_class_and_the_place_are_told_and_not_its_words() -> None:
    def keeps() -> None:
        try:
            raise KeyError("tenant's secret")
        except KeyError as error:
            raise ValueError("quotes tenant's secret") from error

    caught: BaseException | None = None
    try:
        keeps()
    except ValueError as error:
        caught = error
    one = record("request-crashed id=%s", "x", level=logging.ERROR, error=caught)
    line = as_json(one)
    assert line["err"] == "ValueError < KeyError"
    assert line["stack"].startswith("telemetry/test_logs.py:")
    assert "(keeps) < telemetry/test_logs.py:" in line["stack"]
    assert "secret" not in json.dumps(line) + as_text(one)


def test_an_error_of_another_process_is_told_as_that_told_it() -> None:
    try:
        raise faults.Elsewhere("ValueError < KeyError", "workers/process.py:9(work)", "tenant's secret")
    except faults.Elsewhere as error:
        one = record("request-crashed id=%s", "x", level=logging.ERROR, error=error)
    line = as_json(one)
    assert line["err"] == "ValueError < KeyError"
    assert line["stack"].startswith("workers/process.py:9(work) < telemetry/test_logs.py:")
    assert "secret" not in json.dumps(line) + as_text(one)


def test_lines_of_one_cluster_are_bounded_and_others_are_not_kept_back() -> None:
    now = 100.0
    bounded = logs.Bounded(lambda: now)
    noisy = [record("request-slow cluster=%s n=%d", "noisy", n) for n in range(1000)]
    written = [one for one in noisy if bounded.filter(one)]
    assert len(written) == logs.LINES_AT_ONCE
    assert bounded.filter(record("request-slow cluster=%s n=%d", "quiet", 1))
    now += 2.0
    again = record("request-slow cluster=%s n=%d", "noisy", 1)
    assert bounded.filter(again)
    assert as_json(again)["suppressed"] == 900
    assert as_text(again).endswith("suppressed=900")
    rest = [one for one in noisy if bounded.filter(one)]
    assert len(rest) == 2 * logs.LINES_PER_S - 1


def test_lines_that_name_no_cluster_are_bounded_by_the_call() -> None:
    bounded = logs.Bounded(lambda: 0.0)
    written = [bounded.filter(record("bad-request peer=%s", f"10.0.0.{n}")) for n in range(1000)]
    assert sum(written) == logs.LINES_AT_ONCE
    elsewhere = record("put-off error=%s", "x")
    elsewhere.lineno = 71
    assert bounded.filter(elsewhere)


def test_all_clusters_together_leave_room_for_what_is_about_none() -> None:
    bounded = logs.Bounded(lambda: 0.0)
    written = [bounded.filter(record("request-slow cluster=%s", f"c{n}")) for n in range(10_000)]
    assert sum(written) == logs.CLUSTERS_LINES_AT_ONCE
    assert bounded.filter(record("election-won holder=%s", "x"))


def test_only_ours_is_told_below_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    level, own = root.level, logging.getLogger("clusterling").level
    try:
        logs.configure("debug", "json")
        assert logging.getLogger("hpack").getEffectiveLevel() == logging.WARNING
        assert logging.getLogger("clusterling.x").getEffectiveLevel() == logging.DEBUG
        (handler,) = root.handlers
        assert isinstance(handler.formatter, logs.JsonLines)
    finally:
        root.setLevel(level)
        logging.getLogger("clusterling").setLevel(own)
        logging.captureWarnings(False)
