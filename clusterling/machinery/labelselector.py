"""What is wrong with a metav1.LabelSelector or one of its requirements, in upstream's words.

Upstream: apimachinery pkg/apis/meta/v1/validation. What a selector selects is `selectors.py`.
"""

from __future__ import annotations

from typing import Final

from clusterling.machinery.errors import FieldError, forbidden_field, invalid_value, required
from clusterling.machinery.meta import Object
from clusterling.machinery.names import is_label_value, is_qualified_name
from clusterling.machinery.objectmeta import validate_labels

_OF_VALUES: Final = ("In", "NotIn")
_OF_PRESENCE: Final = ("Exists", "DoesNotExist")


def label_selector_problems(
    selector: Object | None, path: str, *, any_value: bool = False
) -> list[FieldError]:
    """What is wrong with a selector; nothing where there is none. `any_value`: values need not be those of labels."""
    if not selector:
        return []
    found = validate_labels(selector.get("matchLabels") or {}, f"{path}.matchLabels")
    for index, one in enumerate(selector.get("matchExpressions") or ()):
        found += label_requirement_problems(one, f"{path}.matchExpressions[{index}]", any_value=any_value)
    return found


def label_requirement_problems(
    requirement: Object, path: str, *, any_operator: bool = False, any_value: bool = False
) -> list[FieldError]:
    """The same of one requirement. `any_operator`: one that is not known is let through."""
    key, values = requirement.get("key", ""), requirement.get("values") or ()
    found = operator_problems(requirement, path, any_operator=any_operator)
    found += [invalid_value(f"{path}.key", key, problem) for problem in is_qualified_name(key)]
    if not any_value:
        found += [
            invalid_value(f"{path}.values[{index}]", value, problem)
            for index, value in enumerate(values)
            for problem in is_label_value(value)
        ]
    return found


def operator_problems(requirement: Object, path: str, *, any_operator: bool = False) -> list[FieldError]:
    """An operator of four, and as many values as go with it."""
    operator, values = requirement.get("operator", ""), requirement.get("values")
    if operator in _OF_VALUES:
        why = "must be specified when `operator` is 'In' or 'NotIn'"
        return [] if values else [required(f"{path}.values", why)]
    if operator in _OF_PRESENCE:
        why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
        return [forbidden_field(f"{path}.values", why)] if values else []
    return (
        [] if any_operator else [invalid_value(f"{path}.operator", operator, "not a valid selector operator")]
    )
