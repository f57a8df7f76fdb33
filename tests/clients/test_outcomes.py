"""What is read from what test runners leave."""

from __future__ import annotations

from pathlib import Path

from tests.clients.suites.outcomes import Outcome, of_cargo, of_go, of_junit

JUNIT = """<testsuites><testsuite>
<testcase classname="a.B" name="good"/>
<testcase classname="a.B" name="bad"><failure message="it  was&#10;not so">long</failure></testcase>
<testcase classname="a.B" name="bad"><error message="and could not be cleaned up"/></testcase>
<testcase classname="a.B" name="untold"><error type="Lost"/></testcase>
<testcase classname="a.B" name="left"><skipped message="no nodes"/></testcase>
</testsuite></testsuites>"""

CARGO = """
running 3 tests
test one ... ok
test deep::two - should panic ... ok
test three ... FAILED
test four ... ignored, needs a cluster

failures:

---- three stdout ----

thread 'three' (12) panicked at cluster.rs:4:5:
assertion failed: it
note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace


failures:
    three

test result: FAILED. 2 passed; 1 failed; 1 ignored
"""

GO = """=== RUN   TestOne
=== RUN   TestOne/part
--- PASS: TestOne (0.01s)
    --- PASS: TestOne/part (0.00s)
=== RUN   TestTwo
=== PAUSE TestTwo
=== RUN   TestThree
    three_test.go:5: no nodes
--- SKIP: TestThree (0.00s)
=== CONT  TestTwo
    two_test.go:7: it was
        not so
--- FAIL: TestTwo (0.02s)
=== RUN   TestSuite
Running Suite: Ours
--- FAIL: TestSuite (3.00s)
=== RUN   TestLast
panic: test timed out
"""


def test_a_junit_report_tells_each_test_once_by_what_it_first_failed_with(tmp_path: Path) -> None:
    (tmp_path / "TEST-a.xml").write_text(JUNIT)

    assert list(of_junit(tmp_path)) == [
        Outcome("a.B.good", "passed"),
        Outcome("a.B.bad", "failure: it was not so"),
        Outcome("a.B.untold", "error: Lost"),
        Outcome("a.B.left", "skipped: no nodes"),
    ]


def test_what_cargo_prints_is_told_without_places_and_backtraces() -> None:
    assert list(of_cargo(CARGO)) == [
        Outcome("one", "passed"),
        Outcome("deep::two", "passed"),
        Outcome("three", "failure: assertion failed: it"),
        Outcome("four", "skipped: ignored"),
    ]


def test_what_go_prints_is_told_by_test_and_without_the_tests_that_ginkgo_reports() -> None:
    assert [(one.name, one.state.partition(":")[0]) for one in of_go(GO)] == [
        ("TestOne/part", "passed"),
        ("TestTwo", "failure"),
        ("TestThree", "skipped"),
        ("TestLast", "error"),
    ]
    assert "it was not so" in next(one.state for one in of_go(GO) if one.name == "TestTwo")


def test_only_what_neither_passed_nor_was_skipped_has_failed() -> None:
    states = ("passed", "skipped: no nodes", "failure: it was not so", "error: Lost")

    assert [Outcome("one", state).failed for state in states] == [False, False, True, True]
