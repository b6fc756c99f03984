"""The contract of owl's public API, row by row, and the tests that cover each row. `python tests/python/test_api.py`
prints the table.

A row has the guarantee, the public names that it covers, and its tests: `file.name` is tests/python/test_file.py's
test_name; `Suite.Name` is a C++ test.
"""

import ast
import inspect
import re
from pathlib import Path

import pytest

import owl

ROOT = Path(__file__).resolve().parents[2]

ARRAYS = [
    ("from_numpy reverses the axes, keeps or casts the type, copies", "from_numpy float32 float64 float16 bfloat16 int32 int64 uint8 bool_",
     "arrays.every_layout_of_numpy arrays.memory_is_numpys_c_order_with_the_axes_reversed arrays.read_only_and_misaligned_arrays arrays.other_types_are_cast_to_the_nearest "
     "arrays.types_that_have_no_nearest arrays.the_caller_may_change_the_source every_type.exchange_with_numpy "
     "hard_layouts.every_layout_of_every_type promotion.from_numpy"),
    ("uint32 is int64, uint64 int64 where every value fits, else float64", "",
     "arrays.integers_that_do_not_fit_give_float64 arrays.integers_that_fit_int64_are_exact "
     "hard_layouts.integers_that_do_and_do_not_fit"),
    ("int64 is exact from script to kernel; a Python int outside the array's type is an OverflowError", "",
     "every_type.int64_is_exact_from_script_to_kernel every_type.numbers_outside_an_integer_type "
     "reductions.sums_of_int64_are_exact"),
    ("halves are rounded once for each operation, fused or not; their sums are added in float32", "",
     "every_type.halves_are_rounded_once_for_each_operation reductions.sums_of_halves_are_added_in_float32"),
    ("to_numpy and np.asarray wait; a NumPy array with the axes reversed", "NArray.to_numpy NArray.tolist",
     "arrays.every_layout_of_numpy arrays.asarray_with_a_type arrays.what_to_numpy_gives_cannot_change_the_array "
     "arrays.numpy_arrays_outlive_their_source every_type.exchange_with_numpy"),
    ("zeros, ones, full, arange: float32 unless dtype= says otherwise", "zeros ones full arange",
     "arrays.constants arrays.arange arrays.ways_to_name_a_shape_and_a_type every_type.constants_and_ranges "
     "promotion.making_arrays hard_sizes.ranges_that_no_array_can_have"),
    ("a shape is a list, a tuple, one int or several; of rand and randn ints alone", "",
     "arrays.lengths_one_by_one arrays.zeros_and_ones_take_any_lengths arrays.ints_alone_are_a_shape_of_random_numbers "
     "arrays.what_could_mean_two_things_is_an_error_that_shows_both arrays.full_and_randb_take_one_shape"),
    ("eye, linspace, zeros_like, ones_like, full_like", "eye linspace zeros_like ones_like full_like",
     "arrays.eye arrays.linspace arrays.linspace_refuses arrays.arrays_like_others promotion.making_arrays "
     "Api.EyeAndLinspace Api.ArraysLikeOthers"),
    ("randn: mean and standard deviation", "randn",
     "arrays.moments arrays.defaults_of_random_numbers arrays.the_third_argument_of_randn_is_the_standard_deviation "
     "every_type.random_numbers_of_float_types every_type.random_numbers_are_no_integers"),
    ("randb, rand: Bernoulli and uniform", "randb rand",
     "arrays.moments arrays.defaults_of_random_numbers arrays.a_probability_outside_0_to_1 "
     "arrays.a_range_that_cannot_be_drawn_from_is_refused arrays.ranges_of_one_number_and_of_half_of_all every_type.constants_and_ranges "
     "every_type.random_numbers_of_float_types every_type.random_numbers_are_no_integers"),
    ("seed: the same numbers on any threads and device, with any timing", "seed",
     "arrays.the_same_seed_gives_the_same_numbers arrays.numbers_do_not_depend_on_when_they_are_waited_for "
     "arrays.numbers_drawn_and_dropped_still_count arrays.the_generator_is_philox_4x32_10 "
     "arrays.numbers_depend_neither_on_the_device_nor_on_the_thread_that_asks laws.same_bits_in_every_environment"),
    ("random_state, set_random_state: what was drawn after it is drawn again", "random_state set_random_state",
     "arrays.the_place_of_the_generator arrays.the_place_of_a_generator_without_a_seed"),
    ("concat, slice; a slice along the last axis shares memory", "concat slice",
     "arrays.concat arrays.concat_of_many_and_of_one arrays.concat_errors arrays.slice arrays.axis_is_called_dim_too "
     "arrays.a_slice_along_the_last_axis_shares_memory every_type.shapes"),
    ("stack, split, pad, flip, roll, tile, repeat: NumPy's, in owl's order of axes", "stack split pad flip roll tile repeat",
     "arrays.stack arrays.stack_errors arrays.split arrays.split_errors arrays.pad arrays.pad_errors arrays.flip arrays.roll "
     "arrays.tile arrays.repeat arrays.repeat_and_tile_errors arrays.special_values_are_only_moved cuda.rearrangements "
     "Api.Rearrangements"),
    ("take, put_add, one_hot: indices of any shape, from the end too; out of range an IndexError by law 6",
     "take put_add one_hot",
     "take.take take.put_add take.any_shape_and_view take.lists_numbers_and_values_that_broadcast "
     "take.additions_are_in_the_order_of_the_indices take.one_hot take.labels_out_of_range "
     "take.an_index_out_of_range_is_an_error_at_the_line_of_the_call take.indices_of_other_types take.other_mistakes "
     "take.the_first_bad_index_is_named_wherever_chunks_are_cut take.repeated_rows_collect_their_errors "
     "cuda.take_and_put_add cuda.an_index_out_of_range_fails_what_is_computed_from_it Api.ChoosingAndSorting"),
    ("sort, argsort, topk: stable, NaN as the largest; axis 0 unless another is named", "sort argsort topk",
     "take.sort_and_argsort_are_stable_with_nan_last take.topk_has_nan_first_and_of_equals_the_first "
     "take.axis_0_is_the_default take.gradients_of_topk_go_to_the_elements_chosen cuda.sorting Api.ChoosingAndSorting"),
    ("shape, ndim, size, dtype, device, len never wait",
     "NArray NArray.shape NArray.ndim NArray.size NArray.nbytes NArray.dtype NArray.device",
     "arrays.properties arrays.properties_do_not_wait"),
    ("print and repr wait; cut as in NumPy; the text does not depend on timing; a failed value shows its error", "",
     "arrays.repr_waits_and_is_the_same_whatever_the_timing arrays.repr_cuts_as_numpy_does "
     "arrays.repr_obeys_numpys_options arrays.repr_of_a_failed_value_shows_the_error "
     "arrays.repr_of_a_large_array_looks_at_its_edges_only hard_waiting.every_wait_is_interrupted_within_200_ms "
     "cuda.repr_shows_what_the_cpu_shows Api.PrintingWaitsAndShowsValues Api.PrintingCutsAboveAThousandElements "
     "Api.PrintingShowsWhatFailed"),
    ("x[...]: NumPy's basic indexing in owl's order of axes", "",
     "indexing.against_numpy indexing.fuzz indexing.a_step_of_0 indexing.iteration_ends every_type.indexing "
     "hard_sizes.slices_beyond_every_bound_are_cut_as_numpy_does"),
    ("an index out of range is an IndexError with index, axis and size; other types are a TypeError", "IndexError",
     "indexing.out_of_range indexing.too_many indexing.other_types_are_refused indexing.an_owl_array_is_no_index "
     "indexing.huge_integers"),
    ("float, int, bool, item wait; only for one element", "NArray.item",
     "arrays.numbers_out_of_arrays operators.no_truth_value_for_several_elements every_type.numbers_out_of_arrays"),
    ("__dlpack__ and from_dlpack: no copy, with NumPy, PyTorch, JAX", "from_dlpack",
     "arrays.dlpack_to_numpy arrays.dlpack_from_numpy arrays.dlpack_from_odd_layouts "
     "arrays.dlpack_waits_for_the_value_and_takes_views arrays.dlpack_refuses_what_it_cannot_take dlpack.torch "
     "dlpack.jax dlpack.libraries_from_before_dlpack_1 dlpack.the_protocols_arguments dlpack.host_memory_of_others"),
    ("the same in GPU memory, and with CuPy, without waiting", "from_cupy NArray.to_cupy",
     "cuda_exchange.handed_out cuda_exchange.taken_in cuda_exchange.streams cuda_exchange.memory_comes_back_in_order "
     "cuda_exchange.cuda_array_interface cuda_exchange.cupy cuda_exchange.torch "
     "dlpack.memory_of_a_gpu_that_has_no_device dlpack.cpu_arrays_are_none_of_cudas dlpack.from_cupy_of_other_things"),
    ("arrays exported by DLPack are read-only; owl never writes to imported memory", "",
     "every_type.exchange_with_numpy arrays.memory_lent_by_dlpack_is_never_written "
     "lifetimes.dlpack_keeps_the_storage_until_the_last_reader_goes lifetimes.foreign_memory_is_released "
     "dlpack.torch_keeps_and_lets_go"),
    ("astype, copy_to", "NArray.astype NArray.copy_to",
     "elementwise.astype every_type.astype_to_every_type devices.copy_to"),
    ("arrays are values: immutable", "", "operators.in_place_rebinds operators.arrays_hash_by_identity"),
]

