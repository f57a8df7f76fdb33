"""What a server gets from where it runs: Python, OpenSSL, file descriptors, memory, CPU.

Where a server runs on this data directory, in sight of this process, these are its own limits and what it uses of them;
else those of this process, which a server started from here would have.
"""

from __future__ import annotations

import os
import platform
import resource
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from clusterling.cli.doctor.finding import Finding, fail, ok, shown_size, warn

DESCRIPTORS_WARN: Final = 4096
DESCRIPTORS_FAIL: Final = 512
MEMORY_WARN: Final = 1 << 30  # The cache may take half of it.
MEMORY_FAIL: Final = 256 << 20
USED_MAX: Final = 0.9
THROTTLED_MAX: Final = 0.1
PERIODS_MIN: Final = 100

_PROC: Final = Path("/proc")
_CGROUPS: Final = Path("/sys/fs/cgroup")


def checks(pid: int | None) -> Iterator[Finding]:
    """`pid`: of the server, where it is in sight."""
    yield _python()
    yield _openssl()
    yield _descriptors(pid)
    yield _memory(pid)
    yield from _killed(pid)
    yield from _throttled(pid)


def holder(lock: Path) -> int | None:
    """The process that holds the lock on a file; None where nobody does, or nobody in sight of here."""
    try:
        status = lock.stat()
        lines = (_PROC / "locks").read_text().splitlines()
    except OSError:
        return None
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for line in lines:
        words = line.split()
        if len(words) > 5 and words[1] == "FLOCK" and words[5] == place and int(words[4]) > 0:
            return int(words[4])
    return None


def _python() -> Finding:
    found = f"{platform.python_implementation()} {platform.python_version()}"
    if platform.python_implementation() != "CPython":
        return warn("python", found, "run CPython: nothing else is tested")
    if sys.version_info.releaselevel != "final":
        return warn("python", found, "run a released Python")
    return ok("python", found)


def _openssl() -> Finding:
    if not ssl.OPENSSL_VERSION.startswith("OpenSSL "):
        return warn("openssl", ssl.OPENSSL_VERSION, "run a Python that was built with OpenSSL")
    if ssl.OPENSSL_VERSION_INFO < (3,):
        why = "it is maintained no more: run a Python that was built with OpenSSL 3 or later"
        return warn("openssl", ssl.OPENSSL_VERSION, why)
    return ok("openssl", ssl.OPENSSL_VERSION)


def _limit(pid: int | None, name: str, number: int) -> int | None:
    """A soft limit of the process, or of this one; None: there is none."""
    if pid is not None:
        try:
            lines = (_PROC / str(pid) / "limits").read_text().splitlines()
        except OSError:
            lines = []
        for line in lines:
            if line.startswith(name):
                value = line[len(name) :].split()[0]
                return None if value == "unlimited" else int(value)
    soft = resource.getrlimit(number)[0]
    return None if soft == resource.RLIM_INFINITY else soft


def _descriptors(pid: int | None) -> Finding:
    most = _limit(pid, "Max open files", resource.RLIMIT_NOFILE)
    if most is None:
        return ok("file descriptors", "without limit")
    used = None
    if pid is not None:
        try:
            used = sum(1 for _ in (_PROC / str(pid) / "fd").iterdir())
        except OSError:
            used = None
    found = f"{most} at most" if used is None else f"{used} of {most} used"
    remedy = "raise the limit: `ulimit -n`, LimitNOFILE= of the unit, or that of the container"
    if most < DESCRIPTORS_FAIL or (used is not None and used >= USED_MAX * most):
        return fail("file descriptors", f"{found}; each connection takes one", remedy)
    if most < DESCRIPTORS_WARN:
        return warn("file descriptors", f"{found}; each connection takes one", remedy)
    return ok("file descriptors", found)


def _memory(pid: int | None) -> Finding:
    limits = [_limit(pid, "Max address space", resource.RLIMIT_AS), *_memory_limits(pid), _all_memory()]
    known = [limit for limit in limits if limit]
    if not known:
        return ok("memory", "its limit is not known here")
    most = min(known)
    used = _resident(pid)
    found = shown_size(most) if used is None else f"{shown_size(used)} of {shown_size(most)} used"
    if most < MEMORY_FAIL:
        return fail("memory", found, f"give the server {shown_size(MEMORY_WARN)} or more")
    if used is not None and used > USED_MAX * most:
        return warn("memory", found, "raise the limit before the server is killed for it")
    if most < MEMORY_WARN:
        why = f"give the server {shown_size(MEMORY_WARN)} or more: its cache alone may take half of that"
        return warn("memory", found, why)
    return ok("memory", found)


def _resident(pid: int | None) -> int | None:
    if pid is None:
        return None
    try:
        pages = int((_PROC / str(pid) / "statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * resource.getpagesize()


def _all_memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None


def _groups(pid: int | None, controller: str) -> Iterator[Path]:
    """The directories of the process' control group and of those around it, of either version, the innermost first."""
    try:
        lines = (_PROC / (str(pid) if pid is not None else "self") / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, names, path = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        root = _CGROUPS / controller if names else _CGROUPS
        inside = root / path.lstrip("/")
        # In a container the path may be the host's, and what is mounted the group itself.
        yield from (one for one in (inside, *inside.parents) if one.is_relative_to(root) and one.is_dir())


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _memory_limits(pid: int | None) -> Iterator[int | None]:
    for group in _groups(pid, "memory"):
        yield _number(group / "memory.max")
        yield _number(group / "memory.limit_in_bytes")


def _counts(file: Path) -> dict[str, int]:
    try:
        pairs = [line.split() for line in file.read_text().splitlines()]
        return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}
    except (OSError, ValueError):
        return {}


def _killed(pid: int | None) -> Iterator[Finding]:
    """Whether something in the innermost group was killed for its memory."""
    for group in _groups(pid, "memory"):
        counts = _counts(group / "memory.events") or _counts(group / "memory.oom_control")
        if counts.get("oom_kill"):
            yield warn(
                "killed for memory",
                f"{counts['oom_kill']} times in {group}",
                "raise the container's memory limit, or lower what else runs in it",
            )
        return


def _throttled(pid: int | None) -> Iterator[Finding]:
    """How often the innermost group had used up its CPU."""
    for group in _groups(pid, "cpu"):
        counts = _counts(group / "cpu.stat")
        periods, throttled = counts.get("nr_periods", 0), counts.get("nr_throttled", 0)
        if periods >= PERIODS_MIN and throttled > THROTTLED_MAX * periods:
            part = f"{throttled / periods:.0%}"
            yield warn(
                "cpu",
                f"held back in {part} of all periods",
                "raise the container's CPU limit, or take it off",
            )
        return
