"""The `continue` token: where a paged list goes on, and as of which revision. Upstream: storage/continue.go."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Final

import orjson

from clusterling.machinery import strictjson
from clusterling.machinery.errors import ApiError, bad_request, expired
from clusterling.machinery.gotext import json_type
from clusterling.machinery.meta import Object

_NO_BASE64: Final = re.compile(rb"[^A-Za-z0-9_-]")

INCONSISTENT: Final = -1  # The revision of a token that goes on at whatever is current.

# How long the pages of a list are there after the first. As long as history is kept at least (controllers/history.py), and
# no longer where nothing has changed: clients are to meet the answer where they are tried, as with kube-apiserver, which
# compacts whether or not anything has changed.
PAGES_S: Final = 300

LIST_TOO_OLD: Final = "The resourceVersion for the provided list is too old."
CONTINUE_TOO_OLD: Final = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)


@dataclass(frozen=True, slots=True)
class Continuation:
    """Goes on after the key `last`, which is relative to the listed collection, as of `revision`, or `INCONSISTENT`.

    `begun_s`: when the first page was given, in whole seconds since the epoch; 0 is not known, and long ago.
    """

    last: str
    revision: int
    begun_s: int = 0

    def is_over(self, now_s: float) -> bool:
        """Its pages are there no longer. (What has changed since may be gone from the store as well.)"""
        return self.revision != INCONSISTENT and now_s - self.begun_s > PAGES_S

    def too_old(self) -> ApiError:
        """410, with a token that goes on inconsistently."""
        error = expired(CONTINUE_TOO_OLD)
        error.metadata = {"continue": encode(Continuation(self.last, INCONSISTENT))}
        return error


def encode(to: Continuation) -> str:
    """The token. The time in it is ours, and the rest as upstream has it."""
    token = {"v": "meta.k8s.io/v1", "rv": to.revision, "start": f"{to.last}\0"}
    if to.begun_s:
        token["begun"] = to.begun_s
    return base64.urlsafe_b64encode(orjson.dumps(token)).rstrip(b"=").decode()


def decode(token: str) -> Continuation:
    """What `encode` was given. Raises ApiError 400 for anything that it did not make."""
    try:
        return _decoded(token)
    except ValueError as error:
        raise bad_request(f"invalid continue token: continue key is not valid: {error}") from error


def _decoded(token: str) -> Continuation:
    fields, _ = strictjson.parse(_unwrapped(token.encode("utf-8", "surrogatepass")))
    if fields is None:
        fields = {}
    if not isinstance(fields, dict):
        kind = json_type(fields)
        raise ValueError(f"json: cannot unmarshal {kind} into Go value of type storage.continueToken")  # noqa: TRY004
    version, start = _text(fields, "v"), _text(fields, "start")
    revision = _number(fields, "rv")
    if version != "meta.k8s.io/v1":
        raise ValueError(f"server does not recognize this encoded version {version}")
    if revision == 0:
        raise ValueError("incorrect encoded start resourceVersion (version meta.k8s.io/v1)")
    if not start:
        raise ValueError("encoded start key empty (version meta.k8s.io/v1)")
    last = start.removesuffix("\0")
    if any(segment in ("", ".", "..") for segment in last.split("/")):
        raise ValueError(start)
    return Continuation(last, max(revision, INCONSISTENT), _number(fields, "begun"))


def _unwrapped(token: bytes) -> bytes:
    """The bytes that are in unpadded base64, or what Go says of what is none."""
    wrong = _NO_BASE64.search(token)
    if wrong is not None or len(token) % 4 == 1:
        at = len(token) - 1 if wrong is None else wrong.start()
        raise ValueError(f"illegal base64 data at input byte {at}")
    return base64.urlsafe_b64decode(token + b"=" * (-len(token) % 4))


def _text(fields: Object, name: str) -> str:
    value: object = fields.get(name)
    if value is None or isinstance(value, str):
        return value or ""
    raise _mistyped(name, value, "string")


def _number(fields: Object, name: str) -> int:
    value: object = fields.get(name)
    if value is None:
        return 0
    if isinstance(value, int) and not isinstance(value, bool) and -(1 << 63) <= value < 1 << 63:
        return value
    raise _mistyped(name, value, "int64")


def _mistyped(name: str, value: object, go_type: str) -> ValueError:
    into = f"Go struct field continueToken.{name} of type {go_type}"
    return ValueError(f"json: cannot unmarshal {json_type(value)} into {into}")
