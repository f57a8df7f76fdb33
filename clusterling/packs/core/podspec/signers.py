"""Names of signers: a domain, a slash, a name. Upstream: ValidateSignerName in pkg/apis/core/validation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from clusterling.machinery.errors import go_quote, invalid_value, required, too_long
from clusterling.machinery.names import is_dns1123_label, is_dns1123_subdomain
from clusterling.packs.core.podspec.rules import Problems

_DOMAIN_BYTES_MAX: Final = 253
_SIGNER_BYTES_MAX: Final = 571


def signer_problems(name: str, path: str) -> Problems:
    """What is wrong with `example.com/signer`."""
    if not name:
        yield required(path)
        return
    domain, slash, rest = name.partition("/")
    if not slash or "/" in rest:
        why = "must be a fully qualified domain and path of the form 'example.com/signer-name'"
        yield invalid_value(path, name, why)
        return
    if len(domain.encode()) > _DOMAIN_BYTES_MAX:
        yield too_long(path, _DOMAIN_BYTES_MAX)
    yield from _first_wrong(domain, path, is_dns1123_label)
    if "." not in domain:
        yield invalid_value(path, domain, "should be a domain with at least two segments separated by dots")
    yield from _first_wrong(rest, path, is_dns1123_subdomain)
    if len(name.encode()) > _SIGNER_BYTES_MAX:
        yield too_long(path, _SIGNER_BYTES_MAX)


def _first_wrong(segment: str, path: str, rule: Callable[[str], Sequence[str]]) -> Problems:
    for label in segment.split("."):
        problems = rule(label)
        if problems:
            for problem in problems:
                yield invalid_value(path, segment, f"validating label {go_quote(label)}: {problem}")
            return
