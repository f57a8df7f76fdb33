"""WebSocket watches: who asks for one, how that is answered, and what is understood of what the client sends then.

Events leave as frames that negotiation has made, once for all their watchers. A client has nothing to say on a watch: what
it sends is read by wsproto and dropped, its pings are answered, and its close ends the watch. Pure: bytes in, bytes out.

Upstream: apiserver/pkg/endpoints/handlers/watch.go (HandleWS); golang.org/x/net/websocket (an Origin must be named, the
one subprotocol is given back); apiserver/pkg/authentication/request/websocket/protocol.go (a token as a subprotocol).
"""

from __future__ import annotations

import binascii
import hashlib
import re
from base64 import b64encode, urlsafe_b64decode
from typing import Final

from clusterling.services.request import Header, HeaderFields, Headers, Response

FRAMES_MAX: Final = 256  # That one read may bring. Nobody who only watches sends so many.

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_VERSION: Final = "13"
_PROTOCOLS: Final = "Sec-WebSocket-Protocol"
_BEARER: Final = "base64url.bearer.authorization.k8s.io."
# What Go's url.ParseRequestURI takes: an absolute URI or an absolute path.
_ORIGIN: Final = re.compile(r"/|[A-Za-z][A-Za-z0-9+.-]*:")


def is_asked(headers: HeaderFields) -> bool:
    """Whether the request wants to go on as a WebSocket (upstream: wsstream.IsWebSocketRequest)."""
    return (
        headers.get("Upgrade", "").lower() == "websocket"
        and "upgrade" in headers.get("Connection", "").lower()
    )


def with_bearer(headers: Headers) -> Headers:
    """The header fields with a token that came as a subprotocol where tokens are looked for.

    Browsers cannot send an Authorization field with a WebSocket. A token that cannot be read, or that stands alone, so
    that no subprotocol is left to be given back, becomes a credential that nobody knows.
    """
    offered = _offered(headers)
    tokens = [one.removeprefix(_BEARER) for one in offered if one.startswith(_BEARER)]
    if not tokens or "Authorization" in headers:
        return headers
    others = [one for one in offered if not one.startswith(_BEARER)]
    token = _decoded(tokens[0]) if len(tokens) == 1 and others else ""
    fields = {"authorization": f"Bearer {token}", _PROTOCOLS: ", ".join(others)}
    return headers.replaced(fields)


def _decoded(text: str) -> str:
    """The token in base64url without padding; "" where it is not that."""
    try:
        return urlsafe_b64decode(text.encode() + b"=" * (-len(text) % 4)).decode()
    except (binascii.Error, ValueError):
        return ""


def handshake(headers: HeaderFields) -> tuple[Header, ...] | Response:
    """The fields of the answer 101; or the answer to who asks in a way that cannot be met."""
    key = headers.get("Sec-WebSocket-Key", "")
    if not key:
        return _refused(400, "mismatch challenge/response")
    if headers.get("Sec-WebSocket-Version") != _VERSION:
        return _refused(400, "missing or bad WebSocket Version", ("Sec-WebSocket-Version", _VERSION))
    if not _ORIGIN.match(headers.get("Origin", "")):
        return _refused(403)
    offered = _offered(headers)
    if len(offered) > 1:
        # A watch speaks any one subprotocol, and has no reason to choose between two.
        return _refused(400)
    digest = hashlib.sha1(key.encode(errors="replace") + _GUID, usedforsecurity=False).digest()
    fields = (
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", b64encode(digest).decode()),
    )
    return (*fields, (_PROTOCOLS, offered[0])) if offered else fields


def _offered(headers: HeaderFields) -> list[str]:
    text = headers.get(_PROTOCOLS, "").strip()
    return [one.strip() for one in text.split(",")] if text else []


def _refused(status: int, why: str = "", *fields: Header) -> Response:
    return Response(status, why.encode(), "", fields)


class Hearing:
    """What comes from the client of one WebSocket. `over` once it has closed, or was not understood."""

    __slots__ = ("_protocol", "goodbye", "over")

    def __init__(self) -> None:
        # A few milliseconds, for those alone who use it.
        from wsproto.frame_protocol import FrameProtocol

        self._protocol = FrameProtocol(client=False, extensions=[])
        self.over = False
        self.goodbye = self._close(1000)  # The close frame that is to be sent at the end.

    def receive(self, data: bytes) -> bytes:
        """Reads what has come; returns the frames that are to be sent back, which may be left out if there is no room."""
        from wsproto.frame_protocol import Opcode, ParseFailed

        answers: list[bytes] = []
        frames = 0
        try:
            self._protocol.receive_bytes(data)
            for frame in self._protocol.received_frames():
                frames += 1
                if frame.opcode is Opcode.CLOSE or frames > FRAMES_MAX:
                    self.over = True
                    if frame.opcode is not Opcode.CLOSE:
                        self.goodbye = self._close(1008)
                    break
                if frame.opcode is Opcode.PING:
                    assert isinstance(frame.payload, bytes), "what a ping carries is bytes"
                    answers.append(bytes(self._protocol.pong(frame.payload)))
        except ParseFailed as error:
            self.over = True
            self.goodbye = self._close(error.code)
        return b"".join(answers)

    def _close(self, code: int) -> bytes:
        return bytes(self._protocol.close(code))
