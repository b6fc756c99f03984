// Waiting for what usually comes within a few microseconds, less than sleeping and waking up take.
#pragma once

#include <chrono>

#include "backend/cpu/cost.h"
#include "backend/cpu/denormals.h"

namespace owl {

// Spins while `unchanged()`, for a bounded time. False: it still is.
template <class F> bool spin_while(F unchanged) {
  constexpr auto most = std::chrono::nanoseconds(static_cast<std::int64_t>(cpu::cost::kSpinNs));
  const auto end = std::chrono::steady_clock::now() + most;
  do {
    for (int i = 0; i < 16; ++i) {
      if (!unchanged()) return true;
      cpu_relax();
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

}  // namespace owl
