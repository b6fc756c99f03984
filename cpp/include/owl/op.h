// User-defined operations: a rule for the result's shape and type, and a kernel over memory. They are recorded, planned
// and run like the built-in ones: lazily, on the worker threads of their device, with errors that name the operation.
//
//   const owl::Op scale_rows(
//       "scale_rows", owl::same_as_first,
//       [](std::span<const owl::ConstMemory> in, const owl::Memory& out, owl::Work& work) {
//         const float *x = in[0].as<float>(), *factors = in[1].as<float>();
//         float* y = out.as<float>();
//         const std::int64_t rows = out.shape[0];
//         work.stage(out.shape[1], [=](std::int64_t column) {
//           for (std::int64_t i = 0; i < rows; ++i) y[column * rows + i] = x[column * rows + i] * factors[i];
//         });
//       });
//   const owl::NArray y = scale_rows(x, factors);
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "owl/export.h"
#include "owl/narray.h"

namespace owl OWL_API {

class Launch;

// The shape and type of an array, known before it is computed.
struct ArrayType {
  Shape shape;
  DType dtype = DType::kFloat32;
};

namespace detail {
[[noreturn]] void refuse_element_type(DType is, DType asked);
}

// The memory of an operand: dense, column-major (the first axis varies fastest). A bool is a byte, 0 or 1.
struct ConstMemory {
  const void* data = nullptr;
  Shape shape;
  DType dtype = DType::kFloat32;

  // The first element. DTypeError: T (bool, float, Float16 ..., see owl/dtype.h) is not the elements' type.
  template <class T> const T* as() const {
    if (dtype_of<T>::value != dtype) detail::refuse_element_type(dtype, dtype_of<T>::value);
    return static_cast<const T*>(data);
  }
};

// The memory of a result: the same, uninitialised.
struct Memory {
  void* data = nullptr;
  Shape shape;
  DType dtype = DType::kFloat32;

  template <class T> T* as() const {
    if (dtype_of<T>::value != dtype) detail::refuse_element_type(dtype, dtype_of<T>::value);
    return static_cast<T*>(data);
  }
};

// The work that a kernel gives its device.
class Work {
 public:
  // Adds a stage: the device calls `body` with 0 to chunks - 1, on any threads, in any order, concurrently. Stages run
  // one after another. A chunk should take 20 us to 2 ms. Cut chunks by size, not by the number of threads, so that the
  // bits of the result do not depend on it. The body may throw; it must capture by value, because it runs after the
  // kernel has returned (the operands' and the result's memory stays valid until the last stage has ended).
  void stage(std::int64_t chunks, std::function<void(std::int64_t chunk)> body);
  // Uninitialised memory, 64-byte aligned, valid until the last stage has ended. OutOfMemoryError.
  void* scratch(std::size_t bytes);

  explicit Work(Launch& launch) : launch_(launch) {}  // made by the engine

 private:
  Launch& launch_;
};

class Op {
 public:
  // Called on the recording thread: returns the result's shape and type. Throws ShapeError or DTypeError for wrong
  // operands.
  using Rule = std::function<ArrayType(std::span<const ArrayType> operands)>;
  // Called on a worker thread when all operands are computed; adds stages to `work`. Only the stages may be expensive.
  // An exception becomes the error of the value, and of the values computed from it.
  using Kernel = std::function<void(std::span<const ConstMemory> operands, const Memory& result, Work& work)>;

  // `cost`: the cost of one element of the result, in additions, roughly; a cheap operation may run on the recording
  // thread. Both functions must be thread-safe.
  Op(std::string name, Rule rule, Kernel kernel, double cost = 1);

  // Called where gradients are asked for (owl/tape.h), on that thread: records the gradients of the operands, each of
  // its operand's shape, from the gradient `err` of the result y. An empty NArray stands for zeros.
  using Backward =
      std::function<std::vector<NArray>(const NArray& err, const NArray& y, std::span<const NArray> operands)>;
  // The same operation with gradients. Without, to ask for one is an Error.
  Op with_backward(Backward backward) const;

  // Records the operation; never waits and does not call the kernel. An operand on another device is copied to the
  // current one, once.
  NArray operator()(std::span<const NArray> operands) const;
  template <class... Arrays> NArray operator()(const NArray& first, const Arrays&... more) const {
    const NArray operands[] = {first, more...};
    return (*this)(std::span<const NArray>(operands));
  }

  const std::string& name() const;

 private:
  struct State;
  explicit Op(std::shared_ptr<const State> state) : state_(std::move(state)) {}
  std::shared_ptr<const State> state_;  // shared with recorded nodes, which may outlive the Op
};

// A rule: the result has the first operand's shape and type.
ArrayType same_as_first(std::span<const ArrayType> operands);
// A rule: the operands broadcast (axes of length 1, aligned at the first axis), the result has the largest of their
// types.
ArrayType broadcast_of_all(std::span<const ArrayType> operands);

}  // namespace owl
