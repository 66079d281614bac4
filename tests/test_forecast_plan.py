"""What `aqnet forecast` writes: checkpoints of both kinds and rules in closed form."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from synthetic import QUICK, config
from test_problem import (  # noqa: F401
    TINY_STORE,
    fields_problem,
    recorded,
    splits,
    tiny_manifest,
)

from aqnet.cli.forecast import forecast
from aqnet.cli.times import parse_leads
from aqnet.data.batches import FieldSamples
from aqnet.data.manifest import load_manifest
from aqnet.data.stations.samples import ForecastSamples
from aqnet.data.training_data import open_training_data
from aqnet.data.years.year_set import open_years
from aqnet.errors import LeadTimeError, ParameterError, StoreError
from aqnet.training.checkpoint import Checkpoint, load_checkpoint, write_checkpoint
from aqnet.training.station_problem import station_problem
from aqnet.variables import DYNAMIC, TARGETS
from aqnet.verification import forecast_stations
from aqnet.verification.forecast_fields import damping_factors, plan_field_rule, plan_fields
from aqnet.verification.forecast_plan import Period, write_forecasts
from aqnet.verification.forecast_stations import plan_station_rule, plan_stations
from aqnet.verification.store.reader import open_forecast_store

torch.set_num_threads(1)
TEST = Period(split="test", every_h=6)


def checkpoint(problem, path):
    """A checkpoint of an untrained model, shaken so that lead times and inputs matter."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in problem.model.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=generator)
    model = problem.model
    parts = (model.kind, model.config, model.state_dict(), model.arrays(), problem.identity)
    write_checkpoint(path, Checkpoint(*parts, extra=problem.extra))
    return path


def written(plan, path, **options):
    write_forecasts(plan, path, echo=lambda line: None, **options)
    return open_forecast_store(path)


# ---- fields


@pytest.fixture(scope="module")
def fields(recorded):  # noqa: F811
    path, folder = recorded
    manifest = load_manifest(path)
    return manifest, folder, open_years(manifest, folder)


@pytest.mark.parametrize("mode", ["all", "one"])
def test_forecasts_are_those_of_the_model(recorded, fields, tmp_path, mode):  # noqa: F811
    manifest, folder, _ = fields
    problem = fields_problem(recorded, lead_mode=mode)
    loaded = load_checkpoint(checkpoint(problem, tmp_path / "m.ckpt"))
    plan = plan_fields(loaded, manifest, TEST, name="model", folder=folder)
    store = written(plan, tmp_path / "f.zarr", block=5)
    assert store.lead_times_h == (6, 24) and store.synthetic
    assert store.attributes["source"]["checkpoint_sha256"] == loaded.checkpoint.sha256
    assert store.attributes["data"]["manifest_sha256"] == manifest.digest
    assert store.attributes["source"]["trained_on"] == {
        "manifest": problem.identity.manifest,
        "manifest_sha256": problem.identity.manifest_sha256, "synthetic": True,
    }  # fmt: skip
    samples = replace_split(problem.validation, problem.data, "test", mode)
    for number in (0, len(samples) - 1):
        batch = samples.__getitems__([number])
        time = samples.index.times[number]
        if time.astype(int) % 6:
            continue
        with torch.no_grad():
            expected = loaded.model(batch).numpy()[0]
        row = int(np.flatnonzero(store.init_times == time)[0])
        for j, lead in enumerate(batch["leads_h"][0].tolist()):
            for p, name in enumerate(TARGETS):
                found = store.read(row, lead, name, cells=True)
                np.testing.assert_allclose(found, expected[j, p][store.mask], rtol=2e-3, atol=1e-4)


def replace_split(samples, data, split, mode):
    """The samples of another split."""
    return FieldSamples(data.years, data.splits[split], samples.lead_times_h, samples.history_h,
                        one_lead=mode == "one")  # fmt: skip


def test_leads_of_a_model(recorded, fields, tmp_path):  # noqa: F811
    manifest, folder, _ = fields
    whole = load_checkpoint(checkpoint(fields_problem(recorded), tmp_path / "all.ckpt"))
    one = load_checkpoint(
        checkpoint(fields_problem(recorded, lead_mode="one"), tmp_path / "1.ckpt")
    )
    options = {"name": "model", "folder": folder}
    assert plan_fields(whole, manifest, TEST, (24,), **options).lead_times_h == (24,)
    with pytest.raises(LeadTimeError, match="does not forecast"):
        plan_fields(whole, manifest, TEST, (12,), **options)
    hourly = plan_fields(one, manifest, TEST, range(1, 49), **options)
    values = hourly.forecast(hourly.times[:1])
    assert values.shape == (1, 48, 6, *hourly.grid.shape)
    assert not np.array_equal(values[:, 0], values[:, 47], equal_nan=True)
    with pytest.raises(LeadTimeError, match="does not forecast"):
        plan_fields(one, manifest, TEST, (121,), **options)


