"""Entries in order, and cuts of them."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from clusterling.storage import ordered
from clusterling.storage.ordered import Cut, Ordered
from clusterling.storage.store import Entry


def entry(key: str, revision: int) -> Entry:
    return Entry(key, b"{}", revision)


@pytest.mark.parametrize("seed", range(20))
def test_it_holds_what_a_sorted_dictionary_holds_and_a_cut_what_there_was(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(ordered, "BLOCK_MAX", chance.choice((2, 3, 8)))
    monkeypatch.setattr(ordered, "COPIED_MAX", chance.choice((0, 4)))
    keys = [f"{namespace}/{number}" for namespace in "abc" for number in range(12)]
    model: dict[str, Entry] = {key: entry(key, 0) for key in sorted(chance.sample(keys, 20))}
    tried = Ordered()
    tried.extend([model[key] for key in sorted(model)][:7])
    tried.extend([model[key] for key in sorted(model)][7:])
    cuts: list[tuple[Sequence[Entry], list[Entry]]] = []
    for revision in range(1, 300):
        key = chance.choice(keys)
        if chance.random() < 0.6:
            model[key] = entry(key, revision)
            tried.put(model[key])
        elif key in model:
            tried.remove(key)
            del model[key]
        if revision % 100 == 0:
            gone = tried.remove_between(tried.before("b/"), tried.before("b0"))
            assert {one.key for one in gone} == {key for key in model if key.startswith("b/")}
            model = {key: one for key, one in model.items() if not key.startswith("b/")}
        low, high = sorted(chance.sample(keys, 2))
        limit = chance.choice((0, 0, 1, 5))
        wanted = [model[key] for key in sorted(model) if low < key < high]
        assert tried.count(tried.after(low), tried.before(high)) == len(wanted)
        cut = tried.cut(tried.after(low), tried.before(high), limit)
        cuts.append((cut, wanted[:limit] if limit else wanted))
    for cut, wanted in cuts:
        assert list(cut) == wanted
        assert [cut[at] for at in range(-len(wanted), len(wanted))] == wanted * 2
        assert list(cut[1:3]) == wanted[1:3]
        assert len(cut) == len(wanted)
    assert list(tried.cut(tried.start(), tried.end())) == [model[key] for key in sorted(model)]


def test_a_cut_of_many_holds_none_of_them_itself_and_what_is_written_then_costs_one_block() -> None:
    tried = Ordered()
    entries = [entry(f"k{number:06}", 1) for number in range(100_000)]
    tried.extend(entries)
    cut = tried.cut(tried.start(), tried.end())
    assert isinstance(cut, Cut)
    before = list(tried._blocks)
    tried.put(entry("k050000", 2))
    tried.put(entry("k050001", 2))
    copied = [one for one, other in zip(before, tried._blocks, strict=True) if one is not other]
    assert len(copied) == 1
    assert list(cut) == entries


def test_an_index_beyond_a_cut_is_an_error() -> None:
    tried = Ordered()
    tried.extend([entry(f"{number:04}", 1) for number in range(1000)])
    cut = tried.cut(tried.start(), tried.end())
    with pytest.raises(IndexError):
        cut[1000]
