"""Alerts as values: the rule, what it means, how to look, what to do, and series with which it fires and does not.

`tools.dashboards` writes them as a file of Prometheus rules, a file of `promtool test rules`, and a runbook page each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

_JOB: Final = 'job=~".*clusterling.*"'
LABELS: Final = 'job="clusterling", instance="a"'
STEP: Final = "1m"
STEPS: Final = 40


@dataclass(frozen=True, slots=True)
class Alert:
    """`when` is `value` compared with a bound. `fires` and `quiet`: series in promtool's form, for forty minutes."""

    name: str
    value: str
    beyond: str
    lasting: str
    severity: str
    summary: str
    meaning: str
    look: str
    do: str
    fires: dict[str, str]
    quiet: dict[str, str]

    @property
    def when(self) -> str:
        return f"{self.value} {self.beyond}"


def _histogram(name: str, labels: str, *, slow: bool) -> dict[str, str]:
    """A histogram that counts ten values a minute, all of them slow or all quick."""
    quick = "0x40" if slow else "0+10x40"
    return {
        f'{name}_bucket{{{labels}, le="0.005"}}': quick,
        f'{name}_bucket{{{labels}, le="10"}}': "0+10x40",
        f'{name}_bucket{{{labels}, le="+Inf"}}': "0+10x40",
    }


