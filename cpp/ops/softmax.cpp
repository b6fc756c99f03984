// Softmax, its logarithm and its gradient.
//
// instance: one distribution over all axes but the last, so that the last counts samples; a 1-d array is one sample.
// channel: one distribution along axis -2 for every place of the other axes.
#include "graph/record.h"
#include "ops/nn.h"
#include "ops/records.h"

namespace owl {

namespace {

void check(const char* op, const Shape& x, const Params* params) {
  if (static_cast<const SoftmaxParams&>(*params).op == conv::SoftOp::kChannel && x.ndim() < 2)
    throw ShapeError(std::string(op) + " of " + x.str() + ": soft_op.channel runs along axis -2, so that at least 2 " +
                     "axes are needed");
}

Results infer_softmax(std::span<Node* const> in, const Params* params) {
  check("softmax", in[0]->shape, params);
  return {in[0]->shape, in[0]->dtype};
}

Results infer_softmax_back(std::span<Node* const> in, const Params* params) {
  check("softmax_back", in[1]->shape, params);
  if (in[0]->shape != in[1]->shape)
    throw ShapeError("softmax_back: the error has shape " + in[0]->shape.str() + ", the softmax has " +
                     in[1]->shape.str());
  return {in[1]->shape, in[1]->dtype};
}

double softmax_cost(std::span<const Shape>, const Shape& out, const Params*) {
  return 8.0 * static_cast<double>(out.size());
}

NArray record_softmax(const OpRecord& op, const NArray& x, conv::SoftOp over) {
  const NArray xs = record_cast(x, promote(x.dtype(), DType::kFloat32));
  return record(op, {xs.node()}, std::make_shared<SoftmaxParams>(over));
}

}  // namespace

const OpRecord op_softmax{.name = "softmax",
                          .doc = "exp(x) / sum of exp(x), over all axes but the last or along axis -2: x's shape",
                          .arity = 1,
                          .infer = infer_softmax,
                          .cost = softmax_cost};
const OpRecord op_log_softmax{.name = "log_softmax",
                              .doc = "the logarithm of softmax(x): x's shape",
                              .arity = 1,
                              .infer = infer_softmax,
                              .cost = softmax_cost};
const OpRecord op_softmax_back{.name = "softmax_back",
                               .doc = "the gradient of softmax: err, y -> y * (err - sum of err * y), y's shape",
                               .arity = 2,
                               .infer = infer_softmax_back};

namespace conv {

NArray softmax(const NArray& x, SoftOp op) { return record_softmax(op_softmax, x, op); }
NArray log_softmax(const NArray& x, SoftOp op) { return record_softmax(op_log_softmax, x, op); }

NArray softmax_back(const NArray& err, const NArray& y, SoftOp op) {
  const DType type = promote(promote(err.dtype(), y.dtype()), DType::kFloat32);
  const NArray es = record_cast(err, type), ys = record_cast(y, type);
  return record(op_softmax_back, {es.node(), ys.node()}, std::make_shared<SoftmaxParams>(op));
}

}  // namespace conv

}  // namespace owl
