"""The `continue` token: where a paged list goes on, and as of which revision. Upstream: storage/continue.go."""

from __future__ import annotations

import base64
from typing import Final

import orjson

from clusterling.machinery import strictjson
from clusterling.machinery.errors import ApiError, bad_request, expired

INCONSISTENT: Final = -1  # The revision of a token that goes on at whatever is current.

LIST_TOO_OLD: Final = "The resourceVersion for the provided list is too old."
CONTINUE_TOO_OLD: Final = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)


def encode(last: str, revision: int) -> str:
    """The token that goes on after the key `last`, which is relative to the listed collection."""
    token = {"v": "meta.k8s.io/v1", "rv": revision, "start": f"{last}\0"}
    return base64.urlsafe_b64encode(orjson.dumps(token)).rstrip(b"=").decode()


def decode(token: str) -> tuple[str, int]:
    """(last key, revision). Raises ApiError 400 for anything that `encode` did not make."""
    try:
        return _decoded(token)
    except ValueError as error:
        raise bad_request(f"invalid continue token: continue key is not valid: {error}") from error


def _decoded(token: str) -> tuple[str, int]:
    padded = token.encode("ascii") + b"=" * (-len(token) % 4)
    fields, _ = strictjson.parse(base64.b64decode(padded, altchars=b"-_", validate=True))
    if not isinstance(fields, dict):
        raise ValueError("the token is no object")  # noqa: TRY004 - one answer for all that is no token
    version, revision, start = fields.get("v"), fields.get("rv"), fields.get("start")
    if version != "meta.k8s.io/v1":
        raise ValueError(f"server does not recognize this encoded version {version}")
    if not isinstance(revision, int) or isinstance(revision, bool) or revision == 0:
        raise ValueError("incorrect encoded start resourceVersion (version meta.k8s.io/v1)")
    if not isinstance(start, str) or not start:
        raise ValueError("encoded start key empty (version meta.k8s.io/v1)")
    last = start.removesuffix("\0")
    if any(segment in ("", ".", "..") for segment in last.split("/")):
        raise ValueError(start)
    return last, revision


def too_old(last: str) -> ApiError:
    """410 for a token whose revision is compacted, with one that goes on inconsistently."""
    error = expired(CONTINUE_TOO_OLD)
    error.metadata = {"continue": encode(last, INCONSISTENT)}
    return error
