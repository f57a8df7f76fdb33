"""etcd's messages, as etcd3aio has them compiled; nothing else of that package is imported, for its client brings grpc.

They are loaded from the folder that etcd3aio itself puts on the path (`etcd3aio._protobuf`), in its order: a file's messages can
be made only when those that it uses have been.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

_FILES: Final = (
    "google.api.http_pb2",
    "google.api.annotations_pb2",
    "protoc_gen_openapiv2.options.openapiv2_pb2",
    "protoc_gen_openapiv2.options.annotations_pb2",
    "etcd.api.mvccpb.kv_pb2",
    "etcd.api.authpb.auth_pb2",
    "etcd.api.versionpb.version_pb2",
)


def _loaded() -> Any:
    found = find_spec("etcd3aio")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("No module named 'etcd3aio'", name="etcd3aio")
    folder = str(Path(found.origin).parent / "proto")
    if folder not in sys.path:
        sys.path.insert(0, folder)  # As etcd3aio does: before another package that calls itself etcd.
    for name in _FILES:
        import_module(name)
    return import_module("etcd.api.etcdserverpb.rpc_pb2")


rpc: Final[Any] = _loaded()
