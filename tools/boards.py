"""Grafana dashboards as values: what each panel asks, in PromQL. `tools.dashboards` writes them as Grafana's JSON.

Three: the fleet (is the service well?), a tenant (what does this logical cluster do?), the store (what is it waiting for?).
Their expressions are run against a Prometheus that scrapes loaded replicas (tests/metrics/test_prometheus.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

RATE: Final = "$__rate_interval"
WIDTH: Final = 24
HEIGHT: Final = 8


@dataclass(frozen=True, slots=True)
class Panel:
    """A graph over time. `queries`: PromQL by legend, in Grafana's `{{label}}` form. `unit` is Grafana's name of one."""

    title: str
    unit: str
    queries: dict[str, str]
    about: str = ""
    width: int = 8
    stacked: bool = False


@dataclass(frozen=True, slots=True)
class Board:
    """A dashboard: rows of panels by title. `variables`: PromQL label queries by name."""

    name: str
    title: str
    about: str
    rows: dict[str, tuple[Panel, ...]]
    variables: dict[str, str]


def quantiles(histogram: str, selector: str = "", by: str = "") -> dict[str, str]:
    """Median, p99 and nothing between, of a histogram."""
    labels = f"le, {by}" if by else "le"
    legend = f"{{{{{by}}}}} " if by else ""
    return {
        f"{legend}p{percent}": f"histogram_quantile(0.{percent}, "
        f"sum by ({labels}) (rate({histogram}_bucket{{{selector}}}[{RATE}])))"
        for percent in (50, 99)
    }


def rate(counter: str, by: str = "", selector: str = "") -> str:
    """The rate of a counter, by some labels or in all."""
    grouped = f"sum by ({by})" if by else "sum"
    return f"{grouped} (rate({counter}{{{selector}}}[{RATE}]))"


_JOB: Final = 'job=~"$job"'


def part(counter: str, selector: str) -> str:
    """Which part of a counter's rate has these labels; 0 where none has."""
    return f"({rate(counter, '', f'{_JOB}, {selector}')} or vector(0)) / {rate(counter, '', _JOB)}"


_SHORT: Final = f'{_JOB}, verb!~"WATCH|CONNECT"'

