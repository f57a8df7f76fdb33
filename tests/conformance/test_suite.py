"""What is written down of a conformance run, and the list that it goes by."""

from __future__ import annotations

from collections import Counter

from tests.conformance.differing import Difference, Reason, load
from tests.conformance.suite import specs
from tests.conformance.written import BESIDES, PASSED, State, page

EVERY = [
    ("API", "[sig-cli] a passes"),
    ("API", "[sig-cli] b waits [Conformance]"),
    ("KCM", "[sig-apps] c needs a controller"),
    (BESIDES, "[sig-apps] d passes"),
]
STATES = {
    "[sig-cli] a passes": State(PASSED, 1.0),
    "[sig-cli] b waits [Conformance]": State("failed: no\n  such thing", 2.0),
    "[sig-apps] d passes": State(PASSED, 1.0),
}


def test_every_spec_is_listed_once_with_what_it_needs() -> None:
    listed = specs()
    assert [name for name, times in Counter(spec.name for spec in listed).items() if times > 1] == []
    assert {spec.needs for spec in listed} == {"API", "CTL", "KCM", BESIDES}
    assert all(spec.name.startswith("[sig-") for spec in listed)
    assert len([spec for spec in listed if spec.needs != BESIDES]) == 130


def test_every_reason_is_about_a_spec_that_is_run() -> None:
    failures = [Difference(spec.name, "", PASSED, "failed") for spec in specs() if spec.needs != "KCM"]
    for reason in load("conformance"):
        anyhow = Reason(reason.at, reason.why)
        assert any(anyhow.explains(one) for one in failures), reason.at


def test_the_page_counts_by_group_and_gives_reasons() -> None:
    told = page(EVERY, STATES, [Reason("[sig-cli] b *", "things are not there", "the issue on things")])
    assert "| sig-apps | 1 | 0 | 0 | 1 |" in told
    assert "| sig-cli | 2 | 1 | 1 | 0 |" in told
    assert "| all of them | 3 | 1 | 1 | 1 |" in told
    assert "| besides | 1 | 1 | 0 | 0 |" in told
    reasons = (
        "Things are not there (until the issue on things):\n\n- \\[sig-cli\\] b waits \\[Conformance\\]\n"
    )
    assert reasons in told
    assert "## Not run\n\n- \\[sig-apps\\] c needs a controller\n" in told


def test_a_failure_without_a_reason_is_said_to_have_none() -> None:
    assert "No reason is known:\n\n- \\[sig-cli\\] b waits" in page(EVERY, STATES, [])


def test_names_mean_nothing_to_markdown() -> None:
    name = "[sig-cli] `x` <y> z_z * a|b"
    assert "- \\[sig-cli\\] \\`x\\` \\<y\\> z\\_z \\* a\\|b" in page([("API", name)], {}, [])
