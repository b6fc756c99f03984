// A tape: the operations that its thread recorded while it was open, and of their operands and results what the rules
// of their gradients will read.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "autograd/noted.h"
#include "autograd/request.h"
#include "base/module_api.h"
#include "owl/tape.h"

namespace owl {

// Taken once for each note, by the recording thread: cheaper than a mutex, which another thread seldom shares.
class NotesLock {
 public:
  void lock() {
    while (taken_.test_and_set(std::memory_order_acquire)) std::this_thread::yield();
  }
  void unlock() { taken_.clear(std::memory_order_release); }

 private:
  std::atomic_flag taken_;
};

class OWL_MODULE_API TapeState : public std::enable_shared_from_this<TapeState> {
 public:
  explicit TapeState(bool persistent);
  ~TapeState();

  void open();   // Error: it was before
  void close();  // Error: on another thread
  void leave();  // the handle goes: as close(), from wherever
  bool is_open() const { return is_open_.load(std::memory_order_relaxed); }
  std::vector<NArray> gradient(const GradientRequest& request);

  void keep(Ref<const Noted> noted);  // of the recording thread

 private:
  using Notes = std::vector<Ref<const Noted>>;
  void sweep(std::size_t begin);
  void require_unused() const;

  const bool persistent_;
  std::atomic<bool> is_open_{false};
  std::thread::id thread_;      // that opened it; none: not opened yet
  std::size_t noted_ = 0;       // how many there were; of the recording thread
  NotesLock lock_;              // of thread_ and what follows; nothing of the engine is called under it
  bool used_up_ = false;
  Notes notes_;
  std::size_t next_sweep_ = 0;  // of everything, when there are as many notes
};

}  // namespace owl
