"""A server from outside: each of its addresses, its certificate and clock, and what it tells an administrator.

A replica is asked by its own address, one after the other, under the name that the kubeconfig has for all.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from clusterling.cli.doctor.finding import Finding, fail, ok, shown_age, skipped, warn
from clusterling.cli.remote import connection

if TYPE_CHECKING:
    from clusterling.cli.target import Target

ADDRESSES_MAX: Final = 16
ANSWER_BYTES_MAX: Final = 64 << 20
SLOW_S: Final = 1.0
SKEW_WARN_S: Final = 3.0  # `Date` has whole seconds.
SKEW_FAIL_S: Final = 60.0
ENDING_S: Final = 30 * 86_400.0

_TIME: Final = "have all machines keep time by NTP: tokens, ttl and certificates go by it"


@dataclass
class Replica:
    """What one address told. `clock`: how far it is ahead of this machine's, in seconds."""

    address: str
    clock: float | None = None
    findings: list[Finding] = field(default_factory=list)
    answers: bool = False
    metrics: str = ""


def replicas(target: Target, timeout_s: float) -> tuple[list[Finding], list[Replica]]:
    """Looks at each address that the server's name has. The findings are those of the name itself."""
    url = urlsplit(target.server)
    host, port = url.hostname, url.port or (80 if url.scheme == "http" else 443)
    if url.scheme not in ("http", "https") or not host:
        return [fail("server", f"{target.source} names no server: {target.server!r}", _KUBECONFIG)], []
    try:
        known = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        remedy = "look at DNS, or use a kubeconfig with another address"
        return [fail("server", f"{host} has no address: {error.strerror or error}", remedy)], []
    addresses = list(dict.fromkeys(str(one[4][0]) for one in known))[:ADDRESSES_MAX]
    found = [_replica(target, address, port, timeout_s) for address in addresses]
    return [*_clocks(found)], found


_KUBECONFIG: Final = "use the admin.kubeconfig of the server's data directory"


def _replica(target: Target, address: str, port: int, timeout_s: float) -> Replica:
    replica = Replica(address)
    check = f"server {address}"
    try:
        link = connection(target, timeout_s, address)
    except (OSError, ValueError) as error:
        replica.findings.append(fail(check, f"{target.source} has a CA that is none: {error}", _KUBECONFIG))
        return replica
    try:
        began = time.monotonic()
        link.connect()
        replica.findings += _certificate(link)
        asked = time.time()
        link.request("GET", "/readyz?verbose", headers={"Host": urlsplit(target.server).netloc})
        answer = link.getresponse()
        text = answer.read(ANSWER_BYTES_MAX).decode(errors="replace")
        replica.clock = _ahead(answer.getheader("Date"), (asked + time.time()) / 2)
        replica.answers = True
        replica.findings.insert(0, _ready(check, answer.status, text, time.monotonic() - began))
        replica.metrics = _metrics(link, target)
    except ssl.SSLCertVerificationError as error:
        remedy = "use the kubeconfig that this server wrote; or have its certificate made for that name (--tls-san)"
        replica.findings.append(
            fail(check, f"its certificate is not trusted: {error.verify_message}", remedy)
        )
    except ConnectionRefusedError:
        remedy = "start the server; or is another port meant, or a firewall in between?"
        replica.findings.append(fail(check, f"nothing listens at port {port}", remedy))
    except TimeoutError:
        remedy = "is there a firewall in between? If not, the process hangs: keep its log, and restart it"
        replica.findings.append(fail(check, f"no answer at port {port} within {timeout_s:g} s", remedy))
    except (OSError, http.client.HTTPException) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        remedy = "is it a Clusterling, with TLS, at that port?"
        replica.findings.append(fail(check, f"port {port}: {reason}", remedy))
    finally:
        link.close()
    return replica


def _certificate(link: http.client.HTTPConnection) -> Iterator[Finding]:
    """When the certificate that was shown ends; nothing where it was not verified, as nothing of it is told then."""
    if not isinstance(link.sock, ssl.SSLSocket):
        return
    shown = link.sock.getpeercert() or {}
    end = shown.get("notAfter")
    if not isinstance(end, str):
        return
    left = ssl.cert_time_to_seconds(end) - time.time()
    if left < ENDING_S:
        remedy = "restart the server, which makes a new one; one that was given (--tls-cert) is to be renewed"
        yield warn("served certificate", f"it ends in {shown_age(left)}", remedy)
    else:
        yield ok("served certificate", f"it ends in {shown_age(left)}")


def _ready(check: str, status: int, text: str, took_s: float) -> Finding:
    failing = [line[3:].split()[0] for line in text.splitlines() if line.startswith("[-]")]
    if status != 200:
        found = f"not ready: {', '.join(failing)}" if failing else f"/readyz answered {status}"
        return fail(
            check, found, "its log says why (`health check failed`); `store` is the store's connection"
        )
    if took_s > SLOW_S:
        return warn(check, f"ready, after {took_s:.1f} s", "look at its load, and at the way to it")
    return ok(check, f"ready, in {took_s * 1000:.0f} ms")


def _ahead(date: str | None, now: float) -> float | None:
    """Seconds by which a `Date`, which is cut to whole ones, is ahead."""
    try:
        return parsedate_to_datetime(date or "").timestamp() + 0.5 - now
    except ValueError:
        return None


