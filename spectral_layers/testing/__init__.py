"""The conformance kit for layer parts, for us and for plugins' authors. Needs no test framework.

A plugin's author runs it on their own part, here a gate, and on every mixer with it::

    import pytest
    from spectral_layers.testing import GATE_CHECKS, MIXER_CHECKS, gate_cases, mixer_cases, pairs

    @pytest.mark.parametrize(
        ("check", "case"),
        [*pairs(GATE_CHECKS, gate_cases("acme/*")), *pairs(MIXER_CHECKS, mixer_cases("acme/*"))],
        ids=str,
    )
    def test_conformance(check, case):
        check(case)

A part with options of its own: ``check(MixerCase(AcmeConfig(order=2), causal=True))``.
"""

from spectral_layers.testing import (
    batches,
    building,
    causality,
    feedforwards,
    filters,
    frontends,
    fusion_states,
    fusions,
    gates,
    operators,
    outputs,
    positions,
    sparsities,
    streaming,
    weights,
)
from spectral_layers.testing.cases import (
    FeedForwardCase,
    FilterCase,
    FrontEndCase,
    FusionCase,
    GateCase,
    MixerCase,
    PositionCase,
    SparsityCase,
)
from spectral_layers.testing.check import Check, pairs
from spectral_layers.testing.gates import spectral_view
from spectral_layers.testing.registered import (
    feedforward_cases,
    filter_cases,
    frontend_cases,
    fusion_cases,
    gate_cases,
    mixer_cases,
    position_cases,
    sparsity_cases,
)

MIXER_CHECKS: tuple[Check[MixerCase], ...] = (
    building.check_it_builds_on_meta,
    building.check_keywords_make_the_same_part,
    weights.check_it_survives_meta_and_casts,
    weights.check_weights_are_read_in_their_modules_call,
    weights.check_nothing_is_remembered_of_the_weights,
    outputs.check_shapes_and_dtypes,
    causality.check_no_output_sees_a_later_token,
    causality.check_no_token_sees_the_next,
    causality.check_no_setting_sees_a_later_token,
    causality.check_the_jacobian_is_lower_triangular,
    outputs.check_a_prefix_gives_the_prefix_of_the_output,
    batches.check_rows_do_not_mix,
    batches.check_right_padding_changes_nothing,
    batches.check_left_padding_through_alignment,
    batches.check_an_empty_batch,
    batches.check_packed_documents_stay_apart,
    outputs.check_packed_documents_are_refused,
    streaming.check_chunks_equal_the_full_pass,
    streaming.check_one_token_after_any_prefill,
    streaming.check_rows_continue_from_where_each_ended,
    batches.check_padding_stays_out_of_the_state,
    streaming.check_a_state_is_continued_once_and_by_its_owner,
    streaming.check_clones_and_selections_stand_alone,
    streaming.check_a_saved_state_continues,
    streaming.check_rewinding,
    outputs.check_a_mixer_without_a_state_refuses_one,
    outputs.check_gradients_at_any_scale,
    outputs.check_autocast_to_bfloat16,
    operators.check_a_mixer_transforms_through_its_backend,
    outputs.check_inputs_that_do_not_fit_are_refused,
    outputs.check_the_length_limit_is_kept,
    outputs.check_the_length_limit_is_kept_across_calls,
)
"""Every promise of a mixer, in the order in which to mend them."""

FILTER_CHECKS: tuple[Check[FilterCase], ...] = (
    building.check_it_builds_on_meta,
    building.check_keywords_make_the_same_part,
    weights.check_it_survives_meta_and_casts,
    weights.check_weights_are_read_in_their_modules_call,
    weights.check_nothing_is_remembered_of_the_weights,
    filters.check_a_tap_depends_on_its_lag_alone,
    filters.check_taps_beyond_the_support_are_zero,
    filters.check_the_kernel_reaches_the_limit,
    filters.check_autocast_leaves_the_kernel_alone,
    filters.check_every_parameter_of_a_filter_learns,
    operators.check_a_filter_transforms_through_its_backend,
    filters.check_recurrence_equals_convolution,
    filters.check_float32_recurrence_keeps_up,
)
"""Every promise of a filter."""

GATE_CHECKS: tuple[Check[GateCase], ...] = (
    building.check_it_builds_on_meta,
    building.check_keywords_make_the_same_part,
    weights.check_it_survives_meta_and_casts,
    weights.check_weights_are_read_in_their_modules_call,
    weights.check_nothing_is_remembered_of_the_weights,
    gates.check_fields_fit_any_span,
    gates.check_gain_is_not_negative,
    gates.check_samples_do_not_mix,
    gates.check_gradients_of_a_gate_at_any_scale,
    gates.check_losses_of_a_gate_are_scalars,
)
"""Every promise of a gate."""

