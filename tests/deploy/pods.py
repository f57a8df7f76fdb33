"""What a kubelet would do with a rendered pod, as far as a test can: its volumes as directories, its commands as processes.

The command line, the variables and the files are those of the manifest. Only paths of mounts become paths of directories, and
the port that the manifest names becomes a free one.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.deploy.charts import Manifest
from tests.ports import free_port

PATIENCE_S = 90
ENTRYPOINT = (sys.executable, "-m", "clusterling")


@dataclass(slots=True)
class Node:
    """Directories for volumes below `root`. `secrets` are those that the chart does not make: by name, their keys."""

    root: Path
    manifests: list[Manifest]
    secrets: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)

    def volumes(self, pod: str, spec: Manifest, claims: Sequence[Manifest] = ()) -> dict[str, Path]:
        """Each volume's directory: claims' keep what is in them, the others are the pod's own."""
        found = {}
        for volume in [
            *spec.get("volumes", ()),
            *({"name": c["metadata"]["name"], "claim": c} for c in claims),
        ]:
            if "claim" in volume or "persistentVolumeClaim" in volume:
                source = volume.get("persistentVolumeClaim", {}).get("claimName") or f"{volume['name']}-{pod}"
                directory = self.root / "claims" / source
                directory.mkdir(parents=True, exist_ok=True)
            else:
                directory = self.root / pod / volume["name"]
                directory.mkdir(parents=True)
                self._fill(directory, volume)
            found[volume["name"]] = directory
        return found

    def _fill(self, directory: Path, volume: Manifest) -> None:
        if "secret" in volume:
            content = dict(self._secret(volume["secret"]["secretName"]))
            items = volume["secret"].get("items")
        elif "configMap" in volume:
            content = {
                k: v.encode() for k, v in self._made("ConfigMap", volume["configMap"]["name"])["data"].items()
            }
            items = volume["configMap"].get("items")
        else:
            assert volume.keys() & {"emptyDir"}, volume
            return
        publish(directory, {i["path"]: content[i["key"]] for i in items} if items else content)

    def _secret(self, name: str) -> Mapping[str, bytes]:
        if name in self.secrets:
            return self.secrets[name]
        return {k: base64.b64decode(v) for k, v in self._made("Secret", name)["data"].items()}

    def _made(self, kind: str, name: str) -> Manifest:
        (found,) = (one for one in self.manifests if (one["kind"], one["metadata"]["name"]) == (kind, name))
        return found

    def environment(self, pod: str, container: Manifest) -> dict[str, str]:
        found = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
        for one in container.get("env", ()):
            if "value" in one:
                found[one["name"]] = one["value"]
            elif "secretKeyRef" in one["valueFrom"]:
                reference = one["valueFrom"]["secretKeyRef"]
                found[one["name"]] = self._secret(reference["name"])[reference["key"]].decode()
            else:
                assert one["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}
                found[one["name"]] = pod
        return found

    def command(
        self,
        pod: str,
        container: Manifest,
        volumes: Mapping[str, Path],
        entrypoint: Sequence[str] = ENTRYPOINT,
    ) -> tuple[list[str], dict[str, str]]:
        """The process' arguments and environment, with paths of mounts put where the volumes are."""
        mounts = {one["mountPath"]: str(volumes[one["name"]]) for one in container.get("volumeMounts", ())}
        longest_first = "|".join(map(re.escape, sorted(mounts, key=len, reverse=True)))
        mounted = re.compile(rf"(?<![\w/])({longest_first or '(?!)'})(?=/|$|&)")
        env = self.environment(pod, container)

        def placed(text: str) -> str:
            text = re.sub(r"\$\((\w+)\)", lambda found: env[found[1]], text)
            return mounted.sub(lambda found: mounts[found[1]], text)

        # What is this machine's own stays: it may lie below a path that the pod has a volume at.
        started = [sys.executable if one == "python" else one for one in container.get("command", entrypoint)]
        line = [
            one if one == sys.executable else placed(one) for one in [*started, *container.get("args", ())]
        ]
        return line, {name: value if name == "PATH" else placed(value) for name, value in env.items()}

    def run(self, pod: str, container: Manifest, volumes: Mapping[str, Path]) -> str:
        """Runs a container that ends, and returns what it said."""
        command, env = self.command(pod, container, volumes)
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=False, cwd=self.root
        )
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}{done.stderr}"
        return done.stdout


