// A tape: the operations that its thread recorded while it was open, and of their operands and results what the rules of
// their gradients will read.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "autograd/noted.h"
#include "base/module_api.h"
#include "owl/tape.h"

namespace owl {

struct GradientRequest {
  NArray y, seed;
  std::vector<NArray> sources;
  std::vector<std::string> names;  // of the sources, in messages
  bool zeros_for_unused = false;
};

class OWL_MODULE_API TapeState : public std::enable_shared_from_this<TapeState> {
 public:
  explicit TapeState(bool persistent) : persistent_(persistent) {}

  void open();   // Error: it was before
  void close();  // Error: on another thread
  void leave();  // the handle goes: as close(), from wherever
  bool is_open() const { return is_open_.load(std::memory_order_relaxed); }
  std::vector<NArray> gradient(const GradientRequest& request);

  void keep(std::shared_ptr<const Noted> noted);  // of the recording thread

 private:
  using Notes = std::vector<std::shared_ptr<const Noted>>;
  void sweep(std::size_t begin);
  void require_unused() const;

  const bool persistent_;
  std::atomic<bool> is_open_{false};
  std::thread::id thread_;      // that opened it; none: not opened yet
  std::mutex mutex_;            // of what follows; nothing of the engine is called under it
  bool used_up_ = false;
  Notes notes_;
  std::size_t next_sweep_ = 0;  // of everything, when there are as many notes
};

}  // namespace owl
