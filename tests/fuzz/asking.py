"""Targets: what a request asks with. Names, selectors, numbers, times, paths, parameters, tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from typing import Final

import orjson

from clusterling.machinery import addresses, names, quantity, timestamps
from clusterling.machinery.errors import ApiError
from clusterling.machinery.jsonpath import compile_path
from clusterling.machinery.labelselector import label_selector_problems
from clusterling.machinery.quantity import Quantity
from clusterling.machinery.schema.formats import FORMATS, PatternError, compile_pattern
from clusterling.machinery.selectors import FieldSelector, LabelRequirement, LabelSelector
from clusterling.machinery.table import cells, column_from_jsonpath, table
from clusterling.packs import builtin
from clusterling.packs.batch import schedule
from clusterling.registry import continuation
from clusterling.registry.resource import Served
from clusterling.services import negotiation, parameters, requestinfo
from clusterling.services.requestinfo import RequestInfo
from tests.fuzz import seeds, values
from tests.fuzz.targets import foreseen, target
from tests.fuzz.values import Source
from tests.services.serving import widgets

_NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
_TEXTS: Final = (
    *("", "a", "a=b", "a==b,c!=d", "a in (b,c),!d", "x notin (y)", "a>1,b<2", "a in (,)", "a=,b", "metadata.name=a"),
    *("metadata.name!=a,spec.nodeName=b", r"a=b\,c", r"a\=b=c", "100m", "1.5Gi", "12e6", "-1", "+.5", "1e-300", "0Ki", "9Ei"),
    *("2024-02-29T23:59:59Z", "2024-01-01T00:00:00.123456789+01:00", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59"),
    *("example.com/name", "a.b-c", "1.2.3.4", "::ffff:1.2.3.4", "fe80::1%eth0", "10.0.0.0/8", "*/5 * * * *", "@every 1h"),
    *("CRON_TZ=UTC 0 0 1 1 *", "P1DT2H", "1h30m", "https://a@b:80/c?d#e", "a@b.c", "4111111111111111", "00:11:22:33:44:55"),
)  # fmt: skip


def _texts() -> Iterator[bytes]:
    return (one.encode() for one in _TEXTS)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


@target(_texts)
def label_selector(data: bytes) -> None:
    """A selector is written as a text that is parsed as the same selector, and answers for any labels."""
    text = _text(data)
    try:
        found = LabelSelector.parse(text)
    except ValueError:
        return
    assert LabelSelector.parse(str(found)) == found
    assert str(LabelSelector.parse(str(found))) == str(found)
    for key in {one.key for one in found.requirements} | {"a"}:
        for value in {"", "1", "b"} | {value for one in found.requirements for value in one.values[:2]}:
            for labels in ({}, {key: value}):
                assert found.matches(labels) == all(_holds(one, labels) for one in found.requirements)


def _holds(one: LabelRequirement, labels: dict[str, str]) -> bool:
    """What a requirement means, word by word."""
    has, value = one.key in labels, labels.get(one.key, "")
    number = value.removeprefix("-").removeprefix("+").isdigit() and one.op in ("gt", "lt")
    return {
        "exists": has,
        "!": not has,
        "in": has and value in one.values,
        "=": has and value in one.values,
        "notin": not has or value not in one.values,
        "!=": not has or value not in one.values,
        "gt": has and number and int(value) > int(one.values[0]),
        "lt": has and number and int(value) < int(one.values[0]),
    }[one.op]


@target(seeds.as_values)
def label_selector_object(data: bytes) -> None:
    """A metav1.LabelSelector is a selector, or no selector."""
    given = Source(data).object()
    try:
        found = LabelSelector.from_object(given)
    except ValueError:
        return
    for problem in label_selector_problems(given, "spec.selector"):
        orjson.dumps(problem.cause())
    assert LabelSelector.parse(str(found)).canonical == found.canonical


@target(_texts)
def field_selector(data: bytes) -> None:
    """A field selector is written as a text that is parsed as the same."""
    try:
        found = FieldSelector.parse(_text(data))
    except ValueError:
        return
    assert FieldSelector.parse(str(found)).canonical == found.canonical
    found.matches({"metadata.name": "a"})


@target(_texts)
def quantities(data: bytes) -> None:
    """A quantity's canonical text is its own, and arithmetic on quantities is exact."""
    first, _, second = _text(data).partition("\n")
    try:
        one, other = Quantity.parse(first), Quantity.parse(second or "1")
    except ValueError:
        return
    again = Quantity.parse(one.canonical) if len(one.canonical) <= quantity.CHARACTERS_MAX else one
    assert again == one
    assert again.canonical == one.canonical
    assert one + other - other == one
    assert (one < other) + (one == other) + (one > other) == 1
    assert one != other or hash(one) == hash(other)
    assert one.rounded_up() >= 0 or one < Quantity(0)