def test_bytes_do_not_depend_on_processes(recorded, fields, tmp_path):  # noqa: F811
    manifest, folder, _ = fields
    loaded = load_checkpoint(checkpoint(fields_problem(recorded), tmp_path / "m.ckpt"))
    plan = plan_fields(loaded, manifest, Period(split="test", every_h=3), name="m", folder=folder)
    alone = written(plan, tmp_path / "alone.zarr", block=4)
    with pytest.raises(StoreError):  # rank 1 waits for rank 0 to begin, rank 0 for its blocks
        write_forecasts(plan, tmp_path / "two.zarr", block=4, world=2, patience_s=0,
                        echo=lambda line: None)  # fmt: skip
    for rank in (1, 0):
        write_forecasts(plan, tmp_path / "two.zarr", block=4, rank=rank, world=2, patience_s=5,
                        echo=lambda line: None)  # fmt: skip
    assert open_forecast_store(tmp_path / "two.zarr").digest == alone.digest


def test_inputs_that_are_missing_are_told(fields):
    manifest, folder, _ = fields
    period = Period(first=np.datetime64("2012-12-31T12"), last=np.datetime64("2013-01-03T12"),
                    every_h=12)  # fmt: skip
    plan = plan_field_rule("persistence", manifest, period, (6,), folder=folder)
    lost = [(f"2013-01-{hour}Z", "no so2 at the init time") for hour in ("01T00", "01T12", "02T00")]
    assert plan.skipped == (("2012-12-31T12Z", "the init time is in no store"), *lost)
    assert len(plan.times) + len(plan.skipped) == 7


def test_rules(fields, tmp_path):
    manifest, folder, years = fields
    leads = (3, 12)
    stores = {
        rule: written(plan_field_rule(rule, manifest, TEST, leads, folder=folder),
                      tmp_path / f"{rule}.zarr")
        for rule in ("persistence", "climatology", "damped_persistence")
    }  # fmt: skip
    at = [DYNAMIC.index(name) for name in TARGETS]
    first = stores["persistence"]
    rows = np.searchsorted(years.times, first.init_times)
    now = years.read(rows)[:, at][..., years.mask]
    for p, name in enumerate(TARGETS):
        for lead in leads:
            found = first.read(slice(None), lead, name, cells=True)
            np.testing.assert_allclose(found, now[:, p], rtol=2**-10)
    # climatology: the same for the same hour of the day (one diurnal harmonic, no annual one)
    usual = stores["climatology"].read(slice(None), 12, "o3", cells=True)
    hours = first.init_times.astype(int) % 24
    np.testing.assert_array_equal(usual[hours == 0][0], usual[hours == 0][-1])
    factors = np.array(stores["damped_persistence"].attributes["source"]["damping"])
    assert factors.shape == (2, 6) and (np.abs(factors) < 1.2).all()
    damped = stores["damped_persistence"].read(slice(None), 12, "o3", cells=True)
    climatology = open_training_data(manifest, folder).statistics.climatology
    anomaly = now[:, 5] - climatology(first.init_times)[:, at[5]][..., years.mask]
    expected = np.maximum(usual + factors[1, 5] * anomaly, 0)
    np.testing.assert_allclose(damped, expected, rtol=2e-3, atol=0.05)


def test_damping_factors_are_least_squares(fields):
    manifest, folder, years = fields
    data = open_training_data(manifest, folder)
    split, climatology = data.splits["train"], data.statistics.climatology
    found = damping_factors(years, climatology, split, (3, 12))
    rows = np.flatnonzero(split.contains(years.times))
    at = [DYNAMIC.index(name) for name in TARGETS]
    anomaly = (years.read(rows) - climatology(years.times[rows]))[:, at][..., years.mask]
    for place, lead in enumerate((3, 12)):
        early, late = anomaly[:-lead], anomaly[lead:]
        both = np.isfinite(early) & np.isfinite(late)
        early, late = np.where(both, early, 0), np.where(both, late, 0)
        expected = (early * late).sum((0, 2)) / (early**2).sum((0, 2))
        np.testing.assert_allclose(found[place], expected, rtol=1e-5)


def test_another_grid_is_refused(recorded, fields, tmp_path):  # noqa: F811
    manifest, folder, _ = fields
    loaded = load_checkpoint(checkpoint(fields_problem(recorded), tmp_path / "m.ckpt"))
    domain = loaded.model.domain
    mask = domain.mask.copy()
    mask[np.nonzero(mask)[0][0], np.nonzero(mask)[1][0]] = False
    loaded.model.domain = replace(domain, mask=mask)
    with pytest.raises(StoreError, match="does not fit the stores: mask"):
        plan_fields(loaded, manifest, TEST, name="m", folder=folder)


# ---- stations


