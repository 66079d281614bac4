"""Native hourly files: the twin on CAQRA's own grid, in CAQRA's units, to test the ingest."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from aqnet.data.grid_manifest import GridManifest
from aqnet.data.source.caqra import native_name, write_native_hour
from aqnet.data.twin.produce import Window, enter_year, spin_up
from aqnet.data.twin.recipe import twin_config
from aqnet.data.twin.simulate import Simulation, hour_number
from aqnet.errors import ParameterError, explain
from aqnet.lambert_grid import CAQRA_GRID, LambertGrid
from aqnet.progress import Progress, silent
from aqnet.variables import DYNAMIC

__all__ = ["LambertSampler", "write_native"]


class LambertSampler:
    """Bilinear interpolation from the twin's grid to the cells of a Lambert grid.

    Cells outside the outermost cell centres of the twin are NaN: the twin knows nothing there.

    Parameters
    ----------
    source : Grid
    target : LambertGrid
    along_grid : bool
        Turn u and v onto the axes of the target, as WRF writes them; otherwise east and north.
    """

    def __init__(self, source, target: LambertGrid, along_grid: bool):
        lat, lon = target.mesh()
        self.shape = target.shape
        self.inside = (
            (lat >= source.lat.min()) & (lat <= source.lat.max())
            & (lon >= source.lon.min()) & (lon <= source.lon.max())
        )  # fmt: skip
        self._cells, weights = source.bilinear(lat[self.inside], lon[self.inside])
        self._weights = weights.astype(np.float32)
        angle = target.rotation_rad()[self.inside] if along_grid else np.zeros(len(weights))
        self._cos, self._sin = np.cos(angle), np.sin(angle)

    def __call__(self, fields: np.ndarray) -> np.ndarray:
        """(11, Hs, Ws) float32 of fields (11, H, W) in the order of `DYNAMIC`."""
        flat = fields.reshape(len(fields), -1)
        values = np.einsum("vnk,nk->vn", flat[:, self._cells], self._weights)
        u, v = DYNAMIC.index("u"), DYNAMIC.index("v")
        # The inverse of the rotation that the ingest applies; see LambertGrid.rotation_rad.
        values[u], values[v] = (
            values[u] * self._cos - values[v] * self._sin,
            values[u] * self._sin + values[v] * self._cos,
        )
        result = np.full((len(fields), *self.shape), np.nan, dtype=np.float32)
        result[:, self.inside] = values
        return result


def _hours(manifest: GridManifest, window: Window) -> tuple[np.ndarray, int, int]:
    """Labels of a window, and the hours since 1970-01-01 UTC of its first and last."""
    try:
        start, end = np.array(window, dtype="datetime64[h]")
        fits = bool(start <= end) and start.astype("datetime64[Y]") == end.astype("datetime64[Y]")
    except ValueError:
        fits = False
    if not fits:
        message = explain(
            "native files need a window within one year",
            expected="first and last label in local time, in order, such as 2013-01-03T00",
            found=" to ".join(map(str, window)),
            remedy="give both",
        )
        raise ParameterError(message)
    first, last = (hour_number(t) for t in manifest.to_utc(np.array([start, end])))
    return np.arange(start, end + 1), first, last


def write_native(
    manifest: GridManifest,
    folder: str | Path,
    window: Window,
    *,
    states: str | Path,
    progress: Progress = silent,
) -> int:
    """Simulate to a window and write its hours as native files on `CAQRA_GRID`.

    The simulation runs on the twin's latitude-longitude grid and is interpolated bilinearly to
    the Lambert grid, cells outside China included. It starts where the stores' does, so a window
    holds the hours of the yearly store, however early or late in the year it lies.

    Parameters
    ----------
    manifest : GridManifest
        Of the twin; its units and `wind_reference` are those of the files.
    folder : path
        Of the files, `native_name(label)`.
    window : (str, str)
        First and last label, local time, inclusive, within one year.
    states : path
        Folder of the stores, for the state at the end of the year before.

    Returns
    -------
    int
        Number of files.

    Raises
    ------
    ParameterError
        The window is missing or in reverse.
    CoverageError
        The year before has not been simulated.
    """
    labels, first, last = _hours(manifest, window)
    simulation = Simulation(twin_config(manifest))
    year = int(labels[0].astype("datetime64[Y]").astype(int)) + 1970
    enter_year(simulation, manifest, Path(states), year)
    spin_up(simulation, manifest, year, progress)
    sampler = LambertSampler(
        simulation.world.grid, CAQRA_GRID, along_grid=manifest.wind_reference == "grid"
    )
    folder, begun = Path(folder), simulation.hour
    folder.mkdir(parents=True, exist_ok=True)
    while simulation.hour < last:
        fields = simulation.step()
        if simulation.hour >= first:
            path = folder / native_name(labels[simulation.hour - first])
            native = dict(zip(DYNAMIC, sampler(fields), strict=True))
            write_native_hour(path, native, CAQRA_GRID, units=manifest.units,
                              attributes=_marks(manifest))  # fmt: skip
        progress("native files", (simulation.hour - begun) / (last - begun))
    return len(labels)


def _marks(manifest: GridManifest) -> dict[str, str]:
    return {
        "title": "SYNTHETIC: simulated, not observed",
        "synthetic": "true",
        "manifest": manifest.name,
        "manifest_sha256": manifest.digest,
    }
