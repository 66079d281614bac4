"""Draw the pictures of the README: `make pictures`.

`scan.png`: the order of the patches along the mean January wind over the terrain of China, from
what ships in data_manifests/china. `forecast.png`: a forecast for Beijing beside what came, of the
newest complete run of the preset beijing, or of `--run`.
"""

from __future__ import annotations

import argparse
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import LightSource
from matplotlib.figure import Figure
from PIL import Image

from aqnet.data.geography import BORDER_CREDIT, china_static, monthly_winds, outlines
from aqnet.explore.forecast_view import ForecastView, Moment
from aqnet.explore.forecasts import open_forecast
from aqnet.explore.world import open_world
from aqnet.grid import GRIDS, Grid
from aqnet.io import atomic_write_bytes, repository_root
from aqnet.jobs.runs import latest_run
from aqnet.model.scan import WindScan
from aqnet.model.scan_orders import build_orders, scan_spec

FOLDER = repository_root() / "nbs" / "docs" / "images"
PATCH, REGIONS = 2, (32, 32)
BASIN = (101.0, 109.0, 27.5, 33.0)  # Sichuan and the mountains around it: lon, lat [degrees]
MOMENT = Moment(np.datetime64("2016-12-18T12"), 24, "pm25", 0)  # a day before the haze's peak


def january_wind(grid: Grid) -> np.ndarray:
    """Mean January wind of the surface (2, H, W) [m/s]."""
    winds = monthly_winds().sel(month=1)
    at = winds[["u", "v"]].interp(lat=grid.lat, lon=grid.lon, kwargs={"fill_value": None})
    return np.stack([at["u"].values, at["v"].values])


def order_of(grid: Grid, mask: np.ndarray, wind: np.ndarray) -> tuple[np.ndarray, ...]:
    """Latitude and longitude [degrees] of the patches of China, from the first read to the last."""
    active = grid.active_patches(mask, PATCH)
    scan = WindScan(build_orders(scan_spec(grid, PATCH, REGIONS, active=active)), "region")
    u, v = torch.from_numpy(wind.astype(np.float32))[:, None]
    order = scan(u, v, torch.from_numpy(mask)).order[0].numpy()
    rows, columns = np.nonzero(active)
    patches = grid.patches(PATCH)
    return patches.lat[rows][order], patches.lon[columns][order]


def terrain(axes, grid: Grid, elevation: np.ndarray) -> None:
    """Terrain in grey, lit from the north-west, with coasts."""
    south_up = elevation if grid.lat[0] < grid.lat[-1] else elevation[::-1]
    shade = LightSource(azdeg=315, altdeg=45).hillshade(south_up, vert_exag=2e-3)
    lat, lon = (np.sort(axis[[0, -1]]) for axis in grid.edges())
    axes.imshow(shade, extent=(*lon, *lat), origin="lower", interpolation="bilinear",
                cmap="gray", vmin=-0.6, vmax=1.0)  # fmt: skip
    axes.set_aspect(1 / np.cos(np.deg2rad(grid.lat.mean())))
    axes.add_collection(LineCollection(outlines(), colors="#333333", linewidths=0.6))
    axes.set(xlim=lon, ylim=lat, xlabel="longitude [deg E]", ylabel="latitude [deg N]")


def regions_of(grid: Grid, lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    """Number of the region of each patch."""
    patches = grid.patches(PATCH)
    row, column = (np.searchsorted(np.sort(axis), at)
                   for axis, at in ((patches.lat, lat), (patches.lon, lon)))  # fmt: skip
    high, wide = (axis.size // n for axis, n in zip((patches.lat, patches.lon), REGIONS,
                                                    strict=True))  # fmt: skip
    return row // high * REGIONS[1] + column // wide


