// Reductions: sum, mean, variance, prod, max, min, argmax, argmin, count_zero. Reduced axes stay with length 1.
#include <algorithm>
#include <string>

#include "graph/gradient.h"
#include "graph/record.h"
#include "ops/records.h"
#include "ops/reduce.h"
#include "ops/terms.h"
#include "owl/elewise.h"
#include "owl/norm.h"
#include "owl/tape.h"

namespace owl {

namespace {

Shape reduced_shape(const Shape& shape, const ReduceParams& params) {
  if (params.all) return Shape{1};
  std::int64_t lengths[kMaxAxes];
  for (int i = 0; i < shape.ndim(); ++i) lengths[i] = params.axes >> i & 1 ? 1 : shape[i];
  return Shape(std::span(lengths, static_cast<std::size_t>(shape.ndim())));
}

Shape result_shape(const Node* x, const Params* params) {
  return reduced_shape(x->shape, *static_cast<const ReduceParams*>(params));
}

Results infer_sum(std::span<Node* const> in, const Params* p) {
  return {result_shape(in[0], p), sum_type(in[0]->dtype)};
}
Results infer_mean(std::span<Node* const> in, const Params* p) {
  return {result_shape(in[0], p), float_type(in[0]->dtype)};
}
Results infer_moments(std::span<Node* const> in, const Params* p) {
  const ResultType each{result_shape(in[0], p), in[0]->dtype}, both[] = {each, each};
  return Results(both);
}
Results infer_same(std::span<Node* const> in, const Params* p) {
  return {result_shape(in[0], p), in[0]->dtype};
}
Results infer_index(std::span<Node* const> in, const Params* p) {
  return {result_shape(in[0], p), DType::kInt32};
}
Results infer_count(std::span<Node* const> in, const Params* p) {
  return {result_shape(in[0], p), DType::kFloat64};  // a count may exceed int32
}

// A result with as many axes as the operand has: [1] without axes as all of length 1.
NArray over_axes(const NArray& result, const Rule& r) {
  if (result.ndim() == r.shape(0).ndim()) return result;
  return result.reshape(std::vector<std::int64_t>(static_cast<std::size_t>(r.shape(0).ndim()), 1));
}
Term error_over_axes(const Rule& r, std::size_t result = 0) {
  const Term& e = r.error(result);
  return e.is_array() ? Term(over_axes(e.array(), r)) : e;
}

void sum_rule(Rule& r) { r.to(0, broadcast_to(error_over_axes(r), r.shape(0))); }

void mean_rule(Rule& r) {
  const auto n = static_cast<double>(r.shape(0).size()) / static_cast<double>(r.result_type().shape.size());
  r.to(0, broadcast_to(div(error_over_axes(r), n), r.shape(0)));
}

void moments_rule(Rule& r) {
  r.to(0, [&] {
    const auto n = static_cast<double>(r.shape(0).size()) / static_cast<double>(r.result_type().shape.size());
    const Term of_mean = broadcast_to(div(error_over_axes(r, 0), n), r.shape(0)), of_var = error_over_axes(r, 1);
    if (of_var.is_zero()) return of_mean;
    const double divisor = n - r.params<MomentsParams>().correction;
    return add(of_mean, mul(mul(of_var, 2 / divisor), r.array(0) - over_axes(r.result(0), r)));
  });
}

// Of each element along an axis the product of all the others, by halves, so that zeros do no harm.
NArray product_of_others(const NArray& x, int axis) {
  const std::int64_t n = x.shape()[axis], half = n / 2;
  if (n <= 1) return ones_like(x);
  const bool odd = n % 2 != 0;
  const NArray a = slice(x, axis, 0, half), b = slice(x, axis, half, half), pairs = elewise::mult(a, b);
  const NArray others =
      product_of_others(odd ? concat({pairs, slice(x, axis, n - 1, 1)}, axis) : pairs, axis);
  const NArray beside = odd ? slice(others, axis, 0, half) : others;
  std::vector<NArray> parts{elewise::mult(beside, b), elewise::mult(beside, a)};
  if (odd) parts.push_back(slice(others, axis, half, 1));
  return concat(parts, axis);
}

void prod_rule(Rule& r) {
  r.to(0, [&] {
    const auto& p = r.params<ReduceParams>();
    Term slope = error_over_axes(r);
    NArray folded = r.array(0);
    for (int axis = 0; axis < r.shape(0).ndim(); ++axis) {
      if (!p.all && !(p.axes >> axis & 1)) continue;
      slope = mul(slope, product_of_others(folded, axis));
      folded = folded.prod({axis});
    }
    return slope;
  });
}

// Where an axis has its place of the largest (or smallest), of every other axis. Axis by axis, from the one that varies
// fastest: what is left are the first of equals in memory order.
NArray is_first(const Rule& r, NArray (NArray::*place)(std::optional<std::int64_t>) const,
                NArray (NArray::*fold)(const std::vector<std::int64_t>&) const) {
  const auto& p = r.params<ReduceParams>();
  NArray folded = r.array(0), first;
  for (int axis = 0; axis < r.shape(0).ndim(); ++axis) {
    if (!p.all && !(p.axes >> axis & 1)) continue;
    std::vector<std::int64_t> along(static_cast<std::size_t>(r.shape(0).ndim()), 1);
    along[static_cast<std::size_t>(axis)] = r.shape(0)[axis];
    const NArray here = arange(static_cast<double>(r.shape(0)[axis]), DType::kInt32).reshape(along) ==
                        (folded.*place)(axis);
    first = first.has_value() ? elewise::mult(first, here) : here;
    folded = (folded.*fold)({axis});
  }
  return first;
}

void max_rule(Rule& r) {
  r.to(0, keep(is_first(r, &NArray::argmax, &NArray::max), error_over_axes(r), r.result_type().dtype));
}
void min_rule(Rule& r) {
  r.to(0, keep(is_first(r, &NArray::argmin, &NArray::min), error_over_axes(r), r.result_type().dtype));
}

constexpr Gradient sum_gradient{{}, sum_rule}, mean_gradient{{}, mean_rule}, prod_gradient{{operand(0)}, prod_rule},
    moments_gradient{{operand(0) | result(0)}, moments_rule},
    max_gradient{{operand(0)}, max_rule}, min_gradient{{operand(0)}, min_rule};

constexpr OpRecord reduction(const char* name, const char* doc, InferFn infer, const Gradient& gradient = no_gradient) {
  return {.name = name, .doc = doc, .arity = 1, .infer = infer, .gradient = &gradient};
}

const Node& node_of(const NArray& x, const OpRecord& op) {
  if (!x.has_value()) throw Error(std::string(op.name) + ": an empty NArray has no value; assign one first");
  return *x.node();
}

unsigned mask_of(const char* op, const Shape& shape, const std::vector<std::int64_t>& axes) {
  unsigned mask = 0;
  for (const auto axis : axes) {
    const unsigned bit = 1u << normalize_axis(axis, shape, op);
    if (mask & bit)
      throw ShapeError(std::string(op) + ": axis " + std::to_string(axis) + " of shape " + shape.str() +
                       " is named twice");
    mask |= bit;
  }
  return mask;
}

NArray reduce(const OpRecord& op, const NArray& x, const std::vector<std::int64_t>& axes) {
  const unsigned mask = mask_of(op.name, node_of(x, op).shape, axes);
  const bool adds = &op == &op_sum || &op == &op_prod;
  const DType type = x.dtype(), inner = compute_type(adds ? sum_type(type) : type);
  const NArray y = record(op, {dense(record_cast(x, inner)).node()}, std::make_shared<ReduceParams>(mask, axes.empty()));
  const bool keeps = &op == &op_max || &op == &op_min || (is_half(type) && (adds || &op == &op_mean));
  return keeps ? record_cast(y, type) : y;
}

std::vector<NArray> record_moments(const char* op, const NArray& x, const std::vector<std::int64_t>& axes,
                                   double correction) {
  if (!x.has_value()) throw Error(std::string(op) + ": an empty NArray has no value; assign one first");
  const unsigned mask = mask_of(op, x.shape(), axes);
  const DType type = float_type(x.dtype());
  const NArray numbers = record_cast(dense(x), compute_type(type));
  auto both = record_all(op_moments, std::vector{numbers.node()},
                         std::make_shared<MomentsParams>(mask, axes.empty(), correction));
  for (NArray& each : both) each = record_cast(each, type);
  return both;
}

// How many elements each element of a result is made of. Errors name `op`, which consists of several operations.
double count_reduced(const char* op, const NArray& x, const std::vector<std::int64_t>& axes) {
  if (!x.has_value()) throw Error(std::string(op) + ": an empty NArray has no value; assign one first");
  const Shape& shape = x.shape();
  if (axes.empty()) return static_cast<double>(shape.size());
  double count = 1;
  for (const auto axis : axes) count *= static_cast<double>(shape[normalize_axis(axis, shape, op)]);
  return count;
}

// For operations without a value over zero elements.
void require_elements(const OpRecord& op, const NArray& x, const std::vector<std::int64_t>& axes) {
  const Shape& shape = node_of(x, op).shape;
  if (shape.size() != 0) return;
  for (int i = 0; i < shape.ndim(); ++i) {
    bool named = axes.empty();
    for (const auto axis : axes) named = named || normalize_axis(axis, shape, op.name) == i;
    if (named && shape[i] == 0)
      throw ShapeError(std::string(op.name) + ": axis " + std::to_string(i) + " of shape " + shape.str() +
                       " has length 0, and there is no " + op.name + " of nothing");
  }
}

std::vector<std::int64_t> axis_list(std::optional<std::int64_t> axis) {
  if (!axis) return {};
  return {*axis};
}

// Indices are int32.
void require_index_range(const OpRecord& op, const NArray& x, const std::vector<std::int64_t>& axes) {
  const Shape& shape = node_of(x, op).shape;
  const std::int64_t n = axes.empty() ? shape.size() : shape[normalize_axis(axes[0], shape, op.name)];
  if (n > INT32_MAX)
    throw ShapeError(std::string(op.name) + ": " + std::to_string(n) + " elements of shape " + shape.str() +
                     " are more than an int32 index can tell apart");
}

}  // namespace

const OpRecord op_sum = reduction("sum", "sum over axes, which stay with length 1", infer_sum, sum_gradient);
const OpRecord op_mean = reduction("mean", "mean over axes, which stay with length 1", infer_mean, mean_gradient);
const OpRecord op_moments = reduction("moments", "mean and variance over axes, which stay with length 1", infer_moments,
                                      moments_gradient);
const OpRecord op_prod =
    reduction("prod", "product over axes, which stay with length 1", infer_sum, prod_gradient);
const OpRecord op_max = reduction("max", "largest over axes, which stay with length 1", infer_same, max_gradient);
const OpRecord op_min = reduction("min", "smallest over axes, which stay with length 1", infer_same, min_gradient);
const OpRecord op_argmax = reduction("argmax", "place of the first largest along an axis", infer_index);
const OpRecord op_argmin = reduction("argmin", "place of the first smallest along an axis", infer_index);
const OpRecord op_count_zero = reduction("count_zero", "how many elements are 0", infer_count);

NArray NArray::sum(const std::vector<std::int64_t>& axes) const { return reduce(op_sum, *this, axes); }
NArray NArray::mean(const std::vector<std::int64_t>& axes) const { return reduce(op_mean, *this, axes); }
NArray NArray::prod(const std::vector<std::int64_t>& axes) const { return reduce(op_prod, *this, axes); }
NArray NArray::max(const std::vector<std::int64_t>& axes) const {
  require_elements(op_max, *this, axes);
  return reduce(op_max, *this, axes);
}
NArray NArray::min(const std::vector<std::int64_t>& axes) const {
  require_elements(op_min, *this, axes);
  return reduce(op_min, *this, axes);
}

NArray NArray::var(const std::vector<std::int64_t>& axes, double correction) const {
  return record_moments("var", *this, axes, correction)[1];
}

// The root of 0 as 0, with the gradient 0.
NArray NArray::std(const std::vector<std::int64_t>& axes, double correction) const {
  if (is_half(dtype())) return record_cast(record_cast(*this, DType::kFloat32).std(axes, correction), dtype());
  const NArray v = record_moments("std", *this, axes, correction)[1], positive = v > 0.0;
  return elewise::where(positive, elewise::sqrt(elewise::where(positive, v, 1.0)), v);
}

// Over nothing by their counts, as there is no largest or smallest.
NArray NArray::any(const std::vector<std::int64_t>& axes) const {
  const bool nothing = count_reduced("any", *this, axes) == 0;
  const NArray truths = dtype() == DType::kBool ? *this : *this != 0;
  return nothing ? truths.sum(axes) > 0 : truths.max(axes);
}
NArray NArray::all(const std::vector<std::int64_t>& axes) const {
  const bool nothing = count_reduced("all", *this, axes) == 0;
  const NArray truths = dtype() == DType::kBool ? *this : *this != 0;
  return nothing ? truths.sum(axes) == 0 : truths.min(axes);
}

std::pair<NArray, NArray> moments(const NArray& x, const std::vector<std::int64_t>& axes, double correction) {
  auto both = record_moments("moments", x, axes, correction);
  return {std::move(both[0]), std::move(both[1])};
}

NArray logsumexp(const NArray& x, const std::vector<std::int64_t>& axes) {
  const double n = count_reduced("logsumexp", x, axes);
  if (is_half(x.dtype())) return record_cast(logsumexp(record_cast(x, DType::kFloat32), axes), x.dtype());
  const NArray numbers = record_cast(x, float_type(x.dtype()));
  if (n == 0) return elewise::ln(elewise::exp(numbers).sum(axes));
  // Any shift gives the same sum, so that it may be a constant to tapes.
  const NArray largest = stop_gradient(numbers).max(axes);
  const NArray shift = elewise::where(elewise::isfinite(largest), largest, 0);
  return elewise::ln(elewise::exp(numbers - shift).sum(axes)) + shift;
}

NArray NArray::argmax(std::optional<std::int64_t> axis) const {
  const auto axes = axis_list(axis);
  require_elements(op_argmax, *this, axes);
  require_index_range(op_argmax, *this, axes);
  return reduce(op_argmax, *this, axes);
}
NArray NArray::argmin(std::optional<std::int64_t> axis) const {
  const auto axes = axis_list(axis);
  require_elements(op_argmin, *this, axes);
  require_index_range(op_argmin, *this, axes);
  return reduce(op_argmin, *this, axes);
}

std::int64_t NArray::count_zero() const {
  return static_cast<std::int64_t>(reduce(op_count_zero, *this, {}).item());
}

}  // namespace owl
