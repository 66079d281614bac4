"""From the shipped station file to the hourly gridded store: `aqnet data beijing`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
import zarr
from threadpoolctl import threadpool_limits

from aqnet.data.manifest import Manifest
from aqnet.data.splits import splits_of
from aqnet.data.static import read_static, stacked_static
from aqnet.data.stations.analysis import (
    MAX_CARRY_H,
    MIN_STATIONS,
    OptimalInterpolation,
    carry_forward,
    fit_analysis,
)
from aqnet.data.stations.measurements import read_stations, weather_sites
from aqnet.data.store import (
    FORMAT_VERSION,
    LAYOUT,
    array_digest,
    content_digest,
    write_fields,
)
from aqnet.io import atomic_directory, require_free_space
from aqnet.progress import Progress, silent
from aqnet.variables import DYNAMIC, STATIC, TARGETS, VARIABLES

__all__ = ["Network", "analyse_network", "build_store", "fit_network", "networks_of"]

_SUSPECT = ("temp", "psfc", "rh")  # read from the thermometer and barometer of `weather_suspect`
# Values that an analysis may not leave: concentrations and humidity are not negative.
_CLIP = {"rh": (0.0, 100.0)} | dict.fromkeys(TARGETS, (0.0, np.inf))


@dataclass(frozen=True)
class Network:
    """Series of the places that observe one variable, withheld stations left out.

    `values` (T, S) float64 in the variable's unit with NaN for missing; `lat`, `lon` (degrees),
    `elevation_m` (S,); `trusted` (T,) bool: hours on which the analysis may be fitted. Pressure,
    temperature and humidity are not trusted where `weather_suspect` is set: rounded and noisy
    readings of the source's last four training months, which would enter the mean differences
    between sites. `counted` (T, S) bool: False where a weather site repeats another one or does
    not exist; a value is not carried into such hours.
    """

    variable: str
    times: np.ndarray
    values: np.ndarray
    lat: np.ndarray
    lon: np.ndarray
    elevation_m: np.ndarray
    trusted: np.ndarray
    counted: np.ndarray


def _elevation_at(static: xr.Dataset, lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    at = {"lat": xr.DataArray(lat, dims="n"), "lon": xr.DataArray(lon, dims="n")}
    return static["elevation"].sel(at, method="nearest").values.astype(np.float64)


def networks_of(stations: xr.Dataset, static: xr.Dataset) -> dict[str, Network]:
    """One network per dynamic variable: stations for pollutants, weather sites for weather.

    Parameters
    ----------
    stations : xarray.Dataset
        Result of `read_stations`.
    static : xarray.Dataset
        Result of `read_static`.
    """
    used = stations.isel(station=~stations["withheld"].values)
    sites = weather_sites(stations)
    times = stations["time"].values.astype("datetime64[h]")
    found = {}
    for name in DYNAMIC:
        source = used if name in TARGETS else sites
        lat, lon = source["lat"].values, source["lon"].values
        values = source[name].values.astype(np.float64)
        suspect = stations["weather_suspect"].values & (name in _SUSPECT)
        counted = np.ones(values.shape, bool) if name in TARGETS else sites["counted"].values
        height = _elevation_at(static, lat, lon)
        found[name] = Network(name, times, values, lat, lon, height, ~suspect, counted)
    return found


def fit_network(network: Network, manifest: Manifest) -> OptimalInterpolation:
    """Fit the analysis of one variable on the training split of the manifest."""
    train = splits_of(manifest)["train"]
    rows = train.contains(network.times) & network.trusted
    return fit_analysis(
        network.variable,
        network.times[rows],
        network.values[rows],
        network.lat,
        network.lon,
        network.elevation_m,
        train,
        manifest.source_utc_offset_h,
    )


def analyse_network(
    oi: OptimalInterpolation, network: Network, static: xr.Dataset, *, carry: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hourly fields of one variable on the grid.

    Parameters
    ----------
    oi : OptimalInterpolation
    network : Network
    static : xarray.Dataset
        Gives the grid and the elevation.
    carry : bool
        True for inputs: gaps of up to 3 h hold the last value. False for targets.

    Returns
    -------
    field, error_ratio : (T, H, W) float32
        Field in the variable's unit, NaN in invalid hours; error variance over the background's.
    age_h : (T, S) int8
        0 observed, 1-3 carried, -1 missing.
    """
    values, age = carry_forward(network.values, MAX_CARRY_H if carry else 0)
    values, age = np.where(network.counted, values, np.nan), np.where(network.counted, age, -1)
    lat2d, lon2d = np.meshgrid(static["lat"].values, static["lon"].values, indexing="ij")
    field, ratio = oi(
        network.times, values, lat2d.ravel(), lon2d.ravel(), static["elevation"].values.ravel()
    )
    low, high = _CLIP.get(network.variable, (-np.inf, np.inf))
    shape = (-1, *lat2d.shape)
    field = np.clip(field, low, high).reshape(shape).astype(np.float32)
    return field, ratio.reshape(shape).astype(np.float32), age


