from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from tests.cli.processes import PATIENCE_S, PROGRAM, clusterling, eventually, is_running


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `dev` puts its directory, so that the test sees what it leaves."""
    directory = tmp_path / "tmp"
    directory.mkdir()
    monkeypatch.setenv("TMPDIR", str(directory))
    return directory


_ASK = """
import os, ssl, sys, urllib.request, base64, yaml
config = yaml.safe_load(open(os.environ["KUBECONFIG"]))
cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
ca = base64.b64decode(cluster["certificate-authority-data"]).decode()
request = urllib.request.Request(
    cluster["server"] + "/api/v1/namespaces", headers={"Authorization": "Bearer " + user["token"]}
)
with urllib.request.urlopen(request, context=ssl.create_default_context(cadata=ca)) as response:
    print(response.status)
"""


def test_the_command_finds_a_cluster_and_nothing_is_left(temporary: Path) -> None:
    done = clusterling("dev", "--", sys.executable, "-c", _ASK)
    assert (done.returncode, done.stdout, done.stderr) == (0, "200\n", "")
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("sh", "-c", "exit 7"), 7),
        (("sh", "-c", "kill -TERM $$"), 128 + signal.SIGTERM),
        (("true",), 0),
        (("no-such-command",), 127),
        (("/etc/passwd",), 126),
    ],
)
def test_it_exits_as_the_command_did(command: tuple[str, ...], code: int, temporary: Path) -> None:
    assert clusterling("dev", "--", *command).returncode == code
    assert list(temporary.iterdir()) == []


def test_the_other_verbs_find_its_server(temporary: Path) -> None:
    done = clusterling("dev", "--name", "mine", "--", *PROGRAM, "list", "-o", "name")
    assert done.stdout.split() == [
        f"logicalcluster.tenancy.clusterling.io/{name}" for name in ("mine", "root")
    ]


def test_flags_after_the_command_are_the_commands(temporary: Path) -> None:
    assert clusterling("dev", "echo", "--name", "x", "-q", "--help").stdout == "--name x -q --help\n"


def test_what_the_command_leaves_running_ends_with_it(temporary: Path) -> None:
    done = clusterling("dev", "--", "sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo $!")
    assert eventually(lambda: not is_running(int(done.stdout)))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGHUP])
def test_killed_it_leaves_no_process_and_no_file(number: int, temporary: Path) -> None:
    process = subprocess.Popen(
        [*PROGRAM, "dev", "--", "sh", "-c", "sleep 1000 & echo $$ $! $KUBECONFIG; wait"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    command, child, kubeconfig = process.stdout.readline().split()
    assert Path(kubeconfig).is_relative_to(temporary)
    os.kill(process.pid, number)
    code = process.wait(PATIENCE_S)
    assert code == (-number if number == signal.SIGKILL else 128 + number)
    for pid in (int(command), int(child)):
        assert eventually(lambda pid=pid: not is_running(pid))  # type: ignore[misc]
    assert eventually(lambda: not list(temporary.iterdir()))
    process.stdout.close()


def test_without_a_command_it_prints_a_kubeconfig_and_waits(temporary: Path) -> None:
    process = subprocess.Popen(
        [*PROGRAM, "dev", "--quiet"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    path = Path(process.stdout.readline().strip())
    assert yaml.safe_load(path.read_text())["current-context"] == "clusterling-127.0.0.1-dev"
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == 0
    assert list(temporary.iterdir()) == []
    process.stdout.close()


def test_a_name_that_is_none_is_refused(temporary: Path) -> None:
    refused = clusterling("dev", "--name", "A", "--", "true")
    assert refused.returncode == 1
    assert "cannot make the cluster A" in refused.stderr
    assert list(temporary.iterdir()) == []


def _on_a_terminal(command: tuple[str, ...], keys: bytes) -> tuple[str, int]:
    """What `dev -- command` shows on a terminal of its own where `keys` are typed once it says `go>`; its exit code."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*PROGRAM, "dev", "--", *command],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        # The terminal becomes the session's own, so that Ctrl-C on it is a signal.
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0) and None,  # noqa: PLW1509 - one system call
    )
    os.close(theirs)
    shown = b""
    try:
        while b"go>" not in shown:
            shown += os.read(ours, 4096)
        os.write(ours, keys)
        # Linux says EIO where the last one on the other side has gone.
        with suppress(OSError):
            while more := os.read(ours, 4096):
                shown += more
        return shown.decode(), process.wait(PATIENCE_S)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_on_a_terminal_the_command_reads_what_is_typed(temporary: Path) -> None:
    shown, code = _on_a_terminal(("sh", "-c", 'echo "go>"; read x; echo got $x; exit 4'), b"hello\n")
    assert "got hello" in shown
    assert code == 4
    assert list(temporary.iterdir()) == []


def test_on_a_terminal_ctrl_c_is_the_commands(temporary: Path) -> None:
    shown, code = _on_a_terminal(
        ("sh", "-c", 'trap "echo caught; exit 9" INT; echo "go>"; sleep 1000 & wait'), b"\x03"
    )
    assert "caught" in shown
    assert code == 9
    assert list(temporary.iterdir()) == []
