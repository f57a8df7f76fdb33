"""The floor of this machine: a TLS server that is no server. It answers the same bytes as ours to GET and LIST.

Its process finds the end of a head and the last part of the path, and writes bytes that it was given. What it costs
is the event loop, TLS and the kernel; what ours costs beyond it is what there is to gain.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from typing_extensions import override

from benchmarks.cluster import Target
from benchmarks.peers import stop
from tests.ports import free_port

START_S = 30.0
PLURALS = ("configmaps", "widgets")
_PATHS = {
    "configmaps": "/api/v1/namespaces/{}/configmaps",
    "widgets": "/apis/bench.peers.example/v1/namespaces/{}/widgets",
}
_HEAD = (
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: no-cache, private\r\n"
    "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\nAudit-Id: 00000000-0000-0000-0000-000000000000\r\nContent-Length: {}\r\n\r\n"
)
_EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@contextmanager
def bare(like: Target, namespace: str, directory: Path) -> Iterator[Target]:
    """A bare server that answers for a namespace what the server `like` answers now."""
    directory.mkdir()
    context = ssl.create_default_context(cafile=str(like.ca))
    for plural in PLURALS:
        request = urllib.request.Request(
            like.base + _PATHS[plural].format(namespace), headers={"Authorization": f"Bearer {like.token}"}
        )
        with urllib.request.urlopen(request, context=context) as answer:
            (directory / plural).write_bytes(answer.read())
    certificate, key = directory / "tls.crt", directory / "tls.key"
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
            ),
            *("-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.bare", str(directory), str(port)],
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        until = time.monotonic() + START_S
        while b"ready" not in process.stdout.readline():
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError("the bare server did not start")
        yield Target(f"https://127.0.0.1:{port}", like.token, certificate, {"server": process.pid})
    finally:
        stop(process)


def answers(directory: Path) -> dict[bytes, bytes]:
    """Whole responses by the last two parts of a path for objects, by the last for lists."""
    found = {}
    for plural in PLURALS:
        body = (directory / plural).read_bytes()
        found[plural.encode()] = _HEAD.format(len(body)).encode() + body
        listed = json.loads(body)
        for item in listed["items"]:
            single = {"kind": listed["kind"].removesuffix("List"), "apiVersion": listed["apiVersion"], **item}
            body = json.dumps(single, separators=(",", ":")).encode()
            name = f"{plural}/{item['metadata']['name']}"
            found[name.encode()] = _HEAD.format(len(body)).encode() + body
    return found


class _Bare(asyncio.Protocol):
    def __init__(self, found: dict[bytes, bytes]) -> None:
        self._found = found
        self._head = b""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    @override
    def data_received(self, data: bytes) -> None:
        self._head += data
        if not self._head.endswith(b"\r\n\r\n"):
            return
        path = self._head[: self._head.index(b" HTTP/")]
        self._head = b""
        parts = path.rsplit(b"/", 2)
        whole = self._found.get(parts[-1]) or self._found.get(b"/".join(parts[-2:])) or _EMPTY
        self._transport.write(whole)  # type: ignore[attr-defined]


async def _serve(directory: Path, port: int) -> None:
    found = answers(directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "tls.crt", directory / "tls.key")
    context.set_alpn_protocols(["http/1.1"])
    server = await asyncio.get_running_loop().create_server(
        lambda: _Bare(found), "127.0.0.1", port, ssl=context, backlog=1024
    )
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    uvloop.run(_serve(Path(sys.argv[1]), int(sys.argv[2])))
