"""Server-side apply, as pure functions over decoded JSON: field sets, types read from schemas, owners, managedFields.

    types.object_type(schema.node)      how objects of a kind are merged
    owners.update, owners.apply         what a write makes of an object and of who owns its fields
    managed.track, managed.apply        the same, with owners kept as metadata.managedFields

Upstream: KEP-555, sigs.k8s.io/structured-merge-diff.
"""
