// Reductions: sum, mean, max, min, argmax, argmin, count_zero. Reduced axes stay with length 1.
#include <string>

#include "graph/record.h"
#include "ops/records.h"
#include "ops/reduce.h"

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
  return {result_shape(in[0], p), promote(in[0]->dtype, DType::kInt32)};
}
Results infer_mean(std::span<Node* const> in, const Params* p) {
  return {result_shape(in[0], p), promote(in[0]->dtype, DType::kFloat32)};
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

constexpr OpRecord reduction(const char* name, const char* doc, InferFn infer) {
  return {.name = name, .doc = doc, .arity = 1, .infer = infer};
}

const Node& operand(const NArray& x, const OpRecord& op) {
  if (!x.has_value()) throw Error(std::string(op.name) + ": an empty NArray has no value; assign one first");
  return *x.node();
}

NArray reduce(const OpRecord& op, const NArray& x, const std::vector<std::int64_t>& axes) {
  const Shape& shape = operand(x, op).shape;
  unsigned mask = 0;
  for (const auto axis : axes) {
    const unsigned bit = 1u << normalize_axis(axis, shape, op.name);
    if (mask & bit)
      throw ShapeError(std::string(op.name) + ": axis " + std::to_string(axis) + " of shape " + shape.str() +
                       " is named twice");
    mask |= bit;
  }
  return record(op, {dense(x).node()}, std::make_shared<ReduceParams>(mask, axes.empty()));
}

// For operations that have no value over nothing.
void require_elements(const OpRecord& op, const NArray& x, const std::vector<std::int64_t>& axes) {
  const Shape& shape = operand(x, op).shape;
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

// Places are int32.
void require_index_range(const OpRecord& op, const NArray& x, const std::vector<std::int64_t>& axes) {
  const Shape& shape = operand(x, op).shape;
  const std::int64_t n = axes.empty() ? shape.size() : shape[normalize_axis(axes[0], shape, op.name)];
  if (n > INT32_MAX)
    throw ShapeError(std::string(op.name) + ": " + std::to_string(n) + " elements of shape " + shape.str() +
                     " are more than an int32 index can tell apart");
}

}  // namespace

const OpRecord op_sum = reduction("sum", "sum over axes, which stay with length 1", infer_sum);
const OpRecord op_mean = reduction("mean", "mean over axes, which stay with length 1", infer_mean);
const OpRecord op_max = reduction("max", "largest over axes, which stay with length 1", infer_same);
const OpRecord op_min = reduction("min", "smallest over axes, which stay with length 1", infer_same);
const OpRecord op_argmax = reduction("argmax", "place of the first largest along an axis", infer_index);
const OpRecord op_argmin = reduction("argmin", "place of the first smallest along an axis", infer_index);
const OpRecord op_count_zero = reduction("count_zero", "how many elements are 0", infer_count);

NArray NArray::sum(const std::vector<std::int64_t>& axes) const { return reduce(op_sum, *this, axes); }
NArray NArray::mean(const std::vector<std::int64_t>& axes) const { return reduce(op_mean, *this, axes); }
NArray NArray::max(const std::vector<std::int64_t>& axes) const {
  require_elements(op_max, *this, axes);
  return reduce(op_max, *this, axes);
}
NArray NArray::min(const std::vector<std::int64_t>& axes) const {
  require_elements(op_min, *this, axes);
  return reduce(op_min, *this, axes);
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
