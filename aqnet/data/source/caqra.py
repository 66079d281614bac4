"""CAQRA's hourly files: where they are, what is in them, and how to write one.

One NetCDF file holds one hour on a Lambert grid: `CN-ReanalysisYYYYMMDDHH.nc`, plain in folders
or inside daily archives (Kong et al. 2021, Earth Syst. Sci. Data 13, 529-570). The ten digits are
the label of the hour, in the local time of the source.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import netCDF4
import numpy as np
import xarray as xr

from aqnet.data.manifest import GridManifest
from aqnet.data.source.files import (
    HourSource,
    SourceFileError,
    list_hours,
    native_name,
    unreadable,
)
from aqnet.data.static import write_nc
from aqnet.errors import UnitError, explain
from aqnet.lambert_grid import LambertGrid
from aqnet.units import to_lexicon_unit
from aqnet.variables import DYNAMIC, VARIABLES

__all__ = [
    "CAQRA_UNITS",
    "HourFields",
    "HourSource",
    "SourceFileError",
    "list_hours",
    "native_name",
    "read_hour",
    "write_native_hour",
]

# As published: every pollutant in ug/m3 but CO.
CAQRA_UNITS = {
    "u": "m/s",
    "v": "m/s",
    "temp": "K",
    "rh": "%",
    "psfc": "Pa",
    "pm10": "ug/m3",
    "so2": "ug/m3",
    "no2": "ug/m3",
    "co": "mg/m3",
    "o3": "ug/m3",
    "pm25": "ug/m3",
}


@dataclass(frozen=True)
class HourFields:
    """One hour on the source's grid.

    Attributes
    ----------
    values : (11, Hs, Ws) float32
        Order and units of the lexicon (DYNAMIC); NaN where the source has no value.
    lat2d, lon2d : (Hs, Ws) float64
        Centres of the cells, degrees.
    """

    values: np.ndarray
    lat2d: np.ndarray
    lon2d: np.ndarray


# ---- reading


def _array(dataset: netCDF4.Dataset, names: Iterable[str], where: str) -> tuple[np.ndarray, str]:
    """Values (Hs, Ws), NaN for fill values, and the unit attribute, of the first name there is."""
    names = tuple(names)
    name = next((n for n in names if n in dataset.variables), None)
    if name is None:
        message = explain(
            f"{where} lacks the variable {names[0]}",
            expected=" or ".join(names),
            found=", ".join(dataset.variables),
            remedy="fetch the file again, or add the name to source_names of the manifest",
        )
        raise SourceFileError(message)
    variable = dataset.variables[name]
    values = np.ma.filled(np.ma.asarray(variable[...], dtype=np.float64), np.nan)
    if values.ndim == 3 and values.shape[0] == 1:
        values = values[0]
    if values.ndim != 2:
        message = explain(
            f"{where} has another layout",
            expected=f"{name} of shape (rows, columns) or (1, rows, columns)",
            found=f"{name} of shape {values.shape}",
            remedy="only files of one hour are ingested",
        )
        raise SourceFileError(message)
    return values, str(getattr(variable, "units", "")).strip()


def _check_unit(name: str, stated: str, manifest: GridManifest, where: str) -> None:
    """The attribute of the file and the unit of the manifest mean the same."""
    ours, probe = manifest.units[name], np.array([0.0, 1.0])
    if not stated:
        return
    try:
        same = np.allclose(
            to_lexicon_unit(name, probe, stated), to_lexicon_unit(name, probe, ours), rtol=1e-12
        )
    except UnitError:
        same = False
    if not same:
        message = explain(
            f"{where}: {name} has another unit than the manifest {manifest.name} says",
            expected=ours,
            found=f"units = {stated!r}",
            remedy=f"correct `units: {name}` of the manifest if the file is right",
        )
        raise UnitError(message)


def _check_origin(dataset: netCDF4.Dataset, manifest: GridManifest, where: str) -> None:
    """Simulated hours do not become observed ones."""
    stated = str(getattr(dataset, "synthetic", "false")).lower()
    if manifest.synthetic or stated in ("false", "0", "no"):
        return
    message = explain(
        f"{where} holds simulated fields",
        expected=f"observations or a reanalysis: manifest {manifest.name} says synthetic: false",
        found=f"attribute synthetic = {stated!r}",
        remedy="ingest it with a manifest that says synthetic: true, such as twin",
    )
    raise SourceFileError(message)


def _parse(dataset: netCDF4.Dataset, manifest: GridManifest, where: str) -> HourFields:
    _check_origin(dataset, manifest, where)
    lat2d, _ = _array(dataset, VARIABLES["lat2d"].source_names, where)
    lon2d, _ = _array(dataset, VARIABLES["lon2d"].source_names, where)
    values = np.empty((len(DYNAMIC), *lat2d.shape), dtype=np.float32)
    for k, name in enumerate(DYNAMIC):
        field, unit = _array(dataset, manifest.names_of(name), where)
        _check_unit(name, unit, manifest, where)
        if field.shape != lat2d.shape or lon2d.shape != lat2d.shape:
            shapes = f"{name} {field.shape}, lat2d {lat2d.shape}, lon2d {lon2d.shape}"
            raise unreadable(where, ValueError(f"shapes differ: {shapes}"))
        values[k] = to_lexicon_unit(name, field, manifest.units[name])
    return HourFields(values, lat2d, lon2d)


def read_hour(content: bytes, manifest: GridManifest, where: str) -> HourFields:
    """Fields of one hour from the bytes of its file.

    Parameters
    ----------
    content : bytes
        A NetCDF file, 3 or 4; fields (Hs, Ws) or (1, Hs, Ws), lat2d and lon2d alike.
    manifest : GridManifest
        Names and units of the source. A unit attribute in the file must agree with it.
    where : str
        Name of the file, for messages.

    Raises
    ------
    SourceFileError
        Not readable, truncated, of another layout, a variable is missing, or the file says that
        it is simulated and the manifest does not.
    UnitError
        A unit attribute is not the unit of the manifest.
    """
    # The library reports damage as OSError (opening) or RuntimeError (reading).
    try:
        with netCDF4.Dataset("hour.nc", mode="r", memory=content) as dataset:
            return _parse(dataset, manifest, where)
    except (OSError, RuntimeError) as problem:
        raise unreadable(where, problem) from problem


# ---- writing


def _to_source_unit(name: str, values: np.ndarray, unit: str) -> np.ndarray:
    """Inverse of `to_lexicon_unit`, which is linear."""
    zero, one = to_lexicon_unit(name, np.array([0.0, 1.0]), unit)
    return ((values - zero) / (one - zero)).astype(np.float32)


def write_native_hour(
    path: str | Path,
    fields: Mapping[str, np.ndarray],
    grid: LambertGrid,
    *,
    units: Mapping[str, str] = CAQRA_UNITS,
    mesh_3d: bool = False,
    unit_attributes: bool = True,
    attributes: Mapping[str, str] | None = None,
) -> None:
    """Write an hour as the source does: 11 fields (1, Hs, Ws), lat2d and lon2d, float32.

    Parameters
    ----------
    path : path
        Named by `native_name(label)`.
    fields : mapping of (Hs, Ws) arrays
        In units of the lexicon (CO in ug/m3); wind along the axes that the manifest names.
    grid : LambertGrid
        Of shape (Hs, Ws).
    units : mapping
        Units in the file; CAQRA's by default, CO in mg/m3.
    mesh_3d : bool
        lat2d and lon2d with a leading 1, the other layout of the source.
    unit_attributes : bool
        Write the attribute `units`; the source's files do not all have it.
    attributes : mapping, optional
        Of the file, such as `synthetic`.

    Raises
    ------
    StorageFullError
        No room; nothing is left behind.
    """
    lat2d, lon2d = grid.mesh()
    cells, data = ("time", "y", "x"), {}
    for name, values in fields.items():
        attrs = {"units": units[name]} if unit_attributes else {}
        native = _to_source_unit(name, np.asarray(values, dtype=np.float64), units[name])
        data[name] = (cells, native[None], attrs)
    for name, values in (("lat2d", lat2d), ("lon2d", lon2d)):
        mesh = values.astype(np.float32)
        data[name] = (cells, mesh[None]) if mesh_3d else (cells[1:], mesh)
    dataset = xr.Dataset(data, attrs=dict(attributes or {}))
    write_nc(dataset, path, {name: {"_FillValue": None} for name in data})
