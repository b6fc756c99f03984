// The interface between the engine and the hardware: memory, and tasks as stages of chunks. A backend does not know the
// window or Python.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>

#include "base/ref.h"
#include "owl/dtype.h"
#include "owl/shape.h"

namespace owl {

struct Failure;
struct KernelTraits;
struct OpRecord;
struct Program;
struct Task;
class Launch;
class Storage;

class Backend {
 public:
  virtual ~Backend() = default;
  virtual void* allocate(std::size_t bytes) = 0;  // 64-byte aligned; null: out of memory
  virtual void free(void* data, std::size_t bytes, std::uint64_t place) = 0;  // see place() below
  // For the planner: the capabilities of the backend's kernel for an operation, and the rough time on one thread, in
  // nanoseconds, of a program and of a kernel of so many scalar operations.
  virtual const KernelTraits& traits(const OpRecord& op) const = 0;
  virtual double program_cost_ns(const Program& program) const = 0;
  virtual double kernel_cost_ns(double operations) const = 0;
  // From this time on kernels do not run side by side.
  virtual double long_kernel_ns() const = 0;
  // Whether a task may have several programs (Task::segments).
  virtual bool runs_segments() const { return false; }
  // Whether a task may have strips (Task::strips).
  virtual bool runs_strips() const { return false; }
  // Adds the task's stages; operands and results are allocated. Throws what the kernel throws.
  virtual void launch(Task& task, Launch& launch) = 0;
  // False for the null device, which plans and schedules but computes no values.
  virtual bool computes() const { return true; }
  // Whether the host can read its memory.
  virtual bool host_readable() const { return true; }

  // Copies host memory to the storage, which no task uses yet and the host cannot access; the caller may change `host`
  // afterwards. download copies back, and waits.
  virtual void upload(Storage& /*to*/, const void* /*host*/) {}
  virtual void download(void* host, const Storage& from, std::size_t offset, std::size_t bytes) = 0;
  // The same for a strided view, as a dense copy. Only if the host can read the memory.
  virtual void download_strided(void* host, const Storage& from, std::size_t offset, const Shape& shape,
                                const Strides& strides, DType dtype) = 0;
  virtual void clear(void* data, std::size_t bytes) = 0;  // sets to zero, in stream order

  // ---- An asynchronous device (a GPU) runs later than its worker: a task that has ended there is only *ordered*.
  // Later tasks of the device may use its results; other devices and the host wait until the value is complete.
  virtual bool is_async() const { return false; }
  virtual void submit() {}                                   // starts the ordered work
  virtual bool is_complete(const Storage&) { return true; }  // the host can read the value
  // Waits until the value (null: all ordered work) is complete; polls `go_on` and returns false if that does.
  virtual bool synchronize(const Storage*, const std::function<bool()>& /*go_on*/) { return true; }
  // An error after a task was ordered: of the device, which is then unusable, or of a value. `value` null: of any live
  // value, each reported once.
  virtual std::shared_ptr<const Failure> failure(const Storage* /*value*/) { return nullptr; }
  // The device's current position, noted for memory freed now, and whether the device has passed a position.
  virtual std::uint64_t place() { return 0; }
  virtual bool has_passed(std::uint64_t /*place*/) { return true; }
  // Work ordered from now on waits for that copy (Storage::arrival).
  virtual void require_arrival(std::uint64_t /*arrival*/) {}

  // Whether a library sums arrays across several devices of this kind (op_all_reduce).
  virtual bool has_all_reduce() const { return false; }

  // ---- Exchange with other libraries on the same GPU. A stream is its library's handle (a CUstream).
  virtual int gpu() const { return -1; }           // the GPU's index; -1: not a GPU
  virtual std::uintptr_t stream() { return 0; }    // the device's compute stream, after submitting all ordered work
  virtual std::uintptr_t import_stream() { return 0; }  // the stream on which an exporting library orders its value
  virtual void renew_import_stream() {}            // the current one has become part of another library's CUDA graph
  virtual void receive(Storage&) {}                // imported memory: read it after import_stream()'s work so far
  // Whether the stream captures a CUDA graph: it cannot wait for work outside the capture.
  virtual bool is_capturing(std::uintptr_t /*stream*/) { return false; }
  // Later work of the stream sees the value. Returns the stream's number, which is never reused.
  virtual std::uint64_t export_to_stream(const Storage&, std::uintptr_t /*stream*/) { return 0; }
  // Keeps the memory until the stream has finished its present work, if it is still the stream with that number.
  virtual void join_stream(const Ref<Storage>&, std::uintptr_t /*stream*/, std::uint64_t /*number*/) {}
  // Calls function(data), on any thread, once all ordered work has run; the function must not use this device.
  virtual void when_through(void (*function)(void*), void* data) { function(data); }
};

}  // namespace owl
