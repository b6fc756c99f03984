// Seeing inside: what the planner would do, where time goes, who made the first NaN.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include "owl/export.h"
#include "owl/narray.h"

namespace owl OWL_API {

// From now on every operation runs alone, before the next is recorded, as with OWL_EAGER=1 (or no longer): what goes
// wrong is raised at its own line. Values are the same.
void eager(bool on = true);
bool is_eager();

// Operations recorded from now on, by any thread, are watched (or no longer): the first that makes a NaN or an
// infinity from finite operands becomes a NaNError, raised where its value is first waited for. Bits do not change.
void trace_nan(bool on = true);
bool tracing_nan();

// One unit of work that a device would run.
struct PlannedTask {
  std::string kind;                     // "fused" (elementwise alone), "kernel" (with elementwise around it) or "copy"
  int device = 0;
  Shape shape;                          // of what it computes
  bool channels_last = false;           // its results are images whose channels are neighbours in memory
  std::vector<std::string> operations;  // in the order in which they run
  std::vector<std::string> places;      // "file:line" of each, "" where unknown
  std::int64_t bytes_read = 0, bytes_written = 0;
  std::int64_t outputs = 0;             // values that reach memory
  std::int64_t alike = 1;               // equal programs over arrays of their own that run as this task
  std::vector<int> after;               // the tasks of this plan whose results it reads
  int reuses = -1;                      // the task whose memory its result takes over; -1: none of this plan
  double cost_us = 0;                   // estimate, on one thread
};

struct Plan {
  std::vector<PlannedTask> tasks;       // in an order in which they could run
  std::string str() const;              // a table
};

// What would run for these values, or for everything recorded, if it were planned now. Runs nothing. Values that are
// computed, or being computed, need no task: a script that was quiet for OWL_IDLE_US has none left to explain.
Plan explain(std::span<const NArray> values);
inline Plan explain(std::initializer_list<NArray> values) { return explain(std::span(values.begin(), values.size())); }
inline Plan explain(const NArray& value) { return explain(std::span(&value, 1)); }
Plan explain();

// The recorded, not yet planned graph behind these values in Graphviz's language: operations that would run as one
// task share a frame, values in memory are the leaves.
std::string draw(std::span<const NArray> values);
inline std::string draw(std::initializer_list<NArray> values) { return draw(std::span(values.begin(), values.size())); }
inline std::string draw(const NArray& value) { return draw(std::span(&value, 1)); }
[[deprecated("use owl::draw")]] inline std::string dot(std::span<const NArray> values) { return draw(values); }

// While it lives, nothing leaves the window but by a wait: what is recorded can be explained whole.
class HoldWindow {
 public:
  HoldWindow();
  ~HoldWindow() { release(); }
  void release();
  HoldWindow(const HoldWindow&) = delete;
  HoldWindow& operator=(const HoldWindow&) = delete;

 private:
  bool held_ = true;
};

// Records what every thread of the engine does, from start_profile to stop_profile, which writes it as a trace for
// ui.perfetto.dev or chrome://tracing: a lane per worker and per recording thread, the script's line on each task.
// Error: it is on already (or was not), or the file cannot be written; a file is replaced as a whole.
void start_profile(const std::string& path);
void stop_profile();

// What the engine is doing at this moment, as lines of text: recorded operations, tasks that run or wait, memory.
std::string describe_engine();

}  // namespace owl
