"""The manifest and the yearly stores that forecasts are compared with, for the commands that do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aqnet.errors import ParameterError, explain

if TYPE_CHECKING:
    from aqnet.data.grid_manifest import GridManifest
    from aqnet.data.years.year_set import YearSet
    from aqnet.verification.store.reader import ForecastStore

__all__ = ["grid_manifest", "open_truth"]


def grid_manifest(name: str | None, need: str, otherwise: str) -> GridManifest:
    """The manifest of a name or file.

    Raises
    ------
    ParameterError
        Not one of fields; `need` says why there has to be one, `otherwise` what else could be done.
    """
    from aqnet.data.grid_manifest import GridManifest
    from aqnet.data.manifest import load_manifest, resolve_manifest

    found = None if name is None else load_manifest(resolve_manifest(name))
    if not isinstance(found, GridManifest):
        raise ParameterError(
            explain(need, expected="--manifest, of kind grid", found=name or "none",
                    remedy=f"name the manifest of the yearly stores; or {otherwise}")
        )  # fmt: skip
    return found


def open_truth(
    manifest: GridManifest, folder: Path | None, stores: Sequence[ForecastStore], recorded: bool
) -> YearSet:
    """Years of the init and valid times of forecasts that the manifest has.

    Raises
    ------
    ParameterError
        It has none of them.
    """
    import numpy as np

    from aqnet.data.years.year_set import open_years
    from aqnet.grid import local_clock

    times = np.concatenate([s.init_times for s in stores] + [s.valid_times.ravel() for s in stores])
    labels = local_clock(times, manifest.source_utc_offset_h).astype("datetime64[Y]")
    wanted = set((np.unique(labels).astype(int) + 1970).tolist())
    years = tuple(year for year in manifest.years if year in wanted)
    if not years:
        raise ParameterError(
            explain("the manifest has no year of the forecasts", expected=sorted(wanted),
                    found=manifest.years, remedy="give the manifest of the truth")
        )  # fmt: skip
    return open_years(manifest, folder, years, recorded=recorded)
