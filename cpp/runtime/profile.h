// The profiler: the spans of each thread, written as a trace for ui.perfetto.dev. Costs one relaxed load when off.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>

#include "graph/node.h"

namespace owl {

struct Task;

namespace profile {

using Clock = std::chrono::steady_clock;

extern std::atomic<bool> on;

// Names the calling thread's lane in the trace.
void name_lane(std::string name);

// A span on the calling thread's lane, from construction to destruction. `task` may end before the span does. Its
// processor time includes the cost of recording it, so a thread's time outside spans is the engine's.
class Span {
 public:
  explicit Span(const Task& task, std::int64_t chunk = -1, std::int64_t chunks = 0) {
    if (on.load(std::memory_order_relaxed)) begin(task, chunk, chunks);
  }
  explicit Span(const char* name) {
    if (on.load(std::memory_order_relaxed)) begin(name);
  }
  ~Span() {
    if (active_) end();
  }
  Span(const Span&) = delete;
  Span& operator=(const Span&) = delete;

 private:
  void begin(const Task& task, std::int64_t chunk, std::int64_t chunks);
  void begin(const char* name);
  void end();

  bool active_ = false;
  Clock::time_point begin_;
  std::int64_t cpu_begin_ns_ = 0;  // of the thread
  std::string name_, arguments_;
  const char* category_ = "";
  Source source_;
};

void lock_for_fork();
void unlock_after_fork(bool child);  // the child records no profile

}  // namespace profile
}  // namespace owl
