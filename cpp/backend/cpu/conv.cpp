// Convolution and its gradients: cut into chunks of images (and, if there are few images, blocks of channels) by size
// alone. A chunk's images are converted to the layout in which oneDNN is fast, and its results back, while they are in
// the L2 cache.
#include <algorithm>
#include <bit>

#include "backend/cpu/nn.h"
#include "base/counters.h"
#include "backend/cpu/onednn_conv.h"
#include "backend/cpu/plain_conv.h"
#include "backend/cpu/isa/nn_kernels.h"
#include "base/visit_dtype.h"

namespace owl::cpu {

namespace {

constexpr double kChunkFlops = 50e6;           // half a millisecond on one core, or less
constexpr double kChunkBytes = 640e3;          // images in both layouts; more do not fit the cache
constexpr double kLongFlops = 4 * kChunkFlops; // a chunk worth cutting into blocks of channels
constexpr std::int64_t kManyChunks = 16;       // enough for load balance; channels are then not cut
constexpr std::int64_t kBlock = 32;            // channels of a block: a multiple of the vector length
// For the partial sums of a weight gradient, which are written and read: at most this, and this many times the images'.
constexpr std::int64_t kPartialBytes = 64 << 20, kPartialsByImages = 4;
constexpr std::int64_t kSumStep = 1 << 14;
constexpr std::int64_t kBiasChunk = 1 << 15;   // elements of a chunk of the bias gradient

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// The work as a grid: chunks of images times blocks of channels (of the result's channels, or of the filters for the
// weight gradient).
struct Cut {
  std::int64_t images, image_chunks, channels, blocks;
};

// A power of two; there may be fewer images.
std::int64_t images_of_a_chunk(const ConvGeometry& g, std::size_t itemsize) {
  const double bytes = 2.0 * static_cast<double>(itemsize) *
                       static_cast<double>(g.channels * g.plane() + g.filters * g.out_plane());
  const double n = std::clamp(std::min(kChunkFlops / g.flops_per_image(), kChunkBytes / bytes), 1.0, 1e6);
  return std::bit_floor(static_cast<std::uint64_t>(n));  // strips are multiples of every kernel's chunks
}

Cut cut(const ConvGeometry& g, std::int64_t images, std::int64_t channels) {
  Cut c{std::min(images, g.images), ceil_div(g.images, images), channels, 1};
  if (g.groups > 1 || c.image_chunks >= kManyChunks) return c;
  const double flops = g.flops_per_image() * static_cast<double>(c.images);
  if (flops < kLongFlops) return c;
  const auto blocks = std::min(static_cast<std::int64_t>(flops / (2 * kChunkFlops)), ceil_div(channels, kBlock));
  c.channels = std::min(channels, ceil_div(ceil_div(channels, blocks), kBlock) * kBlock);
  c.blocks = ceil_div(channels, c.channels);
  return c;
}

Cut cut_of(ConvPass pass, const ConvGeometry& g) {
  const auto images = images_of_a_chunk(g, sizeof(float));
  if (pass != ConvPass::kBackWeight) return cut(g, images, pass == ConvPass::kForward ? g.filters : g.channels);
  const auto of_w = g.filters * g.taps();
  const auto of_images = g.images * (g.channels * g.plane() + g.filters * g.out_plane());
  const auto most = std::min(kPartialBytes / static_cast<std::int64_t>(sizeof(float)), kPartialsByImages * of_images);
  const auto most_partials = std::max<std::int64_t>(1, most / of_w);
  const auto fewest = std::bit_ceil(static_cast<std::uint64_t>(ceil_div(g.images, most_partials)));
  return cut(g, std::max(images, static_cast<std::int64_t>(fewest)), g.filters);
}

ConvGeometry geometry(const char* op, const Params* params, const Shape& x, const Shape& w) {
  return conv_geometry(op, static_cast<const ConvParams&>(*params).convolver, x, w);
}

// All primitives of a grid; the last chunk of images and the last block of channels may need their own.
class Primitives {
 public:
  Primitives(ConvPass pass, const ConvGeometry& g, ChannelsLast last, const Cut& grid) : cut_(grid) {
    const bool of_channels = pass == ConvPass::kBackData;
    const auto all_channels = of_channels ? g.channels : g.filters;
    const std::int64_t channels[] = {grid.channels, all_channels - (grid.blocks - 1) * grid.channels};
    const std::int64_t images[] = {grid.images, g.images - (grid.image_chunks - 1) * grid.images};
    for (const int b : {0, 1})
      for (const int i : {0, 1}) {
        if (i && images[1] == images[0]) {
          all_[b][1] = all_[b][0];
        } else if (b && channels[1] == channels[0]) {
          all_[1][i] = all_[0][i];
        } else {
          ConvGeometry part = g;
          part.images = images[i];
          (of_channels ? part.channels : part.filters) = channels[b];
          all_[b][i] = OnednnConv::get(pass, part, last, g.channels * g.plane(), g.filters * g.out_plane(), g.taps());
        }
      }
  }
  // Whether oneDNN implements all of them, with one layout of the weights for all chunks of images.
  bool usable() const {
    for (auto& block : all_) {
      for (auto& p : block)
        if (!p) return false;
      if (!block[0]->same_weights(*block[1])) return false;
    }
    return true;
  }
  const OnednnConv& at(std::int64_t images, std::int64_t block) const {
    return *all_[block == cut_.blocks - 1][images == cut_.image_chunks - 1];
  }
  // A number that identifies the layout of all blocks' weights.
  std::int64_t weight_layout() const {
    return all_[0][0]->weight_layout() << 40 | all_[1][0]->weight_layout() << 20 | cut_.channels % (1 << 20);
  }
  std::size_t block_bytes() const { return ThreadScratch::padded(all_[0][0]->weight_bytes()); }

