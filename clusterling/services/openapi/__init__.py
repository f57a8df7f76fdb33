"""OpenAPI: `/openapi/v3`, its documents, and `/openapi/v2`, made from a catalog. Pure.

A document's hash is that of what it is made from, so the index that names all hashes costs no document: those are made
when asked for. Documents and their fragments are kept by content within a budget of bytes, shared by all
clusters of the process; a catalog keeps only its index.

Upstream: kube-openapi/pkg/{handler,handler3}/handler.go, client-go/openapi.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from email.utils import format_datetime
from functools import partial
from typing import Final, TypeVar
from urllib.parse import quote
from weakref import WeakKeyDictionary

import orjson

from clusterling.machinery.schema import Schema
from clusterling.registry.catalog import Catalog
from clusterling.registry.resource import Served
from clusterling.services.discovery import ordered_groups
from clusterling.services.kept import Kept
from clusterling.services.negotiation import parse_accept
from clusterling.services.openapi import v2, v3
from clusterling.services.openapi.operations import base_path
from clusterling.services.openapi.schemas import Definitions, builtin_definitions, kind_names
from clusterling.services.request import Header, Response
from clusterling.version import KUBERNETES, __version__

KEPT_BYTES_MAX: Final = 64 << 20

JSON: Final = "application/json"
PROTOBUF_V2: Final = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
# What kubectl and client-go ask for. Go cannot parse it as a media type, so it is never the answer's.
_PROTOBUF_V2_ASKED: Final = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
_VARY: Final[tuple[Header, ...]] = (("Vary", "Accept"),)
_PREFIX: Final = "/openapi/v3/"

T = TypeVar("T")


_kept: Final = Kept(KEPT_BYTES_MAX)
_hashed: Final[WeakKeyDictionary[Schema, bytes]] = WeakKeyDictionary()


def respond(
    catalog: Catalog,
    path: str,
    *,
    now: datetime,
    asked_hash: str = "",
    accept_header: str | None = None,
    if_none_match: str | None = None,
    definitions: Definitions | None = None,
) -> Response:
    """The answer to a GET below `/openapi/` (the cluster's prefix is cut off).

    `asked_hash` is the query's `hash`; `now` dates the expiry of documents asked for by their hash. What there is not
    answers 404, what is asked for in another form 406, both without a body, as upstream. `definitions`: of built-in
    kinds, None for those of the version served.
    """
    if definitions is None:
        definitions = builtin_definitions()
    if path == "/openapi/v3":
        document, etag = index(catalog, definitions)
        return _conditional(document, JSON, etag, if_none_match)
    if path == "/openapi/v2":
        return _respond_v2(catalog, definitions, accept_header, if_none_match)
    if path.startswith(_PREFIX):
        known = _versions(catalog, definitions).get(path.removeprefix(_PREFIX))
        if known is not None:
            return _respond_v3(catalog, known, definitions, now, asked_hash, accept_header, if_none_match)
    return Response(404, b"", "")


def preparations(
    catalog: Catalog, path: str, *, definitions: Definitions | None = None
) -> Iterator[Callable[[], object]]:
    """The slow parts of answering `path`, one call a resource (a few ms at most), for who would take turns.

    Each is still to be made when it is yielded. `respond` does without them, and makes what is missing at once.
    """
    if definitions is None:
        definitions = builtin_definitions()
    versions = _versions(catalog, definitions)
    if path == "/openapi/v2":
        for one in versions.values():
            for served, key in one.served:
                if ("v2", definitions.fingerprint, key) not in _kept:
                    yield partial(_v2_fragment, served, key, definitions)
        return
    known = versions.get(path.removeprefix(_PREFIX))
    if known is not None and ("v3", known.etag) not in _kept:
        for served, key in known.served:
            if ("v3", definitions.fingerprint, key) not in _kept:
                yield partial(_v3_fragment, served, key, definitions)


class _GroupVersion:
    """A group-version's document before it is made: what goes in, and the hash of that."""

    __slots__ = ("etag", "group", "served", "version")

    def __init__(
        self, group: str, version: str, served: list[tuple[Served, bytes]], definitions: Definitions
    ) -> None:
        self.group = group
        self.version = version
        self.served = served
        parts = (_generation(definitions), f"{group}/{version}".encode(), *(key for _, key in served))
        self.etag = hashlib.sha512(b"\n".join(parts)).hexdigest().upper()


def _generation(definitions: Definitions) -> bytes:
    """Changes whenever the same resources would give other documents."""
    return f"{__version__} {KUBERNETES} {definitions.fingerprint}".encode()


def _resource_key(served: Served) -> bytes:
    """The hash of all that a resource's part of a document is made from; the same in every replica."""
    resource, version = served.resource, served.version
    facts = (
        resource.group,
        version.name,
        resource.names.plural,
        resource.names.kind,
        resource.names.list_kind,
        resource.namespaced,
        resource.builtin,
        resource.verbs,
        resource.parts,
        version.status,
        version.scale is not None,
        version.selectable_fields,
        [(one.name, one.group, one.version, one.kind, one.verbs) for one in resource.subresources.values()],
    )
    schema = _hashed.get(version.schema)
    if schema is None:
        schema = _hashed[version.schema] = hashlib.sha512(orjson.dumps(version.schema.source)).digest()
    return hashlib.sha512(orjson.dumps(facts) + schema).digest()


def _versions(catalog: Catalog, definitions: Definitions) -> dict[str, _GroupVersion]:
    """The documents there are, by their path below `/openapi/v3/`."""

    def make() -> dict[str, _GroupVersion]:
        return {
            base_path(group, version)[1:]: _GroupVersion(
                group,
                version,
                [(served, _resource_key(served)) for served in catalog.served_in(group, version)],
                definitions,
            )
            for group, versions in ordered_groups(catalog)
            for version in versions
        }

    return catalog.view(("openapi", "versions", definitions.fingerprint), make)


def index(catalog: Catalog, definitions: Definitions) -> tuple[bytes, str]:
    """`/openapi/v3`: where each group-version's document is, and the ETag. URLs carry no cluster: clients add theirs."""

    def make() -> tuple[bytes, str]:
        paths = {
            path: {"serverRelativeURL": _url(path, one.etag)}
            for path, one in _versions(catalog, definitions).items()
        }
        document = orjson.dumps({"paths": paths})
        return document, hashlib.sha512(document).hexdigest().upper()

    return catalog.view(("openapi", "index", definitions.fingerprint), make)


def _url(path: str, etag: str) -> str:
    return f"{_PREFIX}{quote(path)}?hash={etag}"


def _respond_v3(
    catalog: Catalog,
    found: _GroupVersion,
    definitions: Definitions,
    now: datetime,
    asked_hash: str,
    accept_header: str | None,
    if_none_match: str | None,
) -> Response:
    if not any(clause.accepts(JSON) for clause in parse_accept(accept_header or "*/*")):
        return Response(406, b"", "", _VARY)
    headers = _VARY
    if asked_hash:
        if asked_hash != found.etag:
            # Relative to this path, so that it stays within the cluster, whatever prefix that is served under.
            path = base_path(found.group, found.version)[1:]
            location = f"{path.rpartition('/')[2]}?hash={found.etag}"
            return Response(301, b"", JSON, (*_VARY, ("Location", location), ("ETag", f'"{found.etag}"')))
        # Never stale: another content has another address.
        expires = format_datetime(now + timedelta(days=365), usegmt=True)
        headers = (*_VARY, ("Cache-Control", "public, immutable"), ("Expires", expires))
    if _matches(if_none_match, found.etag):
        return Response(304, b"", "", (*headers, ("ETag", f'"{found.etag}"')))
    document = v3_document(found, definitions)
    return Response(200, document, JSON, (*headers, ("ETag", f'"{found.etag}"')))


def v3_document(found: _GroupVersion, definitions: Definitions) -> bytes:
    """A group-version's document. Upstream's group-versions are told as upstream tells them, others as CRDs."""

    def make() -> bytes:
        fragments = [_v3_fragment(served, key, definitions) for served, key in found.served]
        ours = any(kind_names(served, definitions)[0] in definitions.source for served, _ in found.served)
        if ours:
            fragments.insert(0, v3.group_fragment(found.group, found.version, definitions))
        reached = definitions.reached(name for part in fragments for name in part.references)
        shared = [_v3_member(name, definitions) for name in reached]
        return v3.document(fragments, definitions, shared, info=v2.INFO if ours else None)

    return _kept.get(("v3", found.etag), make, len)


def _v3_fragment(served: Served, key: bytes, definitions: Definitions) -> v3.Fragment:
    return _kept.get(
        ("v3", definitions.fingerprint, key), lambda: v3.fragment(served, definitions), lambda made: made.size
    )


def _v3_member(name: str, definitions: Definitions) -> bytes:
    return _kept.get(
        ("v3", definitions.fingerprint, name), lambda: v3.member(name, definitions.published(name)), len
    )


def _respond_v2(
    catalog: Catalog, definitions: Definitions, accept_header: str | None, if_none_match: str | None
) -> Response:
    versions = _versions(catalog, definitions)
    etag = hashlib.sha512("".join(one.etag for one in versions.values()).encode()).hexdigest().upper()
    for clause in parse_accept(accept_header or "*/*"):
        for media_type, form in ((JSON, JSON), (_PROTOBUF_V2_ASKED, PROTOBUF_V2), (PROTOBUF_V2, PROTOBUF_V2)):
            if not clause.accepts(media_type):
                continue
            headers: tuple[Header, ...] = (*_VARY, ("ETag", f'"{etag}"'))
            if _matches(if_none_match, etag):
                return Response(304, b"", "", headers)
            document = v2_document(versions.values(), etag, definitions, protobuf=form == PROTOBUF_V2)
            return Response(200, document, form, headers)
    return Response(406, b"", "", _VARY)


def v2_document(
    versions: Iterable[_GroupVersion], etag: str, definitions: Definitions, *, protobuf: bool
) -> bytes:
    """All groups' document, as JSON or as gnostic's protobuf."""

    def make() -> bytes:
        fragments = [_v2_fragment(served, key, definitions) for one in versions for served, key in one.served]
        reached = definitions.reached({name for part in fragments for name in part.references})
        fragments += [_v2_shared(name, definitions) for name in reached]
        return v2.proto_document(fragments) if protobuf else v2.json_document(fragments)

    return _kept.get(("v2", etag, protobuf), make, len)


def _v2_fragment(served: Served, key: bytes, definitions: Definitions) -> v2.Fragment:
    return _kept.get(
        ("v2", definitions.fingerprint, key), lambda: v2.fragment(served, definitions), lambda made: made.size
    )


def _v2_shared(name: str, definitions: Definitions) -> v2.Fragment:
    return _kept.get(
        ("v2", definitions.fingerprint, name),
        lambda: v2.shared_fragment(name, definitions),
        lambda made: made.size,
    )


def _matches(if_none_match: str | None, etag: str) -> bool:
    """Weak comparison with any of a list, as Go's http.ServeContent does it."""
    if not if_none_match:
        return False
    told = (one.strip().removeprefix("W/") for one in if_none_match.split(","))
    return any(one in ("*", f'"{etag}"') for one in told)


def _conditional(body: bytes, content_type: str, etag: str, if_none_match: str | None) -> Response:
    headers = (("ETag", f'"{etag}"'),)
    if _matches(if_none_match, etag):
        return Response(304, b"", "", headers)
    return Response(200, body, content_type, headers)