FLEET: Final = Board(
    "fleet",
    "Clusterling / Fleet",
    "Is the service well, and who uses it?",
    {
        "Requests": (
            Panel(
                "Requests", "reqps", {"{{verb}}": rate("apiserver_request_total", "verb", _JOB)}, stacked=True
            ),
            Panel(
                "Errors",
                "percentunit",
                {
                    "5xx": part("apiserver_request_total", 'code=~"5.."'),
                    "429": part("apiserver_request_total", 'code="429"'),
                },
                "Part of all requests.",
            ),
            Panel(
                "Latency", "s", quantiles("apiserver_request_duration_seconds", _SHORT), "Without watches."
            ),
            Panel(
                "Latency by verb",
                "s",
                {"{{verb}}": quantiles("apiserver_request_duration_seconds", _SHORT, "verb")["{{verb}} p99"]},
                "p99, without watches.",
            ),
            Panel(
                "In flight",
                "short",
                {
                    "{{request_kind}}": f"sum by (request_kind) (apiserver_current_inflight_requests{{{_JOB}}})"
                },
            ),
            Panel(
                "Watches",
                "short",
                {
                    "open": f"sum (apiserver_longrunning_requests{{{_JOB}}})",
                    "events sent a second": rate("apiserver_watch_events_total", "", _JOB),
                },
            ),
        ),
        "Tenants": (
            Panel("Logical clusters", "short", {"all": f"max (clusterling_clusters{{{_JOB}}})"}),
            Panel(
                "Most used",
                "reqps",
                {"{{cluster}}": f"topk(10, {rate('clusterling_cluster_requests_total', 'cluster', _JOB)})"},
                "`~other` are those without series of their own, together.",
            ),
            Panel(
                "Most throttled",
                "reqps",
                {"{{cluster}}": f"topk(10, {rate('clusterling_cluster_throttled_total', 'cluster', _JOB)})"},
            ),
            Panel(
                "Biggest",
                "bytes",
                {"{{cluster}}": f"topk(10, max by (cluster) (clusterling_cluster_bytes{{{_JOB}}}))"},
            ),
            Panel(
                "Nearest to their limits",
                "percentunit",
                {
                    "{{cluster}} {{limit}}": "topk(10, max by (cluster, limit)"
                    f" (clusterling_cluster_quota_used_ratio{{{_JOB}}}))"
                },
                "Part of a hard limit that is used.",
            ),
            Panel(
                "Logins",
                "reqps",
                {"{{result}}": rate("authentication_attempts", "result", _JOB)},
                "Requests with a credential.",
            ),
            Panel(
                "Refused by authorization",
                "reqps",
                {"{{result}}": rate("apiserver_authorization_attempts_total", "result", _JOB)},
            ),
        ),
        "Limits": (
            Panel(
                "Refused with 429",
                "reqps",
                {
                    "{{flow_schema}} {{reason}}": rate(
                        "apiserver_flowcontrol_rejected_requests_total", "flow_schema, reason", _JOB
                    )
                },
                "By which limit: seats of the server and of one tenant, rates of quotas, full queues of the store and of workers.",
            ),
            Panel(
                "Seats taken",
                "percentunit",
                {
                    "{{flow_schema}}": f"max by (flow_schema) (apiserver_flowcontrol_current_executing_requests{{{_JOB}}}"
                    f" / apiserver_flowcontrol_nominal_limit_seats{{{_JOB}}})"
                },
                "Of those that there are, on the replica with most.",
            ),
            Panel(
                "Connections refused",
                "ops",
                {"{{limit}}": rate("clusterling_connections_refused_total", "limit", _JOB)},
                "`all`: there are too many; `address`: one address has its share.",
            ),
            Panel(
                "Connections of those that may be open",
                "percentunit",
                {
                    "{{instance}}": f"clusterling_connections{{{_JOB}}} / clusterling_connections_max{{{_JOB}}}",
                },
                "From three quarters on, no address gets more than an eighth.",
            ),
            Panel(
                "Handshakes",
                "short",
                {
                    "{{state}}": f"sum by (state) (clusterling_tls_handshakes{{{_JOB}}})",
                    "failed a second": rate("clusterling_tls_handshakes_failed_total", "", _JOB),
                },
                "Who has many under way waits for his turn.",
            ),
            Panel(
                "Failed logins",
                "reqps",
                {"{{answer}}": rate("clusterling_failed_logins_limited_total", "answer", _JOB)},
                "Of addresses that send many.",
            ),
        ),
        "Processes": (
            Panel("CPU", "short", {"{{instance}}": rate("process_cpu_seconds_total", "instance", _JOB)}),
            Panel(
                "Memory",
                "bytes",
                {
                    "{{instance}} resident": f"process_resident_memory_bytes{{{_JOB}}}",
                    "{{instance}} cache": f"clusterling_cache_bytes{{{_JOB}}}",
                },
            ),
            Panel(
                "Event loop lag",
                "s",
                quantiles("clusterling_event_loop_lag_seconds", _JOB, "instance"),
                "What any request waits for its turn.",
            ),
            Panel(
                "Connections",
                "short",
                {"{{instance}}": f"sum by (instance) (clusterling_connections{{{_JOB}}})"},
            ),
            Panel(
                "Big pieces of work that wait",
                "short",
                {"{{instance}}": f"sum by (instance) (clusterling_turnstile_jobs{{{_JOB}}})"},
            ),
            Panel(
                "Workers",
                "short",
                {"{{instance}}": f"sum by (instance) (clusterling_workers{{{_JOB}}})"},
                "Processes for large writes; none where nobody needs one.",
            ),
            Panel(
                "Large writes",
                "reqps",
                {
                    "answered": rate("clusterling_worker_requests_total", "", _JOB),
                    "started": rate("clusterling_workers_started_total", "", _JOB),
                    "died": rate("clusterling_workers_died_total", "", _JOB),
                },
                "What workers answered, how many were started, and how many ended in the middle of a request.",
            ),
            Panel(
                "Large writes that wait",
                "short",
                {"{{instance}}": f"sum by (instance) (clusterling_worker_requests_waiting{{{_JOB}}})"},
                "For a worker.",
            ),
            Panel(
                "Leader",
                "short",
                {"{{instance}}": f"leader_election_master_status{{{_JOB}}}"},
                "1 where the controllers run.",
            ),
        ),
    },
    {"job": "label_values(clusterling_build_info, job)"},
)

