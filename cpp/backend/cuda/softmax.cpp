// Softmax, its logarithm and their gradients: chooses the number of threads of a distribution (see device/softmax.h).
#include "backend/cuda/kernels.h"
#include "backend/cuda/printer.h"
#include "ops/nn.h"

namespace owl::cuda {

namespace {

constexpr std::int64_t kFullThreads = 1 << 16;  // enough to fill a GPU
constexpr std::int64_t kMostPerThread = 32;     // elements; beyond that prefer more lanes
constexpr std::int64_t kLeastPerThread = 4;     // elements, to outweigh joining the lanes
constexpr std::int64_t kFewLanes = 8;           // up to this many, adjacent threads read adjacent elements

struct Layout : SoftmaxLayout {
  using SoftmaxLayout::SoftmaxLayout;

  std::int64_t distributions() const { return inner * outer; }
  std::int64_t lanes() const {
    std::int64_t n = 1;
    const auto worth = [&] {
      if (n < kFewLanes && (inner == 1 ? length > kLeastPerThread * n : length > kMostPerThread * n)) return true;
      if (length > kMostPerThread * n && inner == 1) return true;
      return length > kLeastPerThread * n && distributions() * n < kFullThreads;
    };
    while (n < kBlock && worth()) n *= 2;
    return n;
  }
};

void launch(const char* name, const std::string& which, const Args& args, const void* second, Emit& emit) {
  const Layout l(args.out.shape, args.params);
  const auto lanes = l.lanes();
  const std::string type = type_name(args.out.dtype);
  Slots slots;
  slots.add(l.inner);
  slots.add(l.length);
  slots.add(l.distributions());
  if (second) slots.add(second);
  const auto across = kBlock / lanes;
  emit.launch({name, text::softmax,
               "using T = " + type + ";\nusing R = T;\nconstexpr bool kRows = " + (l.inner == 1 ? "true" : "false") +
                   ";\nconstexpr int kLanes = " + std::to_string(lanes) + ";\n" + which},
              (l.distributions() + across - 1) / across, slots, true, true);
}

}  // namespace

void softmax(const Args& args, Emit& emit) {
  launch("owl_softmax", "#define OWL_SOFTMAX\nconstexpr bool kLogarithm = false;\n", args, nullptr, emit);
}
void log_softmax(const Args& args, Emit& emit) {
  launch("owl_softmax", "#define OWL_SOFTMAX\nconstexpr bool kLogarithm = true;\n", args, nullptr, emit);
}
void softmax_back(const Args& args, Emit& emit) {
  launch("owl_softmax_back", "#define OWL_SOFTMAX_BACK\n", args, args.in[1].data, emit);
}

void log_softmax_back(const Args& args, Emit& emit) {
  launch("owl_log_softmax_back", "#define OWL_LOG_SOFTMAX_BACK\n", args, args.in[1].data, emit);
}

}  // namespace owl::cuda
