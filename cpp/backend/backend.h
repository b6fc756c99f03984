// The seam between the engine and the hardware: memory, and tasks turned into stages of chunks. A backend knows
// nothing of graphs, windows or Python.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>

namespace owl {

struct Failure;
struct Task;
class Launch;
class Storage;

class Backend {
 public:
  virtual ~Backend() = default;
  virtual void* allocate(std::size_t bytes) = 0;  // 64-byte aligned; null when there is no memory
  virtual void free(void* data, std::size_t bytes) = 0;
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
  virtual std::shared_ptr<const Failure> failure() { return nullptr; }  // of the device: nothing works any more
  // Where memory stands that is given back now, and whether the device is past that place.
  virtual std::uint64_t place() { return 0; }
  virtual bool passed(std::uint64_t /*place*/) { return true; }
  virtual void expect(std::uint64_t /*arrival*/) {}  // what is ordered from now on waits for it (Storage::arrival)

  // ---- Exchange with other libraries on the same GPU. Streams are what their libraries call them (a CUstream).
  virtual int gpu() const { return -1; }           // the GPU's number; -1: memory that the host can read
  virtual std::uintptr_t stream() { return 0; }    // where this device computes, all that was ordered included
  virtual std::uintptr_t entrance() { return 0; }  // where those who bring memory say when its value is there
  virtual void receive(Storage&) {}                // brought so: read after what entrance() now waits for
  virtual void lend(const Storage&, std::uintptr_t /*stream*/) {}  // what that stream does from now on sees the value
  virtual void take_back(std::uintptr_t /*stream*/) {}  // what is ordered from now on comes after that stream's work
};

}  // namespace owl
