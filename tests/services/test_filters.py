"""What every request passes before its verb."""

from __future__ import annotations

import asyncio
import gzip
import logging

import orjson
import pytest

from clusterling.machinery.errors import ApiError
from clusterling.registry.strategy import User
from clusterling.services.app import App
from clusterling.services.filters import WARNING_RUNES_MAX, warning_headers
from clusterling.services.health import Health
from clusterling.services.request import Headers, Request, Response
from clusterling.storage.store import Unavailable
from clusterling.tenancy.limits import Limits
from tests.services.serving import (
    CONFIGMAPS,
    TEAM_A,
    WIDGETS,
    Serving,
    Tokens,
    configmap,
    serving,
    status_of,
    widget,
)

ANN = {"Authorization": "Bearer ann-token"}


# ---------------------------------------------------------------------- who

WAYS_IN = [
    "/api",
    "/apis",
    "/openapi/v2",
    "/openapi/v3",
    "/metrics",
    "/livez/ping",
    "/",
    "/foo",
    "/api/v1/namespaces",
    "/api/v1/namespaces/default/configmaps",
    "/apis/example.com/v1/widgets?watch=1",
    "/apis/no.such/v1/things",
]


@pytest.mark.parametrize("path", WAYS_IN)
@pytest.mark.parametrize("cluster", ["/clusters/team-a", "/clusters/nobody", ""])
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic YTpi"}])
async def test_without_a_valid_credential_everything_is_the_same_401(
    world: Serving, cluster: str, path: str, headers: dict[str, str]
) -> None:
    response = await world.ask("GET", cluster + path, headers=headers)
    assert status_of(response) == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "Unauthorized",
        "reason": "Unauthorized",
        "code": 401,
    }


@pytest.mark.parametrize("path", WAYS_IN)
async def test_a_cluster_that_is_not_there_is_refused_as_one_that_is_not_mine(
    world: Serving, path: str
) -> None:
    # Ann's token is good in team-a; the authenticator of these tests lets it through to where it is not hers.
    ann = User("ann", ("system:masters",), realm="id-team-a")
    answers = []
    for cluster in ("team-b", "nobody"):
        path_part, _, query = path.partition("?")

        async def read(limit: int) -> list[bytes]:
            return []

        request = Request(
            "GET", f"/clusters/{cluster}{path_part}", query, Headers({}), read, authenticated_as=ann
        )
        response = await world.app(request)
        answers.append((response.status, response.body, response.headers, response.content_type))
    assert answers[0] == answers[1]
    assert answers[0][0] == 403


async def test_a_credential_of_another_cluster_is_no_credential_here(world: Serving) -> None:
    mine = await world.ask("GET", "/clusters/team-a/api", headers=ANN)
    theirs = await world.ask("GET", "/clusters/team-b/api", headers=ANN)
    nobodys = await world.ask("GET", "/clusters/nobody/api", headers=ANN)
    assert (mine.status, theirs.status, nobodys.status) == (200, 401, 401)
    assert theirs.body == nobodys.body


@pytest.mark.parametrize("path", ["/version", "/version/", "/healthz", "/livez", "/readyz", "/livez?verbose"])
async def test_anybody_may_ask_for_health_and_version_of_any_name(world: Serving, path: str) -> None:
    answers = [
        await world.ask("GET", prefix + path, headers={})
        for prefix in ("/clusters/team-a", "/clusters/nobody", "")
    ]
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) == 1


async def test_a_wrong_credential_is_refused_even_where_none_is_needed(world: Serving) -> None:
    response = await world.ask("GET", "/version", headers={"Authorization": "Bearer wrong"})
    assert response.status == 401


