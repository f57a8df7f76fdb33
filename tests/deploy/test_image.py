"""The image's recipe, taken step by step where there is no builder: what it copies, what it builds, and how that runs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.deploy.charts import CHART
from tests.e2e.clusters import READY

RECIPE = ROOT / "deploy" / "image" / "Containerfile"
WHEELS = ROOT / ".cache" / "deploy" / "wheels"
PATIENCE_S = 300


def _stages() -> list[list[list[str]]]:
    """The recipe's instructions, stage by stage, each as its words."""
    text = re.sub(r"^#.*\n", "", RECIPE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    stages: list[list[list[str]]] = []
    for words in (shlex.split(line) for line in text.splitlines() if line.strip()):
        if words[0] == "FROM":
            stages.append([])
        if stages:
            stages[-1].append(words)
    return stages


@dataclass(frozen=True, slots=True)
class Image:
    prefix: Path
    said: str

    @property
    def python(self) -> Path:
        return self.prefix / "bin" / "python"

    @property
    def packages(self) -> Path:
        (found,) = (self.prefix / "lib").glob("python3*/site-packages")
        return found


def _ignored(path: str) -> bool:
    """As the builder leaves files out of its context: the last pattern that fits."""
    ignored = False
    for line in RECIPE.with_name(f"{RECIPE.name}.dockerignore").read_text().split():
        pattern = line.removeprefix("!").replace("**/", "")
        if pattern in ("*", path) or path.startswith(f"{pattern}/") or path.endswith(f"/{pattern}"):
            ignored = not line.startswith("!")
    return ignored


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """What the recipe's first stage makes, of what it copies and nothing else."""
    with tempfile.TemporaryDirectory(prefix="clusterling-image-") as name:
        context = Path(name, "source")
        Path(name).chmod(0o755)
        for words in _stages()[0]:
            if words[0] == "COPY":
                _copy(words[1:], context)
        (run,) = (words[1:] for words in _stages()[0] if words[0] == "RUN")
        program, _, _ = run
        prefix = Path(name, "opt", "clusterling")
        prefix.parent.mkdir()
        wheels = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(WHEELS)} if any(WHEELS.glob(".all-*")) else {}
        done = subprocess.run(
            [str(context / program), str(prefix), sys.executable],
            env={**os.environ, **wheels},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}{done.stderr}"
        yield Image(prefix, done.stdout)


def _copy(words: list[str], context: Path) -> None:
    *sources, target = words
    for source in sources:
        assert not _ignored(source), f"{source} is copied, and .dockerignore leaves it out"
        to = context / target
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, to, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            to = to / Path(source).name if target.endswith("/") else to
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / source, to)


def test_it_holds_the_program_its_drivers_and_no_installer(image: Image) -> None:
    assert re.search(r"^clusterling \S+, serving the API of Kubernetes", image.said, re.MULTILINE)
    names = {path.name for path in image.packages.iterdir()}
    assert {"clusterling", "asyncpg", "hpack", "etcd3aio", "opentelemetry"} <= names
    assert not {
        name for name in names if name.startswith(("pip", "setuptools", "hatchling", "pytest", "tests"))
    }
    locked = set(
        re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements" / "image.txt").read_text(), re.MULTILINE)
    )
    installed = {
        path.name.removesuffix(".dist-info").rpartition("-")[0].replace("_", "-").lower()
        for path in image.packages.glob("*.dist-info")
    }
    assert installed == locked | {"clusterling"}


def test_every_module_is_compiled_and_never_looked_at_again(image: Image) -> None:
    for source in (image.packages / "clusterling").rglob("*.py"):
        (compiled,) = (source.parent / "__pycache__").glob(f"{source.stem}.cpython-*.pyc")
        assert int.from_bytes(compiled.read_bytes()[4:8], "little") == 0b01, f"{source} is not unchecked-hash"


