"""No request of one tenant keeps the event loop from the others: work is linear, bounded, or gives way.

What was quadratic is given so much that it would take minutes, or longer: such a test fails by never ending.
"""

from __future__ import annotations

import asyncio
import random
import tracemalloc
from collections.abc import AsyncIterator

import orjson
import pytest
from typing_extensions import override

from clusterling.machinery.errors import ApiError, invalid_value
from clusterling.machinery.meta import Object
from clusterling.machinery.selectors import LabelSelector
from clusterling.registry.options import WatchOptions
from clusterling.registry.receiving import STRICT_PROBLEMS_MAX
from clusterling.registry.watching import INITIAL_BYTES
from clusterling.services.negotiation import Encoding
from clusterling.services.parameters import request_timeout_s
from clusterling.services.request import Stream, StreamingResponse
from clusterling.storage.keyspace import Keyspace
from clusterling.storage.store import ABSENT, WRITE_OPS_MAX, Op
from tests.peers import Taker
from tests.security.world import CONFIGMAPS, CRDS, TABLE, Turns, World, crd, world

_FORM = "application/{};as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
PARTIAL = {"Accept": _FORM.format("json")}
PARTIAL_PROTOBUF = {"Accept": _FORM.format("vnd.kubernetes.protobuf")}

# Each takes about a tenth of a millisecond to match one object.
CERTIFICATES = 1  # Every namespace has a ConfigMap that tells them.
THOUSAND_REQUIREMENTS = ",".join(f"!x{at}" for at in range(999))


@pytest.fixture
async def it() -> AsyncIterator[World]:
    async with world() as found:
        yield found


async def fill(it: World, count: int, size: int) -> None:
    for at in range(count):
        status, _, _ = await it.ask(
            "POST", CONFIGMAPS, {"metadata": {"name": f"c{at}"}, "data": {"k": "v" * size}}
        )
        assert status == 201


@pytest.mark.parametrize("text", ["1" * 3_000_000, "-" + "1" * 3_000_000, "1s" * 1_000_000, "." * 3_000_000])
def test_a_timeout_of_millions_of_digits_is_refused_by_its_first(text: str) -> None:
    """It is read before anybody is authenticated."""
    with pytest.raises(ApiError, match="invalid timeout"):
        request_timeout_s({"timeout": [text]})


async def test_of_unknown_fields_so_many_are_told_as_upstream_tells(it: World) -> None:
    body = orjson.dumps({"metadata": {"name": "a"}, **{f"u{at}": 1 for at in range(100_000)}})
    status, told, _ = await it.ask("POST", f"{CONFIGMAPS}?fieldValidation=Strict", body)
    assert (status, told["message"].count("unknown field")) == (400, STRICT_PROBLEMS_MAX)
    status, _, response = await it.ask("POST", CONFIGMAPS, body)
    assert status == 201
    assert len([name for name, _ in response.headers if name == "Warning"]) <= STRICT_PROBLEMS_MAX


async def test_of_wrong_owners_only_their_number_is_told(it: World) -> None:
    references = [{"name": f"_{at}"} for at in range(50_000)]
    status, told, response = await it.ask(
        "POST", CONFIGMAPS, {"metadata": {"name": "a", "ownerReferences": references}}
    )
    assert (status, len(told["details"]["causes"])) == (422, 1)
    assert len(response.body) < 1_000


def test_an_error_quotes_the_beginning_of_a_long_value() -> None:
    for value in ("x" * 1_000_000, ["x" * 1_000_000], {"a": "x" * 1_000_000}):
        assert len(invalid_value("spec", value, "is wrong").body()) < 20_000


async def test_tens_of_thousands_of_names_can_be_claimed_and_changed(it: World) -> None:
    made = crd("many", {"type": "object"}, names={"shortNames": [f"s{at}" for at in range(40_000)]})
    status, stored, _ = await it.ask("POST", CRDS, made)
    assert status == 201
    stored["spec"]["names"]["shortNames"] = [f"t{at}" for at in range(40_000)]
    status, stored, _ = await it.ask("PUT", f"{CRDS}/many.x.io", stored)
    assert (status, len(stored["status"]["acceptedNames"]["shortNames"])) == (200, 40_000)


