"""Every metric there is: its name, its type, its labels, what it means. The reference in docs is made from this.

Names, labels and buckets that a kube-apiserver has are its own, so that dashboards made for one work here:
apiserver/pkg/endpoints/metrics, pkg/storage/etcd3/metrics, pkg/storage/cacher/metrics, component-base/metrics/prometheus.
What it has no name for begins with `clusterling_`. No label's value is chosen by a tenant without a bound on how many.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

Type = Literal["counter", "gauge", "histogram", "unknown"]


class Family(NamedTuple):
    """One metric. A counter's name ends in `_total`; "unknown" is a counter that upstream named otherwise."""

    name: str
    type: Type
    labels: tuple[str, ...]
    help: str
    per_tenant: bool = False


_ALIKE: Final = ("verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component")
_SIZED: Final = ("verb", "group", "version", "resource", "subresource", "scope", "component")
_KIND: Final = ("group", "resource")
_FLOW: Final = ("priority_level", "flow_schema")
_VERSIONED: Final = ("group", "version", "resource")

REQUESTS: Final = Family(
    "apiserver_request_total",
    "counter",
    (*_ALIKE, "code"),
    "Requests answered. What was refused before its kind was known has no group, version and resource.",
)
REQUEST_SECONDS: Final = Family(
    "apiserver_request_duration_seconds",
    "histogram",
    _ALIKE,
    "Seconds from the arrival of a request to its answer; of a watch, to its end.",
)
RESPONSE_SIZES: Final = Family(
    "apiserver_response_sizes",
    "histogram",
    _SIZED,
    "Bytes of the answers to GET and LIST, before compression.",
)
IN_FLIGHT: Final = Family(
    "apiserver_current_inflight_requests",
    "gauge",
    ("request_kind",),
    "The most requests that were in flight at once in the last second; `mutating` and `readOnly` apart, watches not counted.",
)
LONG_RUNNING: Final = Family("apiserver_longrunning_requests", "gauge", _SIZED, "Watches that are open.")
DEPRECATED: Final = Family(
    "apiserver_requested_deprecated_apis",
    "gauge",
    ("group", "version", "resource", "subresource", "removed_release"),
    "1 for each deprecated version of a kind that was asked for.",
)
REJECTED: Final = Family(
    "apiserver_flowcontrol_rejected_requests_total",
    "counter",
    (*_FLOW, "reason"),
    "Requests answered with 429: `concurrency-limit` where all seats of the server were taken, `tenant-concurrency-limit`"
    " where the tenant's own were, `rate-limit` by a cluster's quota, `queue-full` where too much of the cluster's waits for the"
    " store or for a worker.",
)
EXECUTING: Final = Family(
    "apiserver_flowcontrol_current_executing_requests",
    "gauge",
    _FLOW,
    "Requests that hold a seat. Priority levels are upstream's; flow schemas are the sorts that have limits of their own.",
)
SEATS: Final = Family(
    "apiserver_flowcontrol_nominal_limit_seats",
    "gauge",
    _FLOW,
    "Seats that there are for them; upstream's has no flow schema.",
)
WATCH_EVENTS: Final = Family("apiserver_watch_events_total", "counter", _VERSIONED, "Events sent to watches.")
WATCH_SIZES: Final = Family(
    "apiserver_watch_events_sizes",
    "histogram",
    _VERSIONED,
    "Bytes of those events, framing included; of those sent in one write, their mean.",
)
AUTHENTICATED: Final = Family(
    "authentication_attempts",
    "unknown",
    ("result",),
    "Requests with a credential: `success`, `failure` where it means nobody, `error` where that could not be found out.",
)
AUTHENTICATED_SECONDS: Final = Family(
    "authentication_duration_seconds", "histogram", ("result",), "Seconds that finding out who asks took."
)
AUTHORIZED: Final = Family(
    "apiserver_authorization_attempts_total", "counter", ("result",), "Decisions: `allowed` or `denied`."
)
AUDITED: Final = Family("apiserver_audit_event_total", "counter", (), "Requests that the audit was told of.")
OBJECTS: Final = Family(
    "apiserver_resource_objects",
    "gauge",
    _KIND,
    "Objects of a kind in this replica's memory, in all logical clusters together.",
)
CACHE_LOADS: Final = Family(
    "apiserver_watch_cache_initializations_total",
    "counter",
    _KIND,
    "Collections of a kind that were read from the store into memory.",
)
STORE_SECONDS: Final = Family(
    "etcd_request_duration_seconds",
    "histogram",
    ("operation", *_KIND),
    "Seconds of a call to the store, whichever it is, waiting included. Group and resource are empty: calls are about several.",
)
STORE_CALLS: Final = Family("etcd_requests_total", "counter", ("operation", *_KIND), "Those calls.")
STORE_ERRORS: Final = Family(
    "etcd_request_errors_total", "counter", ("operation", *_KIND), "Those of them that failed."
)
QUEUE_DEPTH: Final = Family("workqueue_depth", "gauge", ("name",), "Keys that a controller has to look at.")
QUEUE_ADDS: Final = Family("workqueue_adds_total", "counter", ("name",), "Keys that a controller was given.")
QUEUE_RETRIES: Final = Family(
    "workqueue_retries_total", "counter", ("name",), "Keys that it failed with, and puts off."
)
QUEUE_WAIT: Final = Family(
    "workqueue_queue_duration_seconds", "histogram", ("name",), "Seconds that a key waited for its turn."
)
QUEUE_WORK: Final = Family(
    "workqueue_work_duration_seconds", "histogram", ("name",), "Seconds that bringing a key into order took."
)
LEADER: Final = Family(
    "leader_election_master_status",
    "gauge",
    ("name",),
    "1 where this replica runs the controllers, 0 where another does.",
)
KUBERNETES_BUILD: Final = Family(
    "kubernetes_build_info",
    "gauge",
    (
        *("major", "minor", "git_version", "git_commit", "git_tree_state"),
        *("build_date", "go_version", "compiler", "platform"),
    ),
    "1, labelled with the version of Kubernetes whose API is served, as /version tells it.",
)
BUILD: Final = Family(
    "clusterling_build_info",
    "gauge",
    ("version", "python"),
    "1, labelled with Clusterling's version and Python's.",
)

