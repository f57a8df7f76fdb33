"""Kinds to write to at random, and what may be written: configurations that follow from a seed alone."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tests.conformance.exchange import Json

Random = random.Random
Make = Callable[[Random], Json]


@dataclass(frozen=True)
class Kind:
    """A kind to write to. `config` makes a configuration but for its metadata."""

    kind: str
    plural: str
    versions: tuple[str, ...]
    config: Make
    status: Make | None = None
    scales: bool = False
    custom: bool = False

    def path(self, version: str) -> str:
        root = "/apis" if "/" in version else "/api"
        return f"{root}/{version}/namespaces/${{ns}}/{self.plural}"


# ---------------------------------------------------------------------- values


def some(r: Random, /, **fields: Make) -> Json:
    """Some of the fields, in any order."""
    names = [name for name in fields if r.random() < 0.45]
    r.shuffle(names)
    return {name: fields[name](r) for name in names}


def one_of(*values: Json) -> Make:
    return lambda r: json.loads(json.dumps(r.choice(values)))


def list_of(items: Sequence[Make], *, least: int = 0) -> Make:
    def make(r: Random) -> Json:
        chosen = r.sample(items, r.randint(least, len(items)))
        return [one(r) for one in chosen]

    return make


def map_of(keys: str, value: Make) -> Make:
    return lambda r: {key: value(r) for key in r.sample(keys, r.randint(0, len(keys)))}


def item(key: str, value: Json, /, **fields: Make) -> Make:
    return lambda r: {key: value, **some(r, **fields)}


WORD: Final = one_of("1", "2", "3", "")
NUMBER: Final = one_of(1, 2, 3)


def anything(r: Random, depth: int = 0) -> Json:
    roll = r.random()
    if depth > 2 or roll < 0.4:
        return r.choice([1, "x", True, 1.5, "", 0])
    if roll < 0.6:
        return [anything(r, depth + 1) for _ in range(r.randint(0, 2))]
    return {key: anything(r, depth + 1) for key in r.sample("xyz", r.randint(0, 3))}


def metadata(r: Random) -> Json:
    return some(
        r,
        labels=map_of("lm", WORD),
        annotations=map_of("pq", WORD),
        finalizers=list_of([one_of("example.com/a"), one_of("example.com/b")]),
    )


def _custom(r: Random) -> Json:
    items = [item("k", k, v=NUMBER, w=WORD, inner=map_of("xy", WORD)) for k in "abc"]
    pairs = [
        item("port", 1, note=WORD),
        item("port", 1, protocol=one_of("UDP"), note=WORD),
        item("port", 2, protocol=one_of("TCP", "SCTP")),
    ]

    def distinct(r: Random) -> Json:
        made = list_of(pairs)(r)
        seen = {(one["port"], one.get("protocol", "TCP")): one for one in made}
        return list(seen.values())

    spec = some(
        r,
        n=NUMBER,
        text=WORD,
        items=list_of(items),
        pairs=distinct,
        any=lambda r: {key: anything(r) for key in r.sample("xyz", r.randint(0, 3))},
        set=list_of([one_of(one) for one in "pqrs"]),
        whole=list_of([one_of(one) for one in "pqr"]),
        atom=lambda r: some(r, q=WORD, r=WORD),
        bag=map_of("xy", lambda r: some(r, a=WORD, b=NUMBER)),
        either=one_of(1, "1"),
    )
    return {"spec": spec} if spec or r.random() < 0.5 else {}


def conditions(*types: str) -> Make:
    return list_of([item("type", name, status=one_of("True", "False")) for name in types])


def _custom_status(r: Random) -> Json:
    return some(r, n=NUMBER, conditions=conditions("A", "B"))


def _container(name: str) -> Make:
    ports = [
        item("containerPort", 80, name=one_of("x", "y")),
        lambda r: {"containerPort": 80, "protocol": "UDP", **some(r, hostPort=one_of(80))},
        one_of({"containerPort": 81, "protocol": "TCP"}),
    ]
    env = [item("name", name, value=WORD) for name in ("A", "B", "C")]
    return lambda r: {
        "name": name,
        "image": r.choice(["i1", "i2"]),
        **some(
            r,
            ports=list_of(ports),
            env=list_of(env),
            args=list_of([one_of("1"), one_of("2")]),
            resources=one_of({}, {"limits": {"cpu": "1"}}, {"requests": {"cpu": "100m", "memory": "1Gi"}}),
            imagePullPolicy=one_of("Always", "IfNotPresent"),
            volumeMounts=list_of([item("mountPath", "/v", name=one_of("v"))]),
            securityContext=one_of({}, {"runAsUser": 1}, {"capabilities": {"add": ["NET_ADMIN"]}}),
        ),
    }


def _pod(r: Random) -> Json:
    spread = [
        lambda r, when=when: {
            "topologyKey": "zone",
            "whenUnsatisfiable": when,
            "maxSkew": r.randint(1, 2),
            "labelSelector": {"matchLabels": {"a": "b"}},
        }
        for when in ("DoNotSchedule", "ScheduleAnyway")
    ]
    return {
        "containers": list_of([_container("c"), _container("d"), _container("e")], least=1)(r),
        **some(
            r,
            initContainers=list_of([_container("f")]),
            volumes=lambda r: [
                {"name": "v", **r.choice([{"emptyDir": {}}, {"configMap": {"name": "m"}}, {}])}
            ],
            nodeSelector=map_of("mn", WORD),
            tolerations=list_of([one_of({"key": "k", "operator": "Exists"}), one_of({"operator": "Exists"})]),
            imagePullSecrets=list_of([one_of({"name": "s"}), one_of({"name": "t"})]),
            hostAliases=list_of([one_of({"ip": "10.0.0.1", "hostnames": ["x"]}), one_of({"ip": "10.0.0.2"})]),
            topologySpreadConstraints=list_of(spread),
            affinity=one_of({}, {"nodeAffinity": {}}),
            terminationGracePeriodSeconds=NUMBER,
        ),
    }


def _deployment(r: Random) -> Json:
    labels = {"labels": {"a": "b", **some(r, v=WORD)}}
    strategy = one_of({"type": "Recreate"}, {"rollingUpdate": {"maxSurge": 1}}, {"type": "RollingUpdate"})
    return {
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": labels, "spec": _pod(r)},
            **some(r, replicas=NUMBER, paused=one_of(True, False), strategy=strategy, minReadySeconds=NUMBER),
        }
    }


def _deployment_status(r: Random) -> Json:
    return some(
        r, replicas=NUMBER, observedGeneration=NUMBER, conditions=conditions("Available", "Progressing")
    )


def _service(r: Random) -> Json:
    ports = [
        item("port", 80, name=one_of("x"), targetPort=one_of(80, "http", 8080)),
        lambda r: {"port": 80, "protocol": "UDP", "name": "y", **some(r, appProtocol=one_of("http"))},
        lambda r: {"port": 81, "name": r.choice("zw"), **some(r, protocol=one_of("TCP", "SCTP"))},
    ]
    return {
        "spec": {
            "clusterIP": "None",
            **some(
                r,
                ports=list_of(ports),
                selector=map_of("ab", one_of("1", "2")),
                sessionAffinity=one_of("ClientIP", "None"),
                publishNotReadyAddresses=one_of(True, False),
                externalIPs=list_of([one_of("1.2.3.4"), one_of("1.2.3.5")]),
            ),
        }
    }


def _autoscaler(r: Random) -> Json:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": r.choice("xy")}
    return {"spec": {"scaleTargetRef": target, "maxReplicas": r.randint(3, 5), **some(r, minReplicas=NUMBER)}}


def _account(r: Random) -> Json:
    return some(
        r,
        secrets=list_of([item("name", name, namespace=WORD) for name in "st"]),
        imagePullSecrets=list_of([one_of({"name": "s"}), one_of({"name": "t"})]),
        automountServiceAccountToken=one_of(True, False),
    )


def _ingress(r: Random) -> Json:
    backend = {"service": {"name": "s", "port": {"number": 80}}}
    path = {"path": "/", "pathType": "Prefix", "backend": backend}
    return {
        "spec": {
            "defaultBackend": backend,
            **some(
                r,
                ingressClassName=one_of("x", "y"),
                rules=list_of(
                    [
                        one_of({"host": "a.example.com", "http": {"paths": [path]}}),
                        one_of({"host": "b.example.com"}),
                    ]
                ),
                tls=list_of([one_of({"hosts": ["a.example.com"]})]),
            ),
        }
    }


def _policy(r: Random) -> Json:
    # Nothing that is empty: upstream counts that as a change of what it had stored, and raises the generation.
    ports = [
        item("port", 80, protocol=one_of("TCP", "UDP")),
        lambda r: {"port": "http", **some(r, protocol=one_of("SCTP"))},
        one_of({"port": 81, "endPort": 90}),
    ]
    peers = [
        one_of({"podSelector": {"matchLabels": {"a": "b"}}}, {"podSelector": {}}),
        one_of({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}),
        one_of({"namespaceSelector": {}}),
    ]
    rule = [lambda r: some(r, ports=list_of(ports, least=1), **{"from": list_of(peers, least=1)})]
    out = [lambda r: some(r, ports=list_of(ports, least=1), to=list_of(peers, least=1))]
    selector = one_of(
        {}, {"matchLabels": {"a": "b"}}, {"matchExpressions": [{"key": "k", "operator": "Exists"}]}
    )
    types = list_of([one_of("Ingress"), one_of("Egress")], least=1)
    return {
        "spec": {
            "podSelector": selector(r),
            **some(r, ingress=list_of(rule, least=1), egress=list_of(out, least=1), policyTypes=types),
        }
    }


def _lone_pod(r: Random) -> Json:
    # Of a pod that is there hardly anything may be changed.
    spec = {"containers": [{"name": "c", "image": r.choice(["i1", "i2"])}]}
    return {
        "spec": {
            **spec,
            **some(r, activeDeadlineSeconds=NUMBER, tolerations=one_of([{"operator": "Exists"}])),
        }
    }


def _pod_status(r: Random) -> Json:
    return some(
        r,
        phase=one_of("Pending", "Running"),
        conditions=conditions("Ready", "Initialized"),
        podIPs=one_of([{"ip": "10.0.0.1"}], [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]),
        message=WORD,
    )


def _cron_job(r: Random) -> Json:
    job = {"template": {"spec": {**_pod(r), "restartPolicy": r.choice(["Never", "OnFailure"])}}}
    more = some(
        r,
        suspend=one_of(True, False),
        timeZone=one_of("Etc/UTC"),
        concurrencyPolicy=one_of("Forbid", "Allow"),
    )
    return {"spec": {"schedule": r.choice(["* * * * *", "@daily"]), "jobTemplate": {"spec": job}, **more}}


def _configuration(r: Random) -> Json:
    return some(r, data=map_of("abcd", WORD), binaryData=map_of("ef", one_of("Yg==", "Yw==")))


KINDS: Final = (
    Kind("W", "ws", ("${group}/v1", "${group}/v2"), _custom, _custom_status, custom=True),
    Kind("Deployment", "deployments", ("apps/v1",), _deployment, _deployment_status, scales=True),
    Kind("ConfigMap", "configmaps", ("v1",), _configuration),
    Kind("Service", "services", ("v1",), _service),
    Kind(
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        ("autoscaling/v1", "autoscaling/v2"),
        _autoscaler,
    ),
    Kind("ServiceAccount", "serviceaccounts", ("v1",), _account),
    Kind("Ingress", "ingresses", ("networking.k8s.io/v1",), _ingress),
    Kind("NetworkPolicy", "networkpolicies", ("networking.k8s.io/v1",), _policy),
    Kind("Pod", "pods", ("v1",), _lone_pod, _pod_status),
    Kind("CronJob", "cronjobs", ("batch/v1",), _cron_job),
)
# Custom kinds have more ways of merging than all others.
WEIGHTS: Final = (5, 4, 1, 2, 1, 1, 1, 2, 2, 1)
