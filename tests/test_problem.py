"""Training problems: fitted on the training split alone, of recorded data, with their identity."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import synthetic
import torch
import yaml
from click.testing import CliRunner
from made_up_years import made_up_fields, made_up_mask, made_up_static
from synthetic import LEADS, QUICK, batch_of, config, grid, load, prepared, splits, tiny

from aqnet.cli import main
from aqnet.data.batches import FieldSamples
from aqnet.data.grid_manifest import GridManifest
from aqnet.data.manifest import load_manifest
from aqnet.data.stations.samples import ForecastSamples
from aqnet.data.statistics.compute import Settings, statistics_of_manifest
from aqnet.data.statistics.file import write_statistics
from aqnet.data.years.format import YearSpec, year_times
from aqnet.data.years.records import record_stores
from aqnet.data.years.writer import write_year
from aqnet.errors import ChecksumError, DataError, LeadTimeError, SampleError
from aqnet.grid import GRIDS
from aqnet.io import repository_root
from aqnet.model.array_cache import CacheError
from aqnet.model.config import ModelConfig, ScanConfig
from aqnet.model.forecaster import Forecaster
from aqnet.model.grid_forecaster import GridForecaster
from aqnet.model.physics_attention import PhysicsConfig
from aqnet.model.ridge import ridge_path, ridge_spec, save_ridge
from aqnet.model.scan_cache import save_scan, scan_path
from aqnet.model.scan_orders import build_orders, scan_spec
from aqnet.model.statistical import STATISTICAL, situation_at
from aqnet.training import station_problem as station_module
from aqnet.training.config import TrainingConfig
from aqnet.training.data_digests import data_sources
from aqnet.training.problem import grid_problem, open_problem
from aqnet.training.setup import batches, choose_start, prepare
from aqnet.training.station_problem import station_problem
from aqnet.variables import DYNAMIC, STATIC, TARGETS

torch.set_num_threads(1)

# ---- stations: what is fitted before gradient descent


def sums(model: Forecaster, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Sums of squared errors and numbers of cells of a split, (L, 6)."""
    found = np.zeros((2, len(LEADS), 6))
    with torch.no_grad():
        for batch in batches(ForecastSamples(tiny()[0], split, LEADS)):
            terms = model.terms(batch)
            parts = (terms.error.double().square(), terms.weight.double())
            found += np.stack([part.sum((0, 3, 4)).numpy() for part in parts])
    return found[0], found[1]


def test_the_loss_of_the_start_is_one_on_the_training_split():
    ready = prepared(linear_part=False)
    squares, cells = sums(ready.model.eval(), "train")
    np.testing.assert_allclose(squares / cells / ready.residual_variance, 1, rtol=1e-5)
    np.testing.assert_allclose(cells, ready.scored)
    weighted = ready.loss_weights.double().numpy() * squares
    assert weighted.sum() / cells.sum() == pytest.approx(1, rel=1e-5)
    assert cells.min() < 0.995 * cells.max(), "the test needs cells that are not scored alike"
    np.testing.assert_allclose(weighted, weighted.mean(), rtol=1e-5)  # each counts the same


def test_the_start_is_the_best_rule_of_the_validation_split():
    (fields, stations), ready = tiny(), prepared()
    rows = ForecastSamples(fields, "validation", LEADS).rows
    at = situation_at(stations.history, rows, LEADS)
    truth = np.stack([stations.observed[rows + h] for h in LEADS], axis=1)[..., :5]
    rmse = []
    for name in STATISTICAL:
        error = ready.statistical(name, at)[..., :5] - truth
        rmse.append(np.sqrt(np.nanmean(error**2, axis=(0, 3))))
    np.testing.assert_array_equal(ready.chosen, np.array(STATISTICAL)[np.argmin(rmse, axis=0)])
    for lead, p in np.ndindex(3, 6):
        rule = STATISTICAL.index(ready.chosen[lead, p])
        weights = ready.statistical.weights[rule, lead, p]
        np.testing.assert_allclose(ready.model.start_weights[lead, p], weights, rtol=1e-6)


def test_nothing_is_fitted_on_later_splits_or_at_withheld_stations():
    content = synthetic.arrays()
    after = int((splits()["validation"].start - synthetic.START).astype(int))
    before = prepared()
    content["inputs"][after:] *= 1.5
    content["targets"][after:] += 20
    content["station_values"][after:] *= 2
    content["station_values"][:, 5] *= 3  # the withheld one
    other = prepare(*load(content), grid(), config(), QUICK)
    np.testing.assert_array_equal(other.statistical.weights, before.statistical.weights)
    if np.array_equal(other.chosen, before.chosen):  # the choice may see the validation split
        assert torch.equal(other.model.linear, before.model.linear)
        np.testing.assert_array_equal(other.residual_variance, before.residual_variance)
    for name in ("spread", "mean", "static"):
        assert torch.equal(getattr(other.model, name), getattr(before.model, name))


