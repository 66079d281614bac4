"""Chinese air-quality standards: limits, index and validity rules of an edition, with sources."""

from __future__ import annotations

from datetime import date
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from aqnet.config import Config, load_yaml
from aqnet.errors import AqnetError, explain
from aqnet.units import gas_reference_factor
from aqnet.variables import GASES, TARGETS

__all__ = [
    "LEVELS",
    "PRODUCTS",
    "Edition",
    "StandardError",
    "edition",
    "edition_names",
    "level",
]

# Daily products of the standards: mean of 24 h, maximum of the 8 h means, maximum of the hours.
PRODUCTS = ("mean_24h", "mda8", "max_1h")
# Levels of the index in all editions (HJ 633-2012 table 2, HJ 633-2026 table 1), up to and with.
LEVELS = {
    "excellent": 50,
    "good": 100,
    "lightly polluted": 150,
    "moderately polluted": 200,
    "heavily polluted": 300,
    "severely polluted": 500,
}
_FILE = Path(__file__).parent / "tables" / "standards.yaml"


class StandardError(AqnetError):
    """An edition of a standard is unknown, or does not hold what is asked for."""


class _InForce(Config):
    start: date  # first day
    end: date | None  # last day; null: still


class _Validity(Config):
    hours_of_a_day: int | None = None  # hours that a mean of 24 h needs
    hours_of_8: int | None = None  # hours that a mean of 8 h needs
    means_of_8h: int | None = None  # means that a maximum of 8 h needs


class _Edition(Config):
    title: str  # names of the standards
    in_force: _InForce  # days
    reference_state: str | None  # temperature at which gases are given
    limits: dict[str, dict[str, float]]  # by product and pollutant [ug/m3]
    iaqi: dict[str, dict[str, tuple[float, ...]]]  # concentrations at `iaqi_levels` [ug/m3]
    above_table: Literal["max_1h", "last"]  # what counts above the last concentration
    rounding: dict[str, float]  # of concentrations, by pollutant [ug/m3]
    validity: _Validity  # of daily products
    missing: tuple[str, ...]  # what could not be sourced: refused by name
    sources: dict[str, tuple[str, ...]]  # keys of `sources`, by block


class _Table(Config):
    iaqi_levels: tuple[float, ...]  # of the index
    sources: dict[str, str]  # what each figure was compared with
    editions: dict[str, _Edition]  # by name


@cache
def _table() -> _Table:
    return _load(_FILE)


def _load(path: Path) -> _Table:
    """Editions of a file; StandardError for another form or for figures without a source."""
    table = load_yaml(path, _Table, StandardError)
    for name, entry in table.editions.items():
        filled = {"limits": entry.limits, "iaqi": entry.iaqi,
                  "reference_state": entry.reference_state,
                  "validity": any(v is not None for v in entry.validity.model_dump().values())}
        needed = {block for block, figures in filled.items() if figures}
        named = {block for block, ids in entry.sources.items() if ids}
        unknown = {i for ids in entry.sources.values() for i in ids} - set(table.sources)
        if needed != named or unknown:
            raise StandardError(
                explain(f"{path}: figures of edition {name} without source",
                        expected=f"known sources of {sorted(needed)}",
                        found=f"of {sorted(named)}, unknown {sorted(unknown)}",
                        remedy="name the source of every block, or leave the figures out")
            )  # fmt: skip
    return table


def edition_names() -> tuple[str, ...]:
    """Editions of `tables/standards.yaml`."""
    return tuple(_table().editions)