OPERATORS = [
    ("// % & | ^ ~: integers and bools, NumPy's signs, 0 by 0; // and % of floats", "",
     "elementwise.floor_division_and_remainder_of_integers elementwise.floor_division_and_remainder_of_floats_are_numpys "
     "elementwise.operations_on_bits elementwise.operators_of_integers_in_place Api.IntegerOperators"),
    ("+ - / ** with an array or a number on either side, unary -", "",
     "operators.two_arrays operators.an_array_and_a_number operators.unary operators.power "
     "every_type.negative_powers_of_integers"),
    ("* between arrays is the matrix product, @ the same; with a number it scales", "",
     "operators.star_and_at_between_arrays_are_the_matrix_product operators.at_with_a_number_is_refused matmul.values "
     "matmul.int32_is_exact_and_wraps matmul.types matmul.empty_sizes matmul.errors"),
    ("matmul: products of the leading two axes, the others broadcast", "matmul",
     "matmul.products_of_many_matrices matmul.matmul_of_two_axes_is_the_product "
     "matmul.matmul_of_one_axis_says_what_to_write matmul.shapes_that_do_not_fit_many_products "
     "matmul.attention_copies_no_transpose cuda.products_of_many_matrices Api.ChoosingAndSorting"),
    ("in-place operators rebind the name, reuse memory, and never enlarge", "",
     "operators.in_place_rebinds operators.in_place_matrix_product operators.in_place_by_a_number "
     "operators.in_place_never_enlarges operators.in_place_on_itself "
     "lifetimes.an_update_in_place_takes_over_the_memory"),
    ("broadcasting of axes of length 1, aligned at the first axis", "",
     "elementwise.broadcasting_is_aligned_at_the_first_axis elementwise.shapes_that_do_not_fit "
     "elementwise.length_1_broadcasts_against_an_empty_axis"),
    ("comparisons give bool", "",
     "operators.comparisons_give_bool operators.comparison_with_nan operators.a_mask_counts "
     "operators.equality_with_something_else_is_refused_or_false_but_never_an_array"),
    ("the larger type wins; a number never promotes a float type; / of integers is float32", "",
     "promotion.two_arrays promotion.an_array_and_a_number promotion.functions promotion.reductions promotion.sentences "
     "operators.numbers_never_raise_a_float_type elementwise.promotion_of_two_arrays"),
    ("int32 wraps as in NumPy", "", "elementwise.int32_wraps matmul.int32_is_exact_and_wraps reductions.integer_sums"),
    ("a NumPy array or a list as operand is a TypeError that points to from_numpy", "",
     "operators.numpy_arrays_and_lists_are_refused_on_either_side operators.refused_in_place "
     "operators.refused_by_functions operators.other_operands_are_refused"),
]

