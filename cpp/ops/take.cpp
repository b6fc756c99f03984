// Choosing elements of an axis by an array of indices, adding to them, and one-hot vectors.
//
// check_indices turns indices into places, counted from the start; an index out of range fails there, so that no other
// kernel has to check.
#include "ops/take.h"

#include <algorithm>
#include <string>

#include "graph/gradient.h"
#include "graph/record.h"
#include "ops/records.h"
#include "ops/terms.h"

namespace owl {

std::string CheckIndicesParams::out_of_range(std::int64_t index) const {
  const std::string text = std::string(what) + (axis >= 0 ? ": index " : ": label ") + std::to_string(index) +
                           " is out of range for ";
  if (axis >= 0) return text + "axis " + std::to_string(axis) + " with size " + std::to_string(length);
  return text + std::to_string(length) + " classes, 0 to " + std::to_string(length - 1);
}

namespace {

int axis_of(const Params* params) { return static_cast<const TakeParams*>(params)->axis; }

Results infer_places(std::span<Node* const> in, const Params*) { return {in[0]->shape, DType::kInt32}; }

// The indices' axes in place of the axis.
Shape taken_shape(const char* what, const Shape& x, const Shape& indices, int axis) {
  std::vector<std::int64_t> lengths(x.begin(), x.begin() + axis);
  lengths.insert(lengths.end(), indices.begin(), indices.end());
  lengths.insert(lengths.end(), x.begin() + axis + 1, x.end());
  if (lengths.size() > kMaxAxes)
    throw ShapeError(std::string(what) + ": indices of shape " + indices.str() + " in place of axis " +
                     std::to_string(axis) + " of " + x.str() + " would make " + std::to_string(lengths.size()) +
                     " axes; the most are " + std::to_string(kMaxAxes));
  return Shape(lengths);
}

Results infer_take(std::span<Node* const> in, const Params* params) {
  return {taken_shape("take", in[0]->shape, in[1]->shape, axis_of(params)), in[0]->dtype};
}

Results infer_put_add(std::span<Node* const> in, const Params*) { return {in[0]->shape, in[0]->dtype}; }

double put_add_cost(std::span<const Shape> in, const Shape& out, const Params*) {
  return static_cast<double>(out.size()) + 3.0 * static_cast<double>(in[2].size());
}

NArray add_at(const NArray& x, const NArray& places, const NArray& values, std::shared_ptr<const Params> params) {
  const DType type = x.dtype(), inner = compute_type(type);
  const NArray xs = dense(record_cast(x, inner)), vs = dense(record_cast(values, inner));
  return record_cast(record(op_put_add, {xs.node(), places.node(), vs.node()}, std::move(params)), type);
}
NArray take_at(const NArray& x, const NArray& places, std::shared_ptr<const Params> params) {
  return record(op_take, {x.node(), places.node()}, std::move(params));
}

void take_rule(Rule& r) {
  r.to(0, [&] {
    const NArray error = r.error_array();
    return add_at(zeros(r.shape(0), error.dtype()), r.array(1), error, r.shared_params());
  });
  r.zero(1);
}

void put_add_rule(Rule& r) {
  r.to(0, r.error());
  r.zero(1);
  r.to(2, [&]() -> Term {
    if (!r.error().is_array()) return r.error();
    return take_at(dense(r.error().array()), r.array(1), r.shared_params());
  });
}

constexpr Gradient take_gradient{{operand(1), 0}, take_rule}, put_add_gradient{{0, 0, operand(1)}, put_add_rule};

const Node& node_of(const char* what, const NArray& x) {
  if (!x.has_value()) throw Error(std::string(what) + ": an empty NArray has no value; assign one first");
  return *x.node();
}

// The places that the indices name.
NArray places_of(const NArray& indices, CheckIndicesParams params) {
  const std::string what = params.what;
  const Node& node = node_of(params.what, indices);
  if (!is_index(node.dtype))
    throw DTypeError(what + ": the indices are " + std::string(name(node.dtype)) +
                     (node.dtype == DType::kBool ? "; they must be integers, owl.where chooses by a mask"
                                                 : "; they must be integers, see astype('int32')"));
  if (params.length > INT32_MAX)
    throw ShapeError(what + ": axis " + std::to_string(params.axis) + " has " + std::to_string(params.length) +
                     " elements, more than an int32 index can tell apart");
  if (params.length == 0 && node.shape.size() > 0)
    throw IndexError(what + ": no index is in range for " +
                     (params.axis < 0 ? "0 classes" : "axis " + std::to_string(params.axis) + ", which has size 0"));
  const NArray operand = dense(record_cast(indices, compute_type(node.dtype)));
  return record(op_check_indices, {operand.node()}, std::make_shared<CheckIndicesParams>(std::move(params)));
}

NArray places_on(const char* what, const NArray& indices, const Shape& x, int axis) {
  CheckIndicesParams params;
  params.what = what;
  params.length = x[axis];
  params.axis = axis;
  return places_of(indices, std::move(params));
}

// Whether axes of length 1, or missing at the end, stretch to `shape`.
bool stretches(const Shape& x, const Shape& shape) {
  bool fits = x.ndim() <= shape.ndim();
  for (int i = 0; i < x.ndim() && fits; ++i) fits = x[i] == 1 || x[i] == shape[i];
  return fits;
}

}  // namespace

const OpRecord op_check_indices{.name = "check_indices",
                                .doc = "indices as places from the start of an axis; IndexError for one out of range",
                                .arity = 1,
                                .infer = infer_places,
                                .gradient = &no_gradient};
const OpRecord op_take{.name = "take",
                       .doc = "(x, places): the elements of an axis at these places, whose axes take the axis' place",
                       .arity = 2,
                       .infer = infer_take,
                       .gradient = &take_gradient};
const OpRecord op_put_add{.name = "put_add",
                          .doc = "(x, places, values): x with values added at these places of an axis, in order",
                          .arity = 3,
                          .infer = infer_put_add,
                          .cost = put_add_cost,
                          .gradient = &put_add_gradient};

NArray take(const NArray& x, const NArray& indices, std::int64_t along) {
  const Shape shape = node_of("take", x).shape;
  const int axis = normalize_axis(along, shape, "take");
  taken_shape("take", shape, node_of("take", indices).shape, axis);  // an error before anything is recorded
  const NArray places = places_on("take", indices, shape, axis);
  return take_at(dense(x), places, std::make_shared<TakeParams>(axis));
}

NArray put_add(const NArray& x, const NArray& indices, const NArray& values, std::int64_t along) {
  const Shape shape = node_of("put_add", x).shape, of_values = node_of("put_add", values).shape;
  const int axis = normalize_axis(along, shape, "put_add");
  const Shape taken = taken_shape("put_add", shape, node_of("put_add", indices).shape, axis);
  if (!stretches(of_values, taken))
    throw ShapeError("put_add: values of shape " + of_values.str() + " do not fit " + taken.str() +
                     ", which indices of shape " + indices.shape().str() + " choose from axis " + std::to_string(axis) +
                     " of " + shape.str());
  if (indices.size() > INT32_MAX)
    throw ShapeError("put_add: " + std::to_string(indices.size()) + " indices are more than 2^31 - 1");
  const DType type = promote(x.dtype(), values.dtype());
  if (type == DType::kBool) throw DTypeError("put_add of bool arrays is not defined; use astype first");
  const NArray places = places_on("put_add", indices, shape, axis);
  NArray whole = record_cast(values, type);
  if (of_values != taken) {
    const Operand operands[] = {whole, 1};
    whole = record_elementwise(*find_op("mult"), operands, &taken);
  }
  return add_at(record_cast(x, type), places, whole, std::make_shared<TakeParams>(axis));
}

NArray one_hot(const NArray& labels, std::int64_t n, DType dtype) {
  const Shape shape = node_of("one_hot", labels).shape;
  if (n < 0) throw ShapeError("one_hot: " + std::to_string(n) + " classes; n must not be negative");
  if (shape.ndim() > 2 || (shape.ndim() == 2 && shape[0] != 1))
    throw ShapeError("one_hot: labels of shape " + shape.str() +
                     "; they must have shape [N] or [1, N], see reshape([-1])");
  CheckIndicesParams params;
  params.what = "one_hot";
  params.length = n;
  params.from_end = false;
  const NArray places = places_of(labels, std::move(params));
  return (arange(static_cast<double>(n), DType::kInt32).reshape({n, 1}) == places.reshape({1, -1})).astype(dtype);
}

}  // namespace owl