@pytest.mark.parametrize(
    ("target", "message", "details"),
    [
        (
            f"/clusters/team-b{CONFIGMAPS}",
            'configmaps is forbidden: User "ann" cannot list resource "configmaps" in API group "" '
            'in the namespace "default"',
            {"kind": "configmaps"},
        ),
        (
            f"/clusters/team-b{WIDGETS}/w/status",
            'widgets.example.com "w" is forbidden: User "ann" cannot get resource "widgets/status" in API group '
            '"example.com" in the namespace "default"',
            {"name": "w", "group": "example.com", "kind": "widgets"},
        ),
        (
            "/clusters/team-b/api/v1/nodes",
            'nodes is forbidden: User "ann" cannot list resource "nodes" in API group "" at the cluster scope',
            {"kind": "nodes"},
        ),
        ("/clusters/team-b/y<script>", 'forbidden: User "ann" cannot get path "/y&lt;script&gt;"', {}),
    ],
)
async def test_a_refusal_is_said_in_upstreams_words(
    world: Serving, target: str, message: str, details: dict[str, str]
) -> None:
    async def read(limit: int) -> list[bytes]:
        return []

    response = await world.app(Request("GET", target, "", Headers({}), read, authenticated_as=TEAM_A))
    status = status_of(response)
    assert (status["code"], status["reason"], status["message"]) == (403, "Forbidden", message)
    assert status["details"] == details
    assert ("X-Content-Type-Options", "nosniff") in response.headers


async def test_impersonation_is_refused_as_to_one_who_may_not(world: Serving) -> None:
    headers = {"Authorization": "Bearer admin-token", "Impersonate-User": "bob"}
    status = status_of(await world.ask("GET", f"/clusters/team-a{CONFIGMAPS}", headers=headers))
    assert status["message"] == (
        'users "bob" is forbidden: User "admin" cannot impersonate resource "users" in API group "" '
        "at the cluster scope"
    )
    headers = {"Authorization": "Bearer admin-token", "Impersonate-Group": "g"}
    assert (await world.ask("GET", f"/clusters/team-a{CONFIGMAPS}", headers=headers)).status == 400


# ---------------------------------------------------------------------- errors


class _Broken:
    async def authorize(self, *_: object) -> object:
        raise RuntimeError("the secret is 42")


