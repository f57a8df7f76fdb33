"""The checker of the fault suite finds what is wrong with a history, and nothing where nothing is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.checker import check
from tests.faults.history import NOTHING, History, Key, Listing, Outcome, Read, State, Stream, Told, Write

KEY = Key("c/configmaps", "a")
OTHER = Key("c/configmaps", "b")


def write(
    verb: str, value: str, start: float, end: float, revision: int, *, uid: str = "u", expected: int = 0
) -> Write:
    return Write(KEY, verb, "r0", start, value, expected, end, Outcome.DONE, 200, "", revision, uid)


def refused(verb: str, value: str, start: float, end: float, code: int, *, expected: int = 0) -> Write:
    return Write(KEY, verb, "r0", start, value, expected, end, Outcome.REFUSED, code)


def unknown(verb: str, value: str, start: float) -> Write:
    return Write(KEY, verb, "r0", start, value)


def read(start: float, end: float, revision: int, value: str = "", *, weak: bool = False) -> Read:
    return Read(KEY, "r1", "reader", start, end, State(revision, value, "u") if revision else NOTHING, weak)


def listing(start: float, end: float, at: int, **items: State) -> Listing:
    return Listing("c/configmaps", "r1", start, end, at, items)


def told(kind: str, revision: int, value: str, name: str = "a", uid: str = "u") -> Told:
    return Told(kind, name, State(revision, value, uid), 0.0, "r2")


def good() -> History:
    """A key that is made, changed twice (once with a lost answer), and deleted; a watcher that is told of it all."""
    return History(
        writes=[
            write("create", "v1", 0, 1, 10),
            write("update", "v2", 2, 3, 20, expected=10),
            refused("update", "v9", 3.1, 3.2, 409, expected=10),
            unknown("patch", "v3", 4),
            write("delete", "", 8, 9, 0),
        ],
        reads=[
            read(0.1, 0.2, 0),
            read(0.5, 3.0, 10, "v1"),
            read(3.5, 5, 20, "v2"),
            read(6, 7, 30, "v3"),
            read(9.5, 9.6, 0),
        ],
        lists=[listing(0, 0.1, 5), listing(6, 7, 30, a=State(30, "v3", "u")), listing(10, 11, 40)],
        streams=[
            Stream(
                "w0",
                "c/configmaps",
                5,
                45,
                [
                    told("ADDED", 10, "v1"),
                    told("MODIFIED", 20, "v2"),
                    told("MODIFIED", 30, "v3"),
                    told("DELETED", 40, "v3"),
                ],
            )
        ],
    )


def test_a_history_of_one_copy_is_in_order() -> None:
    assert check(good()) == []


def unseen() -> History:
    """The same, where the watcher had to list again around the deletion, which nobody was told of."""
    history = good()
    history.streams = []
    return history


@pytest.mark.parametrize("at", [31, 39])
def test_a_deletion_that_nobody_saw_may_have_come_after_a_list_of_a_later_revision(at: int) -> None:
    history = unseen()
    history.lists.append(listing(7.5, 7.9, at, a=State(30, "v3", "u")))
    assert check(history) == []


def test_a_list_that_begins_after_a_deletion_was_acknowledged_does_not_have_the_key_though_nobody_saw_it_go() -> (
    None
):
    history = unseen()
    history.lists.append(listing(9.5, 9.9, 39, a=State(30, "v3", "u")))
    assert check(history) != []


def _lost(history: History) -> None:
    history.lists[1] = listing(6, 7, 30)


def _stale_read(history: History) -> None:
    history.reads.append(read(3.5, 3.6, 10, "v1"))


def _early_absence(history: History) -> None:
    history.reads.append(read(5, 6, 0))


def _late_presence(history: History) -> None:
    history.reads.append(read(9.5, 9.9, 30, "v3"))


def _back_after_seen(history: History) -> None:
    history.reads += [read(4.1, 4.2, 30, "v3"), read(4.3, 4.4, 20, "v2")]


def _foreseen(history: History) -> None:
    history.reads.append(read(0.1, 0.2, 20, "v2", weak=True))


def _weak_back(history: History) -> None:
    history.reads += [read(9.5, 9.6, 30, "v3", weak=True), read(9.7, 9.8, 20, "v2", weak=True)]


def _refused_and_done(history: History) -> None:
    history.writes[3] = refused("patch", "v3", 4, 5, 503)


def _two_values(history: History) -> None:
    history.reads.append(read(6, 7, 20, "v3"))


def _written_by_nobody(history: History) -> None:
    history.reads.append(read(3.3, 3.4, 25, "ghost"))


def _false_conflict(history: History) -> None:
    history.writes[2] = refused("update", "v9", 1.1, 1.2, 409, expected=10)


def _false_exists(history: History) -> None:
    history.writes.append(refused("create", "v8", 9.5, 9.6, 409))


def _false_not_found(history: History) -> None:
    history.writes.append(refused("patch", "v8", 2.1, 2.2, 404))


def _wrong_condition(history: History) -> None:
    history.writes.append(write("update", "v4", 7.1, 7.2, 35, expected=20))
    history.streams.clear()


def _resurrected(history: History) -> None:
    history.writes.append(write("update", "v4", 9.5, 9.6, 50))


def _commit_order(history: History) -> None:
    history.writes.append(Write(OTHER, "create", "r0", 2.0, "o1", 0, 2.5, Outcome.DONE, 201, "", 5, "o"))


def _event_missing(history: History) -> None:
    del history.streams[0].events[1]


def _event_twice(history: History) -> None:
    history.streams[0].events.insert(1, told("ADDED", 10, "v1"))


def _events_out_of_order(history: History) -> None:
    events = history.streams[0].events
    events[1], events[2] = events[2], events[1]


def _event_type(history: History) -> None:
    history.streams[0].events[1] = told("ADDED", 20, "v2")


def _event_of_another(history: History) -> None:
    history.streams[0].events[1] = told("MODIFIED", 20, "v9")


def _deletion_untold(history: History) -> None:
    del history.streams[0].events[3]


def _deleted_by_nobody(history: History) -> None:
    del history.writes[4]


def _deleted_twice(history: History) -> None:
    history.writes.append(write("delete", "", 9.1, 9.2, 0))


def _list_of_the_future(history: History) -> None:
    history.lists.append(listing(2.5, 2.6, 10, a=State(20, "v2", "u")))


@pytest.mark.parametrize(
    "harm", [value for name, value in sorted(globals().items()) if name.startswith("_") and callable(value)]
)
def test_a_history_that_no_single_copy_can_have_is_told_apart(harm: Callable[[History], None]) -> None:
    history = good()
    harm(history)
    assert check(history) != []


def test_a_write_of_unknown_outcome_may_have_happened_or_not_and_late() -> None:
    history = good()
    history.writes.append(unknown("update", "v4", 4))
    history.writes.append(unknown("delete", "", 4))
    assert check(history) == []


def test_a_deletion_that_no_watcher_saw_lies_between_what_was_seen() -> None:
    history = good()
    history.streams.clear()
    history.writes.append(write("create", "v5", 12, 13, 60, uid="u2"))
    assert check(history) == []
    history.streams.append(Stream("w1", "c/configmaps", 30, 60, [told("ADDED", 60, "v5", uid="u2")]))
    assert check(history) != []


def test_what_is_told_says_all_about_the_key() -> None:
    lines = list(good().of(KEY))
    assert len(lines) == 5 + 5 + 3 + 4
    assert any("unknown" in line and "v3" in line for line in lines)
