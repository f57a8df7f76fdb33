"""Addresses and node ports of services: each is a key of its own, and is taken by its being there.

A service and what it claims are written in one transaction: the key must not exist when it is claimed, and is removed
in the write that no longer needs it. So no two services of a cluster have the same, whatever replica wrote them; nothing
leaks when a process dies; and there is no bitmap for all writers to contend for: two that pick the same key by chance
look again. An address's key is its IPAddress object, a node port's is hidden.

Which are tried, and in what order: kubernetes pkg/registry/core/service/{ipallocator,portallocator}.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from ipaddress import ip_address
from itertools import chain
from typing import Final

import orjson

from clusterling.machinery import errors
from clusterling.machinery.addresses import IPV4, Address, Network, family, parse_cidr, parse_ip
from clusterling.machinery.codec import encode_stored
from clusterling.machinery.errors import ApiError, internal_error, invalid, invalid_value, too_many
from clusterling.machinery.meta import Object, meta, name_of, namespace_of, rfc3339
from clusterling.packs.core.services_shape import (
    LOAD_BALANCER,
    NO_ADDRESS,
    NODE_PORT,
    cluster_ips,
    families,
    gets_node_ports,
    has_type,
    held_addresses,
    held_ports,
    is_external_name,
    needs_health_check,
    node_ports,
    ports_of,
)
from clusterling.packs.networking.ipaddresses import IPADDRESSES, is_of_service, of_service
from clusterling.packs.networking.servicecidrs import CIDR, SERVER_ADDRESS, SERVICECIDRS, cidrs_of, is_ready
from clusterling.registry import owners
from clusterling.registry.options import ListOptions
from clusterling.registry.resource import Served
from clusterling.registry.strategy import Companions, Context
from clusterling.registry.uids import new_uid
from clusterling.storage.store import ABSENT, Op

NODE_PORTS: Final = range(30_000, 32_768)
# Of one service with its owners, and changed by one write: each is an operation of its transaction, beside the service
# itself, and its address with what depends on that.
CLAIMS_MAX: Final = 90
RANGES_MAX: Final = 500  # Of a cluster that are looked at for a free address.

_PORT_CLAIMS: Final = "~claims/nodeports/-/"
_ADDRESSES: Final = Served(IPADDRESSES, IPADDRESSES.version("v1"))
_RANGES: Final = Served(SERVICECIDRS, SERVICECIDRS.version("v1"))
_PROBES_MAX: Final = 65_536  # Keys that are looked at for a free one.
_PROBES_AT_ONCE: Final = 256  # Between two chances for others to run.
_ALLOCATED: Final = "provided {} is already allocated"
_random: Final = random.Random()


# ---------------------------------------------------------------------- what is free


async def _first_free(ctx: Context, keys: Iterator[str]) -> str | None:
    for tried, key in enumerate(keys):
        if tried >= _PROBES_MAX:
            break
        if not await _is_taken(ctx, key):
            return key
        if tried % _PROBES_AT_ONCE == _PROBES_AT_ONCE - 1:
            await asyncio.sleep(0)
    return None


async def _is_taken(ctx: Context, key: str) -> bool:
    if key == _SERVER_KEY and ctx.catalog.find(IPADDRESSES.group, "v1", IPADDRESSES.names.plural) is None:
        # The object that says so is not shown to a cluster without that kind.
        return True
    return await ctx.objects.fence(key) != 0


def _address_key(address: Address | str) -> str:
    return IPADDRESSES.key("", str(address))


_SERVER_KEY: Final = _address_key(SERVER_ADDRESS)


def _turned(of: range) -> Iterator[int]:
    """All of them, from one picked at random on."""
    if not of:
        return iter(())
    start = _random.randrange(len(of))
    return chain(of[start:], of[:start])


def _banded(of: range, *, low: int, high: int, step: int) -> Iterator[int]:
    """Those beyond the band that is best left to clients who ask for one by name, then the band (KEP-3070)."""
    band = min(max(low, len(of) // step), high) if len(of) > low else 0
    return chain(_turned(of[band:]), _turned(of[:band]))


# ---------------------------------------------------------------------- addresses


async def claim_addresses(ctx: Context, new: Object) -> None:
    """Gives a service the addresses that its families call for, or checks those it asks for. Raises ApiError 422, 500."""
    spec = new["spec"]
    ips = list(cluster_ips(spec))
    if is_external_name(spec) or ips[:1] == [NO_ADDRESS]:
        return
    ranges = await _ranges(ctx)
    for index in range(len(families(spec))):
        if index == len(ips):
            ips.append("")
        if ips[index]:
            await _check_address(ctx, new, ranges, ips[index])
        else:
            ips[index] = await _free_address(ctx, new, ranges)
    spec["clusterIPs"] = ips
    spec["clusterIP"] = ips[0]


async def _ranges(ctx: Context) -> list[Network]:
    if ctx.catalog.find(SERVICECIDRS.group, "v1", SERVICECIDRS.names.plural) is None:
        texts = [CIDR]
    else:
        listing = await ctx.objects.list(_RANGES, "", ListOptions(limit=RANGES_MAX))
        objects = map(orjson.loads, listing.values)
        texts = [text for obj in objects if is_ready(obj) for text in cidrs_of(obj)]
    parsed = (parse_cidr(text) for text in texts)
    return [network for network in parsed if network is not None and family(network) == IPV4]


def _hosts(network: Network) -> range:
    """The addresses that may be given, as numbers: neither the network's own nor its broadcast address."""
    first = int(network.network_address)
    return range(first + 1, first + network.num_addresses - 1)


