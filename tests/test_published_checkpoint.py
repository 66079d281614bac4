"""`aqnet checkpoint import`: report, checkpoint, errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from published_case import filled

from aqnet.cli.checkpoint import checkpoint
from aqnet.data.normalisation import REFERENCE_CONSTANTS
from aqnet.model.attention import ModelError
from aqnet.model.published import PUBLISHED_INPUTS, expected_shapes, published_config
from aqnet.model.published_import import import_state
from aqnet.training.checkpoint import load_checkpoint, read_checkpoint
from aqnet.training.checkpoint_report import describe_checkpoint
from aqnet.training.published_checkpoint import published_domain, save_imported
from aqnet.variables import TARGETS


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A checkpoint of Lightning at the published size; the zeros take no room on the disk."""
    shapes = expected_shapes("published", published_config("published"), (128, 256))
    state = {f"model.{n}": torch.zeros(()).expand(shape) for n, shape in shapes.items()}
    path = tmp_path_factory.mktemp("published") / "last.ckpt"
    torch.save({"state_dict": state | {"china_mask": torch.ones(128, 256)}}, path)
    return path


def run(*arguments):
    return CliRunner().invoke(checkpoint, ["import", *map(str, arguments)])


def test_the_report_says_what_was_used(path):
    found = run(path)
    assert found.exception is None
    assert "layout published: 95 tensors, 52,491,069 parameters used" in found.output
    assert "no weights, not needed: china_mask" in found.output
    lines = [line.split() for line in found.output.splitlines() if "->" in line]
    assert ["model.head.4.weight", "->", "decode.out.weight"] in lines
    assert len({ours for _, _, ours in lines}) == 95
    assert list(path.parent.iterdir()) == [path]  # a report only


def test_the_wrong_layout_is_an_error_that_names_the_options(path):
    found = run(path, "--layout", "earlier")
    assert isinstance(found.exception, ModelError)
    for expected in ("patch_embed.norm.weight", "bias_table", "--allow-unused", "--layout"):
        assert expected in str(found.exception)


def test_named_exceptions_are_taken_and_reported(path, tmp_path):
    content = torch.load(path, weights_only=True)
    alpha = content["state_dict"].pop("model.blocks.0.attn.alpha")
    torch.save(content["state_dict"] | {"model.memory": alpha}, tmp_path / "other.pt")
    refused = run(tmp_path / "other.pt")
    assert "missing (1): blocks.0.attn.alpha; unknown (1): model.memory" in str(refused.exception)
    found = run(tmp_path / "other.pt", "--allow-missing", "blocks.0.attn.alpha",
                "--allow-unused", "model.memory")  # fmt: skip
    assert found.exception is None
    assert "not used, as allowed: model.memory" in found.output
    assert "missing, as allowed: blocks.0.attn.alpha" in found.output


def test_a_checkpoint_is_complete(tmp_path):
    """A narrow network at the published grid; the forecast comes from the file alone."""
    sizes = {"width": 16, "depth": 2, "heads": 2}
    imported = import_state(filled(**sizes).state_dict(), **sizes)
    source, output = tmp_path / "source.pt", tmp_path / "imported.ckpt"
    source.write_bytes(b"any")
    digest = save_imported(imported, source, output)
    read, loaded = read_checkpoint(output), load_checkpoint(output)
    assert read.sha256 == digest
    assert read.identity is None
    assert any("source.pt" in note for note in read.notes)
    assert "none: not trained here, see the notes" in describe_checkpoint(output)
    assert loaded.model.channels == PUBLISHED_INPUTS
    for name, value in imported.state.items():
        assert torch.equal(loaded.model.network.state_dict()[name], value)
    mean, spread = np.array([REFERENCE_CONSTANTS[name] for name in TARGETS]).T
    zero = torch.zeros(1, 1, len(TARGETS), 128, 256)
    physical = loaded.model.prepare.physical(torch.stack([zero, zero + 1])[:, 0])
    inside = loaded.model.domain.mask
    np.testing.assert_allclose(physical[0, 0][:, inside].mean(1), mean, rtol=1e-5)
    np.testing.assert_allclose(physical[1, 0][:, inside].mean(1), mean + spread, rtol=1e-5)


def test_the_domain_is_the_published_one():
    domain = published_domain()
    assert domain.grid.shape == (128, 256)
    assert domain.grid.lat[0] > domain.grid.lat[-1]  # row 0 in the north
    covered = domain.grid.lat > 15  # what ships of the terrain
    assert not domain.mask[~covered].any()
    assert (domain.elevation[~covered] == 0).all()
