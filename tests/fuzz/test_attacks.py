"""What attacks may cost in memory. Their time is measured by `make fuzz ARGS=--scaling`: tests hold nothing to a clock."""

from __future__ import annotations

import gc
import tracemalloc

import pytest

from tests.fuzz.attacks import ATTACKS, EXPLOSIVE, Attack, carried_out

# An empty map takes 64 bytes and three in JSON; a wrong item its error, with a path and a text.
BYTES_A_BYTE_MAX = 160
BYTES_MAX = 4 << 20  # Whatever was sent.


@pytest.mark.parametrize(
    "attack", [one for one in ATTACKS.values() if one.name not in EXPLOSIVE], ids=lambda one: one.name
)
def test_an_attack_ends_in_an_answer_and_takes_memory_in_proportion_to_what_was_sent(attack: Attack) -> None:
    run, sent = attack.make(attack.size)
    carried_out(run)  # Once before: what is loaded and compiled at first use is no part of it.
    gc.collect()
    tracemalloc.start()
    try:
        carried_out(run)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= BYTES_MAX + BYTES_A_BYTE_MAX * sent


@pytest.mark.parametrize("name", sorted(EXPLOSIVE))
def test_what_explodes_ends_at_its_bound(name: str) -> None:
    run, _ = ATTACKS[name].make(ATTACKS[name].size * 20)
    gc.collect()
    tracemalloc.start()
    try:
        carried_out(run)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= 200 << 20
