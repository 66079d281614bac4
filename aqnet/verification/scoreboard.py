"""Scoreboard: every score of several forecasts on common pairs, in sums that merge."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from aqnet.errors import explain
from aqnet.events import EventSums, NeighbourhoodSums
from aqnet.io import atomic_file
from aqnet.metrics import ErrorSums, VerificationError
from aqnet.verification.groups import ALL, HOURS, SEASONS, SUN

__all__ = ["AXES", "Design", "Scoreboard", "load_scoreboard", "position", "save_scoreboard"]

# Cells of all sums, in this order; `class` stands for the groups of places.
# One lead time at one time of the year and day is one piece of memory.
AXES = ("lead_h", "season", "hour", "pollutant", "class", "sun")
_FORMAT, _VERSION = "aqnet-scoreboard", 1


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

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of `AXES`."""
        times = (len(self.lead_times_h), len(SEASONS), len(HOURS))
        return *times, len(self.pollutants), self.classes, len(SUN)

    @property
    def cells(self) -> tuple[int, int]:
        """Lead times and pollutants: (L, P)."""
        return len(self.lead_times_h), len(self.pollutants)

    def labels(self, axis: str) -> tuple:
        """Labels along an axis of tables."""
        known = {"lead_h": self.lead_times_h, "pollutant": self.pollutants, "group": self.groups}
        known |= {"sun": SUN, "season": SEASONS, "hour": HOURS}
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


def _empty(design: Design) -> dict[str, dict[str, object]]:
    """Sums of each kind for each forecast."""
    shape, limits = design.shape, design.limits()
    kinds = {"error": lambda: ErrorSums(shape)}
    if design.anomalies:
        kinds["anomaly"] = lambda: ErrorSums(shape)
    if limits.shape[-1]:
        kinds["event"] = lambda: EventSums(shape, limits)
        if design.windows:
            kinds["neighbourhood"] = lambda: NeighbourhoodSums(shape, limits, design.windows)
    if design.each_place:
        kinds["place"] = lambda: ErrorSums((*design.cells, design.each_place))
    return {kind: {name: make() for name in design.forecasts} for kind, make in kinds.items()}


class Scoreboard:
    """Scores per lead time, pollutant, group of places, sun, season and hour of several forecasts.

    All forecasts are scored on the same pairs: those where the truth and every forecast is known.

    Attributes
    ----------
    design : Design
    sums : dict of kind to dict of forecast to sums
        Kinds: `error` (ErrorSums), `anomaly` (ErrorSums of departures from a climatology),
        `event`, `neighbourhood`, all with cells `AXES`; `place`: ErrorSums (L, P, places).
    missing : dict of forecast to (L, P) float64
        Pairs with known truth that nobody is scored on because this forecast lacks them.
    times : (N,) datetime64[h]
        Init times, UTC, ascending.
    weight : (N, L, P, G) float64
        Sum of weights of the pairs of each init time.
    squares : dict of forecast to (N, L, P, G) float64
        Weighted sum of squared errors of each init time, (ug/m3)^2.
    """

    def __init__(self, design: Design) -> None:
        self.design, self.sums = design, _empty(design)
        cells = design.cells
        self.missing = {name: np.zeros(cells) for name in design.forecasts}
        series = (0, *cells, len(design.groups))
        self.times, self.weight = np.zeros(0, "datetime64[h]"), np.zeros(series)
        self.squares = {name: np.zeros(series) for name in design.forecasts}

    def extend(
        self, times: np.ndarray, weight: np.ndarray, squares: Mapping[str, np.ndarray]
    ) -> None:
        """Add init times to the series; VerificationError for one that is there already."""
        times = np.concatenate([self.times, np.asarray(times).astype("datetime64[h]")])
        order = np.argsort(times, kind="stable")
        if (repeated := times[order][1:] == times[order][:-1]).any():
            raise VerificationError(
                explain("init times scored twice", expected="each init time once",
                        found=f"{repeated.sum()} repeated, the first "
                        f"{times[order][1:][repeated][0]}",
                        remedy="give parts that do not overlap")
            )  # fmt: skip
        self.times = times[order]
        self.weight = np.concatenate([self.weight, weight])[order]
        for name in self.design.forecasts:
            self.squares[name] = np.concatenate([self.squares[name], squares[name]])[order]

    def merge(self, other: Scoreboard) -> Scoreboard:
        """Scoreboard of the init times of both, as a new object.

        Raises
        ------
        VerificationError
            The designs differ, or an init time is in both.
        """
        if self.design != other.design:
            mine, theirs = asdict(self.design), asdict(other.design)
            names = [k for k in mine if mine[k] != theirs[k]]
            raise VerificationError(
                explain("scoreboards of other designs cannot be merged",
                        expected={k: mine[k] for k in names}, found={k: theirs[k] for k in names},
                        remedy="merge parts of one evaluation")
            )  # fmt: skip
        merged = Scoreboard(self.design)
        for kind, named in self.sums.items():
            merged.sums[kind] = {n: s.merge(other.sums[kind][n]) for n, s in named.items()}
        merged.missing = {n: m + other.missing[n] for n, m in self.missing.items()}
        merged.times, merged.weight, merged.squares = self.times, self.weight, dict(self.squares)
        merged.extend(other.times, other.weight, other.squares)
        return merged

    def loss_series(
        self, forecast: str, lead_h: int, pollutant: str, group: str = ALL
    ) -> tuple[np.ndarray, np.ndarray]:
        """Squared error per init time of a group.

        The sum of weighted squares of each init time over the *mean* weight, so that the mean
        over times is exactly the square of `rmse_over_space_time`.

        Returns
        -------
        times : (T,) datetime64[h], ascending
            Init times with at least one pair.
        loss : (T,)
            (ug/m3)^2.
        """
        cell = tuple(
            position(self.design.labels(axis), label, axis)
            for axis, label in (("lead_h", lead_h), ("pollutant", pollutant), ("group", group))
        )
        weight = self.weight[:, *cell]
        position(self.design.forecasts, forecast, "forecast")
        used = weight > 0
        loss = self.squares[forecast][:, *cell][used]
        return self.times[used], loss / weight[used].mean() if used.any() else loss


