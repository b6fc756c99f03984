// Random graphs, for tests of the planner.
#pragma once

#include <random>
#include <vector>

#include "plan/batch.h"
#include "support.h"

namespace owl::test {

// Records operations on a few values that it keeps: programs, kernels with programs around them, views, conversions.
class RandomGraph {
 public:
  explicit RandomGraph(unsigned seed) : random_(seed) {
    for (const Shape& shape : {Shape{4, 4}, Shape{4, 1}, Shape{4, 4}}) values_.push_back(ramp(shape));
    images_ = ramp({4, 4, 16, 2});
  }

  void record(int count) {
    for (int i = 0; i < count; ++i) {
      values_.push_back(next());
      if (values_.size() > 8) values_.erase(values_.begin() + choose(8));
      if (choose(20) == 0) record_images();
      if (choose(50) == 0)
        for (int k = 0; k < planner::kMaxInstructions; ++k) values_.back() = values_.back() * 0.5;
    }
  }

 private:
  int choose(int n) { return static_cast<int>(random_() % static_cast<unsigned>(n)); }
  const NArray& pick() { return values_[static_cast<std::size_t>(choose(static_cast<int>(values_.size())))]; }
  bool is_square(const NArray& x) const { return x.shape() == Shape({4, 4}); }

  NArray next() {
    const NArray x = pick(), y = pick();
    switch (choose(12)) {
      case 0: return x * 0.5 + y;
      case 1: return elewise::relu(x) - y;
      case 2: return elewise::where(x > y, x, y);
      case 3: return is_square(x) && is_square(y) ? x * y : elewise::tanh(y);
      case 4: return is_square(x) ? x.trans() : x + 1.0;
      case 5: return x.sum({choose(2)}) + y;
      case 6: return conv::softmax(x * 0.1);
      case 7: return elewise::clip(x, -9.0, 9.0).astype(choose(2) ? DType::kInt32 : DType::kFloat64);
      case 8: return x.astype(DType::kFloat32) + ramp({4, 4});
      case 9: return is_square(x) ? slice(x, 1, choose(3), 1) + y : x - y;
      case 10: return elewise::relu(concat(std::vector<NArray>{x + 1.0, x}, 0)).max({0}) + y;
      default: return elewise::square(x) + x;
    }
  }

  // Poolings, which take channels last, and programs between them; some of the images have handles.
  void record_images() {
    const conv::Pooler pool{3, 3, 1, 1, 1, 1};
    std::vector<NArray> images{pool.ff(images_), pool.ff(images_ * 0.5)};
    const auto any = [&] { return images[static_cast<std::size_t>(choose(static_cast<int>(images.size())))]; };
    for (int i = choose(8); i > 0; --i) {
      const auto x = any(), y = any();
      images.push_back(choose(2) ? pool.ff(x) : choose(2) ? elewise::relu(x) + y : x * 0.5);
    }
    if (choose(2)) held_ = any();
    values_.push_back(pool.ff(images.back()).sum().reshape({1, 1}) + ramp({4, 4}));
  }

  std::mt19937 random_;
  std::vector<NArray> values_;
  NArray images_, held_;
};

}  // namespace owl::test