METHODS = [
    ("trans, T", "NArray.trans NArray.T", "arrays.trans matmul.a_transposed_operand_costs_no_copy every_type.shapes"),
    ("reshape: column-major, one -1", "NArray.reshape",
     "arrays.reshape_and_transpose arrays.reshape_errors every_type.shapes hard_sizes.reshapes_that_cannot_be"),
    ("transpose: any permutation", "NArray.transpose", "arrays.reshape_and_transpose every_type.shapes"),
    ("sum, max, min, mean: the axis stays; without axis [1]", "NArray.sum NArray.max NArray.min NArray.mean",
     "reductions.against_numpy reductions.nan_and_infinity reductions.long_sums_are_exact_enough "
     "reductions.an_axis_out_of_range reductions.bad_lists_of_axes reductions.views_and_fused_operands"),
    ("prod, cumsum", "NArray.prod NArray.cumsum",
     "reductions.products reductions.cumulative_sums reductions.cumulative_sums_with_operations_around "
     "gradients.the_second_derivative_of_a_product_with_a_0 Api.ProductsAndCumulativeSums"),
    ("var, std, any, all, logsumexp", "NArray.var NArray.std NArray.any NArray.all logsumexp",
     "reductions.variance reductions.the_variance_of_large_numbers_close_to_each_other reductions.the_variance_of_too_few_is_numpys "
     "reductions.any_and_all reductions.nan_is_true reductions.logsumexp reductions.logsumexp_of_large_and_infinite_numbers "
     "reductions.errors_have_the_functions_own_name Api.SpreadAndTruth"),
    ("argmax = max_index, argmin: int32, of equal elements the first", "NArray.argmax NArray.max_index NArray.argmin",
     "reductions.arg_against_numpy reductions.the_first_of_equals "
     "reductions.arg_without_an_axis_counts_in_column_major_order"),
    ("over an axis of length 0: sum 0, mean NaN, else a ShapeError", "",
     "reductions.over_an_empty_axis reductions.along_a_full_axis_of_an_empty_array"),
    ("count_zero waits; a Python int", "NArray.count_zero", "reductions.count_zero every_type.numbers_out_of_arrays"),
    ("start_eval, wait_for_eval(timeout), ready", "NArray.start_eval NArray.wait_for_eval NArray.ready",
     "arrays.waiting laws.start_eval_starts_what_the_window_would_keep threads.a_timeout_runs_out "
     "hard_waiting.ready_turns_true_once_and_stays hard_waiting.timeouts_that_run_out_at_once "
     "hard_waiting.timeouts_that_mean_nothing"),
]

