"""Fuzzes targets one after the other, each in a process of its own with bounds on memory and on the time of one input.

    python -m tests.fuzz [TARGET …] [--time SECONDS]        needs atheris: `make fuzz` brings it
    python -m tests.fuzz TARGET --input FILE                runs what was found, once, with its traceback
    python -m tests.fuzz --scaling                          whether attacks cost no more than their size

What was found lies in `--out`, beside the inputs that reached new lines, which the next run begins with.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.fuzz import scaling
from tests.fuzz.targets import Target, load

MEMORY_BYTES_MAX: Final = 2 << 30
INPUT_S_MAX: Final = 10
INPUT_BYTES_MAX: Final = 16 * 1024

_EXECUTED: Final = re.compile(r"stat::number_of_executed_units:\s*(\d+)|Done (\d+) runs")


def _plant(target: Target, corpus: Path) -> None:
    """Writes the seeds to where libFuzzer begins."""
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds():
        (corpus / hashlib.sha256(seed).hexdigest()[:20]).write_bytes(seed)


def _fuzz(target: Target, seconds: int, input_s: int, out: Path) -> bool:
    """Whether the target held."""
    corpus = out / "corpus" / target.name
    _plant(target, corpus)
    command = [
        *(sys.executable, "-m", "tests.fuzz.one", target.name, str(MEMORY_BYTES_MAX), str(out), str(corpus)),
        *(f"-max_total_time={seconds}", f"-timeout={input_s}", f"-max_len={INPUT_BYTES_MAX}"),
        *(
            f"-rss_limit_mb={MEMORY_BYTES_MAX >> 20}",
            f"-artifact_prefix={out / target.name}-",
            "-print_final_stats=1",
        ),
    ]
    log = out / f"{target.name}.log"
    with log.open("wb") as sink:
        code = subprocess.run(command, stdout=sink, stderr=subprocess.STDOUT, check=False).returncode
    told = log.read_text(errors="replace")
    runs = [first or second for first, second in _EXECUTED.findall(told)]
    print(
        f"{target.name}: {runs[-1] if runs else 0} inputs, {'held' if code == 0 else f'FAILED, see {log}'}",
        flush=True,
    )
    return code == 0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", help="all of them where none is named")
    parser.add_argument("--time", type=int, default=60, help="seconds for each target")
    parser.add_argument("--input-time", type=int, default=INPUT_S_MAX, help="seconds that one input may take")
    parser.add_argument("--out", type=Path, default=Path(".cache/fuzz/out"))
    parser.add_argument("--input", type=Path, help="an input to run once")
    parser.add_argument("--scaling", action="store_true", help="measure attacks at doubled sizes")
    args = parser.parse_args()
    if args.scaling:
        return scaling.main(args.targets)
    known = load()
    strangers = [name for name in args.targets if name not in known]
    if strangers:
        parser.error(f"no such target: {', '.join(strangers)}; there are {', '.join(known)}")
    chosen = [known[name] for name in args.targets or known]
    if args.input is not None:
        for target in chosen:
            target.run(args.input.read_bytes())
        return 0
    args.out.mkdir(parents=True, exist_ok=True)
    held = [_fuzz(target, args.time, args.input_time, args.out) for target in chosen]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
