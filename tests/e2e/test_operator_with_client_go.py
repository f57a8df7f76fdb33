"""A quarter of the day that `make operator-day` has: an operator written with client-go, and faults of every kind."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.clients.day.faults import DAY_MINUTES
from tests.clients.day.story import Day, live
from tests.conftest import built

SEED: Final = 7


@pytest.fixture
def operator_binary() -> Path:
    return built("OPERATOR", "operator/operator")


@pytest.mark.clients
async def test_an_operator_brings_about_what_its_users_asked_for_through_a_day_of_faults(
    operator_binary: Path, tmp_path: Path
) -> None:
    day = await live(Day(SEED, DAY_MINUTES // 4), tmp_path, operator_binary)
    print(day.line)
    assert not day.complaints, f"SEED={SEED}\n" + "\n".join(day.complaints)