async def test_a_schema_with_too_many_large_patterns_is_refused(it: World) -> None:
    properties = {f"p{at}": {"type": "string", "pattern": f"^[a-z]{{1,900}}x{at}$"} for at in range(1_000)}
    status, told, _ = await it.ask("POST", CRDS, crd("pats", {"type": "object", "properties": properties}))
    assert status == 422
    assert "its patterns are too many or too large" in told["message"]


async def test_a_pattern_used_a_thousand_times_counts_once(it: World) -> None:
    properties = {f"p{at}": {"type": "string", "pattern": "^[a-z]{1,900}$"} for at in range(1_000)}
    status, _, _ = await it.ask("POST", CRDS, crd("pats", {"type": "object", "properties": properties}))
    assert status == 201


async def test_a_text_that_outgrows_a_patterns_automaton_is_refused(it: World) -> None:
    """RE2 then takes as much for each character as the pattern has instructions: a minute for this one."""
    pattern = "(?:(?:[ab]?[bc]?[cd]?){30}){30}(?:[ab]{400}|[bc]{300}d)x"
    schema: Object = {"type": "object", "properties": {"s": {"type": "string", "pattern": pattern}}}
    status, _, _ = await it.ask("POST", CRDS, crd("slow", schema))
    assert status == 201
    text = "".join(random.Random(3).choices("abcd", k=1_000_000))
    path = "/apis/x.io/v1/namespaces/default/slow"
    body = {"apiVersion": "x.io/v1", "kind": "Slow", "metadata": {"name": "a"}, "spec": {"s": text}}
    status, told, _ = await it.ask("POST", path, body)
    assert status == 422
    assert "costly" in told["message"]
    status, _, _ = await it.ask("POST", path, {**body, "spec": {"s": "a" * 400 + "x"}})
    assert status == 201


@pytest.mark.parametrize("path", ["..*", ".spec"])
async def test_a_row_has_one_budget_for_all_its_columns(it: World, path: str) -> None:
    columns = [{"name": f"c{at}", "type": "string", "jsonPath": path} for at in range(1_000)]
    schema: Object = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    assert (await it.ask("POST", CRDS, crd("wide", schema, columns=columns)))[0] == 201
    body = {
        "apiVersion": "x.io/v1",
        "kind": "Wide",
        "metadata": {"name": "a"},
        "spec": {"list": [{"a": at} for at in range(30_000)]},
    }
    where = "/apis/x.io/v1/namespaces/default/wide"
    assert (await it.ask("POST", where, body))[0] == 201
    status, told, response = await it.ask("GET", f"{where}/a", headers=TABLE)
    cells = told["rows"][0]["cells"]
    assert (status, len(cells), cells[0], cells[-1]) == (200, 1_001, "a", None)
    assert len(response.body) < 3_000_000


async def test_others_have_the_loop_while_a_list_looks_at_each_object(it: World) -> None:
    await fill(it, 500, 10)
    async with Turns() as turns:
        status, told, _ = await it.ask("GET", f"{CONFIGMAPS}?labelSelector={THOUSAND_REQUIREMENTS}")
    assert (status, len(told["items"])) == (200, 500 + CERTIFICATES)
    assert turns.count >= 10


async def test_many_lists_at_once_hold_the_loop_no_longer_than_one(it: World) -> None:
    """A slice of one of them is done between two rounds of the loop, and not a slice of each."""
    await fill(it, 500, 10)
    query = f"{CONFIGMAPS}?labelSelector={THOUSAND_REQUIREMENTS}"
    async with Turns() as alone:
        await it.ask("GET", query)
    async with Turns() as together:
        answers = await asyncio.gather(*(it.ask("GET", query) for _ in range(10)))
    assert [len(told["items"]) for _, told, _ in answers] == [500 + CERTIFICATES] * 10
    assert together.count >= 3 * alone.count


async def test_others_have_the_loop_while_a_table_is_made(it: World) -> None:
    await fill(it, 2_000, 10)
    await it.ask("GET", CONFIGMAPS)
    async with Turns() as turns:
        status, told, _ = await it.ask("GET", CONFIGMAPS, headers=TABLE)
    assert (status, len(told["rows"])) == (200, 2_000 + CERTIFICATES)
    assert turns.count >= 5


