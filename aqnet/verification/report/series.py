"""Series through an episode, and the loss of a training, against time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill

import numpy as np
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from aqnet.verification.report.style import plain, require, style_of
from aqnet.verification.report.wording import LABELS, UNIT

__all__ = ["StationSeries", "TrainingCurve", "draw_station_series", "draw_training_curve"]


@dataclass(frozen=True, eq=False)
class StationSeries:
    """Observations and forecasts of one lead time at one station (or their mean).

    Parameters
    ----------
    station : str
        Name in the title.
    pollutant : str
        Key such as "pm25".
    lead_h : int
        Lead time of all forecasts [h].
    valid_times : (T,) datetime64, UTC
    observed : (T,)
        ug/m3, NaN where missing.
    forecasts : mapping of name to (T,)
        ug/m3.

    Raises
    ------
    VerificationError
        An array has another shape.
    """

    station: str
    pollutant: str
    lead_h: int
    valid_times: np.ndarray
    observed: np.ndarray
    forecasts: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        shape = (max(np.size(self.valid_times), 1),)
        series = {f"forecasts[{name!r}]": (v, shape) for name, v in self.forecasts.items()}
        times = {"valid_times": (self.valid_times, shape), "observed": (self.observed, shape)}
        require("StationSeries", **times, **series)


@dataclass(frozen=True, eq=False)
class TrainingCurve:
    """Loss per epoch.

    Parameters
    ----------
    epochs : (E,) int
    train_loss, validation_loss : (E,)
        In the unit named by `label`; NaN where not computed.
    label : str
        Axis label with the unit.
    best_epoch : int
        Epoch of the checkpoint that was evaluated.

    Raises
    ------
    VerificationError
        An array has another shape.
    """

    epochs: np.ndarray
    train_loss: np.ndarray
    validation_loss: np.ndarray
    label: str
    best_epoch: int

    def __post_init__(self) -> None:
        shape = (max(np.size(self.epochs), 1),)
        require(
            "TrainingCurve",
            epochs=(self.epochs, shape),
            train_loss=(self.train_loss, shape),
            validation_loss=(self.validation_loss, shape),
        )


def draw_station_series(
    series: Sequence[StationSeries],
    model: str = "model",
    utc_offset_h: int = 8,
    observed: str = "observed",
) -> Figure:
    """Observations (grey area) and forecasts against valid time, one panel per series.

    Parameters
    ----------
    series : sequence of StationSeries
        At least one.
    model : str
        Forecast drawn in black.
    utc_offset_h : int
        Added to UTC for the time axis [h] (Beijing 8).
    observed : str
        What the grey area is called.

    Returns
    -------
    matplotlib Figure
    """
    figure = Figure(figsize=(10.5, 2.6 * len(series) + 0.5), layout="constrained")
    panels = figure.subplots(len(series), 1, squeeze=False, sharex=True)[:, 0]
    names = list(dict.fromkeys(name for one in series for name in one.forecasts))
    for axes, one in zip(panels, series, strict=True):
        hours = np.asarray(one.valid_times).astype("datetime64[h]")
        local = hours + np.timedelta64(utc_offset_h, "h")
        axes.fill_between(local, 0, one.observed, color="#c9c9c9", label=observed, linewidth=0)
        for name, values in one.forecasts.items():
            line = style_of(name, names, model) | {"marker": "", "linewidth": 1.5}
            axes.plot(local, values, label=name, **line)
        label = LABELS.get(one.pollutant, one.pollutant)
        axes.set_title(f"{one.station}, {label}, {one.lead_h} h ahead", loc="left", fontsize=11)
        axes.set_ylabel(f"{label} [{UNIT}]")
        axes.set_ylim(bottom=0)
        plain(axes)
    locator = AutoDateLocator()
    panels[-1].xaxis.set_major_locator(locator)
    panels[-1].xaxis.set_major_formatter(ConciseDateFormatter(locator))
    panels[-1].set_xlabel(f"valid time (UTC{utc_offset_h:+d})")
    panels[0].legend(loc="upper left", ncols=1 + len(names), frameon=False, fontsize=9)
    return figure


def draw_training_curve(curve: TrainingCurve) -> Figure:
    """Train and validation loss per epoch, with the epoch that was evaluated.

    Parameters
    ----------
    curve : TrainingCurve

    Returns
    -------
    matplotlib Figure
    """
    figure = Figure(figsize=(7.0, 3.0), layout="constrained")
    axes = figure.subplots()
    marks = {"marker": "o", "markersize": 3.5}
    axes.plot(curve.epochs, curve.train_loss, color="#0072B2", ls="--", label="train", **marks)
    axes.plot(curve.epochs, curve.validation_loss, color="#D55E00", label="validation", **marks)
    axes.axvline(curve.best_epoch, color="#777777", lw=0.9, ls=":", label="evaluated checkpoint")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("epoch")
    axes.set_ylabel(fill(curve.label, 32))
    axes.legend(frameon=False, fontsize=9)
    plain(axes)
    return figure
