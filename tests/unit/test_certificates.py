"""What a certificate says, and for whom it is."""

from __future__ import annotations

import datetime as dt

import pytest
import trustme

from etcd_grpc.certificates import Facts, facts_of

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
END = dt.datetime(2026, 2, 1, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("names", "wanted", "is_for"),
    [
        (["greeter"], "greeter", True),
        (["helloworld.Greeter"], "HELLOWORLD.greeter", True),
        (["greeter.test."], "greeter.test", True),
        (["10.0.0.1"], "10.0.0.1", True),
        (["10.0.0.1"], "10.0.0.2", False),
        (["*.example.com"], "a.example.com", True),
        (["*.example.com"], "a.b.example.com", False),
        (["*.example.com"], "example.com", False),
        (["*.com"], "example.com", False),
        (["spiffe://example.org/greeter"], "greeter", False),
        ([], "greeter", False),
    ],
)
def test_for_whom_a_certificate_is(names: list[str], wanted: str, is_for: bool) -> None:
    assert Facts(START, END, tuple(names)).is_for(wanted) is is_for


def test_when_a_certificate_is_valid() -> None:
    facts = Facts(START, END, ("greeter",))
    day = dt.timedelta(days=1)
    assert not facts.problem(START + day)
    assert facts.problem(END + day) == "expired: notAfter is 2026-02-01 00:00 UTC"
    assert facts.problem(START - day) == "is not valid yet: notBefore is 2026-01-01 00:00 UTC"


def test_what_stands_in_a_certificate() -> None:
    authority = trustme.CA(organization_name="ours")
    leaf = authority.issue_cert("greeter", "127.0.0.1", not_before=START, not_after=END)
    facts = facts_of(leaf.cert_chain_pems[0].bytes())
    assert facts is not None
    assert facts[:3] == (START, END, ("greeter", "127.0.0.1"))
    assert "O=ours" in facts.issuer