def near_by(axes, lat: np.ndarray, lon: np.ndarray, region: np.ndarray) -> None:
    """Steps from patch to patch within each region, and the number of the step."""
    west, east, south, north = BASIN
    shown = (lon > west) & (lon < east) & (lat > south) & (lat < north)
    for one in np.unique(region[shown]):
        y, x = lat[region == one], lon[region == one]
        axes.plot(x, y, "-", color="#fde725", lw=1.6, zorder=3)
        axes.scatter(x, y, c=np.linspace(0, 1, x.size), s=52, cmap="viridis",
                     edgecolors="white", linewidths=0.6, zorder=4)  # fmt: skip
    axes.set(xlim=BASIN[:2], ylim=BASIN[2:])


def draw_scan() -> Figure:
    """Whole domain, and the Sichuan basin with each step of the scan."""
    grid = GRIDS["china"]
    static = china_static(grid)
    wind, elevation = january_wind(grid), np.nan_to_num(static["elevation"].values)
    lat, lon = order_of(grid, static["mask"].values, wind)
    figure = Figure(figsize=(12, 4.9), layout="constrained", dpi=100)
    whole, near = figure.subplots(1, 2, width_ratios=(1.25, 1))
    for axes in (whole, near):
        terrain(axes, grid, elevation)
    patches = grid.patches(PATCH)
    place = np.full((patches.lat.size, patches.lon.size), np.nan)
    rows, columns = (np.abs(axis[:, None] - x).argmin(0)
                     for axis, x in ((patches.lat, lat), (patches.lon, lon)))  # fmt: skip
    place[rows, columns] = np.linspace(0, 1, lat.size)
    image = whole.pcolormesh(patches.lon, patches.lat, place, cmap="viridis", alpha=0.55)
    bar = figure.colorbar(image, ax=whole, shrink=0.85)
    bar.set_label("place in the order [1], 0: read first")
    near_by(near, lat, lon, regions_of(grid, lat, lon))
    for axes, step, width, scale in ((whole, 10, 0.0028, 90), (near, 3, 0.0045, 60)):
        x, y = np.meshgrid(grid.lon[::step], grid.lat[::step])
        axes.quiver(x, y, *wind[:, ::step, ::step], color="#c1121f", width=width, scale=scale,
                    zorder=5)  # fmt: skip
    whole.set_title(f"{lat.size} patches of China in {REGIONS[0]} x {REGIONS[1]} regions: the "
                    "regions follow the mean wind", fontsize=10)  # fmt: skip
    near.set_title("Sichuan: in its region (yellow) each patch follows\nthe region's own wind, "
                   "dark to light", fontsize=10)  # fmt: skip
    figure.supxlabel("Arrows: mean surface wind of January 1982 to 1992 (FNOC). Terrain: pvlib / "
                     f"Mapzen. {BORDER_CREDIT}.", fontsize=7, color="#555555")  # fmt: skip
    return figure


def draw_forecast(run: str) -> Figure:
    """PM2.5 in Beijing, forecast and analysed, and at one station."""
    world = open_world("beijing")
    view = ForecastView(world)
    name = f"forecast, {MOMENT.lead_h} h ahead"
    view.update(replace(open_forecast(world, run), name=name), MOMENT)
    view.png()  # decides the layout
    return view.figure


def save(figure: Figure, path: Path) -> None:
    """As a PNG."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    held = io.BytesIO()
    picture.save(held, format="png", optimize=True)
    atomic_write_bytes(path, held.getvalue())
    print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")


def main() -> None:
    """Write the pictures that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", default="", help="run folder; default: the newest of beijing")
    parser.add_argument("--only", choices=["scan", "forecast"], help="this picture alone")
    asked = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    if asked.only != "forecast":
        save(draw_scan(), FOLDER / "scan.png")
    if asked.only != "scan":
        newest = {} if asked.run else {"preset": "beijing"}
        run = asked.run or str(latest_run(None, "train/forecast", parameters=newest).path)
        save(draw_forecast(run), FOLDER / "forecast.png")


if __name__ == "__main__":
    main()
