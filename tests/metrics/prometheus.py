"""A real Prometheus, where one can be had: on the path, or as `make prometheus` unpacks Debian's."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tests.ports import free_port

CACHED: Final = Path(__file__).resolve().parents[2] / ".cache" / "prometheus" / "usr" / "bin"
PATIENCE_S: Final = 60.0


class NoPrometheus(Exception):
    """There is none here; the message says how to have one."""


def program(name: str) -> str:
    """`prometheus` or `promtool`. Raises NoPrometheus."""
    found = shutil.which(name) or shutil.which(name, path=str(CACHED))
    if found is None:
        raise NoPrometheus(f"there is no {name}: `make prometheus` brings one where apt has it")
    return found


@dataclass(frozen=True)
class Target:
    """What is scraped: HOST:PORT, over TLS, with a bearer token."""

    address: str
    ca: Path
    token: str


class Prometheus:
    """A running one. `url` is its API's."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of an answer of /api/v1. Raises ValueError with its error."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(error.read().decode()) from error

    def query(self, expression: str) -> list[Any]:
        """An instant vector's samples, or a scalar as one."""
        data = self.ask("query", query=expression)
        return [data["result"]] if data["resultType"] == "scalar" else list(data["result"])

    def over(self, expression: str, since_s: float, step_s: float) -> list[Any]:
        """A range vector's series, up to now."""
        now = time.time()
        data = self.ask("query_range", query=expression, start=str(since_s), end=str(now), step=str(step_s))
        return list(data["result"])


@contextmanager
def running(
    directory: Path, targets: Sequence[Target], rules: Path | None = None, *, every: str = "1s"
) -> Iterator[Prometheus]:
    """A Prometheus that scrapes the targets as job `clusterling`, ended with the context. Raises NoPrometheus."""
    directory.mkdir(parents=True, exist_ok=True)
    jobs: list[dict[str, object]] = []
    for target in targets:
        jobs.append(
            {
                "job_name": f"clusterling-{len(jobs)}",
                "scheme": "https",
                "authorization": {"credentials": target.token},
                "tls_config": {"ca_file": str(target.ca)},
                "static_configs": [{"targets": [target.address]}],
            }
        )
    config = {
        "global": {"scrape_interval": every, "evaluation_interval": every, "scrape_timeout": every},
        "rule_files": [] if rules is None else [str(rules)],
        "scrape_configs": jobs,
    }
    file = directory / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    port = free_port()
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                program("prometheus"),
                f"--config.file={file}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                urllib.request.urlopen(f"{url}/-/ready").close()
                break
            except OSError as error:
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError((directory / "log").read_text()[-2000:]) from error
                time.sleep(0.1)
        yield Prometheus(url)
    finally:
        process.terminate()
        process.wait(20)
