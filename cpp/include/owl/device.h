// Devices, waiting, memory and counters.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "owl/export.h"

namespace owl OWL_API {

// Does nothing: owl needs no initialization. Kept because Minerva's programs call it.
inline void initialize(int* /*argc*/ = nullptr, char*** /*argv*/ = nullptr) {}

int create_cpu_device();
int create_gpu_device(int index);  // DeviceError: there is no such GPU
int create_null_device();          // plans, but runs nothing: for tests of the planner
int get_gpu_device_count();
bool has_cuda();
void set_device(int id);           // for this thread; each thread starts on device 0
int current_device();

// Makes another device current on this thread, for a scope.
class DeviceScope {
 public:
  explicit DeviceScope(int id) : before_(current_device()) { set_device(id); }
  ~DeviceScope() { set_device(before_); }
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  int before_;
};

struct DeviceInfo {
  int id;
  std::string kind;  // "cpu", "gpu" or "null"
  std::string name;  // e.g. "CPU, 2 threads" or "simulated GPU 0 (CPU, 2 threads)"
  int threads;
  bool simulated;
};
std::vector<DeviceInfo> devices();

// Waits until all recorded values that still have a handle are computed; throws the earliest of their errors that it
// has not thrown before. (Waiting for a failed value itself always throws its error.)
void wait_for_all();

struct MemoryStats {
  std::size_t allocated = 0, cached = 0, peak = 0, limit = 0;  // bytes; limit 0: none
};
void set_memory_limit(std::size_t bytes, std::optional<int> device = {});  // 0: no limit
MemoryStats memory_stats(std::optional<int> device = {});
void empty_cache();

// How GPUs compute float32 matrix products and convolutions that are recorded from now on, by any thread: with
// unrounded operands, or with operands rounded to TF32 (10 bits of mantissa) or bfloat16 (7 bits); sums and results
// stay float32. float64 and CPU devices never round operands.
enum class MatmulPrecision { kFloat32, kTf32, kBfloat16 };
void set_matmul_precision(MatmulPrecision precision);
MatmulPrecision matmul_precision();

// The engine's counters since its start. Tests check the planner by them.
struct Stats {
  std::int64_t live_nodes = 0, live_storages = 0, window_nodes = 0, tasks_in_flight = 0;
  std::int64_t recorded = 0, dropped = 0;        // operations; of these, dropped before planning
  std::int64_t kernels = 0, fused_operations = 0; // tasks run; operations inside fused programs
  std::int64_t in_place = 0, copies = 0;         // outputs that took over an input's memory; layout or device copies
  std::int64_t buffers_written = 0, bytes_written = 0;
  std::int64_t tasks_skipped = 0, inline_tasks = 0;
  std::int64_t waiter_tasks = 0, wakes = 0;      // tasks run by threads that wait for a value; sleeping workers woken
  std::int64_t conversions = 0;                  // of weights to a kernel-specific layout
  std::int64_t plans_reused = 0;                 // batches of operations that had the plan of an earlier one
  std::int64_t graph_captures = 0, graph_replays = 0;  // CUDA graphs made, and command lists run as one
};
Stats stats();

}  // namespace owl
