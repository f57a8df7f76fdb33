"""What README and docs/ show is what happens: their marked blocks run, their tables hold.

Under `<!-- runs -->` a block runs: shell as one story a page, with the server of `<!-- runs: server -->` beside it,
Python as a program, `<!-- runs: pytest -->` as a test file. `<!-- runs: fails -->` has to fail, and what the next
block shows has to be what it said. `<!-- file: NAME -->` is written to a file.
"""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from clusterling.cli.program import VERBS, program
from tests.conftest import ROOT
from tests.e2e.clusters import CALL_S, Lines, run

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"^<!-- (?P<what>runs|file)(?:: (?P<how>\S+))? -->\n```(?P<language>\w+)\n(?P<body>.*?)^```$(?P<rest>.*?)(?=^<!-- |\Z)",
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
        shown = SHOWN.search(match["rest"])
        found.append(
            Block(
                match["what"], match["how"] or "", match["language"], match["body"], shown[1] if shown else ""
            )
        )
    return found


RUNNING = [page for page in PAGES if any(block.what == "runs" for block in _blocks(page))]


class Story:
    """A page being lived through, in a directory of its own."""

    def __init__(self, directory: Path, programs: list[Path], stack: ExitStack) -> None:
        self.directory = directory
        # Pages speak from the top of a checkout where they name files of it.
        (directory / "deploy").symlink_to(ROOT / "deploy")
        self._stack = stack
        self._shell = ""
        places = [Path(sys.executable).parent, *(program.parent for program in programs)]
        path = os.pathsep.join([*map(str, places), os.environ["PATH"]])
        kept = {n: v for n, v in os.environ.items() if not n.startswith(("KUBE", "CLUSTERLING_"))}
        # The port that the pages name may be taken: the server gets a free one, and kubeconfigs say which.
        self.env = kept | {"PATH": path, "HOME": str(directory), "CLUSTERLING_LISTEN": "127.0.0.1:0"}

    def live(self, block: Block) -> None:
        if block.what == "file":
            (self.directory / block.how).write_text(block.body)
        elif block.how == "server":
            self._stack.enter_context(self._server(block.body.split()))
        elif block.language == "python":
            self._python(block)
        else:
            self._commands(block)

    @contextmanager
    def _server(self, command: list[str]) -> Iterator[None]:
        process = subprocess.Popen(command, cwd=self.directory, env=self.env, stdout=subprocess.PIPE)
        try:
            assert Lines(process).next().startswith("clusterling ready: https://127.0.0.1:")
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
        # Functions and variables of one block are there in the next, as in one terminal: the state goes through a file.
        state = self.directory / ".shell"
        script = f"[ -f {state} ] && . {state}\nset -euo pipefail\n{block.body}\n{{ declare -f; export -p; }} > {state}\n"
        done = run(
            ["bash", "-c", script],
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
        story = Story(tmp_path, programs, stack)
        for block in _blocks(page):
            story.live(block)


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
    r"^\| (?P<name>[^|]+) \| (?P<value>[0-9,]+)[^|]*\| `(?P<path>[\w.]+)` \|$",
    (ROOT / "docs/reference/limits.md").read_text(),
    re.MULTILINE,
)


@pytest.mark.parametrize(("name", "value", "path"), LIMITS, ids=[limit[0] for limit in LIMITS])
def test_the_limits_named_are_those_in_the_code(name: str, value: str, path: str) -> None:
    module, _, constant = path.rpartition(".")
    assert int(value.replace(",", "")) == getattr(importlib.import_module(module), constant), name


def test_links_between_pages_lead_somewhere() -> None:
    links = [
        (page, target)
        for page in {*PAGES, *ROOT.glob("*.md")}
        for target in re.findall(r"\]\(([^)#:]+)\)", re.sub(r"`[^`]*`", "", page.read_text()))
    ]
    assert links
    assert [(page.name, target) for page, target in links if not (page.parent / target).exists()] == []
