"""The file of statistics: one NetCDF file that says what it was computed from, with its digest."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from aqnet.data.climatology import HarmonicClimatology
from aqnet.data.normalisation import static_moments
from aqnet.data.splits import Split
from aqnet.data.static import write_nc
from aqnet.data.statistics_plan import SEGMENT_H, Plan, Source
from aqnet.data.store import array_digest
from aqnet.data.streaming import LOG_OFFSET_UG_M3
from aqnet.errors import ChecksumError, DataError, explain
from aqnet.io import sha256_json
from aqnet.variables import DYNAMIC, STATIC, TARGETS, VARIABLES

if TYPE_CHECKING:
    from aqnet.data.years import YearStore

__all__ = [
    "DEFINITIONS",
    "FORMAT",
    "FORMAT_VERSION",
    "Statistics",
    "assemble",
    "check_statistics",
    "content_digest",
    "load_statistics",
    "write_statistics",
]

FORMAT, FORMAT_VERSION = "aqnet-statistics", "1"
_DIGEST = "content_sha256"

_HOURS = "over valid hours of the split"
_ALL = "over valid cells and hours of the split, each cell alike"
_LOG = f"log(max(c, 0) + {LOG_OFFSET_UG_M3:g} ug/m3)"
_PAIRS = "over pairs of valid hours of the split exactly h apart"
_CELLS = ("lat", "lon")
DEFINITIONS = {  # name: dimensions, definition; units are those of the variable
    "count": (("variable", *_CELLS), f"hours with a value, {_HOURS}"),
    "mean": (("variable", *_CELLS), f"mean {_HOURS}"),
    "std": (("variable", *_CELLS), f"standard deviation {_HOURS}"),
    "log_mean": (("target", *_CELLS), f"mean of {_LOG} {_HOURS}"),
    "log_std": (("target", *_CELLS), f"standard deviation of {_LOG} {_HOURS}"),
    "climatology": (
        ("harmonic", "variable", *_CELLS),
        "coefficients on aqnet.data.climatology.harmonic_basis",
    ),
    "anomaly_std": (
        ("variable", *_CELLS),
        f"standard deviation of departures from the climatology {_HOURS}",
    ),
    "lag_correlation": (
        ("lead_h", "variable", *_CELLS),
        f"correlation of x(t) and x(t + h) {_PAIRS}; NaN where x is constant",
    ),
    "anomaly_lag_correlation": (
        ("lead_h", "variable", *_CELLS),
        f"correlation of departures from the climatology at t and t + h {_PAIRS}",
    ),
    "cell_quantiles": (
        ("cell_quantile", "variable", *_CELLS),
        f"quantiles {_HOURS}, linear between order statistics",
    ),
    "pairs": (("lead_h", "variable"), "pairs of hours of lag_correlation"),
    "quantiles": (("quantile", "variable"), f"quantiles {_ALL}, linear between order statistics"),
    "log_quantiles": (("quantile", "target"), f"quantiles of {_LOG} {_ALL}, linear as well"),
    "domain_mean": (("variable",), f"mean {_ALL}"),
    "domain_std": (("variable",), f"standard deviation {_ALL}"),
    "domain_anomaly_std": (("variable",), f"standard deviation about the climatology {_ALL}"),
    "domain_log_mean": (("target",), f"mean of {_LOG} {_ALL}"),
    "domain_log_std": (("target",), f"standard deviation of {_LOG} {_ALL}"),
    "static_mean": (("static_variable",), "mean over the active cells"),
    "static_std": (("static_variable",), "standard deviation over the active cells"),
}


# ---- in memory


@dataclass(frozen=True, eq=False)
class Statistics:
    """Statistics of the training hours of a data set; `dataset` holds all of them.

    Each variable of `dataset` says in its attribute `definition` what it is; the attributes of
    the whole say which hours of which stores it describes. All numbers are float64 in the units
    of `aqnet.variables`; maps are NaN outside the mask and in cells without values.
    """

    dataset: xr.Dataset

    def __getitem__(self, name: str) -> np.ndarray:
        """A variable of `dataset` as an array."""
        return self.dataset[name].values

    @property
    def digest(self) -> str:
        """SHA-256 over all arrays, their definitions and all attributes."""
        return content_digest(self.dataset)

    @property
    def mask(self) -> np.ndarray:
        """(H, W) bool: active cells."""
        return self["mask"].astype(bool)

    @property
    def split(self) -> Split:
        """The split that the hours belong to."""
        said = self.dataset.attrs
        bounds = (np.datetime64(said[f"split_{end}"].rstrip("Z"), "h") for end in ("start", "end"))
        return Split(said["split"], *bounds)

    @property
    def store_sha256(self) -> dict[str, str]:
        """Digests of the stores, by year."""
        return json.loads(self.dataset.attrs["store_sha256"])

    @property
    def climatology(self) -> HarmonicClimatology:
        """Harmonic climatology of the dynamic variables, (T, 11, H, W)."""
        said = self.dataset.attrs
        harmonics = int(said["annual_harmonics"]), int(said["diurnal_harmonics"])
        return HarmonicClimatology(self["climatology"], float(said["utc_offset_h"]), *harmonics)


def _maps(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(..., C) of the active cells to (..., H, W); NaN, or 0 of counts, elsewhere."""
    empty = 0 if values.dtype.kind == "i" else np.nan
    found = np.full((*values.shape[:-1], *mask.shape), empty, dtype=values.dtype)
    found[..., mask] = values
    return found


