"""What a write can depend on besides keys: that no other process has written since.

A store that can tell says how often others have been seen to write: `others()`, a number above 0 that rises, before their
events are told. `Guard(OTHERS, n)` holds in a commit if nobody else has written to the store since the number became n, seen
here or not. So memory, as it was while the number was n, had all that was acknowledged by anybody, and who read it then
needs not have asked how far the store has come.

A store that cannot tell has no `others`, and refuses such a guard as one of a key that is not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from clusterling.storage.store import Guard

OTHERS: Final = "~others"  # No key: it is the same under every prefix.


class Standing:
    """What one request takes for granted: that nobody else has written since there were `count` writes of others.

    `settled`: it was so at a commit of this request, or nobody knows whether that commit has happened. From then on the request
    must not be answered anew, and its writes need not depend on it.
    """

    __slots__ = ("count", "settled")

    def __init__(self, count: int) -> None:
        self.count = count
        self.settled = False

    def guards(self) -> Sequence[Guard]:
        """What the next write of the request depends on for it."""
        return () if self.settled else (Guard(OTHERS, self.count),)