def test_the_choice_ignores_withheld_stations():
    fields, stations = tiny()
    validation = ForecastSamples(fields, "validation", LEADS)
    observed = stations.observed.copy()
    observed[..., 5] = 1e4
    other = choose_start(prepared().statistical, replace(stations, observed=observed), validation)
    np.testing.assert_array_equal(np.array(STATISTICAL)[other], prepared().chosen)


def test_the_regression_lowers_the_training_loss():
    losses = []
    for on in (True, False):
        ready = prepared(linear_part=on)
        squares, cells = sums(ready.model.eval(), "train")
        losses.append((squares / cells / ready.residual_variance).mean())
    assert losses[0] < losses[1] - 0.01


def test_a_pollutant_without_truth_is_named():
    fields, stations = tiny()
    scored = fields.scored.copy()
    scored[:, TARGETS.index("so2")] = False
    spoiled = replace(fields, scored=scored)
    with pytest.raises(DataError, match=rf"none of so2 at {LEADS[0]} h, so2 at {LEADS[1]} h"):
        prepare(spoiled, stations, grid(), config(), TrainingConfig())


def test_the_weights_come_from_the_seed():
    states = [
        prepare(*tiny(), grid(), config(), QUICK.model_copy(update={"seed": seed})).model
        for seed in (3, 3, 4)
    ]
    values = [dict(model.named_parameters())["network.tokens.weight"] for model in states]
    assert torch.equal(values[0], values[1]) and not torch.equal(values[0], values[2])


@pytest.fixture
def tiny_manifest(monkeypatch):
    """A manifest of stations whose store is the tiny one."""
    monkeypatch.setattr(station_module, "open_store", lambda path, manifest: TINY_STORE)
    monkeypatch.setattr(station_module, "splits_of", lambda manifest: splits())
    return SimpleNamespace(name="tiny", digest="e" * 64, synthetic=True, grid_object=grid)


TINY_STORE = synthetic.store_of(synthetic.arrays())


def test_a_problem_of_stations(tiny_manifest):
    problem = station_problem(tiny_manifest, config(), QUICK, store="memory")
    assert isinstance(problem.model, Forecaster)
    spread = list(map(len, (problem.train, problem.validation)))
    assert spread == [len(ForecastSamples(tiny()[0], s, LEADS)) for s in ("train", "validation")]
    assert torch.equal(problem.loss_weights, prepared().loss_weights)
    for name in ("chosen", "statistical", "residual_variance"):
        expected = getattr(prepared(), name)
        expected = expected.weights if name == "statistical" else expected
        np.testing.assert_array_equal(problem.extra[name], expected)
    identity = problem.identity
    assert identity.kind == "stations" and identity.stores == (("memory", "0" * 64),)
    assert identity.normaliser_sha256 == tiny()[0].normaliser.digest
    assert identity.grid_sha256 == grid().digest and identity.statistics_sha256 is None
    assert problem.data.grid.digest == grid().digest
    terms = problem.model.terms(problem.train.__getitems__([0, 5]))
    assert terms.error.shape == (2, 3, 6, 8, 8)


