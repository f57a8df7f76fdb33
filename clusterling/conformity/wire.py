"""One blocking HTTP client for any Kubernetes API: requests, watches line by line, and the handshake of a WebSocket.

It shares nothing with the server of this project, so that a mistake made there is not made here again.
Everything is bounded: a request by `timeout_s`, all of them together by `deadline`, an answer by its size.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from typing_extensions import override

from clusterling.machinery.meta import Object

JSON: Final = "application/json"
USER_AGENT: Final = "clusterling-conformity/1"

_ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
_PIECE_BYTES: Final = 1024 * 1024
_EVENT_BYTES_MAX: Final = 4 * 1024 * 1024
_WEBSOCKET_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3


class OutOfTime(Exception):
    """The time for all checks is used up."""


class Unreachable(Exception):
    """The server gave no HTTP answer at all. The message says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. Header names are in lower case."""

    code: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        return 200 <= self.code < 300

    @property
    def document(self) -> Object:
        """The body as a JSON object; empty where it is none."""
        with suppress(ValueError, RecursionError):
            found = json.loads(self.body)
            if isinstance(found, dict):
                return found
        return {}

    @property
    def media_type(self) -> str:
        return self.headers.get("content-type", "")

    @property
    def told(self) -> str:
        """The code, and the reason of a Status: what a row shows."""
        reason = self.document.get("reason") if self.code >= 400 else None
        return f"{self.code} {reason}" if reason else str(self.code)


class Stream:
    """A watch that was answered. `code` is 200 where there are events to read."""

    def __init__(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> None:
        self.code = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self._connection = connection
        self._response = response

    def next(self, wait_s: float) -> Object | None:
        """The next event; None at a clean end. Raises TimeoutError after that much silence, Unreachable where it breaks off."""
        if self._connection.sock is not None:
            self._connection.sock.settimeout(wait_s)
        try:
            line = self._response.readline(_EVENT_BYTES_MAX)
        except TimeoutError:
            raise
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"the watch broke off: {error}") from error
        if not line:
            return None
        return Answer(self.code, self.headers, line).document

    def until(self, wanted: Callable[[Object], bool], wait_s: float) -> list[Object]:
        """Events up to and with the first that is wanted; those there were, where it does not come in time."""
        found: list[Object] = []
        end = time.monotonic() + wait_s
        while (left := end - time.monotonic()) > 0:
            try:
                event = self.next(left)
            except TimeoutError:
                break
            if event is None:
                break
            found.append(event)
            if wanted(event):
                break
        return found

    def read(self) -> Answer:
        """All of the body, for an answer that is no stream."""
        return Answer(self.code, self.headers, self._response.read(_ANSWER_BYTES_MAX))


class _NamedConnection(http.client.HTTPSConnection):
    """To an address whose certificate is for another name (a kubeconfig's `tls-server-name`)."""

    def __init__(self, host: str, port: int, name: str, *, context: ssl.SSLContext, timeout: float) -> None:
        super().__init__(host, port, context=context, timeout=timeout)
        self._name, self._tls = name, context

    @override
    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._name)


