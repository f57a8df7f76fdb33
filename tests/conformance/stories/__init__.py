"""The stories, by what they are about. A story's name says it; its steps are told in order, in a namespace of its own."""

from __future__ import annotations

from typing import Final

from tests.conformance.exchange import Story
from tests.conformance.stories import clients, customs, definitions, reading, schemas, shapes, verbs, wire
from tests.conformance.stories.definitions import DEFINITIONS

STORIES: Final[dict[str, Story]] = {
    **verbs.STORIES,
    **customs.STORIES,
    **reading.STORIES,
    **schemas.STORIES,
    **shapes.STORIES,
    **wire.STORIES,
    **clients.STORIES,
    **definitions.STORIES,
}

__all__ = ["DEFINITIONS", "STORIES"]