@pytest.mark.parametrize("selector", [THOUSAND_REQUIREMENTS, THOUSAND_REQUIREMENTS + ",zorro"])
async def test_a_watch_looks_at_so_much_before_it_gives_way(it: World, selector: str) -> None:
    await fill(it, 500, 10)
    cluster = await it.server.pool.find("mallory")
    assert cluster is not None
    served = cluster.catalog.find("", "v1", "configmaps")
    assert served is not None
    options = WatchOptions(LabelSelector.parse(selector))
    codec = Encoding().frame_codec(served)
    taken: list[bytes] = []
    async with cluster.objects.watch(served, "default", options, codec) as watch:
        while (data := watch.take()) is not None:
            taken.append(data)
    assert len(taken) >= 10
    assert any(taken) is ("zorro" not in selector)


async def test_a_watch_writes_large_objects_one_by_one(it: World) -> None:
    await fill(it, 20, 1_000_000)
    response = await it.tenant.request("GET", f"{CONFIGMAPS}?watch=1&timeoutSeconds=1")
    assert isinstance(response, StreamingResponse)
    taker = Taker()
    await response.stream.run(taker)
    await response.close()
    assert len(taker.writes) == 20 + CERTIFICATES
    assert max(map(len, taker.writes)) < 1_001_000 + INITIAL_BYTES


async def test_others_have_the_loop_while_a_big_body_is_decoded(it: World) -> None:
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n"
    text += "".join(f"  k{at}: 'v'\n" for at in range(40_000))
    async with Turns() as turns:
        status, _, _ = await it.ask("POST", CONFIGMAPS, text.encode(), {"Content-Type": "application/yaml"})
    assert status == 201
    assert turns.count >= 5


async def test_the_openapi_of_many_kinds_is_made_kind_by_kind(it: World) -> None:
    for at in range(10):
        assert (await it.ask("POST", CRDS, crd(f"kind{at}s", {"type": "object"})))[0] == 201
    async with Turns() as turns:
        status, _, _ = await it.ask("GET", "/openapi/v2")
    assert status == 200
    assert turns.count >= 10


def small(kind: str) -> Object:
    return {"apiVersion": "x.io/v1", "kind": kind, "metadata": {"name": "a"}}


PROPERTIES = 10_000


def huge(plural: str) -> Object:
    told = {"type": "string", "maxLength": 63, "description": "What this one is for, at length."}
    return crd(plural, {"type": "object", "properties": {f"p{at}": told for at in range(PROPERTIES)}})


@pytest.mark.parametrize("path", ["/openapi/v2", "/openapi/v3/apis/x.io/v1"])
async def test_others_have_the_loop_while_the_openapi_of_a_huge_kind_is_made(it: World, path: str) -> None:
    assert (await it.ask("POST", CRDS, huge("bigs")))[0] == 201
    async with Turns() as turns:
        status, told, _ = await it.ask("GET", path)
    kinds = told["definitions"] if path.endswith("v2") else told["components"]["schemas"]
    assert (status, len(kinds["io.x.v1.Bigs"]["properties"]["spec"]["properties"])) == (200, PROPERTIES)
    assert turns.count >= 25


async def test_a_huge_definition_keeps_its_schema_as_written_until_it_is_gone(it: World) -> None:
    """Whoever is told of its deletion sees all of it, though nobody here reads more than its metadata and conditions."""
    made = huge("bigs")
    assert (await it.ask("POST", CRDS, made))[0] == 201
    assert (await it.ask("POST", "/apis/x.io/v1/namespaces/default/bigs", small("Bigs")))[0] == 201
    _, told, _ = await it.ask("GET", CRDS, headers=TABLE)
    assert told["rows"][0]["cells"][:3] == ["bigs.x.io", "Namespaced", "v1(storage)"]
    response = await it.tenant.request("GET", f"{CRDS}?{INITIAL}")
    assert isinstance(response, StreamingResponse)
    taker = Until(response.stream, b'"type":"DELETED"')
    assert (await it.ask("DELETE", f"{CRDS}/bigs.x.io"))[0] == 200
    async with asyncio.timeout(30):
        await response.stream.run(taker)
    await response.close()
    events = [orjson.loads(line) for line in b"".join(taker.writes).splitlines()]
    seen = [one["object"] for one in events if one["type"] in ("MODIFIED", "DELETED")]
    assert len(seen) >= 3
    for one in seen:
        assert one["spec"]["versions"][0]["schema"] == made["spec"]["versions"][0]["schema"]
    conditions = [{each["type"]: each["reason"] for each in one["status"]["conditions"]} for one in seen]
    assert conditions[0]["Terminating"] == "InstanceDeletionPending"
    assert conditions[-1]["Terminating"] == "InstanceDeletionInProgress"


