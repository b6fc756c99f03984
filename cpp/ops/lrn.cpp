// Local response normalisation across channels (Krizhevsky et al. 2012, Caffe's scaling) and its gradient.
#include "graph/record.h"
#include "ops/nn.h"
#include "ops/records.h"

namespace owl {

namespace {

void check(const char* op, const Shape& x, const Params* params) {
  const auto& l = static_cast<const LrnParams&>(*params).lrner;
  if (x.ndim() != 4)
    throw ShapeError(std::string(op) + " of " + x.str() + ": images must have 4 axes, [W, H, C, N]");
  if (l.local_size < 1 || l.local_size % 2 == 0)
    throw ShapeError(std::string(op) + ": local_size must be odd, a channel and as many on either side, got " +
                     std::to_string(l.local_size));
}

void check_same(const char* op, const char* what, const Shape& shape, const Shape& x) {
  if (shape != x)
    throw ShapeError(std::string(op) + ": " + what + " has shape " + shape.str() + ", the images have " + x.str());
}

Results infer_lrn(std::span<Node* const> in, const Params* params) {
  check("lrn", in[0]->shape, params);
  return {in[0]->shape, in[0]->dtype};
}

Results infer_lrn_back(std::span<Node* const> in, const Params* params) {
  const Shape& x = in[1]->shape;
  check("lrn_back", x, params);
  check_same("lrn_back", "the error", in[0]->shape, x);
  check_same("lrn_back", "y", in[2]->shape, x);
  return {x, in[1]->dtype};
}

double lrn_cost(std::span<const Shape>, const Shape& out, const Params* params) {
  const auto& l = static_cast<const LrnParams&>(*params).lrner;
  return static_cast<double>(out.size()) * (2.0 * static_cast<double>(l.local_size) + 8.0);
}

}  // namespace

const OpRecord op_lrn{.name = "lrn",
                      .doc = "x / (1 + alpha / size * sum of x^2 over size channels)^beta: x [W, H, C, N], its shape",
                      .arity = 1,
                      .infer = infer_lrn,
                      .cost = lrn_cost};
const OpRecord op_lrn_back{.name = "lrn_back",
                           .doc = "the gradient of lrn: err, x, y, all [W, H, C, N], their shape",
                           .arity = 3,
                           .infer = infer_lrn_back,
                           .cost = lrn_cost};

namespace conv {

NArray Lrner::ff(const NArray& x, const NArray& scale) const {
  check_same("lrn", "scale", scale.shape(), x.shape());
  const NArray xs = record_cast(x, promote(x.dtype(), DType::kFloat32));
  return record(op_lrn, {xs.node()}, std::make_shared<LrnParams>(*this));
}

NArray Lrner::bp(const NArray& x, const NArray& y, const NArray& scale, const NArray& err) const {
  check_same("lrn_back", "scale", scale.shape(), x.shape());
  const DType type = promote(promote(promote(x.dtype(), y.dtype()), err.dtype()), DType::kFloat32);
  const NArray es = record_cast(err, type), xs = record_cast(x, type), ys = record_cast(y, type);
  return record(op_lrn_back, {es.node(), xs.node(), ys.node()}, std::make_shared<LrnParams>(*this));
}

}  // namespace conv

}  // namespace owl