@target(_texts)
def times(data: bytes) -> None:
    """A time is written in one form, which is its own."""
    try:
        normal = timestamps.normal_rfc3339(_text(data))
    except ValueError:
        return
    assert timestamps.normal_rfc3339(normal or "0001-01-01T00:00:00Z") == normal


_NAME_RULES: Final[tuple[Callable[[str], list[str]], ...]] = (
    *(names.is_dns1123_label, names.is_dns1123_subdomain, names.is_dns1123_subdomain_in_any_case, names.is_dns1035_label),
    *(names.is_wildcard_dns1123_subdomain, names.is_qualified_name, names.is_label_value, names.is_path_segment_name),
    *(names.is_c_identifier, names.is_config_map_key, names.is_port_name, names.is_percent),
    *(addresses.ip_problems, addresses.canonical_ip_problems, addresses.cidr_problems, addresses.canonical_cidr_problems),
)  # fmt: skip


@target(_texts)
def names_and_addresses(data: bytes) -> None:
    """Every rule has an answer to every text; what one rule takes, those that it is part of take."""
    text = _text(data)
    problems = {rule: rule(text) for rule in _NAME_RULES}
    for rule in _NAME_RULES:
        assert isinstance(problems[rule], list)
    if not problems[names.is_dns1123_label]:
        assert not problems[names.is_dns1123_subdomain]
        assert not problems[names.is_label_value]
        assert names.ClusterName.parse(text) == text
    if not problems[names.is_dns1035_label]:
        assert not problems[names.is_dns1123_label]
    if not problems[names.is_label_value] and text:
        assert not problems[names.is_qualified_name]
    made = names.generate_name(text, lambda limit: limit - 1)
    assert len(made.encode()) <= 63 + 2 * len("\ufffd".encode()), (
        "a character that was cut is told as one of three bytes"
    )
    assert problems[addresses.ip_problems] or addresses.parse_ip(text) is not None
    assert problems[addresses.cidr_problems] or addresses.parse_cidr(text) is not None
    addresses.ip_warnings("spec.a", text)
    addresses.cidr_warnings("spec.a", text)


@target(_texts)
def formats(data: bytes) -> None:
    """Every format has an answer to every text, and every pattern is one or is refused."""
    text = _text(data)
    for known in FORMATS.values():
        assert known(text) in (True, False)
    try:
        pattern = compile_pattern(text)
    except PatternError:
        return
    pattern.search("aaaaaaaaaaaaaaaaaaaaaaaab")


@target(_texts)
def schedules(data: bytes) -> None:
    """A CronJob's schedule is one, or is refused."""
    text = _text(data)
    schedule.zone_problems(text)
    try:
        schedule.check_schedule(text)
    except ValueError as error:
        orjson.dumps(str(error))


_PATHS: Final = (
    *(".metadata.name", '.status.conditions[?(@.type=="Ready")].status', ".spec.a[0]", ".spec.a[-1:]", "..name", ".*", "{.a}"),
    *(".a['b','c']", ".spec[*].a", '"text"', ".a[?(@.b>1)].c", r".a\.b.c", ".x[0,1]", "1.5", "true", ".a..b", "[?(@.a)]"),
)  # fmt: skip


def _columns() -> Iterator[bytes]:
    obj = {"metadata": {"name": "a"}, "spec": {"a": [1, {"b": 2, "c": "x"}]}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}  # fmt: skip
    for at, path in enumerate(_PATHS):
        yield bytes([at]) + values.sized(path.encode()) + values.value(obj)


_TYPES: Final = ("string", "integer", "number", "boolean", "date", "unknown")


