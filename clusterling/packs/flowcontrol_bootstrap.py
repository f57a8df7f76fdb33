"""The FlowSchemas and priority levels that every cluster begins with: upstream's mandatory and suggested ones, as a table.

Upstream: apiserver pkg/apis/flowcontrol/bootstrap/default.go.
"""

from __future__ import annotations

from typing import Final

from clusterling.machinery.meta import Object

EXEMPT: Final = "exempt"

_API_VERSION: Final = "flowcontrol.apiserver.k8s.io/v1"
_ANNOTATIONS: Final = {"apf.kubernetes.io/autoupdate-spec": "true"}
_ALL_URLS: Final = ({"verbs": ["*"], "nonResourceURLs": ["*"]},)


def _resources(verbs: str, group: str, *resources: str, cluster: bool = True) -> Object:
    rule: Object = {"verbs": verbs.split(), "apiGroups": [group], "resources": list(resources)}
    if cluster:
        rule["clusterScope"] = True
    return {**rule, "namespaces": ["*"]}


_EVERYTHING: Final = (_resources("*", "*", "*"),)
_LEASES: Final = "coordination.k8s.io"
_KUBE_SYSTEM: Final = {"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": "*"}}


def _group(name: str) -> Object:
    return {"kind": "Group", "group": {"name": name}}


def _user(name: str) -> Object:
    return {"kind": "User", "user": {"name": name}}


_EVERYBODY: Final = (_group("system:unauthenticated"), _group("system:authenticated"))
_CONTROLLERS: Final = _user("system:kube-controller-manager")
_SCHEDULER: Final = _user("system:kube-scheduler")


def _schema(
    name: str,
    level: str,
    precedence: int,
    method: str,
    subjects: tuple[Object, ...],
    resources: tuple[Object, ...] = _EVERYTHING,
    urls: tuple[Object, ...] = _ALL_URLS,
) -> Object:
    rule: Object = {"subjects": list(subjects)}
    if resources:
        rule["resourceRules"] = list(resources)
    if urls:
        rule["nonResourceRules"] = list(urls)
    spec: Object = {"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence}
    if method:
        spec["distinguisherMethod"] = {"type": method}
    found = {
        "type": "Dangling",
        "status": "False",
        "reason": "Found",
        "message": f'This FlowSchema references the PriorityLevelConfiguration object named "{level}" and it exists',
    }
    return {
        "apiVersion": _API_VERSION,
        "kind": "FlowSchema",
        "metadata": {"name": name, "generation": 1, "annotations": _ANNOTATIONS},
        "spec": {**spec, "rules": [rule]},
        "status": {"conditions": [found]},
    }


def _level(name: str, shares: int, lendable: int, queues: int = 0, hand: int = 0) -> Object:
    if name == EXEMPT:
        spec: Object = {
            "type": "Exempt",
            "exempt": {"nominalConcurrencyShares": shares, "lendablePercent": lendable},
        }
    else:
        response: Object = {"type": "Reject"}
        if queues:
            queuing = {"queues": queues, "handSize": hand, "queueLengthLimit": 50}
            response = {"type": "Queue", "queuing": queuing}
        limited = {
            "nominalConcurrencyShares": shares,
            "limitResponse": response,
            "lendablePercent": lendable,
        }
        spec = {"type": "Limited", "limited": limited}
    return {
        "apiVersion": _API_VERSION,
        "kind": "PriorityLevelConfiguration",
        "metadata": {"name": name, "generation": 1, "annotations": _ANNOTATIONS},
        "spec": spec,
        "status": {},
    }


_PROBES: Final = ({"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]},)
_ELECTION: Final = (_resources("get create update", _LEASES, "leases", cluster=False),)
_NODES: Final = (
    _resources("*", "", "nodes", "nodes/status"),
    _resources("*", _LEASES, "leases", cluster=False),
)

FLOW_SCHEMAS: Final = (
    _schema("catch-all", "catch-all", 10000, "ByUser", _EVERYBODY),
    _schema(EXEMPT, EXEMPT, 1, "", (_group("system:masters"),)),
    _schema("global-default", "global-default", 9900, "ByUser", _EVERYBODY),
    _schema("kube-controller-manager", "workload-high", 800, "ByNamespace", (_CONTROLLERS,)),
    _schema("kube-scheduler", "workload-high", 800, "ByNamespace", (_SCHEDULER,)),
    _schema("kube-system-service-accounts", "workload-high", 900, "ByNamespace", (_KUBE_SYSTEM,)),
    _schema("probes", EXEMPT, 2, "", _EVERYBODY, (), _PROBES),
    _schema("service-accounts", "workload-low", 9000, "ByUser", (_group("system:serviceaccounts"),)),
    _schema(
        "system-leader-election",
        "leader-election",
        100,
        "ByUser",
        (_CONTROLLERS, _SCHEDULER, _KUBE_SYSTEM),
        _ELECTION,
        (),
    ),
    _schema("system-node-high", "node-high", 400, "ByUser", (_group("system:nodes"),), _NODES, ()),
    _schema("system-nodes", "system", 500, "ByUser", (_group("system:nodes"),)),
)

PRIORITY_LEVELS: Final = (
    _level("catch-all", 5, 0),
    _level(EXEMPT, 0, 0),
    _level("global-default", 20, 50, 128, 6),
    _level("leader-election", 10, 0, 16, 4),
    _level("node-high", 40, 25, 64, 6),
    _level("system", 30, 33, 64, 6),
    _level("workload-high", 40, 50, 128, 6),
    _level("workload-low", 100, 90, 128, 6),
)

# What of these may not be changed, by kind and name.
MANDATORY: Final = {
    (one["kind"], one["metadata"]["name"]): one["spec"]
    for one in (*FLOW_SCHEMAS, *PRIORITY_LEVELS)
    if one["metadata"]["name"] in (EXEMPT, "catch-all")
}