def _coordinates(plan: Plan, source: Source) -> dict:
    """Names and numbers of the dimensions; without a grid, rows and columns are numbered."""
    grid = getattr(source, "grid", None)
    axes = (grid.lat, grid.lon) if grid else [np.arange(float(n)) for n in source.mask.shape]
    return {
        "variable": list(DYNAMIC),
        "target": list(TARGETS),
        "static_variable": list(STATIC),
        "lead_h": np.array(plan.leads_h, dtype=np.int64),
        "lat": axes[0],
        "lon": axes[1],
    }


def _attributes(plan: Plan, about: dict) -> dict[str, str]:
    said = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "split": plan.split.name,
        "split_start": f"{plan.split.start}Z",
        "split_end": f"{plan.split.end}Z",  # the first hour that does not belong to it
        "first_hour": f"{plan.times[0]}Z",
        "last_hour": f"{plan.times[-1]}Z",
        "hours": len(plan.times),
        "utc_offset_h": plan.utc_offset_h,
        "annual_harmonics": plan.annual,
        "diurnal_harmonics": plan.diurnal,
        "log_offset_ug_m3": LOG_OFFSET_UG_M3,
        "segment_h": SEGMENT_H,
        "keep_bits": json.dumps(dict(zip(DYNAMIC, plan.keep_bits, strict=True))),
        "units": json.dumps({n: VARIABLES[n].unit for n in (*DYNAMIC, *STATIC)}),
        **about,
    }
    return {name: str(value) for name, value in said.items()}


def assemble(
    plan: Plan,
    source: Source,
    found: dict[str, np.ndarray],
    about: dict[str, str],
    coordinates: dict,
) -> Statistics:
    """Statistics from arrays by name, those of maps with the active cells C as last dimension.

    Parameters
    ----------
    plan, source
        What they were computed from.
    found : dict
        Keys of `DEFINITIONS`; the statistics of the static fields are added here.
    about : dict of str
        More attributes.
    coordinates : dict
        Of the dimensions that `plan` does not know.
    """
    mean, std = static_moments(source.static, source.mask)
    arrays = {"mask": (_CELLS, source.mask.astype(np.int8), {"definition": "1: active cells"})}
    for name, values in (found | {"static_mean": mean, "static_std": std}).items():
        dimensions, text = DEFINITIONS[name]
        if dimensions[-2:] == _CELLS:
            values = _maps(values, source.mask)
        arrays[name] = (dimensions, values, {"definition": text})
    named = _coordinates(plan, source) | {k: np.array(v) for k, v in coordinates.items()}
    return Statistics(xr.Dataset(arrays, named, _attributes(plan, about)))


# ---- on disk


def _plain(values: np.ndarray) -> np.ndarray:
    """Numbers little-endian as they are, texts as fixed-width Unicode."""
    values = np.asarray(values)
    if values.dtype.kind in "OUT":
        return values.astype(str)
    return values.astype(values.dtype.newbyteorder("<"))


