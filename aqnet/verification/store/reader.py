"""Reading forecast stores: blocks of fields in ug/m3, every value checked against its digest."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import zarr

from aqnet.data.store import array_digest, content_digest
from aqnet.data.years.partial_store import finished_parts, partial_folder
from aqnet.errors import CoverageError, LeadTimeError, StoreError, explain
from aqnet.grid import Grid
from aqnet.verification.store.format import FORMAT, FORMAT_VERSION, UNIT

__all__ = [
    "ForecastStore",
    "UnfinishedStoreError",
    "broken",
    "open_forecast_store",
]

_DAMAGE = (RuntimeError, ValueError, OSError, KeyError, TypeError)  # what codecs and files raise


class UnfinishedStoreError(StoreError):
    """A forecast store is still being written, or its writer ended early."""


def broken(path: Path, problem: str, expected: object, found: object) -> StoreError:
    """A store that does not hold what was written."""
    return StoreError(
        explain(f"{path}: {problem}", expected=expected, found=found,
                remedy="copy the store again from where it came from, or write it again")
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class ForecastStore:
    """An opened forecast store; fields are read when asked for, the rest is in memory.

    May be sent to another process and used after a fork.

    Attributes
    ----------
    path : Path
    attributes : dict
        Description of the store, `PROVENANCE` among it, and `history`: when it was written.
    init_times : (N,) datetime64[h]
        UTC, ascending.
    lead_times_h : tuple of int
    pollutants : tuple of str
    grid : Grid
    mask : (H, W) bool
        Cells that have a forecast.
    block_sha256 : (blocks, 32) uint8
    """

    path: Path
    attributes: dict
    init_times: np.ndarray
    lead_times_h: tuple[int, ...]
    pollutants: tuple[str, ...]
    grid: Grid
    mask: np.ndarray
    block_sha256: np.ndarray
    _opened: dict = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_opened": {}}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)

    @property
    def name(self) -> str:
        """How tables and figures call the forecast."""
        return self.attributes["name"]

    @property
    def digest(self) -> str:
        """SHA-256 of values and provenance, but for the time of writing."""
        return self.attributes["content_sha256"]

    @property
    def synthetic(self) -> bool:
        """Made from simulated data."""
        return bool(self.attributes["synthetic"])

    @property
    def valid_times(self) -> np.ndarray:
        """(N, L) datetime64[h], UTC: ends of the hours that are forecast."""
        return self.init_times[:, None] + np.asarray(self.lead_times_h).astype("timedelta64[h]")

    def blocks(self) -> list[slice]:
        """Init times that are stored together: the fastest way through is block by block."""
        size, count = int(self.attributes["block"]), len(self.init_times)
        return [slice(i, min(i + size, count)) for i in range(0, count, size)]

    def lead_index(self, lead_time_h: int) -> int:
        """Position of a lead time; LeadTimeError if the store does not have it."""
        return int(self._lead_indices([lead_time_h])[0])

    def _lead_indices(self, leads: Sequence[int]) -> np.ndarray:
        if lacking := [h for h in leads if h not in self.lead_times_h]:
            raise LeadTimeError(
                explain(f"{self.path} does not have the lead times {lacking} h",
                        expected=f"some of {list(self.lead_times_h)} h", found=list(leads),
                        remedy="choose others, or write the store with these lead times")
            )  # fmt: skip
        return np.array([self.lead_times_h.index(h) for h in leads])

    def read(
        self,
        init: slice | int,
        lead_time_h: int | Sequence[int] | None,
        pollutant: str,
        *,
        cells: bool = False,
    ) -> np.ndarray:
        """Forecasts in ug/m3.

        Parameters
        ----------
        init : slice or int
            Init times, as positions; slices of `blocks` are fastest.
        lead_time_h : int, sequence of int or None
            Hours; one, several, or all for None.
        pollutant : str
        cells : bool
            Give the active cells (n, [L,] N) in the order of the flattened grid, instead of
            fields (n, [L,] H, W) with NaN outside the mask.

        Returns
        -------
        numpy.ndarray, float32
            Without the axis of a single init time or lead time.

        Raises
        ------
        LeadTimeError, CoverageError
            The store does not have this lead time or pollutant.
        StoreError
            A chunk is damaged or lost; names block and file.
        """
        array, one = self._array(pollutant), isinstance(lead_time_h, (int, np.integer))
        leads = slice(None)
        if lead_time_h is not None:
            leads = self._lead_indices([lead_time_h] if one else lead_time_h)
            if (np.diff(leads) == 1).all():
                leads = slice(int(leads[0]), int(leads[-1]) + 1)
        rows = init if isinstance(init, slice) else slice(init, init + 1)
        try:
            # chunks hold several leads anyway: zarr's orthogonal indexing would only be slower
            values = array[rows, leads] if isinstance(leads, slice) else array[rows][:, leads]
        except _DAMAGE as problem:
            raise broken(self.path, f"{pollutant} at init times {init} cannot be read",
                          "blocks as they were written", repr(problem)) from problem  # fmt: skip
        # take is four times as fast as indexing with the mask
        active = values.reshape(*values.shape[:2], -1).take(np.flatnonzero(self.mask), axis=-1)
        if np.isnan(active).any():
            raise broken(self.path, f"{pollutant} at init times {init} has lost its values",
                          "values in every cell of the mask", "NaN")  # fmt: skip
        values = active if cells else values
        values = values[:, 0] if one else values
        return values if isinstance(init, slice) else values[0]

    def _array(self, pollutant: str) -> zarr.Array:
        if pollutant not in self.pollutants:
            raise CoverageError(
                explain(f"{self.path} has no forecast of {pollutant}", found=pollutant,
                        expected=f"one of {self.pollutants}",
                        remedy="leave the pollutant out, or write the store with it")
            )  # fmt: skip
        if self._opened.get("process") != os.getpid():
            self._opened.clear()
            self._opened["process"] = os.getpid()
        if pollutant not in self._opened:
            self._opened[pollutant] = zarr.open_array(self.path / pollutant, mode="r")
        return self._opened[pollutant]

    def identity(self) -> dict:
        """As `ForecastSpec.identity`, of what is written here."""
        later = ("array_sha256", "content_sha256", "history")
        held = {k: v for k, v in self.attributes.items() if k not in later}
        digests = self.attributes["array_sha256"]
        return held | {f"array {n}": d for n, d in digests.items() if n != "block_sha256"}


# ---- opening


def open_forecast_store(path: str | Path) -> ForecastStore:
    """Open a forecast store for reading; all but the fields is compared with its digest.

    Raises
    ------
    UnfinishedStoreError
        It is still being written, or its writer ended early.
    StoreError
        Missing, of another format or version, in another unit, or damaged.
    """
    path = Path(path).absolute()
    attributes = _attributes(path)
    arrays = _small_arrays(path, attributes["array_sha256"])
    grid = Grid(attributes["grid"]["name"], arrays["lat"], arrays["lon"])
    if grid.digest != attributes["grid"]["digest"]:
        raise broken(path, "another grid", attributes["grid"]["digest"], grid.digest)
    store = ForecastStore(
        path=path,
        attributes=attributes,
        init_times=arrays["init_time"].astype("datetime64[h]"),
        lead_times_h=tuple(arrays["lead_time"].tolist()),
        pollutants=tuple(attributes["pollutants"]),
        grid=grid,
        mask=arrays["mask"].astype(bool),
        block_sha256=arrays["block_sha256"],
    )
    _check_fields(store)
    return store


def _attributes(path: Path) -> dict:
    if not (path / "zarr.json").is_file():
        _refuse_missing(path)
    try:
        held = zarr.open_group(path, mode="r").attrs.asdict()
        description = json.loads(held["aqnet"]) if "aqnet" in held else {}
    except _DAMAGE as problem:
        raise broken(path, "zarr.json cannot be read", "JSON", repr(problem)) from problem
    version = (description.get("format"), description.get("format_version"))
    if version != (FORMAT, FORMAT_VERSION):
        raise StoreError(
            explain(f"{path} is no forecast store of aqnet", expected=(FORMAT, FORMAT_VERSION),
                    found=version, remedy="bring forecasts made elsewhere into this format: "
                    "aqnet forecast-store import")
        )  # fmt: skip
    if "content_sha256" not in description:
        _refuse_missing(path)
    recorded, digest = description["content_sha256"], content_digest(description)
    if digest != recorded:
        raise broken(path, "attributes are damaged", f"content_sha256 {recorded}", digest)
    return description | {"history": held.get("history", "")}


def _refuse_missing(path: Path) -> None:
    inside = path.parent.name.endswith(".partial")
    partial = path.parent if inside else partial_folder(path)
    if partial.exists():
        raise UnfinishedStoreError(
            explain(f"{path} is still being written, or its writer ended early",
                    expected="a finished forecast store",
                    found=f"{finished_parts(partial)} finished blocks",
                    remedy="wait, or run the command that writes it again: it goes on")
        )  # fmt: skip
    found = "a folder without zarr.json" if path.is_dir() else path if path.exists() else "nothing"
    raise StoreError(
        explain(f"there is no forecast store at {path}", expected="a Zarr group", found=found,
                remedy="write it: aqnet forecast")
    )  # fmt: skip


def _small_arrays(path: Path, recorded: dict) -> dict[str, np.ndarray]:
    """All arrays but the fields, each compared with its digest."""
    group, arrays = zarr.open_group(path, mode="r"), {}
    for name in sorted(recorded):
        try:
            arrays[name] = np.asarray(group[name][...])
        except _DAMAGE as problem:
            raise broken(path, f"array {name} cannot be read", "readable chunks",
                          repr(problem)) from problem  # fmt: skip
        if (found := array_digest(arrays[name])) != recorded[name]:
            raise broken(path, f"array {name} is damaged", recorded[name], found)
    return arrays


def _check_fields(store: ForecastStore) -> None:
    expected = (len(store.init_times), len(store.lead_times_h), *store.grid.shape)
    for name in store.pollutants:
        try:
            array = store._array(name)
        except _DAMAGE as problem:
            raise broken(store.path, f"{name} cannot be opened", f"array {name}",
                          repr(problem)) from problem  # fmt: skip
        found = (array.shape, array.attrs.get("units"))
        if found != (expected, UNIT):
            raise broken(store.path, f"{name} has another shape or unit", (expected, UNIT), found)
