// The sum of arrays on several GPUs where a library of theirs does it: an operation on each GPU, for its own result.
#pragma once

#include <memory>
#include <mutex>

#include "graph/op.h"

namespace owl {

// What the operations of one sum share: the first that runs does the work for all.
struct AllReduceRound {
  struct Results {
    virtual ~Results() = default;
  };
  std::mutex mutex;
  std::shared_ptr<Results> results;
};

struct AllReduceParams : Params {
  AllReduceParams(std::size_t i, std::shared_ptr<AllReduceRound> r) : index(i), round(std::move(r)) {}
  std::size_t index;  // of the operand that lives on this device
  std::shared_ptr<AllReduceRound> round;

  void visit(const ParamVisitor& field) const override {
    field("index", static_cast<std::int64_t>(index));
    field("round", round.get());
  }
};

}  // namespace owl
