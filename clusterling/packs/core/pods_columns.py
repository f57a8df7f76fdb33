"""Pods as `kubectl get` shows them. Upstream: kubernetes pkg/printers/internalversion, printPod."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from clusterling.machinery.meta import Object
from clusterling.machinery.table import NAME_COLUMN, Column, age
from clusterling.packs import builtin

_NONE: Final = "<none>"


def _status(pod: Object) -> Object:
    found: Object = pod.get("status") or {}
    return found


def _spec(pod: Object) -> Object:
    found: Object = pod.get("spec") or {}
    return found


def _sidecars(pod: Object) -> set[str]:
    return {
        one.get("name", "")
        for one in _spec(pod).get("initContainers") or ()
        if one.get("restartPolicy") == "Always"
    }


def _starting(pod: Object) -> tuple[int, Object] | None:
    """The container for the start at which the pod is, and how many came before it; None where the start is over."""
    sidecars = _sidecars(pod)
    for index, one in enumerate(_status(pod).get("initContainerStatuses") or ()):
        ended = (one.get("state") or {}).get("terminated")
        if ended is not None and not ended.get("exitCode"):
            continue
        if one.get("name") in sidecars and one.get("started"):
            continue
        return index, one
    return None


def _is_starting(pod: Object) -> bool:
    return _starting(pod) is not None and not any(
        one.get("type") == "Initialized" and one.get("status") == "True"
        for one in _status(pod).get("conditions") or ()
    )


def _statuses(pod: Object) -> list[Object]:
    found: list[Object] = list(_status(pod).get("containerStatuses") or ())
    return found


def _runs(status: Object) -> bool:
    state = status.get("state") or {}
    waits = (state.get("waiting") or {}).get("reason")
    return bool(
        not waits and "terminated" not in state and status.get("ready") and state.get("running") is not None
    )


def _ready_cell(pod: Object, _now: datetime) -> str:
    sidecars = _sidecars(pod)
    total = len(_spec(pod).get("containers") or ()) + len(sidecars)
    begun = _starting(pod)
    reached = begun[0] if begun is not None else len(_status(pod).get("initContainerStatuses") or ())
    ready = sum(
        bool(one.get("ready"))
        for one in (_status(pod).get("initContainerStatuses") or ())[:reached]
        if one.get("name") in sidecars and one.get("started") and not _has_succeeded(one)
    )
    if not _is_starting(pod):
        ready += sum(map(_runs, _statuses(pod)))
    return f"{ready}/{total}"


def _has_succeeded(status: Object) -> bool:
    ended = (status.get("state") or {}).get("terminated")
    return ended is not None and not ended.get("exitCode")


def _ended_reason(ended: Object) -> str:
    if ended.get("reason"):
        return str(ended["reason"])
    if ended.get("signal"):
        return f"Signal:{ended['signal']}"
    return f"ExitCode:{ended.get('exitCode', 0)}"


def _starting_reason(pod: Object, index: int, status: Object) -> str:
    state = status.get("state") or {}
    waits = (state.get("waiting") or {}).get("reason")
    if state.get("terminated") is not None:
        return f"Init:{_ended_reason(state['terminated'])}"
    if waits and waits != "PodInitializing":
        return f"Init:{waits}"
    return f"Init:{index}/{len(_spec(pod).get('initContainers') or ())}"


def _running_reason(pod: Object, reason: str) -> str:
    failed, runs = "", False
    for one in reversed(_statuses(pod)):
        state = one.get("state") or {}
        waits = (state.get("waiting") or {}).get("reason")
        if waits:
            reason = str(waits)
        elif state.get("terminated") is not None:
            reason = _ended_reason(state["terminated"])
            failed = reason if state["terminated"].get("exitCode") else failed
        else:
            runs = runs or _runs(one)
    if reason != "Completed":
        return reason
    if runs and any(
        one.get("type") == "Ready" and one.get("status") == "True"
        for one in _status(pod).get("conditions") or ()
    ):
        return "Running"
    return failed or ("NotReady" if runs else reason)


def _status_cell(pod: Object, _now: datetime) -> str:
    status = _status(pod)
    phase = str(status.get("phase") or "")
    reason = str(status.get("reason") or phase)
    for one in status.get("conditions") or ():
        if one.get("type") == "PodScheduled" and one.get("reason") == "SchedulingGated":
            reason = "SchedulingGated"
    begun = _starting(pod)
    if begun is not None:
        reason = _starting_reason(pod, *begun)
    if not _is_starting(pod):
        reason = _running_reason(pod, reason)
    if "deletionTimestamp" in (pod.get("metadata") or {}):
        if status.get("reason") == "NodeLost":
            return "Unknown"
        if phase not in ("Failed", "Succeeded"):
            return "Terminating"
    return reason


def _counted_statuses(pod: Object) -> Iterator[Object]:
    """Whose restarts count: during the start all that begin it, afterwards the sidecars among them and the rest."""
    sidecars = _sidecars(pod)
    begun = _starting(pod)
    starting = _is_starting(pod)
    seen = (_status(pod).get("initContainerStatuses") or ())[: None if begun is None else begun[0] + 1]
    for one in seen:
        if starting or one.get("name") in sidecars:
            yield one
    if not starting:
        yield from _statuses(pod)


def _restarts_cell(pod: Object, now: datetime) -> str:
    count, last = 0, ""
    for one in _counted_statuses(pod):
        count += one.get("restartCount") or 0
        ended = (one.get("lastState") or {}).get("terminated") or {}
        last = max(last, str(ended.get("finishedAt") or ""))
    return f"{count} ({age(last, now)} ago)" if count and last else str(count)


def _gates_cell(pod: Object, _now: datetime) -> str:
    gates = [one.get("conditionType") for one in _spec(pod).get("readinessGates") or ()]
    if not gates:
        return _NONE
    first: dict[Any, Any] = {}
    for one in _status(pod).get("conditions") or ():
        first.setdefault(one.get("type"), one.get("status"))
    return f"{sum(first.get(gate) == 'True' for gate in gates)}/{len(gates)}"


def _address_cell(pod: Object, _now: datetime) -> str:
    addresses = _status(pod).get("podIPs") or ()
    return str(addresses[0].get("ip") or _NONE) if addresses else _NONE


COLUMNS: Final = (
    NAME_COLUMN,
    Column("Ready", "string", _ready_cell),
    Column("Status", "string", _status_cell),
    Column("Restarts", "string", _restarts_cell),
    builtin.AGE,
    Column("IP", "string", _address_cell, priority=1),
    Column("Node", "string", lambda pod, _: _spec(pod).get("nodeName") or _NONE, priority=1),
    Column(
        "Nominated Node", "string", lambda pod, _: _status(pod).get("nominatedNodeName") or _NONE, priority=1
    ),
    Column("Readiness Gates", "string", _gates_cell, priority=1),
)
