"""What a real Prometheus makes of three loaded replicas, and promtool of the alerts."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import time
from pathlib import Path

import pytest

from tests.metrics.loaded import scraped
from tests.metrics.prometheus import NoPrometheus, Prometheus, program
from tests.replicas.stores import shared_store
from tools.alerts import ALERTS
from tools.boards import BOARDS, panels

MONITORING = Path(__file__).resolve().parents[2] / "deploy" / "monitoring"
PATIENCE_S = 90.0


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        tool = program("promtool")
    except NoPrometheus as reason:
        pytest.skip(str(reason))
    return subprocess.run([tool, *arguments], cwd=MONITORING, capture_output=True, text=True, check=False)


def test_promtool_takes_the_rules() -> None:
    done = promtool("check", "rules", "alerts.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout


def test_each_alert_fires_when_it_should_and_only_then() -> None:
    done = promtool("test", "rules", "alerts_test.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_what_the_page_has_it_scrape(tmp_path: Path) -> None:
    page = (MONITORING.parents[1] / "docs/howto/monitor.md").read_text()
    [shown] = re.findall(r"^```yaml\n(scrape_configs:.*?)^```$", page, re.MULTILINE | re.DOTALL)
    config = tmp_path / "prometheus.yml"
    config.write_text(shown)
    done = promtool("check", "config", "--syntax-only", str(config))
    assert done.returncode == 0, done.stdout + done.stderr


def filled(expression: str) -> str:
    """As Grafana sends it. One job a replica stands for one job here."""
    return expression.replace("$__rate_interval", "20s").replace("$job", ".*").replace("$cluster", "team-a")


def sooner(expression: str) -> str:
    """An alert's value over what a test has time for."""
    return re.sub(r"\[\d+m\]", "[20s]", expression)


async def values(prometheus: Prometheus, expression: str, expected: list[str]) -> None:
    """Waits until that is what the expression says: on a busy machine one scrape may come too late."""
    found: list[str] = []
    deadline = time.monotonic() + PATIENCE_S
    while found != expected:
        assert time.monotonic() < deadline, (expression, found, prometheus.ask("targets"))
        await asyncio.sleep(0.5)
        samples = await asyncio.to_thread(prometheus.query, expression)
        found = [sample["value"][1] for sample in samples]


async def test_every_expression_returns_data_of_three_loaded_replicas(tmp_path: Path) -> None:
    try:
        program("prometheus")
    except NoPrometheus as reason:
        pytest.skip(str(reason))
    asked = {
        f"{board.name}: {panel.title}: {legend}": filled(query)
        for board in BOARDS
        for panel in panels(board)
        for legend, query in panel.queries.items()
    }
    asked |= {alert.name: sooner(alert.value) for alert in ALERTS}
    assert len(asked) > 60
    with shared_store("postgres", tmp_path) as store:
        async with scraped(tmp_path, store.url(), MONITORING / "alerts.yaml") as (prometheus, members, _):
            async with asyncio.timeout(PATIENCE_S):
                while asked:
                    await asyncio.sleep(1)
                    empty = {}
                    for what, expression in asked.items():
                        samples = await asyncio.to_thread(prometheus.query, expression)
                        if not samples:
                            empty[what] = expression
                    asked = empty
            await values(prometheus, "up", ["1"] * 3)
            rules = prometheus.ask("rules")["groups"][0]["rules"]
            assert {rule["name"]: rule.get("lastError", "") for rule in rules} == dict.fromkeys(
                (alert.name for alert in ALERTS), ""
            )
            await values(prometheus, "sum(leader_election_master_status)", ["1"])
            tenants = prometheus.query("count by (cluster) (clusterling_cluster_requests_total)")
            assert {"team-a", "team-b", "~other"} <= {sample["metric"]["cluster"] for sample in tenants}
            assert len(members) == 3, json.dumps(tenants)
            worked = prometheus.query("sum(clusterling_worker_requests_total)")
            assert float(worked[0]["value"][1]) > 0