ELEWISE = [
    ("mult, exp, ln, sigm, relu, tanh", "elewise.mult elewise.exp elewise.ln elewise.sigm elewise.relu elewise.tanh",
     "elementwise.values elementwise.special_values elementwise.type_of_the_result"),
    ("relu_back, sigm_back, tanh_back; the latter two with one argument",
     "elewise.relu_back elewise.sigm_back elewise.tanh_back", "elementwise.values elementwise.type_of_the_result"),
    ("log2, log10, exp2, rsqrt, tan, asin, acos, atan, atan2, sinh, cosh",
     "elewise.log2 elewise.log10 elewise.exp2 elewise.rsqrt elewise.tan elewise.asin elewise.acos elewise.atan elewise.atan2 "
     "elewise.sinh elewise.cosh",
     "elementwise.values elementwise.values_on_a_fine_grid elementwise.special_values elementwise.large_angles "
     "elementwise.atan2_takes_y_first"),
    ("round, trunc, fmod, isinf, isfinite", "elewise.round elewise.trunc elewise.fmod elewise.isinf elewise.isfinite",
     "elementwise.values elementwise.signs_of_zero elementwise.halves_are_rounded_to_even "
     "elementwise.remainders_are_exact_however_large_the_quotient elementwise.remainders_of_integers"),
    ("silu, hard_sigmoid, hard_swish, mish", "elewise.silu elewise.hard_sigmoid elewise.hard_swish elewise.mish",
     "elementwise.values elementwise.values_on_a_fine_grid elementwise.special_values"),
    ("sqrt, square, abs, sign, log1p, expm1, sin, cos, floor, ceil",
     "elewise.sqrt elewise.square elewise.abs elewise.sign elewise.log1p elewise.expm1 elewise.sin elewise.cos "
     "elewise.floor elewise.ceil", "elementwise.values elementwise.values_on_a_fine_grid elementwise.special_values"),
    ("maximum, minimum, clip, where, isnan", "elewise.maximum elewise.minimum elewise.clip elewise.where elewise.isnan",
     "elementwise.values elementwise.signs_of_zero elementwise.int32 elementwise.limits_the_wrong_way_round "
     "elementwise.limits_that_are_equal_or_arrays"),
    ("erf, gelu, leaky_relu, elu, softplus",
     "elewise.erf elewise.gelu elewise.leaky_relu elewise.elu elewise.softplus",
     "elementwise.values elementwise.values_on_a_fine_grid elementwise.gelu_approximate "
     "elementwise.a_parameter_is_a_number_an_array_or_left_out"),
    ("everyday aliases: log, sigmoid, multiply; every function is in owl too",
     "elewise.log elewise.sigmoid elewise.multiply",
     "elementwise.other_names elementwise.every_function_is_in_owl_too"),
    ("what NumPy, PyTorch or MLX has and owl spells otherwise is an AttributeError that says how", "",
     "hints.every_name_of_other_libraries_is_there_or_has_a_hint hints.every_method_of_other_libraries_is_there_or_has_a_hint "
     "hints.every_piece_of_code_in_a_hint_runs hints.code_in_a_hint_has_the_values_of_what_it_replaces "
     "hints.protocols_are_left_alone"),
    ("every function, every type", "elewise",
     "elementwise.every_elementwise_operation_has_a_row promotion.functions promotion.the_tables_are_complete"),
    ("a value's bits never depend on its position in the array", "",
     "elementwise.bits_do_not_depend_on_the_place elementwise.bits_of_a_broadcast_operand"),
]

CONV = [
    ("softmax, log_softmax, softmax_back: instance and channel, stable",
     "conv conv.softmax conv.log_softmax conv.softmax_back conv.soft_op conv.soft_op.instance conv.soft_op.channel",
     "conv.softmax conv.softmax_is_stable conv.softmax_back_is_the_derivative "
     "conv.softmax_without_an_op_is_by_instance conv.softmax_errors every_type.softmax promotion.networks"),
    ("softmax, log_softmax along any one axis", "", "conv.softmax_along_any_axis conv.softmax_errors Api.Softmax"),
    ("moments: mean and variance of one pass", "moments", "reductions.moments reductions.variance Api.Normalisation"),
    ("layer_norm over the first axis, batch_norm of each channel", "layer_norm batch_norm",
     "norm.values norm.gradients norm.numbers_far_from_0_keep_the_digits_of_their_differences norm.batches norm.mistakes "
     "norm.gradients_are_pytorchs Api.Normalisation"),
    ("Convolver: ff, bp, weight_grad, bias_grad; padding and strides",
     "conv.Convolver conv.Convolver.ff conv.Convolver.bp conv.Convolver.weight_grad conv.Convolver.bias_grad "
     "conv.Convolver.pad_h conv.Convolver.pad_w conv.Convolver.stride_v conv.Convolver.stride_h",
     "conv.conv conv.conv_random conv.conv_gradients_are_the_adjoints conv.conv_of_views_and_expressions "
     "conv.conv_shape_errors conv.conv_gradient_shape_errors conv.conv_options_out_of_range every_type.convolution"),
    ("dilation and groups", "conv.Convolver.dilation conv.Convolver.groups",
     "conv.conv conv.conv_random conv.conv_keywords_out_of_range every_type.convolution"),
    ("Pooler: max and average, partial windows, ceil_mode, ties",
     "conv.Pooler conv.Pooler.ff conv.Pooler.bp conv.Pooler.h conv.Pooler.w conv.Pooler.stride_v conv.Pooler.stride_h "
     "conv.Pooler.pad_h conv.Pooler.pad_w conv.Pooler.op conv.Pooler.ceil_mode conv.pool_op conv.pool_op.max "
     "conv.pool_op.average conv.pool_op.avg",
     "conv.pool conv.pool_random conv.pool_ties_give_the_error_to_the_first conv.padding_never_is_the_maximum "
     "conv.average_is_spelled_two_ways conv.pool_options_out_of_range conv.pool_shape_errors every_type.pooling"),
    ("Lrner across channels; scale is not read",
     "conv.Lrner conv.Lrner.ff conv.Lrner.bp conv.Lrner.local_size conv.Lrner.alpha conv.Lrner.beta",
     "conv.lrn conv.lrn_gradient_by_differences conv.lrn_errors every_type.normalisation"),
    ("operands of different types are promoted", "",
     "every_type.mixed_operands_of_networks_are_promoted promotion.networks"),
]

