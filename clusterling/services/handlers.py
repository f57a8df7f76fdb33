"""One function a verb: decode → one ObjectStore call → encode. What is said here is said by upstream's handlers.

Upstream: apiserver/pkg/endpoints/handlers/{get,create,update,patch,delete,watch}.go; which verb a path has:
apiserver/pkg/endpoints/installer.go for built-in kinds, apiextensions' customresource_handler.go for the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, TypeVar

import orjson
from msgspec import structs

from clusterling.machinery import codec
from clusterling.machinery.errors import (
    ApiError,
    bad_request,
    go_quote,
    invalid,
    invalid_value,
    method_not_supported,
    no_such_resource,
    not_found,
)
from clusterling.machinery.meta import GroupVersion, Object
from clusterling.machinery.table import Include
from clusterling.registry import views
from clusterling.registry.listing import Listing
from clusterling.registry.options import DeleteOptions, ToldBy, WriteOptions
from clusterling.registry.receiving import Undecodable, receive
from clusterling.registry.resource import Served, Subresource, SubresourceCall
from clusterling.registry.strategy import Context
from clusterling.services import parameters, patching, scale, websocket
from clusterling.services.negotiation import (
    FORMS,
    METADATA_FORMS,
    NO_FORMS,
    Encoding,
    Framing,
    accept,
    body_type,
    decode_as,
    decode_body,
    in_row_order,
    include_object,
    is_routed,
    not_routed,
    row_keys,
    wants_pretty,
)
from clusterling.services.request import BODY_BYTES_MAX, Request, Response, StreamingResponse
from clusterling.services.requestinfo import RequestInfo, first
from clusterling.services.watch import open_watch
from clusterling.services.workers.pool import TooMuch, Workers

if TYPE_CHECKING:
    from clusterling.services.app import App, Cluster


# Bodies up to here are decoded where they are; a millisecond of JSON, but YAML takes 3 µs a value.
DECODE_BYTES_MAX: Final = 64 * 1024

# Lists and Tables above this many bytes or rows take longer than a turn of the loop is worth.
JOIN_BYTES_MAX: Final = 1024 * 1024
LIST_BYTES_KEPT: Final = 4 << 20  # A longer one would take too much of what all lists may.
ROWS_MAX: Final = 100
SUM_VALUES: Final = 5_000  # Values whose lengths are added at once: a fifth of a millisecond.

_MADE_SINGLY: Final = frozenset({"Table", "PartialObjectMetadataList"})

_T = TypeVar("_T")

Verb = Callable[["App", Request, Served], Awaitable[Response]]


def find(served: Served, info: RequestInfo, method: str) -> Verb:
    """The function for a request whose path fits the kind. Raises ApiError 404 or 405."""
    resource = served.resource
    if method == "HEAD" and resource.builtin:
        raise not_allowed(served, "")
    if info.subresource:
        return _find_part(served, info)
    verb = info.verb
    if verb == "proxy":
        raise no_such_resource()
    if verb not in resource.verbs or verb not in _VERBS:
        raise not_allowed(served, verb)
    named = bool(info.name) or verb in {"list", "watch"}
    if named is (verb in {"create", "deletecollection"}):
        # The handler of custom resources does not look at what it does not need, and asks for what it does.
        if resource.builtin or verb == "deletecollection":
            raise not_allowed(served, verb)
        if not named:
            raise bad_request("name must be provided")
    return _VERBS[verb]


def _find_part(served: Served, info: RequestInfo) -> Verb:
    resource, part, verb = served.resource, info.subresource, info.verb
    own = resource.subresources.get(part)
    if own is not None:
        if verb not in own.verbs:
            raise not_allowed(served, verb)
        return call_subresource
    if part == "scale" and served.version.scale is not None:
        verbs = _SCALE_VERBS
    elif part == "status" and (served.version.status or part in resource.parts):
        verbs = _PART_VERBS
    elif part in resource.parts:
        verbs = _REPLACE_VERBS if part == "finalize" else _PART_VERBS
    elif resource.builtin:
        raise no_such_resource()
    else:
        raise not_found(served.plural, served.group, info.name)
    if verb not in verbs:
        raise not_allowed(served, verb)
    return verbs[verb]


def not_allowed(served: Served, verb: str) -> ApiError:
    """405: by upstream's router for built-in kinds, by its handler for the others."""
    if served.resource.builtin:
        return ApiError(
            405, "MethodNotAllowed", "the server does not allow this method on the requested resource", {}
        )
    return method_not_supported(served.plural, served.group, verb)


