"""Lists of digests in the form of sha256sum: of what was staged, and of what a run produced."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from aqnet.errors import RunError, explain
from aqnet.io import atomic_write_text, sha256_file

__all__ = ["RESULTS", "digest_lines", "read_digests", "write_results"]

RESULTS = "results.sha256"  # in the folder of a complete run
_PRODUCED = ("metrics.json", "notebook.ipynb", "script.py", "report.html", "checkpoints/*.ckpt",
             "checkpoints/metrics.csv")  # fmt: skip


def digest_lines(folder: Path, paths: Iterable[Path], prefix: str = "") -> str:
    """Lines of `sha256sum` for files below a folder; a file with two names is read once.

    `prefix` goes before the paths within the folder.
    """
    known: dict[tuple[int, int], str] = {}
    lines = []
    for path in paths:
        status = path.stat()
        key = (status.st_dev, status.st_ino)
        if key not in known:
            known[key] = sha256_file(path)
        lines.append(f"{known[key]}  {prefix}{path.relative_to(folder).as_posix()}\n")
    return "".join(lines)


def read_digests(file: Path) -> dict[str, str]:
    """SHA-256 by path, from a file of such lines.

    Raises
    ------
    RunError
        It has other lines.
    """
    lines = [line.split("  ", 1) for line in file.read_text(encoding="utf-8").splitlines()]
    if all(len(line) == 2 and len(line[0]) == 64 for line in lines):
        return {path: digest for digest, path in lines}
    message = explain(
        f"{file} is damaged",
        expected="lines of sha256sum: digest, two blanks, path",
        found="other lines",
        remedy="take the run folder from a copy",
    )
    raise RunError(message)


def write_results(folder: Path) -> None:
    """Note the digests of what a run has produced."""
    paths = [path for pattern in _PRODUCED for path in sorted(folder.glob(pattern))]
    atomic_write_text(folder / RESULTS, digest_lines(folder, paths))
