"""`make run`: a server in the foreground with a demo cluster, and three commands to try on it."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

LISTEN = os.environ.get("LISTEN", "127.0.0.1:6443")
DEFAULT_DATA = ".clusterling"
DATA = Path(os.environ.get("CLUSTERLING_DATA_DIR", DEFAULT_DATA))
DEMO = "demo"
CLUSTERLING = [sys.executable, "-m", "clusterling"]
CALLED = os.path.relpath(Path(sys.executable).with_name("clusterling"))

IN_MAKE = (
    "hint: with make, LISTEN=HOST:PORT and CLUSTERLING_DATA_DIR=DIR say where: LISTEN=127.0.0.1:7443 make run"
)
NO_KUBECTL = "kubectl is not installed, and Go is not there to build it: any kubectl from 1.28 on will do."


def kubectl() -> str:
    """How to call kubectl: by its name where it is installed, else the one that make built."""
    if shutil.which("kubectl"):
        return "kubectl"
    built = Path(os.environ.get("KUBECTL_BUILT", ""))
    return str(built) if built.is_file() else ""


def to_try(command: str, kubeconfig: Path) -> str:
    call = f"{command or 'kubectl'} --kubeconfig {shlex.quote(str(kubeconfig))}"
    elsewhere = f" --data-dir {shlex.quote(str(DATA))}" if Path(DEFAULT_DATA) != DATA else ""
    lines = [
        "",
        f"A logical cluster, {DEMO}, is ready. In another terminal, in this directory:",
        "",
        f"  {call} get namespaces",
        f"  {call} create configmap hello --from-literal=to=world",
        f"  {call} get configmap hello -o yaml",
        "",
        f"A second one is a command away:  {CALLED} create other{elsewhere} --kubeconfig-out other.yaml",
        f"Ctrl-C stops the server; its data stay in {DATA}",
    ]
    return "\n".join(lines if command else [*lines, "", NO_KUBECTL])


def main() -> int:
    server = subprocess.Popen(
        [*CLUSTERLING, "serve", "--data-dir", str(DATA), "--listen", LISTEN, *sys.argv[1:]],
        stdout=subprocess.PIPE,
        text=True,
        # Of its own process group, so that Ctrl-C reaches it once, from here.
        process_group=0,
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _frame: server.send_signal(received))
    ready = False
    for line in server.stdout or ():
        print(line, end="", flush=True)
        if line.startswith("clusterling ready:"):
            ready = True
            kubeconfig = DATA / f"{DEMO}.kubeconfig"
            create = ["create", DEMO, "--if-not-exists", "--kubeconfig-out", str(kubeconfig), "--quiet"]
            done = subprocess.run([*CLUSTERLING, *create, "--data-dir", str(DATA)], check=False)
            if done.returncode != 0:
                server.terminate()
            else:
                print(to_try(kubectl(), kubeconfig), flush=True)
    code = server.wait()
    if code != 0 and not ready:
        print(IN_MAKE, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