# ---- fields


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Manifest of three recorded years of four days, and their folder."""
    root, patch = tmp_path_factory.mktemp("fields"), pytest.MonkeyPatch()
    patch.setattr(GridManifest, "times", lambda self, year: year_times(year, 8)[:96])
    content = yaml.safe_load((repository_root() / "data_manifests/twin.yaml").read_text())
    days = zip(("train", "validation", "test"), (2013, 2014, 2015), strict=True)
    split = {name: {"start": f"{year}-01-01", "end": f"{year}-01-04"} for name, year in days}
    content.update(years=[2013, 2014, 2015], grid="china_32x64", split=split)
    path, folder = root / "data_manifests" / "twin.yaml", root / "twin"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(content))
    manifest, place = load_manifest(path), GRIDS["china_32x64"]
    for year in (2013, 2014, 2015):
        spec = YearSpec.from_manifest(manifest, year, made_up_static(place), made_up_mask(place))
        fields = made_up_fields(spec.times, place, year)
        if year == 2013:  # 40 h without SO2
            fields[:40, DYNAMIC.index("so2")] = np.nan
        write_year(folder / manifest.store_file(year), spec, fields.__getitem__)
    here = Settings(annual=0, diurnal=1, leads_h=(3, 12), workers=0)
    record_stores(manifest, folder)
    write_statistics(statistics_of_manifest(manifest, folder, here), folder / "statistics.nc")
    record_stores(manifest, folder)
    yield path, folder
    patch.undo()


SMALL = {"lead_times_h": (6, 24), "width": 16, "depth": 1, "heads": 2, "patch": 4}


def fields_problem(recorded, **changes):
    path, folder = recorded
    return grid_problem(load_manifest(path), ModelConfig(**(SMALL | changes)), QUICK, folder)


def test_a_problem_of_fields(recorded):
    problem = fields_problem(recorded)
    assert isinstance(problem.model, GridForecaster) and problem.extra == {}
    assert problem.train.index.times.max() < np.datetime64("2013-01-05")
    assert problem.validation.index.times.min() > np.datetime64("2013-12-31")
    assert problem.loss_weights.tolist() == [[1.0] * 6] * 2
    terms = problem.model.terms(problem.train.__getitems__([0, 9]))
    loss = terms.error.square().sum() / terms.weight.sum()
    assert 0.3 < loss.item() < 3  # normalised with the statistics of these years
    identity, manifest = problem.identity, load_manifest(recorded[0])
    record, data = manifest.record(), problem.data
    assert identity.kind == "grid" and identity.manifest_sha256 == manifest.digest
    assert identity.stores == tuple((e.file, e.content_sha256) for e in record.stores)
    assert identity.statistics_sha256 == record.statistics.sha256
    assert identity.normaliser_sha256 == data.normaliser.digest
    assert (identity.variables, identity.static_variables) == (DYNAMIC, STATIC)
    assert identity.synthetic and identity.weather == "none"
    assert identity.scan_sha256 is None and identity.terrain_sha256 is None


def test_an_experiment_names_manifest_and_paths(recorded, monkeypatch):
    path, folder = recorded
    experiment = SimpleNamespace(
        manifest=str(path), model=ModelConfig(**SMALL), training=QUICK, store=None, folder=folder,
        scan=None, terrain=None,
    )  # fmt: skip
    assert open_problem(experiment).identity == fields_problem(recorded).identity
    seen = []
    monkeypatch.setattr(station_module, "station_problem", lambda *a, **k: seen.append((a, k)))
    open_problem(SimpleNamespace(**{**vars(experiment), "manifest": "beijing", "store": "here"}))
    ((manifest, *_), options), = seen  # fmt: skip
    assert manifest.name == "beijing" and options == {"store": "here"}


def test_one_lead_a_sample(recorded):
    every, one = (fields_problem(recorded, lead_mode=mode) for mode in ("all", "one"))
    assert len(one.train) > 1.9 * len(every.train)
    batch = one.train.__getitems__([0, len(one.train) - 1])
    assert set(one.train.index.leads_h.ravel().tolist()) == {6, 24}
    assert one.model.terms(batch).error.shape == (2, 1, 6, 32, 64)


def test_optional_inputs_give_more_samples(recorded):
    without, with_so2 = (
        fields_problem(recorded, optional_inputs=names) for names in (("so2",), ())
    )
    assert len(without.train) > len(with_so2.train)
    assert isinstance(without.train, FieldSamples)
    batch = without.train.__getitems__([2])
    so2 = DYNAMIC.index("so2")
    lacking = not torch.isfinite(batch["inputs"][0, 0, so2]).any()
    assert lacking, "the test needs a sample that lacks SO2"
    terms = without.model.terms(batch)
    assert torch.isfinite(terms.error).all() and terms.weight.any()


def test_caches_are_read_and_part_of_the_identity(recorded, tmp_path, monkeypatch):
    monkeypatch.setenv("AQNET_DATA", str(tmp_path))
    scan = ScanConfig(mode="region", regions=(4, 4), sectors=8, lane_patches=2, rank_embedding=True)
    place, changes = GRIDS["china_32x64"], {"physics": PhysicsConfig(ridge=True), "scan": scan}
    terrain = ridge_spec(place, 4, elevation=made_up_static(place)[2])
    spec = scan_spec(place, 4, (4, 4), 8, 2, place.active_patches(made_up_mask(place), 4))
    with pytest.raises(CacheError, match=r"missing(.|\n)*aqnet terrain build --grid china_32x64"):
        fields_problem(recorded, **changes)
    save_ridge(ridge_path(terrain), terrain)
    with pytest.raises(CacheError, match=r"missing(.|\n)*aqnet wind-scan build"):
        fields_problem(recorded, **changes)
    save_scan(scan_path(spec), build_orders(spec))
    problem = fields_problem(recorded, **changes)
    digests = problem.model.domain.digests()
    assert problem.identity.scan_sha256 == digests["scan_sha256"] is not None
    assert problem.identity.terrain_sha256 == digests["terrain_sha256"] is not None
    terms = problem.model.terms(problem.train.__getitems__([0]))
    assert torch.isfinite(terms.error).all()
    moved = ridge_path(terrain).rename(tmp_path / "here.safetensors")
    model = ModelConfig(**(SMALL | changes))
    manifest = load_manifest(recorded[0])
    again = grid_problem(manifest, model, QUICK, recorded[1], terrain=moved)
    assert again.identity == problem.identity


def test_windows_along_the_rows_need_no_orders(recorded, tmp_path, monkeypatch):
    monkeypatch.setenv("AQNET_DATA", str(tmp_path))  # without any cache
    problem = fields_problem(recorded, scan=ScanConfig(window=8, regions=(4, 4)))
    assert problem.identity.scan_sha256 is None and problem.model.domain.orders is None
    with pytest.raises(CacheError, match="aqnet wind-scan build"):
        fields_problem(recorded, scan=ScanConfig(mode="lanes", window=8, regions=(4, 4)))


def test_ridges_are_verified_with_the_terrain_of_stores(recorded, tmp_path):
    path, folder = tmp_path / "ridges.safetensors", recorded[1]
    save_ridge(path, ridge_spec(GRIDS["china_32x64"], 4, 3, elevation=made_up_static(
        GRIDS["china_32x64"])[2]))  # fmt: skip
    command = ["terrain", "verify", str(path)]
    own = CliRunner().invoke(main, [*command, "--manifest", str(recorded[0]), "--folder", folder])
    assert own.exit_code == 0 and "are those of the terrain" in own.output
    real = CliRunner().invoke(main, command)
    assert real.exit_code == 1 and "build it with" in real.output


def test_the_digests_of_an_identity_are_found_again(recorded, tmp_path, monkeypatch):
    monkeypatch.setenv("AQNET_DATA", str(tmp_path))
    path, folder = recorded
    scan = ScanConfig(mode="region", regions=(4, 4), sectors=8, lane_patches=2, rank_embedding=True)
    model = ModelConfig(**SMALL, physics=PhysicsConfig(ridge=True), scan=scan)
    experiment = SimpleNamespace(
        manifest=str(path), model=model, training=QUICK, store=None, folder=folder, scan=None,
        terrain=None,
    )  # fmt: skip
    place = GRIDS["china_32x64"]
    ridges = ridge_spec(place, 4, elevation=made_up_static(place)[2])
    terrain = ridge_path(ridges)
    save_ridge(terrain, ridges)
    spec = scan_spec(place, 4, (4, 4), 8, 2, place.active_patches(made_up_mask(place), 4))
    save_scan(scan_path(spec), build_orders(spec))
    recorded_digests = open_problem(experiment).identity.digests()
    sources = data_sources(experiment)
    assert sources.keys() == recorded_digests.keys()
    assert {name: source.digest() for name, source in sources.items()} == recorded_digests
    assert all(source.path().exists() for source in sources.values())
    assert sources["terrain"].path() == terrain
    content = bytearray(terrain.read_bytes())
    content[-1] ^= 1
    terrain.write_bytes(content)
    with pytest.raises(CacheError):
        data_sources(experiment)["terrain"].digest()
    terrain.unlink()
    assert not data_sources(experiment)["terrain"].path().exists()


def test_data_that_cannot_serve(recorded, tmp_path):
    with pytest.raises(LeadTimeError, match="120 h"):
        fields_problem(recorded, lead_times_h=(6, 120))
    with pytest.raises(SampleError, match="history"):
        fields_problem(recorded, history_h=(0, 500))
    path, folder = recorded
    other = tmp_path / "twin"
    other.mkdir()
    for store in folder.glob("*.zarr"):
        (other / store.name).symlink_to(store)
    statistics = (folder / "statistics.nc").read_bytes()
    (other / "statistics.nc").write_bytes(statistics[:-200])
    with pytest.raises(ChecksumError):
        grid_problem(load_manifest(path), ModelConfig(**SMALL), QUICK, folder=other)


def test_batches_pass_all_samples_once():
    samples = ForecastSamples(tiny()[0], "test", LEADS)
    hours = np.concatenate([batch["hours"] for batch in batches(samples, 100)])
    np.testing.assert_array_equal(hours, samples.times.astype(np.int64))
    assert set(batch_of()) == set(next(batches(samples)))
