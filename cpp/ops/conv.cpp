// Convolution (cross-correlation) and its three gradients.
#include "graph/gradient.h"
#include "graph/record.h"
#include "ops/nn.h"
#include "ops/records.h"
#include "ops/terms.h"

namespace owl {

namespace {

std::string number(std::int64_t n) { return std::to_string(n); }

void at_least(std::int64_t least, std::int64_t value, const std::string& what, const char* name) {
  if (value < least) throw ShapeError(what + name + " must be at least " + number(least) + ", got " + number(value));
}

// The number of kernel positions along one axis.
std::int64_t out_length(const std::string& what, const char* axis, std::int64_t length, std::int64_t pad,
                        std::int64_t kernel, std::int64_t stride, std::int64_t dilation) {
  at_least(1, kernel, what + "the kernel's ", axis);
  const auto reach = dilation * (kernel - 1) + 1;
  if (reach > length + 2 * pad)
    throw ShapeError(what + "the kernel's " + axis + " " + number(kernel) +
                     (dilation > 1 ? " (" + number(reach) + " with dilation " + number(dilation) + ")" : "") +
                     " is larger than the image's " + number(length) + " with padding " + number(pad) +
                     " on either side");
  return (length + 2 * pad - reach) / stride + 1;
}

Shape out_shape(const ConvGeometry& g) { return {g.out_width, g.out_height, g.filters, g.images}; }

// The error must have the shape of the forward pass's result.
void check_error(const char* op, const Shape& err, const ConvGeometry& g, const Shape& x, const Shape& w) {
  const Shape expected = out_shape(g);
  if (err != expected)
    throw ShapeError(std::string(op) + ": the error has shape " + err.str() + ", the convolution of " + x.str() +
                     " with " + w.str() + " has " + expected.str());
}

const ConvParams& of(const Params* params) { return static_cast<const ConvParams&>(*params); }

Results infer_conv(std::span<Node* const> in, const Params* params) {
  const Shape &x = in[0]->shape, &w = in[1]->shape, &b = in[2]->shape;
  const auto g = conv_geometry("conv", of(params).convolver, x, w);
  if (b != Shape{g.filters})
    throw ShapeError("conv of " + x.str() + " with " + w.str() + ": the bias has shape " + b.str() + ", expected [" +
                     number(g.filters) + "], one for each output channel");
  return {out_shape(g), in[0]->dtype};
}
Results infer_back_data(std::span<Node* const> in, const Params* params) {
  const auto& p = of(params);
  const auto g = conv_geometry("conv_back_data", p.convolver, p.result, in[1]->shape);
  check_error("conv_back_data", in[0]->shape, g, p.result, in[1]->shape);
  return {p.result, in[0]->dtype};
}
Results infer_back_weight(std::span<Node* const> in, const Params* params) {
  const auto& p = of(params);
  const auto g = conv_geometry("conv_back_weight", p.convolver, in[1]->shape, p.result);
  check_error("conv_back_weight", in[0]->shape, g, in[1]->shape, p.result);
  return {p.result, in[0]->dtype};
}
Results infer_back_bias(std::span<Node* const> in, const Params*) {
  const Shape& err = in[0]->shape;
  if (err.ndim() != 4)
    throw ShapeError("conv_back_bias: the error has shape " + err.str() + ", expected [W, H, C, N]");
  return {Shape{err[2]}, in[0]->dtype};
}

double conv_cost(std::span<const Shape> in, const Shape& out, const Params*) {
  return 2.0 * static_cast<double>(out.size()) * static_cast<double>(in[1].size()) /
         static_cast<double>(std::max<std::int64_t>(1, in[1][3]));
}
double back_data_cost(std::span<const Shape> in, const Shape&, const Params*) {
  return 2.0 * static_cast<double>(in[0].size()) * static_cast<double>(in[1].size()) /
         static_cast<double>(std::max<std::int64_t>(1, in[1][3]));
}
double back_weight_cost(std::span<const Shape> in, const Shape& out, const Params*) {
  return 2.0 * static_cast<double>(in[0].size()) * static_cast<double>(out.size()) /
         static_cast<double>(std::max<std::int64_t>(1, out[3]));
}

// The result's type; kernels compute compute_type() of it.
DType type_of(DType a, DType b, DType c = DType::kBool) { return float_type(promote(promote(a, b), c)); }

// Convolutions of the same geometry and precision as the operation whose gradient this is.
class SameConv {
 public:
  explicit SameConv(const Rule& r) : params_(r.params<ConvParams>()) {}