 private:
  Cut cut_;
  std::shared_ptr<const OnednnConv> all_[2][2];
};

// Computes the chunk from images that begin with chunk `first`; the result too.
using ComputeChunk = std::function<void(std::int64_t images, std::int64_t block, std::int64_t first, const float* x,
                                        const float* y, const FinishRanges& finished)>;

// Calls compute(images, block, first chunk of images) for the chunks of a strip.
template <class F> void for_each_chunk(const Cut& c, std::int64_t first_image, std::int64_t images, F compute) {
  const auto first = first_image / c.images;
  for (std::int64_t i = first; i < first + ceil_div(images, c.images); ++i)
    for (std::int64_t block = 0; block < c.blocks; ++block) compute(i, block, first);
}

// The forward and the data pass: stages convert the weights to the primitives' layout. Null: not oneDNN's.
ComputeChunk prepare_onednn(ConvPass pass, const ConvGeometry& g, ChannelsLast last, const float* w, const float* b,
                            Launch& launch) {
  const bool forward = pass == ConvPass::kForward;
  const Cut c = cut_of(pass, g);
  const Primitives primitives(pass, g, last, c);
  if (!primitives.usable()) return nullptr;
  const auto step = primitives.block_bytes();
  // The offset of a block's part in the public weights: filters are the last axis, channels the one before.
  const auto w_block = c.channels * (forward ? g.taps() : g.kernel_y * g.kernel_x);
  const bool convert = !primitives.at(0, 0).weights_are_public();
  std::byte* inner_w = nullptr;
  bool converted = false;  // already at an earlier read
  if (convert) {
    const auto bytes = step * static_cast<std::size_t>(c.blocks);
    inner_w = static_cast<std::byte*>(launch.packed(w, primitives.weight_layout(), bytes, converted));
    if (!inner_w) inner_w = static_cast<std::byte*>(launch.scratch(bytes));
  }
  const auto weights = [=](std::int64_t block) {
    return convert ? reinterpret_cast<float*>(inner_w + step * static_cast<std::size_t>(block))
                   : const_cast<float*>(w) + block * w_block;
  };
  if (convert && !converted)
    launch.stage(c.blocks, [=](std::int64_t block) {
      count(counters.conversions);
      primitives.at(0, block).import_weights(weights(block), w + block * w_block);
    });
  const auto channels = forward ? g.filters : g.channels, plane = forward ? g.out_plane() : g.plane();  // of the result
  return [=](std::int64_t images, std::int64_t block, std::int64_t first, const float* x, const float* y,
             const FinishRanges& finished) {
    const auto at = (images - first) * c.images;
    const auto x_at = at * g.channels * g.plane() + (forward ? 0 : block * c.channels * g.plane());
    const auto y_at = at * g.filters * g.out_plane() + (forward ? block * c.channels * g.out_plane() : 0);
    primitives.at(images, block).run(const_cast<float*>(x) + x_at, weights(block),
                                     forward ? b + block * c.channels : nullptr, const_cast<float*>(y) + y_at);
    if (!finished) return;
    const auto count = std::min(c.images, g.images - images * c.images);
    if (c.blocks == 1) return finished({forward ? y_at : x_at, count * channels * plane});
    finished({forward ? y_at : x_at, std::min(c.channels, channels - block * c.channels) * plane,
              channels * plane, count});
  };
}

bool launch_onednn(ConvPass pass, const ConvGeometry& g, ChannelsLast last, const float* x, const float* w,
                   const float* b, const float* y, const FinishRanges& finished, Launch& launch) {
  const auto compute = prepare_onednn(pass, g, last, w, b, launch);
  if (!compute) return false;
  const Cut c = cut_of(pass, g);
  launch.stage(c.image_chunks * c.blocks, [=](std::int64_t chunk) {
    compute(chunk / c.blocks, chunk % c.blocks, 0, x, y, finished);
  });
  return true;
}

// The weight gradient: a partial sum for each chunk of images, added in order, then converted to the public layout.
class BackWeight {
 public:
  BackWeight(const ConvGeometry& g, ChannelsLast last, Launch& launch)
      : g_(g), cut_(cut_of(ConvPass::kBackWeight, g)), primitives_(ConvPass::kBackWeight, g, last, cut_) {
    if (!usable()) return;
    step_ = static_cast<std::int64_t>(primitives_.block_bytes() / sizeof(float));
    row_ = step_ * cut_.blocks;
    const auto elements = static_cast<std::size_t>(row_ * (cut_.image_chunks + 1));
    partial_ = static_cast<float*>(launch.scratch(elements * sizeof(float)));
  }
  bool usable() const { return primitives_.usable(); }
  const Cut& cut() const { return cut_; }

