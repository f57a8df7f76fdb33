"""OpenAPI: `/openapi/v3`, its documents, and `/openapi/v2`, made from a catalog. Pure.

A document's hash is that of what it is made from, so the index that names all hashes costs no document: those are made
when asked for. Documents and their fragments are kept by content within a budget of bytes, shared by all
clusters of the process; a catalog keeps only its index.

Upstream: kube-openapi/pkg/{handler,handler3}/handler.go, client-go/openapi.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime, timedelta
from email.utils import format_datetime
from functools import partial
from typing import Final, TypeVar
from urllib.parse import quote

import orjson

from clusterling.machinery.meta import GroupVersion
from clusterling.machinery.steps import Steps, at_once
from clusterling.registry.catalog import Catalog
from clusterling.registry.resource import Served
from clusterling.services.conditional import NO_CONDITIONS, Conditions
from clusterling.services.discovery import ordered_groups
from clusterling.services.kept import Kept
from clusterling.services.negotiation import parse_accept
from clusterling.services.openapi import v2, v3
from clusterling.services.openapi.operations import (
    Path,
    base_path,
    core_path,
    group_path,
    groups_path,
    resources_path,
    version_path,
)
from clusterling.services.openapi.schemas import (
    Definitions,
    builtin_definitions,
    is_of_versions,
    of_versions,
)
from clusterling.services.request import Header, Response, page_not_found
from clusterling.version import KUBERNETES, __version__

KEPT_BYTES_MAX: Final = 64 << 20

JSON: Final = "application/json"
PROTOBUF_V2: Final = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
# What kubectl and client-go ask for. Go cannot parse it as a media type, so it is never the answer's.
_PROTOBUF_V2_ASKED: Final = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
_VARY: Final[tuple[Header, ...]] = (("Vary", "Accept"),)
_VARY_V2: Final[tuple[Header, ...]] = (("Vary", "Accept-Encoding"), ("Vary", "Accept"))
_PREFIX: Final = "/openapi/v3/"
# Groups that only upstream's servers know; what serves its custom kinds has the schemes of its Go client (client-go/kubernetes/scheme).
_SERVERS_OWN: Final = frozenset(
    ("admission.k8s.io", "apiextensions.k8s.io", "apiregistration.k8s.io", "imagepolicy.k8s.io")
)

T = TypeVar("T")


_kept: Final = Kept(KEPT_BYTES_MAX)


def respond(
    catalog: Catalog,
    path: str,
    *,
    now: datetime,
    asked_hash: str = "",
    accept_header: str | None = None,
    conditions: Conditions = NO_CONDITIONS,
    definitions: Definitions | None = None,
) -> Response:
    """The answer to a GET below `/openapi/` (the cluster's prefix is cut off).

    `asked_hash` is the query's `hash`; `now` dates the expiry of documents asked for by their hash, and the catalog where it is
    asked for the first time. A document of v3 that there is not answers 404, what is asked for in another form 406, both
    without a body, as upstream. `definitions`: of built-in kinds, None for those of the version served.
    """
    if definitions is None:
        definitions = builtin_definitions()
    copy = _Copy(conditions, catalog.view(("openapi", "modified"), lambda: now.replace(microsecond=0)))
    if path == "/openapi/v3":
        document, etag = index(catalog, definitions)
        return copy.answer(etag, JSON, lambda: document)
    if path == "/openapi/v2":
        return _respond_v2(catalog, definitions, accept_header, copy)
    if path.startswith(_PREFIX):
        known = _documents(catalog, definitions).get(path.removeprefix(_PREFIX))
        if known is not None:
            return _respond_v3(known, definitions, now, asked_hash, accept_header, copy)
        return Response(404, b"", "")
    return page_not_found()


class _Copy:
    """What the client has already, held against a document before that is made."""

    def __init__(self, conditions: Conditions, modified: datetime) -> None:
        self._conditions = conditions
        self._modified = modified

    def answer(
        self, etag: str, content_type: str, make: Callable[[], bytes], headers: tuple[Header, ...] = ()
    ) -> Response:
        headers = (*headers, ("ETag", f'"{etag}"'))
        outcome = self._conditions.outcome(etag, self._modified)
        if outcome == 304:
            return Response(304, b"", "", headers)
        headers = (*headers, ("Last-Modified", format_datetime(self._modified, usegmt=True)))
        return Response(outcome, make() if outcome == 200 else b"", content_type, headers)


def preparing(catalog: Catalog, path: str, *, definitions: Definitions | None = None) -> Steps[None]:
    """The slow parts of answering `path`, for who would take turns. `respond` makes at once what is missing."""
    if definitions is None:
        definitions = builtin_definitions()
    documents = _documents(catalog, definitions)
    if path == "/openapi/v2":
        yield from _preparing_v2(list(documents.values()), definitions)
        return
    known = documents.get(path.removeprefix(_PREFIX))
    if known is not None and ("v3", known.etag) not in _kept:
        for served, key in known.served:
            place = ("v3", definitions.fingerprint, key)
            if place not in _kept:
                fragment = yield from v3.fragment(served, definitions)
                _kept.keep(place, fragment, fragment.size)
                yield


def _preparing_v2(documents: Sequence[_Document], definitions: Definitions) -> Steps[None]:
    etag = _v2_etag(documents)
    if any(("v2", etag, protobuf) in _kept for protobuf in (False, True)):
        return
    for one in documents:
        for served, key in one.served:
            place = ("v2", definitions.fingerprint, key)
            if place not in _kept:
                fragment = yield from v2.fragment(served, definitions)
                _kept.keep(place, fragment, fragment.size)
                yield
    for name in definitions.reached(
        name for part in _v2_fragments(documents, definitions) for name in part.references
    ):
        if ("v2", definitions.fingerprint, name) not in _kept:
            _v2_shared(name, definitions)
            yield


class _Document:
    """A document before it is made: what goes in, and the hash of that.

    `heads`: the paths that are no resource's. `api_version` "": of discovery alone. `builtin`: told as upstream tells its own groups,
    not as it tells those of custom kinds.
    """

    __slots__ = ("api_version", "builtin", "etag", "heads", "path", "served")

    def __init__(
        self,
        path: str,
        definitions: Definitions,
        *,
        heads: Sequence[Path] = (),
        api_version: str = "",
        served: Sequence[tuple[Served, bytes]] = (),
        builtin: bool = True,
    ) -> None:
        self.path = path
        self.heads = heads
        self.api_version = api_version
        self.served = served
        self.builtin = builtin
        parts = (_generation(definitions), path.encode(), *(key for _, key in served))
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
    return hashlib.sha512(orjson.dumps(facts) + version.schema.digest).digest()


def _documents(catalog: Catalog, definitions: Definitions) -> dict[str, _Document]:
    """The documents there are, by their path below `/openapi/v3/`."""

    def make() -> dict[str, _Document]:
        found = [_Document("version", definitions, heads=[version_path()])]
        for group, versions in ordered_groups(catalog):
            of_group = [_of_version(catalog, group, version, definitions) for version in versions]
            if any(one.builtin for one in of_group):
                head = group_path(group) if group else core_path()
                found.append(_Document(head.path.strip("/"), definitions, heads=[head]))
            found += of_group
        if any(one.path.startswith("apis/") for one in found):
            found.append(_Document("apis", definitions, heads=[groups_path()]))
        return {one.path: one for one in sorted(found, key=lambda one: one.path)}

    return catalog.view(("openapi", "documents", definitions.fingerprint), make)


def _of_version(catalog: Catalog, group: str, version: str, definitions: Definitions) -> _Document:
    served = catalog.served_in(group, version)
    builtin = any(one.resource.builtin and definitions.name(group, version, one.kind) for one in served)
    return _Document(
        base_path(group, version)[1:],
        definitions,
        heads=[resources_path(group, version)] if builtin else (),
        api_version=str(GroupVersion(group, version)),
        served=[(one, _resource_key(one)) for one in served],
        builtin=builtin,
    )


def index(catalog: Catalog, definitions: Definitions) -> tuple[bytes, str]:
    """`/openapi/v3`: where each group-version's document is, and the ETag. URLs carry no cluster: clients add theirs."""

    def make() -> tuple[bytes, str]:
        paths = {
            path: {"serverRelativeURL": _url(path, one.etag)}
            for path, one in _documents(catalog, definitions).items()
        }
        document = orjson.dumps({"paths": paths})
        return document, hashlib.sha512(document).hexdigest().upper()

    return catalog.view(("openapi", "index", definitions.fingerprint), make)


def _url(path: str, etag: str) -> str:
    return f"{_PREFIX}{quote(path)}?hash={etag}"


def _respond_v3(
    found: _Document,
    definitions: Definitions,
    now: datetime,
    asked_hash: str,
    accept_header: str | None,
    copy: _Copy,
) -> Response:
    if not any(clause.accepts(JSON) for clause in parse_accept(accept_header or "*/*")):
        return Response(406, b"", "", _VARY)
    headers = _VARY
    if asked_hash:
        if asked_hash != found.etag:
            # Relative to this path, so that it stays within the cluster, whatever prefix that is served under.
            location = f"{found.path.rpartition('/')[2]}?hash={found.etag}"
            return Response(301, b"", JSON, (*_VARY, ("Location", location), ("ETag", f'"{found.etag}"')))
        # Never stale: another content has another address.
        expires = format_datetime(now + timedelta(days=365), usegmt=True)
        headers = (*_VARY, ("Cache-Control", "public, immutable"), ("Expires", expires))
    return copy.answer(found.etag, JSON, lambda: v3_document(found, definitions), headers)


def v3_document(found: _Document, definitions: Definitions) -> bytes:
    """A document. Upstream's group-versions are told as upstream tells them, others as CRDs."""

    def make() -> bytes:
        fragments = [v3.head_fragment(path, definitions) for path in found.heads]
        fragments += [_v3_fragment(served, key, definitions) for served, key in found.served]
        reached = definitions.reached(name for part in fragments for name in part.references)
        versions = _shared_versions(found, definitions)
        shared = [_v3_member(name, versions, definitions) for name in reached]
        return v3.document(fragments, definitions, shared, info=v2.INFO if found.builtin else None)

    return _kept.get(("v3", found.etag), make, len)


def _v3_fragment(served: Served, key: bytes, definitions: Definitions) -> v3.Fragment:
    return _kept.get(
        ("v3", definitions.fingerprint, key),
        lambda: at_once(v3.fragment(served, definitions)),
        lambda made: made.size,
    )


def _shared_versions(found: _Document, definitions: Definitions) -> tuple[str, ...]:
    """The apiVersions that a document tells of options and events: its own, and custom kinds' those of Go's clients."""
    if found.builtin:
        return tuple(dict.fromkeys(("v1", found.api_version)))
    return tuple(one for one in definitions.option_versions if one.partition("/")[0] not in _SERVERS_OWN)


def _v3_member(name: str, versions: tuple[str, ...], definitions: Definitions) -> bytes:
    def make() -> bytes:
        return v3.member(name, of_versions(name, definitions.published(name), versions))

    of = versions if is_of_versions(name) else ()
    return _kept.get(("v3", definitions.fingerprint, name, of), make, len)


def _respond_v2(
    catalog: Catalog, definitions: Definitions, accept_header: str | None, copy: _Copy
) -> Response:
    documents = _documents(catalog, definitions)
    etag = _v2_etag(documents.values())
    for clause in parse_accept(accept_header or "*/*"):
        for media_type, form in ((JSON, JSON), (_PROTOBUF_V2_ASKED, PROTOBUF_V2), (PROTOBUF_V2, PROTOBUF_V2)):
            if not clause.accepts(media_type):
                continue
            make = partial(v2_document, documents.values(), etag, definitions, protobuf=form == PROTOBUF_V2)
            return copy.answer(etag, form, make, _VARY_V2)
    return Response(406, b"", "", _VARY_V2)


def v2_document(
    documents: Collection[_Document], etag: str, definitions: Definitions, *, protobuf: bool
) -> bytes:
    """All groups' document, as JSON or as gnostic's protobuf."""

    def make() -> bytes:
        fragments = _v2_fragments(documents, definitions)
        reached = definitions.reached({name for part in fragments for name in part.references})
        fragments += [_v2_shared(name, definitions) for name in reached]
        return v2.proto_document(fragments) if protobuf else v2.json_document(fragments)

    return _kept.get(("v2", etag, protobuf), make, len)


def _v2_etag(documents: Iterable[_Document]) -> str:
    return hashlib.sha512("".join(one.etag for one in documents).encode()).hexdigest().upper()


def _v2_fragments(documents: Collection[_Document], definitions: Definitions) -> list[v2.Fragment]:
    """All of the document but the definitions that it shares."""
    heads = [_v2_head(path, definitions) for one in documents for path in one.heads]
    return heads + [_v2_fragment(served, key, definitions) for one in documents for served, key in one.served]


def _v2_head(path: Path, definitions: Definitions) -> v2.Fragment:
    return _kept.get(
        ("v2", definitions.fingerprint, path.path),
        lambda: v2.head_fragment(path, definitions),
        lambda made: made.size,
    )


def _v2_fragment(served: Served, key: bytes, definitions: Definitions) -> v2.Fragment:
    return _kept.get(
        ("v2", definitions.fingerprint, key),
        lambda: at_once(v2.fragment(served, definitions)),
        lambda made: made.size,
    )


def _v2_shared(name: str, definitions: Definitions) -> v2.Fragment:
    return _kept.get(
        ("v2", definitions.fingerprint, name),
        lambda: v2.shared_fragment(name, definitions),
        lambda made: made.size,
    )
