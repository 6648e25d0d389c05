"""A folder with a CA and one certificate, mounted and rotated as Kubernetes does it."""

from __future__ import annotations

import datetime as dt
import itertools
from pathlib import Path

import trustme

from etcd_grpc.tls.material import CertificateFiles

__all__ = ["Folder"]


class Folder:
    """``ca.crt``, ``tls.crt`` and ``tls.key``: links to ``..data/...``, and ``..data`` to a folder.

    Args:
        path: It is made.
        authority: Who signs.
    """

    def __init__(self, path: Path, authority: trustme.CA) -> None:
        self.path = path
        self.authority = authority
        self._versions = itertools.count(1)
        path.mkdir()
        for name in ("ca.crt", "tls.crt", "tls.key"):
            (path / name).symlink_to(Path("..data") / name)

    @property
    def files(self) -> CertificateFiles:
        return CertificateFiles(self.ca, self.cert, self.key)

    @property
    def ca(self) -> Path:
        return self.path / "ca.crt"

    @property
    def cert(self) -> Path:
        return self.path / "tls.crt"

    @property
    def key(self) -> Path:
        return self.path / "tls.key"

    def rotate(self, *names: str, end: dt.datetime | None = None, whole: bool = True) -> None:
        """A new certificate for ``names``; not ``whole``: the files are overwritten one by one."""
        leaf = self.authority.issue_cert(*names, not_after=end)
        self.put(leaf.cert_chain_pems[0].bytes(), leaf.private_key_pem.bytes(), whole=whole)

    def mismatch(self, *names: str) -> None:
        """A certificate with the key of another one."""
        pair = [self.authority.issue_cert(*names) for _ in range(2)]
        self.put(pair[0].cert_chain_pems[0].bytes(), pair[1].private_key_pem.bytes())

    def remove(self) -> None:
        """Take the mounted version away."""
        (self.path / "..data").unlink()

    def put(self, cert: bytes, key: bytes, *, ca: bytes | None = None, whole: bool = True) -> None:
        """Put these in the place of what is there."""
        contents = {
            "ca.crt": self.authority.cert_pem.bytes() if ca is None else ca,
            "tls.crt": cert,
            "tls.key": key,
        }
        if not whole:
            for name, content in contents.items():
                (self.path / name).write_bytes(content)
            return
        version = self.path / f"..version-{next(self._versions)}"
        version.mkdir()
        for name, content in contents.items():
            (version / name).write_bytes(content)
        link = self.path / "..data_tmp"
        link.symlink_to(version.name)
        link.replace(self.path / "..data")
