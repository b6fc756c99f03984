// Shared by several tests.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "owl/owl.h"
#include "runtime/engine.h"

namespace owl::test {

inline std::vector<float> values(const NArray& x) {
  std::vector<float> v(static_cast<std::size_t>(x.size()));
  x.copy_to_host(v.data());
  return v;
}

// An array whose elements are start, start + 1, ...
inline NArray ramp(const Shape& shape, float start = 0) {
  std::vector<float> v(static_cast<std::size_t>(shape.size()));
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = start + static_cast<float>(i);
  return from_host(v.data(), shape, DType::kFloat32);
}

// Sets another window for a test; with negative idle_us idle workers do not plan it.
struct Window {
  Window(std::size_t count, std::int64_t idle_us) { set_window(count, idle_us); }
  ~Window() { set_window(64, 100); }
};

// The change of the engine's counters since construction.
struct Since {
  Stats before = (wait_for_all(), stats());
  Stats now() const { return stats(); }
  std::int64_t kernels() const { return now().kernels - before.kernels; }
  std::int64_t buffers() const { return now().buffers_written - before.buffers_written; }
  std::int64_t fused() const { return now().fused_operations - before.fused_operations; }
  std::int64_t in_place() const { return now().in_place - before.in_place; }
  std::int64_t copies() const { return now().copies - before.copies; }
  std::int64_t dropped() const { return now().dropped - before.dropped; }
};

}  // namespace owl::test
