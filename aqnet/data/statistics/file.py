"""The file of statistics: one NetCDF file that says what it was computed from, with its digest."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aqnet.data.climatology import HarmonicClimatology
from aqnet.data.normalisation import Normaliser
from aqnet.data.splits import Split
from aqnet.data.store import array_digest
from aqnet.errors import ChecksumError, DataError, ParameterError, explain
from aqnet.io import sha256_json

if TYPE_CHECKING:
    import xarray as xr

    from aqnet.data.years.reader import YearStore

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "Statistics",
    "check_statistics",
    "content_digest",
    "load_statistics",
    "normaliser_of_statistics",
    "write_statistics",
]

FORMAT, FORMAT_VERSION = "aqnet-statistics", "1"
_DIGEST = "content_sha256"

# ---- in memory


@dataclass(frozen=True, eq=False)
class Statistics:
    """Statistics of the training hours of a data set.

    All numbers are float64 in the units of `aqnet.variables`; maps are NaN outside the mask and
    in cells without values.

    Attributes
    ----------
    arrays : dict
        Name: dimensions, values, attributes; `definition` says what it is. An array with the name
        of its dimension holds the coordinates.
    attributes : dict of str
        Which hours of which stores they describe.
    """

    arrays: dict[str, tuple[tuple[str, ...], np.ndarray, dict[str, str]]]
    attributes: dict[str, str]

    def __getitem__(self, name: str) -> np.ndarray:
        """Values of an array."""
        return self.arrays[name][1]

    @property
    def dataset(self) -> xr.Dataset:
        """All of them with coordinates; made anew, of the same memory."""
        import xarray as xr  # by those who look at them: a training starts without it

        return xr.Dataset(self.arrays, attrs=self.attributes)

    @property
    def digest(self) -> str:
        """SHA-256 over all arrays, their definitions and all attributes but the digest."""
        return content_digest(self)

    @property
    def mask(self) -> np.ndarray:
        """(H, W) bool: active cells."""
        return self["mask"].astype(bool)

    @property
    def split(self) -> Split:
        """The split that the hours belong to."""
        said = self.attributes
        bounds = (np.datetime64(said[f"split_{end}"].rstrip("Z"), "h") for end in ("start", "end"))
        return Split(said["split"], *bounds)

    @property
    def store_sha256(self) -> dict[str, str]:
        """Digests of the stores, by year."""
        return json.loads(self.attributes["store_sha256"])

    @property
    def climatology(self) -> HarmonicClimatology:
        """Harmonic climatology of the dynamic variables, (T, 11, H, W)."""
        said = self.attributes
        harmonics = int(said["annual_harmonics"]), int(said["diurnal_harmonics"])
        return HarmonicClimatology(self["climatology"], float(said["utc_offset_h"]), *harmonics)


# ---- on disk


def _plain(values: np.ndarray) -> np.ndarray:
    """Numbers little-endian as they are, texts as fixed-width Unicode."""
    values = np.asarray(values)
    if values.dtype.kind in "OUT":
        return values.astype(str)
    return values.astype(values.dtype.newbyteorder("<"))


def content_digest(statistics: Statistics) -> str:
    """SHA-256 of what statistics hold, whatever the layout of their file."""
    arrays = {
        name: [array_digest(_plain(values)), list(dimensions), _texts(attributes)]
        for name, (dimensions, values, attributes) in statistics.arrays.items()
    }
    return sha256_json({"arrays": arrays, "attributes": _texts(statistics.attributes)})


def _texts(attributes: dict) -> dict[str, str]:
    return {str(k): str(v) for k, v in attributes.items() if k != _DIGEST}


def write_statistics(statistics: Statistics, path: str | Path) -> str:
    """Write the file, whole or not at all, and return its content digest.

    Raises
    ------
    StorageFullError
        No room; an older file is untouched.
    """
    from aqnet.data.static import write_nc

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


def _read(path: Path) -> Statistics:
    import netCDF4  # not xarray, which brings pandas: 400 files that each rank would open

    with netCDF4.Dataset(path) as file:
        file.set_auto_maskandscale(False)
        arrays = {
            name: (found.dimensions, found[...], {k: found.getncattr(k) for k in found.ncattrs()})
            for name, found in file.variables.items()
        }
        return Statistics(arrays, {k: file.getncattr(k) for k in file.ncattrs()})


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
        statistics = _read(path)
    except (OSError, RuntimeError, ValueError, AttributeError) as problem:  # what libraries raise
        raise _unusable(path, "cannot be read", "a NetCDF file", repr(problem)) from problem
    said = statistics.attributes
    version = tuple(str(said.get(key)) for key in ("format", "format_version"))
    if version != (FORMAT, FORMAT_VERSION):
        raise _unusable(path, "another format", (FORMAT, FORMAT_VERSION), version)
    recorded = said.get(_DIGEST)
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


def _static_spread(statistics: Statistics) -> np.ndarray:
    """(4,): standard deviations; 1 where the manifest says that a field does not vary."""
    spread, names = statistics["static_std"].copy(), list(statistics["static_variable"])
    for name in json.loads(statistics.attributes.get("constant_static", "[]")):
        place = names.index(name)
        if spread[place] != 0:
            raise DataError(
                explain(f"{name} varies, and `constant_static` of the manifest says it does not",
                        expected="a standard deviation of 0 over the active cells",
                        found=f"{spread[place]:g}",
                        remedy="take it out of `constant_static`, and repeat aqnet data stats")
            )  # fmt: skip
        spread[place] = 1.0
    return spread


def normaliser_of_statistics(statistics: Statistics, reference: str = "constant") -> Normaliser:
    """Normaliser of measured statistics.

    Parameters
    ----------
    statistics : Statistics
    reference : str
        What is subtracted. "constant": the mean over all training hours and cells, coefficients
        (1, 11, 1, 1); "climatology": the harmonic climatology of each cell, (K, 11, H, W), NaN
        outside the mask.

    Raises
    ------
    DataError
        A variable does not vary, or a static field that is not in `constant_static` of the
        manifest; or one that is there does.
    ParameterError
        Another reference.
    """
    s, clock = statistics, statistics.climatology
    static = (s["static_mean"], _static_spread(s), clock.utc_offset_h)
    if reference == "constant":
        mean = s["domain_mean"]
        return Normaliser(mean[None, :, None, None], mean, s["domain_std"], *static, 0, 0)
    if reference == "climatology":
        spread = s["domain_anomaly_std"]
        harmonics = clock.annual, clock.diurnal
        return Normaliser(clock.coefficients, s["domain_mean"], spread, *static, *harmonics)
    raise ParameterError(
        explain(
            "no such reference",
            expected='"constant" or "climatology"',
            found=repr(reference),
            remedy="choose one of them",
        )
    )