async def _check_address(ctx: Context, new: Object, ranges: list[Network], text: str) -> None:
    address = parse_ip(text)
    assert address is not None, "addresses were settled before they are claimed"
    if not any(address.version == one.version and int(address) in _hosts(one) for one in ranges):
        why = "the provided network does not match the current range"
    elif not ctx.dry_run and await _is_taken(ctx, _address_key(address)):
        why = _ALLOCATED.format("IP")
    else:
        return
    wrong = invalid_value("spec.clusterIPs", cluster_ips(new["spec"]), f"failed to allocate IP {text}: {why}")
    raise invalid("Service", "", name_of(new), [wrong])


async def _free_address(ctx: Context, new: Object, ranges: list[Network]) -> str:
    if ctx.dry_run and ranges:
        # What upstream shows of an address that nobody is given.
        return str(ranges[0].network_address)
    for one in ranges:
        numbers = _banded(_hosts(one), low=16, high=256, step=16)
        key = await _first_free(ctx, (_address_key(ip_address(number)) for number in numbers))
        if key is not None:
            return key.rpartition("/")[2]
    named = errors.go_quote(name_of(new))
    raise internal_error(f"failed to allocate a serviceIP for Service {named}: range is full")


# ---------------------------------------------------------------------- node ports


class _Ports:
    """The node ports that one write claims, beside those that the service has."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._mine: list[int] = []

    async def take(self, port: int) -> str:
        """Claims that port; why it cannot be had, or ""."""
        if port not in NODE_PORTS:
            valid = f"{NODE_PORTS[0]}-{NODE_PORTS[-1]}"
            return f"provided port is not in the valid range. The range of valid ports is {valid}"
        if port in self._mine or await _is_taken(self._ctx, f"{_PORT_CLAIMS}{port}"):
            return _ALLOCATED.format("port")
        self._mine.append(port)
        return ""

    async def next(self) -> int:
        """Claims any port. Raises ValueError where there is none."""
        if self._ctx.dry_run:
            # Upstream's guess at what it would give.
            found = max(self._mine, default=NODE_PORTS.stop) + 1
        else:
            free = (port for port in _banded(NODE_PORTS, low=16, high=128, step=32) if port not in self._mine)
            key = await _first_free(self._ctx, (f"{_PORT_CLAIMS}{port}" for port in free))
            if key is None:
                raise ValueError("range is full")
            found = int(key.rpartition("/")[2])
        self._mine.append(found)
        return found


async def claim_ports(ctx: Context, new: Object, old: Object | None) -> None:
    """Gives a service the node ports that it needs, or checks those it asks for. Raises ApiError 422, 500."""
    spec, before = new["spec"], {} if old is None else old["spec"]
    ports = _Ports(ctx)
    if has_type(spec, NODE_PORT, LOAD_BALANCER):
        if len(ports_of(spec)) > CLAIMS_MAX and (gets_node_ports(spec) or node_ports(spec)):
            wrong = too_many("spec.ports", len(ports_of(spec)), CLAIMS_MAX)
            raise invalid("Service", "", name_of(new), [wrong])
        if old is None:
            await _first_ports(ports, new)
        else:
            await _further_ports(ports, new, node_ports(before))
    if needs_health_check(spec) and not needs_health_check(before):
        await _claim_health_port(ports, spec)


async def _first_ports(ports: _Ports, new: Object) -> None:
    """Of a service being created: one node port for all that have the same port, as UDP and TCP do."""
    spec = new["spec"]
    asked = {port["port"]: port["nodePort"] for port in reversed(ports_of(spec)) if port.get("nodePort")}
    given: dict[int, int] = {}
    for index, port in enumerate(ports_of(spec)):
        mine, number = port.get("nodePort", 0), port["port"]
        if not mine and not gets_node_ports(spec):
            continue
        if number not in given:
            wanted = asked.get(number, 0)
            if wanted:
                await _take(ports, new, index, wanted)
            given[number] = port["nodePort"] = wanted or await _next(ports)
        elif not mine:
            port["nodePort"] = given[number]
        elif mine != given[number]:
            await _take(ports, new, index, mine)


async def _further_ports(ports: _Ports, new: Object, had: list[int]) -> None:
    spec = new["spec"]
    taken: set[int] = set()
    seen: set[tuple[str, int]] = set()
    for index, port in enumerate(ports_of(spec)):
        mine = port.get("nodePort", 0)
        if not mine and not gets_node_ports(spec):
            continue
        if not mine:
            mine = port["nodePort"] = await _next(ports)
        elif mine not in had and mine not in taken:
            await _take(ports, new, index, mine)
            taken.add(mine)
        pair = (port["protocol"], mine)
        if pair in seen:
            raise ApiError(500, "", f"duplicate nodePort: {{{pair[0]} {pair[1]}}}")
        seen.add(pair)


async def _take(ports: _Ports, new: Object, index: int, port: int) -> None:
    why = await ports.take(port)
    if why:
        wrong = invalid_value(f"spec.ports[{index}].nodePort", port, why)
        raise invalid("Service", "", name_of(new), [wrong])


async def _next(ports: _Ports) -> int:
    try:
        return await ports.next()
    except ValueError as error:
        raise internal_error(f"failed to allocate a nodePort: {error}") from error


async def _claim_health_port(ports: _Ports, spec: Object) -> None:
    asked = spec.get("healthCheckNodePort", 0)
    if asked:
        why = await ports.take(asked)
        if why:
            raise internal_error(f"failed to allocate requested HealthCheck NodePort {asked}: {why}")
        return
    try:
        spec["healthCheckNodePort"] = await ports.next()
    except ValueError as error:
        raise internal_error(f"failed to allocate a HealthCheck NodePort 0: {error}") from error


# ---------------------------------------------------------------------- in the transaction


async def changes(ctx: Context, new: Object | None, old: Object | None) -> Companions:
    """What a write of a service claims and lets go; also what it ought to have and somebody has taken from it."""
    service = new if new is not None else old
    assert service is not None, "something is written or removed"
    ops = []
    after, before = held_addresses(new), held_addresses(old)
    for text, address in after.items():
        if text not in before or not await ctx.objects.fence(_address_key(text)):
            ops.append(_claim(ctx, address, service))
    for text in before:
        if text not in after:
            ops += await _release(ctx, text, service)
    ports, had = held_ports(new), held_ports(old)
    value = orjson.dumps({"service": f"{namespace_of(service)}/{name_of(service)}"})
    ops += [Op(f"{_PORT_CLAIMS}{port}", value, ABSENT) for port in sorted(ports - had)]
    for port in sorted(had - ports):
        key = f"{_PORT_CLAIMS}{port}"
        revision = await ctx.objects.fence(key)
        if revision:
            ops.append(Op(key, None, revision))
    if new is not None:
        _check_size(new, len(ops), _owners(new), _owners(old))
    return Companions(ops=tuple(ops))


def _owners(service: Object | None) -> set[str]:
    references = [] if service is None else meta(service).get("ownerReferences") or []
    return {one["uid"] for one in references}


def _check_size(new: Object, claims: int, owned_by: set[str], was_by: set[str]) -> None:
    """This write fits into a transaction, and so will the one that removes the service. Raises ApiError 422."""
    now, later = claims + len(owned_by ^ was_by), len(held_ports(new)) + len(owned_by)
    if max(now, later) > CLAIMS_MAX:
        wrong = too_many("spec.ports", max(now, later), CLAIMS_MAX)
        raise invalid("Service", "", name_of(new), [wrong])


def _claim(ctx: Context, address: Address, service: Object) -> Op:
    obj = of_service(address, namespace_of(service), name_of(service))
    obj["metadata"].update(uid=new_uid(), creationTimestamp=rfc3339(ctx.ports.clock.now()))
    return Op(_address_key(address), encode_stored(obj), ABSENT)


async def _release(ctx: Context, text: str, service: Object) -> list[Op]:
    """Deletes the IPAddress, or begins to where it has finalizers; another's is left alone."""
    obj = await ctx.objects.read(_ADDRESSES, "", text)
    if obj is None or not is_of_service(obj, namespace_of(service), name_of(service)):
        return []
    revision = int(meta(obj)["resourceVersion"])
    if meta(obj).get("finalizers"):
        meta(obj).setdefault("deletionTimestamp", rfc3339(ctx.ports.clock.now()))
        meta(obj).setdefault("deletionGracePeriodSeconds", 0)
        return [Op(_address_key(text), encode_stored(obj), revision)]
    return [Op(_address_key(text), None, revision), *owners.changes(IPADDRESSES, None, obj)]