  // From images that begin with chunk `first`.
  void sum_chunk(std::int64_t images, std::int64_t block, std::int64_t first, const float* x, const float* y) const {
    const auto at = (images - first) * cut_.images;
    primitives_.at(images, block)
        .run(const_cast<float*>(x) + at * g_.channels * g_.plane(), partial_ + images * row_ + block * step_, nullptr,
             const_cast<float*>(y) + at * g_.filters * g_.out_plane() + block * cut_.channels * g_.out_plane());
  }

  void end(float* w, const FinishRanges& finished, Launch& launch) const {
    if (cut_.image_chunks > 1)
      launch.stage(ceil_div(row_, kSumStep), [work = *this](std::int64_t chunk) { work.add(chunk * kSumStep); });
    launch.stage(cut_.blocks, [=, work = *this](std::int64_t block) { work.finish(block, w, finished); });
  }

 private:
  float* total() const { return cut_.image_chunks == 1 ? partial_ : partial_ + row_ * cut_.image_chunks; }

  void add(std::int64_t begin) const {
    const auto n = std::min(row_ - begin, kSumStep);
    nn_table().f32.sum_rows(total() + begin, partial_ + begin, n, cut_.image_chunks, row_);
  }

  void finish(std::int64_t block, float* w, const FinishRanges& finished) const {
    const auto first = block * cut_.channels, taps = g_.taps();
    primitives_.at(0, block).export_weights(w + first * taps, total() + block * step_);
    if (finished) finished({first * taps, std::min(cut_.channels, g_.filters - first) * taps});
  }

