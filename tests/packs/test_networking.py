from __future__ import annotations

from typing import Any

import pytest

from clusterling.machinery.errors import ApiError
from clusterling.packs.networking.ingressclasses import DEFAULT_ANNOTATION
from clusterling.packs.networking.ingresses import CLASS_ANNOTATION
from tests.packs.conftest import Cluster, causes

INGRESSES = "networking.k8s.io/ingresses"
CLASSES = "networking.k8s.io/ingressclasses"
POLICIES = "networking.k8s.io/networkpolicies"
ADDRESSES = "networking.k8s.io/ipaddresses"
RANGES = "networking.k8s.io/servicecidrs"


def _backend() -> dict[str, Any]:
    return {"service": {"name": "s", "port": {"number": 80}}}


def _rule(host: str, **path: Any) -> dict[str, Any]:
    one = {"path": "/", "pathType": "Prefix", "backend": _backend(), **path}
    return {"host": host, "http": {"paths": [one]}}


def _marked() -> dict[str, Any]:
    return {"annotations": {DEFAULT_ANNOTATION: "true"}}


# ---------------------------------------------------------------------- ingresses


async def test_the_newest_default_class_is_an_ingress_s_that_names_none(cluster: Cluster) -> None:
    for name in ("one", "two"):
        cluster.clock.turn(1)
        await cluster.create(CLASSES, name, metadata=_marked(), spec={"controller": "example.com/c"})
    await cluster.create(CLASSES, "alike", metadata=_marked(), spec={"controller": "example.com/c"})
    made = await cluster.create(INGRESSES, "a", spec={"defaultBackend": _backend()})
    assert made["spec"]["ingressClassName"] == "alike"
    assert (made["metadata"]["generation"], made["status"]) == (1, {"loadBalancer": {}})
    given = {"defaultBackend": _backend(), "ingressClassName": "other"}
    assert (await cluster.create(INGRESSES, "b", spec=given))["spec"]["ingressClassName"] == "other"
    assert not cluster.warnings
    annotated = {"annotations": {CLASS_ANNOTATION: "old"}}
    made = await cluster.create(INGRESSES, "c", metadata=annotated, spec={"defaultBackend": _backend()})
    assert "ingressClassName" not in made["spec"]
    assert cluster.warnings == [
        f"annotation \"{CLASS_ANNOTATION}\" is deprecated, please use 'spec.ingressClassName' instead"
    ]


async def test_an_ingress_without_a_default_class_has_none(cluster: Cluster) -> None:
    await cluster.create(CLASSES, "one", spec={"controller": "example.com/c"})
    made = await cluster.create(INGRESSES, "a", spec={"defaultBackend": _backend()})
    cluster.clock.turn(1)
    assert cluster.row(INGRESSES, made) == ["a", "<none>", "*", "", "80", "1s"]


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        ({}, "spec", "Invalid value: null: either `defaultBackend` or `rules` must be specified"),
        ({"defaultBackend": {}}, "spec.defaultBackend", 'Invalid value: "": resource or service backend is required'),
        ({"defaultBackend": {"service": {"name": "s", "port": {"name": "a", "number": 1}}}}, "spec.defaultBackend",
         'Invalid value: "": cannot set both port name & port number'),
        ({"defaultBackend": {"service": {"name": "s"}}}, "spec.defaultBackend",
         "Required value: port name or number is required"),
        ({"rules": [_rule("1.2.3.4")]}, "spec.rules[0].host",
         'Invalid value: "1.2.3.4": must be a DNS name, not an IP address'),
        ({"rules": [{"host": "a.b", "http": {"paths": []}}]}, "spec.rules[0].http.paths", "Required value"),
        ({"rules": [_rule("a.b", path="x")]}, "spec.rules[0].http.paths[0].path",
         'Invalid value: "x": must be an absolute path'),
        ({"rules": [_rule("a.b", path="/a//b")]}, "spec.rules[0].http.paths[0].path",
         'Invalid value: "/a//b": must not contain \'//\''),
        ({"rules": [_rule("a.b", path="/a/..")]}, "spec.rules[0].http.paths[0].path",
         'Invalid value: "/a/..": cannot end with \'/..\''),
        ({"rules": [_rule("a.b", pathType="?")]}, "spec.rules[0].http.paths[0].pathType",
         'Unsupported value: "?": supported values: "Exact", "ImplementationSpecific", "Prefix"'),
        ({"rules": [{"host": "a.b", "http": {"paths": [{"backend": _backend()}]}}]},
         "spec.rules[0].http.paths[0].pathType", "Required value: pathType must be specified"),
    ],
)  # fmt: skip
async def test_an_ingress_that_leads_nowhere_is_refused_in_upstreams_words(
    cluster: Cluster, spec: dict[str, Any], field: str, message: str
) -> None:
    error = await cluster.refused(INGRESSES, "a", spec=spec)
    assert causes(error) == [(field, message)]