def test_a_prefix_that_is_there_is_left_alone(image: Image) -> None:
    done = subprocess.run(
        [str(ROOT / "deploy/image/build.sh"), str(image.prefix)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, f"{image.prefix} is there already\n")


def test_the_recipe_ends_as_the_chart_and_a_kubelet_want_it() -> None:
    build, final = _stages()
    by_word = {words[0]: words[1:] for words in final}
    user = yaml.safe_load((CHART / "values.yaml").read_text())["podSecurityContext"]
    assert by_word["USER"] == [f"{user['runAsUser']}:{user['runAsGroup']}"]
    assert by_word["HEALTHCHECK"] == ["NONE"]
    assert "RUN" not in by_word, "the last stage has no step of its own"
    (run,) = (words[1:] for words in build if words[0] == "RUN")
    prefix = run[1]
    assert by_word["COPY"] == ["--from=build", prefix, prefix]
    assert f"PATH={prefix}/bin:" in " ".join(by_word["ENV"])
    assert by_word["ENTRYPOINT"] == ["[clusterling]"], "in the form that needs no shell"
    assert {word.partition("=")[0].rpartition(".")[2] for word in by_word["LABEL"]} >= {
        "title",
        "licenses",
        "version",
        "revision",
    }


class _Sealed:
    """How to run a command as the image's user, with nothing to write to but `writable`, as far as this machine can."""

    def __init__(self, writable: Path) -> None:
        self.writable = writable
        self.alone = os.geteuid() == 0 and shutil.which("setpriv") is not None

    def command(self, *command: str) -> list[str]:
        if not self.alone:
            return list(command)
        user = [
            "setpriv",
            "--reuid=10001",
            "--regid=10001",
            "--clear-groups",
            "--no-new-privs",
            "--bounding-set=-all",
        ]
        inner = shlex.join([*user, "--inh-caps=-all", "--", *command])
        where = shlex.quote(str(self.writable))
        script = f"mount --bind {where} {where} && mount -o remount,bind,ro / && exec {inner}"
        unshare = ["unshare", "--mount", "--propagation=private", "--"]
        possible = (
            shutil.which("unshare")
            and not subprocess.run(
                [*unshare, "mount", "--bind", str(self.writable), str(self.writable)],
                capture_output=True,
                check=False,
            ).returncode
        )
        return [*unshare, "sh", "-c", script] if possible else ["sh", "-c", f"exec {inner}"]


@pytest.fixture
def sealed() -> Iterator[_Sealed]:
    with tempfile.TemporaryDirectory(prefix="clusterling-data-") as name:
        made = _Sealed(Path(name))
        if made.alone:
            os.chown(name, 10001, 10001)
        yield made


def test_there_is_nothing_in_the_tree_that_its_user_could_write(image: Image, sealed: _Sealed) -> None:
    if not sealed.alone:
        pytest.skip("to become somebody else takes root and setpriv")
    for directory in (image.prefix, image.packages / "clusterling", Path("/opt"), Path("/etc")):
        script = f"open({str(directory / 'written')!r}, 'w')"
        done = subprocess.run(
            sealed.command(str(image.python), "-c", script), capture_output=True, text=True, check=False
        )
        assert re.search(r"Read-only file system|Permission denied", done.stderr), done
    written = sealed.writable / "written"
    subprocess.run(sealed.command(str(image.python), "-c", f"open({str(written)!r}, 'w')"), check=True)
    assert written.exists()


def _state(tree: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_mtime_ns for path in tree.rglob("*")}


def test_a_user_without_rights_serves_from_a_tree_that_cannot_be_written(
    image: Image, sealed: _Sealed
) -> None:
    before = _state(image.prefix)
    (command,) = (words[1:] for words in _stages()[1] if words[0] == "CMD")
    arguments = [word.strip("[],") for word in command]
    data = sealed.writable / "data"
    replaced = {
        "--data-dir=/var/lib/clusterling": f"--data-dir={data}",
        "--listen=:6443": "--listen=127.0.0.1:0",
    }
    assert set(replaced) <= set(arguments)
    started = [replaced.get(word, word) for word in arguments]
    process = subprocess.Popen(
        sealed.command(str(image.prefix / "bin" / "clusterling"), *started),
        env={
            "PATH": f"{image.prefix}/bin:/usr/bin:/bin",
            "HOME": "/nonexistent",
            "TMPDIR": str(sealed.writable),
        },
        stdout=subprocess.PIPE,
        cwd="/",
        text=True,
    )
    try:
        assert process.stdout is not None
        ready = READY.search(process.stdout.readline())
        assert ready, f"it ended with {process.wait(PATIENCE_S)}"
        assert _ask(f"{ready[1]}/readyz", data / "pki" / "ca.crt") == 200
        if sealed.alone:
            status = Path(f"/proc/{process.pid}/status").read_text()
            assert re.search(r"^Uid:\t10001\t10001\t10001\t10001$", status, re.MULTILINE)
            assert re.search(r"^CapBnd:\t0+$", status, re.MULTILINE)
            assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.communicate()
    assert _state(image.prefix) == before, "nothing in it was written"


def _ask(url: str, ca: Path) -> int:
    context = ssl.create_default_context(cafile=ca)
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            with urllib.request.urlopen(url, context=context, timeout=30) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as refused:
            with refused:
                if time.monotonic() > deadline:
                    return refused.code
        time.sleep(0.05)
