"""docs/retries.md says what is true: its configurations are read, its numbers are the code's."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from etcd_grpc.balancer.service_config import MethodConfig, ServiceConfig
from etcd_grpc.channel.retry import MAX_TRANSPARENT

PAGE = Path(__file__).resolve().parents[2] / "docs" / "retries.md"
TEXT = re.sub(r"\s+", " ", PAGE.read_text(encoding="utf-8"))


def configs() -> list[str]:
    tokens = MarkdownIt("commonmark").parse(PAGE.read_text(encoding="utf-8"))
    return [token.content for token in tokens if token.type == "fence" and token.info == "json"]


@pytest.mark.parametrize("text", configs())
def test_configuration_is_read_and_says_what_the_page_says(text: str) -> None:
    said = json.loads(text)
    parsed = ServiceConfig(text)
    assert parsed.throttling is not None
    (method,) = said["methodConfig"]
    (name,) = method["name"]
    found = parsed.method(f"/{name['service']}/{name.get('method', 'Any')}")
    assert (found.retry is None) != (found.hedging is None)
    assert found != MethodConfig()


def test_both_policies_are_shown() -> None:
    assert {
        policy for text in configs() for policy in ("retryPolicy", "hedgingPolicy") if policy in text
    }


def test_limits_are_the_codes() -> None:
    policy = {"maxAttempts": 99, "hedgingDelay": "1s"}
    hedging = ServiceConfig({"methodConfig": [{"name": [{}], "hedgingPolicy": policy}]}).method("/a/b")
    assert hedging.hedging is not None
    assert f"more than {hedging.hedging.max_attempts} are treated as" in TEXT
    assert f"at most {MAX_TRANSPARENT} times" in TEXT