async def test_an_annotated_class_must_be_the_one_named(cluster: Cluster) -> None:
    annotated = {"annotations": {CLASS_ANNOTATION: "x"}}
    spec = {"defaultBackend": _backend(), "ingressClassName": "y"}
    error = await cluster.refused(INGRESSES, "a", metadata=annotated, spec=spec)
    why = 'Invalid value: "x": must match `ingressClassName` when both are specified'
    assert causes(error) == [(f"annotations.{CLASS_ANNOTATION}", why)]


async def test_an_ingress_s_table_shows_hosts_ports_and_addresses(cluster: Cluster) -> None:
    rules = [_rule(host) for host in ("a.b", "c.d", "e.f", "g.h", "i.j")]
    spec = {"ingressClassName": "x", "rules": rules, "tls": [{"hosts": ["a.b"]}]}
    made = await cluster.create(INGRESSES, "a", spec=spec)
    assert cluster.row(INGRESSES, made)[2:5] == ["a.b,c.d,e.f + 2 more...", "", "80, 443"]
    points = [{"ip": "1.2.3.4"}, {"hostname": "a.b"}]
    status = {"loadBalancer": {"ingress": points}}
    told = await cluster.update(INGRESSES, "a", "status", spec={}, status=status)
    assert told["spec"] == made["spec"]
    assert told["metadata"]["generation"] == 1
    assert cluster.row(INGRESSES, told)[3] == "1.2.3.4,a.b"
    changed = await cluster.update(INGRESSES, "a", spec={"rules": [_rule("x.y")]}, status={})
    assert (changed["metadata"]["generation"], changed["status"]) == (2, told["status"])


async def test_an_ingress_s_status_names_addresses_that_are_some(cluster: Cluster) -> None:
    await cluster.create(INGRESSES, "a", spec={"defaultBackend": _backend()})
    status = {"loadBalancer": {"ingress": [{"ip": "x"}, {"hostname": "1.2.3.4"}]}}
    with pytest.raises(ApiError) as caught:
        await cluster.update(INGRESSES, "a", "status", status=status)
    assert causes(caught.value) == [
        ("status.loadBalancer.ingress[0].ip",
         'Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)'),
        ("status.loadBalancer.ingress[1].hostname",
         'Invalid value: "1.2.3.4": must be a DNS name, not an IP address'),
    ]  # fmt: skip


# ---------------------------------------------------------------------- ingress classes


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        ({}, "spec.controller", "Required value"),
        ({"controller": "x"}, "spec.controller",
         'Invalid value: "x": must be a domain-prefixed path (such as "acme.io/foo")'),
        ({"controller": "a.b/c d"}, "spec.controller",
         "Invalid value: \"c d\": Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')"),
        ({"controller": "a.b/" + "c" * 250}, "spec.controller", "Too long: may not be more than 250 bytes"),
        ({"controller": "a.b/c", "parameters": {"kind": "K", "name": "n", "scope": "?"}}, "spec.parameters.scope",
         'Unsupported value: "?": supported values: "Cluster", "Namespace"'),
        ({"controller": "a.b/c", "parameters": {"kind": "K", "name": "n", "scope": "Namespace"}},
         "spec.parameters.namespace", "Required value: `parameters.scope` is set to 'Namespace'"),
        ({"controller": "a.b/c", "parameters": {"kind": "K", "name": "n", "namespace": "x"}},
         "spec.parameters.namespace", "Forbidden: `parameters.scope` is set to 'Cluster'"),
        ({"controller": "a.b/c", "parameters": {"kind": "a/b", "name": "n"}}, "spec.parameters.kind",
         "Invalid value: \"a/b\": may not contain '/'"),
    ],
)  # fmt: skip
async def test_a_class_names_its_controller_and_parameters(
    cluster: Cluster, spec: dict[str, Any], field: str, message: str
) -> None:
    error = await cluster.refused(CLASSES, "a", spec=spec)
    assert causes(error) == [(field, message)]


