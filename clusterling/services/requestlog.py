"""What the log says of requests that took long or failed: whose they were, what they asked for, and the id that their answer has.

Never more than names: no query, no header field, no body. The values are arguments of the call, so whoever writes the line
can tell them from each other whatever a tenant put into them (cli/logs.py).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from clusterling.services.request import Request, Response

_log = logging.getLogger(__name__)

SLOW_S: Final = 1.0
_FIELDS: Final = " id=%s cluster=%s verb=%s resource=%s namespace=%s name=%s code=%d seconds=%.3f bytes=%d user=%s peer=%s trace=%s"
# What the server has not got at all, or not now: clients come back for it, and each would be a line.
_EXPECTED: Final = frozenset({501, 503})


def tell(request: Request, response: Response, seconds: float) -> None:
    """Writes the line of a request that took longer than `SLOW_S`, or failed."""
    info, served, span = request.info, request.served, request.span
    if served is not None:
        resource = f"{served.plural}.{served.group}" if served.group else served.plural
        if info.subresource:
            resource = f"{resource}/{info.subresource}"
    else:
        resource = info.resource or info.path
    failed = response.status >= 500
    _log.log(
        logging.INFO if response.status in _EXPECTED and seconds <= SLOW_S else logging.WARNING,
        ("request-failed" if failed else "request-slow") + _FIELDS,
        request.id,
        # Only one that is there: names that anybody can make up would each be a source of lines of its own.
        "" if request.cluster is None else request.cluster.name,
        info.verb or request.method,
        resource,
        info.namespace,
        info.name,
        response.status,
        seconds,
        response.size,
        request.user.name,
        request.peer.address,
        "" if span is None else span.trace_id,
    )
