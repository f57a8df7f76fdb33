"""What the compiled data of built-in kinds cost: bytes in the wheel, and milliseconds to load each group at first use.

    python -m benchmarks.data

Loading is reading, unpacking and parsing a package's schemas, protobuf table and markers; best of several, files in the
page cache. Targets: 600 KB in all, 5 ms a group.
"""

from __future__ import annotations

import time
from pathlib import Path

from clusterling.packs import builtin

RUNS = 5
BYTES_MAX = 600_000
LOAD_MS_MAX = 5.0

DATA = Path(builtin.__file__).parent / "data"


def files() -> list[Path]:
    """What the wheel carries: descriptions are made where somebody wants them."""
    return [path for path in DATA.rglob("*.zlib") if path.name != "descriptions.json.zlib"]


def load_ms(package: str) -> float:
    """The best of several loads of one package, by its name in OpenAPI."""
    # What OpenAPI calls io.k8s.api.core.v1 is k8s.io.api.core.v1 in protobuf.
    named = f"k8s.io.{package.removeprefix('io.k8s.')}".replace("-", "_")
    names = (f"schemas/{package}.zlib", f"markers/{package}.zlib", f"protobuf/{named}.zlib")
    present = [name for name in names if (DATA / name).is_file()]
    took = []
    for _ in range(RUNS):
        began = time.perf_counter()
        for name in present:
            builtin.read(name)
        took.append((time.perf_counter() - began) * 1000)
    return min(took)


def main() -> int:
    found = files()
    total = sum(path.stat().st_size for path in found)
    slowest = 0.0
    for package in sorted(path.stem for path in found if path.parent.name == "schemas"):
        took = load_ms(package)
        slowest = max(slowest, took)
        print(f"{package:60} {took:6.2f} ms")
    print(f"{len(found)} files, {total / 1000:.0f} KB of {BYTES_MAX / 1000:.0f}")
    print(f"slowest {slowest:.2f} ms of {LOAD_MS_MAX:.0f}")
    return int(total > BYTES_MAX or slowest > LOAD_MS_MAX)


if __name__ == "__main__":
    raise SystemExit(main())
