// Devices, waiting, memory and counters.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "owl/export.h"

namespace owl OWL_API {

// Does nothing: owl starts by itself. Kept because Minerva's programs call it.
inline void initialize(int* /*argc*/ = nullptr, char*** /*argv*/ = nullptr) {}

int create_cpu_device();
int create_gpu_device(int index);  // DeviceError where there is no such GPU
int create_null_device();          // plans everything, runs nothing: for tests of planning
int get_gpu_device_count();
bool has_cuda();
void set_device(int id);           // for this thread; each thread starts on device 0
int current_device();

// While it lives, this thread records for another device.
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
  std::string name;  // what it is, e.g. "CPU, 2 threads" or "simulated GPU 0 (CPU, 2 threads)"
  int threads;
  bool simulated;
};
std::vector<DeviceInfo> devices();

// Waits until everything recorded and still held has its value; raises the first error among them that it has not raised
// before. (Waiting for a failed value itself always raises its error.)
void wait_for_all();

struct MemoryStats {
  std::size_t allocated = 0, cached = 0, peak = 0, limit = 0;  // bytes; limit 0: none
};
void set_memory_limit(std::size_t bytes, std::optional<int> device = {});  // 0: no limit
MemoryStats memory_stats(std::optional<int> device = {});
void empty_cache();

// How GPUs compute float32 matrix products and convolutions that are recorded from now on, by any thread: in full, or with
// operands rounded to TF32 (10 bits of mantissa) or bfloat16 (7 bits); sums and results stay float32. float64 and CPU
// devices always compute in full.
enum class MatmulPrecision { kFloat32, kTf32, kBfloat16 };
void set_matmul_precision(MatmulPrecision precision);
MatmulPrecision matmul_precision();

// What the engine did since it started. Tests hold the planner to these.
struct Stats {
  std::int64_t live_nodes = 0, live_storages = 0, window_nodes = 0, tasks_in_flight = 0;
  std::int64_t recorded = 0, dropped = 0;        // operations; those dropped because no handle could ask for them
  std::int64_t kernels = 0, fused_operations = 0; // tasks run; operations inside fused programs
  std::int64_t in_place = 0, copies = 0;         // outputs that took over an input's memory; layout or device copies
  std::int64_t buffers_written = 0, bytes_written = 0;
  std::int64_t tasks_skipped = 0, inline_tasks = 0;
  std::int64_t conversions = 0;                  // of weights into a kernel's own layout
  std::int64_t graph_captures = 0, graph_replays = 0;  // CUDA graphs made, and lists of commands run as one
};
Stats stats();

}  // namespace owl