class Wire:
    """A server at a URL, whose path, if any, goes before every path asked for."""

    def __init__(
        self,
        url: str,
        *,
        token: str = "",
        context: ssl.SSLContext | None = None,
        server_name: str = "",
        timeout_s: float = 15.0,
        deadline: float = float("inf"),
    ) -> None:
        """`deadline` is of `time.monotonic`. Raises ValueError for what is no http or https URL."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"this is no http or https URL: {url!r}")
        self.url = url.rstrip("/")
        self.path = parts.path.rstrip("/")
        self.deadline = deadline
        self._https = parts.scheme == "https"
        self._host, self._port = parts.hostname, parts.port or (443 if self._https else 80)
        self._token, self._context, self._server_name = token, context, server_name
        self._timeout_s = timeout_s
        self._kept: http.client.HTTPConnection | None = None

    def close(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def get(self, path: str, *, accept: str = JSON, **query: object) -> Answer:
        return self.request("GET", path, headers={"accept": accept}, query=query)

    def post(self, path: str, body: Object, **query: object) -> Answer:
        return self.request("POST", path, body, query=query)

    def put(self, path: str, body: Object, **query: object) -> Answer:
        return self.request("PUT", path, body, query=query)

    def delete(self, path: str, body: Object | None = None, **query: object) -> Answer:
        return self.request("DELETE", path, body, query=query)

    def patch(
        self, path: str, body: Any, *, media_type: str = "application/merge-patch+json", **query: object
    ) -> Answer:
        return self.request("PATCH", path, body, headers={"content-type": media_type}, query=query)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, object] | None = None,
        at_root: bool = False,
    ) -> Answer:
        """`body`: bytes as they are, all else as JSON. `at_root`: without the URL's path. Raises Unreachable, OutOfTime."""
        content, sent = self._content(body, headers)
        target = ("" if at_root else self.path) + path + _query(query)
        fresh = self._kept is None
        try:
            return self._exchange(method, target, content, sent)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            # A kept connection may have been closed at the other end meanwhile, and then nothing was done.
            if fresh or isinstance(error, TimeoutError):
                raise _unreachable(method, path, error) from error
        try:
            return self._exchange(method, target, content, sent)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise _unreachable(method, path, error) from error

    @contextmanager
    def watch(self, path: str, *, accept: str = JSON, **query: object) -> Iterator[Stream]:
        """A watch on a connection of its own, closed at the end of the context."""
        connection = self._connect()
        _, headers = self._content(None, {"accept": accept})
        target = self.path + path + _query({"watch": "true", **query})
        try:
            try:
                connection.request("GET", target, headers=headers)
                response = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                raise _unreachable("WATCH", path, error) from error
            yield Stream(connection, response)
            response.close()
        finally:
            connection.close()

    def upgrade(self, path: str, **query: object) -> tuple[int, bool]:
        """Asks for a WebSocket: the code, and whether the handshake of a 101 is right (RFC 6455, section 4.2.2)."""
        key = base64.b64encode(os.urandom(16))
        _, headers = self._content(
            None,
            {"upgrade": "websocket", "connection": "Upgrade", "sec-websocket-version": "13", "accept": JSON},
        )
        headers |= {"sec-websocket-key": key.decode(), "origin": self.url}
        connection = self._connect()
        try:
            connection.request("GET", self.path + path + _query(query), headers=headers)
            response = connection.getresponse()
            proof = base64.b64encode(
                hashlib.sha1(key + _WEBSOCKET_GUID, usedforsecurity=False).digest()
            ).decode()
            return response.status, response.headers.get("sec-websocket-accept") == proof
        except (OSError, http.client.HTTPException) as error:
            raise _unreachable("UPGRADE", path, error) from error
        finally:
            connection.close()

    def _content(self, body: Any, headers: Mapping[str, str] | None) -> tuple[bytes | None, dict[str, str]]:
        sent = {"accept": JSON, "user-agent": USER_AGENT}
        if self._token:
            sent["authorization"] = f"Bearer {self._token}"
        if body is None:
            return None, sent | dict(headers or {})
        sent["content-type"] = JSON
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return content, sent | dict(headers or {})

    def _exchange(self, method: str, target: str, content: bytes | None, headers: dict[str, str]) -> Answer:
        if self._kept is None:
            self._kept = self._connect()
        elif self._kept.sock is not None:
            self._kept.sock.settimeout(self._time_left())
        self._kept.request(method, target, content, headers)
        response = self._kept.getresponse()
        body = self._body(response)
        if not response.isclosed():
            # Larger than anything this API says: what is left of it must not be taken for the next answer.
            self.close()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, found, body)

    def _body(self, response: http.client.HTTPResponse) -> bytes:
        """In pieces: a server that sends a byte at a time must not outlast the deadline."""
        found = bytearray()
        while len(found) < _ANSWER_BYTES_MAX and (piece := response.read1(_PIECE_BYTES)):
            found += piece
            self._time_left()
        return bytes(found)

    def _time_left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise OutOfTime
        return min(left, self._timeout_s)

    def _connect(self) -> http.client.HTTPConnection:
        timeout = self._time_left()
        if not self._https:
            return http.client.HTTPConnection(self._host, self._port, timeout=timeout)
        context = self._context or ssl.create_default_context()
        if self._server_name:
            return _NamedConnection(
                self._host, self._port, self._server_name, context=context, timeout=timeout
            )
        return http.client.HTTPSConnection(self._host, self._port, timeout=timeout, context=context)


def _query(query: Mapping[str, object] | None) -> str:
    return f"?{urlencode({name: str(value) for name, value in query.items()})}" if query else ""


def _unreachable(method: str, path: str, error: Exception) -> Unreachable:
    if isinstance(error, TimeoutError):
        return Unreachable(f"{method} {path}: no answer in time")
    if isinstance(error, ssl.SSLCertVerificationError):
        return Unreachable(f"its certificate is not trusted: {error.verify_message}")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return Unreachable(f"{method} {path}: {reason or type(error).__name__}")