# ---------------------------------------------------------------------- reading


async def get(app: App, request: Request, served: Served) -> Response:
    encoding = _encoding(request)
    info, query = request.info, request.info.query
    value = await _cluster(request).objects.get(
        served,
        _namespace(served, info),
        info.name,
        resource_version=parameters.read_version(query) if query else "",
    )
    if encoding.is_plain:
        return Response(200, value)
    return _object_response(encoding, served, request, 200, value)


async def list_objects(app: App, request: Request, served: Served) -> Response:
    info = request.info
    encoding = _encoding(request)
    options = parameters.list_options(info.query, served, info.name)
    include = _include(encoding, info)
    cluster, namespace = _cluster(request), _namespace(served, info)
    stamp = cluster.objects.stamp(served, namespace, options) if encoding.is_plain else None
    key = (cluster.id, stamp)
    if key in app.lists:
        return Response(200, app.lists.get(key, bytes, len), encoding.content_type)
    listing = await cluster.objects.list(served, namespace, options, app.turnstile.turns(request.tenant))
    answer = await _listed(app, request.tenant, encoding, served, listing, include)
    if stamp is not None and not answer.rest and len(answer.body) <= LIST_BYTES_KEPT:
        app.lists.get(key, lambda: answer.body, len)
    return answer


async def _listed(
    app: App, tenant: Hashable, encoding: Encoding, served: Served, listing: Listing, include: Include
) -> Response:
    """A list as the answer, made in turns where it is long."""
    # A length times an average: looking at each value would cost what it shall save.
    values = listing.values
    big = len(values) * len(values[0]) > JOIN_BYTES_MAX if values else False
    if big and not encoding.target and (encoding.is_plain or sum(map(len, values)) > JOIN_BYTES_MAX):
        # Neither YAML nor indented, where it is so long (`Encoding.document`).
        parts = encoding.parts(served, listing)
        size = encoding.parts_bytes(served, listing, await _bytes(app, tenant, values))
        body = await app.turnstile.run(tenant, lambda: next(parts), long=True)
        return Response(200, body, encoding.content_type, rest=parts, rest_bytes=size - len(body))
    if encoding.target in _MADE_SINGLY and len(values) > ROWS_MAX:
        singly = encoding.partials(listing)
        if encoding.target == "Table":
            listing = in_row_order(listing, await app.turnstile.slices(tenant, row_keys(served, listing)))
            singly = encoding.rows(served, listing, include=include)
        rows = await app.turnstile.slices(tenant, singly)
        body = await app.turnstile.run(
            tenant, lambda: encoding.list(served, listing, include=include, rows=rows), long=True
        )
    elif big or (len(values) > ROWS_MAX and not encoding.is_plain):
        body = await app.turnstile.run(tenant, lambda: encoding.list(served, listing, include=include))
    else:
        body = encoding.list(served, listing, include=include)
    return Response(200, body, encoding.content_type)


async def _bytes(app: App, tenant: Hashable, values: Sequence[bytes]) -> int:
    """How long they are together."""
    if len(values) <= SUM_VALUES:
        return sum(map(len, values))
    some = (values[start : start + SUM_VALUES] for start in range(0, len(values), SUM_VALUES))
    return sum(await app.turnstile.slices(tenant, (sum(map(len, part)) for part in some)))


