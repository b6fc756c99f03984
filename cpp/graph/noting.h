// What a tape sees of recording, and how it tells values apart.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <utility>

#include "base/module_api.h"
#include "base/recycled.h"

namespace owl {

class Node;

// The identity of a node for tapes, which outlives it: an address may come back, a mark does not.
class Mark : public Recycled<Mark, 1024> {
 public:
  void retain() { add(1); }
  void release() { sub(1); }
  // By noted operations, as an operand.
  bool is_used() const { return count_.load(std::memory_order_relaxed) >= kUse; }

  std::atomic<bool> alive{true};  // the node is

 private:
  friend class MarkUse;
  static constexpr std::uint64_t kUse = std::uint64_t{1} << 32;
  void add(std::uint64_t n) { count_.fetch_add(n, std::memory_order_relaxed); }
  void sub(std::uint64_t n) {
    if (count_.fetch_sub(n, std::memory_order_acq_rel) == n) delete this;
  }

  std::atomic<std::uint64_t> count_{1};  // references, and uses in the upper half: a use is a reference too
};

class MarkUse {
 public:
  MarkUse() = default;
  explicit MarkUse(Mark& mark) : mark_(&mark) { mark.add(1 + Mark::kUse); }
  MarkUse(MarkUse&& o) noexcept : mark_(std::exchange(o.mark_, nullptr)) {}
  MarkUse& operator=(MarkUse o) noexcept { std::swap(mark_, o.mark_); return *this; }
  ~MarkUse() {
    if (mark_) mark_->sub(1 + Mark::kUse);
  }
  const Mark* get() const { return mark_; }

 private:
  Mark* mark_ = nullptr;
};

// The tapes of a thread (autograd/tape.cpp). A call comes before anything can plan the node.
class Noting {
 public:
  // `inputs` are the operands as the script named them, before copies between devices; `results` the nodes of the
  // results.
  virtual void note(const Node& operation, std::span<Node* const> inputs, std::span<Node* const> results) = 0;

 protected:
  ~Noting() = default;
};

// Null: this thread has no tape open.
OWL_MODULE_API extern constinit thread_local Noting* noting;

}  // namespace owl