async def test_a_class_keeps_its_controller_and_shows_whether_it_is_the_default(cluster: Cluster) -> None:
    parameters = {"apiGroup": "x.y", "kind": "K", "name": "n"}
    made = await cluster.create(
        CLASSES, "a", metadata=_marked(), spec={"controller": "a.b/c", "parameters": parameters}
    )
    assert made["spec"]["parameters"]["scope"] == "Cluster"
    cluster.clock.turn(1)
    assert cluster.row(CLASSES, made) == ["a (default)", "a.b/c", "K.x.y/n", "1s"]
    with pytest.raises(ApiError) as caught:
        await cluster.update(CLASSES, "a", spec={"controller": "a.b/d"})
    assert causes(caught.value) == [("spec.controller", 'Invalid value: "a.b/d": field is immutable')]


# ---------------------------------------------------------------------- network policies


async def test_a_policy_is_of_ingress_and_of_egress_where_it_says_something_of_that(cluster: Cluster) -> None:
    made = await cluster.create(POLICIES, "a")
    assert made["spec"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    assert made["metadata"]["generation"] == 1
    made = await cluster.create(
        POLICIES,
        "b",
        spec={"podSelector": {"matchLabels": {"x": "y"}}, "egress": [{"ports": [{"port": 80}]}]},
    )
    assert made["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert made["spec"]["egress"] == [{"ports": [{"port": 80, "protocol": "TCP"}]}]
    cluster.clock.turn(1)
    assert cluster.row(POLICIES, made) == ["b", "x=y", "1s"]
    changed = await cluster.update(POLICIES, "b", spec={"podSelector": {}, "policyTypes": ["Ingress"]})
    assert changed["metadata"]["generation"] == 2


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        ({"policyTypes": ["?"]}, "spec.policyTypes[0]",
         'Unsupported value: "?": supported values: "Ingress", "Egress"'),
        ({"policyTypes": ["a", "b", "c"]}, "spec.policyTypes",
         'Invalid value: ["a","b","c"]: may not specify more than two policyTypes'),
        ({"ingress": [{"from": [{}]}]}, "spec.ingress[0].from[0]", "Required value: must specify a peer"),
        ({"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}]}]},
         "spec.egress[0].to[0].ipBlock.except[0]",
         'Invalid value: "11.0.0.0/16": must be a strict subset of `cidr`'),
        ({"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}]}]}, "spec.egress[0].to[0]",
         "Forbidden: may not specify both ipBlock and another peer"),
        ({"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.1/8"}}]}]}, "spec.ingress[0].from[0].ipBlock.cidr",
         'Invalid value: "10.0.0.1/8": must not have bits set beyond the prefix length'),
        ({"ingress": [{"ports": [{"endPort": 5}]}]}, "spec.ingress[0].ports[0].endPort",
         "Invalid value: 5: may not be specified when `port` is not specified"),
        ({"ingress": [{"ports": [{"port": "http", "endPort": 5}]}]}, "spec.ingress[0].ports[0].endPort",
         "Invalid value: 5: may not be specified when `port` is non-numeric"),
        ({"ingress": [{"ports": [{"port": 9, "endPort": 5}]}]}, "spec.ingress[0].ports[0].endPort",
         "Invalid value: 5: must be greater than or equal to `port`"),
        ({"podSelector": {"matchExpressions": [{"key": "k", "operator": "?"}]}},
         "spec.podSelector.matchExpressions[0].operator", 'Invalid value: "?": not a valid selector operator'),
    ],
)  # fmt: skip
async def test_a_policy_that_means_nothing_is_refused_in_upstreams_words(
    cluster: Cluster, spec: dict[str, Any], field: str, message: str
) -> None:
    error = await cluster.refused(POLICIES, "a", spec={"podSelector": {}, **spec})
    assert causes(error) == [(field, message)]


# ---------------------------------------------------------------------- addresses and ranges