def _clocks(found: list[Replica]) -> Iterator[Finding]:
    clocks = {one.address: one.clock for one in found if one.clock is not None}
    if not clocks:
        return
    apart = max(clocks.values()) - min(clocks.values())
    worst = max(clocks, key=lambda address: abs(clocks[address] or 0.0))
    skew = clocks[worst] or 0.0
    text = f"{worst} is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this machine"
    if len(clocks) > 1:
        text += f"; the {len(clocks)} addresses are {apart:.0f} s apart"
    if max(apart, abs(skew)) > SKEW_FAIL_S:
        yield fail("server clock", text, _TIME)
    elif max(apart, abs(skew)) > SKEW_WARN_S:
        yield warn("server clock", text, _TIME)
    else:
        yield ok("server clock", text)


def _metrics(link: http.client.HTTPConnection, target: Target) -> str:
    """What the replica counts, "" where it does not tell."""
    headers = {"Authorization": f"Bearer {target.token}"} if target.token else {}
    link.request("GET", "/metrics", headers={**headers, "Host": urlsplit(target.server).netloc})
    answer = link.getresponse()
    text = answer.read(ANSWER_BYTES_MAX)
    return text.decode(errors="replace") if answer.status == 200 else ""


def figures(found: list[Replica], head: int | None) -> Iterator[Finding]:
    """What the replicas' own counts say. `head`: a revision that the store had before."""
    told = {one.address: values for one in found if (values := _summed(one.metrics))}
    if not told:
        yield skipped("metrics", "not told: they are switched off, or for others")
        return
    yield from _leads(told)
    yield from _lags(told, head)
    for address, values in told.items():
        yield from _counts(address, values)


def _summed(metrics: str) -> dict[str, float]:
    """Each metric's value, those of all its labels together; none where it is no metrics."""
    from prometheus_client.parser import text_string_to_metric_families

    values: dict[str, float] = {}
    try:
        for family in text_string_to_metric_families(metrics):
            for sample in family.samples:
                values[sample.name] = values.get(sample.name, 0.0) + sample.value
    except ValueError:
        return {}
    return values


def _leads(told: dict[str, dict[str, float]]) -> Iterator[Finding]:
    leading = [address for address, of in told.items() if of.get("leader_election_master_status")]
    if len(leading) > 1:
        yield fail(
            "controllers", f"{', '.join(leading)} all lead", "report it, with the logs of all replicas"
        )
    elif leading:
        yield ok("controllers", f"run at {leading[0]}")
    else:
        # There may be others behind the same name.
        yield ok("controllers", "run at another replica, if anywhere")


def _lags(told: dict[str, dict[str, float]], head: int | None) -> Iterator[Finding]:
    """Whether a replica has not heard of what the store had, or another knows, before it was asked."""
    newest = head or 0
    for address, values in told.items():
        revision = int(values.get("clusterling_feed_revision", 0))
        if revision < newest:
            remedy = "look at the way from it to the store, and at its load; if only one is so, restart it"
            yield fail("lag", f"{address} is at revision {revision}, behind {newest}", remedy)
        newest = max(newest, revision)
    if all(int(of.get("clusterling_feed_revision", 0)) >= (head or 0) for of in told.values()):
        yield ok("lag", f"none, at revision {newest}")


def _counts(address: str, of: dict[str, float]) -> Iterator[Finding]:
    check = f"counts {address}"
    well = True
    errors = int(of.get("clusterling_internal_errors_total", 0))
    if errors:
        well = False
        yield warn(
            check, f"{errors} requests ended in something unforeseen", "report the log's `request failed`"
        )
    refused = int(of.get("etcd_request_errors_total", 0))
    calls = int(of.get("etcd_requests_total", 0))
    if refused * 100 > calls:
        well = False
        yield warn(
            check, f"{refused} of {calls} calls to the store failed", "look at the store, and the way to it"
        )
    used, most = of.get("process_open_fds", 0), of.get("process_max_fds", 0)
    if most and used > 0.8 * most:
        well = False
        yield warn(
            check, f"{used:.0f} of {most:.0f} file descriptors are used", "raise the limit (`ulimit -n`)"
        )
    if of.get("clusterling_cache_evictions_total", 0) > max(
        100, of.get("clusterling_cache_hits_total", 0) / 100
    ):
        well = False
        yield warn(
            check,
            "collections are let go that are needed again",
            "give the process more memory, and its cache",
        )
    late = of.get("clusterling_event_loop_lag_seconds_sum", 0)
    looks = of.get("clusterling_event_loop_lag_seconds_count", 0)
    if looks >= 10 and late > 0.1 * looks:
        well = False
        text = f"requests wait {late / looks:.2f} s for their turn"
        yield warn(check, text, "add replicas, or limit the tenant that is most used")
    if well:
        yield ok(check, "nothing unusual since it began")


def versions(text: bytes, found: list[Replica], own: str) -> Finding:
    """`text`: what /version answers."""
    try:
        served = str(json.loads(text)["gitVersion"])
    except (ValueError, KeyError, TypeError):
        return fail("version", "/version is not a Kubernetes API's", "is it a Clusterling?")
    theirs = {
        line.split('version="')[1].split('"')[0]
        for one in found
        for line in one.metrics.splitlines()
        if line.startswith("clusterling_build_info{")
    }
    shown = f"Kubernetes {served}"
    if theirs:
        shown += f", Clusterling {', '.join(sorted(theirs))}"
    if len(theirs) > 1:
        return warn("version", f"replicas differ: {shown}", "finish the upgrade")
    if theirs and theirs != {own}:
        return warn("version", f"{shown}, and {own} here", "use the same here, to be sure that checks fit")
    return ok("version", shown)