@target(_columns)
def columns(data: bytes) -> None:
    """A column's path is refused where it is none; what it finds in any object is a cell that can be written."""
    source = Source(data)
    kind, path, obj = _TYPES[source.below(len(_TYPES))], _text(source.piece()), source.object()
    try:
        column = column_from_jsonpath("a", kind, path)
    except ValueError:
        return
    found = cells([column, column], obj, _NOW)
    orjson.dumps(found)
    assert found[0] == found[1] or len(path) > 1_000
    orjson.dumps(table([column], [obj], now=_NOW, include="Object"))
    assert compile_path(path).text == path


@target(lambda: (b"eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJhXHUwMDAwIn0",))
def continue_tokens(data: bytes) -> None:
    """A token that is understood is one that was made here."""
    try:
        found = continuation.decode(_text(data))
    except ApiError as error:
        foreseen(error)
        return
    assert continuation.decode(continuation.encode(found)) == found


def _targets() -> Iterator[bytes]:
    for one in seeds.exchanges()[::25]:
        yield one["request"].replace("${ns}", "default").encode()
    yield b"GET /clusters/team-a/api/v1/namespaces/a/pods/b?watch=1&resourceVersion=5&timeoutSeconds=3"
    yield b"GET /api/v1/pods?limit=5&continue=x&labelSelector=a%3Db&resourceVersionMatch=Exact&fieldSelector=metadata.name%3Da"
    yield b"DELETE /api/v1/namespaces/a/pods/b?gracePeriodSeconds=0&propagationPolicy=Orphan&dryRun=All&orphanDependents=true"
    yield b"PATCH /apis/apps/v1/namespaces/a/deployments/b/status?fieldManager=x&force=true&fieldValidation=Strict&timeout=1h2m"


@cache
def _served() -> tuple[Served, ...]:
    kinds = (builtin.resource("", "v1", "pods"), widgets(), builtin.resource("", "v1", "nodes"))
    return tuple(Served(one, one.versions[0]) for one in kinds)


@target(_targets)
def requests(data: bytes) -> None:
    """A target means something or is refused; each parameter is understood or refused; no path leads to another cluster."""
    method, _, rest = data.decode("latin-1").partition(" ")
    path, _, query = rest.partition("?")
    try:
        info = requestinfo.parse(method, path, query)
    except ApiError as error:
        foreseen(error)
        return
    assert (
        not info.cluster
        or path.startswith(f"/clusters/{info.cluster}/")
        or path == f"/clusters/{info.cluster}"
    )
    for name in (info.namespace, info.name):
        assert not name or not ({"", ".", ".."} & set(name.split("/"))), "a name is one segment of a key"
    for served in _served():
        _parameters(info, served)


def _parameters(info: RequestInfo, served: Served) -> None:
    query = info.query
    for read in (
        lambda: parameters.list_options(query, served, info.name),
        lambda: parameters.watch_options(query, served, info.name),
        lambda: parameters.read_version(query),
        lambda: parameters.watch_timeout_s(query),
        lambda: parameters.write_options(query, "PatchOptions", "kubectl/v1"),
        lambda: parameters.apply_options(query),
        lambda: parameters.delete_options(query),
        lambda: parameters.request_timeout_s(query),
    ):
        try:
            read()
        except ApiError as error:
            foreseen(error, upstreams=True)


@target(seeds.as_values)
def delete_bodies(data: bytes) -> None:
    """A DeleteOptions document is understood or refused."""
    try:
        parameters.delete_options_of(Source(data).object())
    except ApiError as error:
        foreseen(error)


_ACCEPTED: Final = (
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
    "application/vnd.kubernetes.protobuf, */*;q=0.5",
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1;charset=utf-8",
    "text/html;q=1.0001,application/yaml;q=0",
)


@target(lambda: (one.encode() for one in _ACCEPTED))
def accepted(data: bytes) -> None:
    """An Accept field is met or refused, and so is a body's Content-Type."""
    header = data.decode("utf-8", "surrogateescape")
    for ask in (
        lambda: negotiation.accept(header),
        lambda: negotiation.decode_body(header, b"{}", _served()[0]),
    ):
        try:
            ask()
        except ApiError as error:
            foreseen(error)
    negotiation.accept_anyway(header)
    negotiation.wants_pretty(header, header)
