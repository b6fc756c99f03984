#include "backend/cpu/backend.h"

#include <cstdlib>
#include <cstring>

#include "backend/cpu/nan_watch.h"
#include "backend/cpu/tile.h"
#include "base/env.h"
#include "runtime/task.h"

namespace owl::cpu {

namespace {

class CpuBackend : public Backend {
 public:
  void* allocate(std::size_t bytes) override { return std::aligned_alloc(64, bytes); }
  void free(void* data, std::size_t) override { std::free(data); }
  void upload(void* device, const void* host, std::size_t bytes) override { std::memcpy(device, host, bytes); }

  void launch(Task& task, Launch& launch) override {
    if (task.program) {
      std::vector<const void*> in;
      std::vector<void*> out;
      for (auto& operand : task.inputs) in.push_back(operand.array.data);
      for (auto& operand : task.outputs) out.push_back(operand.array.data);
      const auto watch = task.traced ? std::make_shared<NanWatch>(*task.program) : nullptr;
      launch_program(*task.program, std::move(in), std::move(out), launch, watch.get());
      if (watch) launch.stage(1, [watch, &task](std::int64_t) { watch->report(task); });
    } else {
      for (auto& operand : task.inputs) launch.operands.push_back(operand.array);
      task.op->cpu({launch.operands, task.outputs[0].array, task.params.get()}, launch);
      if (task.traced) watch_kernel(task, launch);
    }
  }
};

// Plans and schedules like any device, but has no values: what is left is the engine itself.
class NullBackend : public Backend {
 public:
  void* allocate(std::size_t) override { return nullptr; }
  void free(void*, std::size_t) override {}
  void upload(void*, const void*, std::size_t) override {}
  void launch(Task&, Launch&) override {}
  bool computes() const override { return false; }
};

std::string thread_count_text(int n) { return std::to_string(n) + (n == 1 ? " thread" : " threads"); }

}  // namespace

std::unique_ptr<Device> make_device() {
  const int n = available_threads();
  return std::make_unique<Device>(Device::Kind::kCpu, "CPU, " + thread_count_text(n), n, false,
                                  std::make_unique<CpuBackend>());
}

std::unique_ptr<Device> make_simulated_gpu(int index) {
  const int n = available_threads();
  const auto name = "simulated GPU " + std::to_string(index) + " (CPU, " + thread_count_text(n) + ")";
  return std::make_unique<Device>(Device::Kind::kGpu, name, n, true, std::make_unique<CpuBackend>());
}

std::unique_ptr<Device> make_null_device() {
  return std::make_unique<Device>(Device::Kind::kNull, "null device (plans, computes nothing)", 1, true,
                                  std::make_unique<NullBackend>());
}

}  // namespace owl::cpu
