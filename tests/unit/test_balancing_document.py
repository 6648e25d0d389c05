"""docs/balancing.md says what is true: its configurations are read, its programs run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from etcd_grpc.balancer.policies import POLICIES, parse_policy
from etcd_grpc.balancer.service_config import ServiceConfig

DOCS = Path(__file__).resolve().parents[2] / "docs"
ENGLISH, CHINESE = DOCS / "balancing.md", DOCS / "balancing.zh-CN.md"
PARSER = MarkdownIt("commonmark").enable("table")


def blocks(document: Path, language: str) -> list[str]:
    tokens = PARSER.parse(document.read_text(encoding="utf-8"))
    return [token.content for token in tokens if token.type == "fence" and token.info == language]


def shape(document: Path) -> list[str]:
    wanted = {"heading_open", "table_open", "tr_open", "list_item_open", "fence"}
    tokens = PARSER.parse(document.read_text(encoding="utf-8"))
    return [f"{token.type} {token.tag}" for token in tokens if token.type in wanted]


@pytest.mark.parametrize("text", blocks(ENGLISH, "json"))
def test_configuration_is_read(text: str) -> None:
    """A list is what ``loadBalancingConfig`` says, an object a whole service config."""
    said = json.loads(text)
    ServiceConfig({"loadBalancingConfig": said} if isinstance(said, list) else said)


def test_every_policy_has_a_heading_and_a_configuration() -> None:
    text = ENGLISH.read_text(encoding="utf-8")
    said = [json.loads(block) for block in blocks(ENGLISH, "json")]
    shown = {name for policy in said if isinstance(policy, list) for name in policy[0]}
    assert shown == set(POLICIES)
    assert all(f"### `{name}`" in text for name in POLICIES)


def test_the_table_of_outlier_detection_has_its_settings_with_their_defaults() -> None:
    settings: Any = parse_policy("outlier_detection").settings
    text = ENGLISH.read_text(encoding="utf-8")
    for name, field in zip(settings.__struct_encode_fields__, settings.__struct_fields__, strict=True):
        default = getattr(settings, field)
        if isinstance(default, float) and type(default) is not float:  # a duration
            shown = f'`"{default:g}s"`'
        else:
            shown = "off" if default is None else f"{default:g}" if name != "childPolicy" else ""
        if name != "childPolicy":
            assert f"| `{name}` | {shown} |" in text


def test_programs_run(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for program in blocks(ENGLISH, "python"):
        exec(compile(program, "balancing.md", "exec"), names)
    names["channel"].close()
    said = capsys.readouterr().out
    assert "least_request, peak_ewma" in said
    assert names["report"]["outlier_detection"].shares["broken"] < 0.01
    best = min(names["report"].results, key=lambda result: result.p99_ms + result.errors)
    assert best.policy == "outlier_detection"


def test_both_languages_have_the_same_shape_and_code() -> None:
    assert shape(CHINESE) == shape(ENGLISH)
    for language in ("json", "python"):
        assert blocks(CHINESE, language) == blocks(ENGLISH, language)
