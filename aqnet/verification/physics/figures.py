"""Pictures of mass budgets and probes; red-blue and Okabe-Ito colours, safe for all eyes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from aqnet.data.geography import outlines
from aqnet.data.years.format import stamp
from aqnet.grid import EARTH_RADIUS_KM
from aqnet.variables import DYNAMIC
from aqnet.verification.physics.mass_budget import MassBudget
from aqnet.verification.physics.probe_quantities import QUANTITIES
from aqnet.verification.physics.probes import Place, Scene, Surroundings

__all__ = ["draw_budget", "draw_composites", "draw_numbers", "draw_residuals", "draw_responses"]

UNIT = "ug/m3"
# Okabe and Ito (2008): black, orange, sky blue, green.
_COLOURS = ("#000000", "#d55e00", "#56b4e9", "#009e73", "#cc79a7")
_ARROWS = 18  # along the longer side of a map
_LABELS = {"pm25": "PM2.5", "pm10": "PM10", "so2": "SO2", "no2": "NO2", "co": "CO", "o3": "O3"}


def _limit(*fields: np.ndarray) -> float:
    """99.5th percentile of absolute values: one cell must not flatten all colours."""
    values = np.concatenate([np.abs(field[np.isfinite(field)]) for field in fields])
    return max(float(np.percentile(values, 99.5)), 1e-6) if values.size else 1e-6


def _plain(axes: object) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


# ---- budgets


def draw_budget(budget: MassBudget, pollutant: str, lead_h: int) -> Figure:
    """Change against transport of each region and init time, forecast and truth."""
    p, lead = budget.pollutants.index(pollutant), budget.lead_times_h.index(lead_h)
    count = len(budget.borders.names)
    columns = min(count, 4)
    rows = -(-count // columns)
    figure = Figure(figsize=(2.9 * columns + 0.4, 2.7 * rows + 0.7), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for region, axes in zip(range(count), panels, strict=False):
        for kind, (marker, colour) in enumerate((("o", _COLOURS[1]), ("x", _COLOURS[0]))):
            terms = budget.terms[kind, :, :, lead, p, region]
            label = ("forecast", "truth")[kind] if region == 0 else None
            axes.scatter(terms[1] + terms[2], terms[0], s=14, c=colour, marker=marker,
                         linewidths=0.8, label=label, alpha=0.8)  # fmt: skip
        axes.axline((0, 0), slope=1, color="0.7", lw=0.8, zorder=0)
        axes.set_title(budget.borders.names[region].replace("_", " "), fontsize=9, loc="left")
        _plain(axes)
    for axes in panels[count:]:
        axes.set_visible(False)
    figure.supxlabel(f"carried in by the wind at the ground, less lifted [{UNIT}]", fontsize=9)
    figure.supylabel(f"change of {_LABELS[pollutant]} in {lead_h} h [{UNIT}]", fontsize=9)
    figure.legend(loc="outside upper right", ncols=2, frameon=False, fontsize=9)
    return figure


def draw_residuals(budget: MassBudget, pollutant: str) -> Figure:
    """Mean residual [ug/m3 an hour] against lead time, with its 95 % range over init times."""
    p, leads = budget.pollutants.index(pollutant), np.asarray(budget.lead_times_h)
    count = len(budget.borders.names)
    columns = min(count, 4)
    rows = -(-count // columns)
    figure = Figure(figsize=(2.9 * columns + 0.4, 2.5 * rows + 0.7), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    styles = (("forecast", _COLOURS[1], "o-"), ("truth", _COLOURS[0], "x-"),
              ("truth, hourly", _COLOURS[2], ":"))  # fmt: skip
    for region, axes in zip(range(count), panels, strict=False):
        for kind, (label, colour, style) in enumerate(styles):
            rest = budget.terms[kind, 3, :, :, p, region] / leads
            axes.plot(leads, np.nanmean(rest, 0), style, color=colour, ms=4, lw=1.2,
                      label=label if region == 0 else None)  # fmt: skip
            if kind < 2:
                low, high = np.nanpercentile(rest, [2.5, 97.5], axis=0)
                axes.fill_between(leads, low, high, color=colour, alpha=0.12, lw=0)
        axes.axhline(0, color="0.7", lw=0.8, zorder=0)
        axes.set_title(budget.borders.names[region].replace("_", " "), fontsize=9, loc="left")
        _plain(axes)
    for axes in panels[count:]:
        axes.set_visible(False)
    for axes in panels[max(count - columns, 0) : count]:
        axes.tick_params(labelbottom=True)  # nothing is drawn below
    figure.supxlabel("lead time [h]", fontsize=9)
    figure.supylabel(f"residual of {_LABELS[pollutant]} [{UNIT} an hour]", fontsize=9)
    figure.legend(loc="outside upper right", ncols=3, frameon=False, fontsize=9)
    return figure


# ---- maps


def _arrows(axes: object, scene: Scene, wind: np.ndarray) -> None:
    """Arrows of wind (2, N) [m/s]: means of blocks of cells, so that their number is bearable."""
    step = max(1, -(-max(scene.mask.shape) // _ARROWS))
    full = np.full((2, *scene.mask.shape), np.nan)
    full[:, scene.mask] = wind
    rows, columns = (np.arange(0, n - step + 1, step) for n in scene.mask.shape)
    block = [full[:, r : r + step, c : c + step] for r in rows for c in columns]
    known = [np.isfinite(b[0]).mean() > 0.5 for b in block]
    mean = np.array([np.nanmean(b, (1, 2)) for b, k in zip(block, known, strict=True) if k])
    middle = (step - 1) // 2
    place = np.array([(scene.grid.lon[c + middle], scene.grid.lat[r + middle])
                      for r in rows for c in columns])[known]  # fmt: skip
    top = max(1.0, float(np.ceil(np.hypot(*mean.T).max())))  # a tenth of the width of a map
    look = {"color": "#333333", "edgecolor": "white", "linewidth": 0.3, "width": 0.005}
    drawn = axes.quiver(*place.T, *mean.T, **look, scale=10 * top, zorder=3)
    axes.quiverkey(drawn, 0.86, 1.05, top, f"{top:g} m/s", labelpos="E", fontproperties={"size": 7})


def _circle(axes: object, place: Place, **style: object) -> None:
    turn = np.linspace(0, 2 * np.pi, 90)
    degrees = np.rad2deg(place.radius_km / EARTH_RADIUS_KM)
    lon = place.lon + degrees * np.cos(turn) / np.cos(np.deg2rad(place.lat))
    axes.plot(lon, place.lat + degrees * np.sin(turn), zorder=4, lw=1.4, **style)


def _map(axes: object, scene: Scene, values: np.ndarray, norm: Normalize, coasts: list) -> object:
    field = np.full(scene.mask.shape, np.nan)
    field[scene.mask] = values
    lon_edges, lat_edges = scene.grid.edges()[1], scene.grid.edges()[0]
    mesh = axes.pcolormesh(lon_edges, lat_edges, field, cmap="RdBu_r", norm=norm)
    for line in coasts:
        axes.plot(*line.T, color="0.45", lw=0.5, zorder=2)
    axes.set(xlim=np.sort(lon_edges[[0, -1]]), ylim=np.sort(lat_edges[[0, -1]]))
    axes.set_aspect(1 / np.cos(np.deg2rad(scene.grid.lat.mean())))
    axes.tick_params(labelsize=7)
    return mesh


def draw_responses(
    rows: Mapping[str, np.ndarray],
    scene: Scene,
    number: int | None,
    leads_h: Sequence[int],
    pollutant: str,
    source: Place | None = None,
    receptor: Place | None = None,
    lifted_m: Mapping[str, np.ndarray] | None = None,
) -> Figure:
    """Maps of responses with the wind at the init time.

    Parameters
    ----------
    rows : mapping
        Title to response (B, L, N) [ug/m3]: one row of maps each.
    scene : Scene
        The init times B; their wind is drawn.
    number : int or None
        Init time that is drawn; None: the mean of all.
    leads_h, pollutant
        For the titles.
    source, receptor : Place, optional
        Black and green circles.
    lifted_m : mapping, optional
        Title to change of the terrain (H, W) [m], drawn as contours.
    """
    figure = Figure(figsize=(2.9 * len(leads_h) + 0.9, 2.5 * len(rows) + 0.6), layout="constrained")
    axes = figure.subplots(len(rows), len(leads_h), squeeze=False, sharex=True, sharey=True)
    winds = scene.values[:, 0, [DYNAMIC.index("u"), DYNAMIC.index("v")]]
    coasts, chosen = outlines(), slice(None) if number is None else slice(number, number + 1)
    when = f"mean of {len(scene.times)} init times" if number is None else stamp(
        scene.times[number])  # fmt: skip
    for line, (title, response) in zip(axes, rows.items(), strict=True):
        shown = response[chosen].mean(0)
        norm = Normalize(-_limit(shown), _limit(shown))
        for panel, values, lead in zip(line, shown, leads_h, strict=True):
            mesh = _map(panel, scene, values, norm, coasts)
            _arrows(panel, scene, winds[chosen].mean(0))
            for place, colour in ((source, "black"), (receptor, _COLOURS[3])):
                if place is not None:
                    _circle(panel, place, color=colour)
            if lifted_m is not None and np.abs(lifted_m[title]).max() > 1:
                change = np.abs(lifted_m[title])
                panel.contour(scene.grid.lon, scene.grid.lat, change, colors="black",
                              levels=[0.25 * change.max(), 0.6 * change.max()], linewidths=0.9,
                              linestyles="--")  # fmt: skip
            panel.set_title(f"{title}, {lead} h", fontsize=8.5, loc="left")
        bar = figure.colorbar(mesh, ax=line, extend="both", pad=0.01, shrink=0.9)
        bar.set_label(f"{_LABELS[pollutant]} [{UNIT}]", fontsize=8)
    title = f"{_LABELS[pollutant]}: response of the forecast; wind at the init time, {when}"
    figure.suptitle(title, fontsize=9.5)
    return figure


# ---- in the frame of the wind


def composite(
    response: np.ndarray, source: Surroundings, reach_km: float, bins: int = 21
) -> tuple[np.ndarray, np.ndarray]:
    """Mean response (L, bins, bins) in squares along and across the wind, and their edges [km].

    `response`: (B, L, N). Every cell counts by its area; NaN where no cell falls.
    """
    edges = np.linspace(-reach_km, reach_km, bins + 1)
    along, across = (x[source.blows].ravel() for x in source.along_km())
    weight = np.broadcast_to(source.area_km2, (int(source.blows.sum()), source.area_km2.size))
    total = np.histogram2d(across, along, [edges, edges], weights=weight.ravel())[0]
    parts = [
        np.histogram2d(across, along, [edges, edges], weights=(weight * each).ravel())[0]
        for each in response[source.blows].swapaxes(0, 1)
    ]
    return np.stack(parts) / np.where(total > 0, total, np.nan), edges


def draw_composites(
    responses: Mapping[str, np.ndarray],
    source: Surroundings,
    leads_h: Sequence[int],
    pollutant: str,
    reach_km: float,
) -> Figure:
    """Mean response to removing a source, turned so that the wind blows to the right.

    `responses`: title to (B, L, N) [ug/m3]; a row each. Colours end at the largest of the first.
    """
    found = {name: composite(each, source, reach_km) for name, each in responses.items()}
    size = (2.3 * len(leads_h) + 1.4, 2.2 * len(found) + 0.8)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(found), len(leads_h), squeeze=False, sharex=True, sharey=True)
    limits = [_limit(field) for field in next(iter(found.values()))[0]]
    turn, last = np.linspace(0, 2 * np.pi, 90), list(found)[-1]
    for line, (name, (fields, edges)) in zip(axes, found.items(), strict=True):
        for k, (panel, field) in enumerate(zip(line, fields, strict=True)):
            norm = Normalize(-limits[k], limits[k])
            mesh = panel.pcolormesh(edges, edges, field, cmap="RdBu_r", norm=norm)
            radius = source.place.radius_km
            panel.plot(radius * np.cos(turn), radius * np.sin(turn), color="black", lw=1.2)
            panel.annotate("", (0.95, 0.08), (0.65, 0.08), "axes fraction",
                           arrowprops={"arrowstyle": "->", "color": "#333333"})  # fmt: skip
            panel.set_aspect("equal")
            panel.tick_params(labelsize=7)
            title = f"{name.replace('_', ' ')}, {leads_h[k]} h"
            panel.set_title(title, fontsize=8.5, loc="left")
            if name == last:
                panel.set_xlabel("along the wind [km]", fontsize=8)
                place = {"location": "bottom", "shrink": 0.85, "extend": "both"}
                bar = figure.colorbar(mesh, ax=axes[:, k], **place)
                bar.set_label(f"{_LABELS[pollutant]} [{UNIT}]", fontsize=8)
                bar.ax.tick_params(labelsize=7)
    figure.supylabel("across the wind [km]", fontsize=9)
    figure.suptitle(f"Source removed: mean response of {int(source.blows.sum())} init times, the "
                    "wind at the source to the right", fontsize=9.5)  # fmt: skip
    return figure


def with_expected_sign(rows: Sequence[Mapping], pollutant: str) -> dict[tuple[str, str], str]:
    """Quantities of a pollutant whose sign physics tells, as `summary` has it: "+" or "-"."""
    return {(r["probe"], r["quantity"]): r["expected"] for r in rows
            if r["pollutant"] == pollutant and r["expected"] != "none"}  # fmt: skip


def draw_numbers(rows: Sequence[Mapping], pollutant: str) -> Figure:
    """Quantities of `with_expected_sign` against lead time; bars: two standard errors."""
    signs = with_expected_sign(rows, pollutant)
    keys = [k for k in QUANTITIES if k in signs]
    columns = min(len(keys), 3)
    lines = -(-len(keys) // columns)
    figure = Figure(figsize=(3.6 * columns + 0.3, 2.4 * lines + 0.6), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    models = list(dict.fromkeys(row["model"] for row in rows))
    for axes, key in zip(panels, keys, strict=False):
        for index, model in enumerate(models):
            part = [r for r in rows if (r["probe"], r["quantity"]) == key and r["mean"] is not None
                    and r["model"] == model and r["pollutant"] == pollutant]  # fmt: skip
            lead = np.array([r["lead_h"] for r in part]) * (1 + 0.03 * (index - 1))
            error = [2 * (r["standard_error"] or 0.0) for r in part]
            axes.errorbar(lead, [r["mean"] for r in part], error, fmt="o-", ms=3.5, lw=1.1,
                          color=_COLOURS[index % len(_COLOURS)],
                          label=model.replace("_", " ") if axes is panels[0] else None)  # fmt: skip
        about = QUANTITIES[key]
        axes.axhline(0, color="0.7", lw=0.8, zorder=0)
        sign = "> 0" if signs[key] == "+" else "< 0"
        axes.set_title(f"{key[0]}\n{key[1]} [{about.unit}], {sign}?".replace("_", " "),
                       fontsize=8.5, loc="left")  # fmt: skip
        _plain(axes)
    for axes in panels[len(keys) :]:
        axes.set_visible(False)
    figure.supxlabel("lead time [h]", fontsize=9)
    figure.legend(loc="outside upper right", ncols=len(models), frameon=False, fontsize=8.5)
    return figure
