// float32 convolutions by oneDNN: one primitive for a chunk of images and a block of channels, with the reorders to and
// from the layout in which it is fast.
#pragma once

#include "backend/cpu/onednn.h"
#include "ops/nn.h"

namespace owl::cpu {

enum class ConvPass { kForward, kBackData, kBackWeight };

// Whether the public arrays x and y are channels last (ArrayRef::channels_last) or made of planes.
struct ChannelsLast {
  bool x = false, y = false;
};

// Converts images from public memory to a primitive's layout and back.
class Planes {
 public:
  Planes() = default;
  // `transpose`: from planes to nhwc, for which owl's transpose is faster than a reorder.
  Planes(const dnnl::memory::desc& open, const dnnl::memory::desc& inner, bool transpose);
  std::size_t inner_bytes() const { return way_ == Way::kSame ? 0 : inner_.get_size(); }  // 0: used in place
  void enter(void* inner, const void* open) const;
  void leave(void* open, const void* inner) const;

 private:
  enum class Way { kSame, kTranspose, kReorder };
  Way way_ = Way::kSame;
  dnnl::memory::desc open_, inner_;
  dnnl::reorder in_, out_;
  std::int64_t images_ = 0, channels_ = 0, plane_ = 0, image_stride_ = 0;
};

class OnednnConv {
 public:
  // `g` describes the block: `images`, `channels` and `filters` are the block's; the strides are those of images in the
  // whole x and y, and of filters in the whole w. Null if oneDNN has no fast implementation. Cached. Channels last
  // requires that channels are not cut.
  static std::shared_ptr<const OnednnConv> get(ConvPass pass, const ConvGeometry& g, ChannelsLast last,
                                               std::int64_t x_image_stride, std::int64_t y_image_stride,
                                               std::int64_t w_filter_stride);

  // The weights in the layout of the primitive: bytes, and the conversions from and to the public layout.
  std::size_t weight_bytes() const { return w_.get_size(); }
  bool same_weights(const OnednnConv& o) const { return w_ == o.w_; }
  bool weights_are_public() const { return w_ == public_w_; }
  std::int64_t weight_layout() const { return weight_layout_; }  // a number that identifies it
  bool in_planes() const { return in_planes_; }  // it computes in planes, whatever layout x and y have
  void import_weights(float* to, const float* w) const;
  void export_weights(float* w, const float* from) const;

  // x and y point to the block's first element; w is in the primitive's layout. Computes y (with the bias b), x, or w,
  // depending on the pass.
  void run(float* x, float* w, const float* b, float* y) const;

 private:
  OnednnConv() = default;
  template <class Description> void adopt(const Description& description);
  bool build(ConvPass pass, const ConvGeometry& g, ChannelsLast last, dnnl::memory::format_tag layout);

  ConvPass pass_{};
  dnnl::memory::desc public_x_, public_w_, public_y_, x_, w_, y_, b_, scratch_;
  std::int64_t weight_layout_ = 0;
  bool in_planes_ = false;
  dnnl::primitive primitive_;
  Planes x_planes_, y_planes_;
  dnnl::reorder reorder_w_;  // empty if the layouts are the same
};

}  // namespace owl::cpu
