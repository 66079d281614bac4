"""Which code is running: version of aqnet, commit and changed files of its work tree."""

from __future__ import annotations

import subprocess
from pathlib import Path

from aqnet.config import Config

__all__ = ["GIT_STATE", "GitState", "git_state"]

GIT_STATE = "git_state.json"  # beside a copy of the code that was made to be run later


class GitState(Config):
    """State of the code: `state` says in words why commit or dirty files are missing."""

    state: str
    commit: str | None = None
    dirty: tuple[str, ...] = ()


def _git(*arguments: str, folder: Path) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def git_state(folder: str | Path) -> GitState:
    """Commit and changed files (as `git status --porcelain` lists them) of a work tree.

    Of a staged copy of the code: what was recorded when it was made.
    """
    folder = Path(folder)
    if (folder / GIT_STATE).is_file():
        return GitState.model_validate_json((folder / GIT_STATE).read_bytes())
    try:
        status = _git("status", "--porcelain", "--untracked-files=normal", folder=folder)
    except FileNotFoundError:
        return GitState(state="git is not installed")
    except subprocess.CalledProcessError as error:
        return GitState(state=f"no git state: {error.stderr.strip()}")
    dirty = tuple(line for line in status.splitlines() if line)
    try:
        commit = _git("rev-parse", "--verify", "HEAD", folder=folder).strip()
    except subprocess.CalledProcessError:
        return GitState(state="no commit yet", dirty=dirty)
    return GitState(state="dirty" if dirty else "clean", commit=commit, dirty=dirty)
