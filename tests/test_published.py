"""Published checkpoints: the oracle, what is read and refused, equal forecasts."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from published_case import EARLIER, REDUCED, earlier_names, fields, filled

from aqnet.grid import Grid
from aqnet.model.attention import ModelError
from aqnet.model.domain import Domain
from aqnet.model.network import FieldTransformer
from aqnet.model.published import (
    LAYOUTS,
    PUBLISHED_INPUTS,
    expected_shapes,
    published_config,
)
from aqnet.model.published_form import PublishedForm
from aqnet.model.published_import import Imported, fill_network, import_state, read_state
from aqnet.variables import STATIC, TARGETS

PARAMETERS = {"published": 52_491_069, "earlier": 52_481_341}
SIZES = {name: REDUCED[name] for name in ("width", "depth", "heads")}
SHAPE = REDUCED["shape"]
OUT = [PUBLISHED_INPUTS.index(name) for name in TARGETS]


def options(layout: str) -> dict:
    return EARLIER if layout == "earlier" else {}


def reduced(layout: str, alpha: float = 2.0) -> tuple[PublishedForm, dict[str, torch.Tensor]]:
    """A small published form, and its state as a file of the layout holds it."""
    form = filled(alpha, **REDUCED, **options(layout))
    state = form.state_dict()
    return form, earlier_names(state) if layout == "earlier" else dict(state)


def imported(state: dict[str, torch.Tensor], **changes):
    return import_state(state, shape=SHAPE, **SIZES, **changes)


def frozen() -> dict[str, np.ndarray]:
    """Outputs of the published code itself, made with `published_case`, alpha 4000."""
    with np.load(Path(__file__).with_name("published_outputs.npz")) as file:
        return dict(file)


# ---- the oracle


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_form_and_the_table_have_the_published_tensors(layout):
    form = filled(**REDUCED, **options(layout))
    shapes = {name: tuple(p.shape) for name, p in form.named_parameters()}
    assert expected_shapes(layout, published_config(layout, **SIZES), SHAPE) == shapes
    full = expected_shapes(layout, published_config(layout), (128, 256))
    assert sum(map(math.prod, full.values())) == PARAMETERS[layout]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_form_gives_what_the_published_code_gave(layout):
    form, _ = reduced(layout, alpha=4000.0)
    found = form(fields(SHAPE), torch.tensor([36.0]))[:, OUT].numpy()
    assert found.std() > 0.2
    np.testing.assert_allclose(found, frozen()[layout], atol=1e-5)


@pytest.mark.parametrize("name", ["alpha", "bias_table", "patch_embed.norm.bias"])
def test_the_frozen_outputs_depend_on_what_is_special(name):
    """Each of these changes them by far more than the tolerance, so none can be left out."""
    form, _ = reduced("published", alpha=4000.0)
    parameter = next(p for n, p in form.named_parameters() if n.endswith(name))
    parameter.zero_()
    found = form(fields(SHAPE), torch.tensor([36.0]))[:, OUT].numpy()
    assert np.abs(found - frozen()["published"]).max() > 1e-3


# ---- what is read


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_tensor_has_one_place(layout):
    _, state = reduced(layout)
    found = imported(state)
    assert found.layout == layout
    used = [name for name, _ in found.used]
    assert sorted([*used, *found.buffers]) == sorted(state)
    assert not (found.unused or found.missing or found.fresh)
    form = filled(**REDUCED, **options(layout))
    assert found.parameters == sum(p.numel() for p in form.parameters())
    # The names of variables enter the bias without a norm; each head has its own strength.
    merged = 0 if layout == "published" else len(PUBLISHED_INPUTS) * SIZES["width"]
    numbers = sum(value.numel() for value in found.state.values())
    assert numbers == found.parameters - merged + SIZES["heads"] - 1


@pytest.mark.parametrize("prefix", ["", "model.", "model.climax.", "climax."])
def test_prefixes_do_not_matter(prefix):
    _, state = reduced("published")
    found = imported({f"{prefix}{name}": value for name, value in state.items()})
    plain = imported(state)
    assert all(torch.equal(found.state[n], plain.state[n]) for n in plain.state)


@pytest.mark.parametrize(
    ("own", "other"),
    [("mlp.0.", "mlp.fc1."), ("mlp.2.", "mlp.fc2."), ("mlp.2.", "mlp.3."), ("head.4", "head_fc3")],
)
def test_other_names_of_the_earlier_code(own, other):
    _, state = reduced("earlier")
    renamed = {name.replace(own, other): value for name, value in state.items()}
    found, plain = imported(renamed), imported(state)
    assert renamed.keys() != state.keys()
    assert all(torch.equal(found.state[n], plain.state[n]) for n in plain.state)


# ---- what is refused


@settings(max_examples=20, deadline=None)
@given(data=st.data(), layout=st.sampled_from(LAYOUTS))
def test_a_missing_unknown_or_misshapen_tensor_is_an_error(data, layout):
    _, state = reduced(layout)
    buffers = imported(state).buffers
    name = data.draw(st.sampled_from(sorted(set(state) - set(buffers))))
    value = state.pop(name)
    with pytest.raises(ModelError, match="missing"):
        imported(state)
    with pytest.raises(ModelError, match=r"unknown \(1\): elsewhere"):
        imported(state | {name: value, "elsewhere": value})
    with pytest.raises(ModelError, match="another shape"):
        imported(state | {name: torch.zeros(*value.shape, 2)})
    with pytest.raises(ModelError, match="not finite"):
        imported(state | {name: torch.full_like(value, torch.nan)})


def test_what_may_be_missing_or_unused_must_be_named_and_be_so():
    _, state = reduced("earlier")
    alpha = state.pop("model.climax.blocks.0.attn.elevation_alpha")
    state["model.memory.weight"] = alpha
    allowed = {"allow_missing": ["blocks.0.attn.elevation_alpha"],
               "allow_unused": ["model.memory.weight"]}  # fmt: skip
    found = imported(state, **allowed)
    assert found.missing == ("blocks.0.attn.alpha",)
    assert found.unused == ("model.memory.weight",)
    raw = found.state["blocks.0.attention.core.elevation.alpha.raw"]
    assert (torch.nn.functional.softplus(raw) < 1e-5).all()  # no elevation: no bias
    with pytest.raises(ModelError, match="allowed to be missing, but there"):
        imported(state, **(allowed | {"allow_missing": ["blocks.0.attn.alpha", "norm.bias"]}))
    with pytest.raises(ModelError, match="allowed to be unused, but used"):
        imported(state, **(allowed | {"allow_unused": ["model.memory.weight", "typing error"]}))


def test_a_missing_layer_that_is_allowed_starts_anew():
    _, state = reduced("published")
    del state["head.4.weight"]
    found = imported(state, allow_missing=["head.4.weight"])
    assert len(found.fresh) == 1
    assert found.fresh[0] not in found.state


@pytest.mark.parametrize(
    ("name", "value"),
    [("model.climax.blocks.0.attn.H_scale", torch.tensor(1.0)),
     ("model.target_indices", torch.tensor([0, 1, 2, 3, 4, 5]))],
)  # fmt: skip
def test_buffers_of_another_model_are_refused(name, value):
    _, state = reduced("earlier")
    with pytest.raises(ModelError, match=r"(?s)another model.*" + name.split(".")[-1]):
        imported(state | {name: value})


def test_two_names_of_one_tensor_are_refused():
    _, state = reduced("published")
    with pytest.raises(ModelError, match="two tensors"):
        imported(state | {"model.norm.bias": state["norm.bias"]})


def test_another_layout_or_grid_is_refused():
    _, state = reduced("published")
    with pytest.raises(ModelError, match="neither the published layout nor the earlier"):
        imported({"backbone.weight": torch.zeros(1)})
    with pytest.raises(ModelError, match=r"(?s)another shape than.*pos_embed"):
        import_state(state, shape=(32, 32), **SIZES)
    with pytest.raises(ModelError, match="no layout"):
        imported(state, layout="newest")
    with pytest.raises(ModelError, match="unknown"):
        imported(state, layout="earlier")


# ---- files


class Recorded:
    """Something that only code can restore."""


def test_a_state_dict_and_a_lightning_checkpoint_are_read(tmp_path):
    _, state = reduced("published")
    torch.save(state, tmp_path / "state.pt")
    torch.save({"epoch": 3, "state_dict": state, "callbacks": {"last": 1.0}}, tmp_path / "l.ckpt")
    for path in tmp_path.iterdir():
        found = read_state(path)
        assert all(torch.equal(found[n], state[n]) for n in state)


def test_a_file_with_objects_is_not_unpickled(tmp_path):
    path = tmp_path / "objects.ckpt"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "module": Recorded()}, path)
    with pytest.raises(ModelError, match=r"(?s)more than tensors.*Recorded.*weights alone"):
        read_state(path)


def test_damaged_and_foreign_files(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        read_state(tmp_path / "none.ckpt")
    _, state = reduced("published")
    path = tmp_path / "state.pt"
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ModelError, match="cannot be read"):
        read_state(path)
    path.write_text("val_loss 0.3557")
    with pytest.raises(ModelError, match=r"objects\.|cannot be read|more than tensors"):
        read_state(path)
    torch.save({"epoch": 3}, path)
    with pytest.raises(ModelError, match="no state dict"):
        read_state(path)


# ---- equal forecasts


def network_of(found: Imported, shape: tuple[int, int]) -> FieldTransformer:
    grid = Grid("test", 50 - 0.3 * np.arange(shape[0]), 80 + 0.2 * np.arange(shape[1]))
    domain = Domain(grid, np.ones(shape, bool), np.zeros((len(STATIC), *shape)))
    network = FieldTransformer(found.config, PUBLISHED_INPUTS, domain)
    fill_network(network, found)
    return network.eval().requires_grad_(False)


def forecast(network: FieldTransformer, x: torch.Tensor, lead_time_h: torch.Tensor):
    nothing = torch.zeros(len(x), 1, 6)
    return network(x, torch.zeros(len(x), 2, *x.shape[2:]), nothing, lead_time_h)[:, 0]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("alpha", [-1.0, 0.0, 2.0, 500.0, 4000.0])  # nat per 1000 units
def test_the_imported_network_forecasts_as_published(layout, alpha):
    form, state = reduced(layout, alpha)
    x, hours = fields(SHAPE, samples=2), torch.tensor([12.0, 96.0])
    found = forecast(network_of(imported(state), SHAPE), x, hours)
    torch.testing.assert_close(found, form(x, hours)[:, OUT], atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(256, 4), (4, 256)])
def test_every_offset_of_the_relative_position_is_as_published(shape):
    """128 patches down or across: each bucket of that direction, on both sides."""
    form = filled(shape=shape, **SIZES)
    network = network_of(import_state(form.state_dict(), shape=shape, **SIZES), shape)
    x, hours = fields(shape), torch.tensor([24.0])
    found = forecast(network, x, hours)
    torch.testing.assert_close(found, form(x, hours)[:, OUT], atol=1e-5, rtol=0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_imported_network_gives_the_frozen_outputs(layout):
    _, state = reduced(layout, alpha=4000.0)
    found = forecast(network_of(imported(state), SHAPE), fields(SHAPE), torch.tensor([36.0]))
    np.testing.assert_allclose(found.numpy(), frozen()[layout], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_parity_at_the_published_size(layout):
    """1 to 2 minutes and 6 GB each; cells are every 37th row and 41st column."""
    form = filled(4000.0, **options(layout))
    state = form.state_dict()
    found = import_state(earlier_names(state) if layout == "earlier" else state)
    assert found.parameters == PARAMETERS[layout]
    network = network_of(found, (128, 256))
    x, hours = fields((128, 256)), torch.tensor([96.0])
    ours, theirs = forecast(network, x, hours), form(x, hours)[:, OUT]
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    known = frozen()[f"full_{layout}"]
    np.testing.assert_allclose(ours[:, :, 5::37, 3::41].numpy(), known, atol=3e-5)