def publish(directory: Path, content: Mapping[str, bytes]) -> None:
    """Writes a volume's files as a kubelet does: all at once, by one link that is swapped."""
    version = directory / f"..{time.time_ns()}"
    version.mkdir()
    for name, value in content.items():
        (version / name).write_bytes(value)
    swap = directory / "..data_tmp"
    swap.symlink_to(version.name)
    swap.rename(directory / "..data")
    for name in content:
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(Path("..data") / name)


@dataclass(slots=True)
class Running:
    """A server that runs as its pod says."""

    process: subprocess.Popen[bytes]
    port: int
    container: Manifest
    volumes: dict[str, Path]
    log: Path

    def get(self, path: str, token: str = "", ca: Path | None = None) -> tuple[int, bytes]:
        context = ssl.create_default_context(cafile=ca)
        if ca is None:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        request = urllib.request.Request(f"https://localhost:{self.port}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, context=context, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, refused.read()

    def passes(self, probe: str) -> bool:
        """Whether a probe that the pod has succeeds now."""
        asked = self.container[probe]["httpGet"]
        assert (asked["port"], asked["scheme"]) == ("https", "HTTPS")
        try:
            return 200 <= self.get(asked["path"])[0] < 400
        except (urllib.error.URLError, OSError):
            return False

    def clusters(self, token: str) -> dict[str, Any]:
        """The logical clusters by name."""
        code, body = self.get("/clusters/root/apis/tenancy.clusterling.io/v1alpha1/logicalclusters", token)
        assert code == 200, body
        return {one["metadata"]["name"]: one for one in json.loads(body)["items"]}

    def eventually_has(self, clusters: set[str], token: str) -> None:
        self.eventually(lambda: self.clusters(token).keys() == clusters)

    def eventually(self, claim: Any) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not claim():
            assert self.process.poll() is None, (
                f"it ended with {self.process.returncode}: {self.log.read_text()}"
            )
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)


@contextmanager
def running(node: Node, pod: str, spec: Manifest, claims: Sequence[Manifest] = ()) -> Iterator[Running]:
    """Starts the pod's server and waits for its startup and readiness probes."""
    container = next(one for one in spec["containers"] if one["name"] == "server")
    volumes = node.volumes(pod, spec, claims)
    command, env = node.command(pod, container, volumes)
    port = free_port()
    (named,) = (one["containerPort"] for one in container["ports"] if one["name"] == "https")
    assert f"--listen=0.0.0.0:{named}" in command
    command[command.index(f"--listen=0.0.0.0:{named}")] = f"--listen=0.0.0.0:{port}"
    node.root.mkdir(exist_ok=True)
    log = node.root / f"{pod}.log"
    with log.open("ab") as said:
        process = subprocess.Popen(command, env=env, stdout=said, stderr=said, cwd=node.root)
    server = Running(process, port, container, volumes, log)
    try:
        server.eventually(lambda: server.passes("startupProbe"))
        server.eventually(lambda: server.passes("readinessProbe"))
        yield server
    finally:
        process.kill()
        process.wait(PATIENCE_S)


def stop(server: Running, grace_s: float) -> bool:
    """SIGTERM, as at a pod's end. Whether it was unready and served on; fails unless it ends by itself within its grace."""
    server.process.send_signal(signal.SIGTERM)
    left_in_order = False
    deadline = time.monotonic() + grace_s
    while server.process.poll() is None:
        assert time.monotonic() < deadline, f"it would be killed after {grace_s} s: {server.log.read_text()}"
        with suppress(urllib.error.URLError, OSError):
            left_in_order |= server.get("/readyz")[0] == 500 and server.get("/livez")[0] == 200
        time.sleep(0.05)
    assert server.process.returncode == 0, server.log.read_text()
    return left_in_order
