"""What the end-to-end tests hold: a server process, logical clusters in it, and clients aimed at one of them."""

from __future__ import annotations

import base64
import os
import re
import selectors
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CALL_S = 60
"""No single client call takes this long; a test that hangs says where."""

READY = re.compile(r"clusterling ready: (https?://\S+) data=(\S+)")


class CommandError(AssertionError):
    """A command ended otherwise than the test expects. The message has all that it printed."""


def run(
    command: list[str],
    *,
    env: Mapping[str, str],
    stdin: str | None = None,
    code: int | None = 0,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs to the end. Raises CommandError unless it ends with `code` (None: any)."""
    done = subprocess.run(
        command,
        env=dict(env),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=CALL_S,
        cwd=cwd,
        check=False,
    )
    if code is not None and done.returncode != code:
        raise CommandError(
            f"{' '.join(command)}\nexit {done.returncode}, not {code}\n--- stdout\n{done.stdout}\n--- stderr\n{done.stderr}"
        )
    return done


@dataclass(frozen=True, slots=True)
class Cluster:
    """One Kubernetes API, and what a client needs to reach it."""

    name: str
    kubeconfig: Path
    kubectl_binary: Path | None = None

    @property
    def config(self) -> dict[str, Any]:
        loaded = yaml.safe_load(self.kubeconfig.read_text())
        assert isinstance(loaded, dict)
        return loaded

    @property
    def url(self) -> str:
        return str(self.config["clusters"][0]["cluster"]["server"])

    @property
    def token(self) -> str:
        return str(self.config["users"][0]["user"]["token"])

    @property
    def tls(self) -> ssl.SSLContext:
        cluster = self.config["clusters"][0]["cluster"]
        if data := cluster.get("certificate-authority-data"):
            return ssl.create_default_context(cadata=base64.b64decode(data).decode())
        return ssl.create_default_context(cafile=cluster["certificate-authority"])

    @property
    def env(self) -> dict[str, str]:
        """The caller's environment with this cluster chosen, and a home of its own: caches are not shared."""
        home = self.kubeconfig.parent / f"home-{self.kubeconfig.stem}"
        home.mkdir(exist_ok=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("KUBE", "HELM"))}
        return kept | {"KUBECONFIG": str(self.kubeconfig), "HOME": str(home)}

    def kubectl(
        self,
        *arguments: str,
        stdin: str | None = None,
        code: int | None = 0,
        env: Mapping[str, str] | None = None,
    ) -> str:
        """stdout of one kubectl call; stderr of one that is to fail (`code`) or may (None)."""
        done = run(self._kubectl(*arguments), env=self.env | dict(env or {}), stdin=stdin, code=code)
        return done.stdout if code == 0 else done.stderr

    def kubectl_both(
        self, *arguments: str, stdin: str | None = None, code: int | None = 0
    ) -> tuple[str, str]:
        """stdout and stderr."""
        done = run(self._kubectl(*arguments), env=self.env, stdin=stdin, code=code)
        return done.stdout, done.stderr

    def kubectl_whole(
        self, *arguments: str, stdin: str | None = None, env: Mapping[str, str] | None = None
    ) -> tuple[int, str, str]:
        """Exit code, stdout and stderr, whatever they are."""
        done = run(self._kubectl(*arguments), env=self.env | dict(env or {}), stdin=stdin, code=None)
        return done.returncode, done.stdout, done.stderr

    @contextmanager
    def kubectl_started(self, *arguments: str) -> Iterator[Lines]:
        """A kubectl that goes on (`get -w`), read line by line; ended with the context."""
        process = subprocess.Popen(
            self._kubectl(*arguments), env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        try:
            yield Lines(process)
        finally:
            process.terminate()
            process.communicate(timeout=CALL_S)

    def _kubectl(self, *arguments: str) -> list[str]:
        assert self.kubectl_binary is not None, "the test asks for the kubectl fixture"
        return [str(self.kubectl_binary), *arguments]

    def http(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """One plain request below the cluster's URL, with its credential."""
        request = urllib.request.Request(f"{self.url}{path}", data=body, method=method)
        request.add_header("Authorization", f"Bearer {self.token}")
        if body is not None:
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, context=self.tls, timeout=CALL_S) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, refused.read()


class Lines:
    """The output of a running process, a line at a time."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self._process = process
        self._pipe = process.stdout
        self._rest = b""
        self._ready = selectors.DefaultSelector()
        self._ready.register(self._pipe, selectors.EVENT_READ)

    def next(self) -> str:
        """The next line. Raises CommandError when none comes."""
        deadline = time.monotonic() + CALL_S
        while b"\n" not in self._rest:
            if not self._ready.select(max(0.0, deadline - time.monotonic())):
                raise CommandError(f"no line within {CALL_S} s; so far {self._rest!r}")
            piece = os.read(self._pipe.fileno(), 65536)
            if not piece:
                raise CommandError(f"the output ended with {self._rest!r}, exit {self._process.wait()}")
            self._rest += piece
        line, self._rest = self._rest.split(b"\n", 1)
        return line.decode()


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """`clusterling serve` as an operator runs it."""

    url: str
    data: Path
    process: subprocess.Popen[bytes]

    @property
    def env(self) -> dict[str, str]:
        return cli_env(self.data)

    def cli(self, *arguments: str, code: int | None = 0, stdin: str | None = None) -> str:
        """stdout of a `clusterling` command that finds this server; stderr where it is to fail."""
        done = run([*CLUSTERLING, *arguments], env=self.env, code=code, stdin=stdin)
        return done.stderr if code else done.stdout


CLUSTERLING = [sys.executable, "-m", "clusterling"]


def cli_env(data: Path) -> dict[str, str]:
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("KUBE", "CLUSTERLING_"))}
    return kept | {"CLUSTERLING_DATA_DIR": str(data)}


@contextmanager
def serving(
    data: Path, *arguments: str, listen: str = "127.0.0.1:0", ends_with: int = 0
) -> Iterator[ServerProcess]:
    """A server process, from its ready line to its end. `ends_with` is its exit code, negative for a signal's."""
    log = data.parent / f"{data.name}.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [*CLUSTERLING, "serve", "--data-dir", str(data), "--listen", listen, *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            env=cli_env(data),
        )
    try:
        lines = Lines(process)
        try:
            while not (ready := READY.search(lines.next())):
                continue
        except CommandError as failed:
            raise CommandError(f"{failed}\n{log.read_text(errors='replace')[-4000:]}") from failed
        yield ServerProcess(ready[1], Path(ready[2]), process)
    finally:
        process.terminate()
        process.communicate(timeout=CALL_S)
    assert process.returncode == ends_with, (
        f"the server ended with {process.returncode}: {log.read_text()[-4000:]}"
    )
