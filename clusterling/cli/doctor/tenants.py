"""What the logical clusters of a server say: whether the credential lets in, which are stuck, full, ending, and whose tokens end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from clusterling.cli.doctor.finding import Finding, fail, ok, shown_age, warn
from clusterling.cli.errors import CliError
from clusterling.cli.remote import Admin
from clusterling.machinery.meta import Object, name_of

STUCK_S: Final = 600.0
NEAR: Final = 0.9
NAMED_MAX: Final = 5
TOKENS_OF_MAX: Final = 500  # Clusters whose tokens are looked at,
TOKENS_S: Final = 20.0  # for so long at most.
WEEK_S: Final = 7 * 86_400.0


def checks(admin: Admin) -> Iterator[Finding]:
    """What an administrator of `root` is told."""
    try:
        clusters = admin.list()["items"]
    except CliError as error:
        yield fail("credentials", error.message, error.hint or "use a kubeconfig of `root`")
        return
    yield ok("credentials", f"an administrator's; {len(clusters)} logical clusters")
    yield _stuck(clusters)
    yield from _quotas(clusters)
    yield from _ending(clusters)
    yield _tokens(admin, [one for one in clusters if not one["metadata"].get("deletionTimestamp")])


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
    return ", ".join(names[:NAMED_MAX]) + more


def _age_s(time_text: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(time_text)).total_seconds()


def _stuck(clusters: Sequence[Object]) -> Finding:
    going = [one for one in clusters if one["metadata"].get("deletionTimestamp")]
    stuck = [name_of(one) for one in going if _age_s(one["metadata"]["deletionTimestamp"]) > STUCK_S]
    if stuck:
        remedy = "see who has a finalizer there, and whether a replica leads: clusterling get NAME -o yaml"
        return warn("deletions", f"not done after {shown_age(STUCK_S)}: {_named(stuck)}", remedy)
    return ok("deletions", f"{len(going)} under way" if going else "none under way")


def _quotas(clusters: Sequence[Object]) -> Iterator[Finding]:
    full, near, limited = [], [], 0
    for one in clusters:
        quota = one.get("status", {}).get("quota") or {}
        hard, used = quota.get("hard") or {}, quota.get("used") or {}
        limited += bool(hard)
        parts = [(used.get(name, 0) / max(most, 1), name) for name, most in hard.items()]
        part, name = max(parts, default=(0.0, ""))
        if part >= 1:
            full.append(f"{name_of(one)} ({name})")
        elif part >= NEAR:
            near.append(f"{name_of(one)} ({name} {part:.0%})")
    remedy = "ask the tenant what can go, or raise the limit: clusterling quota NAME set LIMIT=QUANTITY"
    if full:
        yield warn("quotas", f"reached: {_named(full)}", remedy)
    if near:
        yield warn("quotas", f"nearly reached: {_named(near)}", remedy)
    if not full and not near:
        yield ok(
            "quotas", f"none of {limited} near a limit" if limited else "no cluster has one that it uses"
        )


def _ending(clusters: Sequence[Object]) -> Iterator[Finding]:
    ending = [
        name_of(one)
        for one in clusters
        if any(
            condition["type"] == "Expiring" and condition["status"] == "True"
            for condition in one.get("status", {}).get("conditions") or ()
        )
    ]
    if ending:
        remedy = "who needs them on: clusterling renew NAME"
        yield warn("lifetimes", f"deleted soon: {_named(ending)}", remedy)


def _tokens(admin: Admin, clusters: Sequence[Object]) -> Finding:
    """Tokens that were made for long and end soon; what is made for hours is renewed by whoever made it so."""
    ending: list[tuple[float, str]] = []
    looked = 0
    until = time.monotonic() + TOKENS_S
    for one in clusters[:TOKENS_OF_MAX]:
        if time.monotonic() > until:
            break
        try:
            tokens = admin.tokens(name_of(one))["items"]
        except CliError:
            continue  # It is gone by now.
        looked += 1
        for token in tokens:
            end = token.get("status", {}).get("expirationTimestamp")
            if end is None:
                continue
            left, age = -_age_s(end), _age_s(token["metadata"]["creationTimestamp"])
            if left < min(WEEK_S, (left + age) / 5) and left + age >= WEEK_S:
                ending.append((left, f"{name_of(one)}/{name_of(token)} ({shown_age(left)})"))
    of = f"of {looked} clusters" if looked == len(clusters) else f"of {looked} of {len(clusters)} clusters"
    if ending:
        remedy = "have whoever uses it rotate it: clusterling token rotate CLUSTER NAME"
        return warn("tokens", f"{of} end soon: {_named([text for _, text in sorted(ending)])}", remedy)
    return ok("tokens", f"{of}: none ends soon")
