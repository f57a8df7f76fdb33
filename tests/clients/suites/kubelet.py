"""Plays scheduler and kubelet through the API: a Node that is ready, and pods that it says are running.

Nothing runs. It is what KWOK does, as small as the suites need it: an unbound pod is bound, a bound one gets the status of one
whose containers are ready, one that is being deleted ends. What the suites ask of containers (logs, commands, ports) fails.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any, Final

from tests.conformance.suite import NODE
from tests.e2e.clusters import Cluster

LOOKS_S: Final = 0.15  # Between looks at the pods.
NAME: Final = NODE["metadata"]["name"]
SAID: Final = "2026-01-01T00:00:00Z"
INFO: Final = {
    "architecture": "amd64",
    "operatingSystem": "linux",
    "kubeletVersion": "v1.37.2",
    **dict.fromkeys(
        ("bootID", "machineID", "systemUUID", "kernelVersion", "osImage", "containerRuntimeVersion"), "none"
    ),
    "kubeProxyVersion": "",
}

# A cluster that people test against has one of these.
SYSTEM_POD: Final = {
    "metadata": {"name": "coredns-0", "labels": {"k8s-app": "kube-dns"}},
    "spec": {"containers": [{"name": "coredns", "image": "coredns"}]},
}

Json = dict[str, Any]


@contextmanager
def playing(cluster: Cluster, *, pods_run: bool) -> Iterator[None]:
    """A node and what runs on it, while the context lasts; where no pods are to run, only namespaces get their accounts."""
    if pods_run:
        _join(cluster)
    over = Event()
    thread = Thread(target=_play, args=(cluster, over, pods_run), name="kubelet")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _join(cluster: Cluster) -> None:
    node = NODE | {"status": NODE["status"] | {"nodeInfo": INFO}}
    _tell(cluster, "POST", "/api/v1/nodes", node)
    # Made with the taint of a node that has not said it is ready.
    cluster.kubectl("patch", "node", NAME, "--type=merge", "-p", '{"spec":{"taints":null}}')


def _play(cluster: Cluster, over: Event, pods_run: bool) -> None:
    known: set[str] = set()
    while not over.wait(LOOKS_S):
        # Ours have one from the start; a bare kube-apiserver leaves that to a controller.
        for name in {one["metadata"]["name"] for one in _listed(cluster, "namespaces")} - known:
            account = {"metadata": {"name": "default"}}
            _tell(cluster, "POST", f"/api/v1/namespaces/{name}/serviceaccounts", account)
            if name == "kube-system" and pods_run:
                _tell(cluster, "POST", f"/api/v1/namespaces/{name}/pods", SYSTEM_POD)
            known.add(name)
        for pod in _listed(cluster, "pods") if pods_run else ():
            _move(cluster, pod)


def _listed(cluster: Cluster, plural: str) -> list[Json]:
    _, body = cluster.http("GET", f"/api/v1/{plural}")
    items: list[Json] = json.loads(body)["items"]
    return items


def _move(cluster: Cluster, pod: Json) -> None:
    """One step with a pod. What is refused (it is gone, somebody else wrote) is seen anew at the next look."""
    meta, spec, status = pod["metadata"], pod["spec"], pod.get("status", {})
    path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
    ready = any(one == {**one, "type": "Ready", "status": "True"} for one in status.get("conditions", ()))
    if meta.get("deletionTimestamp") and ready:
        _tell(cluster, "PUT", f"{path}/status", pod | {"status": status | _said(spec, ready=False)})
    elif meta.get("deletionTimestamp"):
        _tell(cluster, "DELETE", path, {"gracePeriodSeconds": 0, "preconditions": {"uid": meta["uid"]}})
    elif not spec.get("nodeName"):
        if not spec.get("schedulingGates"):
            target = {"apiVersion": "v1", "kind": "Node", "name": NAME}
            _tell(cluster, "POST", f"{path}/binding", {"metadata": {"name": meta["name"]}, "target": target})
    elif spec["nodeName"] == NAME and status.get("phase", "Pending") == "Pending":
        _tell(cluster, "PUT", f"{path}/status", pod | {"status": status | _said(spec, ready=True)})


def _said(spec: Json, *, ready: bool) -> Json:
    """The status of a pod that runs, or of one that has just been stopped."""
    kinds = dict.fromkeys(("PodReadyToStartContainers", "Initialized", "PodScheduled"), True)
    kinds |= dict.fromkeys(("Ready", "ContainersReady"), ready)
    return {
        "phase": "Running",
        "startTime": SAID,
        "hostIP": "127.0.0.1",
        "podIP": "10.64.0.2",
        "podIPs": [{"ip": "10.64.0.2"}],
        "conditions": [
            {"type": kind, "status": str(holds), "lastTransitionTime": SAID} for kind, holds in kinds.items()
        ],
        "containerStatuses": [
            {
                "name": one["name"],
                "image": one["image"],
                "imageID": "",
                "containerID": "none://said",
                "ready": ready,
                "started": ready,
                "restartCount": 0,
                "state": {"running": {"startedAt": SAID}} if ready else {"terminated": {"exitCode": 0}},
            }
            for one in spec["containers"]
        ],
    }


def _tell(cluster: Cluster, method: str, path: str, body: Json) -> None:
    cluster.http(method, path, json.dumps(body).encode())
