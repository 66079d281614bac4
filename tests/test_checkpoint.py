"""Checkpoints: bitwise the same forecasts anywhere, no code in them, and damage is named."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_models import LEADS, grid_batch, grid_model, station_batch, station_model
from checkpoints import identity, made_up, training_state, weights
from hypothesis import given, settings
from hypothesis import strategies as st

from aqnet.errors import StorageFullError
from aqnet.model.attention import ModelError
from aqnet.model.config import ModelConfig
from aqnet.model.physics_attention import PhysicsConfig
from aqnet.model.statistical import STATISTICAL
from aqnet.training import checkpoint_archive
from aqnet.training.checkpoint import (
    CHECKPOINT_VERSION,
    Checkpoint,
    Progress,
    build_model,
    check_fits,
    load_checkpoint,
    read_checkpoint,
    set_share,
    write_checkpoint,
)


def same_tree(a: object, b: object) -> bool:
    """Equal types and values, tensors bitwise."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same_tree(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same_tree, a, b))
    return a == b


@pytest.fixture
def path(tmp_path):
    """A written checkpoint with a training state."""
    write_checkpoint(tmp_path / "last.ckpt", made_up(training=training_state()))
    return tmp_path / "last.ckpt"


# ---- what comes back


def test_everything_comes_back(path):
    wanted = made_up(training=training_state(), parent="9" * 64, notes=("imported", "twice"))
    digest = write_checkpoint(path, wanted)
    found = read_checkpoint(path, training=True)
    for name in ("kind", "config", "identity", "progress", "parent", "notes", "code"):
        assert getattr(found, name) == getattr(wanted, name)
    for name in ("state", "arrays", "extra", "training"):
        assert same_tree(getattr(found, name), getattr(wanted, name)), name
    assert found.sha256 == digest and len(found.training_sha256) == 64


def test_code_of_this_process_is_recorded():
    made = made_up()
    found = Checkpoint(made.kind, made.config, {}, {}, None).code
    assert found.torch == torch.__version__ and found.git.state


def test_the_training_state_is_read_only_when_asked_for(path):
    assert read_checkpoint(path).training is None
    assert read_checkpoint(path).sha256 == read_checkpoint(path, training=True).sha256
    write_checkpoint(path, made_up())
    assert read_checkpoint(path, training=True).training is None
    assert read_checkpoint(path).training_sha256 is None


def test_what_was_read_does_not_hang_on_the_file(path):
    found = read_checkpoint(path, training=True)
    with path.open("r+b") as stream:  # as a copy over it would do; a mapping would change
        stream.write(bytes(path.stat().st_size))
    assert same_tree(found.state, weights()) and same_tree(found.training, training_state())


def test_any_machine_can_read_it_with_torch_alone(path):
    content = torch.load(path, weights_only=True)
    assert content["version"] == CHECKPOINT_VERSION
    assert same_tree(content["forecaster"]["state"], weights())


# ---- digest


def test_the_digest_is_of_the_content_not_of_the_file(tmp_path):
    state = weights()
    order = dict(reversed(state.items()))
    digests = {
        write_checkpoint(tmp_path / name, made_up(state=each, training=training))
        for name, each, training in (
            ("a.ckpt", state, None), ("b.ckpt", order, None), ("c.ckpt", state, training_state()),
        )
    }  # fmt: skip
    assert len(digests) == 1
    # a file rewritten by another program, other bytes
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    torch.save(dict(reversed(content.items())), tmp_path / "d.ckpt")
    assert (tmp_path / "d.ckpt").read_bytes() != (tmp_path / "a.ckpt").read_bytes()
    assert read_checkpoint(tmp_path / "d.ckpt").sha256 in digests


def changed(**state) -> Checkpoint:
    return made_up(state=weights() | state)


@pytest.mark.parametrize(
    "other",
    [
        changed(count=torch.tensor(4)),
        changed(count=torch.tensor(3, dtype=torch.int32)),
        changed(count=torch.tensor([3])),
        changed(more=torch.zeros(1)),
        made_up(arrays={}),
        made_up(identity=identity(grid="other")),
        made_up(progress=Progress(step=87)),
        made_up(parent="0" * 64),
        made_up(extra={"chosen": [["climatology"]]}),
        made_up(notes=("a",)),
    ],
)
def test_any_change_of_content_changes_the_digest(tmp_path, other):
    path = tmp_path / "a.ckpt"
    assert write_checkpoint(path, made_up()) != write_checkpoint(path, other)


