"""The first 48 weeks of the shipped Beijing data, as a data set that is read in a second."""

from __future__ import annotations

from pathlib import Path

import xarray as xr
import yaml
from notebook_tools import ROOT

from aqnet.data.manifest import load_manifest
from aqnet.data.stations.beijing import build_store
from aqnet.io import sha256_file

# A split begins 60 days before its first sample, as trailing means demand; the tests of
# significance in the validation period want 50 days of samples.
SPLIT = {
    "train": {"start": "2013-03-01", "end": "2013-07-31"},
    "validation": {"start": "2013-08-01", "end": "2013-11-25"},
    "test": {"start": "2013-11-26", "end": "2014-01-30"},
}
HOURS = 48 * 7 * 24  # from 2013-03-01


def _first_hours(source: Path, target: Path) -> None:
    with xr.open_dataset(source, decode_cf=False) as whole:
        short = whole.isel(time=slice(HOURS)).load()
    for name in ("TEMP", "PRES"):  # values with more digits, by their row-major place
        inside = short[f"{name}_long_at"] < HOURS * short.sizes["station"]
        short = short.isel({f"{name}_long": inside.values})
    short.to_netcdf(target)


def make_short_beijing(folder: Path) -> dict[str, str]:
    """Write data, manifest and store; parameters of the training notebook that use them."""
    place = folder / "data_manifests"
    (place / "beijing").mkdir(parents=True)
    shipped = ROOT / "data_manifests"
    (place / "beijing" / "static.nc").symlink_to(shipped / "beijing" / "static.nc")
    stations = place / "beijing" / "stations.nc"
    _first_hours(shipped / "beijing" / "stations.nc", stations)

    content = yaml.safe_load((shipped / "beijing.yaml").read_text(encoding="utf-8"))
    content |= {"name": "short", "split": SPLIT, "weather_suspect": []}
    content["period"]["end"] = "2014-01-30T23:00:00"
    content["weather_sharing"] = content["weather_sharing"][:1]
    content["files"][0]["sha256"] = sha256_file(stations)
    manifest = place / "short.yaml"
    manifest.write_text(yaml.safe_dump(content), encoding="utf-8")
    store = folder / "short.zarr"
    build_store(load_manifest(manifest), store)
    return {"manifest": str(manifest), "store": str(store)}
