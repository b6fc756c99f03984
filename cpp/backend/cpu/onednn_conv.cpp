#include "backend/cpu/onednn_conv.h"

#include <algorithm>
#include <new>
#include <string_view>

#include "backend/cpu/isa/kernels.h"

namespace owl::cpu {

namespace {

using dnnl::memory;
using Tag = memory::format_tag;
constexpr auto kFloat = memory::data_type::f32;

// A product of the filters and each image's planes, large enough to be one.
bool is_product_of_planes(const ConvGeometry& g) {
  return g.taps() == g.channels && g.stride_x == 1 && g.stride_y == 1 && g.pad_x == 0 && g.pad_y == 0 &&
         g.plane() >= 128;
}

// Whether blocks of 16 channels (`any`) are full.
bool fills_blocks(const ConvGeometry& g) { return g.channels % 16 == 0 && g.filters % 16 == 0; }

// In order of preference: the same for images in planes and with channels last, because they decide the bits. Measured on
// one core, conversions included:
// - nhwc, with owl's transposes, is at or near the best for most: with AVX-512 14 us for the forward pass of an image of
//   12x12x16 with 32 5x5 filters, against 19 us in blocks, plus 60 us for oneDNN's reorders.
// - nchw is a product for 1x1 filters, without conversions: with AVX2 9 to 10 ms for each pass of 8 images of 56x56x256
//   with 64 filters, 15 to 16 ms in nhwc. It is im2col and a product for the data gradient of an image of few channels:
//   10 us for 28x28x1 with 16 filters, 40 us in nhwc.
// - blocks suit the weight gradient: with AVX2 28 ms for 8 images of 56x56x64 with 64 3x3 filters, 36 ms in nhwc; 1x1
//   filters with a stride: 22 ms for 56x56x256 with 512 filters, 33 ms in nhwc; and the data gradient of odd numbers of
//   channels: 4.0 against 5.6 ms for 16 images of 29x31x13 with 27 5x5 filters.
std::vector<Tag> layouts(ConvPass pass, const ConvGeometry& g) {
  if (g.groups > 1) return {Tag::any, Tag::nhwc, Tag::nchw};
  if (pass == ConvPass::kBackData && g.channels <= 3) return {Tag::nchw, Tag::any};
  if (is_product_of_planes(g)) return {Tag::nchw, Tag::any, Tag::nhwc};
  const bool blocks = pass == ConvPass::kBackWeight ? fills_blocks(g)
                      : g.taps() == g.channels      ? g.stride_x > 1 && fills_blocks(g)
                                                    : pass == ConvPass::kBackData && g.channels % 8 != 0;
  if (blocks) return {Tag::any, Tag::nhwc, Tag::nchw};
  return {Tag::nhwc, Tag::any, Tag::nchw};
}

memory::desc images_desc(std::int64_t images, std::int64_t channels, std::int64_t height, std::int64_t width,
                         std::int64_t image_stride, bool channels_last) {
  const memory::dims planes{image_stride, height * width, width, 1};
  const memory::dims last{image_stride, 1, width * channels, channels};
  return {{images, channels, height, width}, kFloat, channels_last ? last : planes};
}

memory::desc weights_desc(const ConvGeometry& g, std::int64_t filter_stride) {
  const auto area = g.kernel_y * g.kernel_x, inputs = g.channels / g.groups;
  if (g.groups == 1)
    return {{g.filters, inputs, g.kernel_y, g.kernel_x}, kFloat, {filter_stride, area, g.kernel_x, 1}};
  const auto outputs = g.filters / g.groups;
  return {{g.groups, outputs, inputs, g.kernel_y, g.kernel_x},
          kFloat,
          {outputs * filter_stride, filter_stride, area, g.kernel_x, 1}};
}

std::int64_t number_of(const memory::desc& from, const memory::desc& to) {
  static std::mutex mutex;
  static auto* all = new std::vector<std::pair<memory::desc, memory::desc>>;
  std::lock_guard lock(mutex);
  const auto found = std::ranges::find(*all, std::pair(from, to));
  if (found == all->end()) all->emplace_back(from, to);
  return found - all->begin();
}

dnnl::primitive_attr user_scratch() {
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return attr;
}

dnnl::reorder make_reorder(const memory::desc& from, const memory::desc& to) {
  if (from == to) return {};
  const auto& engine = onednn_engine();
  return dnnl::reorder(dnnl::reorder::primitive_desc(engine, from, engine, to));
}

memory view(const memory::desc& desc, const void* data) {
  return memory(desc, onednn_engine(), const_cast<void*>(data));
}

void reorder(const dnnl::reorder& r, const memory::desc& from, const void* source, const memory::desc& to,
             void* target) {
  r.execute(onednn_stream(), {{DNNL_ARG_FROM, view(from, source)}, {DNNL_ARG_TO, view(to, target)}});
}

}  // namespace

Planes::Planes(const memory::desc& open, const memory::desc& inner, bool transpose) : open_(open), inner_(inner) {
  if (open == inner) return;
  const auto dims = open.get_dims();
  images_ = dims[0], channels_ = dims[1], plane_ = dims[2] * dims[3];
  image_stride_ = open.get_strides()[0];
  if (transpose && channels_ == 1 && (image_stride_ == plane_ || images_ == 1)) return;
  way_ = transpose ? Way::kTranspose : Way::kReorder;
  if (way_ == Way::kTranspose) return;
  in_ = make_reorder(open, inner);
  out_ = make_reorder(inner, open);
}

void Planes::enter(void* inner, const void* open) const {
  if (way_ == Way::kReorder) return reorder(in_, open_, open, inner_, inner);
  const auto transpose = best_tile_table().transpose4;
  for (std::int64_t i = 0; i < images_; ++i)
    transpose(static_cast<std::uint32_t*>(inner) + i * channels_ * plane_, channels_,
              static_cast<const std::uint32_t*>(open) + i * image_stride_, plane_, channels_, plane_);
}

void Planes::leave(void* open, const void* inner) const {
  if (way_ == Way::kReorder) return reorder(out_, inner_, inner, open_, open);
  const auto transpose = best_tile_table().transpose4;
  for (std::int64_t i = 0; i < images_; ++i)
    transpose(static_cast<std::uint32_t*>(open) + i * image_stride_, plane_,
              static_cast<const std::uint32_t*>(inner) + i * channels_ * plane_, channels_, plane_, channels_);
}

template <class Description> void OnednnConv::adopt(const Description& d) {
  scratch_ = d.scratchpad_desc();
  if constexpr (std::is_same_v<Description, dnnl::convolution_forward::primitive_desc>) {
    x_ = d.src_desc(), w_ = d.weights_desc(), y_ = d.dst_desc();
    primitive_ = dnnl::convolution_forward(d);
  } else if constexpr (std::is_same_v<Description, dnnl::convolution_backward_data::primitive_desc>) {
    x_ = d.diff_src_desc(), w_ = d.weights_desc(), y_ = d.diff_dst_desc();
    primitive_ = dnnl::convolution_backward_data(d);
  } else {
    x_ = d.src_desc(), w_ = d.diff_weights_desc(), y_ = d.diff_dst_desc();
    primitive_ = dnnl::convolution_backward_weights(d);
  }
}

bool OnednnConv::build(ConvPass pass, const ConvGeometry& g, ChannelsLast last, Tag layout) {
  const auto& engine = onednn_engine();
  const auto algorithm = dnnl::algorithm::convolution_direct;
  const auto kind = dnnl::prop_kind::forward_training;
  const memory::desc x(public_x_.get_dims(), kFloat, layout), y(public_y_.get_dims(), kFloat, layout);
  const memory::desc w(public_w_.get_dims(), kFloat, Tag::any);
  const memory::dims strides{g.stride_y, g.stride_x}, dilates{g.dilation_y - 1, g.dilation_x - 1};
  const memory::dims pad{g.pad_y, g.pad_x};
  const auto attr = user_scratch();
  const dnnl::convolution_forward::primitive_desc forward(engine, kind, algorithm, x, w, b_, y, strides, dilates,
                                                          pad, pad, attr, true);
  if (!forward.get(true)) return false;
  // oneDNN's reference implementation is a thousand times slower than plain_conv.cpp.
  const auto fast = [](const auto& d) {
    return d.get(true) && !std::string_view(d.impl_info_str()).starts_with("ref");
  };
  switch (pass) {
    case ConvPass::kForward:
      if (!fast(forward)) return false;
      adopt(forward);
      break;
    case ConvPass::kBackData: {
      const dnnl::convolution_backward_data::primitive_desc d(engine, algorithm, x, w, y, strides, dilates, pad,
                                                              pad, forward, attr, true);
      if (!fast(d)) return false;
      adopt(d);
      break;
    }
    case ConvPass::kBackWeight: {
      const dnnl::convolution_backward_weights::primitive_desc d(engine, algorithm, x, w, y, strides, dilates, pad,
                                                                 pad, forward, attr, true);
      if (!fast(d)) return false;
      adopt(d);
      break;
    }
  }
  in_planes_ = layout == Tag::nchw;
  weight_layout_ = number_of(public_w_, w_);
  x_planes_ = Planes(public_x_, x_, layout == Tag::nhwc && !last.x);
  y_planes_ = Planes(public_y_, y_, layout == Tag::nhwc && !last.y);
  reorder_w_ = pass == ConvPass::kBackWeight ? make_reorder(w_, public_w_) : make_reorder(public_w_, w_);
  return true;
}

std::shared_ptr<const OnednnConv> OnednnConv::get(ConvPass pass, const ConvGeometry& g, ChannelsLast last,
                                                  std::int64_t x_image_stride, std::int64_t y_image_stride,
                                                  std::int64_t w_filter_stride) {
  static auto* cache = new LruCache<OnednnConv>(1024);
  const LruCache<OnednnConv>::Key key{
      static_cast<std::int64_t>(pass), g.images, g.channels, g.height, g.width, g.filters, g.kernel_y, g.kernel_x,
      g.out_height, g.out_width, g.pad_y, g.pad_x, g.stride_y, g.stride_x, g.dilation_y, g.dilation_x, g.groups,
      last.x, last.y, x_image_stride, y_image_stride, w_filter_stride};
  return cache->get(key, [&]() -> std::shared_ptr<const OnednnConv> {
    use_one_openmp_thread();
    std::shared_ptr<OnednnConv> made(new OnednnConv);
    made->pass_ = pass;
    made->public_x_ = images_desc(g.images, g.channels, g.height, g.width, x_image_stride, last.x);
    made->public_y_ = images_desc(g.images, g.filters, g.out_height, g.out_width, y_image_stride, last.y);
    made->public_w_ = weights_desc(g, w_filter_stride);
    made->b_ = {{g.filters}, kFloat, Tag::a};
    for (const Tag layout : layouts(pass, g)) {
      try {
        if (made->build(pass, g, last, layout)) return made;
      } catch (const dnnl::error& e) {
        if (e.status == dnnl_out_of_memory) throw std::bad_alloc();
      }
    }
    return nullptr;
  });
}

void OnednnConv::import_weights(float* to, const float* w) const { reorder(reorder_w_, public_w_, w, w_, to); }
void OnednnConv::export_weights(float* w, const float* from) const {
  if (reorder_w_) return reorder(reorder_w_, w_, from, public_w_, w);
  std::copy_n(from, w_.get_size() / sizeof(float), w);
}

void OnednnConv::run(float* x, float* w, const float* b, float* y) const {
  const std::size_t x_bytes = x_planes_.inner_bytes(), y_bytes = y_planes_.inner_bytes();
  const std::size_t scratch_bytes = scratch_.get_size();
  ThreadScratch memory_of_thread(ThreadScratch::padded(x_bytes) + ThreadScratch::padded(y_bytes) +
                                 ThreadScratch::padded(scratch_bytes));
  void* const inner_x = x_bytes ? static_cast<void*>(memory_of_thread.take(x_bytes)) : x;
  void* const inner_y = y_bytes ? static_cast<void*>(memory_of_thread.take(y_bytes)) : y;
  void* const scratch = memory_of_thread.take(scratch_bytes);

  const bool makes_x = pass_ == ConvPass::kBackData, makes_y = pass_ == ConvPass::kForward;
  if (x_bytes && !makes_x) x_planes_.enter(inner_x, x);
  if (y_bytes && !makes_y) y_planes_.enter(inner_y, y);
  std::unordered_map<int, memory> args;
  args.emplace(makes_x ? DNNL_ARG_DIFF_SRC : DNNL_ARG_SRC, view(x_, inner_x));
  args.emplace(makes_y ? DNNL_ARG_DST : DNNL_ARG_DIFF_DST, view(y_, inner_y));
  args.emplace(pass_ == ConvPass::kBackWeight ? DNNL_ARG_DIFF_WEIGHTS : DNNL_ARG_WEIGHTS, view(w_, w));
  if (makes_y) args.emplace(DNNL_ARG_BIAS, view(b_, b));
  if (scratch) args.emplace(DNNL_ARG_SCRATCHPAD, view(scratch_, scratch));
  primitive_.execute(onednn_stream(), args);
  if (x_bytes && makes_x) x_planes_.leave(x, inner_x);
  if (y_bytes && makes_y) y_planes_.leave(y, inner_y);
}

}  // namespace owl::cpu