def test_a_training_state_of_other_weights_is_named(path, tmp_path):
    write_checkpoint(tmp_path / "other.ckpt", made_up(state=weights(1), training=training_state()))
    ours, other = (torch.load(p, weights_only=True) for p in (path, tmp_path / "other.ckpt"))
    assert ours["digests"]["training"] != other["digests"]["training"]
    ours["training"]["step"] = 6
    torch.save(ours, path)
    assert read_checkpoint(path).training is None
    with pytest.raises(ModelError, match=r"last\.ckpt is damaged \(training\)"):
        read_checkpoint(path, training=True)


# ---- what cannot be stored


@pytest.mark.parametrize(
    ("training", "where"),
    [
        ({"curve": [1.0, np.float64(2)]}, r"training\.curve\[1\]"),
        ({"best": {"at": np.int64(2)}}, r"training\.best\.at"),
        ({"when": (1, object())}, r"training\.when\[1\]"),
        ({1.5: 2}, r"a key of training"),
        ({"names": np.array(["a"])}, r"training\.names"),
        ({"sparse": torch.eye(3).to_sparse()}, r"training\.sparse"),
        ({"function": print}, r"training\.function"),
    ],
)
def test_a_value_that_only_code_could_read_is_refused_when_written(path, training, where):
    before = path.read_bytes()
    with pytest.raises(ModelError, match=rf"{where} cannot be stored(.|\n)*remedy"):
        write_checkpoint(path, made_up(training=training))
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["module.blocks.0.w", "_orig_mod.w", "network._orig_mod.w"])
def test_weights_of_a_wrapper_are_refused(tmp_path, name):
    with pytest.raises(ModelError, match=rf"wrapper(.|\n)*{name}(.|\n)*unwrapped"):
        write_checkpoint(tmp_path / "a.ckpt", changed(**{name: torch.ones(1)}))


def test_a_validation_loss_that_is_no_number_cannot_become_a_checkpoint():
    with pytest.raises(ValueError, match="val_loss"):
        Progress(val_loss=float("nan"))


def test_a_view_does_not_take_its_whole_storage_along(tmp_path):
    whole = torch.randn(1000, 1000)
    views = {"row": whole[3], "column": whole[:, 3], "half": whole.T[:, :2]}
    write_checkpoint(tmp_path / "a.ckpt", made_up(state=views))
    assert (tmp_path / "a.ckpt").stat().st_size < 60_000
    assert same_tree(read_checkpoint(tmp_path / "a.ckpt").state, views)


def test_weights_that_share_memory_are_apart_after_reading(tmp_path):
    shared = torch.ones(5)
    write_checkpoint(tmp_path / "a.ckpt", made_up(state={"a": shared, "b": shared}))
    state = read_checkpoint(tmp_path / "a.ckpt").state
    state["a"].zero_()
    assert state["b"].eq(1).all()


