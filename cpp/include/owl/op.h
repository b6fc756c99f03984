// Operations of your own: a rule for the result's shape and type, and a kernel over memory. They are recorded, planned
// and run like the built-in ones: lazily, on the worker threads of the device that computes, with errors that name the
// operation.
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

// What is known of an array before it is computed.
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

  // The first element. DTypeError where T (bool, std::int32_t, float or double) is not the elements' type.
  template <class T> const T* as() const {
    if (dtype_of<T>::value != dtype) detail::refuse_element_type(dtype, dtype_of<T>::value);
    return static_cast<const T*>(data);
  }
};

// The memory of a result: the same, not initialised yet.
struct Memory {
  void* data = nullptr;
  Shape shape;
  DType dtype = DType::kFloat32;

  template <class T> T* as() const {
    if (dtype_of<T>::value != dtype) detail::refuse_element_type(dtype, dtype_of<T>::value);
    return static_cast<T*>(data);
  }
};

// What a kernel asks the device to do.
class Work {
 public:
  // Adds a stage: `body` is called with 0 to chunks - 1, on any threads, in any order, at the same time. Stages run one
  // after another. A chunk should take 20 us to 2 ms. Cut chunks by size, not by the number of threads, and the bits of
  // the result are the same everywhere. The body may throw; it keeps what it needs by value, for it runs after the
  // kernel has returned (the operands' and the result's memory stays where it is until the last stage is done).
  void stage(std::int64_t chunks, std::function<void(std::int64_t chunk)> body);
  // Uninitialised memory, 64-byte aligned, that lives until the last stage is done. OutOfMemoryError.
  void* scratch(std::size_t bytes);

  explicit Work(Launch& launch) : launch_(launch) {}  // made by the engine

 private:
  Launch& launch_;
};

class Op {
 public:
  // Called when the operation is recorded, on the thread that records: the result's shape and type. Throws ShapeError
  // or DTypeError where the operands don't fit.
  using Rule = std::function<ArrayType(std::span<const ArrayType> operands)>;
  // Called on a worker thread when all operands have their values; adds stages to `work`. Only the stages may be
  // expensive. What it throws becomes the error of the value, and of what is computed from it.
  using Kernel = std::function<void(std::span<const ConstMemory> operands, const Memory& result, Work& work)>;

  // `cost`: how many additions one element of the result is worth, about; what is cheap as a whole may run on the
  // thread that records. Both functions must be callable from several threads at a time.
  Op(std::string name, Rule rule, Kernel kernel, double cost = 1);

  // Called where gradients are asked for (owl/tape.h), on that thread: records the gradients of the operands, each of its
  // operand's shape, from the gradient `err` of the result y. An empty NArray stands for zeros.
  using Backward =
      std::function<std::vector<NArray>(const NArray& err, const NArray& y, std::span<const NArray> operands)>;
  // The same operation with gradients. Without, to ask for one is an Error.
  Op with_backward(Backward backward) const;

  // Records the operation; never waits, and never calls the kernel for that. An operand that lives on another device
  // than the current one is copied there, once.
  NArray operator()(std::span<const NArray> operands) const;
  template <class... Arrays> NArray operator()(const NArray& first, const Arrays&... more) const {
    const NArray operands[] = {first, more...};
    return (*this)(std::span<const NArray>(operands));
  }

  const std::string& name() const;

 private:
  struct State;
  explicit Op(std::shared_ptr<const State> state) : state_(std::move(state)) {}
  std::shared_ptr<const State> state_;  // also kept by what is recorded: an Op may go before its results are computed
};

// A rule: the result has the first operand's shape and type.
ArrayType same_as_first(std::span<const ArrayType> operands);
// A rule: the operands broadcast (axes of length 1, aligned at the first axis), the largest of their types wins.
ArrayType broadcast_of_all(std::span<const ArrayType> operands);

}  // namespace owl
