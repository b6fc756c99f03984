// Softmax, its logarithm and their gradients.
//
// instance: one distribution over all axes but the last, so that the last counts samples; a 1-d array is one sample.
// channel: one distribution along axis -2 for every index of the other axes. Or along any one axis.
#include "graph/gradient.h"
#include "graph/record.h"
#include "ops/nn.h"
#include "ops/records.h"
#include "ops/terms.h"
#include "owl/elewise.h"

namespace owl {

namespace {

using Over = std::shared_ptr<const Params>;

Over over(const char* op, const NArray& x, conv::SoftOp soft_op) {
  if (!x.has_value()) throw Error(std::string(op) + ": an empty NArray has no value; assign one first");
  if (soft_op == conv::SoftOp::kChannel && x.ndim() < 2)
    throw ShapeError(std::string(op) + " of " + x.shape().str() + ": soft_op.channel runs along axis -2, so that at " +
                     "least 2 axes are needed");
  return std::make_shared<SoftmaxParams>(soft_op, x.ndim());
}
Over over(const char* op, const NArray& x, std::int64_t axis) {
  if (!x.has_value()) throw Error(std::string(op) + ": an empty NArray has no value; assign one first");
  return std::make_shared<SoftmaxParams>(normalize_axis(axis, x.shape(), op), 1);
}

Results infer_softmax(std::span<Node* const> in, const Params*) { return {in[0]->shape, in[0]->dtype}; }

Results infer_log_softmax_back(std::span<Node* const> in, const Params*) { return {in[1]->shape, in[1]->dtype}; }

Results infer_softmax_back(std::span<Node* const> in, const Params*) {
  if (in[0]->shape != in[1]->shape)
    throw ShapeError("softmax_back: the error has shape " + in[0]->shape.str() + ", the softmax has " +
                     in[1]->shape.str());
  return {in[1]->shape, in[1]->dtype};
}

double softmax_cost(std::span<const Shape>, const Shape& out, const Params*) {
  return 8.0 * static_cast<double>(out.size());
}

NArray record_softmax(const OpRecord& op, const NArray& x, Over over) {
  const DType type = float_type(x.dtype());
  const NArray xs = record_cast(x, compute_type(type));
  return record_cast(record(op, {xs.node()}, std::move(over)), type);
}

NArray record_softmax_back(const NArray& err, const NArray& y, Over over) {
  const DType type = float_type(promote(err.dtype(), y.dtype())), inner = compute_type(type);
  const NArray es = record_cast(err, inner), ys = record_cast(y, inner);
  return record_cast(record(op_softmax_back, {es.node(), ys.node()}, std::move(over)), type);
}

// The sum over each distribution, whose axes stay with length 1.
NArray sum_of_each(const NArray& x, const Rule& r) {
  const auto& p = r.params<SoftmaxParams>();
  std::vector<std::int64_t> axes;
  for (int axis = p.first; axis < p.first + p.count; ++axis) axes.push_back(axis);
  return x.sum(axes);
}

void softmax_rule(Rule& r) {
  const NArray e = r.error_array();
  r.to(0, record(op_softmax_back, {e.node(), r.result().node()}, r.shared_params()));
}

// From x, not from the result: a step that does not read the loss need not compute the result.
void log_softmax_rule(Rule& r) {
  const NArray e = r.error_array();
  r.to(0, record(op_log_softmax_back, {e.node(), r.array(0).node()}, r.shared_params()));
}

// Of err - p * sum of err, where p is softmax(x).
void log_softmax_back_rule(Rule& r) {
  const NArray e = r.error_array(), p = record(op_softmax, {r.array(1).node()}, r.shared_params());
  r.to(0, [&] { return e - sum_of_each(elewise::mult(e, p), r); });
  r.to(1, [&] {
    const NArray back = record(op_softmax_back, {e.node(), p.node()}, r.shared_params());
    return -elewise::mult(back, sum_of_each(r.array(0), r));
  });
}

// Of y * (err - sum of err * y): symmetric in err, a product in y.
void softmax_back_rule(Rule& r) {
  const NArray e = r.error_array(), &y = r.array(1);
  r.to(0, [&] { return record(op_softmax_back, {e.node(), y.node()}, r.shared_params()); });
  r.to(1, [&] {
    const NArray& err = r.array(0);
    return elewise::mult(e, err - sum_of_each(elewise::mult(err, y), r)) -
           elewise::mult(err, sum_of_each(elewise::mult(e, y), r));
  });
}

constexpr Gradient softmax_gradient{{result()}, softmax_rule}, log_softmax_gradient{{operand(0)}, log_softmax_rule},
    log_softmax_back_gradient{{operand(1), operand(0) | operand(1)}, log_softmax_back_rule},
    softmax_back_gradient{{operand(1), operand(0) | operand(1)}, softmax_back_rule};

}  // namespace

const OpRecord op_softmax{.name = "softmax",
                          .doc = "exp(x) / sum of exp(x), over all axes but the last or along one axis: x's shape",
                          .arity = 1,
                          .infer = infer_softmax,
                          .cost = softmax_cost,
                          .gradient = &softmax_gradient};
const OpRecord op_log_softmax{.name = "log_softmax",
                              .doc = "the logarithm of softmax(x): x's shape",
                              .arity = 1,
                              .infer = infer_softmax,
                              .cost = softmax_cost,
                              .gradient = &log_softmax_gradient};
const OpRecord op_softmax_back{.name = "softmax_back",
                               .doc = "the gradient of softmax: err, y -> y * (err - sum of err * y), y's shape",
                               .arity = 2,
                               .infer = infer_softmax_back,
                               .gradient = &softmax_back_gradient};

const OpRecord op_log_softmax_back{.name = "log_softmax_back",
                                   .doc = "the gradient of log_softmax: err, x -> err - softmax(x) * sum of err, x's shape",
                                   .arity = 2,
                                   .infer = infer_log_softmax_back,
                                   .cost = softmax_cost,
                                   .gradient = &log_softmax_back_gradient};

namespace conv {

NArray softmax(const NArray& x, SoftOp op) { return record_softmax(op_softmax, x, over("softmax", x, op)); }
NArray softmax(const NArray& x, std::int64_t axis) { return record_softmax(op_softmax, x, over("softmax", x, axis)); }
NArray log_softmax(const NArray& x, SoftOp op) { return record_softmax(op_log_softmax, x, over("log_softmax", x, op)); }
NArray log_softmax(const NArray& x, std::int64_t axis) {
  return record_softmax(op_log_softmax, x, over("log_softmax", x, axis));
}
NArray softmax_back(const NArray& err, const NArray& y, SoftOp op) {
  return record_softmax_back(err, y, over("softmax_back", y, op));
}
NArray softmax_back(const NArray& err, const NArray& y, std::int64_t axis) {
  return record_softmax_back(err, y, over("softmax_back", y, axis));
}

}  // namespace conv

}  // namespace owl
