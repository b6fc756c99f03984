// Injected faults, for tests: the n-th task, or the n-th request for memory, fails.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/env.h"

namespace owl {

struct Faults {
  std::atomic<std::int64_t> alloc{settings().fault_alloc}, op{settings().fault_op};  // countdown to the failing one

  static bool due(std::atomic<std::int64_t>& left) {
    return left.load(std::memory_order_relaxed) > 0 && left.fetch_sub(1, std::memory_order_relaxed) == 1;
  }
};

inline Faults& faults() {
  static Faults f;
  return f;
}

}  // namespace owl
