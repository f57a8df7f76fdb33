"""The comparison itself: what counts as a difference, what a reason explains, and that neither goes unseen."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance import commands, published
from tests.conformance.compare import SECTIONS
from tests.conformance.differing import ABSENT, REASONS, Difference, Reason, between, judge, load, report


def test_differences_are_told_by_their_place_and_only_at_the_top() -> None:
    found = list(between("doc", {"a": {"b": 1}, "c": [1, 2]}, {"a": {"b": 2}, "c": [1], "d": {"e": 1}}))
    assert [(one.place, one.theirs, one.ours) for one in found] == [
        ("doc: a.b", 1, 2),
        ("doc: c[1]", 2, ABSENT),
        ("doc: d", ABSENT, {"e": 1}),
    ]


def test_equal_values_of_other_types_differ() -> None:
    assert len(list(between("doc", {"a": 1}, {"a": True}))) == 1


def test_a_reason_explains_what_its_pattern_names_and_brackets_mean_themselves() -> None:
    reason = Reason(at="doc: list[0].*", why="so", ours="2")
    assert reason.explains(Difference("doc", "list[0].x", 1, 2))
    assert not reason.explains(Difference("doc", "list[0].x", 1, 3))
    assert not reason.explains(Difference("doc", "list0.x", 1, 2))


def test_neither_a_difference_without_a_reason_nor_a_reason_without_a_difference_passes() -> None:
    one = Difference("doc", "a", 1, 2)
    assert judge("s", 1, [one], [Reason("doc: a", "so")]).good
    assert not judge("s", 1, [one], []).good
    verdict = judge("s", 1, [one], [Reason("doc: a", "so"), Reason("doc: b", "no more")])
    assert not verdict.good
    assert any("STALE" in line and "doc: b" in line for line in report(verdict, 9))


def test_lists_of_named_things_are_compared_by_name() -> None:
    theirs = {"resources": [{"name": "a", "verbs": ["get", "list"]}, {"name": "b"}]}
    ours = {"resources": [{"name": "b"}, {"name": "a", "verbs": ["list"], "description": "prose"}]}
    found = list(between("doc", published.comparable(theirs), published.comparable(ours)))
    assert [one.place for one in found] == ["doc: resources.a.verbs.get"]


@pytest.mark.parametrize(
    ("line", "printed", "shown"),
    [
        ("get pods", "a   1/1   5m3s\n", "a 1/1 <age>\n"),
        ("get pod a -o yaml", "  uid: 00000000-0000-4000-8000-00000000000a\n", "  uid: <uid>\n"),
        ("get pod a -o yaml", '  resourceVersion: "12"\n', '  resourceVersion: "<revision>"\n'),
        ("describe cm a", "Events:  <none> 2026-01-02T03:04:05Z", "Events: <none> <time>"),
        ("create job a", "job.batch/a created", "job.batch/a created"),
    ],
)
def test_what_no_two_servers_share_is_masked(line: str, printed: str, shown: str) -> None:
    assert commands.masked(commands.Command(line), printed) == shown


def test_themes_have_namespaces_of_their_own_and_commands_read_what_stands_below_them() -> None:
    told = commands.themes()
    assert len({theme.namespace for theme in told}) == len(told)
    read = [command for theme in told for command in theme.commands if " -f -" in command.line]
    assert read
    assert all(command.stdin for command in read)


def test_each_file_of_reasons_belongs_to_a_comparison_and_gives_reasons() -> None:
    for path in Path(REASONS).glob("*.yaml"):
        assert path.stem in {*SECTIONS, "conformance"}
        assert all(reason.at and reason.why for reason in load(path.stem))
