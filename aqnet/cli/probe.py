"""`aqnet probe` asks a checkpoint what would be if the wind, a source or a ridge were another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from aqnet.cli.console import Progress, command_line
from aqnet.cli.options import device_option, question_options
from aqnet.cli.physics import OUT, numbers_of
from aqnet.cli.times import parse_leads, parse_utc
from aqnet.cli.truth import grid_manifest
from aqnet.errors import ParameterError, explain

if TYPE_CHECKING:
    from aqnet.data.splits import Split
    from aqnet.training.checkpoint import LoadedForecaster
    from aqnet.verification.physics.probe_results import ProbeSettings
    from aqnet.verification.physics.probes import Place

__all__ = ["probe"]

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("checkpoint", type=_PATH)
@click.option("--out", **OUT, help="Is made: results.json and pictures.")
@click.option("--source", metavar="LAT,LON", help="Whose pollution is removed (fields).")
@click.option("--radius", type=click.FloatRange(min=1), default=200.0, show_default=True,
              metavar="KM", help="Of source and receptor.")  # fmt: skip
@click.option("--receptor", metavar="LAT,LON", help="Where the ridge probe looks.")
@click.option("--ridge-height", type=click.FloatRange(min=0), default=1500.0, show_default=True,
              metavar="M", help="Of the ridge that is raised.")  # fmt: skip
@click.option("--reach", type=click.FloatRange(min=1), default=900.0, show_default=True,
              metavar="KM", help="How far from the source responses are looked at.")  # fmt: skip
@click.option("--probe", "probes", multiple=True, type=click.Choice(["source", "wind", "ridge"]),
              default=("source", "wind"), show_default=True, help="Repeatable.")  # fmt: skip
@click.option("--pollutants", default="pm25", show_default=True, metavar="NAMES",
              help="pm25,co")  # fmt: skip
@question_options("valid")
@click.option("--leads", metavar="HOURS", help="Default the model's.")
@click.option("--inits", type=click.IntRange(min=3), default=24, show_default=True,
              help="Init times, evenly chosen and at least a day apart.")  # fmt: skip
@device_option
@click.option("--threads", type=int, default=1, show_default=True, help="Threads of torch.")
def probe(checkpoint: Path, out: Path, device: str, threads: int, **asked) -> None:
    """Ask CHECKPOINT what would be if the wind turned, a source were gone, a ridge stood elsewhere.

    \b
    aqnet probe best.ckpt --out probes --split test --source 38.5,115.5
    aqnet probe best.ckpt --out ridge --split test --probe ridge --source 38.5,115.5 \\
        --receptor 33,114 --ridge-height 2000
    aqnet probe beijing.ckpt --out beijing --split test --probe wind --inits 200
    """
    import torch

    from aqnet.training.checkpoint import load_checkpoint

    _check_probe(asked)
    torch.set_num_threads(threads)
    loaded = load_checkpoint(checkpoint)
    if loaded.checkpoint.kind == "grid":
        found = _probe_fields(loaded, checkpoint, out, device, asked)
    else:
        found = _probe_stations(loaded, checkpoint, out, asked)
    for row in found["rows"]:
        if row["model"] == "checkpoint" and row["expected"] != "none" and row["mean"] is not None:
            click.echo("{probe} {quantity} {pollutant} {lead_h:3d} h {mean:+9.3g} {unit} (expected "
                       "{expected}): {verdict}".format(**row))  # fmt: skip
    count = len(found["settings"]["init_times"])
    click.echo(f"{out}: {count} init times, {len(found['pictures'])} pictures")


def _check_probe(asked: dict) -> None:
    from aqnet.verification.physics.probe_runs import positions

    positions(asked["pollutants"].split(","))
    for option in ("source", "receptor"):
        if asked[option] is not None:
            numbers_of(asked[option], 2, f"--{option}", "38.5,115.5")
    if "ridge" in asked["probes"] and asked["receptor"] is None:
        raise ParameterError(
            explain("the ridge probe needs a receptor", expected="--receptor LAT,LON", found="none",
                    remedy="name a place downwind of the source, on the other side of the ridge")
        )  # fmt: skip


def _manifest_name(asked: dict, loaded: LoadedForecaster) -> str | None:
    identity = loaded.checkpoint.identity
    return asked["manifest"] or (identity and identity.manifest)


def _probe_fields(
    loaded: LoadedForecaster, path: Path, out: Path, device: str, asked: dict
) -> dict:
    from aqnet.data.training_data import open_training_data
    from aqnet.verification.physics.probe_models import GridForecasts, scene_of
    from aqnet.verification.physics.probe_results import write_probes
    from aqnet.verification.provenance import truth_record

    settings = _settings(asked)
    manifest = grid_manifest(
        _manifest_name(asked, loaded),
        "probes of fields need their inputs",
        "give a checkpoint of stations",
    )
    data = open_training_data(manifest, asked["folder"])
    leads = parse_leads(asked["leads"]) or loaded.model.config.lead_times_h
    forecasts = GridForecasts(loaded.model.to(device), leads)
    split = _split(data.splits, asked)
    scene = scene_of(data.years, split, loaded.model, leads, inits=asked["inits"])
    record = _record(path, loaded, truth_record(manifest, data.years))
    return write_probes(out, forecasts, scene, settings, record, Progress())


def _probe_stations(loaded: LoadedForecaster, path: Path, out: Path, asked: dict) -> dict:
    from aqnet.data.manifest import load_manifest, resolve_manifest
    from aqnet.data.splits import splits_of
    from aqnet.data.stations.samples import load_fields
    from aqnet.data.store import open_store
    from aqnet.io import station_store
    from aqnet.verification.forecasts import require_same_store
    from aqnet.verification.physics.probe_stations import station_init_times, write_station_probes

    if tuple(asked["probes"]) != ("wind",) or asked["split"] is None or asked["source"]:
        raise ParameterError(
            explain("a forecaster for stations is asked about the wind alone",
                    expected="--probe wind --split NAME, and no --source",
                    found=f"--probe {' --probe '.join(asked['probes'])}",
                    remedy="its grid is smaller than a plume")
        )  # fmt: skip
    manifest = load_manifest(resolve_manifest(_manifest_name(asked, loaded)))
    opened = open_store(station_store(manifest.name, asked["store"]), manifest)
    fields = load_fields(opened, splits_of(manifest))
    require_same_store(loaded, fields)
    leads = parse_leads(asked["leads"]) or loaded.model.config.lead_times_h
    times = station_init_times(fields, asked["split"], max(leads), asked["inits"])
    truth = {"manifest": manifest.name, "digest": manifest.digest,
             "folder": str(opened.path.parent), "stores": [[opened.path.name, opened.digest]],
             "synthetic": manifest.synthetic}  # fmt: skip
    record = _record(path, loaded, truth)
    return write_station_probes(out, loaded.model, fields, manifest.grid_object(), times, leads,
                                asked["pollutants"].split(","), record)  # fmt: skip


def _settings(asked: dict) -> ProbeSettings:
    from aqnet.verification.physics.probe_results import ProbeSettings
    from aqnet.verification.physics.probes import Ridge

    if asked["source"] is None:
        raise ParameterError(
            explain("where is the source?", expected="--source LAT,LON", found="none",
                    remedy="name a polluted place within the domain")
        )  # fmt: skip
    receptor = asked["receptor"] and _place(asked["receptor"], asked["radius"], "--receptor")
    return ProbeSettings(
        source=_place(asked["source"], asked["radius"], "--source"),
        probes=tuple(dict.fromkeys(asked["probes"])),
        pollutants=tuple(asked["pollutants"].split(",")),
        reach_km=asked["reach"],
        receptor=receptor or None,
        ridge=Ridge(height_m=asked["ridge_height"]),
    )


def _place(text: str, radius_km: float, option: str) -> Place:
    from aqnet.verification.physics.probes import Place

    return Place(*numbers_of(text, 2, option, "38.5,115.5"), radius_km)


def _split(splits: dict[str, Split], asked: dict) -> Split:
    """A split of the manifest, or the hours from --from to --to."""
    import numpy as np

    from aqnet.data.splits import Split

    first, last = parse_utc(asked["first"]), parse_utc(asked["last"])
    if (asked["split"] is None) == (first is None) or (first is None) != (last is None):
        raise ParameterError(
            explain("no period", expected="--split, or --from and --to", found="both or neither",
                    remedy="--split test, or --from 2018-01-01T00 --to 2018-03-01T00")
        )  # fmt: skip
    if asked["split"] is not None:
        return splits[asked["split"]]
    return Split("asked", first, last + np.timedelta64(1, "h"))


def _record(path: Path, loaded: LoadedForecaster, truth: dict) -> dict:
    from aqnet.verification.provenance import score_record

    about = {
        "path": str(path.absolute()),
        "sha256": loaded.checkpoint.sha256,
        "kind": loaded.checkpoint.kind,
        "trained_on": loaded.checkpoint.identity and loaded.checkpoint.identity.manifest,
    }
    return score_record(command_line(), [], truth) | {"checkpoint": about}
