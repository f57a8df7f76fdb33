"""Values as messages show them: by the names of Go's structs."""

from __future__ import annotations

from clusterling.packs.core.podspec.internal import as_internal, difference, fields_set, same


def test_a_struct_tells_every_field_in_order_with_zeros_for_what_is_absent() -> None:
    shown = as_internal("Toleration", {"operator": "Exists", "key": "a"})
    assert list(shown.items()) == [
        ("Key", "a"), ("Operator", "Exists"), ("Value", ""), ("Effect", ""), ("TolerationSeconds", None),
    ]  # fmt: skip


def test_lists_and_maps_that_are_not_given_are_told_as_null() -> None:
    assert as_internal("ResourceRequirements", {"limits": {}}) == {
        "Limits": {}, "Requests": None, "Claims": None,
    }  # fmt: skip


def test_types_of_other_packages_keep_their_json_names() -> None:
    selector = {"matchExpressions": [], "matchLabels": {"a": "b"}}
    assert as_internal("*LabelSelector", selector) == {"matchLabels": {"a": "b"}}


def test_a_metadata_block_is_told_among_the_fields_and_without_what_is_empty() -> None:
    shown = as_internal("PersistentVolumeClaim", {"metadata": {"name": "a", "labels": {}}})
    assert list(shown)[:3] == ["name", "Spec", "Status"]


def test_a_pointer_to_nothing_much_is_set_and_a_value_of_zero_is_not() -> None:
    container = {"name": "c", "restartPolicy": "", "stdin": False, "tty": True, "resources": {}}
    assert list(fields_set("EphemeralContainer", container)) == ["name", "restartPolicy", "tTY"]


def test_a_difference_is_a_unified_diff_with_three_lines_around() -> None:
    told = difference("Toleration", {"key": "a"}, {"key": "b"})
    assert told == (
        '@@ -1,5 +1,5 @@\n {\n- "Key": "a",\n+ "Key": "b",\n  "Operator": "",\n  "Value": "",\n  "Effect": "",\n'
    )


def test_what_differs_nowhere_has_no_difference() -> None:
    assert difference("Toleration", {"key": "a"}, {"key": "a"}) == "\n"


def test_a_difference_of_very_many_lines_is_cut() -> None:
    many = {"nameservers": [f"a{n}" for n in range(3000)]}, {"nameservers": [f"b{n}" for n in range(3000)]}
    told = difference("PodDNSConfig", *many)
    assert '"a499"' in told
    assert '"a500"' not in told


def test_what_is_empty_is_as_good_as_absent() -> None:
    assert same({"a": 1, "b": [], "c": {"d": ""}}, {"a": 1})
    assert not same({"a": [1]}, {"a": [2]})