ALERTS: Final = (
    Alert(
        "ClusterlingDown",
        f"min by (instance) (up{{{_JOB}}})",
        "== 0",
        "5m",
        "critical",
        "Prometheus cannot scrape {{ $labels.instance }}.",
        "The process is gone or hangs, or its scraper is no longer let in. Its clients are served by the other replicas, if"
        " there are any.",
        "`kubectl get pods`, the pod's log and its last state; `curl -k https://INSTANCE/readyz?verbose`. A 401 or 403 in"
        " Prometheus' list of targets says that the scraper's token is not the one of `--metrics-token-file`.",
        "Restart it if it hangs, and keep its log. If it is killed for its memory, look at the fleet's memory panel, raise the"
        " limit or lower the size of the cache.",
        {f"up{{{LABELS}}}": "0x40"},
        {f"up{{{LABELS}}}": "1x40"},
    ),
    Alert(
        "ClusterlingErrors",
        f'(sum(rate(apiserver_request_total{{{_JOB}, code=~"5.."}}[5m])) or vector(0))'
        f" / sum(rate(apiserver_request_total{{{_JOB}}}[5m]))",
        "> 0.01",
        "10m",
        "critical",
        "{{ $value | humanizePercentage }} of all requests fail.",
        "Clients get 5xx: the store cannot be reached (503, 504), or something unforeseen happened (500).",
        '`sum by (code, instance) (rate(apiserver_request_total{code=~"5.."}[5m]))` tells which, and where. The log has a'
        " line for each 500, with the Audit-Id that the client was given.",
        "For 503 and 504 see ClusterlingStoreErrors. For 500: report the log's trace; a restart rarely helps.",
        {
            f'apiserver_request_total{{{LABELS}, code="200"}}': "0+60x40",
            f'apiserver_request_total{{{LABELS}, code="500"}}': "0+6x40",
        },
        {f'apiserver_request_total{{{LABELS}, code="200"}}': "0+60x40"},
    ),
    Alert(
        "ClusterlingSlow",
        "histogram_quantile(0.99, sum by (le)"
        f' (rate(apiserver_request_duration_seconds_bucket{{{_JOB}, verb!~"WATCH|CONNECT"}}[5m])))',
        "> 1",
        "10m",
        "warning",
        "One request in a hundred takes longer than {{ $value | humanizeDuration }}.",
        "Requests wait: for the store, for the event loop, or for a turn among big ones. Kubernetes' own objective is a second.",
        "The fleet's dashboard: event loop lag says that the process is busy, the store's dashboard that commits are slow;"
        " latency by verb tells lists from the rest.",
        "If processes use a whole core each, add replicas. If one tenant stands out among the most used, bound it.",
        _histogram("apiserver_request_duration_seconds", f'{LABELS}, verb="GET"', slow=True),
        _histogram("apiserver_request_duration_seconds", f'{LABELS}, verb="GET"', slow=False),
    ),
    Alert(
        "ClusterlingEventLoopLate",
        "histogram_quantile(0.99, sum by (le, instance)"
        f" (rate(clusterling_event_loop_lag_seconds_bucket{{{_JOB}}}[10m])))",
        "> 0.25",
        "10m",
        "warning",
        "Everything on {{ $labels.instance }} waits {{ $value | humanizeDuration }} for its turn.",
        "One process serves all of its requests in turn. It has more to do than a core can, or some work cannot be cut.",
        "CPU of the instance; who is most used; `clusterling_turnstile_jobs`. With `py-spy dump` one sees what runs.",
        "Add replicas, or bound the tenant. If the process is not busy, its machine is: look for CPU throttling of the"
        " container.",
        _histogram("clusterling_event_loop_lag_seconds", LABELS, slow=True),
        _histogram("clusterling_event_loop_lag_seconds", LABELS, slow=False),
    ),
    Alert(
        "ClusterlingInternalErrors",
        f"increase(clusterling_internal_errors_total{{{_JOB}}}[15m])",
        "> 0",
        "0m",
        "warning",
        "{{ $labels.instance }} met something unforeseen.",
        "A request ended in an exception that nobody expected: a defect.",
        "The log's `request-crashed` with its trace. The client was told the same id.",
        "Report it, with the trace and what the client sent.",
        {f"clusterling_internal_errors_total{{{LABELS}}}": "0x20 1x20"},
        {f"clusterling_internal_errors_total{{{LABELS}}}": "3x40"},
    ),
    Alert(
        "ClusterlingStoreErrors",
        f"sum by (instance) (rate(etcd_request_errors_total{{{_JOB}}}[5m]))",
        "> 0.1",
        "5m",
        "critical",
        "{{ $labels.instance }} cannot use its store.",
        "PostgreSQL or etcd is away, fails over, or refuses. Reads that memory can answer go on where freshness allows;"
        " writes are answered with 503 or 504.",
        "The log's `storage-failed` and `put-off` lines have the driver's words. Is the other side up, is its disk full, are"
        " its connections used up?",
        "Repair the store. Replicas come back by themselves within seconds.",
        {f'etcd_request_errors_total{{{LABELS}, operation="write"}}': "0+60x40"},
        {f'etcd_request_errors_total{{{LABELS}, operation="write"}}': "2x40"},
    ),
    Alert(
        "ClusterlingStoreSlow",
        f"histogram_quantile(0.99, sum by (le) (rate(clusterling_store_commit_duration_seconds_bucket{{{_JOB}}}[10m])))",
        "> 0.5",
        "10m",
        "warning",
        "Commits take {{ $value | humanizeDuration }}.",
        "Every write waits for its batch's commit, which is a disk's flush in the store and the way to it.",
        "The store's own metrics: its disk's latency, its CPU, the replication it waits for. The time of a round trip from the pods.",
        "Give it a faster disk, or bring it nearer. For PostgreSQL look at `synchronous_commit` and what else uses it.",
        _histogram("clusterling_store_commit_duration_seconds", LABELS, slow=True),
        _histogram("clusterling_store_commit_duration_seconds", LABELS, slow=False),
    ),
    Alert(
        "ClusterlingBehind",
        f"delta(clusterling_feed_revision{{{_JOB}}}[5m]) / scalar(max(delta(clusterling_feed_revision{{{_JOB}}}[5m])))",
        "< 0.5",
        "10m",
        "critical",
        "{{ $labels.instance }} does not hear of changes.",
        "The replica follows the store more slowly than the others do, or not at all. Its reads wait until it has"
        " caught up, and end with 504.",
        "The store's dashboard, changes: the replica has less than the others. Its log says `put-off` where it cannot"
        " reach the store.",
        "Look at the network between it and the store, and at its event loop. If only one is so: restart it.",
        {
            f"clusterling_feed_revision{{{LABELS}}}": "100x40",
            'clusterling_feed_revision{job="clusterling", instance="b"}': "100+50x40",
        },
        {
            f"clusterling_feed_revision{{{LABELS}}}": "100+50x40",
            'clusterling_feed_revision{job="clusterling", instance="b"}': "100+50x40",
        },
    ),
    Alert(
        "ClusterlingNoLeader",
        f"sum(leader_election_master_status{{{_JOB}}})",
        "< 1",
        "2m",
        "critical",
        "No replica runs the controllers.",
        "Requests are served, but nothing is finished: namespaces and clusters being deleted stay, garbage is not"
        " collected, quotas are not counted anew.",
        "Each replica's log of `election`. A lease is followed within 15 seconds after its holder has died.",
        "See to the store: a lease that cannot be written is the usual cause.",
        {f'leader_election_master_status{{{LABELS}, name="main"}}': "0x40"},
        {f'leader_election_master_status{{{LABELS}, name="main"}}': "1x40"},
    ),
    Alert(
        "ClusterlingControllerBehind",
        f"sum by (name) (workqueue_depth{{{_JOB}}})",
        "> 1000",
        "15m",
        "warning",
        "The controller {{ $labels.name }} has {{ $value }} keys to look at.",
        "More comes than it can do, for a quarter of an hour.",
        "The store's dashboard, controllers: how long work takes, and how many keys are put off.",
        "If work is slow, the store is: see ClusterlingStoreSlow. If one tenant makes it all, bound its writes.",
        {f'workqueue_depth{{{LABELS}, name="garbage"}}': "5000x40"},
        {f'workqueue_depth{{{LABELS}, name="garbage"}}': "10x40"},
    ),
    Alert(
        "ClusterlingControllerFails",
        f"sum by (name) (rate(workqueue_retries_total{{{_JOB}}}[10m]))",
        "> 1",
        "15m",
        "warning",
        "The controller {{ $labels.name }} fails, again and again.",
        "Keys are put off and tried again with growing delay; what they are about stays undone.",
        "The log's `reconcile-failed` and `reconcile-retry`, with the key and the error.",
        "What the error says. An exception with a trace is a defect: report it.",
        {f'workqueue_retries_total{{{LABELS}, name="garbage"}}': "0+120x40"},
        {f'workqueue_retries_total{{{LABELS}, name="garbage"}}': "0+1x40"},
    ),
    Alert(
        "ClusterlingTenantThrottled",
        f"sum by (cluster) (rate(clusterling_cluster_throttled_total{{{_JOB}}}[10m]))",
        "> 1",
        "15m",
        "info",
        "Requests of the logical cluster {{ $labels.cluster }} are refused with 429.",
        "It asks for more than it may at once. Others are not affected: that is what the limit is for.",
        "The tenant's dashboard: what kind of requests, and how many watches.",
        "Talk to the tenant: a client without an informer, or a loop. Or raise its limits.",
        {f'clusterling_cluster_throttled_total{{{LABELS}, cluster="team-a"}}': "0+120x40"},
        {f'clusterling_cluster_throttled_total{{{LABELS}, cluster="team-a"}}': "0+1x40"},
    ),
    Alert(
        "ClusterlingSeatsTaken",
        "sum by (instance, flow_schema)"
        f' (rate(apiserver_flowcontrol_rejected_requests_total{{{_JOB}, reason="concurrency-limit"}}[5m]))',
        "> 0.1",
        "5m",
        "warning",
        "All seats for {{ $labels.flow_schema }} on {{ $labels.instance }} are taken.",
        "Requests are refused with 429 whoever sends them, as more are in flight than the server lets in: it has too much to do, or"
        " the store answers late, so that each request stays longer.",
        "The fleet's dashboard: seats taken, latency, event loop lag. Whose requests they are: the most used tenants.",
        "Where the store or the event loop is late, see ClusterlingStoreSlow and ClusterlingEventLoopLate. Where they are not, the server can"
        " do more: raise the limit (`serve --limits`; docs/reference/limits.md has its name). Or add replicas.",
        {
            f'apiserver_flowcontrol_rejected_requests_total{{{LABELS}, flow_schema="lists", reason="concurrency-limit"}}': "0+60x40"
        },
        {
            f'apiserver_flowcontrol_rejected_requests_total{{{LABELS}, flow_schema="lists", reason="concurrency-limit"}}': "9x40",
            f'apiserver_flowcontrol_rejected_requests_total{{{LABELS}, flow_schema="lists", reason="tenant-concurrency-limit"}}': "0+60x40",
        },
    ),
    Alert(
        "ClusterlingQueuesFull",
        "sum by (flow_schema)"
        f' (rate(apiserver_flowcontrol_rejected_requests_total{{{_JOB}, reason="queue-full"}}[5m]))',
        "> 0.1",
        "10m",
        "warning",
        "Writes are refused with 429, as too many of their logical cluster wait for the {{ $labels.flow_schema }}.",
        "`store`: 5,000 writes of one logical cluster, or 64 MiB of them, wait for a batch. `workers`: its large requests come faster than"
        " worker processes compute them. Other clusters' writes take turns with these and are not refused.",
        "The most throttled tenants on the fleet's dashboard; commits and writes that wait on the store's; workers on the fleet's.",
        "Talk to the tenant, or give it a rate (`clusterling quota CLUSTER set writesPerSecond=…`). If commits are slow, see"
        " ClusterlingStoreSlow. Large requests: more workers (`serve --workers`), where there are cores.",
        {
            f'apiserver_flowcontrol_rejected_requests_total{{{LABELS}, flow_schema="store", reason="queue-full"}}': "0+60x40"
        },
        {
            f'apiserver_flowcontrol_rejected_requests_total{{{LABELS}, flow_schema="store", reason="queue-full"}}': "9x40"
        },
    ),
    Alert(
        "ClusterlingWorkersDie",
        f"sum by (instance) (increase(clusterling_workers_died_total{{{_JOB}}}[30m]))",
        "> 3",
        "0m",
        "warning",
        "Worker processes of {{ $labels.instance }} end in the middle of requests, again and again.",
        "A large write takes more processor time or memory than one request may, and somebody sends it anew each time; or the machine"
        " has too little memory and ends processes. The server itself, and others' requests, go on.",
        "The log's `worker-died`: code -27 is processor time (its client gets 504), 71 memory (413); -9 is somebody else's `kill`, mostly the"
        " kernel's or the container's for want of memory. `request-failed` beside it (but of 413) has the logical cluster.",
        "-27 and 71: talk to the tenant; nothing else suffers. -9: give the container more memory, or it fewer workers (`--workers`)."
        " Any other code is a defect: report it, with the log.",
        {f"clusterling_workers_died_total{{{LABELS}}}": "0+1x40"},
        {f"clusterling_workers_died_total{{{LABELS}}}": "5x20 6x20"},
    ),
    Alert(
        "ClusterlingQuotaNearlyUsed",
        f"max by (cluster, limit) (clusterling_cluster_quota_used_ratio{{{_JOB}}})",
        "> 0.9",
        "15m",
        "warning",
        "The logical cluster {{ $labels.cluster }} has used {{ $value | humanizePercentage }} of its limit on"
        " {{ $labels.limit }}.",
        "Soon what needs more of it is refused, with 403, or 429 for watches. Deletes, and updates that make something"
        " smaller, go on. Nobody else is affected.",
        "`clusterling quota CLUSTER` shows each limit and what is used; the tenant's dashboard, how fast that grows.",
        "Ask the tenant what can go: Events and old ReplicaSets are common. Or raise the limit:"
        " `clusterling quota CLUSTER set LIMIT=QUANTITY`. A soft limit below it warns the tenant's own clients.",
        {
            f'clusterling_cluster_quota_used_ratio{{{LABELS}, cluster="team-a", limit="objects"}}': "0.95x40",
        },
        {
            f'clusterling_cluster_quota_used_ratio{{{LABELS}, cluster="team-a", limit="objects"}}': "0.85x40",
        },
    ),
    Alert(
        "ClusterlingCacheTooSmall",
        f"sum by (instance) (rate(clusterling_cache_evictions_total{{{_JOB}}}[10m]))",
        "> 1",
        "20m",
        "warning",
        "{{ $labels.instance }} lets collections go that are needed again.",
        "What is in use does not fit into the cache; reads go to the store, and whole collections are read again and again.",
        "`clusterling_cache_bytes` beside `clusterling_cache_bytes_max`, the biggest tenants, objects in memory by kind.",
        "Give the process more memory and the cache more of it, or spread tenants over more servers.",
        {f"clusterling_cache_evictions_total{{{LABELS}}}": "0+120x40"},
        {f"clusterling_cache_evictions_total{{{LABELS}}}": "0+1x40"},
    ),
    Alert(
        "ClusterlingLoginFailures",
        f'sum(rate(authentication_attempts{{{_JOB}, result="failure"}}[5m]))',
        "> 10",
        "10m",
        "warning",
        "{{ $value }} requests a second come with credentials that mean nobody.",
        "Somebody guesses, or a client goes on with a credential that was revoked or has expired.",
        "The log and the load balancer's, for the addresses that they come from.",
        "Renew the credential (`clusterling token`), or shut the address out.",
        {f'authentication_attempts{{{LABELS}, result="failure"}}': "0+1200x40"},
        {f'authentication_attempts{{{LABELS}, result="failure"}}': "0+6x40"},
    ),
    Alert(
        "ClusterlingLoginsBarred",
        f'sum by (instance) (rate(clusterling_failed_logins_limited_total{{{_JOB}, answer="refused"}}[5m]))',
        "> 1",
        "10m",
        "warning",
        "{{ $labels.instance }} refuses {{ $value }} logins a second of addresses that send wrong credentials all the time.",
        "One address, or a few, send wrong credentials faster than they are answered. Who was let in from there before goes on; who is new"
        " behind the same address is refused with 429 as well.",
        "The log's `logins-barred`, and the answers, have the address. Behind a load balancer that is no `--trusted-proxies`, it"
        " is the load balancer's, and all clients share its budget.",
        "Shut the address out, or mend the client. Name the load balancer with `--trusted-proxies`. `--limits address.failedLogins=` changes"
        " from where on it is so.",
        {f'clusterling_failed_logins_limited_total{{{LABELS}, answer="refused"}}': "0+120x40"},
        {f'clusterling_failed_logins_limited_total{{{LABELS}, answer="refused"}}': "0+6x40"},
    ),
    Alert(
        "ClusterlingConnectionsRefused",
        f"sum by (instance, limit) (rate(clusterling_connections_refused_total{{{_JOB}}}[5m]))",
        "> 1",
        "5m",
        "warning",
        "{{ $labels.instance }} closes connections at once (limit: {{ $labels.limit }}).",
        "`all`: as many are open as may be, and nobody new comes in. `address`: one address has its share while connections are scarce,"
        " or has reached `address.connections`; others come in.",
        "The fleet's dashboard: connections of those that may be open. The log's `connection-refused` has the address.",
        "`all`: raise `ulimit -n` (the container's) or `--limits connections=`, or add replicas. `address`: a client that leaks connections, or"
        " a load balancer that belongs into `--trusted-proxies`.",
        {f'clusterling_connections_refused_total{{{LABELS}, limit="all"}}': "0+120x40"},
        {f'clusterling_connections_refused_total{{{LABELS}, limit="address"}}': "0+6x40"},
    ),
    Alert(
        "ClusterlingHandshakesWait",
        f'sum by (instance) (clusterling_tls_handshakes{{{_JOB}, state="waiting"}})',
        "> 500",
        "5m",
        "warning",
        "{{ $value }} connections to {{ $labels.instance }} wait for their TLS handshake.",
        "More connections begin than handshakes may run at once, for one address or for all; who waits for more than 30 seconds is closed.",
        "The fleet's dashboard: handshakes, and those that failed a second: an address that begins them and never goes on makes many fail."
        " CPU of the instance: a handshake takes a millisecond of it.",
        "Shut the address out. Where these are clients in good faith, after a restart of a load balancer say, it passes; clients that keep their"
        " connections, or more replicas, make it shorter. Limits: `handshakes`, `address.handshakes` and `address.handshakesPerSecond` of `--limits`.",
        {f'clusterling_tls_handshakes{{{LABELS}, state="waiting"}}': "2000x40"},
        {
            f'clusterling_tls_handshakes{{{LABELS}, state="waiting"}}': "20x40",
            f'clusterling_tls_handshakes{{{LABELS}, state="running"}}': "2000x40",
        },
    ),
    Alert(
        "ClusterlingFileDescriptors",
        f"process_open_fds{{{_JOB}}} / process_max_fds{{{_JOB}}}",
        "> 0.8",
        "5m",
        "warning",
        "{{ $labels.instance }} has used {{ $value | humanizePercentage }} of its file descriptors.",
        "Each connection takes one. Without any left, nobody can connect.",
        "`clusterling_connections` and open watches, by instance and by tenant.",
        "Raise the limit (`ulimit -n`, the container's), add replicas, or bound the watches of who has most.",
        {f"process_open_fds{{{LABELS}}}": "950x40", f"process_max_fds{{{LABELS}}}": "1000x40"},
        {f"process_open_fds{{{LABELS}}}": "50x40", f"process_max_fds{{{LABELS}}}": "1000x40"},
    ),
)

