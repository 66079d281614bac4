"""Make the archive that is deposited with a publication: `make archive`.

One zip file: the tracked files of the last commit (code, notebooks, manifests, small data, tables
of results), wheel and source distribution of the package, what it is made from, and the SHA-256 of
every file. The same commit and packages give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tarfile
import zipfile
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

from aqnet import __version__
from aqnet.io import atomic_write_bytes, repository_root

# In every archive, or it is not one to deposit.
EXPECTED = (
    "README.md", "LICENSE", "CITATION.cff", "constraints.txt", "data_manifests/beijing.yaml",
    "data_manifests/beijing/LICENCE-DATA.md", "data_manifests/beijing/stations.nc",
)  # fmt: skip


def git(*words: str) -> bytes:
    """What git answers."""
    command = ["git", "-C", str(repository_root()), *words]
    return subprocess.run(command, capture_output=True, check=True).stdout


def tracked_files() -> tuple[dict[str, bytes], set[str]]:
    """Files of the last commit by name, and which of them are executable."""
    with tarfile.open(fileobj=BytesIO(git("archive", "--format=tar", "HEAD"))) as tar:
        members = [member for member in tar if member.isfile()]
        files = {member.name: tar.extractfile(member).read() for member in members}
        return files, {member.name for member in members if member.mode & 0o100}


def packages(folder: Path) -> dict[str, bytes]:
    """Wheel and source distribution of this version, or the reason why not."""
    kinds = (f"aqnet-{__version__}-*.whl", f"aqnet-{__version__}.tar.gz")  # not the archive itself
    found = sorted(path for kind in kinds for path in folder.glob(kind))
    kinds = sorted("".join(path.suffixes[-2:]) for path in found)
    if len(found) != 2:
        sys.exit(f"error: expected a wheel and a .tar.gz of aqnet {__version__} in {folder}, found "
                 f"{kinds or 'nothing'}; make them with `make package`")  # fmt: skip
    return {f"packages/{path.name}": path.read_bytes() for path in found}


def archive_bytes(files: dict[str, bytes], executable: set[str], made: datetime) -> bytes:
    """A zip file of these files and their digests; the same bytes for the same files.

    Of the modes only whether a file can be executed: others depend on the settings of git.
    """
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    sums = "".join(f"{digests[name]}  {name}\n" for name in sorted(files))
    into, held = f"aqnet-{__version__}", BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted((files | {"SHA256SUMS": sums.encode()}).items()):
            entry = zipfile.ZipInfo(f"{into}/{name}", made.timetuple()[:6])
            mode = 0o755 if name in executable else 0o644
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, mode << 16
            archive.writestr(entry, content)
    return held.getvalue()


def main() -> None:
    """Write `dist/aqnet-VERSION-archive.zip`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dist", type=Path, default=repository_root() / "dist",
                        help="folder with the packages, and for the archive")  # fmt: skip
    folder = parser.parse_args().dist
    if changed := git("status", "--porcelain").decode().splitlines():
        sys.exit(f"error: expected a clean work tree, found {len(changed)} changed files, "
                 f"{changed[0]!r} first; commit them, so that the archive is a commit")  # fmt: skip
    commit, seconds = git("log", "-1", "--format=%H %ct").decode().split()
    made = datetime.fromtimestamp(int(seconds), UTC)
    files, executable = tracked_files()
    if lacking := sorted(set(EXPECTED) - set(files)):
        sys.exit(f"error: expected {lacking} among the tracked files, found none; restore them")
    origin = {"version": __version__, "commit": commit, "committed": made.isoformat()}
    files |= packages(folder) | {"ORIGIN.json": json.dumps(origin, indent=2).encode() + b"\n"}
    content = archive_bytes(files, executable, made)
    path = folder / f"aqnet-{__version__}-archive.zip"
    atomic_write_bytes(path, content)
    print(f"{path}: {len(files) + 1} files, {len(content) / 1e6:.1f} MB, "
          f"sha256 {hashlib.sha256(content).hexdigest()}")  # fmt: skip


if __name__ == "__main__":
    main()
