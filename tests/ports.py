"""Ports for servers that are started, and started again, at an address that others were told before.

The kernel gives ports of a range of its own to whoever connects to something. A port from there may be free when it is looked
for, and taken when the server starts, or while it is down for a moment. So these are from below that range.
"""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from random import SystemRandom
from typing import Final

_FIRST: Final = 10_000
_KERNELS: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LAST: Final = max(int(_KERNELS.read_text().split()[0]) if _KERNELS.exists() else 32_768, 2 * _FIRST) - 1

_random: Final = SystemRandom()
_given: Final[set[int]] = set()


def free_port() -> int:
    """A port that nobody has on any address, and that this process is given once."""
    while True:
        port = _random.randint(_FIRST, _LAST)
        if port in _given:
            continue
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("", port))
            _given.add(port)
            return port
