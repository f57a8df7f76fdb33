"""Correlated: a value of an update beside its old value, found through the schema.

Upstream: apiserver `pkg/cel/common/equality.go` and `maplist.go`. Fields correlate by name, items of a list of
type map by their keys, items of other lists not at all; what does not correlate counts as changed.
"""

from __future__ import annotations

from clusterling.machinery.schema.node import Node


class Correlated:
    """`item` and `child` are None where the old object has no counterpart."""

    __slots__ = ("_by_key", "_children", "_unchanged", "new", "node", "old")

    def __init__(self, node: Node, new: object, old: object) -> None:
        self.node = node
        self.new = new
        self.old = old
        self._unchanged: bool | None = None
        self._children: dict[str | int, Correlated] = {}
        self._by_key: dict[tuple[object, ...], object] | None = None

    def child(self, name: str) -> Correlated | None:
        known = self._children.get(name)
        if known is not None:
            return known
        if not isinstance(self.old, dict) or not isinstance(self.new, dict):
            return None
        if name not in self.old or name not in self.new:
            return None
        node = self.node.properties.get(name) or self.node.additional
        if node is None:
            return None
        made = self._children[name] = Correlated(node, self.new[name], self.old[name])
        return made

    def item(self, at: int) -> Correlated | None:
        known = self._children.get(at)
        if known is not None:
            return known
        if not isinstance(self.old, list) or not isinstance(self.new, list) or self.node.list_type != "map":
            return None
        if self._by_key is None:
            self._by_key = {}
            for one in self.old:
                key = self._key(one)
                if key is not None:
                    self._by_key.setdefault(key, one)
        key = self._key(self.new[at])
        counterpart = None if key is None else self._by_key.get(key)
        if counterpart is None or self.node.items is None:
            return None
        made = self._children[at] = Correlated(self.node.items, self.new[at], counterpart)
        return made

    def _key(self, item: object) -> tuple[object, ...] | None:
        if not isinstance(item, dict):
            return None
        key: list[object] = []
        for name in self.node.map_keys:
            value = item.get(name)
            if value is None or isinstance(value, dict | list):
                return None
            key += (type(value), value)
        return tuple(key)

    def unchanged(self) -> bool:
        if self._unchanged is None:
            self._unchanged = self._compare()
        return self._unchanged

    def _compare(self) -> bool:
        new, old = self.new, self.old
        if isinstance(new, dict) and isinstance(old, dict):
            if len(new) != len(old):
                return False
            children = [self.child(name) for name in new]
            return all(child is not None and child.unchanged() for child in children)
        if isinstance(new, list) and isinstance(old, list):
            if len(new) != len(old):
                return False
            if self.node.list_type != "map":
                return json_equal(new, old)
            items = [self.item(at) for at in range(len(new))]
            return all(item is not None and item.unchanged() for item in items)
        return json_equal(new, old)


def json_equal(a: object, b: object) -> bool:
    """Equal as Go's reflect.DeepEqual sees decoded JSON: 1, 1.0 and true are three values."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(json_equal(item, b[name]) for name, item in a.items())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(json_equal, a, b))
    return a == b
