"""Format of a forecast store: dimensions, CF attributes, blocks, precision, what its digest covers.

One float32 array a pollutant, (init_time, lead_time, lat, lon), NaN outside the mask. A block is
some consecutive init times with all leads and pollutants: the unit of writing, one file for each
pollutant. Names and units follow the CF conventions; `aqnet.verification.store.reader` reads.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from aqnet.data.store import array_digest
from aqnet.data.years.format import CODECS
from aqnet.errors import LeadTimeError, StoreError, explain
from aqnet.grid import EARTH_RADIUS_KM, Grid
from aqnet.variables import TARGETS, VARIABLES

__all__ = [
    "CODECS",
    "CONVENTIONS",
    "DIMENSIONS",
    "FORMAT",
    "FORMAT_VERSION",
    "PROVENANCE",
    "STANDARD_NAMES",
    "ForecastSpec",
    "block_digest",
    "coordinate_attributes",
    "global_attributes",
    "require_leads",
    "variable_attributes",
]

FORMAT, FORMAT_VERSION = "aqnet-forecast", 1
CONVENTIONS = "CF-1.13"
DIMENSIONS = ("init_time", "lead_time", "lat", "lon")
# CF standard name table 93; canonical unit kg m-3, of which "ug m-3" is a multiple (UDUNITS).
STANDARD_NAMES = {
    "pm25": "mass_concentration_of_pm2p5_ambient_aerosol_particles_in_air",
    "pm10": "mass_concentration_of_pm10_ambient_aerosol_particles_in_air",
    "so2": "mass_concentration_of_sulfur_dioxide_in_air",
    "no2": "mass_concentration_of_nitrogen_dioxide_in_air",
    "co": "mass_concentration_of_carbon_monoxide_in_air",
    "o3": "mass_concentration_of_ozone_in_air",
}
UNIT = "ug m-3"
# What a store says of its origin; text or JSON values. When it was written is in `history`, the
# only thing its digest leaves out.
PROVENANCE = (
    "title",  # one line
    "kind",  # checkpoint, baseline or imported
    "name",  # how tables and figures call the forecast
    "source",  # what computed it: checkpoint and sha256, or the rule and its formula
    "data",  # manifest, its digest and the digests of the stores read
    "run",  # run folder, or none
    "code",  # version and git state
    "synthetic",  # simulated data: not for statements about the world
    "weather",  # as `weather_provenance`: none, perfect or forecast
)
# A chunk is decompressed whole, a block is what one process holds in memory. Persistence over the
# twin on 128 x 256 cells, 10 bits, one core: chunks of 1 field are read at 2.6 ms a field, of 8 or
# 32 fields (4 MiB) at 0.15 to 0.4 ms, all in 23 kB a field: 4.9 GB for a year of hourly init times
# with 4 lead times (27.6 GB in memory). Active cells alone would take 18.5 kB, at the same speed,
# but no other tool would see a map.
CHUNK_BYTES, BLOCK_BYTES, BLOCK_INITS = 2**22, 2**27, 256


def _instantaneous(description: Mapping[str, object]) -> bool:
    source = description["source"]
    return isinstance(source, Mapping) and source.get("values") == "instantaneous"


def _state_of_gases(description: Mapping[str, object]) -> str:
    """At which temperature and pressure gases are; those made elsewhere as they were read."""
    source = description["source"]
    density = source.get("density") if isinstance(source, Mapping) else None
    if description["kind"] == "imported" and density is None:
        return "Gases at the temperature and pressure of their source."
    if density == "ambient":
        return "Gases at the temperature and pressure of the place."
    return "Gases at 273.15 K and 1013.25 hPa."


def variable_attributes(name: str, description: Mapping[str, object]) -> dict:
    """CF attributes of the array of a pollutant, given the description of its store.

    Forecasts made elsewhere may be instantaneous (`values` in their `source`); ours are means.
    """
    point = _instantaneous(description)
    about = VARIABLES[name]
    hour = "time: mean (interval: 1 hour comment: hour that ends at valid_time)"
    return {
        "standard_name": STANDARD_NAMES[name],
        "long_name": about.long_name if point else f"{about.long_name}, {about.definition}",
        "units": UNIT,
        "cell_methods": "time: point" if point else hour,
        "coordinates": "valid_time",
        "grid_mapping": "crs",
        "ancillary_variables": "mask",
    }


def global_attributes(description: Mapping[str, object]) -> dict[str, str]:
    """Global attributes of a store: CF's texts, and the whole description as JSON in `aqnet`.

    Nested values would keep other tools from copying the attributes into a NetCDF file.
    """
    source = description["source"]
    return {
        "Conventions": CONVENTIONS,
        "title": str(description["title"]),
        "source": source if isinstance(source, str) else json.dumps(source, sort_keys=True),
        "comment": _state_of_gases(description)
        + (" Times are UTC" + ("." if _instantaneous(description) else " and end their hours."))
        + (" SYNTHETIC: made from simulated data." if description["synthetic"] else ""),
        "aqnet": json.dumps(description, sort_keys=True, allow_nan=False),
    }


_SINCE = "hours since 1970-01-01 00:00:00"


def coordinate_attributes() -> dict[str, dict]:
    """CF attributes of all other arrays by name."""
    # CF section 4.4: every day has 86400 s, as in numpy
    time = {"units": _SINCE, "calendar": "standard", "units_metadata": "leap_seconds: none"}
    return {
        "init_time": time
        | {"standard_name": "forecast_reference_time", "axis": "T", "long_name": "init time, UTC"},
        "lead_time": {
            "standard_name": "forecast_period",
            "long_name": "lead time",
            "units": "hours",
        },
        "valid_time": time
        | {"standard_name": "time", "long_name": "valid time, UTC; of means the end of their hour"},
        "lat": {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"},
        "lon": {"standard_name": "longitude", "units": "degrees_east", "axis": "X"},
        "mask": {
            "long_name": "cells that have a forecast",
            "flag_values": [0, 1],
            "flag_meanings": "outside inside",
        },
        "crs": {
            "grid_mapping_name": "latitude_longitude",
            "earth_radius": EARTH_RADIUS_KM * 1e3,
        },
        "block_sha256": {
            "long_name": "SHA-256 of the values of each block inside the mask, see block_digest"
        },
    }


def require_leads(lead_times_h: object) -> tuple[int, ...]:
    """Lead times as a tuple of int; LeadTimeError unless increasing whole hours of at least 1."""
    leads = np.atleast_1d(np.asarray(lead_times_h))
    whole = leads.ndim == 1 and leads.size and np.issubdtype(leads.dtype, np.integer)
    if not whole or (np.diff([0, *leads]) < 1).any():
        raise LeadTimeError(
            explain("bad lead times", expected="increasing whole hours of at least 1",
                    found=list(leads), remedy="for example 12,24,48,96 or 1:120")
        )  # fmt: skip
    return tuple(int(lead) for lead in leads)


def block_digest(values: np.ndarray) -> np.ndarray:
    """(32,) uint8: SHA-256 of float32 values (pollutant, init, lead, active cell)."""
    return np.frombuffer(hashlib.sha256(np.ascontiguousarray(values, "<f4")).digest(), np.uint8)


@dataclass(frozen=True, eq=False)
class ForecastSpec:
    """What a forecast store is to hold, before its values are there.

    Attributes
    ----------
    init_times : (N,) datetime64[h]
        UTC, ascending; gaps are allowed.
    lead_times_h : tuple of int
        Increasing, at least 1 h.
    grid : Grid
    mask : (H, W) bool
        Cells that have a forecast.
    provenance : mapping
        JSON values for each of `PROVENANCE`.
    pollutants : tuple of str
        Of `TARGETS`, in that order.
    skipped : tuple of (str, str)
        Init times that were asked for and cannot be forecast ("2013-01-03T05Z"), and why.
    keep_bits : int
        Bits of the mantissa that are kept: relative rounding error at most 2**-(keep_bits + 1).
    block : int
        Init times in a block; 0 chooses by size.

    Raises
    ------
    StoreError, LeadTimeError
        Something does not fit; names it.
    """

    init_times: np.ndarray
    lead_times_h: tuple[int, ...]
    grid: Grid
    mask: np.ndarray
    provenance: Mapping[str, object]
    pollutants: tuple[str, ...] = TARGETS
    skipped: tuple[tuple[str, str], ...] = ()
    keep_bits: int = VARIABLES["pm25"].keep_bits
    block: int = 0
    chunks: tuple[int, int] = field(init=False)

    def __post_init__(self) -> None:
        fixed = {
            "init_times": np.asarray(self.init_times).astype("datetime64[h]"),
            "lead_times_h": require_leads(self.lead_times_h),
            "mask": np.asarray(self.mask, dtype=bool),
            "pollutants": tuple(self.pollutants),
        }
        for name, value in fixed.items():
            object.__setattr__(self, name, value)
        for fits, expected, found in self._requirements():
            if not fits:
                raise StoreError(
                    explain("a forecast store cannot be described", expected=expected,
                            found=found, remedy="correct the ForecastSpec")
                )  # fmt: skip
        block, chunks = _sizes(self)
        object.__setattr__(self, "block", block)
        object.__setattr__(self, "chunks", chunks)

    def _requirements(self) -> list[tuple[bool, str, object]]:
        times, shape, given = self.init_times, self.grid.shape, sorted(self.provenance)
        ascend = times.size > 0 and bool((np.diff(times) > np.timedelta64(0, "h")).all())
        ordered = tuple(name for name in TARGETS if name in self.pollutants)
        return [
            (ascend, "init times that ascend, at least one", times),
            (self.mask.shape == shape, f"a mask of shape {shape}", self.mask.shape),
            (bool(self.mask.any()), "a mask with at least one cell", "none"),
            (given == sorted(PROVENANCE), f"the provenance {sorted(PROVENANCE)}", given),
            (bool(ordered) and self.pollutants == ordered, f"some of {TARGETS} in that order",
             self.pollutants),
            (1 <= self.keep_bits <= 23, "keep_bits from 1 to 23", self.keep_bits),
            (self.block >= 0, "a block of at least 1, or 0", self.block),
        ]  # fmt: skip

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the array of a pollutant."""
        return len(self.init_times), len(self.lead_times_h), *self.grid.shape

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return -(-len(self.init_times) // self.block)

    def rows(self, number: int) -> slice:
        """Init times of block `number`."""
        return slice(number * self.block, min((number + 1) * self.block, len(self.init_times)))

    def header(self) -> dict:
        """Description of the store that is known before its values are there."""
        held = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "grid": {"name": self.grid.name, "digest": self.grid.digest},
            "pollutants": list(self.pollutants),
            "keep_bits": self.keep_bits,
            "block": self.block,
            "skipped": [list(entry) for entry in self.skipped],
            **self.provenance,
        }
        return json.loads(json.dumps(held, allow_nan=False))

    def arrays(self) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
        """Dimensions and values of all arrays but the pollutants."""
        leads = np.asarray(self.lead_times_h)
        init = self.init_times.astype(np.int64)
        return {
            "init_time": (("init_time",), init),
            "lead_time": (("lead_time",), leads.astype(np.int64)),
            "valid_time": (("init_time", "lead_time"), init[:, None] + leads),
            "lat": (("lat",), self.grid.lat.astype(np.float64)),
            "lon": (("lon",), self.grid.lon.astype(np.float64)),
            "mask": (("lat", "lon"), self.mask.astype(np.int8)),
            "crs": ((), np.zeros((), np.int32)),
        }

    def identity(self) -> dict:
        """Header, and digests of `arrays` under "array NAME": two equal ones are the same store."""
        digests = {f"array {name}": array_digest(v) for name, (_, v) in self.arrays().items()}
        return self.header() | digests


def _sizes(spec: ForecastSpec) -> tuple[int, tuple[int, int]]:
    """Init times of a block; init times and leads of a chunk."""
    field_bytes, leads = 4 * spec.mask.size, len(spec.lead_times_h)
    in_chunk = max(1, CHUNK_BYTES // field_bytes)
    fits = BLOCK_BYTES // (field_bytes * leads * len(spec.pollutants))
    block = spec.block or max(1, min(in_chunk, fits, BLOCK_INITS))
    block = min(block, len(spec.init_times))
    return block, (block, max(1, min(leads, in_chunk // block)))
