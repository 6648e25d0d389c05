"""The pages of the command line are what the commands say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
import typer
from scripts.cli_reference import PAGES, PageError, commands, render

ROOT = Path(__file__).parents[2]
AGAIN = "is not current: run python scripts/cli_reference.py, and say in Chinese, too, what is new"


@pytest.mark.parametrize("page", PAGES)
def test_page_is_current(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    current = render(page, text, list(commands())) == text
    assert current, f"{page} {AGAIN}"


def made() -> typer.Typer:
    program = typer.Typer()
    group = typer.Typer()

    @program.command()
    def some_thing(
        service: Annotated[str, typer.Argument(metavar="SERVICE", help="Which.")],
        rest: Annotated[list[str] | None, typer.Argument(help="More.")] = None,
        count: Annotated[int, typer.Option(min=1, help="How *many* | or <so>.")] = 3,
        seconds: Annotated[float, typer.Option("--wait", "-w", min=0, max=10)] = 2.5,
        loud: Annotated[bool, typer.Option(help="Loud.")] = True,
        plain: Annotated[bool, typer.Option("--plain")] = False,
        where: Annotated[Path | None, typer.Option(show_default=False)] = None,
        secret: Annotated[str, typer.Option(hidden=True)] = "",
    ) -> None:
        """Do something.

        At some length,
        over lines.
        """

    @group.command("get")
    def _get() -> None:
        """Get it."""

    program.add_typer(group, name="group")
    return program


def test_every_parameter_is_one_row() -> None:
    something, get = commands(made())
    page = render("docs/cli.md", "# Page\n", [something])
    assert something.usage == "etcd-grpc some-thing [OPTIONS] SERVICE [REST...]"
    assert get.usage == "etcd-grpc group get"
    assert page == (
        "# Page\n"
        "\n"
        "## some-thing\n"
        "\n"
        "Do something.\n"
        "\n"
        "<!-- command: some-thing -->\n"
        "\n"
        "```text\n"
        "etcd-grpc some-thing [OPTIONS] SERVICE [REST...]\n"
        "```\n"
        "\n"
        "At some length, over lines.\n"
        "\n"
        "| argument, option | value | default | meaning |\n"
        "|---|---|---|---|\n"
        "| `SERVICE` |  |  | Which. |\n"
        "| `[REST...]` |  |  | More. |\n"
        "| `--count` | `N ≥ 1` | `3` | How \\*many\\* \\| or \\<so>. |\n"
        "| `--wait, -w` | `0..10` | `2.5` |  |\n"
        "| `--loud/--no-loud` |  | `--loud` | Loud. |\n"
        "| `--plain` |  |  |  |\n"
        "| `--where` | `PATH` |  |  |\n"
        "\n"
        "<!-- end of some-thing -->\n"
    )


def test_what_is_written_by_hand_is_kept() -> None:
    found = list(commands(made()))
    page = render("docs/cli.md", "# Page\n", found).replace("Do something.", "By hand.")
    assert render("docs/cli.md", page, found) == page
    changed = page.replace("At some length, over lines.", "Edited where it is generated.")
    assert render("docs/cli.md", changed, found) == page


def test_chinese_page_has_the_same_rows_and_no_english_prose() -> None:
    (something, _) = commands(made())
    page = render("docs/cli.zh-CN.md", "# 页\n", [something])
    assert "| 参数、选项 | 值 | 默认 | 含义 |" in page
    assert "| `--count` | `N ≥ 1` | `3` |" in page
    assert "At some length" not in page


def test_section_of_a_command_that_is_gone_is_an_error_that_names_it() -> None:
    (something, get) = commands(made())
    page = render("docs/cli.md", "# Page\n", [something, get])
    with pytest.raises(PageError, match="'group get'"):
        render("docs/cli.md", page, [something])


def test_two_sections_of_one_command_are_an_error_that_names_it() -> None:
    """As after a merge of two branches that both wrote one."""
    found = list(commands(made()))
    page = render("docs/cli.md", "# Page\n", found)
    with pytest.raises(PageError, match="2 sections of 'some-thing'"):
        render("docs/cli.md", page + page, found)
