// Local response normalisation across channels (Krizhevsky et al. 2012, Caffe's scaling) and its gradient.
#include "graph/gradient.h"
#include "graph/record.h"
#include "ops/nn.h"
#include "ops/records.h"
#include "owl/elewise.h"

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

using elewise::mult;

void lrn_rule(Rule& r) {
  const NArray e = r.error_array();
  r.to(0, record(op_lrn_back, {e.node(), r.array(0).node(), r.result().node()}, r.shared_params()));
}

// The sum over each channel's window, which is its own adjoint.
NArray window_sum(const NArray& x, std::int64_t size) {
  const std::int64_t reach = size / 2, channels = x.shape()[2];
  if (reach == 0) return x;
  const NArray edge = zeros(x.shape().with(2, reach), x.dtype());
  const NArray padded = concat({edge, x, edge}, 2);
  NArray sum = slice(padded, 2, 0, channels);
  for (std::int64_t i = 1; i < size; ++i) sum = sum + slice(padded, 2, i, channels);
  return sum;
}

// Of (err, x, y): err * s^-beta - k * x * window sum of (err * y / s), where s = 1 + alpha / size * window sum of x^2
// and k = 2 * alpha * beta / size.
void lrn_back_rule(Rule& r) {
  const conv::Lrner& l = r.params<LrnParams>().lrner;
  const auto n = static_cast<double>(l.local_size);
  const double k = 2 * l.alpha * l.beta / n;
  const NArray e = r.error_array(), &x = r.array(1);
  const NArray s = window_sum(square(x), l.local_size) * (l.alpha / n) + 1.0;
  const NArray shared = window_sum(mult(e, x), l.local_size) * k;
  r.to(0, [&] { return mult(e, pow(s, -l.beta)) - mult(r.array(2) / s, shared); });
  r.to(1, [&] {
    const NArray &err = r.array(0), &y = r.array(2);
    const NArray at_s = mult(mult(err, y), shared) / square(s) - mult(mult(e, err), pow(s, -l.beta - 1)) * l.beta;
    return mult(x, window_sum(at_s, l.local_size)) * (2 * l.alpha / n) -
           mult(e, window_sum(mult(err, y) / s, l.local_size)) * k;
  });
  r.to(2, [&] { return -mult(r.array(0) / s, shared); });
}

constexpr Gradient lrn_gradient{{operand(0) | result()}, lrn_rule},
    lrn_back_gradient{{operand(1) | operand(2), operand(0) | operand(1) | operand(2), operand(0) | operand(1)},
                      lrn_back_rule};

}  // namespace

const OpRecord op_lrn{.name = "lrn",
                      .doc = "x / (1 + alpha / size * sum of x^2 over size channels)^beta: x [W, H, C, N], its shape",
                      .arity = 1,
                      .infer = infer_lrn,
                      .cost = lrn_cost,
                      .gradient = &lrn_gradient};
const OpRecord op_lrn_back{.name = "lrn_back",
                           .doc = "the gradient of lrn: err, x, y, all [W, H, C, N], their shape",
                           .arity = 3,
                           .infer = infer_lrn_back,
                           .cost = lrn_cost,
                           .gradient = &lrn_back_gradient};

namespace conv {

NArray Lrner::ff(const NArray& x, const NArray& scale) const {
  check_same("lrn", "scale", scale.shape(), x.shape());
  const DType type = float_type(x.dtype());
  const NArray xs = record_cast(x, compute_type(type));
  return record_cast(record(op_lrn, {xs.node()}, std::make_shared<LrnParams>(*this)), type);
}

NArray Lrner::bp(const NArray& x, const NArray& y, const NArray& scale, const NArray& err) const {
  check_same("lrn_back", "scale", scale.shape(), x.shape());
  const DType type = float_type(promote(promote(x.dtype(), y.dtype()), err.dtype())), inner = compute_type(type);
  const NArray es = record_cast(err, inner), xs = record_cast(x, inner), ys = record_cast(y, inner);
  const auto params = std::make_shared<LrnParams>(*this);
  return record_cast(record(op_lrn_back, {es.node(), xs.node(), ys.node()}, params), type);
}

}  // namespace conv

}  // namespace owl
