"""Folders that `aqnet physics` and `aqnet probe` write: results.json and pictures, for reports."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from aqnet.data.years.format import stamp
from aqnet.io import atomic_write_json

__all__ = ["FORMAT_VERSION", "Album", "stamps", "write_results"]

FORMAT_VERSION = 1


class Album:
    """Pictures of a folder, with what they show."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.entries = folder, []

    def add(self, file: str, title: str, caption: str, figure: Figure) -> None:
        """Write a figure and note what it shows."""
        figure.savefig(self.folder / file, dpi=110)
        self.entries.append({"file": file, "title": title, "caption": caption})


def write_results(album: Album, kind: str, record: dict, **content: object) -> dict:
    """Write results.json beside the pictures of an album.

    Parameters
    ----------
    album : Album
    kind : str
        `physics` or `probe`.
    record : dict
        Of what made it, see `aqnet.verification.provenance`.
    **content
        What the kind holds.

    Returns
    -------
    dict
        Content of the file.
    """
    about = {"kind": kind, "version": FORMAT_VERSION, "record": record}
    found = about | content | {"pictures": album.entries}
    atomic_write_json(album.folder / "results.json", found)
    return found


def stamps(times: np.ndarray) -> list[str]:
    """UTC hours as text."""
    return [stamp(time) for time in times]