  ConvGeometry g_;
  Cut cut_;
  Primitives primitives_;
  std::int64_t step_ = 0, row_ = 0;  // elements of a block, and of all blocks
  float* partial_ = nullptr;         // a row for each chunk of images, and one for the total
};

bool launch_onednn_back_weight(const ConvGeometry& g, ChannelsLast last, const float* x, float* w, const float* y,
                               const FinishRanges& finished, Launch& launch) {
  const BackWeight work(g, last, launch);
  if (!work.usable()) return false;
  launch.stage(work.cut().image_chunks * work.cut().blocks, [=, blocks = work.cut().blocks](std::int64_t chunk) {
    work.sum_chunk(chunk / blocks, chunk % blocks, 0, x, y);
  });
  work.end(w, finished, launch);
  return true;
}

// ---- without oneDNN

template <class T>
void launch_plain_back_weight(const ConvGeometry& g, const T* x, T* w, const T* y, const FinishRanges& finished,
                              Launch& launch) {
  const auto size = g.filters * g.taps();
  const auto most_partials = std::max<std::int64_t>(1, kPartialBytes / (size * static_cast<std::int64_t>(sizeof(T))));
  const auto images = std::max(images_of_a_chunk(g, sizeof(T)), ceil_div(g.images, most_partials));
  const auto chunks = ceil_div(g.images, images);
  const auto bytes = static_cast<std::size_t>(chunks * size) * sizeof(T);
  T* const partial = chunks == 1 ? w : static_cast<T*>(launch.scratch(bytes));
  launch.stage(chunks, [=](std::int64_t chunk) {
    const auto begin = chunk * images, end = std::min(g.images, begin + images);
    for (auto i = begin; i < end; ++i)
      plain_conv_back_weight(g, x + i * g.channels * g.plane(), partial + chunk * size,
                             y + i * g.filters * g.out_plane(), i > begin);
    if (finished && chunks == 1) finished({0, size});
  });
  if (chunks > 1)
    launch.stage(ceil_div(size, kSumStep), [=](std::int64_t chunk) {
      const auto begin = chunk * kSumStep, end = std::min(size, begin + kSumStep);
      nn_table().kernels<T>().sum_rows(w + begin, partial + begin, end - begin, chunks, size);
      if (finished) finished({begin, end - begin});
    });
}

template <class T>
void launch_conv(const ConvGeometry& g, ChannelsLast last, const T* x, const T* w, const T* b, T* y,
                 const FinishRanges& finished, Launch& launch) {
  if constexpr (std::is_same_v<T, float>)
    if (g.taps() > 0 && launch_onednn(ConvPass::kForward, g, last, x, w, b, y, finished, launch)) return;
  launch.stage(g.images, [=, image = g.filters * g.out_plane()](std::int64_t i) {
    plain_conv(g, x + i * g.channels * g.plane(), w, b, y + i * image);
    if (finished) finished({i * image, image});
  });
}

template <class T>
void launch_back_data(const ConvGeometry& g, ChannelsLast last, T* x, const T* w, const T* y,
                      const FinishRanges& finished, Launch& launch) {
  if constexpr (std::is_same_v<T, float>)
    if (g.filters > 0 && launch_onednn(ConvPass::kBackData, g, last, x, w, nullptr, y, finished, launch)) return;
  launch.stage(g.images, [=, image = g.channels * g.plane()](std::int64_t i) {
    plain_conv_back_data(g, x + i * image, w, y + i * g.filters * g.out_plane());
    if (finished) finished({i * image, image});
  });
}

template <class T>
void launch_back_weight(const ConvGeometry& g, ChannelsLast last, const T* x, T* w, const T* y,
                        const FinishRanges& finished, Launch& launch) {
  if (g.images == 0)
    return launch.stage(1, [=, size = g.filters * g.taps()](std::int64_t) {
      std::fill_n(w, size, T(0));
      if (finished) finished({0, size});
    });
  if constexpr (std::is_same_v<T, float>)
    if (launch_onednn_back_weight(g, last, x, w, y, finished, launch)) return;
  launch_plain_back_weight(g, x, w, y, finished, launch);
}

// The images of a chunk of the bias gradient: a power of two.
std::int64_t bias_images(const Shape& err) {
  const auto n = kBiasChunk / std::max<std::int64_t>(1, err[0] * err[1] * err[2]);
  return static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(std::max<std::int64_t>(1, n))));
}