@pytest.mark.parametrize(
    ("name", "parent", "wrong"),
    [
        ("10.0.0.077", {"resource": "r", "name": "n"},
         [("metadata.name", 'Invalid value: "10.0.0.077": must not have leading 0s')]),
        ("fd00:0::1", {"resource": "r", "name": "n"},
         [("metadata.name", 'Invalid value: "fd00:0::1": must be in canonical form ("fd00::1")')]),
        ("1.2.3.4", None, [("spec.parentRef", "Required value")]),
        ("1.2.3.4", {}, [("spec.parentRef.resource", "Required value"), ("spec.parentRef.name", "Required value")]),
        ("1.2.3.4", {"resource": "a/b", "name": "n"},
         [("spec.parentRef.resource", "Invalid value: \"a/b\": may not contain '/'")]),
    ],
)  # fmt: skip
async def test_an_address_is_named_by_itself_and_has_somebody(
    cluster: Cluster, name: str, parent: dict[str, str] | None, wrong: list[tuple[str, str]]
) -> None:
    error = await cluster.refused(ADDRESSES, name, spec={} if parent is None else {"parentRef": parent})
    assert causes(error) == wrong


async def test_an_address_does_not_change_hands(cluster: Cluster) -> None:
    parent = {"group": "example.com", "resource": "gateways", "namespace": "n", "name": "g"}
    made = await cluster.create(ADDRESSES, "1.2.3.4", spec={"parentRef": parent})
    assert cluster.row(ADDRESSES, made) == ["1.2.3.4", "gateways.example.com/n/g"]
    with pytest.raises(ApiError) as caught:
        await cluster.update(ADDRESSES, "1.2.3.4", spec={"parentRef": {**parent, "name": "h"}})
    assert causes(caught.value) == [("spec.parentRef", "Invalid value: null: field is immutable")]


@pytest.mark.parametrize(
    ("cidrs", "field", "message"),
    [
        ([], "spec.cidrs", "Required value: at least one CIDR required"),
        (["10.5.0.1/28"], "spec.cidrs[0]",
         'Invalid value: "10.5.0.1/28": must not have bits set beyond the prefix length'),
        (["FD00::/64"], "spec.cidrs[0]", 'Invalid value: "FD00::/64": must be in canonical form ("fd00::/64")'),
        (["10.5.0.0/28", "10.6.0.0/28"], "spec.cidrs",
         'Invalid value: ["10.5.0.0/28","10.6.0.0/28"]: may specify no more than one IP for each IP family, '
         "i.e 192.168.0.0/24 and 2001:db8::/64"),
    ],
)  # fmt: skip
async def test_a_range_is_one_of_each_family_at_most(
    cluster: Cluster, cidrs: list[str], field: str, message: str
) -> None:
    error = await cluster.refused(RANGES, "x", spec={"cidrs": cidrs})
    assert causes(error) == [(field, message)]


async def test_a_range_may_gain_the_other_family_and_nothing_else(cluster: Cluster) -> None:
    made = await cluster.create(RANGES, "x", spec={"cidrs": ["10.5.0.0/28"]})
    assert [(one["type"], one["status"]) for one in made["status"]["conditions"]] == [("Ready", "True")]
    with pytest.raises(ApiError) as caught:
        await cluster.update(RANGES, "x", spec={"cidrs": ["10.5.0.0/27"]})
    assert causes(caught.value) == [("spec.cidrs[0]", 'Invalid value: "10.5.0.0/27": field is immutable')]
    both = ["10.5.0.0/28", "fd00::/112"]
    made = await cluster.update(RANGES, "x", spec={"cidrs": both})
    cluster.clock.turn(1)
    assert cluster.row(RANGES, made) == ["x", ",".join(both), "1s"]
    with pytest.raises(ApiError) as caught:
        await cluster.update(RANGES, "x", spec={"cidrs": both[:1]})
    assert causes(caught.value) == [("spec.cidrs", 'Invalid value: ["10.5.0.0/28"]: field is immutable')]


async def test_a_range_s_status_is_changed_by_its_own_path_and_decides_whether_it_serves(
    cluster: Cluster,
) -> None:
    await cluster.create(RANGES, "x", spec={"cidrs": ["10.5.0.0/28"]})
    made = await cluster.update(RANGES, "x", "status", metadata={"labels": {"a": "b"}}, spec={}, status={})
    assert made["spec"] == {"cidrs": ["10.5.0.0/28"]}
    assert "labels" not in made["metadata"]
    error = await cluster.refused("services", "a", spec={"ports": [{"port": 80}], "clusterIP": "10.5.0.3"})
    why = "failed to allocate IP 10.5.0.3: the provided network does not match the current range"
    assert causes(error) == [("spec.clusterIPs", f'Invalid value: ["10.5.0.3"]: {why}')]
