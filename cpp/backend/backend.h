// The seam between the engine and the hardware: memory, and tasks turned into stages of chunks. A backend knows
// nothing of graphs, windows or Python.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>

#include "base/ref.h"

namespace owl {

struct Failure;
struct Task;
class Launch;
class Storage;

class Backend {
 public:
  virtual ~Backend() = default;
  virtual void* allocate(std::size_t bytes) = 0;  // 64-byte aligned; null when there is no memory
  virtual void free(void* data, std::size_t bytes, std::uint64_t place) = 0;  // `place`: where it was given back
  // Adds the task's stages; operands and results have their memory. Throws what the kernel throws.
  virtual void launch(Task& task, Launch& launch) = 0;
  // Whether values exist: the null device plans and schedules but has none.
  virtual bool computes() const { return true; }
  // Whether images may lie channels last between its kernels.
  virtual bool knows_channels_last() const { return true; }

  // Host memory to the storage's, which nobody else knows yet; `host` may change when it returns. And back: waits.
  virtual void upload(Storage& to, const void* host) = 0;
  virtual void download(void* host, const Storage& from, std::size_t offset, std::size_t bytes) = 0;
  virtual void clear(void* data, std::size_t bytes) = 0;  // zeros, in the device's order of work

  // ---- A device that runs behind its worker (a GPU): a task that has ended there is *ordered*, no more. Later tasks
  // of the device may use its results; everybody else waits until they are there.
  virtual void submit() {}                                   // what was ordered begins to run
  virtual bool there(const Storage&) { return true; }        // the value can be read
  // Waits until the value is there, or (null) all that was ordered; false when `go_on`, asked now and then, says so.
  virtual bool wait(const Storage*, const std::function<bool()>& /*go_on*/) { return true; }
  // What went wrong after a task had been ordered: with the device, for which nothing works any more, or with a value.
  // Null: of any value that is still held, each reported once.
  virtual std::shared_ptr<const Failure> failure(const Storage* /*value*/) { return nullptr; }
  // Where memory stands that is given back now, and whether the device is past that place.
  virtual std::uint64_t place() { return 0; }
  virtual bool passed(std::uint64_t /*place*/) { return true; }
  virtual void expect(std::uint64_t /*arrival*/) {}  // what is ordered from now on waits for it (Storage::arrival)

  // ---- Exchange with other libraries on the same GPU. Streams are what their libraries call them (a CUstream).
  virtual int gpu() const { return -1; }           // the GPU's number; -1: memory that the host can read
  virtual std::uintptr_t stream() { return 0; }    // where this device computes, all that was ordered included
  virtual std::uintptr_t entrance() { return 0; }  // where those who bring memory say when its value is there
  virtual void renew_entrance() {}                 // the present one has become part of another library's CUDA graph
  virtual void receive(Storage&) {}                // brought so: read after what entrance() now waits for
  // Whether the stream records a CUDA graph: what is computed outside of that cannot be waited for on it.
  virtual bool is_capturing(std::uintptr_t /*stream*/) { return false; }
  // What the stream does from now on sees the value. Gives the stream's number, which is never used again.
  virtual std::uint64_t lend(const Storage&, std::uintptr_t /*stream*/) { return 0; }
  // Keeps the memory until the stream has done what it was given, if it is still the one of that number.
  virtual void take_back(const Ref<Storage>&, std::uintptr_t /*stream*/, std::uint64_t /*number*/) {}
  // Calls function(data), on any thread, once all that was ordered has run; it may do nothing with this device.
  virtual void when_through(void (*function)(void*), void* data) { function(data); }
};

}  // namespace owl
