// The counters that owl::stats() returns.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/module_api.h"

namespace owl {

struct Counters {
  using Count = std::atomic<std::int64_t>;
  Count live_nodes{0}, live_storages{0};
  Count recorded{0}, dropped{0}, kernels{0}, fused_operations{0}, in_place{0}, copies{0};
  Count buffers_written{0}, bytes_written{0}, tasks_skipped{0}, inline_tasks{0}, waiter_tasks{0}, wakes{0}, conversions{0};
  Count plans_reused{0};
  Count graph_captures{0}, graph_replays{0};
};
OWL_MODULE_API extern Counters counters;

inline void count(Counters::Count& c, std::int64_t n = 1) { c.fetch_add(n, std::memory_order_relaxed); }

}  // namespace owl