async def watch(app: App, request: Request, served: Served) -> Response:
    info = request.info
    encoding = _encoding(request)
    options = parameters.watch_options(info.query, served, info.name)
    timeout_s = parameters.watch_timeout_s(info.query)
    upgrades = request.chunked and request.method == "GET" and websocket.is_asked(request.headers)
    framing = Framing.WEBSOCKET if upgrades else Framing.CHUNKED if request.chunked else Framing.PLAIN
    include = _include(encoding, info)
    stream = await open_watch(
        app.streams,
        _cluster(request).objects,
        served,
        _namespace(served, info),
        options,
        encoding.frame_codec(served, framing=framing, include=include),
        timeout_s=timeout_s,
        tenant=request.tenant,
    )
    if not upgrades:
        return StreamingResponse(stream, encoding.stream_type)
    answer = websocket.handshake(request.headers)
    if isinstance(answer, Response):
        await stream.close()
        return answer
    return StreamingResponse(stream, "", answer, 101)


# ---------------------------------------------------------------------- writing


async def create(app: App, request: Request, served: Served) -> Response:
    info = request.info
    encoding = _encoding(request)
    content_type = request.headers.get("Content-Type")
    body_type(content_type)
    body = await request.read(BODY_BYTES_MAX)
    options = _write_options(request, "CreateOptions", _told_by(content_type))
    obj, duplicates = await _decoded(app, request, body, partial(decode_body, content_type, body, served))
    if duplicates:
        options = replace(options, duplicates=tuple(duplicates))
    ctx = _context(request, dry_run=options.dry_run)
    try:
        _check_kind(request, served, obj)
    except ApiError:
        if not served.resource.builtin:
            # What is wrong with the body is told first.
            receive(ctx, served, obj, options)
        raise
    value = await ctx.objects.create(ctx, served, _namespace(served, info), obj, options)
    return _object_response(encoding, served, request, 201, value)


async def _decoded(app: App, request: Request, body: bytes, decode: Callable[[], _T]) -> _T:
    """What `decode` makes of the body. A big one is decoded beside the loop, which gets the interpreter every 5 ms.

    Raises TooMuch where the whole request is worth giving away.
    """
    if app.workers is not None and app.workers.take(request, body, request.headers.get("Content-Type", "")):
        raise TooMuch
    if len(body) <= DECODE_BYTES_MAX:
        return decode()
    async with app.decoding:
        return await asyncio.to_thread(decode)


async def update(app: App, request: Request, served: Served) -> Response:
    info = request.info
    encoding = _encoding(request)
    content_type = request.headers.get("Content-Type")
    body = await request.read(BODY_BYTES_MAX)
    options = _write_options(request, "UpdateOptions", _told_by(content_type))
    obj, duplicates = await _decoded(app, request, body, partial(decode_body, content_type, body, served))
    if served.resource.builtin:
        _check_kind(request, served, obj)
    if duplicates:
        options = replace(options, duplicates=tuple(duplicates))
    ctx = _context(request, dry_run=options.dry_run, weighs=app.workers)
    try:
        if obj["apiVersion"] != served.api_version:
            raise _version_mismatch(obj["apiVersion"], served.group_version)
        _check_place(served, info, obj)
    except ApiError:
        # What is wrong with the body is told first.
        receive(ctx, served, obj, options)
        raise
    value, created = await ctx.objects.update(ctx, served, _namespace(served, info), info.name, obj, options)
    return _object_response(encoding, served, request, 201 if created else 200, value)


async def patch(app: App, request: Request, served: Served) -> Response:
    info = request.info
    kind = patching.patch_type(request.headers.get("Content-Type"), served, info.query)
    encoding = _encoding(request)
    body = await request.read(BODY_BYTES_MAX)
    if kind is patching.PatchType.APPLY:
        return await _apply(app, request, served, encoding, body)
    options = _write_options(request, "PatchOptions", _PATCHES_TOLD_BY[kind])
    read = partial(patching.read, part=info.subresource, validation=options.field_validation)
    change, duplicates = await _decoded(app, request, body, partial(read, kind, body, served))
    if duplicates:
        options = replace(options, duplicates=tuple(duplicates))
    ctx = _context(request, dry_run=options.dry_run, weighs=app.workers)
    try:
        value = await ctx.objects.patch(ctx, served, _namespace(served, info), info.name, change, options)
    except Undecodable as error:
        raise patching.refused(change, error) from error
    return _object_response(encoding, served, request, 200, value)