# ---- damage


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"none.ckpt does not exist(.|\n)*remedy:.*train"):
        read_checkpoint(tmp_path / "none.ckpt")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_cut_file_is_named(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ModelError, match=r"last\.ckpt cannot be read"):
        read_checkpoint(path)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@given(seed=st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_damage_is_named_or_touches_nothing(tmp_path_factory, seed):
    rng, path = random.Random(seed), tmp_path_factory.getbasetemp() / "damaged.ckpt"
    if not path.exists():
        path.with_suffix(".good").parent.mkdir(exist_ok=True)
        write_checkpoint(path.with_suffix(".good"), made_up(training=training_state()))
    content = bytearray(path.with_suffix(".good").read_bytes())
    start, length = rng.randrange(len(content)), rng.choice([1, 1, 1, 8, 300])
    content[start : start + length] = rng.randbytes(length)
    path.write_bytes(content)
    try:
        found = read_checkpoint(path, training=True)
    except ModelError as error:
        assert "damaged.ckpt" in str(error) and "remedy" in str(error)
    else:  # padding between tensors, attributes of the archive
        assert same_tree(found.state, weights())
        assert same_tree(found.training, training_state())
        assert found.identity == identity()


def test_a_flipped_bit_of_a_weight_is_named(path):
    content = path.read_bytes()
    at = content.index(weights()["network.tokens.weight"].numpy().tobytes())
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    with pytest.raises(ModelError, match=r"last\.ckpt is damaged \(forecaster\)"):
        read_checkpoint(path)


class Payload:
    """Code that a pickle would run."""

    def __reduce__(self):
        return print, ("code of a checkpoint was run",)


def test_code_in_a_checkpoint_is_not_run(path, capsys):
    torch.save({"version": Payload()}, path)
    with pytest.raises(ModelError, match=r"cannot be read(.|\n)*UnpicklingError"):
        read_checkpoint(path)
    assert capsys.readouterr().out == ""


# ---- other files


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_version_says_what_to_do(path, version):
    torch.save({"version": version, "config": "{}", "state": {}, "normaliser": {}}, path)
    with pytest.raises(ModelError, match=rf"is of version {version}(.|\n)*train again.*commit"):
        load_checkpoint(path)


def test_a_later_version_is_named(path):
    torch.save({"version": CHECKPOINT_VERSION + 1}, path)
    with pytest.raises(ModelError, match=r"later aqnet(.|\n)*remedy:.*later one"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "content",
    [[1, 2], {"state_dict": {}, "epoch": 3}, {"version": torch.ones(2)}, torch.ones(2)],
)
def test_a_file_of_something_else_is_named(path, content):
    torch.save(content, path)
    with pytest.raises(ModelError, match=r"no checkpoint of aqnet(.|\n)*checkpoint import"):
        read_checkpoint(path)


def test_a_state_dict_of_another_model_is_not_listed_in_full(path):
    torch.save({f"blocks.{i}": torch.ones(1) for i in range(92)}, path)
    with pytest.raises(ModelError, match=r"found:    92 entries: (\S+ ){10}\.\.\.\n"):
        read_checkpoint(path)


def test_text_is_no_checkpoint(path):
    path.write_text("hello\n" * 100)
    with pytest.raises(ModelError, match=r"last\.ckpt cannot be read"):
        read_checkpoint(path)


def test_a_configuration_of_a_later_aqnet_is_named(path, monkeypatch):
    content = torch.load(path, weights_only=True)
    part = content["forecaster"]
    part["header"] = part["header"].replace('"width":16', '"width":16,"wings":2')
    torch.save(content | {"digests": checkpoint_archive._digests(part, content["training"])}, path)
    with pytest.raises(ModelError, match=r"description(.|\n)*config\.wings"):
        read_checkpoint(path)


# ---- atomic


@pytest.mark.parametrize("limit", [0, 4096, 2_000_000])
def test_a_full_disk_leaves_the_old_file(tmp_path, limit):
    path, state = tmp_path / "last.ckpt", {f"w{i}": torch.ones(250_000) for i in range(3)}
    write_checkpoint(path, made_up(state=state))
    before = path.read_bytes()
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an OSError instead of a signal
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(StorageFullError):
            write_checkpoint(path, made_up(state=state))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_too_little_room_is_refused_before_writing(path, monkeypatch):
    usage = type("usage", (), {"free": 100_000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    monkeypatch.setattr(torch, "save", lambda *_: pytest.fail("written all the same"))
    with pytest.raises(StorageFullError, match="not enough room"):
        write_checkpoint(path, made_up())


def test_the_bytes_are_on_the_disk_before_the_name(tmp_path, monkeypatch):
    events, fsync, replace_ = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda d: (events.append("fsync"), fsync(d))[1])
    monkeypatch.setattr(os, "replace", lambda *a: (events.append("rename"), replace_(*a))[1])
    monkeypatch.setattr(os, "rename", lambda *a: pytest.fail("not atomic over an old file"))
    write_checkpoint(tmp_path / "a.ckpt", made_up())
    assert events == ["fsync", "rename", "fsync"]


def test_a_killed_writer_leaves_the_old_file_and_the_next_one_cleans_up(elsewhere):
    code, folder, _, path = elsewhere
    assert code == -signal.SIGKILL
    assert read_checkpoint(path).parent is None
    assert len(list(folder.iterdir())) == 2
    write_checkpoint(path, made_up(parent="1" * 64))
    assert read_checkpoint(path).parent == "1" * 64
    assert [p.name for p in folder.iterdir()] == ["last.ckpt"]


# ---- memory

def test_writing_copies_nothing_and_reading_weights_does_not_read_the_optimiser(elsewhere):
    writing, weights_alone, everything = elsewhere[2]
    assert writing < 16
    assert weights_alone < 2 * 8 + 16  # mapped and copied
    assert everything > 2 * 88 - 16


# ---- what it was trained on


def fits(**changes) -> str:
    """The refusal of what is here by a checkpoint of `identity()`."""
    with pytest.raises(ModelError) as caught:
        check_fits(made_up(), identity(**changes))
    return str(caught.value)


def test_the_same_data_fit():
    check_fits(made_up(), identity())


OTHER = "9" * 64


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "stations"}, ["kind of data", "grid", "stations"]),
        ({"manifest": "twin"}, ["data manifest", "china (aaaa", "twin (aaaa"]),
        ({"manifest_sha256": OTHER}, ["data manifest", "china (aaaa", "china (9999"]),
        ({"grid_sha256": OTHER}, ["grid: china (bbbb", "grid: china (9999"]),
        ({"mask_sha256": OTHER}, ["mask of the domain", "cccc", "9999"]),
        ({"normaliser_sha256": OTHER}, ["normalisation values", "dddd", "9999"]),
        ({"statistics_sha256": None}, ["file of statistics", "eeee", "none"]),
        ({"scan_sha256": OTHER}, ["wind scan", "none", "9999"]),
        ({"terrain_sha256": OTHER}, ["terrain", "ffff", "9999"]),
        ({"weather": "perfect weather: ERA5"}, ["weather at the valid time", "none", "ERA5"]),
        ({"synthetic": False}, ["made-up data", "True", "False"]),
        ({"stores": (("2013.zarr", "1" * 64), ("2014.zarr", OTHER))},
         ["data stores", "2014.zarr (2222", "2014.zarr (9999"]),
        ({"stores": (("2013.zarr", "1" * 64),)}, ["data stores", "2014.zarr (2222", "none of its"]),
        ({"stores": (("2014.zarr", "2" * 64), ("2013.zarr", "1" * 64))}, ["order", "2013.zarr, "]),
        ({"variables": ("u", "v", "temp", "so2", "pm10")},
         ["variables", "pm10 in place 4", "so2 in place 4, another order"]),
        ({"variables": ("u", "v", "temp", "pm10")}, ["variables", "5, with so2", "4, none of"]),
        ({"static_variables": ("elevation", "slope")},
         ["static variables", "with population", "with slope"]),
    ],
)  # fmt: skip
def test_other_data_are_refused_with_the_difference_in_words(changes, words):
    message = fits(**changes)
    assert all(word in message for word in words), message
    first = message.splitlines()[0]
    assert first.count(",") == 0 and "as trained" in message and "here" in message


