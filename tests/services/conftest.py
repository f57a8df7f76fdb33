from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.services.serving import Serving, serving


@pytest.fixture
async def world() -> AsyncIterator[Serving]:
    async with serving() as found:
        yield found
