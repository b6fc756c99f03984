// The seam between the engine and the hardware: memory, and tasks turned into stages of chunks. A backend knows
// nothing of graphs, windows or Python.
#pragma once

#include <cstddef>

namespace owl {

struct Task;
class Launch;

class Backend {
 public:
  virtual ~Backend() = default;
  virtual void* allocate(std::size_t bytes) = 0;  // 64-byte aligned; null when there is no memory
  virtual void free(void* data, std::size_t bytes) = 0;
  virtual void upload(void* device, const void* host, std::size_t bytes) = 0;
  // Adds the task's stages; operands and results have their memory. Throws what the kernel throws.
  virtual void launch(Task& task, Launch& launch) = 0;
  // Whether values exist: the null device plans and schedules but has none.
  virtual bool computes() const { return true; }
};

}  // namespace owl