def _analyse_all(
    manifest: Manifest, stations: xr.Dataset, static: xr.Dataset, progress: Progress
) -> dict[str, np.ndarray]:
    networks = networks_of(stations, static)
    kinds = {"inputs": (DYNAMIC, True), "targets": (TARGETS, False)}
    steps, done = sum(len(names) for names, _ in kinds.values()), 0
    arrays: dict[str, np.ndarray] = {}
    fitted = {name: fit_network(networks[name], manifest) for name in DYNAMIC}
    for kind, (names, carry) in kinds.items():
        shape = (stations.sizes["time"], len(names), static.sizes["lat"], static.sizes["lon"])
        field, ratio = np.empty(shape, np.float32), np.empty(shape, np.float32)
        for v, name in enumerate(names):
            progress(f"analysing {kind}: {name}", done / steps)
            field[:, v], ratio[:, v], _ = analyse_network(
                fitted[name], networks[name], static, carry=carry
            )
            done += 1
        arrays |= {kind: field, f"{kind}_error_ratio": ratio}
    arrays["inputs_valid"] = np.isfinite(arrays["inputs"]).all(axis=(2, 3))
    return arrays


def _station_arrays(stations: xr.Dataset, static: xr.Dataset) -> dict[str, np.ndarray]:
    every = [stations[name].values for name in DYNAMIC]
    lat, lon = stations["lat"].values, stations["lon"].values
    return {
        "station_values": np.stack([stations[name].values for name in TARGETS], axis=-1),
        "station_input_age_h": np.stack([carry_forward(v)[1] for v in every], axis=-1),
        "station_lat": lat,
        "station_lon": lon,
        "station_elevation": _elevation_at(static, lat, lon),
    }


def _attributes(manifest: Manifest, stations: xr.Dataset, digests: dict[str, str]) -> dict:
    return {
        "format_version": FORMAT_VERSION,
        "title": manifest.title,
        "manifest": manifest.name,
        "manifest_sha256": manifest.digest,
        "array_sha256": digests,
        "variables": list(DYNAMIC),
        "targets": list(TARGETS),
        "static_variables": list(STATIC),
        "units": {name: VARIABLES[name].unit for name in (*DYNAMIC, *STATIC)},
        "stations": [str(name) for name in stations["station"].values],
        "withheld": [bool(flag) for flag in stations["withheld"].values],
        "utc_offset_h": manifest.source_utc_offset_h,
        "min_stations": MIN_STATIONS,
        "licence": manifest.licence,
        "attribution": manifest.attribution,
        "doi": manifest.doi,
    }


# One thread: sums over several have other last bits, and the store would have another digest.
@threadpool_limits.wrap(limits=1, user_api="blas")
def build_store(
    manifest: Manifest,
    out: Path,
    *,
    force: bool = False,
    progress: Progress = silent,
) -> Path:
    """Build the hourly gridded store of a station manifest, whole or not at all.

    Parameters
    ----------
    manifest : Manifest
    out : pathlib.Path
        Store to create, for example `data/beijing.zarr`.
    force : bool
        Replace an existing store (it stays until the new one is complete).
    progress : callable
        Called with a step's name and the share done, 0 to 1.

    Returns
    -------
    pathlib.Path
        `out`.

    Raises
    ------
    ChecksumError, StationFileError, DataError
        The shipped files are not those of the manifest, or not usable.
    TargetExistsError
        `out` exists and `force` is false.
    StorageFullError
        No room.
    """
    with atomic_directory(out, replace=force) as draft:
        progress("reading stations", 0.0)
        stations, static = read_stations(manifest), read_static(manifest)
        fields = len(DYNAMIC) + len(TARGETS)
        cells = static.sizes["lat"] * static.sizes["lon"]
        require_free_space(out, int(stations.sizes["time"] * fields * cells * 4 * 1.2))
        arrays = _analyse_all(manifest, stations, static, lambda s, share: progress(s, share / 2))
        arrays |= _station_arrays(stations, static)
        arrays |= {
            "time": stations["time"].values.astype("datetime64[h]").astype(np.int64),
            "lat": static["lat"].values,
            "lon": static["lon"].values,
            "static": stacked_static(static).astype(np.float32),
        }
        _write(draft, arrays, manifest, stations, progress)
    progress("done", 1.0)
    return Path(out)


def _write(
    folder: Path,
    arrays: dict[str, np.ndarray],
    manifest: Manifest,
    stations: xr.Dataset,
    progress: Progress,
) -> None:
    group = zarr.create_group(folder, zarr_format=3, overwrite=True)
    total = sum(values.nbytes for values in arrays.values())
    done, digests = 0, {}
    for name in LAYOUT:
        progress(f"writing {name}", 0.5 + done / total / 2)
        write_fields(group, name, arrays[name])
        digests[name] = array_digest(arrays[name])
        done += arrays[name].nbytes
    attributes = _attributes(manifest, stations, digests)
    group.attrs.update(attributes | {"content_sha256": content_digest(attributes)})
