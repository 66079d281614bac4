"""What a scoreboard keeps apart: forecasts, lead times, pollutants, groups, thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aqnet.errors import explain
from aqnet.metrics import VerificationError
from aqnet.verification.groups import HOURS, SEASONS, SUN

__all__ = ["AXES", "Design", "position"]

# Cells of all sums, in this order; `class` stands for the groups of places.
# One lead time at one time of the year and day is one piece of memory.
AXES = ("lead_h", "season", "hour", "pollutant", "class", "sun")


@dataclass(frozen=True)
class Design:
    """What a scoreboard keeps apart; equal designs merge.

    Attributes
    ----------
    forecasts, pollutants : tuple of str
    lead_times_h : tuple of int
    groups : tuple of str
    in_group : tuple of tuple of int
        For each group, the classes of places that make it up.
    classes : int
        Number of classes.
    thresholds : tuple of tuple of float
        For each pollutant T ascending thresholds, ug/m3; T may be 0.
    windows : tuple of int
        Windows of the fractions skill score, cells; none for stations.
    anomalies : bool
        Anomaly correlations are kept.
    each_place : int
        Number of places whose own sums are kept (all times together); 0 for none.
    utc_offset_h : float
        Of seasons and hours.
    weight : str
        What the weights are: "area [km2]" or "one a station".
    edition : str
        Of the standards that daily products follow; "" for hours.
    days : str
        What days are made of: "one initialisation", or "composite of fixed lead times"; "" for
        hours.
    lead_days : tuple of int
        In place of `lead_times_h` for days of one initialisation: 1 is the first whole day.
    index : str
        The product that has levels and a primary pollutant, "" for none.
    """

    forecasts: tuple[str, ...]
    lead_times_h: tuple[int, ...]
    pollutants: tuple[str, ...]
    groups: tuple[str, ...]
    in_group: tuple[tuple[int, ...], ...]
    classes: int
    thresholds: tuple[tuple[float, ...], ...]
    windows: tuple[int, ...] = ()
    anomalies: bool = False
    each_place: int = 0
    utc_offset_h: float = 8.0
    weight: str = "area [km2]"
    edition: str = ""
    days: str = ""
    lead_days: tuple[int, ...] = ()
    index: str = ""

    @property
    def lead_axis(self) -> str:
        """Name of the axis of lead times: "lead_h" or "lead_day"."""
        return "lead_day" if self.lead_days else "lead_h"

    @property
    def leads(self) -> tuple[int, ...]:
        """Labels of that axis."""
        return self.lead_days or self.lead_times_h

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of `AXES`; days have one hour and one sun."""
        hours, sun = (1, 1) if self.edition else (len(HOURS), len(SUN))
        times = (len(self.leads), len(SEASONS), hours)
        return *times, len(self.pollutants), self.classes, sun

    @property
    def cells(self) -> tuple[int, int]:
        """Lead times and pollutants: (L, P)."""
        return len(self.leads), len(self.pollutants)

    def labels(self, axis: str) -> tuple:
        """Labels along an axis of tables."""
        known = {self.lead_axis: self.leads, "pollutant": self.pollutants, "group": self.groups}
        known |= {"season": SEASONS} if self.edition else {
            "sun": SUN, "season": SEASONS, "hour": HOURS}  # fmt: skip
        if axis not in known:
            raise VerificationError(
                explain("no such axis of a table", expected=list(known), found=axis,
                        remedy="choose among them")
            )  # fmt: skip
        return known[axis]

    def limits(self) -> np.ndarray:
        """(P, 1, 1, T): thresholds as they broadcast against the cells of the sums."""
        table = np.asarray(self.thresholds, dtype=np.float64)
        return table.reshape(len(self.pollutants), 1, 1, -1)


def position(labels: Sequence, label: object, axis: str) -> int:
    """Where a label stands; VerificationError, with the known ones, if it does not."""
    if label not in labels:
        raise VerificationError(
            explain(f"no such {axis}", expected=list(labels), found=label,
                    remedy="choose among them")
        )  # fmt: skip
    return labels.index(label)
