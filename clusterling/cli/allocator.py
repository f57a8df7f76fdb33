"""Which allocator the server's memory comes from: glibc's, where that is the C library.

Python's own gives memory back by the megabyte, once nothing at all is left in one; after thousands of clusters were deleted
something always is. glibc's, when asked (tenancy/trimming.py), gives back every page that nothing is left in; a write costs a tenth
more. Python reads which one it is to use from a variable when it starts, so the process becomes itself once more.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Final

VARIABLE: Final = "PYTHONMALLOC"
# Up to so much stays when it is freed, and is used again: fresh pages for a megabyte take the kernel 0.5 to 4 ms, which would be
# taken from the loop, and from the thread that commits. What has gone for good is given back when asked for.
STAYS: Final = {"MALLOC_MMAP_THRESHOLD_": f"{32 << 20}", "MALLOC_TRIM_THRESHOLD_": f"{32 << 20}"}


def use_glibc() -> None:
    """Starts the interpreter anew with glibc's allocator; returns where it is not to be, or is in use already.

    Called before anything else is begun: the process, its files and its arguments stay what they are. Whoever sets the
    variable has chosen for himself.
    """
    if VARIABLE in os.environ or not _is_possible():
        return
    os.environ.update(
        {VARIABLE: "malloc"} | {name: os.environ.get(name, value) for name, value in STAYS.items()}
    )
    with suppress(OSError):
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - the very program that runs


def _is_possible() -> bool:
    if sys.flags.ignore_environment or sys.flags.dev_mode or getattr(sys, "frozen", False):
        return False
    # A build without the lock has an allocator of its own, and takes no other.
    if not sys.executable or "free-threading" in sys.version:
        return False
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError, OSError):
        return False
