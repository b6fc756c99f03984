// The public functions of inspect.h.
#include "base/hooks.h"
#include "owl/inspect.h"

#include <algorithm>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/counters.h"
#include "graph/op.h"
#include "plan/explain.h"
#include "runtime/engine.h"
#include "runtime/scheduler.h"

namespace owl {

namespace {

std::vector<Node*> nodes_of(std::span<const NArray> values, const char* function) {
  std::vector<Node*> nodes;
  for (const auto& v : values) {
    if (!v.has_value()) throw Error(std::string(function) + ": an empty NArray has no value");
    nodes.push_back(v.node());
  }
  return nodes;
}

}  // namespace

Plan explain(std::span<const NArray> values) {
  const auto nodes = nodes_of(values, "explain");
  Plan plan;
  Engine::get().with_window([&](const std::vector<Node*>& window) { plan = explain_window(window, &nodes); });
  return plan;
}

Plan explain() {
  Plan plan;
  Engine::get().with_window([&](const std::vector<Node*>& window) { plan = explain_window(window, nullptr); });
  return plan;
}

std::string draw(std::span<const NArray> values) {
  const auto nodes = nodes_of(values, "draw");
  std::string text;
  Engine::get().with_window([&](const std::vector<Node*>& window) { text = draw_window(window, nodes); });
  return text;
}

void eager(bool on) { Engine::get().set_eager(on); }
bool is_eager() { return Engine::get().is_eager(); }

void trace_nan(bool on) { nan_tracing = on; }
bool tracing_nan() { return nan_tracing; }

std::string describe_engine() {
  auto& engine = Engine::get();
  std::string text;
  engine.with_window([&](const std::vector<Node*>& window) {
    text = std::to_string(window.size()) + " operations recorded and not planned";
    if (!window.empty()) text += "; the latest:";
    text += "\n";
    constexpr std::size_t kShown = 20;
    for (std::size_t i = window.size() - std::min(window.size(), kShown); i < window.size(); ++i) {
      const auto place = place_of(window[i]->source);
      text += "operation " + std::string(window[i]->op->name) + " " + window[i]->shape.str() +
              (place.empty() ? "" : " of " + place) + "\n";
    }
    for (const Task* task : engine.held_back()) {
      const auto place = place_of(task->source);
      text += "task " + std::string(task->name) + (place.empty() ? "" : " of " + place) + " on device " +
              std::to_string(task->device->id) + ": held back for more that are alike, " +
              std::to_string(segment_count(*task)) + " so far\n";
    }
  });
  text += Scheduler::get().describe();
  for (Device* d : engine.all_devices()) {
    const auto s = d->allocator.stats();
    const auto holders = d->allocator.largest_holders(5);
    text += "memory of device " + std::to_string(d->id) + ": " + std::to_string(s.allocated) + " bytes in use, " +
            std::to_string(s.cached) + " cached" + (holders.empty() ? "" : "; the largest: " + holders) + "\n";
  }
  return text;
}

Stats stats() {
  Stats s;
  s.window_nodes = static_cast<std::int64_t>(Engine::get().prune());
  s.live_nodes = counters.live_nodes;
  s.live_storages = counters.live_storages;
  s.tasks_in_flight = Scheduler::get().in_flight();
  s.recorded = counters.recorded;
  s.dropped = counters.dropped;
  s.kernels = counters.kernels;
  s.fused_operations = counters.fused_operations;
  s.in_place = counters.in_place;
  s.copies = counters.copies;
  s.buffers_written = counters.buffers_written;
  s.bytes_written = counters.bytes_written;
  s.tasks_skipped = counters.tasks_skipped;
  s.inline_tasks = counters.inline_tasks;
  s.waiter_tasks = counters.waiter_tasks;
  s.wakes = counters.wakes;
  s.conversions = counters.conversions;
  s.plans_reused = counters.plans_reused;
  s.graph_captures = counters.graph_captures;
  s.graph_replays = counters.graph_replays;
  return s;
}

}  // namespace owl