_OWN: Final = 'job=~"$job", cluster=~"$cluster"'

TENANT: Final = Board(
    "tenant",
    "Clusterling / Tenant",
    "What one logical cluster does, and gets.",
    {
        "Use": (
            Panel(
                "Requests",
                "reqps",
                {"{{kind}}": rate("clusterling_cluster_requests_total", "kind", _OWN)},
                stacked=True,
            ),
            Panel(
                "Refused and failed",
                "reqps",
                {
                    "{{code}}": rate("clusterling_cluster_request_errors_total", "code", _OWN),
                    "throttled": rate("clusterling_cluster_throttled_total", "", _OWN),
                },
            ),
            Panel("Latency", "s", quantiles("clusterling_cluster_request_duration_seconds", _OWN)),
            Panel("Watches", "short", {"open": f"sum (clusterling_cluster_watches{{{_OWN}}})"}),
            Panel("Sent", "Bps", {"answers": rate("clusterling_cluster_response_bytes_total", "", _OWN)}),
            Panel(
                "Objects",
                "short",
                {"{{cluster}}": f"max by (cluster) (clusterling_cluster_objects{{{_OWN}}})"},
            ),
            Panel(
                "Bytes", "bytes", {"{{cluster}}": f"max by (cluster) (clusterling_cluster_bytes{{{_OWN}}})"}
            ),
            Panel(
                "Quota",
                "percentunit",
                {"{{limit}}": f"max by (limit) (clusterling_cluster_quota_used_ratio{{{_OWN}}})"},
                "Part of each hard limit that is used: at 100 % what needs more is refused.",
            ),
        ),
    },
    {
        "job": "label_values(clusterling_build_info, job)",
        "cluster": 'label_values(clusterling_cluster_requests_total{job=~"$job"}, cluster)',
    },
)

