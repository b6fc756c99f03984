// Convolution, pooling, local response normalisation and softmax. Images are [W, H, C, N].
#pragma once

#include "owl/export.h"
#include "owl/narray.h"

namespace owl OWL_API {
namespace conv {

enum class SoftOp { kInstance, kChannel };  // over all axes but the last; over the channel axis (-2)
enum class PoolOp { kMax, kAverage };

NArray softmax(const NArray& x, SoftOp op = SoftOp::kInstance);
NArray log_softmax(const NArray& x, SoftOp op = SoftOp::kInstance);
NArray softmax_back(const NArray& err, const NArray& y, SoftOp op = SoftOp::kInstance);
// Along any one axis.
NArray softmax(const NArray& x, std::int64_t axis);
NArray log_softmax(const NArray& x, std::int64_t axis);
NArray softmax_back(const NArray& err, const NArray& y, std::int64_t axis);

// Cross-correlation. x [W, H, C_in, N], w [kw, kh, C_in / groups, C_out], b [C_out].
struct Convolver {
  std::int64_t pad_h = 0, pad_w = 0, stride_v = 1, stride_h = 1;  // v: along H, h: along W
  std::int64_t dilation_h = 1, dilation_w = 1, groups = 1;

  NArray ff(const NArray& x, const NArray& w, const NArray& b) const;
  NArray bp(const NArray& err, const NArray& x, const NArray& w) const;           // gradient of x
  NArray weight_grad(const NArray& err, const NArray& x, const NArray& w) const;  // gradient of w
  NArray bias_grad(const NArray& err) const;                                      // [C_out]
};

struct Pooler {
  std::int64_t h, w, stride_v, stride_h, pad_h = 0, pad_w = 0;
  PoolOp op = PoolOp::kMax;
  bool ceil_mode = true;  // a partial window at the end counts

  NArray ff(const NArray& x) const;
  NArray bp(const NArray& err, const NArray& ff_y, const NArray& ff_x) const;
};

// y = x / (1 + alpha / local_size * sum of x^2 over local_size channels)^beta  (Krizhevsky et al. 2012, Caffe's
// scaling)
struct Lrner {
  std::int64_t local_size;
  double alpha, beta;

  NArray ff(const NArray& x, const NArray& scale) const;  // scale: any array of x's shape; not read
  NArray bp(const NArray& x, const NArray& y, const NArray& scale, const NArray& err) const;
};

}  // namespace conv
}  // namespace owl
