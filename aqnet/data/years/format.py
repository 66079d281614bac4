"""The format of a yearly store: arrays, precision, attributes, and what each digest covers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from zarr.codecs import BloscCodec, Crc32cCodec

from aqnet.data.grid_manifest import GridManifest
from aqnet.data.store import array_digest
from aqnet.errors import StoreError, explain
from aqnet.grid import Grid, local_clock
from aqnet.variables import DYNAMIC, STATIC, VARIABLES

__all__ = [
    "ATTRIBUTES",
    "CODECS",
    "FORMAT",
    "FORMAT_VERSION",
    "LAYOUT",
    "SHARD_HOURS",
    "Gap",
    "YearSpec",
    "monthly_coverage",
    "parse_gaps",
    "round_bits",
    "shard_file",
    "stamp",
    "step_digest",
    "year_times",
]

FORMAT, FORMAT_VERSION = "aqnet-year", 1
SHARD_HOURS = 48
# Measured in nbs/13_years.ipynb. The checksum is of the compressed bytes of one hour: a flipped
# byte is found before anything is decompressed.
CODECS = (BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle", typesize=4), Crc32cCodec())
LAYOUT = {  # array: type, dimensions
    "inputs": ("float32", ("time", "variable", "lat", "lon")),  # NaN: no value
    "time": ("int64", ("time",)),  # hours since 1970-01-01 00:00 UTC, ends of hours
    "lat": ("float64", ("lat",)),  # of cell centres, degrees
    "lon": ("float64", ("lon",)),  # of cell centres, degrees
    "inputs_valid": ("bool", ("time", "variable")),  # the hour has the variable
    "static": ("float32", ("static_variable", "lat", "lon")),
    "mask": ("bool", ("lat", "lon")),  # active cells
    "source_sha256": ("uint8", ("time", "byte")),  # of the file that the hour came from
    "step_sha256": ("uint8", ("time", "byte")),  # of the fields of the hour
}
# Attributes that a YearSpec must bring; the others follow from it or from the hours.
ATTRIBUTES = (
    "title",
    "manifest",
    "manifest_sha256",
    "manifest_content",
    "synthetic",
    "utc_offset_h",
    "licence",
    "attribution",
    "recipe",
)
GAS_REFERENCE_K = 273.15


def round_bits(values: np.ndarray, keep_bits: int) -> np.ndarray:
    """Round float32 numbers to `keep_bits` bits of mantissa, half to even.

    Parameters
    ----------
    values : numpy.ndarray, any shape
    keep_bits : int
        1 to 23; the relative error is at most ``2 ** -(keep_bits + 1)``.

    Returns
    -------
    numpy.ndarray, float32
        The low bits are zero, which is what makes them compressible. NaN and infinities stay.

    Notes
    -----
    Kloewer et al. (2021), Nature Computational Science 1, 713-724. Numbers below 1.2e-38
    (subnormal) have fewer bits and keep an absolute precision.
    """
    if not 1 <= keep_bits <= 23:
        raise ValueError(f"keep_bits from 1 to 23, not {keep_bits}")
    values, drop = np.ascontiguousarray(values, dtype=np.float32), 23 - keep_bits
    if drop == 0:
        return values.copy()
    bits = values.view(np.uint32)
    last_kept = (bits >> np.uint32(drop)) & np.uint32(1)
    half = last_kept + np.uint32((1 << (drop - 1)) - 1)
    rounded = (bits + half) & np.uint32(0xFFFFFFFF ^ ((1 << drop) - 1))
    return np.where(np.isfinite(values), rounded.view(np.float32), values)


def year_times(year: int, utc_offset_h: float) -> np.ndarray:
    """Hours of a yearly store: those whose label in the source's local time lies in `year`.

    Parameters
    ----------
    year : int
    utc_offset_h : float
        Local clock of the source minus UTC, whole hours. Labels are ends of hours; for others
        see `GridManifest.times`.

    Returns
    -------
    numpy.ndarray, datetime64[h], shape (8760,) or (8784,)
        UTC.
    """
    if utc_offset_h != round(utc_offset_h):
        raise ValueError(f"a store counts whole hours of UTC, not an offset of {utc_offset_h} h")
    labels = np.arange(f"{year}-01-01T00", f"{year + 1}-01-01T00", dtype="datetime64[h]")
    return labels - np.timedelta64(round(utc_offset_h), "h")


def stamp(time: np.datetime64) -> str:
    """UTC hour as text, as in the attribute `missing`: 2013-12-31T15Z."""
    return f"{np.datetime64(time, 'h')}Z"


class Gap(NamedTuple):
    """Hours that lack something: first and last, datetime64[h] UTC, both inclusive, and why."""

    first: np.datetime64
    last: np.datetime64
    reason: str


def parse_gaps(missing: list[list[str]]) -> tuple[Gap, ...]:
    """The attribute `missing` of a store as times."""
    return tuple(
        Gap(*(np.datetime64(text.removesuffix("Z"), "h") for text in (first, last)), reason)
        for first, last, reason in missing
    )


def monthly_coverage(times: np.ndarray, valid: np.ndarray, utc_offset_h: float) -> np.ndarray:
    """Share of hours with all variables, by month of the local clock at the end of the hour.

    Parameters
    ----------
    times : (T,) datetime64, UTC
    valid : (T, 11) bool
    utc_offset_h : float
        Local clock minus UTC [h].

    Returns
    -------
    (12,) float64
        January to December; NaN for a month without hours.
    """
    month = local_clock(times, utc_offset_h).astype("datetime64[M]").astype(int) % 12
    whole = np.bincount(month, valid.all(1), minlength=12)
    hours = np.bincount(month, minlength=12)
    return np.divide(whole, hours, out=np.full(12, np.nan), where=hours > 0)


def step_digest(hour: np.ndarray) -> np.ndarray:
    """(32,) uint8: SHA-256 of the bytes of one hour, (11, H, W) float32 little endian, C order."""
    return np.frombuffer(hashlib.sha256(np.ascontiguousarray(hour, "<f4")).digest(), np.uint8)


def shard_file(row: int) -> str:
    """File, within a store, of the shard that holds row `row`."""
    return f"inputs/c.{row // SHARD_HOURS}.0.0.0"


@dataclass(frozen=True, eq=False)
class YearSpec:
    """What a yearly store is to hold, before its hours are there.

    Attributes
    ----------
    year : int
        Of the labels, in the source's local time.
    times : (T,) datetime64[h]
        UTC, ends of hours, ascending.
    grid : Grid
    static : (4, H, W) float32
        In the order of STATIC and the units of `aqnet.variables`.
    mask : (H, W) bool
        Cells that have values.
    attributes : dict
        JSON values for each of `ATTRIBUTES`.

    Raises
    ------
    StoreError
        Something does not fit; names it.
    """

    year: int
    times: np.ndarray
    grid: Grid
    static: np.ndarray
    mask: np.ndarray
    attributes: dict

    def __post_init__(self):
        object.__setattr__(self, "times", np.asarray(self.times).astype("datetime64[h]"))
        object.__setattr__(self, "static", np.asarray(self.static, dtype=np.float32))
        object.__setattr__(self, "mask", np.asarray(self.mask, dtype=bool))
        for fits, expected, found in self._requirements():
            if not fits:
                problem = f"a store of {self.year} cannot be described"
                remedy = "correct the YearSpec"
                message = explain(problem, expected=expected, found=found, remedy=remedy)
                raise StoreError(message)

    def _requirements(self) -> list[tuple[bool, str, object]]:
        """Whether something holds, what it is, and what there is instead."""
        shape, given = self.grid.shape, sorted(self.attributes)
        ascend = self.times.size > 0 and bool((np.diff(self.times) > np.timedelta64(0)).all())
        fields = (len(STATIC), *shape)
        return [
            (ascend, "times that ascend", self.times),
            (self.static.shape == fields, f"static of shape {fields}", self.static.shape),
            (self.mask.shape == shape, f"a mask of shape {shape}", self.mask.shape),
            (bool(self.mask.any()), "a mask with at least one cell", "none"),
            (given == sorted(ATTRIBUTES), f"the attributes {sorted(ATTRIBUTES)}", given),
        ]

    @classmethod
    def from_manifest(
        cls, manifest: GridManifest, year: int, static: np.ndarray, mask: np.ndarray
    ) -> YearSpec:
        """The year `year` of a manifest, on its grid; see the class.

        Raises
        ------
        CoverageError
            The manifest does not have this year.
        """
        attributes = {
            "title": f"{manifest.title}, {year}",
            "manifest": manifest.name,
            "manifest_sha256": manifest.digest,
            "manifest_content": manifest.content,
            "synthetic": manifest.synthetic,
            "utc_offset_h": manifest.source_utc_offset_h,
            "licence": manifest.licence,
            "attribution": manifest.attribution,
            "recipe": manifest.recipe.model_dump(mode="json"),
        }
        return cls(year, manifest.times(year), manifest.grid_object(), static, mask, attributes)

    def header(self) -> dict:
        """Attributes of the store that are known before its hours are there."""
        held = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "year": int(self.year),
            "grid": {"name": self.grid.name, "digest": self.grid.digest},
            "variables": list(DYNAMIC),
            "static_variables": list(STATIC),
            "units": {name: VARIABLES[name].unit for name in (*DYNAMIC, *STATIC)},
            "keep_bits": {name: VARIABLES[name].keep_bits for name in DYNAMIC},
            "gas_reference_temperature_k": GAS_REFERENCE_K,
            **self.attributes,
        }
        return json.loads(json.dumps(held, allow_nan=False))  # as it will be read: no tuples

    def arrays(self) -> dict[str, np.ndarray]:
        """Small arrays that are known before the hours are there, in the types of `LAYOUT`."""
        values = {
            "time": self.times,
            "lat": self.grid.lat,
            "lon": self.grid.lon,
            "static": self.static,
            "mask": self.mask,
        }
        return {n: np.ascontiguousarray(v.astype(LAYOUT[n][0])) for n, v in values.items()}

    def identity(self) -> dict:
        """Header, and digests of `arrays` under "array NAME": two equal ones are the same store."""
        digests = {f"array {name}": array_digest(v) for name, v in self.arrays().items()}
        return self.header() | digests