async def _apply(app: App, request: Request, served: Served, encoding: Encoding, body: bytes) -> Response:
    """Server-side apply: the body says all that its field manager wants of the object."""
    info = request.info
    options = parameters.apply_options(info.query)
    ctx = _context(request, dry_run=options.dry_run, weighs=app.workers)
    applied, twice = await _decoded(app, request, body, partial(patching.read_applied, body))
    if twice:
        options = replace(options, duplicates=(twice,))
    namespace = _namespace(served, info)
    value, created = await ctx.objects.apply(ctx, served, namespace, info.name, applied, options)
    return _object_response(encoding, served, request, 201 if created else 200, value)


async def delete(app: App, request: Request, served: Served) -> Response:
    info = request.info
    encoding = _encoding(request)
    options, may_wait = await _delete_options(app, request)
    ctx = _context(request, dry_run=options.dry_run, weighs=app.workers)
    value, gone = await ctx.objects.delete(ctx, served, _namespace(served, info), info.name, options)
    if not gone or served.resource.strategy.returns_deleted_object:
        # 202 is given only to those who asked by the old name for dependents to go: it would break others.
        return _object_response(encoding, served, request, 202 if may_wait and not gone else 200, value)
    details = {"name": info.name, "group": served.group, "kind": served.plural, "uid": views.uid_of(value)}
    status: Object = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {key: text for key, text in details.items() if text},
    }
    return Response(200, encoding.document(orjson.dumps(status)), encoding.content_type)


async def delete_collection(app: App, request: Request, served: Served) -> Response:
    info = request.info
    encoding = _encoding(request)
    which = parameters.list_options(info.query, served)
    options, _ = await _delete_options(app, request)
    ctx = _context(request, dry_run=options.dry_run)
    listing = await ctx.objects.delete_collection(ctx, served, _namespace(served, info), which, options)
    return await _listed(app, request.tenant, encoding, served, listing, "Metadata")


async def _delete_options(app: App, request: Request) -> tuple[DeleteOptions, bool]:
    """From the body, else from the query; and whether `orphanDependents=false` was said in so many words."""
    query = request.info.query
    body = await request.read(BODY_BYTES_MAX)
    if not body:
        asked = query.get("orphanDependents")
        options = parameters.delete_options(query)
        return options, bool(asked) and options.propagation == "Background"
    expected = codec.Expected("meta.k8s.io/v1", "DeleteOptions", typed=True)
    try:
        decode = partial(decode_as, request.headers.get("Content-Type"), body, expected)
        document, _ = await _decoded(app, request, body, decode)
    except ApiError as error:
        raise _bare(error) from error
    if document.get("kind") != "DeleteOptions":
        version = document.get("apiVersion", "")
        raise bad_request(
            f"no kind {go_quote(document.get('kind', ''))} is registered for version {go_quote(version)} "
            'in scheme "pkg/runtime/scheme.go:111"'
        )
    return parameters.delete_options_of(document), document.get("orphanDependents") is False


def _bare(error: ApiError) -> ApiError:
    """Options are told what is wrong with them without the frame that an object's body gets."""
    before, found, rest = error.message.partition("must be of type DeleteOptions): ")
    if not found or not before.startswith("the object provided is unrecognized ("):
        return error
    return bad_request(rest.rpartition(" (")[0])


# ---------------------------------------------------------------------- parts


