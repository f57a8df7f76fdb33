"""kube-rs: a program of ours, and the tests that its own crates come with, which they leave out unless a cluster is there."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from tests.clients.suites.outcomes import Missing, Outcome, of_cargo
from tests.e2e.clusters import Cluster

OURS: Final = Path(__file__).parents[1] / "rust"
RUN_S: Final = 900


@dataclass(frozen=True)
class Program:
    """Ours, pinned by its Cargo.lock."""

    pods_run: ClassVar[bool] = True
    name: str = "kube-rs"

    def run(self, cluster: Cluster, cache: Path, out: Path) -> list[Outcome]:
        return _test(OURS / "Cargo.toml", ["--locked"], [], cluster, cache, out)


@dataclass(frozen=True)
class Crates:
    """Tests in the published sources of kube's crates, at the versions that ours is pinned to."""

    pods_run: ClassVar[bool] = True
    name: str = "kube-rs-own"

    def run(self, cluster: Cluster, cache: Path, out: Path) -> list[Outcome]:
        manifest = _workspace(cache)
        features = ["--workspace", "--lib", "--features", ",".join(CRATES.values())]
        return _test(manifest, features, ["--ignored", "--test-threads=1"], cluster, cache, out)


# The features that the tests which need a cluster are compiled with. Those of kube-runtime need kube beside it in its own repository.
CRATES: Final = {
    "kube": "kube/runtime,kube/derive,kube/ws",
    "kube-client": "kube-client/ws",
}


def _workspace(cache: Path) -> Path:
    """The crates' sources side by side, with our lock to start from; their tests need a few crates more."""
    workspace = cache / "kube-rs"
    manifest = workspace / "Cargo.toml"
    if not manifest.exists():
        shutil.rmtree(workspace, ignore_errors=True)
        workspace.mkdir(parents=True)
        command = (
            *(_cargo(), "metadata", "--format-version=1", "--locked", "--manifest-path"),
            str(OURS / "Cargo.toml"),
        )
        packages = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["packages"]
        for one in packages:
            if one["name"] in CRATES:
                shutil.copytree(Path(one["manifest_path"]).parent, workspace / one["name"])
        # What a manifest names by path is left out where it is published.
        with (workspace / "kube-client" / "Cargo.toml").open("a") as published:
            published.write(
                '\n[dev-dependencies.kube]\npath = "../kube"\nfeatures = ["derive", "client", "ws"]\n'
            )
        shutil.copy(OURS / "Cargo.lock", workspace)
        members = ", ".join(f'"{one}"' for one in CRATES)
        patches = "".join(f'{one} = {{ path = "{one}" }}\n' for one in CRATES)
        manifest.write_text(
            f'[workspace]\nresolver = "3"\nmembers = [{members}]\n\n[patch.crates-io]\n{patches}'
        )
    return manifest


def _test(
    manifest: Path, build: list[str], run: list[str], cluster: Cluster, cache: Path, out: Path
) -> list[Outcome]:
    command = [
        *(_cargo(), "test", "--no-fail-fast", "--manifest-path", str(manifest)),
        *("--target-dir", str(cache / "rust"), *build, "--", *run),
    ]
    # Cargo looks for its own things at home, and a client for its kubeconfig.
    env = cluster.env | {"HOME": str(Path.home()), "RUST_BACKTRACE": "0"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=RUN_S, check=False)
    (out / "log.txt").write_text(done.stderr + done.stdout)
    return list(of_cargo(done.stdout))


def _cargo() -> str:
    found = shutil.which("cargo")
    if found is None:
        raise Missing("there is no cargo")
    return found


SUITES: Final = (Program(), Crates())
