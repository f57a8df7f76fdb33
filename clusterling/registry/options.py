"""What a request may ask of a verb, parsed and checked once, at the edge.

Upstream: apimachinery/pkg/apis/meta/v1/types.go (ListOptions, DeleteOptions, …) and its validation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from clusterling.machinery.selectors import FieldSelector, LabelSelector

Match = Literal["", "Exact", "NotOlderThan"]
# Unknown fields are told by their place in the body, those given twice among them; or, behind these, by their keys, as of
# a document whose maps have been sorted on the way (YAML, merge patches), or by the text (strategic patches).
ToldBy = Literal["place", "keys", "text"]
FieldValidation = Literal["Ignore", "Warn", "Strict"]
Propagation = Literal["", "Orphan", "Background", "Foreground"]


@dataclass(frozen=True, slots=True)
class ListOptions:
    """`resource_version` is the client's text: "" is the most recent, "0" anything; `limit` 0 or below is all."""

    label_selector: LabelSelector | None = None
    field_selector: FieldSelector | None = None
    resource_version: str = ""
    resource_version_match: Match = ""
    limit: int = 0
    continue_token: str = ""


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """`send_initial_events` None: the client did not say."""

    label_selector: LabelSelector | None = None
    field_selector: FieldSelector | None = None
    resource_version: str = ""
    resource_version_match: Match = ""
    send_initial_events: bool | None = None
    bookmarks: bool = False


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """`duplicates`: fields given twice, found while decoding (`duplicate field "spec.x"`); field validation judges them.

    `told_by`: the order in which unknown fields are told (`ToldBy`).
    `field_manager`: who owns what is written; "" is the server itself, which is not told of in managedFields.
    `written_as`: the subresource that managedFields tell of, where it is not the one that is written (a scale writes
    the object). `force`: an apply takes fields from their owners.
    """

    dry_run: bool = False
    field_manager: str = ""
    field_validation: FieldValidation = "Warn"
    duplicates: tuple[str, ...] = ()
    told_by: ToldBy = "place"
    written_as: str = ""
    force: bool = False


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """Preconditions are "" where the client set none. `grace_period_s` None: the kind's default."""

    dry_run: bool = False
    uid: str = ""
    resource_version: str = ""
    propagation: Propagation = ""
    grace_period_s: int | None = None
