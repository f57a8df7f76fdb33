"""Content negotiation: Accept → Encoding, Content-Type → how a body is read. Pure.

The stored bytes of an object are already JSON, so the ordinary Encoding gives them back untouched; only
Tables, PartialObjectMetadata, YAML and pretty printing look inside. Encodings are values without state, shared by
all requests with the same Accept header.

Upstream: apiserver/pkg/endpoints/handlers/{negotiation/negotiate.go,response.go,watch.go}, munnerz/goautoneg.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal, cast
from urllib.parse import unquote_plus

import msgspec
import orjson
from typing_extensions import override

from clusterling.machinery import codec, metaproto, yamltext
from clusterling.machinery.codec import Expected
from clusterling.machinery.errors import ApiError, bad_request, go_quote, not_acceptable
from clusterling.machinery.meta import Object
from clusterling.machinery.table import DEFAULT_COLUMNS, Column, Include, cells
from clusterling.registry.resource import Served

if TYPE_CHECKING:
    from clusterling.registry.listing import Listing

JSON: Final = "application/json"
YAML: Final = "application/yaml"
PROTOBUF: Final = "application/vnd.kubernetes.protobuf"

# What a body may be written in. Answers are JSON or YAML, those of metadata alone protobuf too; to a client that takes none of
# what there is, all three are named, as upstream does.
CONTENT_TYPES: Final = (JSON, YAML, PROTOBUF)

CLAUSES_MAX: Final = 64
# Writing YAML takes half a millisecond a kilobyte and cannot be interrupted; indenting ten a megabyte.
YAML_BYTES_MAX: Final = 16 * 1024
PRETTY_BYTES_MAX: Final = 512 * 1024
_MEMOIZED_BYTES_MAX: Final = 1024

Target = Literal["", "Table", "PartialObjectMetadata", "PartialObjectMetadataList"]
Now = Callable[[], datetime]

# What an answer may be asked for instead of as it is: of objects all, of what is no object nothing, of reviews no Table.
NO_FORMS: Final[frozenset[Target]] = frozenset()
METADATA_FORMS: Final[frozenset[Target]] = frozenset({"PartialObjectMetadata", "PartialObjectMetadataList"})
FORMS: Final[frozenset[Target]] = METADATA_FORMS | {"Table"}
_INCLUDES: Final = frozenset({"", "Metadata", "Object", "None"})
_HUMANS: Final = ("curl", "Wget", "Mozilla/5.0")


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Framing(Enum):
    """How watch events travel: HTTP/1.1 chunks, bare (in process, HTTP/1.0), or WebSocket text frames."""

    CHUNKED = "chunked"
    PLAIN = "plain"
    WEBSOCKET = "websocket"


@dataclass(frozen=True, slots=True)
class Clause:
    """One alternative of an Accept header."""

    type: str
    subtype: str
    params: dict[str, str]
    quality: float = 1.0

    def accepts(self, media_type: str) -> bool:
        """Whether it names the media type, exactly or by a wildcard."""
        kind, _, subtype = media_type.partition("/")
        if self.type == "*":
            return self.subtype == "*"
        return self.type == kind and self.subtype in ("*", subtype)


def parse_accept(header: str) -> list[Clause]:
    """The clauses of an Accept header, wanted most first; at most `CLAUSES_MAX` are looked at.

    Malformed clauses and parameters are dropped, as upstream (goautoneg's ParseAccept) drops them.
    """
    clauses: list[Clause] = []
    for part in header.split(",", CLAUSES_MAX)[:CLAUSES_MAX]:
        clause = _clause(part.strip(" "))
        if clause is not None:
            clauses.append(clause)
    # goautoneg's order is no strict weak one (specificity overrides quality now and then), so the
    # result is that of its algorithm: an insertion sort.
    for index in range(1, len(clauses)):
        at = index
        while at and _before(clauses[at], clauses[at - 1]):
            clauses[at], clauses[at - 1] = clauses[at - 1], clauses[at]
            at -= 1
    return clauses


def _clause(part: str) -> Clause | None:
    media, *texts = part.split(";")
    names = media.split("/")
    kind = names[0].strip(" ")
    if len(names) == 1 or (len(names) == 2 and not names[1]):
        if kind != "*":
            return None
        subtype = "*"
    elif len(names) == 2:
        subtype = names[1].strip(" ")
    else:
        return None
    params: dict[str, str] = {}
    quality = 1.0
    for text in texts:
        pieces = text.split("=")
        if len(pieces) != 2 or not pieces[1]:
            continue
        name = pieces[0].strip(" ")
        if name == "q":
            quality = _quality(pieces[1])
        else:
            params[name] = pieces[1].strip(" ")
    return Clause(kind, subtype, params, quality)


def _quality(text: str) -> float:
    try:
        found = float(text) if text == text.strip() and "_" not in text else 0.0
    except ValueError:
        return 0.0
    return found if found == found else 0.0  # noqa: PLR0124 - NaN compares with nothing


def _before(one: Clause, other: Clause) -> bool:
    return (
        one.quality > other.quality
        or (one.type != "*" and other.type == "*")
        or (one.subtype != "*" and other.subtype == "*")
    )


class _Head(msgspec.Struct, gc=False):
    """What a PartialObjectMetadata takes from an object, left as it is."""

    metadata: msgspec.Raw = msgspec.Raw(b"{}")


class _Revision(msgspec.Struct, gc=False, rename="camel"):
    resource_version: str = ""


_decode_head: Final = msgspec.json.Decoder(_Head).decode
_decode_revision: Final = msgspec.json.Decoder(_Revision).decode


PART_BYTES: Final = (
    256 * 1024
)  # Of a big answer, at least, in a part: copied and encrypted in half a millisecond.


@dataclass(frozen=True, slots=True)
class Encoding:
    """How an answer is written. `target` "" is the objects themselves; `version` that of meta.k8s.io, else "".

    `content_type` is what the answer's header says: a Table's is plain JSON, as upstream's.
    """

    content_type: str = JSON
    target: Target = ""
    version: str = ""
    pretty: bool = False

    @property
    def is_plain(self) -> bool:
        """The stored bytes are the answer."""
        return not self.target and not self.pretty and self.content_type == JSON

    def document(self, value: bytes) -> bytes:
        """Any JSON document that is not an object of the resource (Status, Scale, a review) in this media type.

        Big ones stay as they are: JSON is YAML too, and nobody reads megabytes with his eyes. In protobuf it is a Status:
        metadata is asked for, of what has it.
        """
        if self.content_type == PROTOBUF:
            return metaproto.status(orjson.loads(value))
        if self.content_type == YAML and len(value) <= YAML_BYTES_MAX:
            return yamltext.dump(orjson.loads(value))
        if self.pretty and len(value) <= PRETTY_BYTES_MAX:
            return orjson.dumps(orjson.loads(value), option=orjson.OPT_INDENT_2)
        return value

    def object(
        self, value: bytes, served: Served, *, include: Include = "Metadata", now: Now = _utc_now
    ) -> bytes:
        """One object as the answer. Raises ApiError 406 where a list form was asked for."""
        if not self.target:
            return value if self.content_type == JSON and not self.pretty else self.document(value)
        if self.target == "PartialObjectMetadataList":
            raise not_acceptable_form(
                f"you requested PartialObjectMetadataList, but the requested object is not a list (*{_go_type(served)})"
            )
        if self.target == "Table":
            metadata = _decode_head(value).metadata
            revision = _decode_revision(metadata).resource_version
            return self.document(
                _table(
                    self.version,
                    _column_definitions(served.version.columns),
                    _list_meta(revision),
                    (_row(self.version, served, value, include, now()),),
                )
            )
        if self.content_type == PROTOBUF:
            return metaproto.partial_object(self.version, _metadata_of(value))
        return self.document(_partial(self.version, value))

    def rows(
        self, served: Served, listing: Listing, *, include: Include = "Metadata", now: Now = _utc_now
    ) -> Iterator[bytes]:
        """The rows of a list's Table one by one, in the order of its values, for who would take turns."""
        moment = now()
        return (_row(self.version, served, value, include, moment) for value in listing.values)

    def partials(self, listing: Listing) -> Iterator[bytes]:
        """The items of a list of PartialObjectMetadata one by one, for who would take turns."""
        if self.content_type == PROTOBUF:
            return (metaproto.partial_item(_metadata_of(value)) for value in listing.values)
        return (_partial(self.version, value) for value in listing.values)

    def parts(self, served: Served, listing: Listing) -> Iterator[bytes]:
        """A list that is plain JSON in parts, for who would take turns: together they are what `list` makes of it."""
        assert not self.target, "other forms are made of rows"
        head, cut = self._head(served, listing)
        opening = b"{" if cut else b""
        some, size = [head], len(head)
        between = opening
        for value in listing.values:
            some += (between, value[cut:] if cut else value)
            between = b"," + opening
            size += len(value)
            if size >= PART_BYTES:
                yield from _cut(b"".join(some))
                some, size = [], 0
        yield b"%b]}" % b"".join(some)

    def parts_bytes(self, served: Served, listing: Listing, values_bytes: int) -> int:
        """How long all `parts` are together, for values that are so long."""
        head, cut = self._head(served, listing)
        count = len(listing.values)
        opened = max(cut - 1, 0) * count
        return len(head) + values_bytes - opened + max(count - 1, 0) + len(b"]}")

    def _head(self, served: Served, listing: Listing) -> tuple[bytes, int]:
        """What stands before the items of a list, and how much of each item stands there already."""
        metadata = _list_meta(listing.resource_version, listing.continue_token, listing.remaining)
        builtin = served.resource.builtin
        if not builtin and not listing.continue_token:
            metadata = metadata[:-1] + b',"continue":""}'
        head = b'%b%b,"items":[' % (_list_head(served.resource.names.list_kind, served.api_version), metadata)
        # All values of a resource at a version begin with the same head, so cutting it is a slice.
        return head, len(_item_head(served.kind, served.api_version)) if builtin else 0

    def list(
        self,
        served: Served,
        listing: Listing,
        *,
        include: Include = "Metadata",
        now: Now = _utc_now,
        rows: Sequence[bytes] | None = None,
    ) -> bytes:
        """A list as the answer; `rows` are those of its Table, or the `partials`, if they were already made.

        Raises ApiError 406 where the form of a single object was asked for.

        Items of built-in kinds do not say what they are, custom ones do: so Go's typed and unstructured lists write it.
        """
        if not self.target:
            head, cut = self._head(served, listing)
            return self.document(_joined(head, listing.values, cut))
        metadata = _list_meta(listing.resource_version, listing.continue_token, listing.remaining)
        if self.target == "PartialObjectMetadata":
            raise not_acceptable_form(
                f"you requested PartialObjectMetadata, but the requested object is a list (*{_go_type(served)}List)"
            )
        if self.target == "Table":
            if rows is None:
                listing = in_row_order(listing, tuple(row_keys(served, listing)))
                rows = tuple(self.rows(served, listing, include=include, now=now))
            columns = _column_definitions(served.version.columns)
            return self.document(_table(self.version, columns, metadata, rows))
        partials = tuple(self.partials(listing)) if rows is None else rows
        if self.content_type == PROTOBUF:
            return metaproto.partial_list(self.version, orjson.loads(metadata), partials)
        head = _list_head("PartialObjectMetadataList", f"meta.k8s.io/{self.version}")
        if not partials:
            return self.document(b'%b%b,"items":null}' % (head, metadata))
        return self.document(_joined(b'%b%b,"items":[' % (head, metadata), partials))

    @property
    def stream_type(self) -> str:
        """The media type of a watch: JSON's does not say that it is a stream."""
        return f"{PROTOBUF};stream=watch" if self.content_type == PROTOBUF else self.content_type

    def frame_codec(
        self,
        served: Served,
        *,
        framing: Framing = Framing.CHUNKED,
        include: Include = "Metadata",
        now: Now = _utc_now,
    ) -> Frames:
        """How this client's watch events are written. Raises ApiError 406 for YAML, which has no stream form."""
        if self.content_type == PROTOBUF:
            return ProtobufFrames(framing, self.version)
        if self.content_type != JSON:
            raise not_acceptable((f"{JSON};stream=watch", f"{PROTOBUF};stream=watch"))
        if not self.target:
            return Frames(framing)
        if self.target == "Table":
            return TableFrames(framing, served, self.version, include, now)
        # A watch has no list form: a client that asks for it gets the items'.
        return MetadataFrames(framing, self.version)


_PLAIN: Final = Encoding()


def accept(header: str | None, *, forms: frozenset[Target] = FORMS, pretty: bool = False) -> Encoding:
    """What the client's Accept header asks for. Raises ApiError 406 with the media types there are.

    `forms`: those that the answer has besides its own. `pretty`: as `wants_pretty` says.
    """
    if not header or header == JSON:
        found = _PLAIN
    elif len(header) <= _MEMOIZED_BYTES_MAX:
        found = _accept_memoized(header, forms)
    else:
        found = _negotiate(header, forms)
    return replace(found, pretty=True) if pretty and not found.pretty else found


def _negotiate(header: str, forms: frozenset[Target]) -> Encoding:
    for clause in parse_accept(header):
        for media_type in (JSON, YAML, PROTOBUF):
            if clause.accepts(media_type):
                found = _encoding(media_type, clause.params, forms)
                if found is not None:
                    return found
    raise not_acceptable(CONTENT_TYPES)


_accept_memoized: Final = lru_cache(maxsize=1024)(_negotiate)


def _encoding(media_type: str, params: dict[str, str], forms: frozenset[Target]) -> Encoding | None:
    """None where the parameters ask for what is not to be had: the next clause may do."""
    stream = params.get("stream", "")
    if stream and (stream != "watch" or media_type == YAML):
        return None
    if params.get("sv"):
        return None
    pretty = params.get("pretty") == "1"
    if media_type == PROTOBUF:
        forms &= METADATA_FORMS
    elif not params.keys() & {"as", "g", "v"}:
        return Encoding(media_type, pretty=pretty)
    group, version = params.get("g", ""), params.get("v", "")
    kind = next((form for form in forms if form == params.get("as")), None)
    if kind is None or group != "meta.k8s.io" or version not in ("v1", "v1beta1"):
        return None
    return Encoding(media_type, kind, version, pretty)


@lru_cache(maxsize=1024)
def is_routed(header: str) -> bool:
    """Whether upstream's router finds a route of a built-in kind for this Accept header (go-restful: matchesAccept)."""
    asked = {part.partition(";")[0].strip(" ") for part in header.split(",", CLAUSES_MAX)[:CLAUSES_MAX]}
    return not asked.isdisjoint(("*/*", *CONTENT_TYPES))


def not_routed(*, watchable: bool) -> ApiError:
    """406 as upstream's router answers it, before the kind is asked. `watchable`: the path can be watched."""
    streams = (f"{JSON};stream=watch", f"{PROTOBUF};stream=watch") if watchable else ()
    shown = ", ".join((*CONTENT_TYPES, *streams))
    return ApiError(406, "NotAcceptable", f"406: Not Acceptable\n\nAvailable representations: {shown}", {})


def accept_anyway(header: str | None) -> Encoding:
    """How an error is written: as the client asked, or as JSON if that cannot be (upstream: ErrorNegotiated)."""
    try:
        return accept(header, forms=NO_FORMS)
    except ApiError:
        return _PLAIN


def wants_pretty(query: str, user_agent: str | None) -> bool:
    """Whether a person is likely to read the answer: `?pretty=`, else curl, wget or a browser.

    `query` is the raw query string. Upstream: negotiate.go, isPrettyPrint.
    """
    if "pretty" in query:
        for pair in query.split("&"):
            name, _, value = pair.partition("=")
            if name == "pretty" and value:
                return unquote_plus(value) in ("1", "t", "T", "true", "TRUE", "True")
    return user_agent is not None and user_agent.startswith(_HUMANS)


def include_object(text: str) -> Include:
    """`?includeObject=` of a Table request. Raises ApiError 400."""
    if text not in _INCLUDES:
        raise bad_request(
            "Unable to convert to Table as requested: includeObject: Invalid value: "
            f"{go_quote(text)}: must be 'Metadata', 'Object', 'None', or empty"
        )
    return cast("Include", text or "Metadata")


def not_acceptable_form(message: str) -> ApiError:
    return ApiError(406, "NotAcceptable", message)


def _go_type(served: Served) -> str:
    """What upstream's message calls the type: `core.ConfigMap`, or `unstructured.Unstructured`."""
    if not served.resource.builtin:
        return "unstructured.Unstructured"
    return f"{served.group.partition('.')[0] or 'core'}.{served.kind}"


@lru_cache(maxsize=4096)
def _list_head(kind: str, api_version: str) -> bytes:
    return b'{"kind":%b,"apiVersion":%b,"metadata":' % (orjson.dumps(kind), orjson.dumps(api_version))


def _cut(part: bytes) -> Iterator[bytes]:
    """The part, in several where one value was long."""
    if len(part) <= 2 * PART_BYTES:
        yield part
        return
    for start in range(0, len(part), PART_BYTES):
        yield part[start : start + PART_BYTES]


def _joined(head: bytes, items: Sequence[bytes], cut: int = 0) -> bytes:
    """The list's document. The items may be megabytes: head and tail go with the outer two, so that they are not copied again.

    `cut`: how many bytes at the beginning of each item, its brace among them, are left out.
    """
    if not items:
        return head + b"]}"
    if cut:
        bare = [item[cut:] for item in items]
        bare[0] = head + b"{" + bare[0]
        bare[-1] += b"]}"
        return b",{".join(bare)
    parts = list(items)
    parts[0] = head + parts[0]
    parts[-1] += b"]}"
    return b",".join(parts)


@lru_cache(maxsize=4096)
def _item_head(kind: str, api_version: str) -> bytes:
    """What every stored value of a kind begins with (decision 15)."""
    return b'{"apiVersion":%b,"kind":%b,' % (orjson.dumps(api_version), orjson.dumps(kind))


def _list_meta(revision: str, continue_token: str = "", remaining: int | None = None) -> bytes:
    text = f'{{"resourceVersion":"{revision}"'
    if continue_token:
        text += f',"continue":"{continue_token}"'
    if remaining:
        text += f',"remainingItemCount":{remaining}'
    return (text + "}").encode()


def _partial(version: str, value: bytes) -> bytes:
    return b'{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/%b","metadata":%b}' % (
        version.encode(),
        _decode_head(value).metadata,
    )


def _metadata_of(value: bytes) -> Object:
    metadata: Object = orjson.loads(memoryview(_decode_head(value).metadata))
    return metadata


def _row(version: str, served: Served, value: bytes, include: Include, now: datetime) -> bytes:
    strategy, columns = served.resource.strategy, served.version.columns
    outlined = strategy.outlines_columns or columns is DEFAULT_COLUMNS
    obj = strategy.outline(value) if outlined else orjson.loads(value)
    shown_cells = orjson.dumps(cells(columns, obj, now))
    shown = value if include == "Object" else b"null" if include == "None" else _partial(version, value)
    return b'{"cells":%b,"object":%b}' % (shown_cells, shown)


def row_keys(served: Served, listing: Listing) -> Iterator[tuple[int, str]]:
    """What the rows of the list's Table are ordered by, one by one; nothing where they stay as they are."""
    order = served.resource.strategy.row_order
    if order is not None:
        yield from (order(orjson.loads(value)) for value in listing.values)


def in_row_order(listing: Listing, keys: Sequence[tuple[int, str]]) -> Listing:
    """The list in the order of its `row_keys`."""
    if not keys:
        return listing
    places = sorted(range(len(keys)), key=keys.__getitem__)
    return replace(listing, values=[listing.values[place] for place in places])


def _table(version: str, columns: bytes, metadata: bytes, rows: Sequence[bytes]) -> bytes:
    return (
        b'{"kind":"Table","apiVersion":"meta.k8s.io/%b","metadata":%b,"columnDefinitions":%b,"rows":[%b]}'
        % (
            version.encode(),
            metadata,
            columns,
            b",".join(rows),
        )
    )


def _column_definitions(columns: tuple[Column, ...]) -> bytes:
    # A tenant's descriptions may be megabytes; what is kept is for the kinds that everybody lists.
    if len(columns) <= 32 and sum(len(column.description) for column in columns) <= 16_384:
        return _column_definitions_memoized(columns)
    return _made_column_definitions(columns)


def _made_column_definitions(columns: tuple[Column, ...]) -> bytes:
    return orjson.dumps([column.definition() for column in columns])


_column_definitions_memoized: Final = lru_cache(maxsize=1024)(_made_column_definitions)


_TEXT, _BINARY = 1, 2  # Kinds of WebSocket frames.


class Frames:
    """Watch events as lines of JSON, each framed for its transport: frames are joined, and sent, as they are.

    A `FrameCodec` (registry). Equal keys write equal frames, which are made once for all their watchers.
    """

    def __init__(self, framing: Framing) -> None:
        self._framing = framing
        self._wrap = _WRAPS[framing]
        self.key: Hashable = framing

    @property
    def following(self) -> Frames:
        return self

    def frame(self, event_type: str, value: bytes) -> bytes:
        """One event; for ERROR `value` is a Status, which every form leaves as it is."""
        shown = value if event_type == "ERROR" else self._show(event_type, value)
        return self._wrap(b'{"type":"%b","object":%b}\n' % (event_type.encode(), shown))

    def join(self, frames: Sequence[bytes]) -> bytes:
        return frames[0] if len(frames) == 1 else b"".join(frames)

    def _show(self, event_type: str, value: bytes) -> bytes:
        return value


class MetadataFrames(Frames):
    """Events whose objects are PartialObjectMetadata."""

    def __init__(self, framing: Framing, version: str) -> None:
        super().__init__(framing)
        self._version = version
        self.key = (framing, "PartialObjectMetadata", version)

    @override
    def _show(self, event_type: str, value: bytes) -> bytes:
        return _partial(self._version, value)


class ProtobufFrames(Frames):
    """Events whose objects are PartialObjectMetadata, in protobuf. Each has its length before it; a WebSocket's frames have one
    anyway."""

    def __init__(self, framing: Framing, version: str) -> None:
        super().__init__(framing)
        self._version = version
        self.key = (framing, "PartialObjectMetadata", version, PROTOBUF)

    @override
    def frame(self, event_type: str, value: bytes) -> bytes:
        if event_type == "ERROR":
            shown = metaproto.status(orjson.loads(value))
        else:
            shown = metaproto.partial_object(self._version, _metadata_of(value))
        event = metaproto.watch_event(event_type, shown)
        if self._framing is Framing.WEBSOCKET:
            return _websocket(_BINARY, event)
        return self._wrap(len(event).to_bytes(4) + event)


class TableFrames(Frames):
    """Events whose objects are Tables of one row; only a watch's first names the columns (upstream: watchEmbeddedEncoder)."""

    def __init__(
        self,
        framing: Framing,
        served: Served,
        version: str,
        include: Include,
        now: Now,
        *,
        first: bool = True,
    ) -> None:
        super().__init__(framing)
        self._served = served
        self._version = version
        self._include = include
        self._now = now
        self._first = first
        self.key = (framing, "Table", version, include, served.resource, served.version.name, first)

    @property
    @override
    def following(self) -> Frames:
        if not self._first:
            return self
        return TableFrames(self._framing, self._served, self._version, self._include, self._now, first=False)

    @override
    def _show(self, event_type: str, value: bytes) -> bytes:
        metadata = _decode_head(value).metadata
        include = self._include
        if event_type == "BOOKMARK" and b'"k8s.io/initial-events-end"' in bytes(metadata):
            # The annotation is what the client waits for: response.go, asTable.
            include = "Metadata" if include == "None" else include
        row = _row(self._version, self._served, value, include, self._now())
        revision = _decode_revision(metadata).resource_version
        columns = _column_definitions(self._served.version.columns) if self._first else b"null"
        return _table(self._version, columns, _list_meta(revision), (row,))


def _chunk(line: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(line), line)


def _bare(line: bytes) -> bytes:
    return line


def _websocket_text(line: bytes) -> bytes:
    return _websocket(_TEXT, line)


def _websocket(opcode: int, payload: bytes) -> bytes:
    """A final, unmasked frame (RFC 6455, 5.2), as servers send them."""
    size = len(payload)
    head = 0x80 | opcode
    if size < 126:
        return b"%c%c%b" % (head, size, payload)
    if size < 1 << 16:
        return b"%c\x7e%b%b" % (head, size.to_bytes(2), payload)
    return b"%c\x7f%b%b" % (head, size.to_bytes(8), payload)


_WRAPS: Final[dict[Framing, Callable[[bytes], bytes]]] = {
    Framing.CHUNKED: _chunk,
    Framing.PLAIN: _bare,
    Framing.WEBSOCKET: _websocket_text,
}


def decode_body(content_type: str | None, body: bytes, served: Served) -> tuple[Object, list[str]]:
    """The object in a request's body, and what was given twice (for field validation to judge).

    Raises ApiError: 415 for a media type that is none of ours, 400 in upstream's words, 413 for what is too big to read.
    """
    expected = Expected(served.api_version, served.kind, served.resource.builtin)
    return decode_as(content_type, body, expected)


def decode_as(content_type: str | None, body: bytes, expected: Expected) -> tuple[Object, list[str]]:
    """`decode_body` for documents that are not objects of a resource: DeleteOptions, Scale, reviews."""
    match body_type(content_type):
        case "application/json":
            return codec.decode_json(body, expected)
        case "application/yaml":
            return codec.decode_yaml(body, expected)
    # Tables of messages are read when the first such body comes.
    from clusterling.packs.builtin import protobuf_codec

    return protobuf_codec().decode(body, expected), []


def body_type(content_type: str | None) -> str:
    """The media type of a body, JSON where none is named. Raises ApiError 415."""
    if not content_type:
        return JSON
    media_type, _, parameters = content_type.partition(";")
    media_type = media_type.strip().lower()
    # Go's mime.ParseMediaType: each parameter has a value, and only the last may be missing altogether.
    readable = not parameters or all("=" in one for one in parameters.rstrip().removesuffix(";").split(";"))
    if media_type in CONTENT_TYPES and (readable or not parameters.strip()):
        return media_type
    raise ApiError(
        415,
        "UnsupportedMediaType",
        f"the body of the request was in an unknown format - accepted media types include: {', '.join(CONTENT_TYPES)}",
    )
