"""The page of file formats: layouts, records and what their modules say of them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType

from docs_models import section
from docs_text import article, attributes, cell, fence, item_comments, listed, rst, table

from aqnet.data import store
from aqnet.data.statistics import file as statistics_file
from aqnet.data.statistics import layout as statistics_layout
from aqnet.data.years import format as year_format
from aqnet.jobs import runs
from aqnet.jobs.sweeps import folder as sweep_folder
from aqnet.model import array_cache, ridge, scan_cache
from aqnet.training import checkpoint_archive, checkpoint_file, heartbeat
from aqnet.variables import DYNAMIC, STATIC, TARGETS
from aqnet.verification import board_design, scoreboard
from aqnet.verification.physics import check_results, results
from aqnet.verification.stations import tables as station_tables
from aqnet.verification.store import format as forecast_format

RECORDS = (  # of the models of the package, those that stand on this page
    "RunRecord", "Failure", "Provenance", "GitState", "Attempt", "Environment", "GridRecord",
    "StoreRecord", "StatisticsRecord", "Identity", "Progress", "Code", "Stored", "Point",
    "ArrayRecord",
)  # fmt: skip


def _text(module: ModuleType) -> str:
    return rst(inspect.getdoc(module))


def _arrays(module: ModuleType, dimensions: Mapping[str, Iterable[str]]) -> str:
    said = item_comments(Path(inspect.getfile(module)), "LAYOUT")
    rows = [(f"`{n}`", cell(", ".join(dims)), cell(said[n])) for n, dims in dimensions.items()]
    return table(("Array", "Dimensions", "What"), rows)


def _class(kind: type) -> str:
    """Text and attributes of a class."""
    doc = inspect.getdoc(kind)
    rows = [(f"`{name}`", cell(text)) for name, text in attributes(doc).items()]
    return f"### {kind.__name__}\n\n{rst(article(doc))}\n{table(('Attribute', 'What'), rows)}"


def _version(name: str, number: int) -> str:
    return f"Format `{name}`, version {number}.\n"


def _run_folder() -> list[str]:
    records = ("RunRecord", "Failure", "Provenance", "GitState", "Attempt", "Environment")
    beats = f"`{heartbeat.HEARTBEAT}/`: one file a rank, while it trains.\n"
    return ["## Run folder\n", _text(runs), *map(section, records), beats, _class(heartbeat.Beat)]


def _station_store() -> list[str]:
    return [
        "## Store of stations\n",
        "`data/NAME.zarr`, written by `aqnet data beijing`. Zarr 3, version "
        f"{store.FORMAT_VERSION}; one hour a chunk, {store.SHARD_STEPS} hours a file. Times are "
        "UTC and end their hours; fields are float32 in the units of [Variables](variables.md), "
        "NaN where there is no value.\n",
        _arrays(store, store.LAYOUT),
        f"Order of `variable`: {listed(DYNAMIC)}; of `target`: {listed(TARGETS)}; of "
        f"`static_variable`: {listed(STATIC)}.\n",
    ]  # fmt: skip


def _yearly_store() -> list[str]:
    layout = {name: dims for name, (_, dims) in year_format.LAYOUT.items()}
    return [
        "## Yearly store\n",
        "`data/NAME/data_YEAR_GRID_masked.zarr`, written by `aqnet data ingest` and `aqnet data "
        f"twin`. Zarr 3; one hour of all variables a chunk, {year_format.SHARD_HOURS} hours a "
        "file; zstd with bitshuffle, and a CRC-32C an hour. Values are rounded to as many bits as "
        "the attribute `keep_bits` says.\n",
        _version(year_format.FORMAT, year_format.FORMAT_VERSION), _arrays(year_format, layout),
        f"Attributes: {listed(year_format.ATTRIBUTES)}, from the manifest; format, year, grid, "
        "variables, units and bits kept; `missing`: first hour, last hour and reason of each gap; "
        "`array_sha256`. `content_sha256` covers all of them, and so all values. "
        "`manifest_sha256` is over what in the manifest decides the content.\n",
        "### Record of stores\n",
        "`data_manifests/NAME.record.yaml`, written by `aqnet data record`. With it, `aqnet data "
        "check` and training refuse any other stores.\n",
        *map(section, ("GridRecord", "StoreRecord", "StatisticsRecord")),
    ]  # fmt: skip


def _statistics() -> list[str]:
    rows = [
        (f"`{name}`", cell(", ".join(dims)), cell(said))
        for name, (dims, said) in statistics_layout.DEFINITIONS.items()
    ]
    return [
        "## Statistics\n",
        "`data/NAME/statistics.nc`, of `aqnet data stats`; in the units of the variables.\n",
        _version(statistics_file.FORMAT, statistics_file.FORMAT_VERSION),
        table(("Array", "Dimensions", "Definition"), rows),
    ]  # fmt: skip


def _arrays_of_a_grid() -> list[str]:
    return [
        "## Orders along the wind, and ridges\n",
        "`data/wind_scan/*.safetensors` and `data/terrain/*.safetensors`, written by `aqnet "
        "wind-scan build` and `aqnet terrain build`.\n",
        _text(array_cache),
        f"Kind `{scan_cache.SCAN_KIND}`: {listed(scan_cache.RANKS)}. Kind `{ridge._KIND}`: `left`, "
        "`right`, `elevation`, `errors`.\n",
    ]  # fmt: skip


def _checkpoint() -> list[str]:
    return [
        "## Checkpoint\n",
        f"`RUN/checkpoints/*.ckpt`, version {checkpoint_archive.CHECKPOINT_VERSION}. `aqnet "
        "checkpoint inspect FILE` shows one.\n",
        _text(checkpoint_archive), _class(checkpoint_file.Checkpoint),
        *map(section, ("Identity", "Progress", "Code")),
    ]  # fmt: skip


def _forecast_store() -> list[str]:
    said = item_comments(Path(inspect.getfile(forecast_format)), "PROVENANCE")
    names = [(f"`{n}`", f"`{v}`") for n, v in forecast_format.STANDARD_NAMES.items()]
    return [
        "## Forecast store\n",
        _text(forecast_format),
        _version(forecast_format.FORMAT, forecast_format.FORMAT_VERSION),
        f"Dimensions: {listed(forecast_format.DIMENSIONS)}. Unit: `{forecast_format.UNIT}`. "
        f"Conventions: `{forecast_format.CONVENTIONS}`.\n",
        table(("Array", "CF standard name"), names),
        "The attribute `aqnet` is JSON:\n",
        table(("Key", "What"), [(f"`{n}`", cell(said[n])) for n in forecast_format.PROVENANCE]),
    ]


def _scoreboard() -> list[str]:
    return [
        "## Scoreboard\n",
        "A `.npz` file without pickled objects, written by `aqnet score`. `header` is JSON: "
        "format, version, `design`, `record`. `times`: init times, hours since 1970-01-01 00:00 "
        "UTC. `weight`, `missing/FORECAST`, `squares/FORECAST`: as below. `KIND/FORECAST/FIELD`: "
        "the sums of a kind.\n",
        _version(scoreboard._FORMAT, scoreboard._VERSION),
        f"Cells of sums: {listed(board_design.AXES)}.\n",
        _class(scoreboard.Scoreboard), _class(board_design.Design),
    ]  # fmt: skip


def _sweep_folder() -> list[str]:
    records = map(section, ("Stored", "Point", "ArrayRecord"))
    return ["## Sweep folder\n", _text(sweep_folder), *records]


def _tables() -> list[str]:
    budget = [(f"`{n}`", cell(said)) for n, said in check_results.BUDGET.items()]
    return [
        "## Tables of stations\n", fence(inspect.getdoc(station_tables)),
        "## Physics checks\n",
        f"`results.json` of `aqnet physics` and `aqnet probe`, version "
        f"{results.FORMAT_VERSION}. Terms of the mass budget:\n",
        table(("Term", "What"), budget),
    ]  # fmt: skip


PARTS = (
    _run_folder, _station_store, _yearly_store, _statistics, _arrays_of_a_grid, _checkpoint,
    _forecast_store, _scoreboard, _sweep_folder, _tables,
)  # fmt: skip


def page() -> str:
    """Markdown of the page."""
    head = (
        "# Files\n",
        "Generated from the code that writes and reads them. Results appear at their place whole "
        "or not at all. Digests are SHA-256. No file can run code when it is read.\n",
    )
    text = "\n".join((*head, *(text for part in PARTS for text in part())))
    here = "|".join(name.lower() for name in RECORDS)
    return re.sub(rf"\]\(#(?!(?:{here})\))", "](configuration.md#", text)
