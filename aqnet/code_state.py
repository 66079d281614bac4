"""Which code is running: sources of aqnet, commit and changes of its work tree."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

from aqnet.config import Config
from aqnet.io import sha256_file, sha256_json

__all__ = ["GIT_STATE", "GitState", "git_state", "sources_digest"]

GIT_STATE = "git_state.json"  # beside a copy of the code that was made to be run later


# Whatever the user has set for `git diff`, the same changes give the same text.
_DIFF = ("diff", "--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--binary",
         "--full-index", "--unified=3", "--diff-algorithm=myers", "--src-prefix=a/",
         "--dst-prefix=b/", "HEAD")  # fmt: skip


class GitState(Config):
    """State of the code.

    Attributes
    ----------
    state : str
        In words; also why commit or dirty files are missing.
    commit : str or None
    dirty : tuple of str
        Changed files, as `git status --porcelain` lists them.
    diff_sha256 : str or None
        Of the changes of tracked files against the commit.
    sources_sha256 : str or None
        `sources_digest` of the package; None in records older than it.
    """

    state: str
    commit: str | None = None
    dirty: tuple[str, ...] = ()
    diff_sha256: str | None = None
    sources_sha256: str | None = None


def sources_digest(folder: str | Path) -> str:
    """SHA-256 over names and bytes of all files of a package, byte code and hidden ones aside."""
    folder, found = Path(folder), {}
    for parent, folders, names in os.walk(folder):
        folders[:] = [n for n in folders if n != "__pycache__" and not n.startswith(".")]
        for path in (Path(parent) / n for n in names if not n.startswith(".")):
            if path.suffix != ".pyc" and path.name != GIT_STATE:
                found[path.relative_to(folder).as_posix()] = sha256_file(path)
    return sha256_json(found)


def _git(*arguments: str, folder: Path) -> bytes:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, check=True).stdout


def _reason(error: subprocess.CalledProcessError) -> str:
    """What git said, or how it ended: on a full disk a signal may kill it without a word."""
    said = error.stderr.decode(errors="replace").strip()
    how = f"signal {-error.returncode}" if error.returncode < 0 else f"code {error.returncode}"
    return said or f"git {error.cmd[3]} ended with {how}"


def _changes(folder: Path) -> tuple[str | None, str]:
    """SHA-256 of the changes against the commit or None, and a note for the state."""
    try:
        return hashlib.sha256(_git(*_DIFF, folder=folder)).hexdigest(), ""
    except subprocess.CalledProcessError as error:
        return None, f"; the changes are not known: {_reason(error)}"


def git_state(folder: str | Path) -> GitState:
    """State of the work tree that holds a package.

    Of a staged copy of the code: what was recorded when it was made.
    """
    folder = Path(folder)
    if (folder / GIT_STATE).is_file():
        return GitState.model_validate_json((folder / GIT_STATE).read_bytes())
    sources = sources_digest(folder)
    try:
        status = _git("status", "--porcelain", "--untracked-files=normal", folder=folder)
    except FileNotFoundError:
        return GitState(state="git is not installed", sources_sha256=sources)
    except subprocess.CalledProcessError as error:
        return GitState(state=f"no git state: {_reason(error)}", sources_sha256=sources)
    dirty = tuple(line for line in status.decode(errors="replace").splitlines() if line)
    try:
        commit = _git("rev-parse", "--verify", "HEAD", folder=folder).decode().strip()
    except subprocess.CalledProcessError as error:
        state = "no commit yet" if error.returncode > 0 else f"no commit: {_reason(error)}"
        return GitState(state=state, dirty=dirty, sources_sha256=sources)
    diff, gap = _changes(folder)
    state = f"{'dirty' if dirty else 'clean'}{gap}"
    return GitState(
        state=state, commit=commit, dirty=dirty, diff_sha256=diff, sources_sha256=sources
    )
