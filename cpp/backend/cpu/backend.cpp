#include "backend/cpu/backend.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "backend/cpu/cost.h"
#include "backend/cpu/isa/kernels.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/nan_watch.h"
#include "backend/cpu/run_program.h"
#include "backend/cpu/strips.h"
#include "base/env.h"
#include "plan/task.h"

namespace owl::cpu {

namespace {

double cost_of_kernel(double operations) { return cost::kKernelNs + operations / cost::kOperationsPerNs; }

constexpr std::size_t kHugePage = 2 << 20;

// From this size on a block is a separate mapping. Smaller ones come from the heap, which cannot return memory between
// blocks in use to the system.
#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t kMapped = std::size_t{1} << 60;  // AddressSanitizer checks only heap blocks
#else
constexpr std::size_t kMapped = 256 << 10;
#endif

void* map(std::size_t bytes) {
  void* const data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return data == MAP_FAILED ? nullptr : data;
}

std::size_t whole_pages(std::size_t bytes) {
  static const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return (bytes + page - 1) / page * page;
}

// Large blocks request huge pages: fewer page faults at first use, and fewer page table walks afterwards.
void* map_huge(std::size_t bytes) {
  auto* const data = static_cast<std::byte*>(map(bytes + kHugePage));
  if (!data) return nullptr;
  const auto before = -reinterpret_cast<std::uintptr_t>(data) % kHugePage;
  if (before) munmap(data, before);
  if (before < kHugePage) munmap(data + before + bytes, kHugePage - before);
#ifdef MADV_HUGEPAGE
  madvise(data + before, bytes, MADV_HUGEPAGE);  // only a hint: the block also works without huge pages
#endif
  return data + before;
}

class CpuBackend : public Backend {
 public:
  void* allocate(std::size_t bytes) override {
    if (bytes < kMapped) return std::aligned_alloc(64, bytes);
    return bytes < kHugePage ? map(whole_pages(bytes)) : map_huge(whole_pages(bytes));
  }
  void free(void* data, std::size_t bytes, std::uint64_t) override {
    if (bytes < kMapped) std::free(data);
    else munmap(data, whole_pages(bytes));
  }
  void download(void* host, const Storage& from, std::size_t offset, std::size_t bytes) override {
    std::memcpy(host, static_cast<const std::byte*>(from.data) + offset, bytes);
  }
  void download_strided(void* host, const Storage& from, std::size_t offset, const Shape& shape, const Strides& strides,
                        DType dtype) override {
    Program copy;
    copy.shape = shape;
    copy.inputs.push_back({dtype, strides, false});
    copy.outputs.push_back({0, dtype});
    const void* in = static_cast<const std::byte*>(from.data) + offset;
    run_program(copy, &in, &host);
  }
  void clear(void* data, std::size_t bytes) override { std::memset(data, 0, bytes); }

  const KernelTraits& traits(const OpRecord& op) const override { return kernel_of(op); }
  double program_cost_ns(const Program& program) const override { return cpu::program_cost_ns(program); }
  double kernel_cost_ns(double operations) const override { return cost_of_kernel(operations); }
  double long_kernel_ns() const override { return cost::kLongKernelNs; }

  bool runs_segments() const override { return true; }
  bool runs_strips() const override { return true; }

  void launch(Task& task, Launch& launch) override {
    if (task.op) return launch_kernel(task, launch);
    if (task.strips) return launch_strips(*task.strips, task, launch);
    if (!task.segments.empty()) return launch_segments(task, launch);
    const auto watch = task.traced ? std::make_shared<NanWatch>(*task.before) : nullptr;
    launch_program(*task.before, addresses_of<const void*>(task.inputs), addresses_of<void*>(task.outputs), launch,
                   watch.get());
    if (watch) launch.stage(1, [watch, &task](std::int64_t) { watch->report(task); });
  }

