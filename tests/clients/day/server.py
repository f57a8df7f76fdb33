"""`python -m tests.clients.day.server serve …`: the command line with a short memory.

CLUSTERLING_DAY_MINUTE_S says how long a minute is. History is compacted after five of those, and a cache holds few changes: a
watch that was away for longer finds its revision gone, as it does after five real minutes.
"""

from __future__ import annotations

import os
from typing import Final

from clusterling.cli import main
from clusterling.controllers import history
from clusterling.storage import cache
from tests.faults.replica import end_with_parent

RING_EVENTS: Final = 48


def forget_soon(minute_s: float) -> None:
    history.KEPT_S = 5 * minute_s  # type: ignore[misc]
    history.run.__kwdefaults__ = {"every_s": minute_s / 2}
    cache.RING_EVENTS_MAX = RING_EVENTS  # type: ignore[misc]


if __name__ == "__main__":
    end_with_parent()
    forget_soon(float(os.environ["CLUSTERLING_DAY_MINUTE_S"]))
    main()