@pytest.fixture
def small(tiny_manifest, monkeypatch):  # noqa: F811
    monkeypatch.setattr(forecast_stations, "open_store", lambda path, manifest: TINY_STORE)
    monkeypatch.setattr(forecast_stations, "splits_of", lambda manifest: splits())
    return tiny_manifest


def test_stations(small, tmp_path):
    problem = station_problem(small, config(), QUICK, store="memory")
    loaded = load_checkpoint(checkpoint(problem, tmp_path / "m.ckpt"))
    plan = plan_stations(loaded, small, TEST, name="m", store="memory")
    store = written(plan, tmp_path / "f.zarr")
    samples, leads = problem.validation, problem.model.config.lead_times_h
    assert store.lead_times_h == leads and len(store.init_times) > 10
    samples = ForecastSamples(problem.data.fields, "test", leads)
    both = np.flatnonzero(np.isin(samples.times, store.init_times))
    assert len(both) == len(store.init_times)
    with torch.no_grad():
        expected = loaded.model(samples.__getitems__(both[:7])).numpy()
    for p, name in enumerate(TARGETS):
        found = store.read(slice(0, 7), None, name)
        np.testing.assert_allclose(found, expected[:, :, p], rtol=2e-3, atol=1e-4)


def test_station_rules(small, tmp_path):
    problem = station_problem(small, config(), QUICK, store="memory")
    fields = problem.data.fields
    plan = plan_station_rule("persistence", small, TEST, (5, 12), store="memory")
    values = plan.forecast(plan.times[:4])
    history = fields.history
    rows = np.searchsorted(history.times, plan.times[:4])
    at = [DYNAMIC.index(name) for name in TARGETS]
    now = (history.anomalies[rows] + history.climatology(history.times[rows]))[:, at]
    np.testing.assert_allclose(values, np.repeat(np.maximum(now, 0)[:, None], 2, axis=1), rtol=1e-5)
    damped = plan_station_rule("damped_persistence", small, TEST, (12,), store="memory")
    factor = np.array(damped.provenance["source"]["damping"])
    assert factor.shape == (1, 6) and ((factor > 0) & (factor < 1)).all()
    usual = plan_station_rule("climatology", small, TEST, (12,), store="memory")
    expected = history.climatology(plan.times[:4] + np.timedelta64(12, "h"))[:, at]
    np.testing.assert_allclose(usual.forecast(plan.times[:4])[:, 0], expected, rtol=1e-4)


# ---- command line


def test_command_line(recorded, fields, tmp_path):  # noqa: F811
    _, folder, _ = fields
    path = checkpoint(fields_problem(recorded), tmp_path / "m.ckpt")
    common = ["--manifest", str(recorded[0]), "--folder", str(folder), "--split", "test"]
    for arguments, name in (
        ([str(path), "--every", "12"], "m"),
        (["--baseline", "persistence", "--leads", "6,24"], "persistence"),
    ):
        out = tmp_path / f"{name}.zarr"
        result = CliRunner().invoke(forecast, [*arguments, *common, "--out", str(out)],
                                    catch_exceptions=False)  # fmt: skip
        assert result.exit_code == 0 and f"{out}: complete" in result.output
        assert open_forecast_store(out).name == name
    for wrong in ([], [str(path), "--baseline", "persistence"]):
        with pytest.raises(ParameterError, match="what is to be forecast"):
            CliRunner().invoke(forecast, [*wrong, *common, "--out", "x.zarr"],
                               catch_exceptions=False)  # fmt: skip


def test_the_command_is_a_rank_of_those_that_srun_started(monkeypatch, tmp_path):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    step = {"STEP_ID": 0, "PROCID": 6, "NTASKS": 8, "LOCALID": 1, "NNODES": 2}
    for name, value in step.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    plan = SimpleNamespace(times=[], skipped=[], lead_times_h=(12,))
    seen = {}
    module = sys.modules["aqnet.cli.forecast"]  # the name in the package is the command
    monkeypatch.setattr(module, "_plan", lambda asked, device: seen.update(device=device) or plan)
    monkeypatch.setattr("aqnet.verification.forecast_plan.write_forecasts",
                        lambda plan, out, **options: seen.update(options))  # fmt: skip
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    result = CliRunner().invoke(
        forecast, ["--baseline", "persistence", "--device", "cuda", "--out", str(tmp_path / "f")],
        catch_exceptions=False)  # fmt: skip
    assert result.exit_code == 0 and result.output == ""  # rank 0 speaks
    assert (seen["rank"], seen["world"], seen["device"]) == (6, 8, "cuda:1")


def test_leads_as_text():
    assert parse_leads("1:120") == tuple(range(1, 121)) and parse_leads("12,24") == (12, 24)
    for wrong in ("12;24", "120:1", "0,12", ""):
        with pytest.raises(ParameterError, match="lead times cannot be read"):
            parse_leads(wrong)
