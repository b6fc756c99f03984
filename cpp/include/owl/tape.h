// Gradients. A tape notes what its thread records while it is open; gradient() walks back over it and records the
// gradients as ordinary operations, which run behind the script, fused, like all others.
//
//   owl::Tape tape;
//   const owl::NArray loss = owl::square(w * x + b - y).mean();
//   const auto gradients = tape.gradient(loss, {w, b});
//   w -= gradients[0] * rate;
//
// Tapes nest: an operation is noted on every open tape of its thread, so that gradients inside an outer tape have
// gradients.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "owl/export.h"
#include "owl/narray.h"

namespace owl OWL_API {

class TapeState;

class Tape {
 public:
  enum class Unused { kError, kZeros };  // for a source that y does not depend on

  // Open from now on. Persistent: gradient() may be called several times.
  explicit Tape(bool persistent = false);
  ~Tape();
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  // Notes nothing more. Error: by another thread than the one that made it.
  void close();

  // The gradients of y, each of its source's shape and type. y is one element, or `seed`, of y's shape, is what flows
  // into it. Uses the tape up, unless it is persistent. Never waits. Error: used up before; nothing noted; a source
  // that y does not depend on; an operation without a gradient. DTypeError: y or a source is no float array.
  // ShapeError: y has several elements and no seed, or the seed another shape.
  std::vector<NArray> gradient(const NArray& y, const std::vector<NArray>& sources, const NArray& seed = {},
                               Unused unused = Unused::kError);

 private:
  std::shared_ptr<TapeState> state_;
};

// x, a constant to every tape. Copies nothing.
NArray stop_gradient(const NArray& x);

class Checkpoint;
namespace detail {

class CheckpointScope {  // of one thread
 public:
  CheckpointScope();
  ~CheckpointScope();
  CheckpointScope(const CheckpointScope&) = delete;
  CheckpointScope& operator=(const CheckpointScope&) = delete;

 private:
  const Checkpoint* checkpoint_;
};

}  // namespace detail

// fn, whose inner values are not kept for the backward pass, which records its operations again: fn itself is not called
// again, and random numbers are the same ones. Less memory for more computing; the same bits. Copies between devices and
// effects (all_reduce) are not repeated: their results are kept.
template <class F> auto checkpoint(F fn) {
  return [fn = std::move(fn)](auto&&... args) -> decltype(auto) {
    const detail::CheckpointScope scope;
    return fn(std::forward<decltype(args)>(args)...);
  };
}

}  // namespace owl
