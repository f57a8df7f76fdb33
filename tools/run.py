"""`make run`: a server in the foreground with a demo cluster, and three commands to try on it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

LISTEN = os.environ.get("LISTEN", "127.0.0.1:6443")
DATA = Path(os.environ.get("CLUSTERLING_DATA_DIR", ".clusterling"))
DEMO = "demo"
CLUSTERLING = [sys.executable, "-m", "clusterling"]

NO_KUBECTL = "kubectl is not installed, and Go is not there to build it: any kubectl from 1.28 on will do."


def kubectl() -> str:
    """How to call kubectl: by its name where it is installed, else the one that make built."""
    if shutil.which("kubectl"):
        return "kubectl"
    built = Path(os.environ.get("KUBECTL_BUILT", ""))
    return str(built) if built.is_file() else ""


def to_try(command: str, kubeconfig: Path) -> str:
    call = f"{command or 'kubectl'} --kubeconfig {kubeconfig}"
    lines = [
        "",
        f"A logical cluster, {DEMO}, is ready. In another terminal:",
        "",
        f"  {call} get namespaces",
        f"  {call} create configmap hello --from-literal=to=world",
        f"  {call} get configmap hello -o yaml",
        "",
        "A second one is a command away:  .venv/bin/clusterling create other --kubeconfig-out other.yaml",
        "Ctrl-C stops the server; its data stays in " + str(DATA),
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
    for line in server.stdout or ():
        print(line, end="", flush=True)
        if line.startswith("clusterling ready:"):
            kubeconfig = DATA / f"{DEMO}.kubeconfig"
            create = ["create", DEMO, "--if-not-exists", "--kubeconfig-out", str(kubeconfig), "--quiet"]
            done = subprocess.run([*CLUSTERLING, *create, "--data-dir", str(DATA)], check=False)
            if done.returncode != 0:
                server.terminate()
            else:
                print(to_try(kubectl(), kubeconfig), flush=True)
    return server.wait()


if __name__ == "__main__":
    sys.exit(main())