// Sums each plane, then over the images: first within chunks of images, at the end over the chunks in order. Channels
// are independent of one another, so that how they are shared out changes no bits.
template <class T> struct BackBias {
  BackBias(const ArrayRef& err, Launch& launch)
      : plane(err.shape[0] * err.shape[1]), channels(err.shape[2]), images(err.shape[3]), last(err.channels_last) {
    step = bias_images(err.shape);
    chunks = ceil_div(images, step);
    const auto elements = std::max<std::int64_t>(1, plane * std::min(step, images));  // of a channel in a chunk
    const auto together = ceil_div(std::max<std::int64_t>(1, (1 << 15) / elements), kBlock);
    width = std::max<std::int64_t>(1, std::min(channels, together * kBlock)), blocks = ceil_div(channels, width);
    const auto partials = std::max<std::int64_t>(1, chunks) * channels;
    partial = static_cast<double*>(launch.scratch(static_cast<std::size_t>(partials) * sizeof(double)));
  }

  // From images that begin with chunk `first`.
  void sum_chunk(std::int64_t chunk, std::int64_t block, std::int64_t first_chunk, const T* y) const {
    const auto first = block * width, n = std::min(width, channels - first);
    double* const totals = partial + chunk * channels + first;
    std::fill_n(totals, n, 0.0);
    const auto sum = nn_table().kernels<T>().sum;
    const auto bytes = last ? static_cast<std::size_t>(n) * sizeof(double) : 0;
    ThreadScratch scratch(bytes);
    auto* const sums = reinterpret_cast<double*>(scratch.take(bytes));
    for (auto i = chunk * step; i < std::min(images, (chunk + 1) * step); ++i) {
      const T* const image = y + (i - first_chunk * step) * channels * plane;
      if (last) nn_table().sum_channels(sums, reinterpret_cast<const float*>(image) + first, plane, channels, n);
      for (std::int64_t c = 0; c < n; ++c) totals[c] += last ? sums[c] : sum(image + (first + c) * plane, plane);
    }
  }

  void end(T* b, const FinishRanges& finished, Launch& launch) const {
    launch.stage(1, [=, work = *this](std::int64_t) {
      for (std::int64_t c = 0; c < work.channels; ++c) {
        double total = 0;
        for (std::int64_t k = 0; k < work.chunks; ++k) total += work.partial[k * work.channels + c];
        b[c] = static_cast<T>(total);
      }
      if (finished) finished({0, work.channels});
    });
  }

  std::int64_t plane, channels, images;
  bool last;
  std::int64_t step, chunks;   // images of a chunk
  std::int64_t width, blocks;  // channels of a block
  double* partial;             // a row of channels for each chunk
};

template <class T> void launch_back_bias(const KernelArgs& args, Launch& launch) {
  if (args.in[0].shape[2] == 0) return;
  const BackBias<T> work(args.in[0], launch);
  launch.stage(work.chunks * work.blocks, [work, y = args.in[0].as<const T>()](std::int64_t job) {
    work.sum_chunk(job / work.blocks, job % work.blocks, 0, y);
  });
  work.end(args.out.as<T>(), args.finished, launch);
}

// Whether oneDNN implements the pass, not in planes, and channels are not cut.
bool takes_channels_last(ConvPass pass, const ConvGeometry& g) {
  if (g.groups > 1 || g.images * g.plane() * g.filters * g.taps() == 0) return false;
  const Cut c = cut_of(pass, g);
  try {
    if (c.blocks > 1) return false;
    const Primitives primitives(pass, g, {true, true}, c);
    return primitives.usable() && !primitives.at(0, 0).in_planes();
  } catch (const std::exception&) {  // the planner only asks; running the convolution raises it again
    return false;
  }
}

