// NArray: an immutable, column-major n-d value that is computed when it is needed, or when a device has time.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "owl/dtype.h"
#include "owl/error.h"
#include "owl/shape.h"

namespace owl {

class Node;
class NArray;

// One axis of a basic index: an integer (the axis goes), a slice (start, count, step already resolved), or a new axis.
struct IndexItem {
  enum class Kind : std::uint8_t { kInteger, kSlice, kNewAxis };
  Kind kind;
  std::int64_t start = 0;  // integer: the index
  std::int64_t count = 1;
  std::int64_t step = 1;
};

class NArray {
 public:
  NArray() = default;  // empty: assignable, everything else is an Error
  NArray(const NArray& o);
  NArray(NArray&& o) noexcept : node_(std::exchange(o.node_, nullptr)) {}
  NArray& operator=(NArray o) noexcept { std::swap(node_, o.node_); return *this; }
  ~NArray();

  // Takes over one handle on the node.
  static NArray adopt(Node* node) { NArray a; a.node_ = node; return a; }
  Node* node() const { return node_; }
  Node* detach() { return std::exchange(node_, nullptr); }
  explicit operator bool() const { return node_ != nullptr; }

  // None of these waits.
  const Shape& shape() const;
  DType dtype() const;
  int device() const;  // the id
  std::int64_t size() const { return shape().size(); }
  int ndim() const { return shape().ndim(); }

  NArray reshape(std::vector<std::int64_t> lengths) const;  // one -1 allowed; column-major order
  NArray trans() const;                                     // 2-d
  NArray transpose(const std::vector<std::int64_t>& axes) const;
  NArray index(std::span<const IndexItem> items) const;     // bounds are checked: IndexError
  NArray astype(DType dtype) const;
  NArray copy_to(int device) const;

  // Reductions keep the axis with length 1; `axes` empty means all of them, and then the result has shape [1].
  NArray sum(const std::vector<std::int64_t>& axes = {}) const;
  NArray max(const std::vector<std::int64_t>& axes = {}) const;
  NArray min(const std::vector<std::int64_t>& axes = {}) const;
  NArray mean(const std::vector<std::int64_t>& axes = {}) const;
  NArray argmax(std::optional<std::int64_t> axis = {}) const;  // int32; the first of equals
  NArray argmin(std::optional<std::int64_t> axis = {}) const;
  NArray max_index(std::int64_t axis) const { return argmax(axis); }
  std::int64_t count_zero() const;  // waits

  void start_eval() const;                                          // ask without waiting
  bool wait_for_eval(std::optional<double> timeout_s = {}) const;   // false: the time ran out
  bool ready() const;
  // Waits and copies the elements, column-major, to host memory of size() * itemsize(dtype()) bytes.
  void copy_to_host(void* destination) const;
  double item() const;  // waits; one element only

 private:
  Node* node_ = nullptr;
};

// An operand of an elementwise operation: an array or a number (which never raises a float type).
class Operand {
 public:
  Operand(const NArray& a) : node(a.node()) {}
  Operand(double v) : kind(3), value(v) {}
  Operand(float v) : kind(3), value(v) {}
  Operand(int v) : kind(2), value(v) {}
  Operand(std::int64_t v) : kind(2), value(static_cast<double>(v)) {}
  Operand(bool v) : kind(1), value(v) {}

  Node* node = nullptr;
  std::uint8_t kind = 0;  // 0 array, 1 bool, 2 int, 3 float
  double value = 0;
};

NArray operator+(const Operand& a, const Operand& b);
NArray operator-(const Operand& a, const Operand& b);
NArray operator*(const NArray& a, const NArray& b);  // the matrix product
NArray operator*(const NArray& a, double b);
NArray operator*(double a, const NArray& b);
NArray operator/(const Operand& a, const Operand& b);
NArray operator-(const NArray& a);
NArray operator>(const Operand& a, const Operand& b);
NArray operator>=(const Operand& a, const Operand& b);
NArray operator<(const Operand& a, const Operand& b);
NArray operator<=(const Operand& a, const Operand& b);
NArray operator==(const NArray& a, const Operand& b);
NArray operator!=(const NArray& a, const Operand& b);
NArray& operator+=(NArray& a, const Operand& b);  // ShapeError if b would enlarge a
NArray& operator-=(NArray& a, const Operand& b);
NArray& operator*=(NArray& a, const NArray& b);   // the matrix product
NArray& operator*=(NArray& a, double b);
NArray& operator/=(NArray& a, const Operand& b);

NArray pow(const Operand& a, const Operand& b);
NArray matmul(const NArray& a, const NArray& b);  // [m, k] x [k, n] -> [m, n]

NArray zeros(const Shape& shape, DType dtype = DType::kFloat32);
NArray ones(const Shape& shape, DType dtype = DType::kFloat32);
NArray full(const Shape& shape, double value, DType dtype = DType::kFloat32);
NArray arange(double start, double stop, double step, DType dtype);
NArray from_host(const void* data, const Shape& shape, DType dtype);  // copies
// Wraps memory that the caller keeps alive until `release(context)` is called.
NArray from_foreign(void* data, const Shape& shape, DType dtype, void (*release)(void*), void* context);
NArray randn(const Shape& shape, double mu = 0, double sigma = 1, DType dtype = DType::kFloat32);
NArray rand(const Shape& shape, double low = 0, double high = 1, DType dtype = DType::kFloat32);
NArray randb(const Shape& shape, double prob, DType dtype = DType::kFloat32);
void seed(std::uint64_t n);
NArray concat(const std::vector<NArray>& arrays, std::int64_t dim);
NArray slice(const NArray& x, std::int64_t dim, std::int64_t offset, std::int64_t count);

// The elementwise operation of this name (see elewise.h for the typed names).
NArray elementwise(const char* op, std::span<const Operand> operands);

}  // namespace owl
