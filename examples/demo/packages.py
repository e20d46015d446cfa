"""The two public packages that the demo works on: fetched once with pip, checked, unpacked under .cache/."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PACKAGES", "Package", "PackageError", "unpacked"]


class PackageError(Exception):
    """A package cannot be had, or is not the one that was published."""


@dataclass(frozen=True)
class Package:
    """One wheel on the package index, with the SHA-256 of its file."""

    name: str
    version: str
    sha256: str

    @property
    def wheel(self) -> str:
        """The file's name."""
        return f"{self.name}-{self.version}-py3-none-any.whl"


PACKAGES = (
    Package("rxnfp", "0.1.0", "c5c1e818add6f34539a6b29bc680c47c9e7311e9383d1b34ce901481e34b58cf"),
    Package("rxnmapper", "0.4.3", "27876a4286881aafd286fd6f24a6a56a4ca6ba22d68e035a0ea120106c541ba5"),
)


def unpacked(package: Package, cache: Path) -> Path:
    """Return the folder `cache`/NAME with the package's files, fetching and unpacking it when it is not there yet.

    Raises:
        PackageError: it cannot be downloaded, or the downloaded file has another SHA-256.
    """
    folder = cache / package.name
    if (folder / ".sha256").is_file() and (folder / ".sha256").read_text() == package.sha256:
        return folder
    wheel = _downloaded(package, cache / "downloads")
    cache.mkdir(parents=True, exist_ok=True)
    # Unpacked aside and renamed, so that a folder under its final name is always whole.
    aside = Path(tempfile.mkdtemp(prefix=f"{package.name}.", dir=cache))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(aside)
    (aside / ".sha256").write_text(package.sha256)
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
    return folder


def _downloaded(package: Package, downloads: Path) -> Path:
    wheel = downloads / package.wheel
    if wheel.is_file():
        if _sha256(wheel) == package.sha256:
            return wheel
        wheel.unlink()
    downloads.mkdir(parents=True, exist_ok=True)
    wanted = f"{package.name}=={package.version}"
    print(f"Downloading {wanted} ...", flush=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(downloads), wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not wheel.is_file():
        last = (done.stderr.strip() or "pip said nothing").splitlines()[-1]
        raise PackageError(
            f"The demo needs {wanted} from the package index, and pip could not download it: {last}\n"
            f"Put {package.wheel} (sha256 {package.sha256}) into {downloads} and run it again."
        )
    found = _sha256(wheel)
    if found != package.sha256:
        raise PackageError(f"{wheel} is not the published file: its sha256 is {found}, expected {package.sha256}.")
    return wheel


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
