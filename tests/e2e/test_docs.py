"""What README and docs/ show is what happens: their marked blocks run, their tables hold.

Under `<!-- runs -->` a block runs: shell as one story a page, with the server of `<!-- runs: server -->` beside it until the
next one, Python as a program, `<!-- runs: pytest -->` as a test file. `<!-- runs: fails -->` has to fail, and what the next
block shows has to be what it said. `<!-- file: NAME -->` is written to a file. `<!-- given … -->` is shell that makes what
a page takes for granted. Names of machines and places that a page speaks of are those of what stands in for them here.

All commands of a page are run so, or by the test that `<!-- run by: FILE -->` names, or are of `make`, which is asked what
they would do. `<!-- not run: WHY -->` is for what needs a machine that no test has.
"""

from __future__ import annotations

import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import click
import pytest

from clusterling.cli.program import VERBS, program
from tests.conftest import ROOT
from tests.e2e.clusters import CALL_S, Lines, run
from tests.storage import etcd_server, postgres_server

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"^<!-- (?P<what>runs|file)(?:: (?P<how>\S+))? -->\n```(?P<language>\w+)\n(?P<body>.*?)^```$(?P<rest>.*?)(?=^<!-- |\Z)"
    r"|^<!-- given\n(?P<given>.*?)^-->$",
    re.MULTILINE | re.DOTALL,
)
# Shell and SQL, with the mark above it.
COMMANDS = re.compile(
    r"^(?:<!-- (?P<mark>[^\n]*?) -->\n)?```(?:sh|bash|console|sql)\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
SHOWN = re.compile(r"^```\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    what: str
    how: str
    language: str
    body: str
    shown: str


def _blocks(page: Path) -> list[Block]:
    found = []
    for match in BLOCK.finditer(page.read_text()):
        if match["given"] is not None:
            found.append(Block("runs", "", "sh", match["given"], ""))
            continue
        shown = SHOWN.search(match["rest"])
        found.append(
            Block(
                match["what"], match["how"] or "", match["language"], match["body"], shown[1] if shown else ""
            )
        )
    return found


RUNNING = [page for page in PAGES if any(block.what == "runs" for block in _blocks(page))]


@contextmanager
def _postgres(_directory: Path) -> Iterator[_Around]:
    try:
        with postgres_server.running() as server:
            address = f"postgres://service@127.0.0.1:{server.port}/clusterling?sslmode=disable"
            # Who administers the tests' database has the name that the page gives the service.
            named = {f"{word} clusterling": f"{word} service" for word in ("ROLE", "OWNER")}
            env = {"PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGUSER": postgres_server.USER}
            if shutil.which("psql") is None:
                pytest.skip("psql is not on this machine")
            yield named | {_POSTGRES: address}, env | {"PGDATABASE": "postgres"}
    except postgres_server.NoPostgres as reason:
        pytest.skip(str(reason))


@contextmanager
def _etcd(directory: Path) -> Iterator[_Around]:
    try:
        with etcd_server.running(directory / "etcd") as server:
            yield {_ETCD: server.url("prod")}, {}
    except etcd_server.NoEtcd as reason:
        pytest.skip(str(reason))


_POSTGRES: Final = "postgres://clusterling@db.example.com/clusterling?sslmode=verify-full"
_ETCD: Final = (
    "etcds://clusterling@e1.example.com:2379,e2.example.com:2379,e3.example.com:2379/prod?ca=/etc/etcd/ca.pem"
)

# What stands for the machines that a page speaks of, and the environment of whoever administers them.
_Around = tuple[Mapping[str, str], Mapping[str, str]]
AROUND: Final[Mapping[str, Callable[[Path], AbstractContextManager[_Around]]]] = {
    "postgres.md": _postgres,
    "etcd.md": _etcd,
}


class Story:
    """A page being lived through, in a directory of its own."""

    def __init__(
        self, directory: Path, programs: list[Path], stack: ExitStack, instead: Mapping[str, str]
    ) -> None:
        """`instead`: what stands here for what the page names."""
        self.directory = directory
        self._instead = {
            "/var/lib/clusterling": f"{directory}/var",
            "/run/secrets": f"{directory}",
            "0.0.0.0:6443": "0.0.0.0:0",
            **instead,
        }
        self._serving = stack.enter_context(ExitStack())
        # Pages speak from the top of a checkout where they name files of it.
        (directory / "deploy").symlink_to(ROOT / "deploy")
        self._state = directory / ".shell"
        places = [Path(sys.executable).parent, *(program.parent for program in programs)]
        path = os.pathsep.join([*map(str, places), os.environ["PATH"]])
        kept = {n: v for n, v in os.environ.items() if not n.startswith(("KUBE", "CLUSTERLING_"))}
        # The port that the pages name may be taken: the server gets a free one, and kubeconfigs say which.
        self.env = kept | {"PATH": path, "HOME": str(directory), "CLUSTERLING_LISTEN": "127.0.0.1:0"}

    def live(self, block: Block) -> None:
        body = block.body
        for there, here in self._instead.items():
            body = body.replace(there, here)
        block = block._replace(body=body)
        if block.what == "file":
            (self.directory / block.how).write_text(block.body)
        elif block.how == "server":
            self._serving.close()
            self._serving.enter_context(self._server(block.body))
        elif block.language == "sql":
            run(["psql", "-v", "ON_ERROR_STOP=1"], env=self.env, cwd=self.directory, stdin=body)
        elif block.language == "python":
            self._python(block)
        else:
            self._commands(block)

    def _script(self, body: str) -> list[str]:
        # Functions and variables of one block are there in the next, as in one terminal: the state goes through a file.
        begun = f"[ -f {self._state} ] && . {self._state}\nset -euo pipefail\n"
        return ["bash", "-c", f"{begun}{body}\n{{ declare -f; export -p; }} > {self._state}\n"]

    @contextmanager
    def _server(self, body: str) -> Iterator[None]:
        script = self._script(
            re.sub(r"^clusterling serve", "exec clusterling serve", body, flags=re.MULTILINE)
        )
        process = subprocess.Popen(script, cwd=self.directory, env=self.env, stdout=subprocess.PIPE)
        try:
            assert Lines(process).next().startswith("clusterling ready: https://")
            yield
        finally:
            process.terminate()
            process.communicate(timeout=CALL_S)
        assert process.returncode == 0

    def _python(self, block: Block) -> None:
        name = "test_shown.py" if block.how == "pytest" else "shown.py"
        (self.directory / name).write_text(block.body)
        options = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto"]
        command = [sys.executable, *(options if block.how == "pytest" else []), name]
        run(command, env=self.env, cwd=self.directory)

    def _commands(self, block: Block) -> None:
        done = run(
            self._script(block.body),
            env=self.env,
            cwd=self.directory,
            code=1 if block.how == "fails" else 0,
        )
        if block.how == "fails":
            assert done.stderr == block.shown


@pytest.mark.kubectl
@pytest.mark.parametrize("page", RUNNING, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_shows_works(
    page: Path, tmp_path: Path, kubectl_binary: Path, request: pytest.FixtureRequest
) -> None:
    programs = [kubectl_binary]
    if any(re.search(r"^helm ", block.body, re.MULTILINE) for block in _blocks(page)):
        programs.append(request.getfixturevalue("helm_binary"))
    with ExitStack() as stack:
        given, env = stack.enter_context(AROUND[page.name](tmp_path)) if page.name in AROUND else ({}, {})
        story = Story(tmp_path, programs, stack, given)
        story.env |= env
        for block in _blocks(page):
            story.live(block)


def _of_make(body: str) -> bool:
    return all(line.startswith("make ") for line in body.splitlines())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_is_run_or_says_why_not(page: Path) -> None:
    for match in COMMANDS.finditer(page.read_text()):
        kind, _, more = (match["mark"] or "").partition(": ")
        if kind == "run by":
            assert page.name in (ROOT / more).read_text()
        else:
            assert kind in {"runs", "not run"} or _of_make(match["body"]), match["body"]


@cache
def _usage(module: str) -> str:
    return run([sys.executable, "-m", module, "--help"], env=os.environ, cwd=ROOT).stdout


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: str(page.relative_to(ROOT))
)
def test_make_knows_what_pages_ask_it(page: Path) -> None:
    """Its targets, and the modules, flags and places that it hands on."""
    if shutil.which("make") is None:
        pytest.skip("make is not on this machine")
    # Whoever runs the tests by make does not answer for what is asked here.
    env = {name: text for name, text in os.environ.items() if name != "ARGS" and not name.startswith("MAKE")}
    asked = {
        line
        for block in re.findall(r"^```sh\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
        if line.startswith("make ")
    }
    for line in sorted(asked):
        words = shlex.split(line, comments=True)
        done = run(["make", "-n", *words[1:]], env=env, cwd=ROOT)
        for told in done.stdout.splitlines():
            module = re.search(r"python -m ((?:tests|benchmarks|tools)[.\w]*)(.*)", told)
            if module is not None:
                usage = _usage(module[1])
                flags = re.findall(r"(?<!\S)--[\w-]+", module[2])
                assert [flag for flag in flags if flag not in usage] == [], line
        named = [
            word for text in words for word in text.replace("=", " ").split() if word.startswith("tests/")
        ]
        assert [path for path in named if not (ROOT / path).exists()] == [], line


def _command(verb: str) -> click.Command:
    found = program.get_command(click.Context(program), verb)
    assert found is not None
    return found


@pytest.mark.parametrize("verb", VERBS)
def test_the_reference_names_each_verb_and_flag(verb: str) -> None:
    text = (ROOT / "docs/reference/cli.md").read_text()
    common, *sections = re.split(r"^## ", text, flags=re.MULTILINE)
    common += next(section for section in sections if section.startswith("Finding the server"))
    section = next((section for section in sections if section.startswith(f"{verb}\n")), None)
    assert section is not None
    command = _command(verb)
    commands = [command]
    if isinstance(command, click.Group):
        commands += command.commands.values()
        assert [name for name in command.commands if f"### {verb} {name}\n" not in section] == []
    parameters = [parameter for one in commands for parameter in one.params]
    flags = [flag for parameter in parameters for flag in parameter.opts if flag.startswith("--")]
    missing = [flag for flag in flags if flag != "--help" and flag not in section + common]
    assert missing == []


LIMITS = re.findall(
    r"^\| (?P<name>[^|]+) \| (?P<value>[0-9,]+)[^|]*\|(?:[^\n]*\|)? `(?P<path>[\w.]+)` \|$",
    (ROOT / "docs/reference/limits.md").read_text(),
    re.MULTILINE,
)


@pytest.mark.parametrize(("name", "value", "path"), LIMITS, ids=[limit[0] for limit in LIMITS])
def test_the_limits_named_are_those_in_the_code(name: str, value: str, path: str) -> None:
    module, _, constant = path.rpartition(".")
    assert int(value.replace(",", "")) == getattr(importlib.import_module(module), constant), name


@pytest.mark.parametrize(
    "index", sorted((ROOT / "docs").rglob("README.md")), ids=lambda page: str(page.relative_to(ROOT))
)
def test_an_index_names_each_page_below_it(index: Path) -> None:
    below = {page.relative_to(index.parent) for page in index.parent.rglob("*.md")} - {Path("README.md")}
    # What has an index of its own is found by that.
    own = {page.parent for page in below if page.name == "README.md"}
    wanted = {page for page in below if page.name == "README.md" or page.parent not in own}
    named = {Path(target) for target in re.findall(r"\]\(([^)#:]+)\)", index.read_text())}
    assert wanted <= named


def test_links_between_pages_lead_somewhere() -> None:
    links = [
        (page, target, place)
        for page in {*PAGES, *ROOT.glob("*.md"), *(ROOT / "deploy").rglob("*.md")}
        for target, place in re.findall(
            r"\]\(([^)#:]*)(?:#([^)]+))?\)", re.sub(r"`[^`]*`", "", page.read_text())
        )
    ]
    assert links
    assert [(page.name, target) for page, target, _ in links if not (page.parent / target).exists()] == []
    lost = [
        (page.name, target, place)
        for page, target, place in links
        if place and place not in _places(page.parent / target if target else page)
    ]
    assert lost == []


@cache
def _places(page: Path) -> frozenset[str]:
    """What a link may name in a page: its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return frozenset(
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    )