async def test_the_unforeseen_is_a_500_that_tells_only_where_to_look(
    world: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    world.app.authorizer = _Broken()  # type: ignore[assignment]
    with caplog.at_level(logging.ERROR):
        headers = {"Authorization": "Bearer admin-token", "Audit-Id": "abc-123"}
        response = await world.ask("GET", f"/clusters/team-a{CONFIGMAPS}", headers=headers)
    status = status_of(response)
    assert (status["code"], status["reason"]) == (500, "InternalError")
    assert "42" not in response.body.decode()
    assert "abc-123" in status["message"]
    assert "the secret is 42" in caplog.text
    assert world.app.errors == 1


async def test_an_error_is_told_in_yaml_where_yaml_is_asked_for(world: Serving) -> None:
    headers = {"Authorization": "Bearer admin-token", "Accept": "application/yaml"}
    response = await world.ask("GET", f"/clusters/team-a{CONFIGMAPS}/nope", headers=headers)
    assert response.content_type == "application/yaml"
    assert b"reason: NotFound" in response.body


async def test_an_error_is_told_whatever_bytes_it_quotes(world: Serving) -> None:
    headers = {"Authorization": "Bearer admin-token", "Impersonate-User": "b\udcffb", "User-Agent": "curl/8"}
    status = status_of(await world.ask("GET", f"/clusters/team-a{CONFIGMAPS}", headers=headers))
    assert status["message"].startswith('users "b')


async def test_people_get_errors_they_can_read(world: Serving) -> None:
    headers = {"Authorization": "Bearer admin-token", "User-Agent": "curl/8"}
    response = await world.ask("GET", f"/clusters/team-a{CONFIGMAPS}/nope", headers=headers)
    assert response.body.startswith(b'{\n  "kind": "Status",\n')


async def test_a_store_that_cannot_answer_is_a_503_to_try_again(world: Serving) -> None:
    class Down:
        async def find(self, name: str) -> None:
            raise Unavailable("the disk is full at /secret/path")

    world.app.clusters = Down()
    response = await world.ask("GET", f"/clusters/team-a{CONFIGMAPS}")
    assert (response.status, status_of(response)["reason"]) == (503, "ServiceUnavailable")
    assert ("Retry-After", "1") in response.headers
    assert status_of(response)["details"] == {"retryAfterSeconds": 1}
    assert b"secret" not in response.body


def test_warnings_are_quoted_said_once_and_bounded() -> None:
    assert warning_headers(['unknown field "spec.a\\b"', "x", "x", "", "a\nb"]) == [
        ("Warning", '299 - "unknown field \\"spec.a\\\\b\\""'),
        ("Warning", '299 - "x"'),
    ]
    # All that were told before there were too many stay, and the first that was.
    fitting = warning_headers([f"{number:03} " + "y" * 252 for number in range(20)])
    assert [len(value) for _, value in fitting] == [len('299 - ""') + 256] * 17
    many = warning_headers([f"{number} " + "y" * 500 for number in range(100)])
    assert sum(len(value) for _, value in many) <= WARNING_RUNES_MAX + 300 + len(many) * 8
    assert all(len(value) <= 256 + 8 for _, value in many)


async def test_warnings_go_with_the_answer_also_where_it_is_an_error(world: Serving) -> None:
    body = orjson.dumps(widget("w") | {"nope": 1})
    good = await world.ask("POST", f"/clusters/team-a{WIDGETS}", body)
    again = await world.ask("POST", f"/clusters/team-a{WIDGETS}", body)
    assert (good.status, again.status) == (201, 409)
    for response in (good, again):
        assert ("Warning", '299 - "unknown field \\"nope\\""') in response.headers


async def test_a_deprecated_version_warns(world: Serving) -> None:
    response = await world.ask("GET", "/clusters/team-a/apis/example.com/v2/widgets")
    assert ("Warning", '299 - "widgets v2 is deprecated"') in response.headers


# ---------------------------------------------------------------------- deadline


class _Slow:
    """Authorizes when it is let go."""

    def __init__(self) -> None:
        self.cancelled = False

    async def authorize(self, *_: object) -> object:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        raise AssertionError("it waits for ever")


async def test_a_request_ends_with_504_when_its_time_is_over(world: Serving) -> None:
    slow = world.app.authorizer = _Slow()  # type: ignore[assignment]
    status = status_of(await world.ask("GET", f"/clusters/team-a{CONFIGMAPS}?timeout=10ms"))
    assert (status["code"], status["reason"]) == (504, "Timeout")
    assert status["message"] == "Timeout: request did not complete within the allotted timeout"
    assert isinstance(slow, _Slow)
    assert slow.cancelled


async def test_the_servers_own_limit_holds_where_the_client_asks_for_more() -> None:
    async with serving(request_timeout_s=0.01) as world:
        world.app.authorizer = _Slow()  # type: ignore[assignment]
        assert (await world.ask("GET", f"/clusters/team-a{CONFIGMAPS}?timeout=1h")).status == 504
        assert (await world.ask("GET", f"/clusters/team-a{CONFIGMAPS}")).status == 504


async def test_a_cancelled_request_is_cancelled_and_not_answered(world: Serving) -> None:
    slow = _Slow()
    world.app.authorizer = slow  # type: ignore[assignment]
    task = asyncio.create_task(world.ask("GET", f"/clusters/team-a{CONFIGMAPS}"))
    while not world.app.recorder.busy:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert slow.cancelled
    assert world.app.recorder.busy == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("abc", 'time: invalid duration "abc"'),
        ("5", 'time: missing unit in duration "5"'),
        ("1h5", 'time: missing unit in duration "1h5"'),
        ("-", 'time: invalid duration "-"'),
        ("1s x", 'time: unknown unit "s x" in duration "1s x"'),
        ("1S", 'time: unknown unit "S" in duration "1S"'),
        ("0x1s", 'time: unknown unit "x" in duration "0x1s"'),
        ("%C2%B5s", r'time: invalid duration "\xc2\xb5s"'),
        ("1%C2%B5x", r'time: unknown unit "\xc2\xb5x" in duration "1\xc2\xb5x"'),
        ("%221s", r'time: invalid duration "\"1s"'),
        ("..1s", 'time: invalid duration "..1s"'),
        ("1s%0a", r'time: unknown unit "s\x0a" in duration "1s\x0a"'),
        ("9223372036854775808ns", 'time: invalid duration "9223372036854775808ns"'),
        ("10000000h", 'time: invalid duration "10000000h"'),
    ],
)
async def test_a_timeout_that_is_none_is_refused(world: Serving, text: str, message: str) -> None:
    target = f"/clusters/team-a{CONFIGMAPS}?timeout={text.replace(' ', '+')}"
    status = status_of(await world.ask("GET", target))
    assert (status["code"], status["message"]) == (
        400,
        f"invalid timeout specified in the request URL - {message}",
    )


