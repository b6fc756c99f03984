// Inspection: what the planner would do, where time goes, which operation made the first NaN.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include "owl/export.h"
#include "owl/narray.h"

namespace owl OWL_API {

// With `on`, every operation runs alone from now on, before the next is recorded, as with OWL_EAGER=1: errors are
// thrown at their own line. Values are the same.
void eager(bool on = true);
bool is_eager();

// With `on`, owl watches the operations recorded from now on, by any thread: the first that makes a NaN or an infinity
// from finite operands fails with a NaNError, thrown where a thread first waits for its value. Bits do not change.
void trace_nan(bool on = true);
bool tracing_nan();

// One unit of work that a device would run.
struct PlannedTask {
  std::string kind;                     // "fused" (elementwise alone), "kernel" (with elementwise around it), "copy",
                                        // or "strips" (several of these over images, some images at a time)
  int device = 0;
  Shape shape;                          // of its result
  bool channels_last = false;           // its results are images with the channels of a pixel adjacent in memory
  std::vector<std::string> operations;  // in the order in which they run
  std::vector<std::string> places;      // "file:line" of each, "" where unknown
  std::int64_t bytes_read = 0, bytes_written = 0;
  std::int64_t outputs = 0;             // values that reach memory
  std::int64_t alike = 1;               // equal programs over arrays of their own that run as this task
  std::vector<int> after;               // the tasks of this plan whose results it reads
  int reuses = -1;                      // the task of this plan whose memory its result takes over; -1: none
  double cost_us = 0;                   // estimate, on one thread
};

struct Plan {
  std::vector<PlannedTask> tasks;       // in a possible order
  std::string str() const;              // a table
};

// The tasks that would run for these values, or for everything recorded, if it were planned now. Runs nothing. Values
// that are computed, or being computed, need no task: after OWL_IDLE_US without a new operation no task is left to
// explain.
Plan explain(std::span<const NArray> values);
inline Plan explain(std::initializer_list<NArray> values) { return explain(std::span(values.begin(), values.size())); }
inline Plan explain(const NArray& value) { return explain(std::span(&value, 1)); }
Plan explain();

// The recorded, not yet planned graph of these values in Graphviz's language: operations that would run as one
// task share a frame, values in memory are the leaves.
std::string draw(std::span<const NArray> values);
inline std::string draw(std::initializer_list<NArray> values) { return draw(std::span(values.begin(), values.size())); }
inline std::string draw(const NArray& value) { return draw(std::span(&value, 1)); }
[[deprecated("use owl::draw")]] inline std::string dot(std::span<const NArray> values) { return draw(values); }

// While one exists, only a wait takes operations from the window: a whole computation can be recorded and explained.
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
// Error: a profile is already being recorded (or none is), or the file cannot be written; an existing file is replaced
// atomically.
void start_profile(const std::string& path);
void stop_profile();

// The engine's state, as lines of text: recorded operations, tasks that run or wait, memory.
std::string describe_engine();

}  // namespace owl
