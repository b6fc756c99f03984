// A checkpoint: the operations that a function recorded, kept in place of their values, so that the backward pass can
// record them again.
#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "autograd/noted.h"

namespace owl {

// A random array drawn again, once `after` is computed.
NArray draw_after(const NArray& after, const OpRecord& op, std::shared_ptr<const Params> params);

class Checkpoint {
 public:
  // The number of the operation here. None for what is not to run twice: effects, and copies between devices; what they
  // made is an array from outside to the operations that read it.
  std::optional<std::uint32_t> add(const Node& operation, std::span<Node* const> inputs,
                                   std::span<Node* const> results);
  // Whether an operation here made the value.
  bool made(const Node& node) const;

  // Records again what these arrays need, and gives them. An array: an operand or a result of an operation here. Nothing
  // of it is computed before `after`, an array.
  struct Wanted {
    std::uint32_t operation;
    bool is_result;
    std::size_t index;
  };
  std::vector<NArray> replay(std::span<const Wanted> wanted, const NArray& after) const;

 private:
  struct Operand {
    NArray outside;  // that the function read; or the value of an operation here:
    std::optional<std::uint32_t> maker;
    std::uint16_t result = 0;
    std::unique_ptr<const Slot::View> view;  // null: the whole value
    Shape shape;
    bool constant = false;
    Scalar number;   // if no array
  };
  struct Operation {
    const OpRecord* op;
    std::shared_ptr<const Params> params;
    Source source;
    Device* device;
    ResultType type;  // of the first result
    std::size_t result_count;
    std::vector<Operand> operands;
    Ref<Mark> mark;
  };
  using Values = std::vector<std::vector<NArray>>;  // by operation: the results
  Operand operand_of(Node* node, const Scalar& number) const;
  static NArray array_of(const Operand& x, const Values& values);
  static std::vector<NArray> record_again(const Operation& operation, const Values& values, const NArray& after);
  std::vector<const Operation*> operations() const;

  mutable std::mutex mutex_;  // of what follows
  std::deque<Operation> operations_;
  std::unordered_map<const Mark*, std::uint32_t> makers_;
};

}  // namespace owl
