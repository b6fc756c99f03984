// Normalisation of layers, a kernel over rows, and of batches, which is elementwise.
#include "owl/norm.h"

#include <cmath>
#include <string>

#include "graph/gradient.h"
#include "graph/record.h"
#include "ops/norm.h"
#include "ops/records.h"
#include "ops/terms.h"
#include "owl/elewise.h"

namespace owl {

namespace {

void require_length(const Node& array, const char* name, std::int64_t n) {
  if (!(array.shape == Shape{n}))
    throw ShapeError(std::string("layer_norm: ") + name + " has shape " + array.shape.str() + ", expected " +
                     Shape{n}.str() + ", the length of the first axis of x");
}

Results infer_layer_norm(std::span<Node* const> in, const Params*) {
  require_length(*in[1], "weight", in[0]->shape[0]);
  require_length(*in[2], "bias", in[0]->shape[0]);
  return {in[0]->shape, in[0]->dtype};
}

Results infer_layer_norm_back(std::span<Node* const> in, const Params*) {
  const Shape& x = in[1]->shape;
  const ResultType results[] = {{x, in[1]->dtype}, {Shape{x[0]}, in[1]->dtype}, {Shape{x[0]}, in[1]->dtype}};
  return Results(results);
}

double cost_of_passes(std::span<const Shape> in, const Shape&, const Params*) {
  return 8.0 * static_cast<double>(in[0].size());
}

// Over all axes but the first: [n].
NArray sum_of_rows(const NArray& x) {
  if (x.ndim() == 1) return x;
  std::vector<std::int64_t> axes;
  for (int axis = 1; axis < x.ndim(); ++axis) axes.push_back(axis);
  return x.sum(axes).reshape({x.shape()[0]});
}

void layer_norm_rule(Rule& r) {
  const NArray e = r.error_array();
  if (!r.wants(0) && !r.wants(1)) return r.to(2, sum_of_rows(e));
  const auto all =
      record_all(op_layer_norm_back, std::vector{e.node(), r.array(0).node(), r.array(1).node()}, r.shared_params());
  for (std::size_t i = 0; i < 3; ++i) r.to(i, all[i]);
}

// Of dx = root * project(g), with g = err * weight, dweight = sum of err * normed and dbias = sum of err over the rows,
// where normed = (x - mean) * root and project(v) = v - mean(v) - normed * mean(v * normed). project is symmetric, and
// root * project(v) is the gradient of x where v is that of normed.
void layer_norm_back_rule(Rule& r) {
  const NArray &err = r.array(0), &x = r.array(1), &weight = r.array(2);
  const NArray centred = x - x.mean(0);
  const NArray root = rsqrt(square(centred).mean(0) + r.params<NormParams>().eps), normed = mult(centred, root);
  const auto project = [&](const NArray& v) { return v - v.mean(0) - mult(normed, mult(v, normed).mean(0)); };
  Term to_err, to_x, to_weight, to_normed;
  if (!r.error(0).is_zero()) {
    const NArray a = r.error_array(0), g = mult(err, weight), back = mult(project(a), root);
    to_err = mult(back, weight);
    to_weight = sum_of_rows(mult(err, back));
    to_normed = -mult(mult(g, mult(a, normed).mean(0)) + mult(a, mult(g, normed).mean(0)), root);
    to_x = -mult(mult(normed, square(root)), mult(a, project(g)).mean(0));
  }
  if (!r.error(1).is_zero()) {
    to_err = add(to_err, mult(normed, r.error_array(1)));
    to_normed = add(to_normed, mult(err, r.error_array(1)));
  }
  if (!r.error(2).is_zero()) to_err = add(to_err, broadcast_to(r.error_array(2), x.shape()));
  if (!to_normed.is_zero()) to_x = add(to_x, mult(project(to_normed.array()), root));
  r.to(0, to_err);
  r.to(1, to_x);
  r.to(2, to_weight);
}

constexpr Saves kAll = operand(0) | operand(1) | operand(2);
constexpr Gradient layer_norm_gradient{{operand(0) | operand(1), operand(0) | operand(1), {}}, layer_norm_rule},
    layer_norm_back_gradient{{kAll, kAll, kAll}, layer_norm_back_rule};

void require_eps(const char* op, double eps) {
  if (!(eps >= 0) || std::isinf(eps))
    throw ValueError(std::string(op) + ": eps must be a number from 0 on, got " + std::to_string(eps));
}

// A number of each channel, as an array that broadcasts to x.
NArray of_channels(const NArray& each, const char* name, const Shape& x, DType type) {
  const std::int64_t channels = x[x.ndim() - 2];
  if (!each.has_value()) throw Error("batch_norm: an empty NArray has no value; assign one first");
  if (each.size() != channels)
    throw ShapeError(std::string("batch_norm: ") + name + " has shape " + each.shape().str() + ", but axis -2 of x " +
                     x.str() + " has length " + std::to_string(channels));
  std::vector<std::int64_t> lengths(static_cast<std::size_t>(x.ndim()) - 1, 1);
  lengths.back() = channels;
  return record_cast(each.reshape(lengths), type);
}

}  // namespace

const OpRecord op_layer_norm{.name = "layer_norm",
                             .doc = "x [n, ...], weight [n], bias [n]: x normalised along the first axis, scaled",
                             .arity = 3,
                             .infer = infer_layer_norm,
                             .cost = cost_of_passes,
                             .gradient = &layer_norm_gradient};
const OpRecord op_layer_norm_back{.name = "layer_norm_back",
                                  .doc = "the gradients of layer_norm: err, x, weight -> those of x, weight and bias",
                                  .arity = 3,
                                  .infer = infer_layer_norm_back,
                                  .cost = cost_of_passes,
                                  .gradient = &layer_norm_back_gradient};

NArray layer_norm(const NArray& x, const NArray& weight, const NArray& bias, double eps) {
  require_eps("layer_norm", eps);
  for (const NArray* each : {&x, &weight, &bias})
    if (!each->has_value()) throw Error("layer_norm: an empty NArray has no value; assign one first");
  const DType type = float_type(promote(promote(x.dtype(), weight.dtype()), bias.dtype())), inner = compute_type(type);
  const NArray xs = record_cast(x, inner), ws = record_cast(weight, inner), bs = record_cast(bias, inner);
  return record_cast(record(op_layer_norm, {xs.node(), ws.node(), bs.node()}, std::make_shared<NormParams>(eps)), type);
}

NArray batch_norm(const NArray& x, const NArray& weight, const NArray& bias, const NArray& mean, const NArray& var,
                  double eps) {
  require_eps("batch_norm", eps);
  if (!x.has_value()) throw Error("batch_norm: an empty NArray has no value; assign one first");
  const Shape& shape = x.shape();
  if (shape.ndim() < 2)
    throw ShapeError("batch_norm of " + shape.str() + ": the channels are axis -2, so that at least 2 axes are needed");
  DType type = float_type(x.dtype());
  for (const NArray* each : {&weight, &bias, &mean, &var})
    if (each->has_value()) type = promote(type, each->dtype());
  const DType inner = compute_type(type);
  const auto channels = [&](const NArray& each, const char* name) { return of_channels(each, name, shape, inner); };
  const NArray scale = mult(channels(weight, "weight"), rsqrt(channels(var, "var") + eps));
  return record_cast(mult(record_cast(x, inner) - channels(mean, "mean"), scale) + channels(bias, "bias"), type);
}

}  // namespace owl