// The images of a strip, if oneDNN implements the pass for these layouts; 0 otherwise.
std::int64_t strip_unit(ConvPass pass, const ConvGeometry& g, ChannelsLast last, const ArrayRef& out) {
  if (out.dtype != DType::kFloat32 || g.images * g.plane() * g.filters * g.taps() == 0) return 0;
  const Cut c = cut_of(pass, g);
  try {
    const bool whole_chunks = std::has_single_bit(static_cast<std::uint64_t>(c.images));
    return whole_chunks && Primitives(pass, g, last, c).usable() ? c.images : 0;
  } catch (const std::exception&) {  // as above
    return 0;
  }
}

// The arrays of a pass by their role: of x or its gradient, of the result or its error.
struct Roles {
  ConvGeometry g;
  ChannelsLast last;
};
Roles roles(const char* op, const Params* params, const ArrayRef& x, const ArrayRef& w, const ArrayRef& y) {
  return {geometry(op, params, x.shape, w.shape), {x.channels_last, y.channels_last}};
}

StripKernel in_strips_of(ConvPass pass, const Roles& r, const ArrayRef& w, const float* b, Launch& launch) {
  auto compute = prepare_onednn(pass, r.g, r.last, w.as<const float>(), b, launch);
  if (!compute) throw Error("internal error: oneDNN has no primitive for a convolution that it had one for");
  return {[c = cut_of(pass, r.g), compute = std::move(compute), forward = pass == ConvPass::kForward](
              const KernelArgs& strip, std::int64_t first) {
    const ArrayRef &x = forward ? strip.in[0] : strip.out, &y = forward ? strip.out : strip.in[0];
    for_each_chunk(c, first, x.shape[3], [&](std::int64_t images, std::int64_t block, std::int64_t first_chunk) {
      compute(images, block, first_chunk, x.as<const float>(), y.as<const float>(), strip.finished);
    });
  }};
}

}  // namespace

unsigned conv_channels_last(std::span<const Shape> in, const Shape&, const Params* params) {
  return takes_channels_last(ConvPass::kForward, geometry("conv", params, in[0], in[1])) ? 0b0011 : 0;
}
unsigned conv_back_data_channels_last(std::span<const Shape> in, const Shape& out, const Params* params) {
  return takes_channels_last(ConvPass::kBackData, geometry("conv_back_data", params, out, in[1])) ? 0b011 : 0;
}
unsigned conv_back_weight_channels_last(std::span<const Shape> in, const Shape& out, const Params* params) {
  return takes_channels_last(ConvPass::kBackWeight, geometry("conv_back_weight", params, in[1], out)) ? 0b110 : 0;
}
unsigned conv_back_bias_channels_last(std::span<const Shape>, const Shape&, const Params*) { return 0b10; }

StripTraits conv_strips(std::span<const ArrayRef> in, const ArrayRef& out, const Params* params) {
  const auto [g, last] = roles("conv", params, in[0], in[1], out);
  return {strip_unit(ConvPass::kForward, g, last, out), 0b0011};
}
StripTraits conv_back_data_strips(std::span<const ArrayRef> in, const ArrayRef& out, const Params* params) {
  const auto [g, last] = roles("conv_back_data", params, out, in[1], in[0]);
  return {strip_unit(ConvPass::kBackData, g, last, out), 0b011};
}
StripTraits conv_back_weight_strips(std::span<const ArrayRef> in, const ArrayRef& out, const Params* params) {
  const auto [g, last] = roles("conv_back_weight", params, in[1], out, in[0]);
  const auto unit = strip_unit(ConvPass::kBackWeight, g, last, out);
  if (unit == 0) return {};
  return {unit, 0b110, (ceil_div(g.images, unit) + 1) * static_cast<std::int64_t>(out.nbytes())};
}
StripTraits conv_back_bias_strips(std::span<const ArrayRef> in, const ArrayRef&, const Params*) {
  if (in[0].shape.size() == 0) return {};
  const auto unit = bias_images(in[0].shape), chunks = ceil_div(in[0].shape[3], unit);
  return {unit, 0b10, chunks * in[0].shape[2] * static_cast<std::int64_t>(sizeof(double))};
}

