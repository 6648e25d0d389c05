"""What is checked of certificate files, also where less is installed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from tests.support.certificates import Folder

from etcd_grpc.errors import ConfigurationError


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "mounted", trustme.CA())
    made.rotate("greeter")
    return made


def test_good_files_are_what_stands_in_them(folder: Folder) -> None:
    material = folder.files.load()
    assert material.cert == folder.cert.read_bytes()
    assert material.key == folder.key.read_bytes()


def test_without_cryptography_a_pair_is_checked_all_the_same(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert folder.files.load()
    folder.mismatch("greeter")
    with pytest.raises(ConfigurationError, match="does not belong to the certificate"):
        folder.files.load()


def test_without_memory_files_the_files_themselves_are_checked(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "memfd_create")
    assert folder.files.load()
    folder.mismatch("greeter")
    with pytest.raises(ConfigurationError, match="does not belong to the certificate"):
        folder.files.load()


def test_a_key_with_a_password_is_refused_without_asking_for_it(folder: Folder) -> None:
    leaf = folder.authority.issue_cert("greeter")
    key = serialization.load_pem_private_key(leaf.private_key_pem.bytes(), None)
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    folder.put(leaf.cert_chain_pems[0].bytes(), locked)
    with pytest.raises(ConfigurationError, match="the key without a password"):
        folder.files.load()


def test_files_that_are_not_wanted_are_not_there(folder: Folder) -> None:
    files = type(folder.files)(folder.ca, None, None)
    assert files.paths == (folder.ca,)
    assert files.load().cert is None