 private:
  // A kernel, with the programs before and after it.
  static void launch_kernel(Task& task, Launch& launch) {
    const TaskSides sides = sides_of(task);
    KernelArgs args{{}, sides.outputs.back().array, task.params.get()};
    if (task.before) {
      args.read = read_program(*task.before, addresses_of<const void*>(sides.before_inputs),
                               addresses_of<void*>(sides.before_outputs));
      launch.operands.push_back(kernel_operand(*task.before));
    }
    for (const auto& in : sides.kernel_inputs) launch.operands.push_back(in.array);
    args.in = launch.operands;
    if (task.after) {  // the kernel's result has the program's shape and layout
      args.out.dtype = task.after->inputs[0].dtype;
      args.out.data = task.kernel_output >= 0 ? task.outputs[static_cast<std::size_t>(task.kernel_output)].array.data
                                              : launch.scratch(args.out.nbytes());
      auto read = addresses_of<const void*>(sides.after_inputs);
      read.insert(read.begin(), args.out.data);
      args.finished = finish_program(*task.after, std::move(read), addresses_of<void*>(sides.outputs));
    }
    for (const int at : task.kernel_outputs)
      launch.results.push_back(at < 0 ? ArrayRef{} : task.outputs[static_cast<std::size_t>(at)].array);
    args.results = launch.results;
    kernel_of(*task.op).run(args, launch);
    if (task.traced) watch_kernel(task, launch);
  }

  // Programs that are wanted: the results of others have no memory.
  static void launch_segments(Task& task, Launch& launch) {
    const auto list = std::make_shared<ProgramList>();
    for (std::size_t s = 0; s < task.segments.size(); ++s) {
      const auto [program, operands, results] = segment(task, s);
      if (!results.front().array.data) continue;
      list->add(*program);
      for (const auto& in : operands) list->add_input(in.array.data);
      for (const auto& out : results) list->add_output(out.array.data);
    }
    ProgramList::launch(list, launch);
  }
};

// Plans and schedules like any device, but computes nothing: its time is the engine's own.
class NullBackend : public Backend {
 public:
  const KernelTraits& traits(const OpRecord& op) const override { return kernel_of(op); }
  double program_cost_ns(const Program& program) const override { return cpu::program_cost_ns(program); }
  double kernel_cost_ns(double operations) const override { return cost_of_kernel(operations); }
  double long_kernel_ns() const override { return cost::kLongKernelNs; }
  void* allocate(std::size_t) override { return nullptr; }
  void free(void*, std::size_t, std::uint64_t) override {}
  void download(void*, const Storage&, std::size_t, std::size_t) override {}
  void download_strided(void*, const Storage&, std::size_t, const Shape&, const Strides&, DType) override {}
  void clear(void*, std::size_t) override {}
  bool runs_segments() const override { return true; }
  bool runs_strips() const override { return true; }
  void launch(Task&, Launch&) override {}
  bool computes() const override { return false; }
};

// "CPU, 2 threads, AVX2".
std::string description(int threads) {
  const char* const instructions = isa() == Isa::kAvx512 ? ", AVX-512" : isa() == Isa::kAvx2 ? ", AVX2" : "";
  return "CPU, " + std::to_string(threads) + (threads == 1 ? " thread" : " threads") + instructions;
}

}  // namespace

std::unique_ptr<Device> make_device() {
  const int n = available_threads();
  return std::make_unique<Device>(Device::Kind::kCpu, description(n), n, false, std::make_unique<CpuBackend>());
}

std::unique_ptr<Device> make_simulated_gpu(int index) {
  const int n = available_threads();
  const auto name = "simulated GPU " + std::to_string(index) + " (" + description(n) + ")";
  return std::make_unique<Device>(Device::Kind::kGpu, name, n, true, std::make_unique<CpuBackend>());
}

std::unique_ptr<Device> make_null_device() {
  return std::make_unique<Device>(Device::Kind::kNull, "null device (plans, computes nothing)", 1, true,
                                  std::make_unique<NullBackend>());
}

}  // namespace owl::cpu
