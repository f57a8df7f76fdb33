"""Writes what Grafana and Prometheus take, and the pages about it: dashboards, alerts, runbooks, the reference of metrics.

python -m tools.dashboards            writes them
python -m tools.dashboards --check    says which are not as they would be written
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

import yaml

from clusterling.services.metrics.families import FAMILIES, SLIS, Family
from clusterling.version import KUBERNETES
from tools.alerts import ALERTS, RUNBOOKS, rules, runbook, tests
from tools.boards import BOARDS, grafana

ROOT: Final = Path(__file__).resolve().parent.parent
MONITORING: Final = "deploy/monitoring"
CHART: Final = "deploy/helm/clusterling/files"
REFERENCE: Final = "docs/reference/metrics.md"

_KINDS: Final = {"unknown": "counter"}


def files() -> dict[str, str]:
    """Everything that is written, by its path."""
    made: dict[str, str] = {}
    for board in BOARDS:
        text = json.dumps(grafana(board), indent=1) + "\n"
        made[f"{MONITORING}/dashboards/{board.name}.json"] = text
        made[f"{CHART}/dashboards/{board.name}.json"] = text
    alerts = "# Written by `make dashboards` from tools/alerts.py.\n" + _yaml(rules())
    made[f"{MONITORING}/alerts.yaml"] = alerts
    made[f"{CHART}/alerts.yaml"] = alerts
    made[f"{MONITORING}/alerts_test.yaml"] = _yaml(tests("alerts.yaml"))
    for alert in ALERTS:
        made[f"{RUNBOOKS}/{alert.name}.md"] = runbook(alert)
    made[f"{RUNBOOKS}/README.md"] = _runbooks()
    made[REFERENCE] = reference()
    return made


def _yaml(value: object) -> str:
    return yaml.safe_dump(value, sort_keys=False, width=120, allow_unicode=True)


def _runbooks() -> str:
    rows = "\n".join(
        f"| [{alert.name}]({alert.name}.md) | {alert.severity} | {alert.meaning} |" for alert in ALERTS
    )
    return f"""# Alerts

<!-- Written by `make dashboards` from tools/alerts.py. -->

| alert | severity | what it means |
|---|---|---|
{rows}
"""


def reference() -> str:
    """The page of all metrics."""
    own = [family for family in FAMILIES if not family.per_tenant]
    tenants = [family for family in FAMILIES if family.per_tenant]
    upstream = [family for family in own if not family.name.startswith("clusterling_")]
    ours = [family for family in own if family.name.startswith("clusterling_")]
    return f"""# Metrics

<!-- Written by `make dashboards` from clusterling/services/metrics/families.py. -->

Every replica tells its own at `/metrics`, in Prometheus' text format or OpenMetrics, as `Accept` asks. [How to monitor](../howto/monitor.md)
says who may scrape; [alerts](runbooks/README.md) have a page each. Beside these there are the usual `process_*`.

## As a kube-apiserver has them

Names, labels, and of requests the buckets, are those of Kubernetes {KUBERNETES}, so that dashboards made for one work.

{_table(upstream)}

## Of health

At `/metrics/slis`, and there alone, for whoever may have `/metrics`, and for each logical cluster's own users under its path.

{_table(list(SLIS))}

## Of Clusterling

{_table(ours)}

## By logical cluster

A server tells these of the eighty clusters in most use; the others are one, `~other`. A cluster that is deleted, or is not
used for an hour, loses its series. At `/clusters/NAME/metrics` its own users get those of that cluster, whether it is among the eighty or not.

{_table(tenants)}
"""


def _table(families: list[Family]) -> str:
    rows = "\n".join(
        f"| `{family.name}` | {_KINDS.get(family.type, family.type)} | {', '.join(f'`{label}`' for label in family.labels)} | {family.help} |"
        for family in families
    )
    return f"| name | type | labels | |\n|---|---|---|---|\n{rows}"


def main(arguments: list[str]) -> int:
    """Returns the exit code: 1 where `--check` finds something."""
    stale = [
        path
        for path, text in files().items()
        if not (ROOT / path).is_file() or (ROOT / path).read_text() != text
    ]
    if arguments == ["--check"]:
        for path in stale:
            print(f"{path} is not as `make dashboards` writes it", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(files()[path])
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