RUNBOOKS: Final = "docs/reference/runbooks"


def rules() -> dict[str, Any]:
    """A file of rules, as Prometheus and a PrometheusRule have it."""
    return {
        "groups": [
            {
                "name": "clusterling",
                "rules": [
                    {
                        "alert": alert.name,
                        "expr": alert.when,
                        "for": alert.lasting,
                        "labels": {"severity": alert.severity},
                        "annotations": {
                            "summary": alert.summary,
                            "description": alert.meaning,
                            "runbook": f"{RUNBOOKS}/{alert.name}.md",
                        },
                    }
                    for alert in ALERTS
                ],
            }
        ]
    }


def tests(rule_file: str) -> dict[str, Any]:
    """What `promtool test rules` runs: each alert fires with its one set of series, and not with the other."""
    return {
        "rule_files": [rule_file],
        "evaluation_interval": "1m",
        "tests": [*map(_fires, ALERTS), *map(_quiet, ALERTS)],
    }


def _input(series: dict[str, str]) -> list[dict[str, str]]:
    return [{"series": name, "values": values} for name, values in series.items()]


def _fires(alert: Alert) -> dict[str, Any]:
    return {
        "name": f"{alert.name} fires",
        "interval": STEP,
        "input_series": _input(alert.fires),
        # How many of it there are; which labels they have is said in the rule.
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{alert.name}", alertstate="firing"}})',
                "eval_time": f"{STEPS - 8}m",
                "exp_samples": [{"labels": "{}", "value": 1}],
            }
        ],
    }


def _quiet(alert: Alert) -> dict[str, Any]:
    return {
        "name": f"{alert.name} does not fire",
        "interval": STEP,
        "input_series": _input(alert.quiet),
        "alert_rule_test": [
            {"eval_time": f"{STEPS - 1}m", "alertname": alert.name, "exp_alerts": []},
        ],
    }


def runbook(alert: Alert) -> str:
    """The page about one alert."""
    return f"""# {alert.name}

<!-- Written by `make dashboards` from tools/alerts.py. -->

{alert.summary.replace("{{ $labels.", "").replace("{{ $value", "VALUE").replace(" | humanizePercentage", "").replace(" | humanizeDuration", "").replace(" }}", "")}

Severity: {alert.severity}. It fires when this holds for {alert.lasting}:

```promql
{alert.when}
```

## What it means

{alert.meaning}

## How to look

{alert.look}

## What to do

{alert.do}
"""