CORNERS = [
    ("no 0-d arrays: [1] instead; reshape([]) and zeros([]) raise a ShapeError", "",
     "arrays.a_scalar_has_shape_1 arrays.shapes_that_are_none arrays.reshape_errors indexing.against_numpy "
     "user_op.a_single_number_has_shape_1"),
    ("any axis may be negative", "", "reductions.against_numpy arrays.concat arrays.slice every_type.shapes"),
    ("a += b that would enlarge a is a ShapeError", "", "operators.in_place_never_enlarges"),
    ("mnist_io.load and load_mb_from_mat", "",
     "mnist_io.idx mnist_io.npz mnist_io.mat_is_in_the_order_of_the_digits mnist_io.search_order "
     "mnist_io.a_named_place_never_falls_through mnist_io.minibatches"),
]

DEVICES = [
    ("initialize is optional and harmless", "initialize", "devices.initialize_is_harmless"),
    ("create_cpu_device; device 0 always exists", "create_cpu_device",
     "devices.new_devices devices.a_script_that_names_no_device_runs"),
    ("create_gpu_device, get_gpu_device_count, has_cuda: a DeviceError that says what to do",
     "create_gpu_device get_gpu_device_count has_cuda", "devices.without_a_gpu"),
    ("set_device, with owl.device, devices: per thread",
     "set_device current_device device devices DeviceInfo DeviceInfo.id DeviceInfo.kind DeviceInfo.name "
     "DeviceInfo.threads DeviceInfo.simulated",
     "devices.set_device_decides_where_things_are_computed devices.with_device_returns_to_the_one_before "
     "devices.ids_that_name_no_device devices.ids_of_another_type threads.each_thread_has_its_device"),
    ("an operand on another device is copied there, once", "",
     "devices.an_operand_is_copied_once devices.an_operand_is_copied_once_to_each_of_two_devices "
     "devices.a_copy_of_a_pending_value_waits_for_nothing devices.views_of_a_value_elsewhere"),
    ("OWL_SIMULATED_GPUS", "", "devices.simulated_gpus"),
    ("all_reduce: the sum of arrays on several devices, on each of them", "all_reduce",
     "devices.all_reduce devices.gradients_of_a_minibatch_in_parts devices.all_reduce_waits_for_nothing "
     "devices.all_reduce_refuses Api.AllReduce"),
    ("set_matmul_precision: how GPUs compute float32 products", "set_matmul_precision get_matmul_precision",
     "devices.the_precision_of_products_changes_no_bit_on_a_cpu devices.the_precision_is_every_threads "
     "devices.words_that_are_no_precision Engine.ThePrecisionOfProductsIsThatOfTheRecording"),
    ("wait_for_all raises the first error", "wait_for_all",
     "devices.wait_for_all_leaves_every_held_value_ready errors.a_task_that_fails "
     "errors.wait_for_all_raises_the_first_of_several_errors_and_waits_for_the_rest errors.failed_values_nobody_holds_are_silent threads.every_wait_frees_the_gil"),
    ("set_memory_limit, memory_stats, empty_cache", "set_memory_limit memory_stats empty_cache",
     "devices.memory_stats devices.a_value_too_large_for_the_limit devices.the_largest_holders_are_named "
     "devices.a_program_that_fits_runs_at_the_limit hard_memory.a_program_that_fits_never_fails_and_never_exceeds "
     "hard_memory.threads_under_one_limit"),
    ("threads: affinity mask, cgroup quota, OWL_NUM_THREADS", "",
     "devices.threads_are_limited threads.an_operation_takes_as_many_threads_as_pay Cgroup.Version2 Cgroup.Version1"),
    ("trace_nan, also as a context", "trace_nan",
     "inspection.trace_nan_names_the_guilty_operation inspection.trace_nan_names_the_guilty_operation_of_a_network "
     "inspection.infinity_of_a_finite_number_is_found inspection.a_planted_nan_is_found_at_every_site "
     "inspection.only_what_depends_on_it_fails inspection.it_can_be_switched_and_nests"),
    ("Ctrl-C while waiting", "",
     "lifetimes.ctrl_c_during_a_wait lifetimes.the_interrupted_value_still_arrives "
     "hard_waiting.ctrl_c_at_random_moments hard_waiting.every_wait_is_interrupted_within_200_ms"),
    ("fork()", "",
     "lifetimes.fork_in_the_middle_of_work lifetimes.multiprocessing_by_fork "
     "hard_processes.forks_in_the_middle_of_work user_op.fork_in_the_middle_of_functions"),
    ("interpreter exit", "",
     "lifetimes.leaving_at_any_moment lifetimes.arrays_that_outlive_the_interpreter "
     "hard_processes.leaving_at_random_moments user_op.leaving_the_interpreter"),
    ("everything that does not read a value is non-blocking", "",
     "arrays.properties_do_not_wait devices.a_copy_of_a_pending_value_waits_for_nothing "
     "hard_waiting.what_does_not_read_a_value_does_not_wait user_op.recording_calls_nothing_and_waits_for_nothing"),
]

