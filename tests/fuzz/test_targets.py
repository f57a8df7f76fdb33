"""Each target, for a second or two, on what hypothesis makes of seeds and of nothing. `make fuzz` goes on for hours."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import values, wire
from tests.fuzz.targets import TARGETS, Target, load

load()
_EXAMPLES = 60
_SEEDS = 25


@pytest.fixture(scope="module", autouse=True)
def _no_server_left() -> Iterator[None]:
    yield
    wire.close()


@st.composite
def _mutated(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A seed with a few bytes of it changed, left out, doubled, or taken from another."""
    found = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(found)))
        end = min(start + draw(st.integers(0, 12)), len(found))
        other = draw(st.sampled_from(seeds))
        piece = draw(
            st.one_of(
                st.binary(max_size=4),
                st.just(found[start:end] * 2),
                st.builds(values.text, st.sampled_from(values.WORDS)),
                st.integers(0, len(other)).map(lambda at, other=other: other[at : at + 12]),  # type: ignore[misc]
            )
        )
        found = found[:start] + piece + found[end:]
    return found


@pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))
def test_a_target_holds_for_every_seed_and_what_comes_of_changing_seeds(target: Target) -> None:
    seeds = list(islice(target.seeds(), _SEEDS))
    for seed in seeds:
        target.run(seed)

    @settings(
        max_examples=_EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.one_of(st.binary(max_size=64), _mutated(seeds)) if seeds else st.binary(max_size=256))
    def holds(data: bytes) -> None:
        target.run(data)

    holds()