def test_every_field_of_an_identity_is_compared():
    compared = {"weather", "synthetic", "kind", "stores", "variables", "static_variables"}
    named = ("manifest", "grid", "normaliser", "statistics", "scan", "terrain", "mask")
    compared |= {f"{name}_sha256" for name in named} | {"manifest", "grid"}
    assert set(type(identity()).model_fields) == compared


def test_several_differences_are_all_named():
    assert "grid, terrain" in fits(grid="beijing", terrain_sha256=None).splitlines()[0]


def test_another_setting_without_weights_is_refused_when_asked():
    here = made_up().config.model_copy(update={"dropout": 0.5})
    check_fits(made_up(), identity())
    check_fits(made_up(), identity(), made_up().config)
    with pytest.raises(ModelError, match=r"other: dropout\n.*dropout: 0\.0\n.*dropout: 0\.5"):
        check_fits(made_up(), identity(), here)


def test_another_kernel_is_no_other_model():
    """Trained on a GPU, continued on a CPU."""

    def with_physics(**changes) -> ModelConfig:
        return ModelConfig(width=16, heads=2, physics=PhysicsConfig(**changes))

    there = made_up(config=with_physics(kernel="efficient", block=64))
    check_fits(there, identity(), with_physics(method="dense"))
    with pytest.raises(ModelError, match=r"other: physics\n"):
        check_fits(there, identity(), with_physics(ridge=True))


def test_weights_without_a_record_are_refused():
    with pytest.raises(ModelError, match=r"does not say(.|\n)*imported from a(.|\n)*remedy"):
        check_fits(made_up(identity=None, notes=("imported from a",)), identity())


# ---- forecasters

CASES = {"grid": (grid_model, grid_batch), "stations": (station_model, station_batch)}


def identity_of(model) -> dict:
    """Fields of the identity that the model's own arrays decide."""
    digests = model.domain.digests() | {"normaliser_sha256": model.normaliser.digest}
    return {"kind": model.kind, "grid": model.domain.grid.name, **digests}