class Edition:
    """One edition of the standards.

    Parameters
    ----------
    name : str
        One of `edition_names()`; stands in every table made with it.

    Attributes
    ----------
    title : str
    missing, sources : tuple of str
        What could not be sourced, and where the figures are from.

    Raises
    ------
    StandardError
        No such edition.
    """

    def __init__(self, name: str) -> None:
        if name not in edition_names():
            raise StandardError(
                explain("no such edition of the standards", expected=edition_names(), found=name,
                        remedy="choose one; 2012 is right for data from 2013 to August 2018")
            )  # fmt: skip
        self.name, self._entry = name, _table().editions[name]
        self.title, self.missing = self._entry.title, self._entry.missing
        ids = dict.fromkeys(i for block in self._entry.sources.values() for i in block)
        self.sources = tuple(_table().sources[i] for i in ids)

    def _refuse(self, what: str) -> StandardError:
        complete = [name for name, entry in _table().editions.items() if not entry.missing]
        return StandardError(
            explain(f"edition {self.name} ({self.title}): no {what}", expected="a sourced figure",
                    found="; ".join(("missing", *self.missing)) if self.missing else "none",
                    remedy="enter it in tables/standards.yaml with its source, leave out what "
                    f"needs it, or choose a complete edition: {', '.join(complete)}")
        )  # fmt: skip

    def limit(self, product: str, pollutant: str) -> float:
        """Class 2 limit, ug/m3; a value exceeds it if it is greater. Raises StandardError."""
        found = self._entry.limits.get(product, {}).get(pollutant)
        if found is None:
            raise self._refuse(f"limit of {product} of {pollutant}")
        return found

    def rule(self, name: str) -> int:
        """Least number: `hours_of_a_day`, `hours_of_8` or `means_of_8h`. Raises StandardError."""
        found = getattr(self._entry.validity, name)
        if found is None:
            raise self._refuse(f"validity rule {name}")
        return found

    def breakpoints(self, product: str, pollutant: str) -> np.ndarray:
        """Concentrations, ug/m3, of the first levels of the index. Raises StandardError."""
        found = self._entry.iaqi.get(product, {}).get(pollutant)
        if found is None:
            raise self._refuse(f"breakpoints of the index for {product} of {pollutant}")
        return np.asarray(found)

    def indicators(self) -> tuple[tuple[str, str], ...]:
        """(product, pollutant) of the index. Raises StandardError if a pollutant has none."""
        found = tuple((p, name) for p, named in self._entry.iaqi.items() for name in named)
        for name in TARGETS:
            if name not in [pollutant for _, pollutant in found]:
                raise self._refuse(f"breakpoints of the index for {name}")
        return found

    def iaqi(self, product: str, pollutant: str, values: np.ndarray) -> np.ndarray:
        """Individual index: linear between breakpoints, rounded up to a whole number.

        Concentrations are first rounded half to even (GB/T 8170) if the edition says so. Above the
        last breakpoint the last index; of 8 h ozone above 800 ug/m3 NaN in editions that then
        use the hourly maximum alone. NaN stays NaN.
        """
        points, levels = self.breakpoints(product, pollutant), np.asarray(_table().iaqi_levels)
        values = np.asarray(values, dtype=np.float64)
        if step := self._entry.rounding.get(pollutant):
            values = np.round(np.round(values / step, 6)) * step  # 60.4999999 of a mean is 60.5
        linear = np.interp(values, points, levels[: points.size])
        # Rounded first: 75.00000001 of single precision is 75, which is 100 and not 101.
        index = np.ceil(np.round(linear, 4))
        gives_way = points.size < levels.size and self._entry.above_table == "max_1h"
        return np.where(gives_way & (values > points[-1]), np.nan, index)

    def from_store_state(self, values: np.ndarray, pollutants: tuple[str, ...]) -> np.ndarray:
        """Concentrations (..., P) of a store (gases at 273.15 K) at the edition's reference state.

        Particles stay: stores hold them as their source has them. Raises StandardError.
        """
        state = self._entry.reference_state
        if state is None:
            raise self._refuse("reference state")
        to_store = gas_reference_factor(np.array(["2013-01-01"], "datetime64[D]"), state)[0]
        gas = np.array([name in GASES for name in pollutants])
        return np.asarray(values, dtype=np.float64) / np.where(gas, to_store, 1.0)


def level(index: np.ndarray) -> np.ndarray:
    """Position in `LEVELS` of an index, float64; NaN stays NaN."""
    index = np.asarray(index, dtype=np.float64)
    found = np.searchsorted(list(LEVELS.values())[:-1], index)
    return np.where(np.isnan(index), np.nan, found)


def edition(name: str | Edition) -> Edition:
    """An `Edition` by name, or the one given."""
    return name if isinstance(name, Edition) else Edition(name)