ERRORS: Final = Family(
    "clusterling_internal_errors_total",
    "counter",
    (),
    "Requests that ended in something unforeseen; the log has it.",
)
CLUSTERS: Final = Family("clusterling_clusters", "gauge", (), "Logical clusters, `root` included.")
SERVED: Final = Family(
    "clusterling_clusters_served",
    "gauge",
    (),
    "Logical clusters that somebody uses now, so that they take memory.",
)
CONNECTIONS: Final = Family("clusterling_connections", "gauge", (), "Connections that are open.")
ACCEPTED: Final = Family(
    "clusterling_connections_accepted_total", "counter", (), "Connections accepted, before TLS has begun."
)
ESTABLISHED: Final = Family(
    "clusterling_connections_established_total", "counter", (), "Those of them whose TLS handshake succeeded."
)
CONNECTIONS_MAX: Final = Family("clusterling_connections_max", "gauge", (), "Connections that may be open.")
CONNECTIONS_REFUSED: Final = Family(
    "clusterling_connections_refused_total",
    "counter",
    ("limit",),
    "Connections closed at once: `all` where there were too many, `address` where one address had its share.",
)
HANDSHAKES: Final = Family(
    "clusterling_tls_handshakes",
    "gauge",
    ("state",),
    "TLS handshakes: `running`, and `waiting` for their turn.",
)
HANDSHAKES_FAILED: Final = Family(
    "clusterling_tls_handshakes_failed_total",
    "counter",
    (),
    "TLS handshakes that came to nothing, or took too long.",
)
LOGINS: Final = Family(
    "clusterling_failed_logins_limited_total",
    "counter",
    ("answer",),
    "Wrong credentials from addresses that sent many: `delayed`, or `refused` with 429.",
)
ADDRESSES: Final = Family(
    "clusterling_addresses_known", "gauge", (), "Addresses that something is counted for."
)
LOOP_LAG: Final = Family(
    "clusterling_event_loop_lag_seconds",
    "histogram",
    (),
    "How much later than asked the event loop ran a callback: what any request waits. Looked at once a second, from the first scrape on.",
)
TURNSTILE_WAITING: Final = Family(
    "clusterling_turnstile_jobs", "gauge", (), "Big pieces of work that wait for their next slice."
)
WORKERS: Final = Family(
    "clusterling_workers",
    "gauge",
    (),
    "Processes for large writes that there are now; none until there is work for one.",
)
WORKERS_STARTED: Final = Family(
    "clusterling_workers_started_total", "counter", (), "Processes that were started."
)
WORKERS_DIED: Final = Family(
    "clusterling_workers_died_total",
    "counter",
    (),
    "Those of them that ended in the middle of a request: it took more processor time or memory than one may, or something ended them.",
)
WORKER_REQUESTS: Final = Family(
    "clusterling_worker_requests_total", "counter", (), "Large writes that a worker has answered."
)
WORKER_WAITING: Final = Family(
    "clusterling_worker_requests_waiting", "gauge", (), "Large writes that wait for a worker."
)
CACHE_BYTES: Final = Family("clusterling_cache_bytes", "gauge", (), "Bytes that collections in memory take.")
CACHE_BYTES_MAX: Final = Family("clusterling_cache_bytes_max", "gauge", (), "What they may take.")
CACHE_UNITS: Final = Family("clusterling_cache_collections", "gauge", (), "Collections in memory.")
CACHE_HITS: Final = Family(
    "clusterling_cache_hits_total",
    "counter",
    (),
    "Reads that memory answered, those that watches made included.",
)
CACHE_MISSES: Final = Family("clusterling_cache_misses_total", "counter", (), "Reads that went to the store.")
CACHE_EVICTIONS: Final = Family(
    "clusterling_cache_evictions_total", "counter", (), "Collections let go because others needed the memory."
)
BATCH_SECONDS: Final = Family(
    "clusterling_store_commit_duration_seconds",
    "histogram",
    (),
    "Seconds that committing a batch of writes took.",
)
BATCH_WRITES: Final = Family(
    "clusterling_store_batch_writes", "histogram", (), "Writes that were committed in one batch."
)
BATCH_FAILURES: Final = Family(
    "clusterling_store_commit_failures_total",
    "counter",
    (),
    "Batches that the store did not take, or not for certain.",
)
STORE_QUEUED: Final = Family("clusterling_store_queued_writes", "gauge", (), "Writes that wait for a batch.")
STORE_BYTES: Final = Family(
    "clusterling_store_written_bytes_total", "counter", (), "Bytes of values written."
)
FEED_REVISION: Final = Family(
    "clusterling_feed_revision",
    "gauge",
    (),
    "The revision of the store up to which this replica knows all changes. The replica that is behind is the one with less.",
)
FEED_EVENTS: Final = Family(
    "clusterling_feed_events_total", "counter", (), "Changes that came from the store."
)
FEED_LOST: Final = Family(
    "clusterling_feed_gaps_total",
    "counter",
    (),
    "Times that changes were missed, so that everything was read anew.",
)
FEED_WATCHES: Final = Family(
    "clusterling_feed_subscribers", "gauge", (), "Watches of the store inside the process."
)

