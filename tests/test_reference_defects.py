"""What went wrong in the published system, and the test that fails if it comes back."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from aqnet.training.experiment import EXPERIMENT_PRESETS

HERE = Path(__file__).parent

# Defect: tests of this folder, as file::name without "test_" and ".py".
GUARDED = {
    # ---- met on the way, as its authors noted
    "orders are built, and ranks wait for each other, in the forward pass": (
        "structure::the_model_knows_no_ranks",
        "scan_cache::64_processes_load_while_another_rebuilds",
    ),
    "equal caches have different digests": ("scan_cache::equal_orders_give_equal_bytes",),
    "statistics are not those of the training": (
        "checkpoint_models::arrays_other_than_those_of_the_training_are_refused",
        "checkpoint_identity::other_data_are_refused_with_the_difference_in_words",
    ),
    "variables are in another order than in the training": (
        "checkpoint_models::other_variables_than_those_of_the_training_are_refused",
    ),
    "weights that do not fit are loaded in part": (
        "checkpoint_models::weights_that_do_not_fit_exactly_are_refused",
    ),
    "attention takes z-scores for metres and m/s": (
        "grid_forecaster::attention_is_given_metres_m_s_and_hours",
        "grid_forecaster::the_elevation_barrier_is_nats_of_those_metres",
        "biases::metres_are_meant",
    ),
    "a mask multiplies after the softmax": (
        "physics_attention::outputs_and_all_gradients_are_those_of_the_oracle",
    ),
    "tokens are permuted, and elevation, position or output are not": (
        "network_order::any_order_gives_the_same_where_nothing_depends_on_it",
        "network_order::any_order_gives_the_same_gradients",
    ),
    "a fine-tune begins with a term that its parent did not have": ("parent::refused",),
    "the optimiser's state is of other parameters": (
        "resume::the_state_of_an_optimiser_with_another_order_of_parameters_is_refused",
    ),
    "collectives wait for another time than was set": (
        "launched::collectives_have_the_timeout_of_the_settings",
    ),
    "a loader without workers is given what only workers take": ("train_forecasters::fields",),
    "lead times that cannot be are accepted": (
        "batches::bad_lead_times_are_refused",
        "model_config::what_does_not_fit_is_refused_by_name",
    ),
    "an axis of length 1 is squeezed": (
        "aggregation::the_same_output_and_gradients_as_the_textbook",
    ),
    "core dumps and environments are committed": ("packaging::top_level_holds_nothing_else",),
    "N x N tensors do not fit into memory": (
        "aggregation::no_tensor_of_all_tokens_is_kept",
        "cost::a_block_keeps_the_tensors_that_are_stated",
    ),
    "jobs on 400 GPUs fail on a path": (
        "preflight::a_sound_job_passes",
        "preflight::a_cache_that_is_missing_is_refused_with_its_command",
    ),
    # ---- found by reading and running it
    "the default configuration cannot run": ("network::presets_forecast",),
    "southerly winds are taken for northerly ones": (
        "scan_orders::west_and_south_winds_on_both_orientations",
    ),
    "sectors are biased by half their width": (
        "scan_orders::the_nearest_sector_is_within_half_a_sector",
    ),
    "the direction of the wind is that of z-scores": (
        "grid_forecaster::attention_is_given_metres_m_s_and_hours",
    ),
    "the sign of the elevation bias is not that of its text": (
        "biases::the_elevation_barrier_is_its_formula",
        "grid_forecaster::the_elevation_barrier_is_nats_of_those_metres",
    ),
    "a ridge between two basins is no barrier": ("ridge::two_basins_behind_a_ridge",),
    "strengths decay, or change their sign": (
        "physics_attention::strengths_stay_positive_whatever_the_optimiser_does",
        "optimisation::strengths_of_every_bias_are_found",
    ),
    "relative positions are stretched, or cut off on other grids": (
        "published::every_offset_of_the_relative_position_is_as_published",
    ),
    "gaps poison loss and scores": (
        "loss::unknown_targets_change_neither_loss_nor_gradient",
        "loss::judging_is_the_formula_whatever_the_batches",
    ),
    "one lead time a pass where four are promised": ("network::lead_times_belong_to_their_mode",),
    "lead times in raw hours differ in size": (
        "layers::every_hour_has_its_own_features_of_like_size",
    ),
    "a missing variable or store is skipped silently": (
        "grid_forecaster::a_missing_input_is_an_error_unless_it_is_optional",
        "domain::domains_that_do_not_fit_are_refused",
        "years::a_lost_array_is_found_when_opening",
    ),
    "outputs and weights that nothing trains": ("network::every_weight_is_used",),
    "dropout and drop path are switched off by mistake": (
        "layers::drop_path_leaves_out_parts_of_a_block_for_whole_samples",
        "layers::dropout_leaves_out_single_features_of_a_block",
    ),
    "internals of another package are imported": (
        "structure::package_imports_without_development_and_notebook_tools",
    ),
    "an exception turns the wind scan off": ("scan_cache::a_file_for_something_else_is_refused",),
    "a loss that is not finite becomes 0, and the best": (
        "loop::a_validation_loss_that_is_not_finite_ends_the_run",
        "loop::a_step_that_is_not_finite_is_skipped_and_named",
    ),
    "each process has statistics of its own": ("statistics::training_opens_recorded_data_alone",),
    "checkpoints are deleted by their names": (
        "loop::the_best_three_the_link_and_the_last_are_kept",
        "folder::best_checkpoints_go_when_no_checkpoint_to_resume_from_names_them",
    ),
    "blocks learn at a tenth of the rate": ("reference_defects::no_preset_slows_a_group_down",),
    "a number is fetched from the device in each step": (
        "loop::a_step_fetches_one_vector",
    ),
    "a switch of the physics reaches no block": (
        "network::the_named_blocks_and_no_others_have_physics",
    ),
    "no baseline is scored": ("forecast_plan::rules",),
}


@cache
def functions_of(file: str) -> set[str]:
    tree = ast.parse((HERE / f"test_{file}.py").read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("defect", GUARDED)
def test_a_test_guards_against(defect):
    for file, name in (guard.split("::") for guard in GUARDED[defect]):
        assert f"test_{name}" in functions_of(file)


@pytest.mark.parametrize("name", sorted(EXPERIMENT_PRESETS))
def test_no_preset_slows_a_group_down(name):
    training = EXPERIMENT_PRESETS[name].training
    assert min([1.0, *training.rates.values()]) == 1.0
    lowest = training.layer_decay ** (EXPERIMENT_PRESETS[name].model.depth - 1)
    assert lowest > 0.5  # of the block next to the input; the last one has the full rate
