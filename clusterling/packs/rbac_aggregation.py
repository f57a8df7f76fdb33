"""Aggregated cluster roles: the rules of a role with an aggregationRule are those of the roles that its selectors match.

Such roles may build on one another (view, edit, admin), so what they come to is found in rounds, until nothing changes.
Upstream: kubernetes pkg/controller/clusterroleaggregation, which writes after each round and is called again by that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import orjson

from clusterling.machinery.meta import Object
from clusterling.machinery.selectors import LabelSelector

ROUNDS_MAX: Final = 16  # Longer chains than that, and circles that do not come to rest, are left as they are.
SELECTORS_MAX: Final = 2_000  # Of all the roles of a cluster.
MATCHES_MAX: Final = 200_000  # Of a selector and a role.
RULES_MAX: Final = 200_000  # Put together for one cluster.


class Unsettled(Exception):
    """It would cost too much. The message says why."""


class Aggregation:
    """The roles of one cluster that are aggregated, and what they are made of.

    `add` each role once, then run `settle` to its end: it yields now and then, to let others have their turn.
    """

    def __init__(self, aggregated: Iterable[Object]) -> None:
        """`aggregated`: the roles with an aggregationRule. Raises Unsettled, and ValueError where a selector is none."""
        self._roles = {_name(role): role for role in sorted(aggregated, key=_name)}
        count = sum(len(role["aggregationRule"]["clusterRoleSelectors"]) for role in self._roles.values())
        if count > SELECTORS_MAX:
            raise Unsettled("too many selectors")
        self._selectors = {
            name: [LabelSelector.from_object(one) for one in role["aggregationRule"]["clusterRoleSelectors"]]
            for name, role in self._roles.items()
        }
        # By role and selector, the names of those that it matches.
        self._matched: dict[tuple[str, int], list[str]] = {}
        self._rules = {name: _keyed(role) for name, role in self._roles.items()}
        self._matches = 0
        # What would go on changing: made of one another, or at the end of a long chain.
        self.restless: frozenset[str] = frozenset()

    def add(self, role: Object) -> None:
        """Takes a role into account that some selector may match. Raises Unsettled."""
        name: str = _name(role)
        labels: Mapping[str, str] = role["metadata"].get("labels") or {}
        for aggregated, selectors in self._selectors.items():
            self._matches += len(selectors)
            if self._matches > MATCHES_MAX:
                raise Unsettled("too many selectors for so many roles")
            for index, selector in enumerate(selectors):
                if aggregated != name and selector.matches(labels):
                    self._matched.setdefault((aggregated, index), []).append(name)
                    self._rules.setdefault(name, _keyed(role))

    def settle(self) -> Iterator[None]:
        """Works out what the roles come to. Raises Unsettled."""
        together = 0
        for names in self._matched.values():
            names.sort()
        for _ in range(ROUNDS_MAX):
            moved = set()
            for name in self._roles:
                rules = self._union(name)
                together += len(rules)
                if together > RULES_MAX:
                    raise Unsettled("too many rules")
                if list(rules) != list(self._rules[name]):
                    moved.add(name)
                self._rules[name] = rules
                yield
            self.restless = frozenset(moved)
            if not moved:
                return

    def changed(self) -> Iterator[tuple[str, Sequence[Object]]]:
        """The names of the roles whose rules are others than they say, with those rules: of all but the restless."""
        for name, role in self._roles.items():
            rules = list(self._rules[name].values())
            if name not in self.restless and rules != (role.get("rules") or []):
                yield name, rules

    def _union(self, name: str) -> dict[bytes, Object]:
        """Each rule once, by selector and then by name."""
        found: dict[bytes, Object] = {}
        for index in range(len(self._selectors[name])):
            for one in self._matched.get((name, index), ()):
                for key, rule in self._rules[one].items():
                    found.setdefault(key, rule)
        return found


def settled(roles: Sequence[Object]) -> list[Object]:
    """The roles with the rules that the aggregated ones among them come to. For few, and trusted ones."""
    aggregation = Aggregation(role for role in roles if role.get("aggregationRule"))
    for role in roles:
        aggregation.add(role)
    for _ in aggregation.settle():
        pass
    rules: Mapping[str, Sequence[Object]] = dict(aggregation.changed())
    return [{**role, "rules": rules[_name(role)]} if _name(role) in rules else role for role in roles]


def _name(role: Object) -> str:
    return str(role["metadata"]["name"])


def _keyed(role: Object) -> dict[bytes, Object]:
    return {orjson.dumps(rule, option=orjson.OPT_SORT_KEYS): rule for rule in role.get("rules") or ()}
