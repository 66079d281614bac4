"""What `aqnet forecast` writes: init times of a period, and a function that forecasts from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aqnet.data.splits import Split, init_times
from aqnet.data.years.format import stamp
from aqnet.errors import CoverageError, LeadTimeError, ParameterError, explain
from aqnet.grid import Grid
from aqnet.variables import TARGETS
from aqnet.verification.store.format import ForecastSpec, require_leads
from aqnet.verification.store.writer import ForecastWriter

__all__ = ["ForecastPlan", "Period", "chosen_leads", "without", "write_forecasts"]


@dataclass(frozen=True)
class Period:
    """Init times that are asked for: those of a split, or from `first` to `last`.

    Attributes
    ----------
    split : str or None
        Its init times whose history and valid times lie in the split.
    first, last : datetime64[h] or None
        UTC, inclusive.
    every_h : int
        Only hours of UTC days that are multiples of it: 6 gives 00, 06, 12 and 18 UTC.

    Raises
    ------
    ParameterError
        Neither or both of split and times, or an interval that does not divide a day.
    """

    split: str | None = None
    first: np.datetime64 | None = None
    last: np.datetime64 | None = None
    every_h: int = 1

    def __post_init__(self) -> None:
        times = (self.first is not None, self.last is not None)
        fits = [(self.split is not None) + all(times) == 1 and any(times) == all(times),
                self.every_h >= 1 and 24 % self.every_h == 0,
                not all(times) or self.first <= self.last]  # fmt: skip
        if not all(fits):
            raise ParameterError(
                explain("no period", expected="a split, or a first and a last init time (UTC); "
                        "an interval that divides 24 h", found=self,
                        remedy="--split test, or --from 2018-01-01T00 --to 2018-12-31T18 --every 6")
            )  # fmt: skip

    def times(self, splits: dict[str, Split], max_lead_h: int, history_h: int) -> np.ndarray:
        """Init times, datetime64[h] UTC; LeadTimeError if the split is too short."""
        if self.split is None:
            found = np.arange(self.first, self.last + np.timedelta64(1, "h"), dtype="datetime64[h]")
        else:
            found = init_times(splits[self.split], max_lead_h, history_h)
        return found[found.astype(np.int64) % self.every_h == 0]

    def describe(self) -> str:
        """For the provenance."""
        when = self.split or f"{stamp(self.first)} to {stamp(self.last)}"
        return f"{when}, every {self.every_h} h"


@dataclass(frozen=True, eq=False)
class ForecastPlan:
    """Forecasts to be written.

    Attributes
    ----------
    times : (N,) datetime64[h]
        Init times, UTC.
    skipped : tuple of (str, str)
        Those that were asked for and cannot be forecast, and why.
    lead_times_h : tuple of int
    grid, mask : Grid, (H, W) bool
    provenance : dict
        See `aqnet.verification.store.format.PROVENANCE`.
    forecast : callable
        ``forecast(times)`` gives (n, L, 6, H, W) in ug/m3 for some of `times`.
    batch : int
        Init times a call of `forecast`.
    pollutants : tuple of str
        Third axis of what `forecast` gives, in the order of TARGETS.
    """

    times: np.ndarray
    skipped: tuple[tuple[str, str], ...]
    lead_times_h: tuple[int, ...]
    grid: Grid
    mask: np.ndarray
    provenance: dict
    forecast: Callable[[np.ndarray], np.ndarray]
    batch: int
    pollutants: tuple[str, ...] = TARGETS

    def spec(self, block: int = 0) -> ForecastSpec:
        """Of the store; CoverageError if no init time is left."""
        if not self.times.size:
            raise CoverageError(
                explain("there is nothing to forecast", expected="an init time with its inputs",
                        found=f"none left of {len(self.skipped)}: "
                        f"{'; '.join(' '.join(s) for s in self.skipped[:3]) or 'none asked for'}",
                        remedy="choose another period, or look at the stores")
            )  # fmt: skip
        return ForecastSpec(self.times, self.lead_times_h, self.grid, self.mask, self.provenance,
                            self.pollutants, self.skipped, block=block)  # fmt: skip


def without(times: np.ndarray, reasons: np.ndarray) -> tuple[np.ndarray, tuple]:
    """Init times without a reason, and the others with theirs; reasons (N,) of str, "" for none."""
    good = reasons == ""
    lost = zip(times[~good], reasons[~good], strict=True)
    return times[good], tuple((stamp(t), str(why)) for t, why in lost)


def chosen_leads(wanted: Sequence[int] | None, own: Sequence[int] | None) -> tuple[int, ...]:
    """Lead times to write; LeadTimeError for none, or for some that are not among `own`."""
    if wanted is None and own is None:
        return require_leads([])
    leads = require_leads(own if wanted is None else wanted)
    if own is not None and not set(leads) <= set(own):
        raise LeadTimeError(
            explain("the model does not forecast these lead times", found=list(leads),
                    expected=f"some of {list(own)} h",
                    remedy="choose among them, or train with lead_mode one")
        )  # fmt: skip
    return leads


def write_forecasts(
    plan: ForecastPlan,
    path: str | Path,
    *,
    block: int = 0,
    rank: int = 0,
    world: int = 1,
    patience_s: float = 600.0,
    echo: Callable[[str], None] = print,
) -> str | None:
    """Write the forecasts of a plan; on several processes each calls this.

    The values depend neither on `world` nor on interruptions: a block is always forecast in the
    same batches.

    Parameters
    ----------
    plan : ForecastPlan
    path : path
        Store; going on with what an earlier call left.
    block : int
        Init times that a process forecasts and writes at once; 0 chooses by size.
    rank, world, patience_s
        See `ForecastWriter`.
    echo : callable
        Takes progress lines.

    Returns
    -------
    str or None
        Digest of the store; None on ranks other than 0.

    Raises
    ------
    StoreError, StoreBusyError, StorageFullError
        See `ForecastWriter`.
    FieldError
        A forecast is NaN or infinite inside the mask.
    """
    spec = plan.spec(block)
    with ForecastWriter(path, spec, rank, world, patience_s) as writer:
        pending = writer.pending()
        for done, number in enumerate(pending, start=1):
            times = spec.init_times[spec.rows(number)]
            starts = range(0, len(times), plan.batch)
            parts = [plan.forecast(times[i : i + plan.batch]) for i in starts]
            values = np.concatenate(parts)
            writer.write(number, {name: values[:, :, i] for i, name in enumerate(spec.pollutants)})
            echo(f"block {number}, {done} of {len(pending)} of this process: {stamp(times[0])} to "
                 f"{stamp(times[-1])}")  # fmt: skip
        return writer.finish()
