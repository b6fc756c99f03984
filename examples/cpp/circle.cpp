// A network with a user-defined layer learns which points of a square lie in a circle.
//
// The activation, swish(x) = x / (1 + exp(-x)), is an operation that owl lacks: this program defines it, forward and
// backward, and owl records, plans and runs it like a built-in one.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <span>

#include "owl/owl.h"

namespace {

// Calls f(i) for i = 0 to count - 1, in chunks of a fixed size: the same bits on any number of threads.
template <class F>
void for_each_chunk(std::int64_t count, owl::Work& work, F f) {
  constexpr std::int64_t kChunk = 1 << 14;
  work.stage((count + kChunk - 1) / kChunk, [=](std::int64_t chunk) {
    const std::int64_t end = std::min(count, (chunk + 1) * kChunk);
    for (std::int64_t i = chunk * kChunk; i < end; ++i) f(i);
  });
}

float logistic(float x) { return 1 / (1 + std::exp(-x)); }

const owl::Op swish("swish", owl::same_as_first,
                    [](std::span<const owl::ConstMemory> in, const owl::Memory& out, owl::Work& work) {
                      const float* x = in[0].as<float>();
                      float* y = out.as<float>();
                      for_each_chunk(out.shape.size(), work, [=](std::int64_t i) { y[i] = x[i] * logistic(x[i]); });
                    });

// (err, x): the error at swish(x), times swish'(x).
const owl::Op swish_back("swish_back", owl::same_as_first,
                         [](std::span<const owl::ConstMemory> in, const owl::Memory& out, owl::Work& work) {
                           const float *err = in[0].as<float>(), *x = in[1].as<float>();
                           float* dx = out.as<float>();
                           for_each_chunk(out.shape.size(), work, [=](std::int64_t i) {
                             const float s = logistic(x[i]);
                             dx[i] = err[i] * (s + x[i] * s * (1 - s));
                           });
                         });

struct Network {
  owl::NArray w1 = owl::randn({32, 2}), b1 = owl::zeros({32, 1});
  owl::NArray w2 = owl::randn({2, 32}, 0, 0.1), b2 = owl::zeros({2, 1});

  // The probabilities of the two classes for each point of x, [2, n].
  owl::NArray predict(const owl::NArray& x) const { return owl::conv::softmax(w2 * swish(w1 * x + b1) + b2); }

  // One step of gradient descent on the mean cross-entropy. This only records the step.
  void train(const owl::NArray& x, const owl::NArray& target, float rate) {
    const owl::NArray a = w1 * x + b1, h = swish(a);
    const owl::NArray err = (owl::conv::softmax(w2 * h + b2) - target) / static_cast<double>(x.shape()[1]);
    const owl::NArray da = swish_back(w2.trans() * err, a);
    w2 -= err * h.trans() * rate;
    b2 -= err.sum(1) * rate;
    w1 -= da * x.trans() * rate;
    b1 -= da.sum(1) * rate;
  }
};

// n points of the square and, as columns of zeros and ones, the class of each.
struct Points {
  explicit Points(std::int64_t n) : x(owl::rand({2, n}, -1, 1)) {
    const owl::NArray inside = (owl::elewise::square(x).sum(0) < 0.6).astype(owl::DType::kFloat32);
    target = owl::concat({inside, 1.0 - inside}, 0);
  }

  owl::NArray x, target;
};

double accuracy(const Network& network, const Points& points) {
  const owl::NArray right = network.predict(points.x).argmax(0) == points.target.argmax(0);
  return right.astype(owl::DType::kFloat32).mean().item();
}

}  // namespace

int main() try {
  owl::seed(1);
  Network network;
  const Points seen(2000), unseen(2000);
  for (int step = 0; step <= 400; ++step) {
    if (step % 100 == 0) std::printf("step %3d  accuracy %.3f\n", step, accuracy(network, unseen));
    network.train(seen.x, seen.target, 2.0F);
  }
  return accuracy(network, unseen) > 0.95 ? 0 : 1;
} catch (const owl::Error& error) {
  std::fprintf(stderr, "circle: %s\n", error.what());
  return 2;
}
