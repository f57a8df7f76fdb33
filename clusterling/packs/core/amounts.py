"""ResourceLists: amounts by resource name, as quotas and limit ranges add, compare and print them; and what a pod asks for.

Upstream: apiserver pkg/quota/v1/resources.go, component-helpers/resource/helpers.go.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

from clusterling.machinery.meta import Object
from clusterling.machinery.quantity import Quantity

Amounts = dict[str, Quantity]

ZERO: Final = Quantity(0)
ONE: Final = Quantity(1)
# What a pod may ask for as a whole, besides huge pages.
_POD_LEVEL: Final = ("cpu", "memory")


def read(texts: Mapping[str, str] | None) -> Amounts:
    """The amounts of a ResourceList that was validated when it was written."""
    return {name: Quantity.parse(text) for name, text in (texts or {}).items()}


def written(amounts: Mapping[str, Quantity]) -> dict[str, str]:
    """As they are stored: canonical, by name."""
    return {name: amounts[name].canonical for name in sorted(amounts)}


def add(into: Amounts, more: Mapping[str, Quantity]) -> None:
    for name, amount in more.items():
        into[name] = into[name] + amount if name in into else amount


def raise_to(into: Amounts, other: Mapping[str, Quantity]) -> None:
    """Each amount becomes the greater of both."""
    for name, amount in other.items():
        if name not in into or amount > into[name]:
            into[name] = amount


def difference(new: Mapping[str, Quantity], old: Mapping[str, Quantity]) -> Amounts:
    """What `new` has more than `old`, or less; what does not change is not in it."""
    found = {name: new.get(name, ZERO) - old.get(name, ZERO) for name in new.keys() | old.keys()}
    return {name: amount for name, amount in found.items() if amount != ZERO}


def only(amounts: Mapping[str, Quantity], names: Collection[str]) -> Amounts:
    return {name: amount for name, amount in amounts.items() if name in names}


def listed(amounts: Mapping[str, Quantity]) -> str:
    """For people: `cpu=1,memory=1Gi`."""
    return ",".join(f"{name}={amounts[name].canonical}" for name in sorted(amounts))


def count(number: int) -> Quantity:
    return Quantity(number)


def rounded_up(amount: Quantity) -> Quantity:
    """To whole units, as storage is counted."""
    whole = Quantity(amount.rounded_up(), 0, amount.format)
    return amount if whole == amount else whole


# ---------------------------------------------------------------------- pods


def pod_requests(pod: Object, *, with_status: bool = True) -> Amounts:
    """What the pod requests in all; `with_status`: the most of that, what its node gave it and what it uses."""
    specified = _aggregated(pod, lambda one, _: (one.get("resources") or {}).get("requests"))
    found: Amounts = specified
    if with_status:
        given = _aggregated(pod, _allocated)
        used = _aggregated(pod, _actuated("requests"))
        found = {} if _is_infeasible(pod) else specified
        raise_to(found, given)
        raise_to(found, used)
    _apply_pod_level(found, pod, "requests")
    if with_status:
        add(found, read(pod["spec"].get("overhead")))
    return found


def pod_limits(pod: Object, *, with_status: bool = True) -> Amounts:
    """What the pod is limited to in all; its overhead counts where there is a limit."""
    found = _aggregated(pod, lambda one, _: (one.get("resources") or {}).get("limits"))
    if with_status:
        used = _aggregated(pod, _actuated("limits"))
        found = {} if _is_infeasible(pod) else found
        raise_to(found, used)
    _apply_pod_level(found, pod, "limits")
    if with_status:
        overhead = read(pod["spec"].get("overhead"))
        add(found, {name: amount for name, amount in overhead.items() if found.get(name, ZERO) != ZERO})
    return found


def has_pod_level(pod: Object) -> bool:
    """The pod asks for resources as a whole."""
    whole = pod["spec"].get("resources") or {}
    return any(_is_pod_level(name) for field in ("requests", "limits") for name in whole.get(field) or ())


def _is_pod_level(name: str) -> bool:
    return name in _POD_LEVEL or name.startswith("hugepages-")


def _apply_pod_level(found: Amounts, pod: Object, field: str) -> None:
    whole = read((pod["spec"].get("resources") or {}).get(field))
    found.update({name: amount for name, amount in whole.items() if _is_pod_level(name)})


_Part = Callable[[Object, "Object | None"], "Mapping[str, str] | None"]


def _aggregated(pod: Object, part: _Part) -> Amounts:
    """The sum of containers and sidecars, or what initialising takes where that is more."""
    spec, statuses = pod["spec"], _statuses(pod)
    found: Amounts = {}
    for container in spec.get("containers") or ():
        add(found, read(part(container, statuses.get(container.get("name", "")))))
    sidecars: Amounts = {}
    initialising: Amounts = {}
    for container in spec.get("initContainers") or ():
        asked = read(part(container, statuses.get(container.get("name", ""))))
        if container.get("restartPolicy") == "Always":
            add(found, asked)
            add(sidecars, asked)
            raise_to(initialising, sidecars)
        else:
            add(asked, sidecars)
            raise_to(initialising, asked)
    raise_to(found, initialising)
    return found


def _statuses(pod: Object) -> dict[str, Object]:
    status = pod.get("status") or {}
    both = (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ()))
    return {one.get("name", ""): one for one in both}


def _allocated(container: Object, status: Object | None) -> Mapping[str, str] | None:
    given: Mapping[str, str] | None = (status or {}).get("allocatedResources")
    return (container.get("resources") or {}).get("requests") if given is None else given


def _actuated(field: str) -> _Part:
    def part(container: Object, status: Object | None) -> Mapping[str, str] | None:
        used: Mapping[str, str] | None = ((status or {}).get("resources") or {}).get(field)
        if used is not None:
            return used
        if field == "requests":
            return _allocated(container, status)
        limits: Mapping[str, str] | None = (container.get("resources") or {}).get(field)
        return limits

    return part


def _is_infeasible(pod: Object) -> bool:
    """The node will never give what was asked for last. Upstream: IsPodResizeInfeasible."""
    conditions: Iterable[Object] = (pod.get("status") or {}).get("conditions") or ()
    return any(
        one.get("type") == "PodResizePending" and one.get("reason") == "Infeasible" for one in conditions
    )
