"""What a model was trained on, by digest: what a checkpoint compares before it is used."""

from __future__ import annotations

from typing import Literal

from aqnet.config import Config
from aqnet.data.dataset import Sha256, Text

__all__ = ["Identity"]


class Identity(Config):
    """Data, grid, variables and caches of a training.

    Digests are SHA-256. `stores`: file name and content digest of each store, by time.
    `statistics_sha256`: of the file of statistics (None for stations, whose statistics are fitted
    in memory: `normaliser_sha256` covers them). `scan_sha256`, `terrain_sha256`: of the arrays of
    the wind-scan and ridge caches, None where the model uses none. `weather`: provenance of
    weather at the valid time, see `weather_provenance`.
    """

    kind: Literal["stations", "grid"]  # of the data
    manifest: Text  # name
    manifest_sha256: Sha256  # its digest
    stores: tuple[tuple[Text, Sha256], ...]
    grid: Text  # name
    grid_sha256: Sha256  # of its coordinates
    mask_sha256: Sha256  # of the active cells
    variables: tuple[Text, ...]  # of the hours, in order
    static_variables: tuple[Text, ...]  # fixed fields, in order
    normaliser_sha256: Sha256
    statistics_sha256: Sha256 | None = None
    scan_sha256: Sha256 | None = None
    terrain_sha256: Sha256 | None = None
    weather: Text = "none"
    synthetic: bool  # simulated data

    def digests(self) -> dict[str, str]:
        """SHA-256 by name of all that was read, for the record of a run."""
        named = {
            f"manifest {self.manifest}": self.manifest_sha256,
            **{f"store {name}": digest for name, digest in self.stores},
            f"grid {self.grid}": self.grid_sha256,
            "mask": self.mask_sha256,
            "normaliser": self.normaliser_sha256,
            "statistics": self.statistics_sha256,
            "wind scan": self.scan_sha256,
            "terrain": self.terrain_sha256,
        }
        return {name: digest for name, digest in named.items() if digest is not None}
