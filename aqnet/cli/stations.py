"""`aqnet stations` brings the files of a network into the two tables that are scored against."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from aqnet.errors import ParameterError, explain

if TYPE_CHECKING:
    from aqnet.verification.stations.network import Observations

__all__ = ["stations"]

_PATH = click.Path(path_type=Path)


@click.group()
def stations() -> None:
    """Observations at stations: tables for `aqnet score --stations`."""


@stations.command("import")
@click.argument("files", type=_PATH, nargs=-1)
@click.option(
    "--source",
    type=click.Choice(["china", "openaq", "beijing"]),
    required=True,
    help="Daily files of the national network, archive of OpenAQ, or what is shipped.",
)
@click.option("--table", type=_PATH, help="stations.csv with the codes of --source china.")
@click.option("--state", help="Of gases in ug/m3: 273K, 298K, or for "
              "china by default china_2018_amendment.")  # fmt: skip
@click.option("--gas-ratio", type=click.Choice(["refuse", "273K"]), default="refuse",
              show_default=True, help="OpenAQ: gases in ppm or ppb.")  # fmt: skip
@click.option("--invalid", type=click.Choice(["refuse", "missing"]), default="refuse",
              show_default=True, help="Values outside their valid range.")  # fmt: skip
@click.option("--out", type=_PATH, required=True, metavar="FOLDER", help="Of the two tables.")
def import_tables(source: str, files: tuple[Path, ...], out: Path, **options: object) -> None:
    """Write stations.csv and observations.csv.gz, in UTC and ug/m3 at 273.15 K.

    \b
    aqnet stations import china_sites_*.csv --source china --table sites/stations.csv --out cnemc
    aqnet stations import location-*.csv.gz --source openaq --state 298K --out openaq
    aqnet stations import --source beijing --out beijing
    """
    from aqnet.verification.stations.tables import write_observations

    found = _observations(source, files, **options)
    write_observations(found, out)
    s = found.stations
    click.echo(f"{out}: {len(s)} stations ({int(s.withheld.sum())} withheld), {found.times[0]} to "
               f"{found.times[-1]} UTC, {found.dropped} values outside their valid range left out"
               )  # fmt: skip


def _observations(
    source: str, files: tuple[Path, ...], table: Path | None, state: str | None, gas_ratio: str,
    invalid: str,
) -> Observations:  # fmt: skip
    from aqnet.verification.stations import sources as station_sources

    given = {"files": bool(files), "--table": table is not None, "--state": state is not None,
             "--gas-ratio": gas_ratio != "refuse"}  # fmt: skip
    needed = {"china": {"files", "--table"}, "openaq": {"files", "--state"}, "beijing": set()}
    may = {"china": {"--state"}, "openaq": {"--gas-ratio"}, "beijing": set()}[source]
    told = {name for name, value in given.items() if value}
    if not needed[source] <= told <= needed[source] | may:
        raise ParameterError(
            explain(f"--source {source} needs other words",
                    expected=f"{', '.join(sorted(needed[source])) or 'nothing more'}; may have "
                    f"{', '.join(sorted(may)) or 'nothing'}", found=", ".join(sorted(told)),
                    remedy="see aqnet stations import --help")
        )  # fmt: skip
    if source == "beijing":
        from aqnet.data.manifest import load_manifest, resolve_manifest

        return station_sources.from_beijing(load_manifest(resolve_manifest("beijing")))
    if source == "openaq":
        return station_sources.from_openaq(files, state, gas_ratio, invalid=invalid)
    state = state or "china_2018_amendment"
    return station_sources.from_china_daily(files, table, state, invalid)