  NArray forward(const NArray& x, const NArray& w) const {
    const NArray no_bias = zeros({w.shape()[3]}, x.dtype());
    return record(op_conv, {x.node(), w.node(), no_bias.node()}, with(x.shape()));
  }
  NArray back_data(const NArray& err, const NArray& w, const Shape& x) const {
    return record(op_conv_back_data, {err.node(), w.node()}, with(x));
  }
  NArray back_weight(const NArray& err, const NArray& x, const Shape& w) const {
    return record(op_conv_back_weight, {err.node(), x.node()}, with(w));
  }

 private:
  std::shared_ptr<const ConvParams> with(const Shape& result) const {
    auto params = std::make_shared<ConvParams>(params_);
    params->result = result;
    return params;
  }

  const ConvParams& params_;
};

// A convolution is linear in its images and in its weights, so its gradients are convolutions, and theirs too.
void conv_rule(Rule& r) {
  const SameConv same(r);
  const NArray e = r.error_array();
  r.to(0, [&] { return same.back_data(e, r.array(1), r.shape(0)); });
  r.to(1, [&] { return same.back_weight(e, r.array(0), r.shape(1)); });
  r.to(2, [&] { return record(op_conv_back_bias, {e.node()}); });
}
void back_data_rule(Rule& r) {  // of (err, w)
  const SameConv same(r);
  const NArray e = r.error_array();
  r.to(0, [&] { return same.forward(e, r.array(1)); });
  r.to(1, [&] { return same.back_weight(r.array(0), e, r.shape(1)); });
}
void back_weight_rule(Rule& r) {  // of (err, x)
  const SameConv same(r);
  const NArray e = r.error_array();
  r.to(0, [&] { return same.forward(r.array(1), e); });
  r.to(1, [&] { return same.back_data(r.array(0), e, r.shape(1)); });
}
void back_bias_rule(Rule& r) {
  const Term& e = r.error();
  r.to(0, [&] { return e.is_array() ? broadcast_to(e.array().reshape({1, 1, r.shape(0)[2]}), r.shape(0)) : e; });
}

constexpr Gradient conv_gradient{{operand(1), operand(0), 0}, conv_rule},
    back_data_gradient{{operand(1), operand(0)}, back_data_rule},
    back_weight_gradient{{operand(1), operand(0)}, back_weight_rule}, back_bias_gradient{{}, back_bias_rule};

}  // namespace

ConvGeometry conv_geometry(const char* op, const conv::Convolver& c, const Shape& x, const Shape& w) {
  const auto what = std::string(op) + " of " + x.str() + " with " + w.str() + ": ";
  if (x.ndim() != 4) throw ShapeError(what + "images must have 4 axes, [W, H, C, N]");
  if (w.ndim() != 4) throw ShapeError(what + "weights must have 4 axes, [kw, kh, C_in / groups, C_out]");
  at_least(0, c.pad_h, what, "pad_h");
  at_least(0, c.pad_w, what, "pad_w");
  at_least(1, c.stride_v, what, "stride_v");
  at_least(1, c.stride_h, what, "stride_h");
  at_least(1, c.dilation_h, what, "dilation");
  at_least(1, c.dilation_w, what, "dilation");
  at_least(1, c.groups, what, "groups");
  if (x[2] % c.groups != 0 || w[3] % c.groups != 0)
    throw ShapeError(what + number(c.groups) + " groups do not divide " + number(x[2]) + " input and " + number(w[3]) +
                     " output channels");
  if (w[2] * c.groups != x[2])
    throw ShapeError(what + "the images have " + number(x[2]) + " channels, the weights are for " +
                     number(w[2] * c.groups) +
                     (c.groups > 1 ? " (" + number(c.groups) + " groups of " + number(w[2]) + ")" : ""));
  return {.images = x[3], .channels = x[2], .height = x[1], .width = x[0],
          .filters = w[3], .kernel_y = w[1], .kernel_x = w[0],
          .out_height = out_length(what, "height", x[1], c.pad_h, w[1], c.stride_v, c.dilation_h),
          .out_width = out_length(what, "width", x[0], c.pad_w, w[0], c.stride_h, c.dilation_w),
          .pad_y = c.pad_h, .pad_x = c.pad_w, .stride_y = c.stride_v, .stride_x = c.stride_h,
          .dilation_y = c.dilation_h, .dilation_x = c.dilation_w, .groups = c.groups};
}

const OpRecord op_conv{
    .name = "conv",
    .doc = "convolution: x [W, H, C_in, N], w [kw, kh, C_in / groups, C_out], b [C_out] -> [W', H', C_out, N]",
    .arity = 3,
    .infer = infer_conv,
    .cost = conv_cost,
    .gradient = &conv_gradient};
const OpRecord op_conv_back_data{
    .name = "conv_back_data",
    .doc = "the gradient of a convolution's images: err [W', H', C_out, N], w [kw, kh, C_in / groups, C_out] -> "
           "[W, H, C_in, N]",
    .arity = 2,
    .infer = infer_back_data,
    .cost = back_data_cost,
    .gradient = &back_data_gradient};
const OpRecord op_conv_back_weight{
    .name = "conv_back_weight",
    .doc = "the gradient of a convolution's weights: err [W', H', C_out, N], x [W, H, C_in, N] -> "
           "[kw, kh, C_in / groups, C_out]",
    .arity = 2,
    .infer = infer_back_weight,
    .cost = back_weight_cost,
    .gradient = &back_weight_gradient};
const OpRecord op_conv_back_bias{.name = "conv_back_bias",
                                 .doc = "the gradient of a convolution's bias: err [W', H', C_out, N] -> [C_out]",
                                 .arity = 1,
                                 .infer = infer_back_bias,
                                 .gradient = &back_bias_gradient};

namespace conv {

NArray Convolver::ff(const NArray& x, const NArray& w, const NArray& b) const {
  const DType type = type_of(x.dtype(), w.dtype(), b.dtype()), inner = compute_type(type);
  const NArray xs = record_cast(x, inner), ws = record_cast(w, inner), bs = record_cast(b, inner);
  const auto params = std::make_shared<ConvParams>(*this, x.shape());
  return record_cast(record(op_conv, {xs.node(), ws.node(), bs.node()}, params), type);
}

NArray Convolver::bp(const NArray& err, const NArray& x, const NArray& w) const {
  const DType type = type_of(err.dtype(), w.dtype()), inner = compute_type(type);
  const NArray es = record_cast(err, inner), ws = record_cast(w, inner);
  const auto params = std::make_shared<ConvParams>(*this, x.shape());
  return record_cast(record(op_conv_back_data, {es.node(), ws.node()}, params), type);
}

NArray Convolver::weight_grad(const NArray& err, const NArray& x, const NArray& w) const {
  const DType type = type_of(err.dtype(), x.dtype()), inner = compute_type(type);
  const NArray es = record_cast(err, inner), xs = record_cast(x, inner);
  const auto params = std::make_shared<ConvParams>(*this, w.shape());
  return record_cast(record(op_conv_back_weight, {es.node(), xs.node()}, params), type);
}

NArray Convolver::bias_grad(const NArray& err) const {
  const DType type = float_type(err.dtype());
  const NArray es = record_cast(err, compute_type(type));
  return record_cast(record(op_conv_back_bias, {es.node()}), type);
}

}  // namespace conv

}  // namespace owl
