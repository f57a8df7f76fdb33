"""Where a Go module's sources are on this machine, fetched by the Go client where they are not."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path


class ModuleMissing(Exception):
    """The module cannot be had: Go is not installed, or it cannot reach a module proxy."""


def directory(module: str, version: str) -> Path:
    """The directory of `module@version` in the module cache. Raises ModuleMissing."""
    try:
        answer = subprocess.run(
            ["go", "mod", "download", "-json", f"{module}@{version}"],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
        )
    except FileNotFoundError as error:
        raise ModuleMissing("Go is not installed") from error
    found = json.loads(answer.stdout or "{}")
    if "Dir" not in found:
        raise ModuleMissing(found.get("Error") or answer.stderr.strip() or f"no {module}@{version}")
    return Path(found["Dir"])