async def call_subresource(app: App, request: Request, served: Served) -> Response:
    """A subresource that computes its answer (`kubeconfig`, `token`)."""
    info = request.info
    part = served.resource.subresources[info.subresource]
    namespace = _namespace(served, info)
    if part.connects:
        # Options of its own are in the query, and what it answers is not for us to encode.
        return await _connect(request, served, part, namespace)
    encoding = accept(request.headers.get("Accept"), forms=NO_FORMS, pretty=_pretty(request))
    options = _write_options(request, "CreateOptions")
    ctx = _context(request, dry_run=options.dry_run)
    body = None
    if info.verb in {"create", "update", "patch"}:
        body = await _part_body(app, request, ctx, part, options)
    parent = await ctx.objects.read(served, namespace, info.name)
    call = SubresourceCall(info.verb, info.name, namespace, body, parent, info.query)
    answer = await part.function(ctx, call)
    status = 201 if info.verb == "create" else 200
    return Response(status, encoding.document(orjson.dumps(answer)), encoding.content_type)


async def _connect(request: Request, served: Served, part: Subresource, namespace: str) -> Response:
    ctx = _context(request, dry_run=False)
    info = request.info
    parent = await ctx.objects.read(served, namespace, info.name)
    call = SubresourceCall(info.verb, info.name, namespace, None, parent, info.query)
    answer = await part.function(ctx, call)
    return Response(200, orjson.dumps(answer))


async def _part_body(
    app: App, request: Request, ctx: Context, part: Subresource, options: WriteOptions
) -> Object:
    body = await request.read(BODY_BYTES_MAX)
    group_version = str(GroupVersion(part.group, part.version))
    expected = codec.Expected(group_version, part.kind, typed=True)
    decode = partial(decode_as, request.headers.get("Content-Type") or None, body, expected)
    document, duplicates = await _decoded(app, request, body, decode)
    for served in part.bodies:
        if document.get("apiVersion") == served.api_version and document.get("kind") == served.kind:
            receive(ctx, served, document, replace(options, duplicates=tuple(duplicates)))
            return document
    if document.get("apiVersion") != group_version or document.get("kind") != part.kind:
        raise codec.cannot_be_handled(
            str(document.get("kind", "")),
            str(document.get("apiVersion", "")),
            part.kind,
            f"no kind {go_quote(str(document.get('kind', '')))} is registered for version "
            f'{go_quote(str(document.get("apiVersion", "")))} in scheme "pkg/runtime/scheme.go:111"',
        )
    return document


async def get_scale(app: App, request: Request, served: Served) -> Response:
    info = request.info
    encoding = _encoding(request)
    obj = orjson.loads(await _cluster(request).objects.get(served, _namespace(served, info), info.name))
    return _scale_response(request, served, encoding, scale.read(obj, served))


async def update_scale(app: App, request: Request, served: Served) -> Response:
    content_type = request.headers.get("Content-Type")
    body = await request.read(BODY_BYTES_MAX)
    options = _write_options(request, "UpdateOptions", _told_by(content_type))
    decode = partial(decode_as, content_type, body, scale.EXPECTED)
    document, duplicates = await _decoded(app, request, body, decode)
    ctx = _context(request, dry_run=options.dry_run, weighs=app.workers)
    scale.hold_body(ctx, served, document, replace(options, duplicates=tuple(duplicates)))
    _check_place(served, request.info, document)
    return await _write_scale(ctx, request, served, options, lambda _: document)


async def patch_scale(app: App, request: Request, served: Served) -> Response:
    kind = patching.patch_type(request.headers.get("Content-Type"), served, request.info.query)
    body = await request.read(BODY_BYTES_MAX)
    if kind is patching.PatchType.APPLY:
        return await _apply_scale(app, request, served, body)
    options = _write_options(request, "PatchOptions", _PATCHES_TOLD_BY[kind])
    read = partial(patching.read, part="scale", validation=options.field_validation)
    change, duplicates = await _decoded(app, request, body, partial(read, kind, body, served))
    ctx = _context(request, dry_run=options.dry_run, weighs=app.workers)
    strict = replace(options, duplicates=tuple(duplicates))

    def patched(current: Object) -> Object:
        made = change(current)
        try:
            scale.hold(ctx, made, strict)
        except Undecodable as error:
            error.patched = change(current)
            raise patching.refused(change, error) from error
        _check_place(served, request.info, made)
        return made

    return await _write_scale(ctx, request, served, options, patched)


