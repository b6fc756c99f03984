// What a tape sees of recording, and how it tells values apart.
#pragma once

#include <atomic>
#include <span>

#include "base/module_api.h"

namespace owl {

class Node;

// The identity of a node for tapes, which outlives it: an address may come back, a mark does not.
class Mark {
 public:
  void retain() { refs_.fetch_add(1, std::memory_order_relaxed); }
  void release() {
    if (refs_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }

  std::atomic<bool> alive{true};  // the node is
  std::atomic<int> uses{0};       // by noted operations, as an operand

 private:
  std::atomic<int> refs_{1};
};

// The tapes of a thread (autograd/tape.cpp). Each call comes before anything can plan the node.
class Noting {
 public:
  // `inputs` are the operands as the script named them, before copies between devices; `results` the nodes of the results.
  virtual void note(const Node& operation, std::span<Node* const> inputs, std::span<Node* const> results) = 0;
  virtual void note_view(Node& from, Node& view) = 0;

 protected:
  ~Noting() = default;
};

// Null: this thread has no tape open.
OWL_MODULE_API extern constinit thread_local Noting* noting;

}  // namespace owl