def of_model(model, **changes) -> Checkpoint:
    """The checkpoint that training would write."""
    statistical = np.random.default_rng(0).uniform(size=(len(STATISTICAL), len(LEADS), 6, 3))
    extra = {"statistical": statistical, "chosen": [["climatology"] * 6] * len(LEADS)}
    parts = {"kind": model.kind, "config": model.config, "state": model.state_dict(),
             "arrays": model.arrays(), "identity": identity(**identity_of(model)),
             "extra": extra if model.kind == "stations" else {}}  # fmt: skip
    return Checkpoint(**parts | changes)


@pytest.fixture(scope="module", params=CASES)
def case(request):
    """A model, a batch and its forecast [ug/m3]."""
    make_model, make_batch = CASES[request.param]
    model, batch = make_model(), make_batch()
    with torch.no_grad():
        forecast = model(batch)
    assert forecast.isfinite().any() and forecast.nan_to_num().std() > 1
    return model, batch, forecast


def bitwise(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal, NaN included."""
    return torch.equal(a.view(torch.int32), b.view(torch.int32))


def test_forecasts_are_bitwise_the_same(case, tmp_path):
    model, batch, forecast = case
    write_checkpoint(tmp_path / "best.ckpt", of_model(model))
    loaded = load_checkpoint(tmp_path / "best.ckpt")
    assert not loaded.model.training and type(loaded.model) is type(model)
    with torch.no_grad():
        assert bitwise(loaded.model(batch), forecast)
    assert loaded.normaliser.digest == model.normaliser.digest
    assert loaded.model.config == model.config


# One process for three tests, for it takes seconds to import torch: its memory, forecasts in an
# empty folder without data, and in the end its death half-way through a checkpoint.
ELSEWHERE = """
import os, signal, sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from checkpoints import made_up
from aqnet.training.checkpoint import load_checkpoint, read_checkpoint, write_checkpoint

def status(name):  # MB, mapped pages of files included
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1e3

def growth(work):
    open("/proc/self/clear_refs", "w").write("5")  # forget the peak so far
    start = status("VmRSS")
    work()
    return status("VmHWM") - start

path = Path("memory.ckpt")
wanted = made_up(
    state={"w": torch.ones(2_000_000)},  # 8 MB
    training={"m": torch.ones(20_000_000)},  # 80 MB
)
growth(lambda: write_checkpoint(path, made_up()))  # first use of the writer
print(growth(lambda: write_checkpoint(path, wanted)), flush=True)
print(growth(lambda: read_checkpoint(path)), flush=True)
print(growth(lambda: read_checkpoint(path, training=True)), flush=True)

for kind in ("grid", "stations"):
    model = load_checkpoint(f"{kind}.ckpt").model
    with torch.no_grad():
        torch.save(model(torch.load(f"{kind}.pt", weights_only=True)), f"forecast-{kind}.pt")

save = torch.save
def killed_half_way(content, stream):
    save(content, stream)
    stream.truncate(stream.tell() // 2)
    os.kill(os.getpid(), signal.SIGKILL)
torch.save = killed_half_way
write_checkpoint(Path("killed/last.ckpt"), made_up(parent="0" * 64))
"""


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Exit code, folder of the killed writer, growth of memory [MB], and its checkpoint."""
    place = tmp_path_factory.mktemp("elsewhere")
    for kind, (make_model, make_batch) in CASES.items():
        model, batch = make_model(), make_batch()
        write_checkpoint(place / f"{kind}.ckpt", of_model(model))
        torch.save(batch, place / f"{kind}.pt")
        with torch.no_grad():
            torch.save(model(batch), place / f"wanted-{kind}.pt")
    (place / "killed").mkdir()
    last = place / "killed/last.ckpt"
    write_checkpoint(last, made_up(training=training_state()))
    environment = {"PATH": os.environ["PATH"], "HOME": str(place), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-I", "-c", ELSEWHERE, Path(__file__).parent]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return done.returncode, last.parent, [float(line) for line in done.stdout.split()], last


def test_checkpoints_forecast_in_an_empty_folder_without_data(elsewhere):
    for kind in CASES:
        paths = [elsewhere[1].parent / f"{name}-{kind}.pt" for name in ("forecast", "wanted")]
        assert bitwise(*(torch.load(path, weights_only=True) for path in paths)), kind


def test_what_gives_a_station_forecaster_its_meaning_comes_back(tmp_path):
    wanted = of_model(station_model())
    write_checkpoint(tmp_path / "best.ckpt", wanted)
    loaded = load_checkpoint(tmp_path / "best.ckpt")
    assert loaded.statistical.lead_times_h == LEADS
    np.testing.assert_array_equal(loaded.statistical.weights, wanted.extra["statistical"])
    assert loaded.statistical.weights.dtype == np.float64
    assert loaded.chosen.shape == (len(LEADS), 6) and loaded.chosen[0, 0] == "climatology"
    one = replace(wanted, identity=identity(**identity_of(loaded.model), stores=(("b", OTHER),)))
    write_checkpoint(tmp_path / "best.ckpt", one)
    assert load_checkpoint(tmp_path / "best.ckpt").store_sha256 == OTHER


def test_a_station_checkpoint_without_its_statistical_forecasts_is_named(tmp_path):
    write_checkpoint(tmp_path / "a.ckpt", of_model(station_model(), extra={"chosen": []}))
    with pytest.raises(ModelError, match=r"statistical(.|\n)*remedy"):
        load_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("network.decode.out.bias"), r"1 names differ(.|\n)*decode\.out\.bias"),
        (lambda s: s.update({"more.weight": torch.ones(1)}), r"more\.weight(.|\n)*nothing"),
        (lambda s: s.update({"network.tokens.query": torch.ones(17)}), r"query.*17"),
        (lambda s: s.update({"network.tokens.query": torch.ones(16).double()}), "float64"),
        (lambda s: [s.update({f"model.{k}": s.pop(k)}) for k in list(s)], "model.network"),
    ],
)
def test_weights_that_do_not_fit_exactly_are_refused(change, words):
    model = grid_model()
    state = dict(model.state_dict())
    change(state)
    with pytest.raises(ModelError, match=f"do not fit the configuration(.|\n)*{words}"):
        build_model(of_model(model, state=state))