async def _apply_scale(app: App, request: Request, served: Served, body: bytes) -> Response:
    """A Scale applied is its number applied to the object, owned as that of its scale."""
    info = request.info
    encoding = _encoding(request)
    options = replace(parameters.apply_options(info.query), written_as="scale")
    ctx = _context(request, dry_run=options.dry_run, weighs=app.workers)
    document, twice = await _decoded(app, request, body, partial(patching.read_applied, body))
    options = replace(options, duplicates=(twice,) if twice else ())
    applied = scale.applied(document, served, info.name)
    namespace = _namespace(served, info)
    value, _ = await ctx.objects.apply(ctx, served, namespace, info.name, applied, options, creates=False)
    return _scale_response(request, served, encoding, scale.read(orjson.loads(value), served))


async def _write_scale(
    ctx: Context,
    request: Request,
    served: Served,
    options: WriteOptions,
    change: Callable[[Object], Object],
) -> Response:
    """`change` maps the Scale that is to the one that shall be; the rest of the object stays."""
    info = request.info
    encoding = _encoding(request)

    def rescale(obj: Object) -> Object:
        return scale.write(obj, served, change(scale.read(obj, served, complete=False)))

    options = replace(options, written_as="scale")
    value = await ctx.objects.patch(ctx, served, _namespace(served, info), info.name, rescale, options)
    return _scale_response(request, served, encoding, scale.read(orjson.loads(value), served))


def _scale_response(request: Request, served: Served, encoding: Encoding, shown: Object) -> Response:
    as_scale = replace(served, version=replace(served.version, columns=scale.COLUMNS))
    return _object_response(encoding, as_scale, request, 200, orjson.dumps(shown))


_PART_VERBS: Final[dict[str, Verb]] = {"get": get, "update": update, "patch": patch}
_REPLACE_VERBS: Final[dict[str, Verb]] = {"update": update}
_SCALE_VERBS: Final[dict[str, Verb]] = {"get": get_scale, "update": update_scale, "patch": patch_scale}
_VERBS: Final[dict[str, Verb]] = {
    "get": get,
    "list": list_objects,
    "watch": watch,
    "create": create,
    "update": update,
    "patch": patch,
    "delete": delete,
    "deletecollection": delete_collection,
}


# ---------------------------------------------------------------------- what they share


def _write_options(
    request: Request,
    kind: Literal["CreateOptions", "UpdateOptions", "PatchOptions"],
    told_by: ToldBy = "place",
) -> WriteOptions:
    return parameters.write_options(request.info.query, kind, request.headers.get("User-Agent"), told_by)


def _told_by(content_type: str | None) -> ToldBy:
    """YAML becomes JSON with its keys sorted before it is looked at."""
    return "keys" if content_type and "yaml" in content_type else "place"


_PATCHES_TOLD_BY: Final[dict[patching.PatchType, ToldBy]] = {
    patching.PatchType.JSON: "place",
    patching.PatchType.MERGE: "keys",
    patching.PatchType.STRATEGIC: "text",
}


def _cluster(request: Request) -> Cluster:
    cluster = request.cluster
    assert cluster is not None, "verbs stand behind authorization, which finds the cluster"
    return cluster


def _context(request: Request, *, dry_run: bool, weighs: Workers | None = None) -> Context:
    """The Context of a write. Its warnings go with the answer, whatever that will be.

    `weighs` looks at the one object that is written, and has the request given away if that is large.
    """
    ctx = _cluster(request).context(request.user, dry_run=dry_run, subresource=_hooked_part(request))
    if weighs is not None:
        ctx = structs.replace(ctx, weigh=partial(weighs.weigh, request))
    if request.standing is not None:
        ctx = structs.replace(ctx, standing=request.standing)
    ctx.warnings.extend(request.warnings)
    request.warnings = ctx.warnings
    return ctx