StripKernel conv_in_strips(const KernelArgs& whole, Launch& launch) {
  return in_strips_of(ConvPass::kForward, roles("conv", whole.params, whole.in[0], whole.in[1], whole.out), whole.in[1],
                      whole.in[2].as<const float>(), launch);
}

StripKernel conv_back_data_in_strips(const KernelArgs& whole, Launch& launch) {
  return in_strips_of(ConvPass::kBackData, roles("conv_back_data", whole.params, whole.out, whole.in[1], whole.in[0]),
                      whole.in[1], nullptr, launch);
}

StripKernel conv_back_weight_in_strips(const KernelArgs& whole, Launch& launch) {
  const auto [g, last] = roles("conv_back_weight", whole.params, whole.in[1], whole.out, whole.in[0]);
  const BackWeight work(g, last, launch);
  return {[work](const KernelArgs& strip, std::int64_t first) {
            const ArrayRef &y = strip.in[0], &x = strip.in[1];
            for_each_chunk(work.cut(), first, x.shape[3], [&](auto images, auto block, auto first_chunk) {
              work.sum_chunk(images, block, first_chunk, x.as<const float>(), y.as<const float>());
            });
          },
          [work, w = whole.out.as<float>(), finished = whole.finished](Launch& l) { work.end(w, finished, l); }};
}

StripKernel conv_back_bias_in_strips(const KernelArgs& whole, Launch& launch) {
  return visit_float("conv_back_bias", whole.out.dtype, [&]<class T>() -> StripKernel {
    const BackBias<T> work(whole.in[0], launch);
    return {[work](const KernelArgs& strip, std::int64_t first) {
              const auto first_chunk = first / work.step;
              const auto end = first_chunk + ceil_div(strip.in[0].shape[3], work.step);
              for (auto chunk = first_chunk; chunk < end; ++chunk)
                for (std::int64_t block = 0; block < work.blocks; ++block)
                  work.sum_chunk(chunk, block, first_chunk, strip.in[0].as<const T>());
            },
            [work, b = whole.out.as<T>(), finished = whole.finished](Launch& l) { work.end(b, finished, l); }};
  });
}

void conv(const KernelArgs& args, Launch& launch) {
  if (args.out.shape.size() == 0) return;
  const auto g = geometry("conv", args.params, args.in[0].shape, args.in[1].shape);
  visit_float("conv", args.out.dtype, [&]<class T>() {
    launch_conv(g, {args.in[0].channels_last, args.out.channels_last}, args.in[0].as<const T>(),
                args.in[1].as<const T>(), args.in[2].as<const T>(), args.out.as<T>(), args.finished, launch);
  });
}

void conv_back_data(const KernelArgs& args, Launch& launch) {
  if (args.out.shape.size() == 0) return;
  const auto g = geometry("conv_back_data", args.params, args.out.shape, args.in[1].shape);
  visit_float("conv_back_data", args.out.dtype, [&]<class T>() {
    launch_back_data(g, {args.out.channels_last, args.in[0].channels_last}, args.out.as<T>(),
                     args.in[1].as<const T>(), args.in[0].as<const T>(), args.finished, launch);
  });
}

void conv_back_weight(const KernelArgs& args, Launch& launch) {
  if (args.out.shape.size() == 0) return;
  const auto g = geometry("conv_back_weight", args.params, args.in[1].shape, args.out.shape);
  visit_float("conv_back_weight", args.out.dtype, [&]<class T>() {
    launch_back_weight(g, {args.in[1].channels_last, args.in[0].channels_last}, args.in[1].as<const T>(),
                       args.out.as<T>(), args.in[0].as<const T>(), args.finished, launch);
  });
}

void conv_back_bias(const KernelArgs& args, Launch& launch) {
  visit_float("conv_back_bias", args.out.dtype, [&]<class T>() { launch_back_bias<T>(args, launch); });
}

}  // namespace owl::cpu
