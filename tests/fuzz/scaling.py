"""Whether attacks take time in proportion to their size: each at one, two and four times it, the least of several runs."""

from __future__ import annotations

import gc
from collections.abc import Callable
from itertools import pairwise
from math import inf
from time import thread_time
from typing import Final

from tests.fuzz.attacks import ATTACKS, EXPLOSIVE, Attack, carried_out

RUNS: Final = 4
ROUNDS_MAX: Final = 5
RATIO_MAX: Final = 3.0  # Of the time for twice the size: 2 is linear, 4 quadratic.
NOISE_S: Final = 0.004


def _least_s(run: Callable[[], object]) -> float:
    times = []
    for _ in range(RUNS):
        gc.collect()
        began = thread_time()
        carried_out(run)
        times.append(thread_time() - began)
    return min(times)


def measured(attack: Attack) -> tuple[list[float], bool]:
    """Seconds of CPU at one, two and four times the size, and whether that is in proportion; measured again where it is not."""
    runs = [attack.make(attack.size * factor)[0] for factor in (1, 2, 4)]
    times = [inf, inf, inf]
    for _ in range(ROUNDS_MAX):
        times = [min(time, _least_s(run)) for time, run in zip(times, runs, strict=True)]
        if all(after <= RATIO_MAX * max(before, NOISE_S) for before, after in pairwise(times)):
            return times, True
    return times, False


def main(names: list[str]) -> int:
    """Prints a line for each attack, or those whose name has one of these words; 1 where one was out of proportion."""
    chosen = [one for one in ATTACKS.values() if not names or any(name in one.name for name in names)]
    gc.disable()
    wrong = 0
    for attack in chosen:
        times, fine = measured(attack)
        fine = fine or attack.name in EXPLOSIVE
        shown = "  ".join(f"{time * 1000:8.2f}" for time in times)
        print(f"{shown} ms  {'' if fine else 'OUT OF PROPORTION '}{attack.name}", flush=True)
        wrong += not fine
    print(f"{len(chosen) - wrong} in proportion, {wrong} not")
    return 1 if wrong else 0
