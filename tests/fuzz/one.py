"""One target under atheris: `python -m tests.fuzz.one TARGET MEMORY OUT [libFuzzer's arguments]`."""

from __future__ import annotations

import hashlib
import os
import resource
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["clusterling"]):
    from tests.fuzz.targets import Target, load

    TARGETS = load()


def _keeping(target: Target, out: Path) -> Callable[[bytes], None]:
    """The target, which keeps the input it fails for: libFuzzer's own way is not always taken."""

    def run(data: bytes) -> None:
        try:
            target.run(data)
        except BaseException:  # noqa: BLE001 - whatever it is, it is what was looked for
            kept = out / f"{target.name}-failed-{hashlib.sha256(data).hexdigest()[:16]}"
            kept.write_bytes(data)
            traceback.print_exc()
            print(f"kept as {kept}", file=sys.stderr, flush=True)
            os._exit(1)

    return run


def main() -> None:
    name, memory, out, *rest = sys.argv[1:]
    # libFuzzer looks at the memory that is used once a second; this ends what takes all of it at once.
    resource.setrlimit(resource.RLIMIT_AS, (2 * int(memory), 2 * int(memory)))
    atheris.Setup([sys.argv[0], *rest], _keeping(TARGETS[name], Path(out)))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