@pytest.mark.parametrize("text", ["0s", "0", "-1s", "1.5h", "1m30s", "100ms", ".5s"])
async def test_durations_are_read_as_go_reads_them(world: Serving, text: str) -> None:
    assert (await world.ask("GET", f"/clusters/team-a{CONFIGMAPS}?timeout={text}")).status == 200


# ---------------------------------------------------------------------- limits


BEN = {"Authorization": "Bearer ben-token"}
LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"


def with_ben(world: Serving) -> Serving:
    """Adds team-b's own user."""
    tokens = world.app.authenticator
    assert isinstance(tokens, Tokens)
    tokens.users["team-b", "ben-token"] = User("ben", ("system:masters",), realm="id-team-b")
    return world


async def test_one_tenants_full_house_is_its_own_problem() -> None:
    async with serving(limits=Limits({"tenant.lists": 1})) as world:
        with_ben(world).limits.lists.take(("id-team-a", "team-a"))
        response = await world.ask("GET", f"/clusters/team-a{CONFIGMAPS}", headers=ANN)
        status = status_of(response)
        assert (status["code"], status["reason"]) == (429, "TooManyRequests")
        assert ("Retry-After", "1") in response.headers
        assert status["details"]["causes"][0]["field"] == "tenant.lists"
        assert "tenant.lists, used: 1, limited: 1" in status["message"]
        assert status["message"].startswith("Too many requests, please try again later.")
        assert (await world.ask("GET", f"/clusters/team-b{CONFIGMAPS}", headers=BEN)).status == 200
        # Of another realm.
        world.limits.lists.take(("id-team-b", "team-a"))
        assert (await world.ask("GET", f"/clusters/team-a{CONFIGMAPS}")).status == 200


async def test_what_is_small_needs_no_seat_of_lists() -> None:
    sorts = ("lists", "requests", "writes")
    async with serving(limits=Limits({f"tenant.{sort}": 1 for sort in sorts})) as world:
        seats = [getattr(world.limits, sort) for sort in sorts]
        made = orjson.dumps(configmap("a"))
        headers = {**ANN, "Content-Type": "application/json"}
        asked = [
            ("GET", CONFIGMAPS, b"", 200),
            ("GET", f"{CONFIGMAPS}/nope", b"", 404),
            ("POST", CONFIGMAPS, made, 201),
        ]
        for sort, (method, path, body, status) in zip(seats, asked, strict=True):
            others = [one for one in seats if one is not sort]
            for one in others:
                one.take(("id-team-a", "team-a"))
            answer = await world.ask(method, f"/clusters/team-a{path}", body, headers)
            assert answer.status == status
            for one in others:
                one.leave(("id-team-a", "team-a"))


