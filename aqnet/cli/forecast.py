"""`aqnet forecast` writes forecast stores, `aqnet forecast-store` shows and converts them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from aqnet.cli.console import Progress, sigterm_like_ctrl_c
from aqnet.cli.options import device_option, question_options
from aqnet.cli.times import parse_leads, parse_utc
from aqnet.errors import ParameterError, explain
from aqnet.launch import this_launch

__all__ = ["forecast", "forecast_store"]

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("checkpoint", type=_PATH, required=False)
@click.option("--out", type=_PATH, required=True, metavar="STORE", help="Folder NAME.zarr.")
@click.option("--baseline", type=click.Choice(["persistence", "climatology", "damped_persistence"]),
              help="Forecast by this rule instead of a checkpoint.")  # fmt: skip
@question_options("init")
@click.option("--every", type=int, default=1, show_default=True, help="Hours between init times.")
@click.option("--leads", metavar="HOURS", help="12,24,48,96 or 1:120; default the model's.")
@click.option("--name", help="How tables and figures call it; default the run or the rule.")
@device_option
@click.option("--threads", type=int, default=1, show_default=True,
              help="Threads of a process; last bits depend on it, on processes never.")  # fmt: skip
@click.option(
    "--block", type=int, default=0, help="Init times a process writes at once; 0: by size."
)
@click.option("--patience", type=float, default=600.0, show_default=True, metavar="S",
              help="Give up if other processes finish nothing for so long.")  # fmt: skip
def forecast(out: Path, device: str, threads: int, block: int, patience: float, **asked) -> None:
    """Write the forecasts of CHECKPOINT, or of a baseline, as a forecast store.

    Started by torchrun or srun, every process writes its own blocks. After any end the same
    command goes on where it stopped; a store is at its place only when it is complete.

    \b
    aqnet forecast runs/RUN/checkpoints/best.ckpt --out f.zarr --split test --every 6
    aqnet forecast --baseline persistence --manifest twin --leads 12,24 --split test --out p.zarr
    """
    import torch

    from aqnet.verification.forecast_plan import write_forecasts

    launch = this_launch()
    rank, world = launch.rank, launch.processes
    torch.set_num_threads(threads)
    if device == "cuda":
        device = f"cuda:{launch.local_rank % max(1, torch.cuda.device_count())}"
    plan = _plan(asked, device)
    if rank == 0:
        click.echo(f"{len(plan.times)} init times, {len(plan.skipped)} skipped, "
                   f"{len(plan.lead_times_h)} lead times, {world} processes")  # fmt: skip
        for time, why in plan.skipped[:5]:
            click.echo(f"  skipped {time}: {why}")
    with sigterm_like_ctrl_c():
        digest = write_forecasts(
            plan, out, block=block, rank=rank, world=world, patience_s=patience, echo=click.echo
        )
    if digest is not None:
        click.echo(f"{out}: complete, content {digest}")


def _plan(asked: dict, device: str) -> object:
    from aqnet.data.grid_manifest import GridManifest
    from aqnet.data.manifest import load_manifest, resolve_manifest
    from aqnet.verification import forecast_fields, forecast_stations
    from aqnet.verification.forecast_plan import Period

    path, rule = asked["checkpoint"], asked["baseline"]
    if (path is None) == (rule is None):
        raise ParameterError(
            explain("what is to be forecast?", expected="a checkpoint or --baseline, not both",
                    found=f"checkpoint {path}, baseline {rule}", remedy="give one of them")
        )  # fmt: skip
    first, last = parse_utc(asked["first"]), parse_utc(asked["last"])
    period = Period(asked["split"], first, last, asked["every"])
    leads = parse_leads(asked["leads"])
    if rule is not None:
        if asked["manifest"] is None:
            raise ParameterError(
                explain("a baseline needs data", expected="--manifest", found="none",
                        remedy="--manifest twin, or the file of a manifest")
            )  # fmt: skip
        manifest = load_manifest(resolve_manifest(asked["manifest"]))
        if isinstance(manifest, GridManifest):
            plan = forecast_fields.plan_field_rule(
                rule, manifest, period, leads, folder=asked["folder"]
            )
        else:
            plan = forecast_stations.plan_station_rule(
                rule, manifest, period, leads, store=asked["store"]
            )
        return replace(plan, provenance=plan.provenance | {"name": asked["name"] or rule})
    return _checkpoint_plan(path, asked, period, leads, device)


def _checkpoint_plan(path: Path, asked: dict, period, leads, device: str) -> object:
    from aqnet.data.manifest import load_manifest, resolve_manifest
    from aqnet.training.checkpoint import load_checkpoint
    from aqnet.verification import forecast_fields, forecast_stations

    loaded, run = load_checkpoint(path), _run_of(path)
    identity = loaded.checkpoint.identity
    if asked["manifest"] is None and identity is None:
        raise ParameterError(
            explain(f"{path} does not say what it was trained on", expected="--manifest",
                    found="imported weights", remedy="name the manifest of the data to read")
        )  # fmt: skip
    manifest = load_manifest(resolve_manifest(asked["manifest"] or identity.manifest))
    name = asked["name"] or (run if run != "none" else path.stem)
    if loaded.checkpoint.kind == "grid":
        return forecast_fields.plan_fields(
            loaded, manifest, period, leads, name=name, run=run, folder=asked["folder"],
            device=device,
        )  # fmt: skip
    if device != "cpu":
        raise ParameterError(
            explain("a forecaster for stations runs on the CPU", expected="--device cpu",
                    found=device, remedy="leave --device out")
        )  # fmt: skip
    return forecast_stations.plan_stations(
        loaded, manifest, period, leads, name=name, run=run, store=asked["store"]
    )


def _run_of(path: Path) -> str:
    """Name of the run folder that a checkpoint lies in."""
    folder = path.absolute().parent.parent
    return folder.name if (folder / "run.json").is_file() else "none"


# ---- stores


@click.group("forecast-store")
def forecast_store() -> None:
    """Forecast stores: what one holds, its verification, NetCDF, forecasts made elsewhere."""


@forecast_store.command()
@click.argument("store", type=_PATH)
def show(store: Path) -> None:
    """Times, leads, grid, provenance."""
    from aqnet.verification.store.checks import describe_forecast_store

    click.echo(describe_forecast_store(store))


@forecast_store.command()
@click.argument("store", type=_PATH)
def verify(store: Path) -> None:
    """Compare every value with the digests in the store."""
    from aqnet.verification.store.checks import verify_forecast_store

    click.echo(f"{store}: as written, content {verify_forecast_store(store, Progress())}")


@forecast_store.command()
@click.argument("store", type=_PATH)
@click.argument("file", type=_PATH)
@click.option("--from", "first", metavar="UTC", help="First init time.")
@click.option("--to", "last", metavar="UTC", help="Last init time, inclusive.")
def netcdf(store: Path, file: Path, first: str | None, last: str | None) -> None:
    """Write STORE, or a part of it, as the NetCDF-4 file FILE."""
    from aqnet.verification.store.netcdf import export_netcdf

    export_netcdf(store, file, parse_utc(first), parse_utc(last), Progress())
    click.echo(f"{file}: {file.stat().st_size / 1e6:.1f} MB")


@forecast_store.command("import")
@click.argument("files", type=_PATH, nargs=-1, required=True)
@click.option("--layout", required=True, help="cams_global, cams_regional, aurora, plain; a file.")
@click.option("--like", type=_PATH, required=True, help="Forecast store with the grid and mask.")
@click.option("--out", type=_PATH, required=True, metavar="STORE", help="Folder NAME.zarr.")
@click.option("--name", required=True, help="How tables and figures call it.")
@click.option("--leads", metavar="HOURS", help="Default all of the files.")
@click.option("--init", metavar="UTC", help="Init time of one file that does not say it.")
@click.option("--method", type=click.Choice(["area", "bilinear"]), default="area",
              show_default=True, help="To the cells: area-weighted means, or linear.")  # fmt: skip
@click.option("--incomplete", type=click.Choice(["refuse", "skip"]), default="refuse",
              show_default=True, help="Init times that lack a lead time.")  # fmt: skip
@click.option("--density", type=click.Choice(["273K", "ambient"]),
              help="For gases given as mass mixing ratio.")  # fmt: skip
@click.option("--pressure", help="Variable in Pa, for --density ambient.")
@click.option("--temperature", help="Variable in K, for --density ambient.")
@click.option("--synthetic", is_flag=True, help="The forecasts are of a simulated world.")
def import_store(files, layout, like, out, init, leads, **options) -> None:
    """Write forecasts made elsewhere as a store in ug/m3 on the grid of another store.

    Longitudes from 0 to 360 and latitudes from north to south are brought in order.
    """
    from aqnet.verification.forecast_plan import write_forecasts
    from aqnet.verification.foreign.files import open_foreign
    from aqnet.verification.foreign.plan import plan_import
    from aqnet.verification.store.reader import open_forecast_store

    pattern = open_forecast_store(like)
    centre = float(pattern.grid.lon.mean())
    foreign = open_foreign(files, layout, centre_lon=centre, init=parse_utc(init))
    plan = plan_import(foreign, pattern.grid, pattern.mask, parse_leads(leads), **options)
    with sigterm_like_ctrl_c():
        digest = write_forecasts(plan, out, echo=click.echo)
    click.echo(f"{out}: complete, content {digest}")
