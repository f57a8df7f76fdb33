"""Random sequences of writes by several field managers, told to a real kube-apiserver and to this checkout.

Objects and managedFields must come out the same after every request: applies, with and without force, through two
versions of a kind, patches of all types, replacements, statuses and scales. What a sequence consists of follows from
its number alone, so one that differs is told again by itself; the story `owners_at_random` is some of them, recorded.

    python -m tests.conformance.owners [--first N] [--count N] [--record]
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from clusterling.services.patching import PatchType
from tests.conformance import beside, exchange, recordings
from tests.conformance.exchange import Json, Step

STEPS: Final = 12
MANAGERS: Final = ("a", "b", "c")
# Without them an object is refused for them alone.
_NEEDED: Final = frozenset({"spec", "selector", "template", "defaultBackend"})

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


def _some(r: Random, /, **fields: Make) -> Json:
    """Some of the fields, in any order."""
    names = [name for name in fields if r.random() < 0.45]
    r.shuffle(names)
    return {name: fields[name](r) for name in names}


def _one(*values: Json) -> Make:
    return lambda r: json.loads(json.dumps(r.choice(values)))


def _list(items: Sequence[Make], *, least: int = 0) -> Make:
    def make(r: Random) -> Json:
        chosen = r.sample(items, r.randint(least, len(items)))
        return [item(r) for item in chosen]

    return make


def _map(keys: str, value: Make) -> Make:
    return lambda r: {key: value(r) for key in r.sample(keys, r.randint(0, len(keys)))}


def _item(key: str, value: Json, /, **fields: Make) -> Make:
    return lambda r: {key: value, **_some(r, **fields)}


_WORD: Final = _one("1", "2", "3", "")
_NUMBER: Final = _one(1, 2, 3)


def _anything(r: Random, depth: int = 0) -> Json:
    roll = r.random()
    if depth > 2 or roll < 0.4:
        return r.choice([1, "x", True, 1.5, "", 0])
    if roll < 0.6:
        return [_anything(r, depth + 1) for _ in range(r.randint(0, 2))]
    return {key: _anything(r, depth + 1) for key in r.sample("xyz", r.randint(0, 3))}


def _metadata(r: Random) -> Json:
    return _some(
        r,
        labels=_map("lm", _WORD),
        annotations=_map("pq", _WORD),
        finalizers=_list([_one("example.com/a"), _one("example.com/b")]),
    )


def _custom(r: Random) -> Json:
    items = [_item("k", k, v=_NUMBER, w=_WORD, inner=_map("xy", _WORD)) for k in "abc"]
    pairs = [
        _item("port", 1, note=_WORD),
        _item("port", 1, protocol=_one("UDP"), note=_WORD),
        _item("port", 2, protocol=_one("TCP", "SCTP")),
    ]

    def distinct(r: Random) -> Json:
        made = _list(pairs)(r)
        seen = {(one["port"], one.get("protocol", "TCP")): one for one in made}
        return list(seen.values())

    spec = _some(
        r,
        n=_NUMBER,
        text=_WORD,
        items=_list(items),
        pairs=distinct,
        any=lambda r: {key: _anything(r) for key in r.sample("xyz", r.randint(0, 3))},
        set=_list([_one(one) for one in "pqrs"]),
        whole=_list([_one(one) for one in "pqr"]),
        atom=lambda r: _some(r, q=_WORD, r=_WORD),
        bag=_map("xy", lambda r: _some(r, a=_WORD, b=_NUMBER)),
        either=_one(1, "1"),
    )
    return {"spec": spec} if spec or r.random() < 0.5 else {}


def _conditions(*types: str) -> Make:
    return _list([_item("type", name, status=_one("True", "False")) for name in types])


def _custom_status(r: Random) -> Json:
    return _some(r, n=_NUMBER, conditions=_conditions("A", "B"))


def _container(name: str) -> Make:
    ports = [
        _item("containerPort", 80, name=_one("x", "y")),
        lambda r: {"containerPort": 80, "protocol": "UDP", **_some(r, hostPort=_one(80))},
        _one({"containerPort": 81, "protocol": "TCP"}),
    ]
    env = [_item("name", name, value=_WORD) for name in ("A", "B", "C")]
    return lambda r: {
        "name": name,
        "image": r.choice(["i1", "i2"]),
        **_some(
            r,
            ports=_list(ports),
            env=_list(env),
            args=_list([_one("1"), _one("2")]),
            resources=_one({}, {"limits": {"cpu": "1"}}, {"requests": {"cpu": "100m", "memory": "1Gi"}}),
            imagePullPolicy=_one("Always", "IfNotPresent"),
            volumeMounts=_list([_item("mountPath", "/v", name=_one("v"))]),
            securityContext=_one({}, {"runAsUser": 1}, {"capabilities": {"add": ["NET_ADMIN"]}}),
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
        "containers": _list([_container("c"), _container("d"), _container("e")], least=1)(r),
        **_some(
            r,
            initContainers=_list([_container("f")]),
            volumes=lambda r: [
                {"name": "v", **r.choice([{"emptyDir": {}}, {"configMap": {"name": "m"}}, {}])}
            ],
            nodeSelector=_map("mn", _WORD),
            tolerations=_list([_one({"key": "k", "operator": "Exists"}), _one({"operator": "Exists"})]),
            imagePullSecrets=_list([_one({"name": "s"}), _one({"name": "t"})]),
            hostAliases=_list([_one({"ip": "10.0.0.1", "hostnames": ["x"]}), _one({"ip": "10.0.0.2"})]),
            topologySpreadConstraints=_list(spread),
            affinity=_one({}, {"nodeAffinity": {}}),
            terminationGracePeriodSeconds=_NUMBER,
        ),
    }


def _deployment(r: Random) -> Json:
    labels = {"labels": {"a": "b", **_some(r, v=_WORD)}}
    strategy = _one({"type": "Recreate"}, {"rollingUpdate": {"maxSurge": 1}}, {"type": "RollingUpdate"})
    return {
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": labels, "spec": _pod(r)},
            **_some(
                r, replicas=_NUMBER, paused=_one(True, False), strategy=strategy, minReadySeconds=_NUMBER
            ),
        }
    }


def _deployment_status(r: Random) -> Json:
    return _some(
        r, replicas=_NUMBER, observedGeneration=_NUMBER, conditions=_conditions("Available", "Progressing")
    )


def _service(r: Random) -> Json:
    ports = [
        _item("port", 80, name=_one("x"), targetPort=_one(80, "http", 8080)),
        lambda r: {"port": 80, "protocol": "UDP", "name": "y", **_some(r, appProtocol=_one("http"))},
        lambda r: {"port": 81, "name": r.choice("zw"), **_some(r, protocol=_one("TCP", "SCTP"))},
    ]
    return {
        "spec": {
            "clusterIP": "None",
            **_some(
                r,
                ports=_list(ports),
                selector=_map("ab", _one("1", "2")),
                sessionAffinity=_one("ClientIP", "None"),
                publishNotReadyAddresses=_one(True, False),
                externalIPs=_list([_one("1.2.3.4"), _one("1.2.3.5")]),
            ),
        }
    }


def _autoscaler(r: Random) -> Json:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": r.choice("xy")}
    return {
        "spec": {"scaleTargetRef": target, "maxReplicas": r.randint(3, 5), **_some(r, minReplicas=_NUMBER)}
    }


def _account(r: Random) -> Json:
    return _some(
        r,
        secrets=_list([_item("name", name, namespace=_WORD) for name in "st"]),
        imagePullSecrets=_list([_one({"name": "s"}), _one({"name": "t"})]),
        automountServiceAccountToken=_one(True, False),
    )


def _ingress(r: Random) -> Json:
    backend = {"service": {"name": "s", "port": {"number": 80}}}
    path = {"path": "/", "pathType": "Prefix", "backend": backend}
    return {
        "spec": {
            "defaultBackend": backend,
            **_some(
                r,
                ingressClassName=_one("x", "y"),
                rules=_list(
                    [
                        _one({"host": "a.example.com", "http": {"paths": [path]}}),
                        _one({"host": "b.example.com"}),
                    ]
                ),
                tls=_list([_one({"hosts": ["a.example.com"]})]),
            ),
        }
    }


def _configuration(r: Random) -> Json:
    return _some(r, data=_map("abcd", _WORD), binaryData=_map("ef", _one("Yg==", "Yw==")))


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
)
# Custom kinds have more ways of merging than all others.
_WEIGHTS: Final = (5, 4, 1, 2, 1, 1, 1)


# ---------------------------------------------------------------------- requests


def sequence(number: int) -> list[Step]:
    """The requests of one sequence, all to one object."""
    r = Random(number)
    kind = r.choices(KINDS, _WEIGHTS)[0]
    name = f"s{number}"
    ways: list[tuple[Callable[[Random, Kind, str], Step], int]] = [
        (_apply, 8),
        (_merge, 3),
        (_json, 2),
        (_reset, 1),
        (_strategic if not kind.custom else _merge, 3),
        (_put if not kind.custom else _json, 2),
    ]
    if kind.status is not None:
        ways.append((_status, 3))
    if kind.scales:
        ways.append((_scale, 2))
    made = [_create(r, kind, name) if r.random() < 0.4 else _apply(r, kind, name)]
    made += [r.choices(*zip(*ways, strict=True))[0](r, kind, name) for _ in range(STEPS - 1)]
    return made


def _object(r: Random, kind: Kind, name: str, version: str, **fields: Json) -> Json:
    return {"apiVersion": version, "kind": kind.kind, "metadata": {"name": name, **_metadata(r)}, **fields}


def _patch(path: str, kind: PatchType, body: Json, manager: str, *, force: bool = False) -> Step:
    query = f"?fieldManager={manager}" + ("&force=true" if force else "")
    return Step("PATCH", path + query, body, {"Content-Type": str(kind)})


def _create(r: Random, kind: Kind, name: str) -> Step:
    version = r.choice(kind.versions)
    path = f"{kind.path(version)}?fieldManager={r.choice(MANAGERS)}"
    return Step("POST", path, _object(r, kind, name, version, **kind.config(r)))


def _apply(r: Random, kind: Kind, name: str) -> Step:
    version = r.choice(kind.versions)
    body = _object(r, kind, name, version, **kind.config(r))
    path = f"{kind.path(version)}/{name}"
    return _patch(path, PatchType.APPLY, body, r.choice(MANAGERS), force=r.random() < 0.6)


def _put(r: Random, kind: Kind, name: str) -> Step:
    version = r.choice(kind.versions)
    path = f"{kind.path(version)}/{name}?fieldManager={r.choice(MANAGERS)}"
    return Step("PUT", path, _object(r, kind, name, version, **kind.config(r)))


def _merge(r: Random, kind: Kind, name: str) -> Step:
    body = kind.config(r) | {"metadata": _metadata(r)}
    for holder in (body, body.get("spec", {})):
        for field in list(holder):
            if field not in _NEEDED and r.random() < 0.1:
                holder[field] = None
    return _patch(f"{kind.path(r.choice(kind.versions))}/{name}", PatchType.MERGE, body, r.choice(MANAGERS))


def _strategic(r: Random, kind: Kind, name: str) -> Step:
    body = kind.config(r) | {"metadata": _metadata(r)}
    return _patch(
        f"{kind.path(r.choice(kind.versions))}/{name}", PatchType.STRATEGIC, body, r.choice(MANAGERS)
    )


def _json(r: Random, kind: Kind, name: str) -> Step:
    whole = kind.config(r)
    changes = [{"op": "add", "path": f"/{field}", "value": value} for field, value in whole.items()]
    if r.random() < 0.3:
        changes.append({"op": "remove", "path": r.choice(["/metadata/labels", "/metadata/annotations"])})
    return _patch(f"{kind.path(r.choice(kind.versions))}/{name}", PatchType.JSON, changes, r.choice(MANAGERS))


def _status(r: Random, kind: Kind, name: str) -> Step:
    assert kind.status is not None, "only kinds with one"
    version = r.choice(kind.versions)
    path, status = f"{kind.path(version)}/{name}/status", kind.status(r)
    if r.random() < 0.5:
        return _patch(path, PatchType.MERGE, {"status": status}, r.choice(MANAGERS))
    body = _object(r, kind, name, version, status=status)
    return _patch(path, PatchType.APPLY, body, r.choice(MANAGERS), force=r.random() < 0.6)


def _scale(r: Random, kind: Kind, name: str) -> Step:
    # Always another number: upstream parts an updater's entry in two where a scale changes nothing, and then loses one.
    path, spec = f"{kind.path(kind.versions[0])}/{name}/scale", {"replicas": r.randint(10, 10_000)}
    if r.random() < 0.5:
        return _patch(path, PatchType.MERGE, {"spec": spec}, r.choice(MANAGERS))
    body = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": name}, "spec": spec}
    return _patch(path, PatchType.APPLY, body, r.choice(MANAGERS), force=r.random() < 0.6)


def _reset(r: Random, kind: Kind, name: str) -> Step:
    body: Json = {"metadata": {"managedFields": r.choice([[], [{}]])}}
    return _patch(f"{kind.path(kind.versions[0])}/{name}", PatchType.MERGE, body, r.choice(MANAGERS))


# ---------------------------------------------------------------------- comparison


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--first", type=int, default=1, metavar="N")
    parser.add_argument("--count", type=int, default=100, metavar="N")
    parser.add_argument(
        "--record", action="store_true", help="write what the real server says into recordings"
    )
    asked = parser.parse_args()
    numbers = range(asked.first, asked.first + asked.count)
    steps = [step for number in numbers for step in sequence(number)]
    with tempfile.TemporaryDirectory() as directory, beside.theirs(Path(directory)) as real:
        theirs = recordings.tell_owners(beside.as_peer(real), steps)
    if asked.record:
        recordings.write(recordings.AT_RANDOM, exchange.rows(steps, theirs))
    with tempfile.TemporaryDirectory() as directory, beside.ours(Path(directory)) as server:
        ours = recordings.tell_owners(beside.as_peer(server), steps)
    wrong = 0
    for at, number in enumerate(numbers):
        part = slice(at * STEPS, (at + 1) * STEPS)
        wrong += _differs(number, steps[part], theirs[part], ours[part])
    print(f"{len(steps)} requests in {asked.count} sequences, {wrong} of them differ")
    return 1 if wrong else 0


def _differs(number: int, steps: list[Step], theirs: list[Json], ours: list[Json]) -> bool:
    """Prints the first request of a sequence that was answered differently, and what was applied until then."""
    for at, (step, one, other) in enumerate(zip(steps, theirs, ours, strict=True)):
        found = list(exchange.differences(one, other))
        if found:
            print(f"sequence {number}, request {at}: {step.title}\n  {json.dumps(step.body)}")
            for path, left, right in found[:8]:
                print(
                    f"    {path}\n      theirs: {json.dumps(left)[:600]}\n      ours:   {json.dumps(right)[:600]}"
                )
            return True
    return False


if __name__ == "__main__":
    sys.exit(main())
