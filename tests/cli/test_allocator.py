"""Where the server's memory comes from, and that small things that stay do not keep what was around them."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from clusterling.cli.allocator import STAYS, VARIABLE
from tests.cli.processes import PATIENCE_S, serving

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is for glibc alone")

# Of many small objects every thousandth stays; says what was resident before, with all, and after, in pages.
SPARSE = """
import asyncio
from clusterling.tenancy.trimming import trim

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])

before = resident()
objects = [[number] for number in range(500_000)]
full = resident()
kept = objects[::1000]
del objects
asyncio.run(trim())
print(before, full, resident())
"""


def environment_of(pid: int) -> dict[str, str]:
    variables = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(one.partition("=")[::2] for one in variables if one)


def test_a_server_takes_its_memory_from_the_c_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = STAYS
    for name in (VARIABLE, first):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(second, "1000000")
    with serving(tmp_path / "data") as server:
        found = environment_of(server.process.pid)
        assert found[VARIABLE] == "malloc"
        assert found[first] == STAYS[first]
        assert found[second] == "1000000", "whoever sets it has chosen"
        assert server.stop() == 0


def test_whoever_names_an_allocator_gets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "pymalloc")
    with serving(tmp_path / "data") as server:
        assert environment_of(server.process.pid)[VARIABLE] == "pymalloc"


def test_what_lies_between_things_that_stay_is_given_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SPARSE],
        env={**os.environ, VARIABLE: "malloc"},
        check=True,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    before, full, after = map(int, done.stdout.split())
    assert after - before < (full - before) // 5