CLUSTER_REQUESTS: Final = Family(
    "clusterling_cluster_requests_total",
    "counter",
    ("cluster", "kind"),
    "Requests of a logical cluster: `read`, `write`, and `watch` when it ends.",
    per_tenant=True,
)
CLUSTER_ERRORS: Final = Family(
    "clusterling_cluster_request_errors_total",
    "counter",
    ("cluster", "code"),
    "Those of them answered with 4xx and 5xx.",
    per_tenant=True,
)
CLUSTER_SECONDS: Final = Family(
    "clusterling_cluster_request_duration_seconds",
    "histogram",
    ("cluster",),
    "Seconds from the arrival of a request to its answer, without watches.",
    per_tenant=True,
)
CLUSTER_SENT: Final = Family(
    "clusterling_cluster_response_bytes_total",
    "counter",
    ("cluster",),
    "Bytes of its answers, without watches, before compression.",
    per_tenant=True,
)
CLUSTER_THROTTLED: Final = Family(
    "clusterling_cluster_throttled_total",
    "counter",
    ("cluster",),
    "Requests answered with 429, for limits of the cluster or of the server.",
    per_tenant=True,
)
CLUSTER_WATCHES: Final = Family(
    "clusterling_cluster_watches", "gauge", ("cluster",), "Watches that are open.", per_tenant=True
)
CLUSTER_OBJECTS: Final = Family(
    "clusterling_cluster_objects",
    "gauge",
    ("cluster",),
    "Objects that it keeps, as its quota counts them, at the last look: at a scrape, a minute or two ago at most.",
    per_tenant=True,
)
CLUSTER_BYTES: Final = Family(
    "clusterling_cluster_bytes",
    "gauge",
    ("cluster",),
    "Bytes that it keeps, as its quota counts them.",
    per_tenant=True,
)
CLUSTER_QUOTA: Final = Family(
    "clusterling_cluster_quota_used_ratio",
    "gauge",
    ("cluster", "limit"),
    "Use of what its quota bounds, as a part of the hard limit: 1 is all. Of objects, bytes, kinds and watches (this replica's); the five limits that are nearest.",
    per_tenant=True,
)
TENANTS_NAMED: Final = Family(
    "clusterling_tenant_series_clusters",
    "gauge",
    (),
    "Logical clusters that have series of their own: those in most use; the others are `~other` together.",
)

FAMILIES: Final = tuple(value for value in list(globals().values()) if isinstance(value, Family))

# At /metrics/slis, and there alone: component-base/metrics/prometheus/slis.
HEALTHCHECK: Final = Family(
    "kubernetes_healthcheck",
    "gauge",
    ("name", "type"),
    "1 where a check of health succeeded when it was last asked for, 0 where it failed; `type` is the endpoint: `livez`, `readyz`, `healthz`.",
)
HEALTHCHECKS: Final = Family(
    "kubernetes_healthchecks_total",
    "counter",
    ("name", "type", "status"),
    "How often it was asked for: `success`, `error`.",
)
SLIS: Final = (HEALTHCHECK, HEALTHCHECKS)
