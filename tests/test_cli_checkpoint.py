"""`aqnet checkpoint`: what it shows, and that it shows what differs."""

from __future__ import annotations

import click
import numpy as np
import pytest
import torch
from checkpoints import identity, made_up, training_state, weights
from click.testing import CliRunner

from aqnet.cli.checkpoint import checkpoint
from aqnet.cli.console import Group
from aqnet.training.checkpoint import Progress, read_checkpoint, write_checkpoint
from aqnet.training.checkpoint_report import _arrays_changed, group_changes


def run(*arguments: object) -> tuple[int, str]:
    """Exit code and output, errors shown as the command line does."""
    outer = click.version_option("0")(Group("aqnet", commands=[checkpoint]))
    done = CliRunner().invoke(outer, ["checkpoint", *map(str, arguments)])
    return done.exit_code, done.output


@pytest.fixture
def first(tmp_path):
    """Path of a written checkpoint."""
    write_checkpoint(tmp_path / "a.ckpt", made_up())
    return tmp_path / "a.ckpt"


@pytest.fixture
def second(tmp_path, first):
    """Writes a checkpoint with changes and gives its path."""

    def write(**changes):
        write_checkpoint(tmp_path / "b.ckpt", made_up(**changes))
        return tmp_path / "b.ckpt"

    return write


def lines_of(output: str, start: str) -> list[str]:
    """Words of the first line that starts with this."""
    return next(line.split() for line in output.splitlines() if line.strip().startswith(start))


# ---- inspect


def test_inspect_shows_what_gives_the_weights_their_meaning(second):
    path = second(training=training_state(), parent="9" * 64, notes=("from elsewhere",))
    code, shown = run("inspect", path)
    assert code == 0
    wanted = (
        *(read_checkpoint(path).sha256, "9" * 64, "step 86, epoch 1, validation loss 0.25"),
        *("aqnet 0.2.0, torch 2.13.0, " + "c" * 40, "from elsewhere", "optimiser, step"),
        *("store 2014.zarr", "2" * 64, "u v temp pm10 so2", "terrain_sha256", "scan.sectors"),
        *("domain.lat", "float64 (4,)", "chosen, variance"),
    )
    assert [text for text in wanted if text not in shown] == []


def test_inspect_sums_weights_by_group(second):
    state = weights()
    state["network.blocks.0.mlp.bias"][:2] = torch.tensor([float("nan"), float("inf")])
    _, shown = run("inspect", second(state=state))
    assert lines_of(shown, "network.blocks.0")[1::2] == ["40", "2"]
    block = state["network.blocks.1.mlp.weight"]
    rms = float(block.square().mean().sqrt())
    assert lines_of(shown, "network.blocks.1") == ["network.blocks.1", "32", f"{rms:.4g}", "0"]
    assert "weights and buffers: 85 numbers" in shown


def test_inspect_says_when_nothing_can_be_resumed_and_nothing_is_recorded(second):
    shown = run("inspect", second(identity=None, progress=Progress()))[1]
    assert "cannot be resumed" in shown and "not recorded" in shown and "not validated" in shown


@pytest.mark.parametrize("command", ["inspect", "diff"])
def test_a_damaged_file_is_an_error_not_a_traceback(first, command):
    content = bytearray(first.read_bytes())
    content[len(content) // 2 :] = b""
    first.write_bytes(content)
    code, shown = run(command, *[first] * (1 if command == "inspect" else 2))
    assert code == 1
    assert shown.startswith("error: checkpoint:") and "a.ckpt cannot be read" in shown


# ---- diff


def test_diff_of_equal_forecasters_says_so(first, second):
    code, shown = run("diff", first, second(training=training_state()))
    assert code == 0 and shown.splitlines()[-1] == "the same forecaster"


def test_diff_shows_each_kind_of_difference(first, second):
    base = made_up()
    other = second(
        config=base.config.model_copy(update={"depth": 3}),
        identity=identity(variables=("u", "v", "temp", "so2", "pm10")),
        progress=Progress(step=90, epoch=1, val_loss=0.125),
        arrays={**base.arrays, "domain.lat": base.arrays["domain.lat"] + [0, 0, 0, 1]},
        extra={**base.extra, "variance": np.array([0.5, 3.0])},
        parent=read_checkpoint(first).sha256,
    )
    code, shown = run("diff", first, other)
    assert code == 0 and "B was trained from A" in shown
    assert "trained with\n  settings  not recorded | not recorded" in shown
    wanted = (
        *("depth  2 | 3", "validation loss 0.25 | step 90", "another order", "1 of 4 values"),
        *("variance  differs", "names and shapes of weights: the same"),
    )
    assert [text for text in wanted if text not in shown] == []
    assert "domain.mask" not in shown and "width" not in shown and "chosen" not in shown


def test_diff_of_settings(tmp_path):
    paths = [tmp_path / name for name in "abc"]
    for path, rate in zip(paths, (1e-3, 2e-3, None), strict=True):
        settings = rate and {"learning_rate": rate, "rates": {"blocks": 0.5}, "seed": 3}
        write_checkpoint(path, made_up(trained_with=settings))
    shown = run("diff", paths[0], paths[1])[1]
    assert "trained with\n  learning_rate  0.001 | 0.002\n" in shown
    assert "rates.blocks" in run("inspect", paths[0])[1] and "seed  " not in shown
    assert "settings  recorded | not recorded" in run("diff", paths[0], paths[2])[1]


def test_a_value_that_is_missing_in_both_does_not_count_as_different():
    lat = np.array([np.nan, 1.0, 2.0, np.nan])
    other = np.array([np.nan, 1.0, 3.0, np.nan])
    assert _arrays_changed({"lat": lat}, {"lat": other}) == {"lat": "1 of 4 values differ"}
    assert _arrays_changed({"lat": lat}, {"lat": lat.copy()}) == {}


def test_diff_gives_the_relative_change_of_each_group(first, second):
    state = weights()
    state["network.blocks.1.mlp.weight"] = state["network.blocks.1.mlp.weight"] * 1.5
    shown = run("diff", first, second(state=state))[1]
    largest = f"{float(state['network.blocks.1.mlp.weight'].abs().max()) / 3:.4g}"
    assert lines_of(shown, "network.blocks.1") == ["network.blocks.1", "32", "0.5", largest]
    assert lines_of(shown, "network.blocks.0")[2:] == ["0", "0"]
    assert "configuration: the same" in shown


def test_diff_lists_names_that_only_one_has(first, second):
    state = weights()
    state["network.head.weight"] = state.pop("network.tokens.weight")
    state["network.blocks.1.mlp.weight"] = torch.ones(8, 5)
    shown = run("diff", first, second(state=state))[1]
    assert "(3, 4) | (not there)" in shown and "(not there) | (3, 4)" in shown
    assert "(8, 4) | (8, 5)" in shown


def test_the_change_of_a_group_against_the_definition():
    a, b = weights(0), weights(1)
    a["zero.w"], b["zero.w"] = torch.zeros(2), torch.ones(2)
    found = {change.group: change for change in group_changes(a, b)}
    names = ["network.blocks.0.mlp.weight", "network.blocks.0.mlp.bias"]
    x, y = (torch.cat([s[n].double().flatten() for n in names]) for s in (a, b))
    block = found["network.blocks.0"]
    assert block.relative == pytest.approx(float((y - x).norm() / x.norm()), rel=1e-12)
    assert block.largest == float((y - x).abs().max())
    assert found["zero"].relative == float("inf")
    assert found["network.decode"].numbers == 0 and found["network.decode"].relative == 0