STORE: Final = Board(
    "store",
    "Clusterling / Store",
    "What the store does, and what waits for it.",
    {
        "Store": (
            Panel(
                "Commits",
                "s",
                quantiles("clusterling_store_commit_duration_seconds", _JOB),
                "How long a batch of writes takes.",
            ),
            Panel(
                "Writes in a batch",
                "short",
                {
                    "mean": f"{rate('clusterling_store_batch_writes_sum', '', _JOB)}"
                    f" / {rate('clusterling_store_batch_writes_count', '', _JOB)}"
                },
            ),
            Panel(
                "Writes that wait",
                "short",
                {"{{instance}}": f"sum by (instance) (clusterling_store_queued_writes{{{_JOB}}})"},
            ),
            Panel("Calls", "ops", {"{{operation}}": rate("etcd_requests_total", "operation", _JOB)}),
            Panel(
                "Calls' latency",
                "s",
                {
                    "{{operation}}": quantiles("etcd_request_duration_seconds", _JOB, "operation")[
                        "{{operation}} p99"
                    ]
                },
                "p99, waiting included.",
            ),
            Panel(
                "Calls that failed",
                "ops",
                {"{{operation}}": rate("etcd_request_errors_total", "operation", _JOB)},
            ),
            Panel("Written", "Bps", {"values": rate("clusterling_store_written_bytes_total", "", _JOB)}),
        ),
        "Following": (
            Panel(
                "Changes",
                "ops",
                {"{{instance}}": rate("clusterling_feed_events_total", "instance", _JOB)},
                "A replica with less than the others is behind.",
            ),
            Panel("Gaps", "ops", {"{{instance}}": rate("clusterling_feed_gaps_total", "instance", _JOB)}),
            Panel(
                "Watches of the store", "short", {"{{instance}}": f"clusterling_feed_subscribers{{{_JOB}}}"}
            ),
        ),
        "Memory": (
            Panel(
                "Reads from memory",
                "percentunit",
                {
                    "hits": f"{rate('clusterling_cache_hits_total', '', _JOB)} / ({rate('clusterling_cache_hits_total', '', _JOB)}"
                    f" + {rate('clusterling_cache_misses_total', '', _JOB)})"
                },
            ),
            Panel(
                "Memory for collections",
                "percentunit",
                {
                    "{{instance}}": f"clusterling_cache_bytes{{{_JOB}}} / clusterling_cache_bytes_max{{{_JOB}}}"
                },
            ),
            Panel(
                "Loaded and let go",
                "ops",
                {
                    "loaded": rate("apiserver_watch_cache_initializations_total", "", _JOB),
                    "let go": rate("clusterling_cache_evictions_total", "", _JOB),
                },
            ),
            Panel(
                "Objects in memory",
                "short",
                {
                    "{{group}}/{{resource}}": "topk(10, sum by (group, resource)"
                    f" (apiserver_resource_objects{{{_JOB}}}))"
                },
            ),
        ),
        "Controllers": (
            Panel("Keys to look at", "short", {"{{name}}": f"sum by (name) (workqueue_depth{{{_JOB}}})"}),
            Panel("Keys that came", "ops", {"{{name}}": rate("workqueue_adds_total", "name", _JOB)}),
            Panel("Keys put off", "ops", {"{{name}}": rate("workqueue_retries_total", "name", _JOB)}),
            Panel(
                "Waiting for a worker",
                "s",
                {
                    "{{name}}": quantiles("workqueue_queue_duration_seconds", _JOB, "name")["{{name}} p99"],
                },
                "p99.",
            ),
            Panel(
                "Work",
                "s",
                {
                    "{{name}}": quantiles("workqueue_work_duration_seconds", _JOB, "name")["{{name}} p99"],
                },
                "p99.",
            ),
        ),
    },
    {"job": "label_values(clusterling_build_info, job)"},
)

BOARDS: Final = (FLEET, TENANT, STORE)


def panels(board: Board) -> list[Panel]:
    """The board's panels, in order."""
    return [panel for row in board.rows.values() for panel in row]


def grafana(board: Board) -> dict[str, Any]:
    """The board as Grafana imports it (schema 39: Grafana 10 and later)."""
    shown: list[dict[str, Any]] = []
    y = 0
    for title, row in board.rows.items():
        shown.append(
            {
                "type": "row",
                "title": title,
                "collapsed": False,
                "panels": [],
                "gridPos": {"h": 1, "w": WIDTH, "x": 0, "y": y},
            }
        )
        y += 1
        x = 0
        for panel in row:
            if x + panel.width > WIDTH:
                x, y = 0, y + HEIGHT
            shown.append(_panel(panel, x, y))
            x += panel.width
        y += HEIGHT
    for number, one in enumerate(shown, 1):
        one["id"] = number
    source = {
        "name": "datasource",
        "type": "datasource",
        "query": "prometheus",
        "label": "Data source",
    }
    return {
        "uid": f"clusterling-{board.name}",
        "title": board.title,
        "description": board.about,
        "tags": ["clusterling"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [source, *(_variable(name, query) for name, query in board.variables.items())]
        },
        "panels": shown,
    }


def _variable(name: str, query: str) -> dict[str, Any]:
    everybody = name == "job"
    return {
        "name": name,
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "includeAll": everybody,
        "multi": everybody,
        "sort": 1,
        **({"current": {"text": ["All"], "value": ["$__all"]}} if everybody else {}),
    }


def _panel(panel: Panel, x: int, y: int) -> dict[str, Any]:
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.about,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": {"h": HEIGHT, "w": panel.width, "x": x, "y": y},
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                "custom": {
                    "fillOpacity": 20 if panel.stacked else 0,
                    "stacking": {"mode": "normal" if panel.stacked else "none"},
                },
            },
            "overrides": [],
        },
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {"refId": chr(ord("A") + number), "expr": query, "legendFormat": legend}
            for number, (legend, query) in enumerate(panel.queries.items())
        ],
    }