MANY = 20_000


async def fill_below(it: World, count: int) -> None:
    """So many ConfigMaps beside the first, which is made as any other; straight into the store."""
    assert (await it.ask("POST", CONFIGMAPS, {"metadata": {"name": "m"}, "data": {"k": "v" * 100}}))[0] == 201
    cluster = await it.server.pool.find("mallory")
    assert cluster is not None
    keys = Keyspace(it.store, cluster.id)
    [model] = [one for one in (await keys.list("core/configmaps/")).entries if one.key.endswith("/m")]
    for start in range(0, count, WRITE_OPS_MAX):
        names = [f"m{at:06}" for at in range(start, min(start + WRITE_OPS_MAX, count))]
        ops = [
            Op(f"{model.key[:-1]}{name}", model.value.replace(b'"m"', b'"%b"' % name.encode()), ABSENT)
            for name in names
        ]
        await keys.write(ops)


INITIAL = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=60"


class Until(Taker):
    """Keeps what it takes, and asks its watch to stop when it has seen so much."""

    def __init__(self, stream: Stream, last: bytes) -> None:
        super().__init__()
        self.stream = stream
        self.last = last

    @override
    def write(self, data: bytes) -> None:
        super().write(data)
        if self.last in data:
            self.stream.stop()


class Reader(Taker):
    """Counts what it takes instead of keeping it, and asks its watch to stop at the end of what there was."""

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self.stream = stream
        self.events = 0
        self.largest = 0

    @override
    def write(self, data: bytes) -> None:
        self.events += data.count(b'"type":"ADDED"')
        self.largest = max(self.largest, len(data))
        if b"initial-events-end" in data:
            self.stream.stop()


async def test_others_are_answered_while_a_watch_is_given_a_big_collection(it: World) -> None:
    many = 2 * MANY  # A fast machine sends two thousand in a slice.
    await fill_below(it, many)
    await it.ask("GET", f"{CONFIGMAPS}?limit=1")
    response = await it.tenant.request("GET", f"{CONFIGMAPS}?{INITIAL}")
    assert isinstance(response, StreamingResponse)
    reader = Reader(response.stream)
    seen: list[int] = []

    async def neighbour() -> None:
        while reader.events < many:
            assert (await it.other.request("GET", CONFIGMAPS)).status == 200
            seen.append(reader.events)
            await asyncio.sleep(0)

    async with Turns() as turns, asyncio.TaskGroup() as group:
        group.create_task(response.stream.run(reader))
        group.create_task(neighbour())
    await response.close()
    assert reader.events == many + 1 + CERTIFICATES
    assert reader.largest < 2 * INITIAL_BYTES
    assert turns.count >= 20
    assert len(set(seen)) >= 10


async def test_those_who_begin_to_watch_a_big_collection_hold_no_list_of_it(it: World) -> None:
    await fill_below(it, MANY)
    await it.ask("GET", f"{CONFIGMAPS}?limit=1")
    opened = [await it.tenant.request("GET", f"{CONFIGMAPS}?{INITIAL}")]
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    opened += [await it.tenant.request("GET", f"{CONFIGMAPS}?{INITIAL}") for _ in range(50)]
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    for response in opened:
        assert isinstance(response, StreamingResponse)
        await response.close()
    assert (after - before) / 50 < MANY  # A pointer to each object would be eight times as much.


@pytest.mark.parametrize("headers", [{}, TABLE, PARTIAL, PARTIAL_PROTOBUF])
async def test_others_have_the_loop_while_a_big_list_is_made(it: World, headers: dict[str, str]) -> None:
    await fill_below(it, MANY)
    await it.ask("GET", f"{CONFIGMAPS}?limit=1")
    async with Turns() as turns:
        response = await it.tenant.request("GET", CONFIGMAPS, None, b"", headers)
    assert response.status == 200
    assert response.body.count(b"m019999") >= 1
    assert turns.count >= 4