def position(labels: Sequence, label: object, axis: str) -> int:
    """Where a label stands; VerificationError, with the known ones, if it does not."""
    if label not in labels:
        raise VerificationError(
            explain(f"no such {axis}", expected=list(labels), found=label,
                    remedy="choose among them")
        )  # fmt: skip
    return labels.index(label)


# ---- files


def _arrays(board: Scoreboard) -> dict[str, np.ndarray]:
    """Everything but the design, by the name of its entry in a file."""
    held = {"times": board.times.astype(np.int64), "weight": board.weight}
    for name in board.design.forecasts:
        held |= {f"missing/{name}": board.missing[name], f"squares/{name}": board.squares[name]}
        for kind, named in board.sums.items():
            state = named[name].state
            held |= {f"{kind}/{name}/{field}": values for field, values in state.items()}
    return held


def save_scoreboard(board: Scoreboard, path: str | Path) -> None:
    """Write a scoreboard to a .npz file, whole or not at all; nothing in it is pickled."""
    header = {"format": _FORMAT, "version": _VERSION, "design": asdict(board.design)}
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    with atomic_file(path) as file:
        np.savez_compressed(file, header=text, **_arrays(board))


def load_scoreboard(path: str | Path) -> Scoreboard:
    """Inverse of `save_scoreboard`, exact.

    Raises
    ------
    VerificationError
        No such file, another format, or arrays that the design does not have.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(arrays.pop("header").tobytes())
        design = Design(**{k: _tuples(v) for k, v in header["design"].items()})
        if (header["format"], header["version"]) != (_FORMAT, _VERSION):
            raise ValueError(f"format {header['format']} {header['version']}")
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as problem:
        raise _no_scoreboard(path, repr(problem)) from problem
    board = Scoreboard(design)
    expected = {name: values.shape for name, values in _arrays(board).items()}
    count = arrays.get("times", np.zeros(0)).shape[0]
    series = ("times", "weight", "squares/")
    expected |= {k: (count, *s[1:]) for k, s in expected.items() if k.startswith(series)}
    found = {name: values.shape for name, values in arrays.items()}
    if wrong := sorted(k for k in expected | found if expected.get(k) != found.get(k)):
        raise _no_scoreboard(path, f"missing, surplus or of another shape: {wrong}")
    _fill(board, arrays)
    return board


def _fill(board: Scoreboard, arrays: Mapping[str, np.ndarray]) -> None:
    board.times, board.weight = arrays["times"].astype("datetime64[h]"), arrays["weight"]
    for name in board.design.forecasts:
        board.missing[name] = arrays[f"missing/{name}"]
        board.squares[name] = arrays[f"squares/{name}"]
        for kind, named in board.sums.items():
            for field in named[name].state:
                named[name].state[field] = arrays[f"{kind}/{name}/{field}"]


def _tuples(value: object) -> object:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _no_scoreboard(path: Path, found: str) -> VerificationError:
    return VerificationError(
        explain(f"{path} is not a scoreboard", expected=f"{_FORMAT} {_VERSION}, a .npz file",
                found=found, remedy="use what save_scoreboard wrote, or score again")
    )  # fmt: skip
