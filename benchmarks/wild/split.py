"""What may be looked at and tuned on, and what is kept back: operators by kind, libraries one by one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Literal

from benchmarks.wild.operators import OPERATORS
from benchmarks.wild.operators.operator import Operator

Part = Literal["tuned", "held-out"]
PARTS: tuple[Part, ...] = ("tuned", "held-out")
OPERATORS_BY, LIBRARIES_BY = 15, 0  # the seeds; of the second 0 gives both parts half of the programs, of every trait
# the second set of operators, written when all before it had been looked at; all of it has been since
SECOND = frozenset({
    "accumulated_without_division", "divided_by_accumulation_twice", "zero_grad_in_accumulation",
    "zero_grad_of_part_forgotten", "zero_grad_every_tenth", "schedule_rebuilt_in_step", "clip_before_unscale",
    "critic_clipping_on_model", "held_by_two_optimizers", "gradients_underflow_in_half",
    "weights_rounded_after_step", "copy_never_synchronised", "evaluated_by_slow_average",
    "rate_and_momentum_swapped", "layer_decay_compounded", "sgd_at_rate_of_adam", "loss_overwritten_in_loop",
    "first_output_for_all", "means_compared", "sorted_before_compared", "softmax_on_targets",
    "nll_loss_on_probabilities", "prediction_clamped", "targets_truncated", "loss_on_ignored_alone",
    "targets_divided_in_place", "relu_behind_last_layer", "penalty_of_all_weights", "parameter_not_wrapped",
    "parameter_cast_outside", "weight_read_through_data", "norm_statistics_detached", "checkpoint_of_first_part",
    "list_never_cleared", "running_sum_for_mean", "initialised_in_forward", "clamp_bounds_swapped",
    "keep_rate_for_drop_rate", "statistics_reset_in_step", "layer_of_ones",
    "parameter_left_empty", "norm_epsilon_huge", "mask_after_softmax", "mask_not_handed_to_layer",
    "attention_sees_itself_alone", "attention_dropout_always_on", "scores_multiplied", "attention_weights_detached",
    "maximum_over_batch", "standardised_over_batch", "positions_along_batch", "unit_length_over_batch",
    "shuffled_in_place", "mixed_without_targets", "normalised_in_training_alone", "inputs_truncated",
    "timestamp_among_features",
})  # fmt: skip
# the third set, written when the second and all before it had been looked at; all of it has been since
THIRD = frozenset({
    "stepped_after_every_part", "iterator_advanced_twice", "overflowing_scale_never_lowered", "unscaled_twice",
    "climb_not_taken_back", "gradient_mask_inverted", "warm_up_in_whole_numbers", "second_moment_underflows",
    "average_without_buffers", "traced_before_training", "no_decay_group_without_rate", "trust_ratio_of_zero",
    "decayed_without_rate", "log_of_uncertainty_forgotten", "absolute_value_forgotten", "term_of_another_repeated",
    "normaliser_detached", "border_not_compared", "median_for_mean", "weights_fall_with_row",
    "large_losses_clamped", "loss_divided_by_itself", "outputs_averaged_into_targets", "logits_of_unit_length",
    "softmax_in_evaluation", "classes_in_another_order_in_evaluation", "teacher_never_loaded",
    "constant_left_out_of_backward", "backward_ignores_incoming", "rectified_through_data", "nan_gradients_zeroed",
    "sampled_without_reparameterising", "state_carried_over", "part_copied_in_forward",
    "adapter_zero_on_both_sides", "adapter_merged_in_every_call", "gains_start_at_zero", "embedding_rows_equal",
    "norms_in_bfloat16", "running_statistics_swapped", "softmax_between_layers", "part_skipped_in_evaluation",
    "keys_for_values", "first_head_for_all", "token_shift_along_batch", "tokens_hidden_at_random",
    "mask_forgotten_in_evaluation", "second_input_all_zero", "last_step_not_read", "masked_in_place",
    "put_back_by_same_order",
})  # fmt: skip
# the fifth set, written when the third and all before it had been looked at; all of it has been since
FIFTH = frozenset({
    "own_answer_for_half", "focal_factor_inverted", "tolerance_in_other_unit", "rows_without_number_skipped",
    "end_of_sequence_ignored", "ignored_counted_as_first_class", "masked_sum_divided_by_all", "labels_made_boolean",
    "labels_resized_as_pictures", "stop_gradient_forgotten", "side_output_forgotten",
    "loop_reads_first_input", "state_detached_in_every_step", "state_thrown_away", "state_of_another_sample",
    "positions_all_zero", "choice_without_its_probability", "causal_in_training_alone", "flips_not_taken_back",
    "time_first_by_view", "ids_clamped_to_other_vocabulary", "condition_of_first_for_all",
    "timesteps_between_zero_and_one", "first_channel_for_all", "noise_added_in_place", "first_view_read_twice",
    "messages_overwritten", "edges_without_offset", "large_gradients_skipped", "scheduler_told_the_loss",
    "cosine_stepped_past_its_end", "rate_set_in_first_group", "pruned_anew_in_every_step",
    "stale_gradient_of_frozen_part", "frozen_by_part_of_name", "zero_grad_between_terms",
    "gradients_clamped_above_zero", "weights_of_four_bits_in_evaluation",
})  # fmt: skip
# held-out operators and libraries that somebody had to look into
LOOKED_AT = SECOND | THIRD | FIFTH | frozenset({
    "transformers", "peft", "diffusers", "noise_left_on",
    "segmentation_models_pytorch", "lightly", "snntorch", "stable_baselines3", "torchdiffeq",
    "spikingjelly", "pytorch_tabnet", "axial_attention", "st_moe_pytorch", "entmax",
    # of rows, mode, doubled, order, scale, swapped, mask and optimizer all there were before those in held_back*.py
    "last_row_ignored", "class_ignored", "rows_detached", "inputs_of_first_for_all", "momentum_zero",
    "backward_doubled", "softmax_doubled", "outputs_reversed", "shuffled_in_every_call", "inputs_not_normalised",
    "loss_divided", "logits_cooled", "gradient_reversed", "target_is_another_input", "batch_first_swapped",
    "mask_inverted", "mask_of_another_sample", "causal_mask_forgotten", "causal_mask_transposed", "rate_too_low",
    "decay_huge", "epsilon_huge", "betas_swapped",
    "shuffled_in_place", "list_never_cleared", "normalised_in_training_alone",
    # all that were held out before those in the newest files
    "zero_grad_forgotten", "step_forgotten", "zero_grad_after_backward", "step_before_backward", "loss_rewrapped",
    "warm_up_too_long", "steps_every_tenth", "copy_trained", "optimizer_over_copy", "average_copied_back",
    "part_under_no_grad", "through_numpy", "features_to_integers", "positions_forgotten", "layer_not_registered",
    "layer_built_in_forward", "classes_over_batch", "shift_forgotten", "softmax_over_batch", "attention_over_batch",
    "mean_over_batch", "all_zero", "weights_huge", "integer_division", "steps_only_at_first", "weights_in_bfloat16",
    "dropout_on_output", "parameter_rewrapped", "normalised_over_time", "last_chunk_cut", "labels_of_first_chunk",
    "repeated_for_interleaved", "easiest_rows_mined", "valid_where_positive", "causal_mask_off_by_one",
    "mask_over_queries", "mask_added_as_numbers", "first_padding_seen", "rows_not_unsorted", "moved_without_target",
    "channels_reversed_in_training", "nll_loss_on_logits", "coordinates_swapped_in_evaluation", "eval_left_on",
    "statistics_of_other_data", "scaled_in_training_alone", "dropout_flag_inverted", "checkpoint_draws_anew",
    "softmax_as_last_layer", "labels_smoothed_twice", "divided_by_255_twice", "summed_for_mean",
    "targets_in_kilometres", "hook_in_every_call", "gradients_left_scaled", "term_weighted_away",
    "average_and_model_swapped", "modes_swapped", "decay_of_another_kind", "second_optimizer_not_stepped",
    "gains_in_no_group", "moments_of_another_run", "rate_of_many_devices",
})  # fmt: skip
# operators that were written later: held out until somebody looks, so that they move none of those before them
LATER = SECOND | THIRD | FIFTH | frozenset({
    "steps_only_at_first", "gradient_reversed", "betas_swapped", "weights_in_bfloat16", "dropout_on_output",
    "parameter_rewrapped", "outputs_reversed", "inputs_of_first_for_all", "mask_of_another_sample",
    "normalised_over_time", "logits_cooled",
    "last_chunk_cut", "labels_of_first_chunk", "repeated_for_interleaved", "easiest_rows_mined",
    "valid_where_positive", "causal_mask_off_by_one", "mask_over_queries", "mask_added_as_numbers",
    "first_padding_seen", "rows_not_unsorted", "moved_without_target", "channels_reversed_in_training",
    "nll_loss_on_logits", "softmax_as_last_layer", "labels_smoothed_twice", "divided_by_255_twice",
    "targets_in_kilometres", "eval_left_on", "statistics_of_other_data", "scaled_in_training_alone",
    "dropout_flag_inverted", "checkpoint_draws_anew", "hook_in_every_call", "gradients_left_scaled",
    "term_weighted_away", "average_and_model_swapped", "modes_swapped", "decay_of_another_kind",
    "second_optimizer_not_stepped", "gains_in_no_group", "moments_of_another_run", "rate_of_many_devices",
    "summed_for_mean", "coordinates_swapped_in_evaluation",
    # the fourth set
    "part_left_frozen_after_turn", "weight_normalised_after_optimizer", "count_of_steps_stays",
    "gradients_of_validation_kept", "statistics_of_frozen_part_move", "prediction_in_other_unit_in_evaluation",
    "features_in_float8_without_scale", "neighbour_called_twice", "first_concatenated_twice", "straight_through_part",
    "padding_index_of_real_token", "softmax_over_queries", "mask_repeated_for_heads", "copies_viewed_in_wrong_order",
    "first_channel_compared", "target_among_features",
    # the sixth set
    "average_shares_memory", "moment_is_the_gradient", "norm_shared_by_two_places", "weights_share_memory",
    "cache_shared_by_layers", "seeded_in_forward", "layers_start_as_copies", "widened_without_noise",
    "gains_drawn_like_weights", "drawn_with_deviation_one", "factor_for_rate_in_group", "frozen_part_decays",
    "mean_taken_out_of_gradients", "skip_connection_detached", "part_called_with_state_dict",
    "attention_softmax_twice", "mask_on_first_head_alone", "mask_made_of_ids", "packed_without_boundaries",
    "heads_joined_in_wrong_order", "processes_joined_in_evaluation", "layer_reads_backwards",
    "ids_sorted_by_embedding", "term_of_model_added_again", "term_summed_beside_mean", "clipped_each_by_itself",
    "weights_restored_behind_step", "batch_norm_behind_last_layer",
    # the seventh set
    "labels_shifted_twice", "log_outside_of_mean", "log_of_target", "cross_entropy_over_one_output",
    "mask_indexes_as_numbers", "labels_index_all_rows", "noise_on_targets_too",
    "bias_not_handed_over", "last_layer_not_returned", "tied_use_detached", "keys_and_values_detached",
    "scale_in_whole_numbers", "flattened_in_wrong_order", "norm_over_one_element", "whole_number_mask_negated",
    "last_step_for_all", "gate_made_boolean", "first_token_sees_the_last", "last_one_bound_for_all",
    "statistics_move_in_evaluation", "gates_start_shut", "uniform_from_bound_to_one",
    "mean_and_deviation_swapped", "constant_column_standardised", "streams_shuffled_apart",
    "schedule_never_stepped", "parameters_listed_twice",
    "root_of_second_moment_forgotten", "optimizer_over_state_dict", "group_used_up_by_count",
    "steps_where_remainder", "best_by_largest_loss", "part_not_loaded_in_evaluation", "eval_does_not_reach_parts",
    # the eighth set
    "cumulative_over_batch", "additive_mask_made_boolean", "rows_left_unfilled",
    "weight_rounded_without_straight_through", "fused_with_activation_in_evaluation", "tied_by_copy_in_every_call",
    "weight_norm_of_zero_weight", "ramp_counted_in_forward",
    "total_not_reset", "log_of_log_probabilities", "nearly_all_smoothed", "penalty_without_graph",
    "plateau_in_wrong_mode", "annealed_past_its_end", "halves_joined_as_they_finish",
})  # fmt: skip


def _rank(name: str, seed: int = OPERATORS_BY) -> int:
    return int(hashlib.sha256(f"{seed} {name}".encode()).hexdigest()[:8], 16)


def part_of_library(library: str) -> Part:
    """By its name alone, so that a library that is added later moves no other one."""
    return "held-out" if _rank(library, LIBRARIES_BY) % 2 and library not in LOOKED_AT else "tuned"


def parts_of_operators(operators: Iterable[Operator] = OPERATORS) -> dict[str, Part]:
    """Half of each kind by a seeded order; of an odd number the kind's name decides which half is the larger."""
    by_kind: dict[str, list[str]] = {}
    parts: dict[str, Part] = {}
    for each in operators:
        if each.id in LATER:
            parts[each.id] = "tuned" if each.id in LOOKED_AT else "held-out"
        else:
            by_kind.setdefault(each.kind, []).append(each.id)
    for kind, ids in by_kind.items():
        ordered = sorted(ids, key=_rank)
        half = (len(ordered) + _rank(kind) % 2) // 2
        for place, name in enumerate(ordered):
            parts[name] = "held-out" if place < half and name not in LOOKED_AT else "tuned"
    return parts
