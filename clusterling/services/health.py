"""/livez, /readyz, /healthz: named checks, said in upstream's words.

Upstream: apiserver/pkg/server/healthz/healthz.go. Reasons of a failure go to the log, for these paths are public; and to whoever
may know what stands below all clusters and asks for the one check, as in /readyz/store. Each result is counted, for /metrics/slis.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from clusterling.machinery.errors import go_quote
from clusterling.services.request import NOSNIFF, TEXT_TYPE, Response
from clusterling.services.requestinfo import Query

_log = logging.getLogger(__name__)

# Raises, or returns what is wrong; None is healthy. Must answer within a second or so: probes wait for it.
Check = Callable[[], Awaitable[str | None]]

ENDPOINTS: Final = frozenset({"livez", "readyz", "healthz"})


async def ping() -> str | None:
    """Healthy whenever it can be asked."""
    return None


class Health:
    """The checks behind the three endpoints. `ready` is asked by /readyz and /healthz, `live` by all."""

    def __init__(
        self, *, live: Mapping[str, Check] | None = None, ready: Mapping[str, Check] | None = None
    ) -> None:
        living = {"ping": ping, **(live or {})}
        self._checks: dict[str, dict[str, Check]] = {
            "livez": living,
            "readyz": {**living, **(ready or {})},
            "healthz": {**living, **(ready or {})},
        }
        # By check and endpoint: whether it was well the last time, and how often it was and was not.
        self.results: dict[tuple[str, str], bool] = {}
        self.counts: dict[tuple[str, str, bool], int] = {}

    def add(self, name: str, check: Check) -> None:
        """Adds a check of readiness."""
        for endpoint in ("readyz", "healthz"):
            self._checks[endpoint][name] = check

    async def respond(self, path: str, query: Query, *, tells: bool = False) -> Response | None:
        """The answer under `/livez`, `/readyz/<check>`, …; None where the path is no health endpoint's.

        `tells`: who asks may know why a check fails.
        """
        endpoint, slash, check = path.removeprefix("/").partition("/")
        if endpoint not in ENDPOINTS:
            return None
        checks = self._checks[endpoint]
        if not slash:
            return await self._all(endpoint, checks, query)
        if check not in checks:
            return None
        problem = await _run(endpoint, check, checks[check])
        if problem is None:
            return Response(200, b"ok", TEXT_TYPE)
        return _text(500, f"internal server error: {problem if tells else 'reason withheld'}\n")

    async def _all(self, endpoint: str, checks: Mapping[str, Check], query: Query) -> Response:
        excluded = set(query.get("exclude", ()))
        lines: list[str] = []
        failed = False
        for name, check in checks.items():
            if name in excluded:
                excluded.discard(name)
                lines.append(f"[+]{name} excluded: ok\n")
                continue
            well = await _run(endpoint, name, check) is None
            self._observe(name, endpoint, well=well)
            failed = failed or not well
            lines.append(f"[+]{name} ok\n" if well else f"[-]{name} failed: reason withheld\n")
        if excluded:
            names = ",".join(go_quote(name) for name in sorted(excluded))
            lines.append(f"warn: some health checks cannot be excluded: no matches for {names}\n")
        if failed:
            return _text(500, f"{''.join(lines)}{endpoint} check failed\n")
        if "verbose" not in query:
            return _text(200, "ok")
        return _text(200, f"{''.join(lines)}{endpoint} check passed\n")

    def _observe(self, name: str, endpoint: str, *, well: bool) -> None:
        self.results[name, endpoint] = well
        self.counts[name, endpoint, well] = self.counts.get((name, endpoint, well), 0) + 1


async def _run(endpoint: str, name: str, check: Check) -> str | None:
    try:
        problem = await check()
    except Exception as error:  # noqa: BLE001 - whatever a check dies of is its finding
        problem = repr(error)
    if problem is not None:
        _log.warning("health-check-failed endpoint=%s check=%s problem=%s", endpoint, name, problem)
    return problem


def _text(status: int, text: str) -> Response:
    return Response(status, text.encode(), TEXT_TYPE, (NOSNIFF,))
