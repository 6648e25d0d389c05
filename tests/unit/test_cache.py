"""What is saved of a service: what is refused, and what is left when the disk fails."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from etcd_grpc.cache import CacheFile, ConfigFile, Saved, SavedConfig
from etcd_grpc.checked_file import UnusableError
from etcd_grpc.model import Endpoint, Status

ETCD = ("10.0.0.1:2379",)
VIEW = Saved(
    [
        Endpoint("greeter/a", "10.0.0.5:1", id="a", weight=2, zone="z", metadata={"k": [1, None]}),
        Endpoint("greeter/b", "[::1]:2", status=Status.DRAINING, revision=7),
    ],
    1234.5,
)


@pytest.fixture
def file(tmp_path: Path) -> CacheFile:
    return CacheFile(tmp_path / "cache", ETCD, "prod/greeter")


def test_what_was_saved_is_loaded(file: CacheFile) -> None:
    file.save(VIEW)
    loaded = file.load()
    assert loaded is not None
    assert list(loaded.endpoints) == list(VIEW.endpoints)
    assert loaded.saved_at == VIEW.saved_at


def test_saved_service_config_stands_beside_the_view(file: CacheFile) -> None:
    config = ConfigFile(file.path.parent, ETCD, "prod/greeter")
    assert config.load() is None
    file.save(VIEW)
    config.save(SavedConfig('{"x": "中"}', 2.5))
    assert config.load() == SavedConfig('{"x": "中"}', 2.5)
    assert file.load() == VIEW
    config.save(SavedConfig(None, 3.0))
    config.save(SavedConfig(None, 3.0))
    assert config.load() is None
    assert list(file.path.parent.iterdir()) == [file.path]


def test_service_config_that_is_none_is_refused(file: CacheFile) -> None:
    file.save(VIEW)
    config = ConfigFile(file.path.parent, ETCD, "prod/greeter")
    file.path.rename(config.path)
    with pytest.raises(UnusableError, match="malformed"):
        config.load()


def test_nothing_saved_is_nothing(file: CacheFile) -> None:
    assert file.load() is None


def test_file_and_folder_are_their_owners_alone(file: CacheFile) -> None:
    file.save(VIEW)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700


def test_replacing_leaves_one_file(file: CacheFile) -> None:
    file.save(VIEW)
    file.save(Saved([], 2000.0))
    assert file.load() == Saved([], 2000.0)
    assert list(file.path.parent.iterdir()) == [file.path]


@pytest.mark.parametrize("mode", [0o644, 0o620, 0o604])
def test_file_that_others_may_touch_is_refused(file: CacheFile, mode: int) -> None:
    file.save(VIEW)
    file.path.chmod(mode)
    with pytest.raises(UnusableError, match=f"{mode:04o}"):
        file.load()


def test_symbolic_link_is_refused(file: CacheFile, tmp_path: Path) -> None:
    file.save(VIEW)
    real = tmp_path / "real"
    file.path.rename(real)
    file.path.symlink_to(real)
    with pytest.raises(UnusableError, match="cannot be read"):
        file.load()


@pytest.mark.parametrize("cut", [0, 1, 40, 100, 200])
def test_file_that_was_cut_short_is_refused(file: CacheFile, cut: int) -> None:
    file.save(VIEW)
    file.path.write_bytes(file.path.read_bytes()[:cut])
    with pytest.raises(UnusableError, match="cut short or changed"):
        file.load()


def test_file_that_was_changed_is_refused(file: CacheFile) -> None:
    file.save(VIEW)
    file.path.write_bytes(file.path.read_bytes().replace(b"10.0.0.5", b"10.6.6.6"))
    with pytest.raises(UnusableError, match="checksum"):
        file.load()


def test_file_of_another_service_is_refused(file: CacheFile, tmp_path: Path) -> None:
    other = CacheFile(tmp_path / "cache", ETCD, "prod/other")
    other.save(VIEW)
    other.path.rename(file.path)
    with pytest.raises(UnusableError, match="another service"):
        file.load()


def test_services_with_similar_names_have_files_of_their_own(tmp_path: Path) -> None:
    paths = {CacheFile(tmp_path, ETCD, name).path for name in ("a/b", "a_b", "a.b")}
    paths.add(CacheFile(tmp_path, ("10.0.0.2:2379",), "a/b").path)
    assert len(paths) == 4


def test_full_disk_leaves_what_was_there(file: CacheFile, monkeypatch: pytest.MonkeyPatch) -> None:
    file.save(VIEW)

    def full(descriptor: int, *_: Any, **__: Any) -> Any:
        os.close(descriptor)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fdopen", full)
    with pytest.raises(UnusableError, match="No space left"):
        file.save(Saved([], 2000.0))
    monkeypatch.undo()
    assert file.load() == VIEW
    assert list(file.path.parent.iterdir()) == [file.path]


def test_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnusableError, match="cannot be written"):
        CacheFile(tmp_path / "file" / "cache", ETCD, "greeter").save(VIEW)
