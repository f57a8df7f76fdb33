"""Probes and lifecycle hooks. Upstream: validateProbe, validateHandler, validateLifecycle."""

from __future__ import annotations

import re
from typing import Final

from clusterling.machinery.errors import forbidden_field, invalid_value, required
from clusterling.machinery.meta import Object
from clusterling.machinery.names import is_port_name, is_port_number
from clusterling.packs.core.podspec.rules import Problems, needs, non_negative, one_of

_PROBE_HANDLERS: Final = ("exec", "httpGet", "tcpSocket", "grpc")
_HOOK_HANDLERS: Final = ("exec", "httpGet", "tcpSocket", "sleep")
_COUNTS: Final = (
    "initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold",
)  # fmt: skip
_is_header = re.compile("[-A-Za-z0-9]+").fullmatch
_NO_HEADER: Final = (
    "a valid HTTP header must consist of alphanumeric characters or '-' "
    "(e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')"
)


def probe_problems(container: Object, path: str) -> Problems:
    """The three probes of a container; what sets them apart is when they may succeed and end it."""
    for field in ("livenessProbe", "readinessProbe", "startupProbe"):
        probe, here = container.get(field), f"{path}.{field}"
        if probe is None:
            continue
        yield from _handler_problems(probe, here, _PROBE_HANDLERS, None)
        yield from non_negative(probe, here, *_COUNTS)
        grace = probe.get("terminationGracePeriodSeconds")
        if grace is not None and grace <= 0:
            yield invalid_value(f"{here}.terminationGracePeriodSeconds", grace, "must be greater than 0")
        if field == "readinessProbe":
            if grace is not None:
                why = "must not be set for readinessProbes"
                yield invalid_value(f"{here}.terminationGracePeriodSeconds", grace, why)
        elif probe.get("successThreshold") != 1:
            yield invalid_value(f"{here}.successThreshold", probe.get("successThreshold", 0), "must be 1")


def lifecycle_problems(container: Object, path: str, grace: int | None) -> Problems:
    hooks = container.get("lifecycle") or {}
    for field in ("postStart", "preStop"):
        if hooks.get(field) is not None:
            yield from _handler_problems(hooks[field], f"{path}.lifecycle.{field}", _HOOK_HANDLERS, grace)


def _handler_problems(handler: Object, path: str, kinds: tuple[str, ...], grace: int | None) -> Problems:
    given = [kind for kind in kinds if handler.get(kind) is not None]
    if not given:
        yield required(path, "must specify a handler type")
        return
    first, *others = given
    yield from _ACTIONS[first](handler[first], f"{path}.{first}", grace)
    for kind in others:
        yield forbidden_field(f"{path}.{kind}", "may not specify more than 1 handler type")


def _exec_problems(action: Object, path: str, _grace: int | None) -> Problems:
    yield from needs(action, path, "command")


def _http_problems(action: Object, path: str, _grace: int | None) -> Problems:
    yield from needs(action, path, "path")
    yield from port_problems(action.get("port", 0), f"{path}.port")
    yield from one_of(action.get("scheme", ""), f"{path}.scheme", ("HTTP", "HTTPS"))
    for header in action.get("httpHeaders") or ():
        name = (header or {}).get("name") or ""
        if not _is_header(name):
            yield invalid_value(f"{path}.httpHeaders", name, _NO_HEADER)


def _tcp_problems(action: Object, path: str, _grace: int | None) -> Problems:
    yield from port_problems(action.get("port", 0), f"{path}.port")


def _grpc_problems(action: Object, path: str, _grace: int | None) -> Problems:
    yield from port_problems(action.get("port", 0), f"{path}.port")


def _sleep_problems(action: Object, path: str, grace: int | None) -> Problems:
    seconds = action.get("seconds", 0)
    if grace is not None and not 0 <= seconds <= grace:
        why = f"must be non-negative and less than terminationGracePeriodSeconds ({grace})"
        yield invalid_value(path, seconds, why)


_ACTIONS: Final = {
    "exec": _exec_problems,
    "httpGet": _http_problems,
    "tcpSocket": _tcp_problems,
    "grpc": _grpc_problems,
    "sleep": _sleep_problems,
}


def port_problems(port: int | str, path: str) -> Problems:
    """A port by its number or its name."""
    for problem in is_port_name(port) if isinstance(port, str) else is_port_number(port):
        yield invalid_value(path, port, problem)
