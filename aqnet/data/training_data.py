"""What training on yearly stores starts from: stores and statistics that the record describes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aqnet.data.grid_manifest import GridManifest
from aqnet.data.normalisation import Normaliser
from aqnet.data.splits import Split, splits_of
from aqnet.data.statistics.file import (
    Statistics,
    check_statistics,
    load_statistics,
    normaliser_of_statistics,
)
from aqnet.data.years.year_set import YearSet, open_years
from aqnet.errors import ChecksumError, explain
from aqnet.io import stores_folder

__all__ = ["TrainingData", "open_training_data"]


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Recorded stores of a manifest, its splits, and what was fitted on the training split.

    Attributes
    ----------
    years : YearSet
    splits : dict of Split
        "train", "validation" and "test", UTC.
    statistics : Statistics
    normaliser : Normaliser
        Of the statistics; its digest belongs into every checkpoint.
    """

    years: YearSet
    splits: dict[str, Split]
    statistics: Statistics
    normaliser: Normaliser


def open_training_data(
    manifest: GridManifest, folder: str | Path | None = None, reference: str = "constant"
) -> TrainingData:
    """Open the data of a training, if all of them are the recorded ones.

    Parameters
    ----------
    manifest : GridManifest
    folder : path, optional
        Folder of stores and statistics; default `stores_folder(manifest.name)`.
    reference : str
        What the normaliser subtracts; see `normaliser_of_statistics`.

    Raises
    ------
    StoreError, CoverageError, ManifestError
        A store is missing, not recorded, or another one than recorded; says what differs.
    ChecksumError
        The statistics are not recorded, damaged, or of other stores or another training split.
    """
    folder = stores_folder(manifest.name, folder)
    years, splits = open_years(manifest, folder), splits_of(manifest)
    recorded = manifest.record().statistics
    if recorded is None:
        name = manifest.called
        raise ChecksumError(
            explain(
                f"the statistics of {manifest.name} are not recorded",
                expected=f"an entry `statistics` in {manifest.record_path}",
                found="none",
                remedy=f"aqnet data stats {name}, then aqnet data record {name}",
            )
        )
    statistics = load_statistics(folder / recorded.file, recorded.sha256)
    check_statistics(statistics, years.stores, splits["train"])
    normaliser = normaliser_of_statistics(statistics, reference)
    return TrainingData(years, splits, statistics, normaliser)
