"""The way between an operator and the server: an HTTP proxy that refuses, loses, delays, tears and cuts."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from typing import Final

import aiohttp
from aiohttp import web
from yarl import URL

from tests.clients.day.streams import Streams

HOP: Final = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "content-length", "host"}
)
WRITES: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
LATE_S: Final = (
    0.15  # Less than a leader has between the end of its own belief in a lease and the next leader.
)


class Way:
    """One listening port before one target.

    Always some answers are lost after the deed was done, some come late, and some watches tear in the middle of a frame. `refusing`
    and `conflicting` are shares of requests; `closed` lets nothing through; `stalled` keeps everything, and drops it when it ends.
    """

    def __init__(self, name: str, target: str, chance: random.Random, streams: Streams) -> None:
        self._name = name
        self._target = target
        self._streams = streams
        self._chance = chance
        self._open: dict[int, web.BaseRequest] = {}  # By id: requests have no hash.
        self._moving = asyncio.Event()
        self._moving.set()
        self._runner: web.ServerRunner | None = None
        self._session: aiohttp.ClientSession | None = None
        self.lost = self.late = self.torn = 0.0
        self.refusing = self.conflicting = 0.0
        self.closed = False
        self.url = ""
        self.harmed = 0
        """Requests that something was done to."""
        self.expired = 0
        """Watches that the server answered with 410."""

    async def open(self) -> None:
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None),
            connector=aiohttp.TCPConnector(limit=0),
        )
        self._runner = web.ServerRunner(web.Server(self._serve), shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def close(self) -> None:
        self.cut()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

    def shut(self) -> None:
        self.closed = True
        self.cut()

    def stall(self) -> None:
        self._moving.clear()

    def heal(self) -> None:
        """What was stalled or closed off is dropped: it must not arrive after others have taken over."""
        if self.closed or not self._moving.is_set():
            self.cut()
        self.closed = False
        self.refusing = self.conflicting = 0.0
        self._moving.set()

    def cut(self, only: Callable[[web.BaseRequest], bool] = lambda request: True) -> None:
        """Ends what is under way."""
        for request in [one for one in self._open.values() if only(one)]:
            self._abort(request)

    def cut_watches(self) -> None:
        self.cut(is_watch)

    def _abort(self, request: web.BaseRequest) -> None:
        self.harmed += 1
        self._open.pop(id(request), None)
        if request.transport is not None:
            request.transport.abort()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        self._open[id(request)] = request
        try:
            body = await request.read()
            if self.closed:
                self._abort(request)
                return web.Response()
            refused = self._refusal(request)
            if refused is not None:
                self.harmed += 1
                return refused
            if self._chance.random() < self.late:
                await asyncio.sleep(self._chance.uniform(0, LATE_S))
            await self._moving.wait()
            if id(request) not in self._open:  # It was cut while it waited.
                return web.Response()
            return await self._forward(request, body)
        except (aiohttp.ClientError, OSError, asyncio.IncompleteReadError):
            self._abort(request)
            return web.Response()
        finally:
            self._open.pop(id(request), None)

    def _refusal(self, request: web.BaseRequest) -> web.Response | None:
        if self._chance.random() < self.refusing:
            code, reason = self._chance.choice(
                [(429, "TooManyRequests"), (503, "ServiceUnavailable"), (500, "InternalError")]
            )
            return _status(code, reason, {"Retry-After": "1"} if code == 429 else {})
        if request.method in ("PUT", "PATCH") and self._chance.random() < self.conflicting:
            return _status(409, "Conflict", {})
        return None

    async def _forward(self, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        assert self._session is not None, "the way is open"
        kept = {name: value for name, value in request.headers.items() if name.lower() not in HOP}
        url = URL(f"{self._target}{request.raw_path}", encoded=True)
        async with self._session.request(request.method, url, headers=kept, data=body or None) as answer:
            if request.method in WRITES and self._chance.random() < self.lost:
                await answer.read()
                self._abort(request)
                return web.Response()
            self.expired += is_watch(request) and answer.status == 410
            headers = {name: value for name, value in answer.headers.items() if name.lower() not in HOP}
            response = web.StreamResponse(status=answer.status, headers=headers)
            await response.prepare(request)
            watch = answer.status == 200 and is_watch(request)
            stream = self._streams.begin(self._name, request.path, request.query) if watch else None
            async for chunk in answer.content.iter_any():
                await self._moving.wait()
                if stream is not None:
                    for _ in stream.read(chunk):
                        pass
                    self.expired += stream.error.get("code") == 410
                    if self._chance.random() < self.torn:
                        await response.write(chunk[: len(chunk) // 2])
                        self._abort(request)
                        return response
                await response.write(chunk)
            await response.write_eof()
            return response


def is_watch(request: web.BaseRequest) -> bool:
    return request.query.get("watch") in ("true", "1")


def _status(code: int, reason: str, headers: dict[str, str]) -> web.Response:
    told = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": f"refused on the way: {reason}",
        "reason": reason,
        "code": code,
    }
    return web.Response(status=code, text=json.dumps(told), headers=headers, content_type="application/json")