LAWS = [
    ("1. same bits, lazy or eager", "eager",
     "laws.same_bits_for_every_window laws.same_bits_on_large_arrays laws.same_bits_in_every_environment "
     "laws.same_bits_of_large_kernels_on_1_and_2_threads inspection.eager_runs_each_operation_at_its_line"),
    ("2. no wasted work", "stats",
     "laws.what_nobody_holds_is_not_computed laws.a_chain_is_one_kernel_and_one_buffer "
     "laws.a_value_is_computed_once_however_often_it_is_asked_for "
     "laws.what_is_dropped_while_it_is_computed_is_given_up laws.dropping_at_any_moment_spares_what_is_held user_op.what_nobody_holds_is_not_called"),
    ("3. starts without a wait", "",
     "laws.a_quiet_script_finds_its_values_ready laws.a_quiet_script_with_several_devices "
     "laws.work_begins_while_the_script_still_records Engine.WorkStartsByItself"),
    ("4. bounded", "",
     "laws.a_loop_that_never_waits_is_bounded laws.a_loop_over_large_arrays_is_bounded_by_bytes "
     "laws.a_chain_of_a_million lifetimes.memory_of_a_loop_returns"),
    ("5. independent work overlaps", "",
     "threads.a_small_value_does_not_queue_behind_a_long_chain threads.devices_do_not_wait_for_each_other "
     "threads.independent_work_of_one_device_runs_on_several_threads_at_once threads.copies_overlap_with_computation"),
    ("6. errors name the script's line", "",
     "errors.recording_errors_are_raised_at_the_line errors.a_task_that_fails "
     "errors.everything_computed_from_a_failure_fails_with_the_first_cause errors.an_allocation_that_fails "
     "hard_faults.a_fault_at_every_place user_op.an_exception_comes_home_with_its_line_and_its_cause"),
    ("7. any thread", "",
     "threads.threads_make_use_and_drop_arrays threads.threads_share_arrays threads.threads_hand_arrays_over "
     "threads.every_wait_frees_the_gil user_op.threads"),
]

ERRORS = [
    ("the classes and their bases",
     "Error ShapeError DTypeError DeviceError OutOfMemoryError DataError NaNError", "errors.error_classes"),
    ("a message says what was wrong and what would be right", "",
     "bad_input.one_clear_error hints.hints_of_modules bad_input.wrong_arguments_are_told_in_words matmul.errors conv.conv_shape_errors hard_sizes.results_whose_size_overflows"),
]

BEYOND = [
    ("the same in C++", "",
     "Kernels.MatrixProducts Kernels.Convolutions Engine.ShapeErrorsAreRaisedAtTheLine "
     "Registry.FunctionsOfThePublicHeaderAreRegisteredUnderTheirNames cpp_apps.mlp_learns"),
    ("the installed C++ package", "get_cmake_dir",
     "packaging.external_project packaging.cmake_dir packaging.folders_of_the_cpp_side packaging.pkg_config packaging.headers_compile_alone packaging.only_the_api_is_exported"),
    ("user-defined operations, in Python", "op op.back",
     "user_op.values user_op.shapes_and_types_by_rule user_op.a_wrong_result user_op.backward_of_one_operand "
     "user_op.backward_of_several_operands user_op.functions_may_use_owl_themselves user_op.every_environment"),
    ("user-defined operations, in C++", "",
     "UserOp.ComputesInChunksAmongBuiltInOperations UserOp.TheExampleOfTheDocuments "
     "UserOp.ErrorsAreRaisedAtTheLineOrComeHome"),
    ("arrays in files", "save load load_metadata",
     "files.what_is_saved_is_loaded files.other_programs_read_it files.damaged_files_are_data_errors files.metadata "
     "files.a_write_that_fails_leaves_the_old_file"),
    ("inspection: explain, draw, profile, dump", "explain draw profile dump dump_on_signal Plan PlannedTask",
     "inspection.explain_shows_fusion_order_and_lines inspection.what_is_explained_is_what_runs "
     "inspection.draw_frames_what_runs_together hints.dot_is_called_draw inspection.profile_has_tasks_lines_and_lanes "
     "inspection.dump_tells_what_is_there inspection.dump_on_signal"),
    ("type stubs and docstrings for all public names", "",
     "stubs.stubs_agree_with_the_package stubs.the_programs stubs.everything_public_has_words "
     "stubs.everything_that_can_be_called_has_a_signature"),
]

