// float32 convolutions by oneDNN: one primitive for a chunk of images and a block of channels, with the reorders that
// lead into and out of the layout in which it is fast.
#pragma once

#include "backend/cpu/onednn.h"
#include "ops/nn.h"

namespace owl::cpu {

enum class ConvPass { kForward, kBackData, kBackWeight };

class OnednnConv {
 public:
  // `g` describes the block: `images`, `channels` and `filters` are the block's; the strides say how far apart images
  // of the whole x and y, and filters of the whole w, are in memory. Null where oneDNN has no fast implementation.
  // Cached.
  static std::shared_ptr<const OnednnConv> get(ConvPass pass, const ConvGeometry& g, std::int64_t x_image_stride,
                                               std::int64_t y_image_stride, std::int64_t w_filter_stride);

  // The weights in the layout of the primitive: bytes, and the conversions from and to the public layout.
  std::size_t weight_bytes() const { return w_.get_size(); }
  bool same_weights(const OnednnConv& o) const { return w_ == o.w_; }
  bool weights_are_public() const { return w_ == public_w_; }
  void import_weights(float* to, const float* w) const;
  void export_weights(float* w, const float* from) const;

  // x and y point to the block's first element; w is in the primitive's layout. What is computed: y (with the bias b),
  // x, or w, by the pass.
  void run(float* x, float* w, const float* b, float* y) const;

 private:
  OnednnConv() = default;
  template <class Description> void adopt(const Description& description);
  bool build(ConvPass pass, const ConvGeometry& g, dnnl::memory::format_tag layout);

  ConvPass pass_{};
  dnnl::memory::desc public_x_, public_w_, public_y_, x_, w_, y_, b_, scratch_;
  dnnl::primitive primitive_;
  dnnl::reorder reorder_x_, reorder_w_, reorder_y_;  // empty where the layouts are the same
};

}  // namespace owl::cpu