async def test_leader_election_and_health_and_the_platform_need_no_seat_of_a_tenant() -> None:
    async with serving(limits=Limits({"tenant.requests": 1, "tenant.writes": 1, "tenant.lists": 1})) as world:
        for sort in (world.limits.requests, world.limits.writes, world.limits.lists):
            sort.take(("id-team-a", "team-a"))
            sort.take(("root", "team-a"))
        small = {**ANN, "Content-Type": "application/json", "Content-Length": "300"}
        # 404: the kinds of this world are few.
        for method, path, headers, status in (
            ("GET", f"{LEASES}/leader", ANN, 404),
            ("PUT", f"{LEASES}/leader", small, 404),
            ("PATCH", f"{LEASES}/leader", small, 404),
            ("POST", LEASES, small, 404),
            ("POST", LEASES, {**small, "Content-Length": "300000"}, 429),
            ("POST", LEASES, {**small, "Transfer-Encoding": "chunked"}, 429),
            ("GET", LEASES, ANN, 429),
            ("DELETE", f"{LEASES}/leader", ANN, 429),
            ("GET", f"{CONFIGMAPS}/a", ANN, 429),
            ("GET", "/livez", ANN, 200),
            ("GET", "/readyz", {}, 200),
            ("GET", CONFIGMAPS, {"Authorization": "Bearer admin-token"}, 200),
        ):
            answer = await world.ask(method, f"/clusters/team-a{path}", b"{}", headers)
            assert answer.status == status, (method, path)


async def test_a_seat_is_given_back_however_a_request_ends() -> None:
    async with serving() as world:
        for headers in (None, ANN):
            for target in (CONFIGMAPS, f"{CONFIGMAPS}/nope", "/nothing", f"{CONFIGMAPS}?limit=x"):
                await world.ask("GET", f"/clusters/team-a{target}", headers=headers)
            await world.ask("GET", f"/clusters/nobody{CONFIGMAPS}", headers=headers)
        assert world.limits.in_flight == 0


async def test_a_watch_keeps_its_seat_until_it_is_closed() -> None:
    async with serving(limits=Limits({"tenant.watches": 1})) as world:
        client = world.client(user=TEAM_A)
        async with client.watching(CONFIGMAPS):
            assert (world.limits.watches.total, world.limits.in_flight) == (1, 1)
            with pytest.raises(ApiError) as caught:
                async with client.watching(CONFIGMAPS):
                    pass
            assert caught.value.code == 429
        assert world.limits.in_flight == 0


# ---------------------------------------------------------------------- telemetry, compression, health


async def test_an_answer_has_the_clients_audit_id_or_one_of_its_own(world: Serving) -> None:
    seen: list[str] = []
    world.app.audit = lambda request, response: seen.append(request.id)
    for audit_id in ("mine", "x" * 65, "a\tb", None):
        headers = {"Authorization": "Bearer admin-token"} | ({"Audit-Id": audit_id} if audit_id else {})
        await world.ask("GET", "/clusters/team-a/api", headers=headers)
    assert seen[0] == "mine"
    assert len(set(seen)) == 4
    assert all(len(one) == 36 for one in seen[1:])


async def test_a_target_that_cannot_be_read_is_audited_too(world: Serving) -> None:
    seen: list[tuple[int, str, str]] = []
    world.app.audit = lambda request, response: seen.append(
        (response.status, request.info.verb, request.user.name)
    )
    await world.ask("GET", "/clusters/../api")
    await world.ask("GET", "/clusters/team-a/api", headers={})
    await world.ask("GET", "/clusters/team-a/api")
    assert seen == [
        (404, "", "system:anonymous"),
        (401, "get", "system:anonymous"),
        (200, "get", "admin"),
    ]


