"""The report of a Beijing evaluation: what its tables, maps and series are taken from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from aqnet.data.manifest import Manifest
from aqnet.data.stations.samples import GriddedFields, StationRecords
from aqnet.errors import explain
from aqnet.metrics import VerificationError
from aqnet.training.checkpoint import LoadedForecaster
from aqnet.variables import STATIC, TARGETS
from aqnet.verification.forecasts import MODEL, SplitForecasts, fields_at
from aqnet.verification.groups import ALL
from aqnet.verification.report.boards import open_boards
from aqnet.verification.report.context import ReportContext
from aqnet.verification.report.series import StationSeries, TrainingCurve
from aqnet.verification.report.station_maps import EpisodeMaps
from aqnet.verification.scores import ASSIMILATED, GRID, WITHHELD, PrimaryTest, place_scores

__all__ = [
    "check_lead",
    "episode_maps",
    "places_text",
    "report_context",
    "share_note",
    "station_series",
    "training_curve",
]


def check_lead(loaded: LoadedForecaster, lead_h: int) -> int:
    """Position of a lead time among those of the model, or a VerificationError that lists them."""
    leads = loaded.statistical.lead_times_h
    if lead_h not in leads:
        message = explain(
            "no forecast of this lead time",
            expected=f"one of {list(leads)} h",
            found=f"{lead_h} h",
            remedy="choose episode_lead_h among them",
        )
        raise VerificationError(message)
    return leads.index(lead_h)


def episode_maps(
    loaded: LoadedForecaster,
    fields: GriddedFields,
    stations: StationRecords,
    pollutant: str,
    lead_h: int,
    valid_times: np.ndarray,
) -> EpisodeMaps:
    """Maps of truth and forecast at a few valid times (K,) datetime64[h] UTC of the test split.

    Raises
    ------
    VerificationError
        The model has no such lead time, or no sample at an init time.
    """
    lead, p = check_lead(loaded, lead_h), TARGETS.index(pollutant)
    init = valid_times - np.timedelta64(lead_h, "h")
    forecast, truth, scored = fields_at(loaded, fields, init)
    at = np.searchsorted(stations.times, valid_times)
    return EpisodeMaps(
        pollutant, lead_h, valid_times, fields.lat, fields.lon, truth[:, lead, p],
        forecast[:, lead, p], fields.static[STATIC.index("elevation")],
        scored[:, lead, p].all(axis=0), stations.lat, stations.lon, stations.observed[at, p],
        stations.withheld,
    )  # fmt: skip


def station_series(
    test: SplitForecasts,
    stations: StationRecords,
    primary: PrimaryTest,
    loaded: LoadedForecaster,
    pollutant: str,
    lead_h: int,
    start: np.datetime64,
    end: np.datetime64,
) -> list[StationSeries]:
    """Observed, model and best baseline from `start` to `end` (valid times, UTC).

    One series for the assimilated station with the most observations in the period, and one for
    each withheld station.

    Raises
    ------
    VerificationError
        No forecast is valid in the period.
    """
    lead, p = check_lead(loaded, lead_h), TARGETS.index(pollutant)
    valid = test.times + np.timedelta64(lead_h, "h")
    rows = np.flatnonzero((valid >= start) & (valid <= end))
    if rows.size == 0:
        message = explain(
            "no forecast in the period of the time series",
            expected=f"valid times between {valid[0]} and {valid[-1]}",
            found=f"{start} to {end}",
            remedy="choose another period",
        )
        raise VerificationError(message)
    observed = test.observed[rows, lead, p]
    counts = np.where(stations.withheld, -1, np.isfinite(observed).sum(axis=0))
    chosen = [int(counts.argmax()), *np.flatnonzero(stations.withheld).tolist()]
    baseline = next(
        c.opponent for c in primary.cells if (c.pollutant, c.lead_h) == (pollutant, lead_h)
    )
    kinds = {True: "withheld from the analysis", False: "assimilated"}
    return [
        StationSeries(
            f"{stations.names[s]} ({kinds[bool(stations.withheld[s])]})", pollutant, lead_h,
            valid[rows], observed[:, s],
            {name: test.at_stations[name][rows, lead, p, s] for name in (MODEL, baseline)},
        )
        for s in chosen
    ]  # fmt: skip


def training_curve(curve: Mapping) -> TrainingCurve:
    """From the `curve` that a training run writes into its metrics."""
    train = [np.nan if v is None else v for v in curve["train"]]
    label = "loss relative to the statistical start on the training split [1]"
    return TrainingCurve(
        np.array(curve["epoch"]),
        np.array(train, dtype=float),
        np.array(curve["validation"]),
        label,
        curve["best_epoch"],
    )


def share_note(share: float, trials: Sequence[Mapping]) -> str:
    """A sentence on the share of the correction that is applied, and what it costs.

    Parameters
    ----------
    share : float
        The share that the judged model applies.
    trials : sequence of mapping
        `share_trials` of the training run: share, won, lost, rmse_ratio in the validation year.
    """
    by_share = {trial["share"]: trial for trial in trials}
    text = f"The model applies {share:.0%} of its learned correction"
    if share not in by_share:
        return f"{text}, as its training run was told."
    chosen, full = by_share[share], max(trials, key=lambda trial: trial["share"])
    gain = [100 * (1 - trial["rmse_ratio"]) for trial in (chosen, full)]
    return (
        f"{text}. In the validation year this share had an RMSE {gain[0]:.1f} % below the best "
        f"statistical forecast on average and won {chosen['won']} cells; the share "
        f"{full['share']:.0%} had {gain[1]:.1f} % and won {full['won']}. Its scores on the test "
        'year are in the tables as "full correction". A share below one was adopted after a '
        "first evaluation with the full correction had won 5 of the 24 cells of the test year: the "
        "count of cells won is not free of that knowledge."
    )


def places_text(stations: StationRecords, fields: GriddedFields) -> dict[str, str]:
    """A sentence on each place of the scores."""
    kept = [n for n, w in zip(stations.names, stations.withheld, strict=True) if not w]
    left = [n for n, w in zip(stations.names, stations.withheld, strict=True) if w]
    share = fields.scored.any(axis=0).mean()
    return {
        ASSIMILATED: f"The {len(kept)} stations that the gridded analysis uses "
        f"({', '.join(kept)}), pooled. The model is the gridded forecast, interpolated to the "
        "station; the baselines use the station's own past.",
        WITHHELD: f"{' and '.join(left)}: never seen by the analysis or by any fit of the model. "
        "The baselines there do use the station's own past, which the model does not have.",
        GRID: "Cells and hours whose analysis-error variance is at most half of the background's "
        f"(up to {share:.0%} of the cells, depending on pollutant and hour). The truth is the "
        "analysis of observed hours, which is smoother than the air.",
    }


def report_context(
    manifest: Manifest,
    loaded: LoadedForecaster,
    fields: GriddedFields,
    stations: StationRecords,
    primary: PrimaryTest,
    test: SplitForecasts,
    *,
    boards: Mapping[str, Path],
    sees: Mapping[str, str],
    curve: Mapping,
    provenance: Mapping[str, Mapping[str, object]],
    notes: Sequence[str],
    pollutant: str,
    lead_h: int,
    map_times: np.ndarray,
    start: np.datetime64,
    end: np.datetime64,
) -> ReportContext:
    """Everything the report of a Beijing run shows.

    Parameters
    ----------
    manifest, loaded, fields, stations, primary, test
        What was judged, and the outcome.
    boards : mapping of "stations" and "grid" to path
        Files of the scoreboards of `test`.
    sees : mapping
        What each forecast may use.
    curve : mapping
        Losses per epoch, from the training run.
    provenance : mapping of section to mapping
        Shown as it is.
    notes : sequence of str
        Further sentences of the summary.
    pollutant, lead_h
        Of maps and series.
    map_times : (K,) datetime64[h], UTC
        Valid times of the maps.
    start, end : datetime64, UTC
        First and last valid time of the series.
    """
    first, last = str(test.times[0])[:10], str(test.times[-1])[:10]
    at, on = open_boards([boards["stations"], boards["grid"]], [primary.model] * 2)
    return ReportContext(
        title="Air-quality forecasts for Beijing, 12 to 96 hours ahead",
        subtitle=f"{manifest.title}. {len(test.times)} forecasts of the test year, made from "
        f"{first} to {last} (UTC); the 60 days before and the last 96 h are kept free. "
        f"Data: {manifest.attribution} ({manifest.licence}).",
        primary=primary,
        scores=place_scores(test.stations, test.grid),
        boards={ASSIMILATED: (at, ASSIMILATED), WITHHELD: (at, WITHHELD), GRID: (on, ALL)},
        sees=sees,
        places=places_text(stations, fields),
        episode=episode_maps(loaded, fields, stations, pollutant, lead_h, map_times),
        episode_title="Haze of December 2016" if str(start)[:7] == "2016-12" else "Episode",
        series=station_series(test, stations, primary, loaded, pollutant, lead_h, start, end),
        training=training_curve(curve),
        provenance=provenance,
        synthetic=manifest.synthetic,
        notes=notes,
        utc_offset_h=int(manifest.source_utc_offset_h),
    )
