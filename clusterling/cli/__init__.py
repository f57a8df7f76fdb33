"""The command line: one file a verb family, imported when its verb is used, over the same API that everybody has.

Rules: stdout carries data only, progress and hints go to stderr; errors are one line that says what to do, never a
traceback; exit codes are those of `errors.py`; every flag has a variable `CLUSTERLING_<FLAG>`.
"""

from __future__ import annotations

import sys


def main() -> None:
    """The console script. Exits with the verb's code."""
    if sys.argv[1:2] == ["serve"]:
        from clusterling.cli.allocator import use_glibc

        use_glibc()
    from clusterling.cli.program import run

    sys.exit(run(sys.argv[1:]))
