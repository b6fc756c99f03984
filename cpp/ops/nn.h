// Parameters and geometry of the neural-network operations: what their records and the devices' kernels share.
#pragma once

#include "base/module_api.h"
#include "graph/op.h"
#include "owl/conv.h"
#include "owl/device.h"

namespace owl {

inline constexpr const char* kPrecisionNames[] = {"float32", "tf32", "bfloat16"};  // in the order of MatmulPrecision
inline std::string_view name_of(MatmulPrecision p) { return kPrecisionNames[static_cast<int>(p)]; }

// Of a matrix product; null parameters are full float32.
struct MatmulParams : Params {
  explicit MatmulParams(MatmulPrecision p) : precision(p) {}
  MatmulPrecision precision;

  void visit(const ParamVisitor& field) const override { field("precision", name_of(precision)); }
};

// For conv_back_data: the shape of x; for conv_back_weight: the shape of w; not used by conv.
struct ConvParams : Params {
  ConvParams(const conv::Convolver& c, const Shape& r) : convolver(c), result(r) {}
  conv::Convolver convolver;
  Shape result;
  MatmulPrecision precision = matmul_precision();  // the setting when it was recorded

  void visit(const ParamVisitor& field) const override {
    const auto& c = convolver;
    field("pad_h", c.pad_h);
    field("pad_w", c.pad_w);
    field("stride_v", c.stride_v);
    field("stride_h", c.stride_h);
    field("dilation_h", c.dilation_h);
    field("dilation_w", c.dilation_w);
    field("groups", c.groups);
    field("result", lengths_of(result));
    field("precision", name_of(precision));
  }
};

// y: vertical, along H; x: horizontal, along W.
struct ConvGeometry {
  std::int64_t images, channels, height, width;       // of x: [width, height, channels, images]
  std::int64_t filters, kernel_y, kernel_x;           // of w: [kernel_x, kernel_y, channels / groups, filters]
  std::int64_t out_height, out_width;                 // of the result: [out_width, out_height, filters, images]
  std::int64_t pad_y, pad_x, stride_y, stride_x, dilation_y, dilation_x, groups;

  std::int64_t taps() const { return channels / groups * kernel_y * kernel_x; }  // products for each result
  std::int64_t plane() const { return height * width; }
  std::int64_t out_plane() const { return out_height * out_width; }
  double flops_per_image() const {
    return 2.0 * static_cast<double>(out_plane() * filters) * static_cast<double>(taps());
  }
};
// Throws ShapeError, naming `op`, where the two shapes and the parameters do not make a convolution.
OWL_MODULE_API ConvGeometry conv_geometry(const char* op, const conv::Convolver& c, const Shape& x, const Shape& w);

struct PoolParams : Params {
  PoolParams(const conv::Pooler& p, const Shape& shape) : pooler(p), x(shape) {}
  conv::Pooler pooler;
  Shape x;  // for pool_back

  void visit(const ParamVisitor& field) const override {
    const auto& p = pooler;
    field("h", p.h);
    field("w", p.w);
    field("stride_v", p.stride_v);
    field("stride_h", p.stride_h);
    field("pad_h", p.pad_h);
    field("pad_w", p.pad_w);
    field("op", std::string_view(p.op == conv::PoolOp::kMax ? "max" : "average"));
    field("ceil_mode", p.ceil_mode);
    field("x", lengths_of(x));
  }
};

// One plane of a pooling. All lengths in elements.
struct PoolGeometry {
  std::int64_t height, width, out_height, out_width;
  std::int64_t window_y, window_x, stride_y, stride_x, pad_y, pad_x;
};
OWL_MODULE_API PoolGeometry pool_geometry(const conv::Pooler& p, const Shape& x);

// A distribution runs over `count` axes, from the first on.
struct SoftmaxParams : Params {
  SoftmaxParams(int first, int count) : first(first), count(count) {}
  SoftmaxParams(conv::SoftOp op, int ndim)
      : first(op == conv::SoftOp::kInstance ? 0 : ndim - 2),
        count(op == conv::SoftOp::kInstance && ndim > 1 ? ndim - 1 : 1) {}
  int first, count;

  void visit(const ParamVisitor& field) const override {
    field("first", first);
    field("count", count);
  }
};

// The array as [inner, length, outer]: inner * outer distributions of `length` elements, `inner` apart.
struct SoftmaxLayout {
  std::int64_t inner = 1, length = 1, outer = 1;

  SoftmaxLayout(const Shape& x, const Params* params) {
    const auto& p = static_cast<const SoftmaxParams&>(*params);
    for (int axis = 0; axis < x.ndim(); ++axis)
      (axis < p.first ? inner : axis < p.first + p.count ? length : outer) *= x[axis];
  }
};

struct LrnParams : Params {
  explicit LrnParams(const conv::Lrner& l) : lrner(l) {}
  conv::Lrner lrner;

  void visit(const ParamVisitor& field) const override {
    field("local_size", lrner.local_size);
    field("alpha", lrner.alpha);
    field("beta", lrner.beta);
  }
};

}  // namespace owl