GRADIENTS = [
    ("every operation of float arrays has a gradient, gradients too, but what has none by nature", "",
     "gradients.every_operation_has_a_row_or_no_gradient_by_nature gradients.first_derivatives gradients.second_derivatives "
     "gradients.what_has_no_gradient_is_no_path Registry.EveryOperationIsComplete"),
    ("Tape: what this thread records in the block is noted; tapes nest", "Tape",
     "gradients.only_the_block_is_noted gradients.tapes_nest_to_any_depth gradients.control_flow_is_pythons "
     "gradients.a_tape_is_entered_once_by_one_thread gradients.other_threads_are_not_noted_and_may_ask_for_gradients "
     "gradients.threads_with_tapes_of_their_own"),
    ("gradient: sources of any structure, a seed, unused=; uses the tape up, unless it is persistent", "Tape.gradient",
     "gradients.sources_of_any_structure gradients.seeds gradients.intermediate_results_are_sources "
     "gradients.a_tape_is_used_up_or_persistent gradients.gradient_inside_the_block_ends_the_notes "
     "gradients.mistakes_do_not_use_the_tape_up gradients.nothing_noted"),
    ("grad, value_and_grad", "grad value_and_grad",
     "gradients.function_forms gradients.mistakes_of_function_forms "
     "gradients.an_argument_is_another_array_than_the_same_elsewhere"),
    ("stop_gradient", "stop_gradient", "gradients.stop_gradient"),
    ("checkpoint: inner values are not kept; the same bits, Python is not called again", "checkpoint",
     "checkpoint.every_operation_has_the_same_bits checkpoint.the_same_bits checkpoint.second_derivatives "
     "checkpoint.random_programs checkpoint.python_is_called_once_and_state_moves_once checkpoint.inner_values_are_not_kept "
     "checkpoint.dropout_keeps_no_mask checkpoint.a_failure_names_the_forward_line Tape.ACheckpointHasTheSameBits"),
    ("broadcast operands get sums; views are added into one array, linear in both", "",
     "gradients.broadcast_operands_get_sums_and_other_types_their_own gradients.views_of_one_array_are_added_into_one "
     "gradients.a_view_as_a_source_gets_what_was_computed_from_it gradients.slices_cost_the_array_and_the_slices "
     "gradients.parts_are_added_onto_earlier_ones_in_their_memory"),
    ("kinks", "", "gradients.kinks gradients.x_to_the_power_of_y_passes_0_to_y_at_0 "
     "gradients.the_first_of_equal_maxima_of_a_pooling gradients.flat_results_have_gradients_of_zeros_and_second_derivatives_too"),
    ("what a rule reads is kept, and only that, until it has been read", "",
     "gradients.only_what_a_rule_reads_is_kept gradients.what_is_dropped_inside_the_block_is_not_computed "
     "gradients.a_gradient_that_is_dropped_is_not_computed gradients.a_long_loop_is_flat_in_memory "
     "gradients.losses_that_are_kept_keep_nothing_else plans.a_tape_writes_nothing_that_is_not_read"),
    ("automatic gradients are planned as those by hand", "",
     "plans.automatic_gradients_plan_into_what_those_by_hand_do plans.a_loss_costs_what_gradients_by_hand_cost "
     "gradients.same_bits_on_any_number_of_threads gradients.same_bits_lazy_eager_and_with_any_window"),
    ("operations of the user's own take part", "",
     "gradients.operations_in_python_take_part gradients.an_operation_without_a_backward_function_is_named "
     "gradients.a_failure_of_the_backward_pass_names_the_forward_line Tape.OperationsOfTheUsersTakePart"),
    ("the same in C++", "", "Tape.GradientsOfALoss Tape.TapesNest Tape.Mistakes cpp_apps.the_tape_follows_gradients_by_hand"),
]

NN = [
    ("Module: parameters, buffers and state by PyTorch's names; parts in attributes, lists and dicts",
     "nn nn.Module nn.Module.parameters nn.Module.trainable_parameters nn.Module.buffers nn.Module.buffer nn.Module.state "
     "nn.Module.forward nn.Module.modules nn.Sequential",
     "train.names modules.arrays_in_lists_and_dicts modules.parts_in_several_places modules.a_tape_takes_a_module modules.modules_among_other_arguments modules.copies_and_pickles modules.mistakes"),
    ("update binds; load_state and load are strict and list everything; save writes what PyTorch reads",
     "nn.Module.update nn.Module.load_state nn.Module.load nn.Module.save",
     "modules.update_binds modules.strict_loading_lists_everything modules.files modules.the_number_of_batches_is_written_as_pytorch_does nn.pytorch"),
    ("train, eval, freeze, unfreeze, to",
     "nn.Module.training nn.Module.train nn.Module.eval nn.Module.freeze nn.Module.unfreeze nn.Module.to", "modules.modes modules.freeze modules.to_a_device"),
    ("summary, repr", "nn.Module.summary", "modules.summary modules.repr"),
    ("layers: PyTorch's values, gradients, names and reversed shapes; n_in=None is found out by the first call",
     "nn.Linear nn.Conv2d nn.MaxPool2d nn.AvgPool2d nn.GlobalAvgPool2d nn.LocalResponseNorm nn.BatchNorm nn.LayerNorm nn.GroupNorm "
     "nn.Flatten nn.RNN nn.LSTM nn.GRU nn.MultiHeadAttention",
     "nn.values nn.gradients_by_differences nn.pytorch nn.every_layer_is_compared nn.names_and_shapes_are_pytorchs_reversed nn.no_gradient_flows_through_running_statistics nn.statistics_of_batch_norm "
     "nn.states_of_recurrent_layers nn.masks_of_attention modules.sizes_found_out_by_the_first_call modules.one_sample_and_no_samples"),
    ("Dropout, Embedding", "nn.Dropout nn.Embedding", "nn.dropout nn.dropout_keeps_no_mask nn.embedding nn.embedding_of_pytorch"),
    ("activations as modules",
     "nn.ReLU nn.LeakyReLU nn.ELU nn.GELU nn.SiLU nn.Sigmoid nn.Tanh nn.Softplus nn.Softmax nn.LogSoftmax nn.Hardsigmoid "
     "nn.Hardswish nn.Mish", "nn.values nn.gradients_by_differences nn.pytorch"),
    ("losses and accuracy want equal shapes; labels are integers or probabilities",
     "nn.softmax_cross_entropy nn.nll nn.binary_cross_entropy nn.mse nn.l1 nn.huber nn.accuracy",
     "losses.softmax_cross_entropy losses.labels_of_sequences losses.losses_of_equal_shapes losses.losses_of_pytorch losses.huber_of_another_delta losses.float64_stays "
     "losses.accuracy losses.large_logits_stay_finite losses.mistakes_of_losses losses.a_label_out_of_range"),
    ("first values",
     "nn.init nn.init.glorot_uniform nn.init.glorot_normal nn.init.he_uniform nn.init.he_normal nn.init.lecun_normal "
     "nn.init.orthogonal nn.init.normal nn.init.uniform nn.init.constant",
     "nn.variances nn.constant_and_settings nn.orthogonal nn.defaults_of_layers nn.init_is_given_to_a_layer"),
    ("networks learn, in bounded memory, with the bits of the same step by hand", "",
     "modules.a_network_learns_digits modules.a_step_waits_for_nothing modules.a_training_loop_leaves_no_history modules.a_plain_loop_and_the_same_by_hand_end_with_the_same_bits"),
]

