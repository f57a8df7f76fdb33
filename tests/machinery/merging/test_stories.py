"""The cases of structured-merge-diff's suite: each comes out here as it was recorded to come out there."""

from __future__ import annotations

import json

import pytest

from tests.machinery.merging import lives, stories

LIVES = stories.load()
RECORDED = dict(zip(LIVES, json.loads(stories.RECORDED.read_text()), strict=True))


def test_every_story_is_recorded_once() -> None:
    assert len(LIVES) == len(RECORDED) > 150


@pytest.mark.parametrize("name", LIVES)
def test_as_upstream(name: str) -> None:
    theirs = RECORDED[name]
    assert lives.difference(lives.told(LIVES[name], theirs), theirs) == ""
