"""Owners and merging, held to what structured-merge-diff was recorded to make of random lives of an object."""

from __future__ import annotations

import json

import pytest

from tests.machinery.merging import cases, lives

RECORDED = json.loads(cases.RECORDED.read_text())


def test_there_are_conflicts_errors_and_changes_among_the_recorded_cases() -> None:
    steps = [step for told in RECORDED for step in told]
    assert sum("conflicts" in step for step in steps) > 10
    assert sum("error" in step for step in steps) > 10
    assert sum(len(step["owners"]) > 1 for step in steps) > 100


@pytest.mark.parametrize("seed", range(cases.RECORDED_COUNT))
def test_an_object_and_its_owners_become_what_they_do_upstream(seed: int) -> None:
    assert lives.difference(lives.told(cases.case(seed)), RECORDED[seed]) == ""