OPTIM = [
    ("optimizers: PyTorch's formulas and defaults",
     "optim optim.SGD optim.RMSprop optim.AdaGrad optim.Adam optim.AdamW optim.Lion optim.Optimizer optim.Optimizer.SLOTS optim.Optimizer.step",
     "optim.pytorch optim.formulas optim.settings_out_of_range optim.float64_stays optim.repr"),
    ("update binds a module's parameters, or returns new ones", "optim.Optimizer.update",
     "optim.structures optim.a_module_is_bound_to_its_new_parameters optim.mistakes_change_nothing "
     "optim.a_parameter_that_joins_later_counts_for_itself optim.memory_of_a_loop_is_that_of_parameters_averages_and_gradients"),
    ("lr is a number or a schedule, never part of the graph; a step is one pass",
     "optim.Optimizer.lr optim.step optim.exponential optim.cosine optim.one_cycle optim.warmup",
     "optim.the_rate_can_be_read_and_set optim.schedules optim.schedules_of_pytorch "
     "optim.a_step_is_one_pass_whose_plan_does_not_know_rate_and_step"),
    ("clip_norm", "optim.clip_norm", "optim.clip_norm optim.clip_norm_of_pytorch"),
    ("state, load_state", "optim.Optimizer.state optim.Optimizer.load_state",
     "optim.a_run_goes_on_from_its_state optim.what_state_holds optim.states_that_do_not_fit"),
]

TABLE = [("Arrays", ARRAYS), ("Operators", OPERATORS), ("Methods", METHODS), ("owl.elewise", ELEWISE),
         ("owl.conv", CONV), ("Settled corners", CORNERS), ("Devices and waiting", DEVICES), ("The laws", LAWS),
         ("Errors", ERRORS), ("Gradients", GRADIENTS), ("owl.nn", NN),
         ("owl.optim", OPTIM), ("Beyond", BEYOND)]
ROWS = [(f"{section}: {title}", names.split(), tests.split()) for section, rows in TABLE for title, names, tests in rows]


def existing_tests():
    found = set()
    for path in (ROOT / "tests" / "python").glob("test_*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found.add(f"{path.stem[5:]}.{node.name[5:]}")
    for path in (ROOT / "tests" / "cpp").glob("*.cpp"):
        found |= {f"{suite}.{name}" for suite, name in
                  re.findall(r"^TEST\w*\((\w+), (\w+)\)", path.read_text(encoding="utf-8"), re.MULTILINE)}
    return found


EXISTING = existing_tests()


@pytest.mark.parametrize("title, names, tests", ROWS, ids=[row[0] for row in ROWS])
def test_a_row_has_tests(title, names, tests):
    assert tests and set(tests) <= EXISTING, set(tests) - EXISTING
    for name in names:
        thing = owl
        for part in name.split("."):
            thing = inspect.getattr_static(thing, part) if isinstance(thing, type) else getattr(thing, part, None)
        assert thing is not None, name


def public_names():
    names = {name for name in [*owl.__all__, "IndexError", "slice"] if not hasattr(owl.elewise, name)}
    for module, found in (("conv", owl.conv), ("elewise", owl.elewise), ("nn", owl.nn), ("nn.init", owl.nn.init), ("optim", owl.optim)):
        names |= {f"{module}.{name}" for name in found.__all__}
    for name in ("NArray", "DeviceInfo", "op", "Tape", "conv.Convolver", "conv.Pooler", "conv.Lrner",
                 "nn.Module", "optim.Optimizer"):
        thing = owl
        for part in name.split("."):
            thing = getattr(thing, part)
        names |= {f"{name}.{member}" for member in vars(thing) if not member.startswith("_")}
    return names


def test_every_public_name_is_in_a_row():
    assert public_names() - {name for _, names, _ in ROWS for name in names} == set()


def test_no_row_twice():
    titles = [title for title, _, _ in ROWS]
    assert len(set(titles)) == len(titles)


def main():
    for section, rows in TABLE:
        print(f"## {section}\n\n| row | tests |\n|---|---|")
        for title, _, tests in rows:
            cells = [f"`{test}`" for test in tests.split()]
            print(f"| {title.replace('|', chr(92) + '|')} | {', '.join(cells)} |")
        print()


if __name__ == "__main__":
    main()
