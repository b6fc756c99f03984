// The scheduler's interface to the window of recorded operations; the engine implements it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace owl {

class Device;
class Node;

class Window {
 public:
  virtual bool window_empty() const = 0;
  virtual std::uint64_t recorded() const = 0;  // operations recorded so far
  // After how many microseconds of quiet an idle worker plans what the window holds; negative: never.
  virtual std::int64_t idle_us() const = 0;
  // Plans all but the newest `keep` operations. `inline_ok`: run tiny tasks on this thread.
  virtual void flush(std::size_t keep, bool inline_ok) = 0;
  // Calls f with the recorded, not yet planned operations while nothing is recorded or planned.
  virtual void with_window(const std::function<void(const std::vector<Node*>&)>& f) = 0;
  // Drops copies on the device that only their originals keep, least recently used first, until `bytes` are free again.
  // False if there was none. Not under the scheduler's lock.
  virtual bool drop_peer_copies(Device& device, std::size_t bytes) = 0;

 protected:
  ~Window() = default;
};

}  // namespace owl
