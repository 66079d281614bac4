"""`aqnet data twin`: simulate years of weather and air quality in the format of CAQRA."""

from __future__ import annotations

from pathlib import Path

import click

from aqnet.cli.console import Progress, sigterm_like_ctrl_c

__all__ = ["twin"]

_SWITCHES = (
    "grid",
    "first_year",
    "transport",
    "blocking",
    "terrain_seed",
    "emission_seed",
    "weather_seed",
    "written_wind_seed",
    "written_terrain",
)


def _years(text: str | None, single: tuple[int, ...]) -> list[int]:
    """Years of `--years` (2013-2016 or 2013,2015) and of `--year`."""
    found = set(single)
    for part in (text or "").split(","):
        first, _, last = part.strip().partition("-")
        if first:
            try:
                span = range(int(first), int(last or first) + 1)
            except ValueError as problem:
                raise click.BadParameter(
                    f"{part!r}: write 2013-2016 or 2013,2014", param_hint="--years"
                ) from problem
            if not span:
                raise click.BadParameter(f"{part!r} ends before it begins", param_hint="--years")
            found |= set(span)
    return sorted(found)


def _window(start: str | None, end: str | None, days: int | None, years: list[int]):
    """Window of a single year, labels in local time; None for whole years."""
    if days is None and start is None and end is None:
        return None
    import numpy as np

    if len(years) != 1 or (days is not None) == (start is not None or end is not None):
        raise click.UsageError("a window needs one --year, and --days or both --start and --end")
    if days is not None:
        first = np.datetime64(f"{years[0]}-01-01T00", "h")
        return str(first), str(first + 24 * days - 1)
    if start is None or end is None:
        raise click.UsageError("--start and --end belong together")
    for label in (start, end):
        try:
            in_year = np.datetime64(label, "h").astype("M8[Y]") == np.datetime64(str(years[0]))
        except ValueError:
            in_year = False
        if not in_year:
            raise click.UsageError(f"{label!r} is not a label of {years[0]}: 2013-01-03T00")
    return start, end


def _world(name: str, switches: dict, out: Path | None, own_name: str | None):
    """Manifest, folder and whether the switches make a world that the manifest is not."""
    from pydantic import ValidationError

    from aqnet.data.twin.config import TwinConfig
    from aqnet.data.twin.recipe import derived_manifest, settings_of, twin_config, twin_manifest
    from aqnet.io import stores_folder

    manifest = twin_manifest(name)
    config = twin_config(manifest)
    changed = {key: value for key, value in switches.items() if value is not None}
    try:
        other = TwinConfig.model_validate(settings_of(config) | changed)
    except ValidationError as problem:
        text = "; ".join(f"{e['loc'][0]}: {e['msg']}" for e in problem.errors())
        raise click.UsageError(text) from problem
    if other != config:
        manifest = derived_manifest(manifest, other, own_name)
    elif own_name is not None:
        raise click.UsageError("--name is for a world with other switches than the manifest's")
    return manifest, stores_folder(manifest.name, out), other != config


@click.command()
@click.option("--year", type=int, multiple=True, help="Year to simulate; may be repeated.")
@click.option("--years", help="Years to simulate: 2013-2016 or 2013,2014.")
@click.option(
    "--manifest",
    default="twin",
    show_default=True,
    help="Manifest whose recipe is the world: a name or a path.",
)
@click.option(
    "--grid",
    type=click.Choice(["china", "china_64x128", "china_32x64"]),
    help="Another grid than the manifest's.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder (default: data/MANIFEST).")
@click.option("--days", type=click.IntRange(1, 366), help="Only the first days of the year.")
@click.option("--start", help="First label, local time, of a window: 2013-01-03T00.")
@click.option("--end", help="Last label of a window.")
@click.option(
    "--native",
    type=click.Path(path_type=Path),
    help="Write native hourly files of the window into this folder, no store.",
)
@click.option("--first-year", type=int, help="Year in which the world starts.")
@click.option(
    "--transport",
    type=float,
    help="Factor on wind and mixing that move pollutants; 0: a world without.",
)
@click.option("--blocking", type=float, help="Factor on blocking by terrain, 0 to 1.")
@click.option("--terrain-seed", type=int, help="0: the real terrain; others: rearranged.")
@click.option("--emission-seed", type=int, help="Seed of the industrial pattern.")
@click.option("--weather-seed", type=int, help="Seed of the weather.")
@click.option(
    "--written-wind-seed",
    type=int,
    help="Negative control: write the wind of the weather with this seed, which carries nothing.",
)
@click.option(
    "--written-terrain",
    type=click.Choice(["own", "flat"]),
    help="Negative control: flat writes an elevation of 0; the terrain itself stays.",
)
@click.option(
    "--name",
    "own_name",
    help="Of a world with other switches (default: twin- and digits of its settings).",
)
@click.option("--realism", is_flag=True, help="Compare the years with Beijing's observations.")
@click.option("--print-settings", is_flag=True, help="Print the settings of the world, no more.")
def twin(
    year,
    years,
    manifest,
    out,
    days,
    start,
    end,
    native,
    realism,
    print_settings,
    own_name,
    **switches,
) -> None:
    """Simulate weather and air quality over China: SYNTHETIC data in the format of CAQRA.

    Yearly stores go to data/NAME, NAME that of the manifest. A world with other switches than
    those of its manifest gets a manifest and a NAME of its own, written beside its stores. The
    first year of a world starts with a spin-up, every other year continues the one before it, which
    must be in the same folder.
    """
    import yaml

    from aqnet.data.twin.native import write_native
    from aqnet.data.twin.produce import make_years
    from aqnet.data.twin.realism import realism_table
    from aqnet.data.twin.recipe import settings_of, twin_config, write_manifest

    described, folder, changed = _world(
        manifest, {k: switches[k] for k in _SWITCHES}, out, own_name
    )
    if print_settings:
        click.echo(yaml.safe_dump(settings_of(twin_config(described)), sort_keys=False), nl=False)
        return
    wanted = _years(years, year)
    if not wanted:
        raise click.UsageError("which year? Give --year or --years")
    window = _window(start, end, days, wanted)
    if native is not None and (window is None or realism):
        raise click.UsageError("--native needs --days, or --start and --end, and no --realism")
    with sigterm_like_ctrl_c():
        if changed:
            click.echo(f"manifest: {write_manifest(described, folder)}")
        if native is not None:
            count = write_native(described, native, window, states=folder, progress=Progress())
            click.echo(f"native files: {count} hours in {native} (SYNTHETIC)")
            return
        paths = make_years(described, wanted, folder, window=window, progress=Progress())
        for path in paths:
            click.echo(f"store: {path} (SYNTHETIC)")
        if realism:
            click.echo(realism_table(paths))
