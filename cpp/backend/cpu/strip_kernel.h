// What a kernel does in a task in strips (plan/strips.h).
#pragma once

#include <cstdint>
#include <functional>

#include "device/launch.h"

namespace owl::cpu {

// A kernel's work on strips of images.
struct StripKernel {
  // Computes a strip, whose first image is `first`, on the calling thread: the arrays that are cut are the strip's.
  std::function<void(const KernelArgs& strip, std::int64_t first)> run;
  std::function<void(Launch&)> end = nullptr;  // adds the stages behind the last strip, of a sum over the images
};

// Adds the stages before the first strip. The arrays of `whole` that are cut have no data; `whole.finished` is given
// only to a sum.
using StripKernelFn = StripKernel (*)(const KernelArgs& whole, Launch& launch);

// Of a kernel that needs no stages before or behind the strips: runs its stages on each strip.
template <void (*kernel)(const KernelArgs&, Launch&)> StripKernel in_strips(const KernelArgs&, Launch&) {
  return {[](const KernelArgs& strip, std::int64_t) {
    Launch stages;
    kernel(strip, stages);
    for (const auto& stage : stages.stages)
      for (std::int64_t chunk = 0; chunk < stage.chunks; ++chunk) stage.body(chunk);
  }};
}

}  // namespace owl::cpu
