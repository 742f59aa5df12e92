"""A CA and what it signs, made by openssl as docs/security.md tells operators to."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

OPENSSL = shutil.which("openssl")
_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


class Authority:
    """A CA with its files in a directory."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.name = name
        self.cert = directory / f"{name}.pem"
        self._key = directory / f"{name}.key"
        openssl(
            "req", "-x509", *_CURVE, "-days", "30", "-subj", f"/CN={name}",
            "-addext", "keyUsage = critical, keyCertSign, cRLSign", "-keyout", self._key, "-out", self.cert,
        )  # fmt: skip

    def sign(self, name: str, *names: str, days: int = 30) -> tuple[Path, Path]:
        """Return certificate and key of `name`, which is for the hosts `names` (DNS:..., IP:...)."""
        cert, key = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        request = self.directory / f"{name}.csr"
        openssl("req", *_CURVE, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        extensions = self.directory / f"{name}.ext"
        said = f"subjectAltName = {', '.join(names)}\n" if names else ""
        extensions.write_text(f"{said}authorityKeyIdentifier = keyid\n")
        openssl(
            "x509", "-req", "-in", request, "-CA", self.cert, "-CAkey", self._key, "-days", str(days),
            "-extfile", extensions, "-out", cert,
        )  # fmt: skip
        return cert, key


def openssl(*words: str | Path) -> None:
    """Run openssl; its words stand in the error if it fails."""
    done = subprocess.run(
        ["openssl", *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
