"""Random sequences of writes by several field managers, told to a real kube-apiserver and to this checkout.

Objects and managedFields must come out the same after every request: applies, with and without force, through two
versions of a kind, patches of all types, replacements, statuses and scales. What a sequence consists of follows from
its number alone, so one that differs is told again by itself; the story `owners_at_random` is some of them, recorded.

    python -m tests.conformance.owners [--first N] [--count N] [--record]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

from clusterling.services.patching import PatchType
from tests.conformance import recordings, sequences
from tests.conformance.configurations import KINDS, WEIGHTS, Kind, Random, metadata
from tests.conformance.exchange import Json, Step

STEPS: Final = 12
MANAGERS: Final = ("a", "b", "c")
# Without them an object is refused for them alone.
_NEEDED: Final = frozenset({"spec", "selector", "template", "defaultBackend"})

# ---------------------------------------------------------------------- requests


def sequence(number: int) -> list[Step]:
    """The requests of one sequence, all to one object."""
    r = Random(number)
    kind = r.choices(KINDS, WEIGHTS)[0]
    name = f"s{number}"
    ways: list[tuple[Callable[[Random, Kind, str], Step], int]] = [
        (_apply, 8),
        (_merge, 3),
        (_json, 2),
        (_reset, 1),
        (_strategic if not kind.custom else _merge, 3),
        (_put, 2),
    ]
    if kind.status is not None:
        ways += [(_status, 3), (_put_status, 1)]
    if kind.scales:
        ways.append((_scale, 2))
    made = [_create(r, kind, name) if r.random() < 0.4 else _apply(r, kind, name)]
    while len(made) < STEPS:
        step = r.choices(*zip(*ways, strict=True))[0](r, kind, name)
        if step.method == "PUT":
            made.append(Step("GET", step.path.partition("?")[0], save="read"))
        made.append(step)
    return made[:STEPS]


def _object(r: Random, kind: Kind, name: str, version: str, **fields: Json) -> Json:
    return {"apiVersion": version, "kind": kind.kind, "metadata": {"name": name, **metadata(r)}, **fields}


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
    body = _object(r, kind, name, version, **kind.config(r))
    return _replacement(r, kind, f"{kind.path(version)}/{name}", body)


def _put_status(r: Random, kind: Kind, name: str) -> Step:
    assert kind.status is not None, "only kinds with one"
    version = r.choice(kind.versions)
    body = _object(r, kind, name, version, **kind.config(r), status=kind.status(r))
    return _replacement(r, kind, f"{kind.path(version)}/{name}/status", body)


def _replacement(r: Random, kind: Kind, path: str, body: Json) -> Step:
    """Custom kinds are replaced only by what names the revision: that of the object read before."""
    if kind.custom or r.random() < 0.2:
        body["metadata"]["resourceVersion"] = "${read.metadata.resourceVersion}"
    return Step("PUT", f"{path}?fieldManager={r.choice(MANAGERS)}", body)


def _merge(r: Random, kind: Kind, name: str) -> Step:
    body = kind.config(r) | {"metadata": metadata(r)}
    for holder in (body, body.get("spec", {})):
        for field in list(holder):
            if field not in _NEEDED and r.random() < 0.1:
                holder[field] = None
    return _patch(f"{kind.path(r.choice(kind.versions))}/{name}", PatchType.MERGE, body, r.choice(MANAGERS))


def _strategic(r: Random, kind: Kind, name: str) -> Step:
    body = kind.config(r) | {"metadata": metadata(r)}
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


if __name__ == "__main__":
    sys.exit(sequences.main(__doc__ or "", sequence, STEPS, recordings.AT_RANDOM))