SPARSITY_CHECKS: tuple[Check[SparsityCase], ...] = (
    building.check_it_builds_on_meta,
    building.check_keywords_make_the_same_part,
    weights.check_it_survives_meta_and_casts,
    weights.check_weights_are_read_in_their_modules_call,
    weights.check_nothing_is_remembered_of_the_weights,
    gates.check_fields_fit_any_span,
    sparsities.check_each_bin_passes_or_does_not,
    sparsities.check_something_passes,
    gates.check_samples_do_not_mix,
    gates.check_gradients_of_a_gate_at_any_scale,
    sparsities.check_training_reaches_the_scores,
    sparsities.check_evaluation_draws_nothing,
    gates.check_losses_of_a_gate_are_scalars,
    sparsities.check_metrics_are_those_of_the_gain,
    sparsities.check_memory_is_linear_in_bins,
)
"""Every promise of a sparsity."""

FUSION_CHECKS: tuple[Check[FusionCase], ...] = (
    building.check_it_builds_on_meta,
    building.check_keywords_make_the_same_part,
    weights.check_it_survives_meta_and_casts,
    weights.check_weights_are_read_in_their_modules_call,
    weights.check_nothing_is_remembered_of_the_weights,
    fusions.check_the_output_is_on_the_target,
    fusions.check_every_token_of_every_stream_is_heard,
    fusions.check_a_causal_target_sees_no_later_token,
    fusions.check_a_causal_target_is_refused,
    fusions.check_rows_of_a_fusion_do_not_mix,
    fusions.check_padding_of_any_stream_changes_nothing,
    fusions.check_any_stream_may_be_absent,
    fusions.check_unknown_streams_are_refused,
    fusions.check_streams_that_do_not_fit_are_refused,
    fusions.check_gradients_of_a_fusion_at_any_scale,
    fusions.check_a_fusion_under_autocast,
    operators.check_a_fusion_transforms_through_its_backend,
    fusions.check_an_empty_batch_is_fused,
    fusion_states.check_a_target_in_chunks_equals_the_full_pass,
    fusion_states.check_rows_of_a_target_continue_from_where_each_ended,
    fusion_states.check_a_fusion_s_state_is_its_own,
    fusion_states.check_a_fusion_without_a_state_refuses_one,
)
"""Every promise of a fusion."""

FEEDFORWARD_CHECKS: tuple[Check[FeedForwardCase], ...] = (
    building.check_it_builds_on_meta,
    building.check_keywords_make_the_same_part,
    weights.check_it_survives_meta_and_casts,
    weights.check_weights_are_read_in_their_modules_call,
    weights.check_nothing_is_remembered_of_the_weights,
    feedforwards.check_tokens_do_not_mix,
    feedforwards.check_gradients_of_a_feedforward_at_any_scale,
    feedforwards.check_a_feedforward_keeps_dtypes,
    feedforwards.check_a_divisible_feedforward_may_be_given_parts,
    feedforwards.check_losses_of_a_feedforward_ignore_padding,
    feedforwards.check_losses_of_a_feedforward_teach,
)
"""Every promise of a feed-forward."""

POSITION_CHECKS: tuple[Check[PositionCase], ...] = (
    building.check_it_builds_on_meta,
    building.check_keywords_make_the_same_part,
    weights.check_it_survives_meta_and_casts,
    weights.check_weights_are_read_in_their_modules_call,
    weights.check_nothing_is_remembered_of_the_weights,
    positions.check_a_position_keeps_shapes_and_dtypes,
    positions.check_a_place_is_an_absolute_index,
    positions.check_places_of_tokens_do_not_mix,
    positions.check_rotations_keep_lengths,
    positions.check_far_positions_are_exact,
    positions.check_the_limit_of_a_position_is_kept,
    positions.check_every_parameter_of_a_position_learns,
)
"""Every promise of a position."""

FRONTEND_CHECKS: tuple[Check[FrontEndCase], ...] = (
    building.check_it_builds_on_meta,
    building.check_keywords_make_the_same_part,
    weights.check_it_survives_meta_and_casts,
    weights.check_weights_are_read_in_their_modules_call,
    weights.check_nothing_is_remembered_of_the_weights,
    frontends.check_features_fit_their_rows_and_grid,
    frontends.check_inputs_do_not_mix,
    frontends.check_padding_of_inputs_changes_nothing,
    frontends.check_extreme_inputs_do_not_vanish,
    frontends.check_gradients_of_a_front_end,
    frontends.check_a_front_end_under_autocast,
    frontends.check_inputs_of_another_kind_are_refused,
)
"""Every promise of a front end."""

__all__ = [
    "FEEDFORWARD_CHECKS",
    "FILTER_CHECKS",
    "FRONTEND_CHECKS",
    "FUSION_CHECKS",
    "GATE_CHECKS",
    "MIXER_CHECKS",
    "POSITION_CHECKS",
    "SPARSITY_CHECKS",
    "Check",
    "FeedForwardCase",
    "FilterCase",
    "FrontEndCase",
    "FusionCase",
    "GateCase",
    "MixerCase",
    "PositionCase",
    "SparsityCase",
    "feedforward_cases",
    "filter_cases",
    "frontend_cases",
    "fusion_cases",
    "gate_cases",
    "mixer_cases",
    "pairs",
    "position_cases",
    "sparsity_cases",
    "spectral_view",
]