async def test_requests_are_counted_by_what_is_served_never_by_what_is_asked(world: Serving) -> None:
    await world.ask("GET", f"/clusters/team-a{CONFIGMAPS}")
    await world.ask("GET", f"/clusters/team-a{CONFIGMAPS}/nope")
    await world.ask("GET", "/clusters/team-a/apis/random-1234/v1/things")
    assert world.app.recorder.requests() == {
        ("LIST", "", "configmaps", 200): 1,
        ("GET", "", "configmaps", 404): 1,
        ("LIST", "", "", 404): 1,
    }


async def test_big_answers_are_compressed_for_those_who_accept_it(world: Serving) -> None:
    client = world.client()
    for number in range(3):
        await client.post(CONFIGMAPS, configmap(f"c{number}", data="z" * 60_000))
    headers = {"Authorization": "Bearer admin-token", "Accept-Encoding": "deflate, gzip;q=1.0"}
    packed = await world.ask("GET", f"/clusters/team-a{CONFIGMAPS}", headers=headers)
    plain = await world.ask("GET", f"/clusters/team-a{CONFIGMAPS}")
    small = await world.ask("GET", f"/clusters/team-a{CONFIGMAPS}/c1", headers=headers)
    refused = {**headers, "Accept-Encoding": "deflate, gzip;q=0"}
    assert (await world.ask("GET", f"/clusters/team-a{CONFIGMAPS}", headers=refused)).headers == ()
    assert ("Content-Encoding", "gzip") in packed.headers
    assert ("Vary", "Accept-Encoding") in packed.headers
    assert gzip.decompress(packed.body) == plain.body
    assert len(packed.body) < len(plain.body) / 10
    assert plain.headers == small.headers == ()


async def test_health_names_its_checks_and_withholds_reasons(caplog: pytest.LogCaptureFixture) -> None:
    async def store() -> str | None:
        return "disk on fire"

    async with serving(health=Health(ready={"store": store})) as world:
        live = await world.ask("GET", "/livez", headers={})
        assert (live.status, live.body) == (200, b"ok")
        ready = await world.ask("GET", "/readyz", headers={})
        assert (ready.status, ready.body) == (
            500,
            b"[+]ping ok\n[-]store failed: reason withheld\nreadyz check failed\n",
        )
        assert "disk on fire" in caplog.text
        path = "/readyz?verbose=false&exclude=store&exclude=moon&exclude=abc&exclude=%22q"
        excluded = await world.ask("GET", path, headers={})
        assert excluded.body == (
            b"[+]ping ok\n[+]store excluded: ok\n"
            b'warn: some health checks cannot be excluded: no matches for "\\"q","abc","moon"\nreadyz check passed\n'
        )
        for path, code in (
            ("/livez/ping", 200),
            ("/readyz/store", 500),
            ("/livez/moon", 404),
            ("/livez/", 404),
            ("/index.html", 200),
        ):
            assert (await world.ask("GET", f"/clusters/team-a{path}")).status == code
        for headers, why in ((None, b"disk on fire"), (ANN, b"reason withheld")):
            one = await world.ask("GET", "/clusters/team-a/readyz/store", headers=headers)
            assert one.body == b"internal server error: " + why + b"\n", (
                "a tenant is not told what is below it"
            )


async def test_an_app_bound_to_one_cluster_serves_nothing_else() -> None:
    async with serving(bound_cluster="team-b") as world:
        assert (await world.ask("GET", CONFIGMAPS)).status == 200
        assert (await world.ask("GET", f"/clusters/team-a{CONFIGMAPS}")).status == 404
        app: App = world.app
        assert app.bound_cluster == "team-b"


async def test_a_head_of_an_answer_shared_by_many_is_not_changed_by_one(world: Serving) -> None:
    first: Response = await world.ask("GET", "/clusters/team-a/apis/no.such")
    second: Response = await world.ask("GET", "/clusters/team-a/apis/no.such")
    assert (first.status, first.headers, first.body) == (second.status, second.headers, second.body)
