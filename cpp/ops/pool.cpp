// Pooling and its gradient.
#include <algorithm>
#include <limits>

#include "graph/gradient.h"
#include "graph/record.h"
#include "ops/nn.h"
#include "ops/records.h"
#include "owl/elewise.h"

namespace owl {

namespace {

std::string number(std::int64_t n) { return std::to_string(n); }

// Caffe's rule: a partial window at the end counts, if it starts inside the image or its leading padding.
std::int64_t out_length(const std::string& what, const char* axis, std::int64_t length, std::int64_t window,
                        std::int64_t stride, std::int64_t pad, bool ceil_mode) {
  if (window < 1 || stride < 1 || pad < 0)
    throw ShapeError(what + "window " + number(window) + ", stride " + number(stride) + ", padding " + number(pad) +
                     " along the " + axis + "; window and stride must be at least 1, padding at least 0");
  if (pad >= window)
    throw ShapeError(what + "padding " + number(pad) + " along the " + axis + " must be smaller than the window " +
                     number(window));
  const auto room = length + 2 * pad - window;
  auto out = room >= 0 ? (room + (ceil_mode ? stride - 1 : 0)) / stride + 1 : (ceil_mode && -room < stride ? 1 : 0);
  if (out > 0 && (out - 1) * stride >= length + pad) --out;
  if (length < 1 || out < 1)
    throw ShapeError(what + "the window's " + axis + " " + number(window) + " is larger than the image's " +
                     number(length) + " with padding " + number(pad) + " on either side");
  return out;
}

Results infer_pool(std::span<Node* const> in, const Params* params) {
  const Shape& x = in[0]->shape;
  const auto g = pool_geometry(static_cast<const PoolParams&>(*params).pooler, x);
  return {Shape{g.out_width, g.out_height, x[2], x[3]}, in[0]->dtype};
}

Results infer_pool_back(std::span<Node* const> in, const Params* params) {
  const auto& p = static_cast<const PoolParams&>(*params);
  const auto g = pool_geometry(p.pooler, p.x);
  const Shape y{g.out_width, g.out_height, p.x[2], p.x[3]};
  if (in[0]->shape != y)
    throw ShapeError("pool_back: the error has shape " + in[0]->shape.str() + ", pooling " + p.x.str() + " gives " +
                     y.str());
  return {p.x, in[0]->dtype};
}

double window_size(const Params* params) {
  const auto& p = static_cast<const PoolParams&>(*params).pooler;
  return static_cast<double>(p.h * p.w);
}
double pool_cost(std::span<const Shape>, const Shape& out, const Params* params) {
  return static_cast<double>(out.size()) * window_size(params);
}
double pool_back_cost(std::span<const Shape> in, const Shape& out, const Params* params) {
  return static_cast<double>(in[0].size()) * window_size(params) + static_cast<double>(out.size());
}

bool is_maximum(const Params* params) {
  return static_cast<const PoolParams*>(params)->pooler.op == conv::PoolOp::kMax;
}

// Images with a margin on all sides, so that every window is whole.
NArray with_margin(const NArray& x, const PoolGeometry& g, double value) {
  NArray whole = x;
  const auto extend = [&](int axis, std::int64_t before, std::int64_t after) {
    std::vector<NArray> parts{whole};
    const auto margin = [&](std::int64_t n) { return full(whole.shape().with(axis, n), value, x.dtype()); };
    if (before > 0) parts.insert(parts.begin(), margin(before));
    if (after > 0) parts.push_back(margin(after));
    if (parts.size() > 1) whole = concat(parts, axis);
  };
  extend(0, g.pad_x, (g.out_width - 1) * g.stride_x + g.window_x - g.pad_x - g.width);
  extend(1, g.pad_y, (g.out_height - 1) * g.stride_y + g.window_y - g.pad_y - g.height);
  return whole;
}

// Of every window the element (ix, iy), of images with their margin.
NArray of_windows(const NArray& x, const PoolGeometry& g, std::int64_t ix, std::int64_t iy) {
  return x[{Slice{ix, ix + (g.out_width - 1) * g.stride_x + 1, g.stride_x},
            Slice{iy, iy + (g.out_height - 1) * g.stride_y + 1, g.stride_y}, ellipsis}];
}

// Of every window the element of e that stands where x has its maximum, the first of equals. Only
// second derivatives come here.
NArray at_maxima(const NArray& e, const NArray& x, const PoolGeometry& g) {
  const auto lowest = -std::numeric_limits<double>::infinity();
  const NArray elements = with_margin(e, g, 0), candidates = with_margin(x, g, lowest);
  const NArray inside = with_margin(ones({g.width, g.height}, DType::kBool), g, 0);
  NArray value, best, seen;
  for (std::int64_t iy = 0; iy < g.window_y; ++iy)
    for (std::int64_t ix = 0; ix < g.window_x; ++ix) {
      const NArray element = of_windows(elements, g, ix, iy), candidate = of_windows(candidates, g, ix, iy),
                   is_inside = of_windows(inside, g, ix, iy);
      if (!value.has_value()) {
        value = element, best = candidate, seen = is_inside;
        continue;
      }
      const NArray first_nan = elewise::mult(isnan(candidate), isnan(best) == false);
      const NArray first_inside = elewise::mult(is_inside, seen == false);  // which may be -infinity, as the margin
      const NArray replaces = (candidate > best) + first_nan + first_inside;
      value = where(replaces, element, value);
      best = where(replaces, candidate, best);
      seen = seen + is_inside;
    }
  return value;
}

void pool_rule(Rule& r) {
  const NArray e = r.error_array();
  const auto& params = r.shared_params();
  if (is_maximum(params.get())) r.to(0, record(op_pool_back, {e.node(), r.array(0).node()}, params));
  else r.to(0, record(op_pool_back, {e.node()}, params));
}

void pool_back_rule(Rule& r) {
  const auto& p = r.params<PoolParams>();
  const NArray e = r.error_array();
  if (!is_maximum(&p)) return r.to(0, record(op_pool, {e.node()}, r.shared_params()));
  r.to(0, [&] { return at_maxima(e, r.array(1), pool_geometry(p.pooler, p.x)); });
  r.zero(1);
}

constexpr Gradient pool_gradient{
    .rule = pool_rule,
    .saves_by = [](const Params* params) { return is_maximum(params) ? operand(0) : Saves{0}; }};
constexpr Gradient pool_back_gradient{
    .rule = pool_back_rule,
    .saves_by = [](const Params* params) { return is_maximum(params) ? operand(1) : Saves{0}; }};

}  // namespace

PoolGeometry pool_geometry(const conv::Pooler& p, const Shape& x) {
  const auto what = "pool of " + x.str() + ": ";
  if (x.ndim() != 4) throw ShapeError(what + "images must have 4 axes, [W, H, C, N]");
  return {.height = x[1], .width = x[0],
          .out_height = out_length(what, "height", x[1], p.h, p.stride_v, p.pad_h, p.ceil_mode),
          .out_width = out_length(what, "width", x[0], p.w, p.stride_h, p.pad_w, p.ceil_mode),
          .window_y = p.h, .window_x = p.w, .stride_y = p.stride_v, .stride_x = p.stride_h,
          .pad_y = p.pad_h, .pad_x = p.pad_w};
}

const OpRecord op_pool{.name = "pool",
                       .doc = "the maximum or average of windows: x [W, H, C, N] -> [W', H', C, N]",
                       .arity = 1,
                       .infer = infer_pool,
                       .cost = pool_cost,
                       .gradient = &pool_gradient};
// For an average the images themselves don't matter, and are no operand: nothing keeps them alive.
const OpRecord op_pool_back{
    .name = "pool_back",
    .doc = "the gradient of a pooling's images: err [W', H', C, N] and, for a maximum, x [W, H, C, N] -> x's shape",
    .arity = -1,
    .infer = infer_pool_back,
    .cost = pool_back_cost,
    .gradient = &pool_back_gradient};

namespace conv {

NArray Pooler::ff(const NArray& x) const {
  const DType type = float_type(x.dtype());
  const NArray xs = record_cast(x, compute_type(type));
  return record_cast(record(op_pool, {xs.node()}, std::make_shared<PoolParams>(*this, x.shape())), type);
}

NArray Pooler::bp(const NArray& err, const NArray& ff_y, const NArray& ff_x) const {
  if (ff_y.shape() != err.shape())
    throw ShapeError("pool_back: the error has shape " + err.shape().str() + ", the pooled images have " +
                     ff_y.shape().str());
  auto params = std::make_shared<PoolParams>(*this, ff_x.shape());
  if (op == PoolOp::kAverage) {
    const DType type = float_type(err.dtype());
    const NArray es = record_cast(err, compute_type(type));
    return record_cast(record(op_pool_back, {es.node()}, std::move(params)), type);
  }
  const DType type = float_type(promote(err.dtype(), ff_x.dtype())), inner = compute_type(type);
  const NArray es = record_cast(err, inner), xs = record_cast(ff_x, inner);
  return record_cast(record(op_pool_back, {es.node(), xs.node()}, std::move(params)), type);
}

}  // namespace conv

}  // namespace owl
