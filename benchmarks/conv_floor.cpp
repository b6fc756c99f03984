// Seconds for the five convolution passes of the walkthrough's CNN over a minibatch of 256, in a bare loop:
// conv_floor [--images 256] [--batches 40] [--rounds 4]
//
// Each pass has its operands in the layouts in which it is fastest on this machine: oneDNN's own choice, nhwc or nchw,
// separately for its images and its results. Converting them is not counted.
#include <string_view>
#include <unordered_map>

#include "floor.h"

namespace {

using dnnl::memory;
using Tag = memory::format_tag;
constexpr auto kFloat = memory::data_type::f32;
constexpr int kTries = 5;

struct Convolution {
  const char* name;
  memory::dim channels, size, filters, kernel, pad;

  memory::dim out_size() const { return size + 2 * pad - kernel + 1; }
};
constexpr Convolution kFirst{"conv1", 1, 28, 16, 5, 0}, kSecond{"conv2", 16, 12, 32, 5, 2};

enum class Way { kForward, kDataGradient, kWeightGradient };
struct Pass {
  const char* name;
  Convolution convolution;
  Way way;
};
constexpr Pass kPasses[] = {  // no gradient of the first layer's images: training does not need it
    {"conv1_forward", kFirst, Way::kForward},
    {"conv2_forward", kSecond, Way::kForward},
    {"conv2_data_gradient", kSecond, Way::kDataGradient},
    {"conv2_weight_gradient", kSecond, Way::kWeightGradient},
    {"conv1_weight_gradient", kFirst, Way::kWeightGradient},
};

struct Ready {
  dnnl::primitive primitive;
  std::unordered_map<int, memory> operands;
  double seconds = 0;
};

const dnnl::engine& engine() {
  static const dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}
dnnl::stream& stream() {
  static dnnl::stream only(engine());
  return only;
}

memory filled(const memory::desc& desc) {
  memory m(desc, engine());
  floors::fill(static_cast<float*>(m.get_data_handle()), desc.get_size() / sizeof(float));
  return m;
}

void run(const Ready& r) {
  r.primitive.execute(stream(), r.operands);
  stream().wait();
}

// Makes the pass in these layouts; false if oneDNN has only its reference implementation, thousands of times slower.
bool make(const Pass& pass, memory::dim images, Tag image_layout, Tag result_layout, Ready& ready) {
  const auto& c = pass.convolution;
  const memory::desc x({images, c.channels, c.size, c.size}, kFloat, image_layout);
  const memory::desc y({images, c.filters, c.out_size(), c.out_size()}, kFloat, result_layout);
  const memory::desc w({c.filters, c.channels, c.kernel, c.kernel}, kFloat, Tag::any);
  const memory::dims strides{1, 1}, pad{c.pad, c.pad};
  const auto direct = dnnl::algorithm::convolution_direct;
  const auto usable = [](const auto& d) {
    return d.get(true) != nullptr && !std::string_view(d.impl_info_str()).starts_with("ref");
  };
  const dnnl::convolution_forward::primitive_desc forward(engine(), dnnl::prop_kind::forward_training, direct, x, w, y,
                                                          strides, pad, pad, {}, true);
  if (!usable(forward)) return false;
  if (pass.way == Way::kForward) {
    ready.primitive = dnnl::convolution_forward(forward);
    ready.operands = {{DNNL_ARG_SRC, filled(forward.src_desc())},
                      {DNNL_ARG_WEIGHTS, filled(forward.weights_desc())},
                      {DNNL_ARG_DST, filled(forward.dst_desc())}};
  } else if (pass.way == Way::kDataGradient) {
    const dnnl::convolution_backward_data::primitive_desc back(engine(), direct, x, w, y, strides, pad, pad, forward,
                                                               {}, true);
    if (!usable(back)) return false;
    ready.primitive = dnnl::convolution_backward_data(back);
    ready.operands = {{DNNL_ARG_DIFF_SRC, filled(back.diff_src_desc())},
                      {DNNL_ARG_WEIGHTS, filled(back.weights_desc())},
                      {DNNL_ARG_DIFF_DST, filled(back.diff_dst_desc())}};
  } else {
    const dnnl::convolution_backward_weights::primitive_desc back(engine(), direct, x, w, y, strides, pad, pad, forward,
                                                                  {}, true);
    if (!usable(back)) return false;
    ready.primitive = dnnl::convolution_backward_weights(back);
    ready.operands = {{DNNL_ARG_SRC, filled(back.src_desc())},
                      {DNNL_ARG_DIFF_WEIGHTS, filled(back.diff_weights_desc())},
                      {DNNL_ARG_DIFF_DST, filled(back.diff_dst_desc())}};
  }
  return true;
}

Ready quickest(const Pass& pass, memory::dim images) {
  Ready least;
  for (const Tag image_layout : {Tag::any, Tag::nhwc, Tag::nchw})
    for (const Tag result_layout : {Tag::any, Tag::nhwc, Tag::nchw}) {
      Ready ready;
      if (!make(pass, images, image_layout, result_layout, ready)) continue;
      ready.seconds = floors::best(kTries, [&] { run(ready); });
      if (!least.primitive || ready.seconds < least.seconds) least = std::move(ready);
    }
  if (!least.primitive) throw std::runtime_error(std::string("oneDNN has no implementation of ") + pass.name);
  return least;
}

}  // namespace

int main(int argc, char** argv) {
  const int images = floors::option(argc, argv, "--images", 256);
  const int batches = floors::option(argc, argv, "--batches", 40);
  const int rounds = floors::option(argc, argv, "--rounds", 4);
  floors::Figures figures{{"threads", floors::use_threads_of_owl()}};
  std::vector<Ready> passes;
  for (const auto& pass : kPasses) {
    passes.push_back(quickest(pass, images));
    figures.emplace_back(std::string(pass.name) + "_ms", 1e3 * passes.back().seconds);
  }
  const double round = floors::best(rounds, [&] {
    for (int b = 0; b < batches; ++b)
      for (const auto& pass : passes) run(pass);
  });
  floors::report("cnn-convolutions", round / batches, figures);
}