def _hooked_part(request: Request) -> str:
    """What strategies are told is written. A scale is a change of the object itself."""
    part = request.info.subresource
    return "" if part == "scale" else part


def _namespace(served: Served, info: RequestInfo) -> str:
    """`/api/v1/namespaces/a` means the object a, not one in the namespace a."""
    return info.namespace if served.resource.namespaced else ""


def _pretty(request: Request) -> bool:
    return wants_pretty(request.query, request.headers.get("User-Agent"))


def _encoding(request: Request) -> Encoding:
    header, served = request.headers.get("Accept"), request.served
    if header and served is not None and served.resource.builtin and not is_routed(header):
        raise not_routed(watchable=not request.info.name and request.info.verb in {"list", "watch"})
    is_review = served is not None and served.resource.review is not None
    return accept(header, forms=METADATA_FORMS if is_review else FORMS, pretty=_pretty(request))


def _object_response(
    encoding: Encoding, served: Served, request: Request, status: int, value: bytes
) -> Response:
    if encoding.is_plain:
        return Response(status, value)
    include = _include(encoding, request.info)
    return Response(status, encoding.object(value, served, include=include), encoding.content_type)


def _include(encoding: Encoding, info: RequestInfo) -> Include:
    """What a Table's rows carry of their objects; the parameter means nothing to other forms. Raises ApiError 400."""
    return include_object(first(info.query, "includeObject")) if encoding.target == "Table" else "Metadata"


def _check_kind(request: Request, served: Served, obj: Object) -> None:
    """The body is of the kind and version that the path names. Raises ApiError 400, 422."""
    expected = served.group_version
    api_version, kind = obj["apiVersion"], obj["kind"]
    if kind == served.kind and api_version == served.api_version:
        return
    if not served.resource.builtin:
        if api_version != served.api_version:
            raise _version_mismatch(api_version, expected)
        name = _metadata(obj).get("name")
        wrong = invalid_value("kind", kind, f"must be {served.kind}")
        raise invalid(kind, served.group, name if isinstance(name, str) else "", [wrong])
    got = GroupVersion.parse(api_version)
    from clusterling.packs.builtin import is_published

    if not is_published(got.group, got.version, kind):
        problem = (
            f"no kind {go_quote(kind)} is registered for version {go_quote(api_version)} "
            'in scheme "pkg/runtime/scheme.go:111"'
        )
    elif kind == served.kind:
        raise _version_mismatch(api_version, expected)
    else:
        inner = f"{served.group.partition('.')[0] or 'core'}.{served.kind}"
        problem = f"converting ({got.version}.{kind}) to ({inner}): unknown conversion"
    raise codec.cannot_be_handled(kind, api_version, served.kind, problem)


def _version_mismatch(got: str, expected: GroupVersion) -> ApiError:
    return bad_request(
        f"the API version in the data ({got}) does not match the expected API version ({expected})"
    )


def _check_place(served: Served, info: RequestInfo, obj: Object) -> None:
    """An update names the object that the path names. Raises ApiError 400."""
    namespace = _metadata(obj).get("namespace")
    if served.resource.namespaced and namespace and namespace != info.namespace:
        raise bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    _check_name(info, obj)


def _metadata(obj: Object) -> Object:
    """A body's metadata; empty where it has none that is a map."""
    found = obj.get("metadata")
    return found if isinstance(found, dict) else {}


def _check_name(info: RequestInfo, obj: Object) -> None:
    name = _metadata(obj).get("name")
    if not name:
        raise bad_request(
            f"the name of the object ({info.name} based on URL) was undeterminable: name must be provided"
        )
    if name != info.name:
        raise bad_request(f"the name of the object ({name}) does not match the name on the URL ({info.name})")
