"""What a checkpoint was trained on: other data and settings are refused, in words."""

from __future__ import annotations

import pytest
from checkpoints import OTHER, identity, made_up

from aqnet.model.attention import ModelError
from aqnet.model.config import ModelConfig
from aqnet.model.physics_attention import PhysicsConfig
from aqnet.training.checkpoint import check_fits


def fits(**changes) -> str:
    """The refusal of what is here by a checkpoint of `identity()`."""
    with pytest.raises(ModelError) as caught:
        check_fits(made_up(), identity(**changes))
    return str(caught.value)


def test_the_same_data_fit():
    check_fits(made_up(), identity())


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