def content_digest(dataset: xr.Dataset) -> str:
    """SHA-256 of what a data set holds, whatever the layout of its file."""
    arrays = {
        name: [array_digest(_plain(array.values)), list(array.dims), _texts(array.attrs)]
        for name, array in dataset.variables.items()
    }
    return sha256_json({"arrays": arrays, "attributes": _texts(dataset.attrs)})


def _texts(attributes: dict) -> dict[str, str]:
    return {str(k): str(v) for k, v in attributes.items() if k != _DIGEST}


def write_statistics(statistics: Statistics, path: str | Path) -> str:
    """Write the file, whole or not at all, and return its content digest.

    Raises
    ------
    StorageFullError
        No room; an older file is untouched.
    """
    digest = statistics.digest
    dataset = statistics.dataset.assign_attrs({_DIGEST: digest})
    # level 1: maps of noise hardly shrink, only what is NaN does
    packed = {"zlib": True, "complevel": 1, "shuffle": True, "_FillValue": None}
    coordinates = {name: {"_FillValue": None} for name in dataset.coords}
    for name in coordinates:
        if dataset[name].dtype.kind not in "fi":
            coordinates[name] = {}
    fields = {name: packed for name, a in dataset.data_vars.items() if a.ndim}
    write_nc(dataset, path, fields | coordinates)
    return digest


def _unusable(path: Path, problem: str, expected: object, found: object) -> ChecksumError:
    remedy = "compute them again: aqnet data stats NAME"
    message = explain(f"{path}: {problem}", expected=expected, found=found, remedy=remedy)
    return ChecksumError(message)


def load_statistics(path: str | Path, expected_digest: str | None = None) -> Statistics:
    """Read a file of `write_statistics`, if it is whole and the expected one.

    Parameters
    ----------
    path : path
    expected_digest : str, optional
        Content digest that a record or a checkpoint names.

    Raises
    ------
    DataError
        There is no such file.
    ChecksumError
        Damaged, of another format, or another one than expected.
    """
    path = Path(path)
    if not path.is_file():
        message = explain(
            f"there are no statistics at {path}",
            expected="a NetCDF file",
            found="nothing",
            remedy="compute them: aqnet data stats NAME",
        )
        raise DataError(message)
    try:
        dataset = xr.load_dataset(path, engine="netcdf4")
    except (OSError, RuntimeError, ValueError, AttributeError) as problem:  # what libraries raise
        raise _unusable(path, "cannot be read", "a NetCDF file", repr(problem)) from problem
    version = tuple(str(dataset.attrs.get(key)) for key in ("format", "format_version"))
    if version != (FORMAT, FORMAT_VERSION):
        raise _unusable(path, "another format", (FORMAT, FORMAT_VERSION), version)
    statistics, recorded = Statistics(dataset), dataset.attrs.get(_DIGEST)
    if statistics.digest != recorded:
        raise _unusable(path, "the content is damaged", recorded, statistics.digest)
    if expected_digest not in (None, recorded):
        raise _unusable(path, "other statistics than expected", expected_digest, recorded)
    return statistics


def check_statistics(statistics: Statistics, stores: Iterable[YearStore], split: Split) -> None:
    """Refuse statistics of other stores or of another split than those of a training.

    Parameters
    ----------
    statistics : Statistics
    stores : iterable of YearStore
        `YearSet.stores`; years that the statistics do not use are not compared.
    split : Split
        The training split.

    Raises
    ------
    ChecksumError
        Says what differs.
    """
    given, wrong = {str(store.year): store.digest for store in stores}, {}
    for year, digest in statistics.store_sha256.items():
        if given.get(year) != digest:
            wrong[f"store of {year}"] = (given.get(year, "not there"), digest)
    if statistics.split != split:
        wrong["split"] = (split, statistics.split)
    if wrong:
        parts = ("; ".join(f"{k}: {pair[i]}" for k, pair in wrong.items()) for i in (0, 1))
        raise ChecksumError(
            explain(
                f"the statistics are of something else: {', '.join(wrong)}",
                expected=next(parts),
                found=next(parts),
                remedy="compute them again: aqnet data stats NAME",
            )
        )
