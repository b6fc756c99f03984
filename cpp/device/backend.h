// The seam between the engine and the hardware: memory, and tasks turned into stages of chunks. A backend knows
// nothing of windows or Python.
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
  virtual void* allocate(std::size_t bytes) = 0;  // 64-byte aligned; null when there is no memory
  virtual void free(void* data, std::size_t bytes, std::uint64_t place) = 0;  // `place`: where it was given back
  // What the planner asks: what the backend's kernel of an operation can do, and the nanoseconds, roughly, that a program
  // and a kernel of so many scalar operations take on one thread.
  virtual const KernelTraits& traits(const OpRecord& op) const = 0;
  virtual double program_cost_ns(const Program& program) const = 0;
  virtual double kernel_cost_ns(double operations) const = 0;
  // From here on kernels do not run side by side.
  virtual double long_kernel_ns() const = 0;
  // Adds the task's stages; operands and results have their memory. Throws what the kernel throws.
  virtual void launch(Task& task, Launch& launch) = 0;
  // Whether values exist: the null device plans and schedules but has none.
  virtual bool computes() const { return true; }
  // Whether the host can read its memory.
  virtual bool host_readable() const { return true; }

  // Host memory to the storage's, which no task knows yet; `host` may change when it returns. And back: waits.
  virtual void upload(Storage& to, const void* host) = 0;
  virtual void download(void* host, const Storage& from, std::size_t offset, std::size_t bytes) = 0;
  // The same for a strided view, made dense. Where the host can read the memory.
  virtual void download_strided(void* host, const Storage& from, std::size_t offset, const Shape& shape,
                                const Strides& strides, DType dtype) = 0;
  virtual void clear(void* data, std::size_t bytes) = 0;  // zeros, in the device's order of work

  // ---- An asynchronous device runs behind its worker (a GPU): a task that has ended there is *ordered*, no more. Later
  // tasks of the device may use its results; other devices and the host wait until the value is complete.
  virtual bool is_async() const { return false; }
  virtual void submit() {}                                   // what was ordered begins to run
  virtual bool is_complete(const Storage&) { return true; }  // the value can be read
  // Waits until the value is complete, or (null) all that was ordered; false when `go_on`, asked now and then, says so.
  virtual bool synchronize(const Storage*, const std::function<bool()>& /*go_on*/) { return true; }
  // What went wrong after a task had been ordered: with the device, for which nothing works any more, or with a value.
  // Null: of any value that is still held, each reported once.
  virtual std::shared_ptr<const Failure> failure(const Storage* /*value*/) { return nullptr; }
  // Where memory stands that is given back now, and whether the device is past that place.
  virtual std::uint64_t place() { return 0; }
  virtual bool has_passed(std::uint64_t /*place*/) { return true; }
  // What is ordered from now on waits for that copy (Storage::arrival).
  virtual void require_arrival(std::uint64_t /*arrival*/) {}

  // Whether a library of its kind of device sums arrays that live on several of them (op_all_reduce).
  virtual bool has_all_reduce() const { return false; }

  // ---- Exchange with other libraries on the same GPU. Streams are what their libraries call them (a CUstream).
  virtual int gpu() const { return -1; }           // the GPU's number; -1: no GPU
  virtual std::uintptr_t stream() { return 0; }    // where this device computes, all that was ordered included
  virtual std::uintptr_t import_stream() { return 0; }  // on which a library that brings memory orders its value
  virtual void renew_import_stream() {}            // the present one has become part of another library's CUDA graph
  virtual void receive(Storage&) {}                // brought so: read after what import_stream() now waits for
  // Whether the stream records a CUDA graph: what is computed outside of that cannot be waited for on it.
  virtual bool is_capturing(std::uintptr_t /*stream*/) { return false; }
  // What the stream does from now on sees the value. Gives the stream's number, which is never used again.
  virtual std::uint64_t export_to_stream(const Storage&, std::uintptr_t /*stream*/) { return 0; }
  // Keeps the memory until the stream has done what it was given, if it is still the one of that number.
  virtual void join_stream(const Ref<Storage>&, std::uintptr_t /*stream*/, std::uint64_t /*number*/) {}
  // Calls function(data), on any thread, once all that was ordered has run; it may do nothing with this device.
  virtual void when_through(void (*function)(void*), void* data) { function(data); }
};

}  // namespace owl
