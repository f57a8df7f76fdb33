"""The `continue` token: where a paged list goes on, and as of which revision. Upstream: storage/continue.go."""

from __future__ import annotations

import base64
import binascii
from typing import Final

import orjson

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
        padded = token.encode("ascii") + b"=" * (-len(token) % 4)
        fields = orjson.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        version, revision, start = fields["v"], fields["rv"], fields["start"]
    except (ValueError, binascii.Error, KeyError, TypeError) as error:
        raise bad_request(f"continue key is not valid: {error}") from error
    if version != "meta.k8s.io/v1":
        raise bad_request(
            f"continue key is not valid: server does not recognize this encoded version {version}"
        )
    if not isinstance(revision, int) or isinstance(revision, bool) or revision == 0:
        raise bad_request(
            "continue key is not valid: incorrect encoded start resourceVersion (version meta.k8s.io/v1)"
        )
    if not isinstance(start, str) or not start:
        raise bad_request("continue key is not valid: encoded start key empty (version meta.k8s.io/v1)")
    last = start.removesuffix("\0")
    if any(segment in ("", ".", "..") for segment in last.split("/")):
        raise bad_request(f"continue key is not valid: {start}")
    return last, revision


def too_old(last: str) -> ApiError:
    """410 for a token whose revision is compacted, with one that goes on inconsistently."""
    error = expired(CONTINUE_TOO_OLD)
    error.metadata = {"continue": encode(last, INCONSISTENT)}
    return error