def test_another_configuration_than_that_of_the_weights_is_refused():
    model = grid_model()
    deeper = model.config.model_copy(update={"depth": 3})
    with pytest.raises(ModelError, match=r"do not fit(.|\n)*blocks\.2"):
        build_model(of_model(model, config=deeper))


def test_missing_arrays_are_named():
    model = grid_model()
    arrays = model.arrays()
    del arrays["domain.ridge.left"]
    with pytest.raises(ModelError, match="ridge"):
        build_model(of_model(model, arrays=arrays))


def test_an_unknown_kind_is_named():
    with pytest.raises(ModelError, match=r"unknown kind(.|\n)*stations or grid"):
        build_model(made_up(kind="ocean"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("domain.lat", "ridges of all patches of the grid"),
        ("domain.ridge.left", r"does not hold what(.|\n)*terrain"),
        ("normaliser.spread", r"does not hold what(.|\n)*normalisation values"),
    ],
)
def test_arrays_other_than_those_of_the_training_are_refused(tmp_path, name, words):
    """The statistics of a run were the undocumented cause of the reference's failed restarts."""
    model = grid_model()
    arrays = model.arrays()
    arrays[name] = arrays[name] * np.array(1.000001, arrays[name].dtype)
    write_checkpoint(tmp_path / "a.ckpt", of_model(model, arrays=arrays))
    with pytest.raises(ModelError, match=words):
        load_checkpoint(tmp_path / "a.ckpt")


# ---- share of the correction


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_share_of_the_correction_is_stored(tmp_path, share):
    model, batch, path = station_model(), station_batch(), tmp_path / "best.ckpt"
    write_checkpoint(path, of_model(model, training=training_state()))
    set_share(path, share)
    loaded = load_checkpoint(path)
    assert same_tree(read_checkpoint(path, training=True).training, training_state())
    with torch.no_grad():
        change = share * model.scale(batch) * model.correction(batch)
        assert torch.equal(loaded.model(batch), (model.start(batch) + change).clamp_min(0))


def test_the_linked_checkpoint_stays_as_it_was_judged(tmp_path):
    judged, best = tmp_path / "best-val_loss_0.5.ckpt", tmp_path / "best.ckpt"
    write_checkpoint(judged, of_model(station_model()))
    os.link(judged, best)
    before = judged.read_bytes()
    set_share(best, 0.25)
    assert judged.read_bytes() == before != best.read_bytes() and not best.samefile(judged)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_outside_the_unit_interval_is_refused(path, share):
    before = path.read_bytes()
    with pytest.raises(ModelError, match="from 0 to 1"):
        set_share(path, share)
    assert path.read_bytes() == before


def test_a_forecaster_of_fields_has_no_share(path):
    with pytest.raises(ModelError, match=r"no share(.|\n)*grid"):
        set_share(path, 0.5)
