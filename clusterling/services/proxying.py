"""The PROXY protocol: what a load balancer that passes TLS through sends first, to say for whom it speaks.

Both versions (https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt): a line of text, or a binary header. Only a
trusted proxy is asked for one, and must send one. No byte beyond it is read: what follows is the client's.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Final

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
LINE_BYTES_MAX: Final = 107
BINARY_BYTES_MAX: Final = 4_096  # Beyond the first 16; addresses and what else the proxy has to tell.

_LINE: Final = re.compile(rb"PROXY (?:UNKNOWN(?: .*)?|TCP[46] (\S+) \S+ \d+ \d+)\r\n")
_ADDRESS_BYTES: Final = {0x1: 4, 0x2: 16}  # By family: IPv4, IPv6.


async def read_header(receive: Callable[[int], Awaitable[bytes]]) -> str:
    """The client's address, "" where the proxy speaks for itself or will not say. `receive(n)`: n bytes at most, none at the end.

    Raises ValueError where it is no such header, OSError where the peer has gone.
    """
    begun = await _exactly(receive, len(SIGNATURE))
    if begun == SIGNATURE:
        return await _binary(receive)
    if not begun.startswith(b"PROXY "):
        raise ValueError("no PROXY header")
    while not begun.endswith(b"\r\n"):
        if len(begun) >= LINE_BYTES_MAX:
            raise ValueError("the PROXY line is too long")
        begun += await _exactly(receive, 1)
    found = _LINE.fullmatch(begun)
    if found is None:
        raise ValueError("a PROXY line that says nothing")
    return _address(found[1].decode("latin-1")) if found[1] else ""


async def _binary(receive: Callable[[int], Awaitable[bytes]]) -> str:
    version, family, *length = await _exactly(receive, 4)
    size = int.from_bytes(bytes(length), "big")
    if version >> 4 != 2 or version & 15 > 1 or size > BINARY_BYTES_MAX:
        raise ValueError("a PROXY header of another version, or too long")
    rest = await _exactly(receive, size)
    width = _ADDRESS_BYTES.get(family >> 4)
    if version & 15 == 0 or width is None:
        return ""  # A health check of the proxy's own, or an address that is none of the internet's.
    if size < 2 * width + 4:
        raise ValueError("a PROXY header without addresses")
    return str(ip_address(rest[:width]))


def _address(text: str) -> str:
    return str(ip_address(text))


async def _exactly(receive: Callable[[int], Awaitable[bytes]], count: int) -> bytes:
    found = b""
    while len(found) < count:
        more = await receive(count - len(found))
        if not more:
            raise ConnectionResetError("the proxy has gone")
        found += more
    return found
