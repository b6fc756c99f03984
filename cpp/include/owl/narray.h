// NArray: an immutable, column-major n-d value that is computed when a thread waits for it, or when a device is idle.
#pragma once

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <iosfwd>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "owl/dtype.h"
#include "owl/error.h"
#include "owl/export.h"
#include "owl/shape.h"

namespace owl OWL_API {

class Node;
class NArray;

// An index of x[...], NumPy's basic indexing in owl's order of axes: an integer (removes the axis; negative counts from
// the end), a Slice, `new_axis` (an axis of length 1) or `ellipsis` (all axes without an index).
//
//   x[3], x[{0, Slice{1, 5}}], x[{ellipsis, -1}], x[Slice{.step = -1}]
struct Slice {  // start:stop:step, each optional; clipped to the axis
  std::optional<std::int64_t> start = {}, stop = {}, step = {};
};
struct NewAxis {};
struct Ellipsis {};
inline constexpr NewAxis new_axis;
inline constexpr Ellipsis ellipsis;
using IndexKind = std::variant<std::int64_t, Slice, NewAxis, Ellipsis>;
struct Index : IndexKind {
  template <std::integral I> Index(I at) : IndexKind(static_cast<std::int64_t>(at)) {}
  Index(Slice s) : IndexKind(s) {}
  Index(NewAxis n) : IndexKind(n) {}
  Index(Ellipsis e) : IndexKind(e) {}
};

// A resolved index: an integer (removes the axis), a slice (start, count, step) or a new axis.
struct IndexItem {
  enum class Kind : std::uint8_t { kInteger, kSlice, kNewAxis };
  Kind kind;
  std::int64_t start = 0;  // integer: the index
  std::int64_t count = 1;
  std::int64_t step = 1;
};

// A number as a script writes it. An integer keeps all its digits: int64 arrays hold more than a double does.
struct Number {
  Number() = default;  // none
  template <class T> requires std::is_arithmetic_v<T>
  Number(T v) : kind(std::same_as<T, bool> ? 1 : std::integral<T> ? 2 : 3), value(static_cast<double>(v)) {
    if constexpr (std::integral<T>) {
      integer = static_cast<std::int64_t>(v);
      fits_int64 = std::signed_integral<T> || integer >= 0;
    }
  }
  // Whether an array of this type can hold it; as a float it is truncated toward zero first.
  bool fits(DType type) const;

  std::uint8_t kind = 0;      // 0 none, 1 bool, 2 int, 3 float
  bool fits_int64 = true;     // else only `value` says how large the integer is
  double value = 0;
  std::int64_t integer = 0;   // of a bool or int: exact
};

class NArray {
 public:
  NArray() = default;  // empty: may only be assigned to
  NArray(const NArray& o);
  NArray(NArray&& o) noexcept : node_(std::exchange(o.node_, nullptr)) {}
  NArray& operator=(NArray o) noexcept { std::swap(node_, o.node_); return *this; }
  ~NArray();

  // Takes over one handle on the node.
  static NArray adopt(Node* node) { NArray a; a.node_ = node; return a; }
  Node* node() const { return node_; }
  Node* detach() { return std::exchange(node_, nullptr); }
  bool has_value() const { return node_ != nullptr; }  // false: empty, because never assigned or moved from
  // An array is not a condition: write `if ((a > 1.0).item())` for one element, has_value() for emptiness.
  explicit operator bool() const = delete;

  // These never wait.
  const Shape& shape() const;
  DType dtype() const;
  int device() const;  // the id
  std::int64_t size() const { return shape().size(); }
  int ndim() const { return shape().ndim(); }

  NArray reshape(std::vector<std::int64_t> lengths) const;  // one -1 allowed; column-major order
  template <Length... I> NArray reshape(I... lengths) const {
    return reshape(std::vector<std::int64_t>{static_cast<std::int64_t>(lengths)...});
  }
  NArray trans() const;                                     // 2-d
  NArray transpose(const std::vector<std::int64_t>& axes) const;
  template <Length... I> NArray transpose(I... axes) const {
    return transpose(std::vector<std::int64_t>{static_cast<std::int64_t>(axes)...});
  }
  NArray operator[](std::initializer_list<Index> indices) const;  // IndexError: out of range, or too many
  NArray operator[](const Index& index) const { return (*this)[{index}]; }
  NArray index(std::span<const IndexItem> items) const;     // the same with resolved items, for front ends
  NArray astype(DType dtype) const;
  NArray copy_to(int device) const;

  // Reductions keep the axis with length 1; `axes` empty means all of them, and then the result has shape [1].
  NArray sum(const std::vector<std::int64_t>& axes = {}) const;
  NArray max(const std::vector<std::int64_t>& axes = {}) const;
  NArray min(const std::vector<std::int64_t>& axes = {}) const;
  NArray mean(const std::vector<std::int64_t>& axes = {}) const;
  NArray prod(const std::vector<std::int64_t>& axes = {}) const;
  // The mean square distance from the mean, and its root; `correction` is taken from the count that divides.
  NArray var(const std::vector<std::int64_t>& axes = {}, double correction = 0) const;
  NArray std(const std::vector<std::int64_t>& axes = {}, double correction = 0) const;
  NArray any(const std::vector<std::int64_t>& axes = {}) const;  // bool: whether one element is not 0
  NArray all(const std::vector<std::int64_t>& axes = {}) const;  // bool: whether no element is 0
  template <std::integral I> NArray sum(I axis) const { return sum(std::vector<std::int64_t>{axis}); }
  template <std::integral I> NArray max(I axis) const { return max(std::vector<std::int64_t>{axis}); }
  template <std::integral I> NArray min(I axis) const { return min(std::vector<std::int64_t>{axis}); }
  template <std::integral I> NArray mean(I axis) const { return mean(std::vector<std::int64_t>{axis}); }
  template <std::integral I> NArray prod(I axis) const { return prod(std::vector<std::int64_t>{axis}); }
  template <std::integral I> NArray var(I axis, double correction = 0) const {
    return var(std::vector<std::int64_t>{axis}, correction);
  }
  template <std::integral I> NArray std(I axis, double correction = 0) const {
    return std(std::vector<std::int64_t>{axis}, correction);
  }
  template <std::integral I> NArray any(I axis) const { return any(std::vector<std::int64_t>{axis}); }
  template <std::integral I> NArray all(I axis) const { return all(std::vector<std::int64_t>{axis}); }
  NArray argmax(std::optional<std::int64_t> axis = {}) const;  // int32; of equal elements the first
  NArray argmin(std::optional<std::int64_t> axis = {}) const;
  NArray max_index(std::int64_t axis) const { return argmax(axis); }
  NArray cumsum(std::int64_t axis) const;  // the sums of the elements so far; the axis keeps its length
  std::int64_t count_zero() const;  // waits

  void start_eval() const;                                          // starts the computation; never waits
  bool wait_for_eval(std::optional<double> timeout_s = {}) const;   // false: the time ran out
  bool ready() const;
  // Waits and copies the elements, column-major, to host memory of size() * itemsize(dtype()) bytes.
  void copy_to_host(void* destination) const;
  // Waits; returns the elements, column-major. DTypeError: T is not their type.
  template <class T> std::vector<T> to_host() const;
  double item() const;  // waits; one element only
  // The same, exact; DTypeError: T is not the element's type.
  template <class T> T item() const;

 private:
  Node* node_ = nullptr;
};

namespace detail {
[[noreturn]] void refuse_empty();
}  // namespace detail

// An operand of an elementwise operation: an array or a number (which never promotes a float type).
class Operand : public Number {
 public:
  Operand(const NArray& a) : node(a.node()) {  // Error: a is empty
    if (!node) detail::refuse_empty();
  }
  template <class T> requires std::is_arithmetic_v<T> Operand(T v) : Number(v) {}
  explicit Operand(const Number& v) : Number(v) {}

  Node* node = nullptr;
};

NArray operator+(const Operand& a, const Operand& b);
NArray operator-(const Operand& a, const Operand& b);
NArray operator*(const NArray& a, const NArray& b);  // the matrix product
template <class T> requires std::is_arithmetic_v<T> NArray operator*(const NArray& a, T b);  // scales
template <class T> requires std::is_arithmetic_v<T> NArray operator*(T a, const NArray& b);
NArray operator/(const Operand& a, const Operand& b);
NArray operator-(const NArray& a);
// The remainder of floor_divide, with the sign of b. Integers by 0 give 0.
NArray operator%(const Operand& a, const Operand& b);
NArray operator&(const Operand& a, const Operand& b);  // of bools and integers, bit by bit
NArray operator|(const Operand& a, const Operand& b);
NArray operator^(const Operand& a, const Operand& b);
NArray operator~(const NArray& a);
NArray operator>(const Operand& a, const Operand& b);
NArray operator>=(const Operand& a, const Operand& b);
NArray operator<(const Operand& a, const Operand& b);
NArray operator<=(const Operand& a, const Operand& b);
NArray operator==(const Operand& a, const Operand& b);
NArray operator!=(const Operand& a, const Operand& b);
NArray& operator+=(NArray& a, const Operand& b);  // ShapeError if b would enlarge a
NArray& operator-=(NArray& a, const Operand& b);
NArray& operator*=(NArray& a, const NArray& b);   // the matrix product
template <class T> requires std::is_arithmetic_v<T> NArray& operator*=(NArray& a, T b);
NArray& operator/=(NArray& a, const Operand& b);
NArray& operator%=(NArray& a, const Operand& b);
NArray& operator&=(NArray& a, const Operand& b);
NArray& operator|=(NArray& a, const Operand& b);
NArray& operator^=(NArray& a, const Operand& b);

NArray pow(const Operand& a, const Operand& b);
NArray floor_divide(const Operand& a, const Operand& b);  // a / b rounded down; integers by 0 give 0
// [m, k, ...] x [k, n, ...] -> [m, n, ...]: products of the leading two axes; the others broadcast.
NArray matmul(const NArray& a, const NArray& b);

// A shape is a list or one integer; zeros, ones, rand and randn also take several integers: zeros(3, 4) is zeros({3,
// 4}).
NArray zeros(const Shape& shape, DType dtype = DType::kFloat32);
NArray ones(const Shape& shape, DType dtype = DType::kFloat32);
template <Length... I> requires(sizeof...(I) > 1) NArray zeros(I... lengths);
template <Length... I> requires(sizeof...(I) > 1) NArray ones(I... lengths);
// OverflowError: the value is outside the range of the integer type.
NArray full(const Shape& shape, const Number& value, DType dtype = DType::kFloat32);
// start, start + step ... up to, not including, stop; with one number n, 0 to n - 1.
NArray arange(const Number& start, const Number& stop, const Number& step = 1, DType dtype = DType::kFloat32);
inline NArray arange(const Number& n, DType dtype = DType::kFloat32) { return arange(0, n, 1, dtype); }
// The shape of x, and its type unless another is given.
NArray zeros_like(const NArray& x, std::optional<DType> dtype = {});
NArray ones_like(const NArray& x, std::optional<DType> dtype = {});
NArray full_like(const NArray& x, const Number& value, std::optional<DType> dtype = {});
// Shape [n, m]: 1 where the second index is the first plus k, else 0.
NArray eye(std::int64_t n, std::int64_t m, std::int64_t k = 0, DType dtype = DType::kFloat32);
inline NArray eye(std::int64_t n, DType dtype = DType::kFloat32) { return eye(n, n, 0, dtype); }
// `num` evenly spaced values from start to stop; without `endpoint`, stop would be the next one.
NArray linspace(double start, double stop, std::int64_t num = 50, bool endpoint = true, DType dtype = DType::kFloat32);
// Copies the elements, in column-major order: the caller may change them afterwards.
NArray from_host(const void* data, const Shape& shape, DType dtype);
template <class T> NArray from_host(std::span<const T> values, const Shape& shape);  // ShapeError: wrong number
template <class T> NArray from_host(std::initializer_list<T> values, const Shape& shape) {
  return from_host(std::span<const T>(values.begin(), values.size()), shape);
}
// A vector, an array or anything else that converts to std::span.
template <class Values> requires requires(const Values& values) { std::span(values); }
NArray from_host(const Values& values, const Shape& shape);
NArray from_host(const std::vector<bool>& values, const Shape& shape);  // which stores bits, not bools
// Wraps memory of the current device, which the caller keeps alive until owl calls `release(context)`. On a GPU the
// readers have been ordered by then, but may not have run. Memory of bools with bytes other than 0 and 1 is copied (on
// a GPU: any memory of bools), and nonzero is true.
NArray from_foreign(void* data, const Shape& shape, DType dtype, void (*release)(void*), void* context);
NArray randn(const Shape& shape, double mu = 0, double sigma = 1, DType dtype = DType::kFloat32);
NArray rand(const Shape& shape, double low = 0, double high = 1, DType dtype = DType::kFloat32);
// ValueError: one of the integers is 0 or negative, perhaps meant as mu: write randn({3}, 0.0, 1.0).
template <Length... I> requires(sizeof...(I) > 1) NArray randn(I... lengths);
template <Length... I> requires(sizeof...(I) > 1) NArray rand(I... lengths);
template <Length I, class... T> requires(!(Length<T> && ...)) NArray randn(I length, T... more) = delete;
template <Length I, class... T> requires(!(Length<T> && ...)) NArray rand(I length, T... more) = delete;
NArray randb(const Shape& shape, double prob, DType dtype = DType::kFloat32);
template <Length I, Length J, class... T> NArray randb(I length, J not_a_probability, T... more) = delete;
void seed(std::uint64_t n);
// The place of the generator: what was drawn after random_state() is drawn again after set_random_state().
struct RandomState {
  std::uint64_t seed = 0, drawn = 0;  // drawn: how many random arrays since the seed
  bool operator==(const RandomState&) const = default;
};
RandomState random_state();
void set_random_state(const RandomState& state);
NArray concat(const std::vector<NArray>& arrays, std::int64_t axis);
NArray slice(const NArray& x, std::int64_t axis, std::int64_t offset, std::int64_t count);
// Arrays of one shape, joined along a new axis.
NArray stack(const std::vector<NArray>& arrays, std::int64_t axis = 0);
// As many equal parts along an axis, or the parts between these places (negative ones count from the end).
template <Length I> std::vector<NArray> split(const NArray& x, I parts, std::int64_t axis);
std::vector<NArray> split(const NArray& x, const std::vector<std::int64_t>& places, std::int64_t axis);
// x with `value` around it: the numbers of elements before and behind, of each axis, or one pair for all axes.
using Widths = std::vector<std::pair<std::int64_t, std::int64_t>>;
NArray pad(const NArray& x, const Widths& widths, const Number& value = 0);
template <Length I> NArray pad(const NArray& x, I width, const Number& value = 0);
// Backwards along these axes, without any along all. A view.
NArray flip(const NArray& x, const std::vector<std::int64_t>& axes = {});
template <Length I> NArray flip(const NArray& x, I axis) { return flip(x, std::vector<std::int64_t>{axis}); }
// Element i goes to i + shift along an axis, round its end; without axes, all elements in memory order.
NArray roll(const NArray& x, const std::vector<std::int64_t>& shifts, const std::vector<std::int64_t>& axes = {});
template <Length I> NArray roll(const NArray& x, I shift) { return roll(x, std::vector<std::int64_t>{shift}); }
template <Length I> NArray roll(const NArray& x, I shift, std::int64_t axis) {
  return roll(x, std::vector<std::int64_t>{shift}, {axis});
}
// x as often along each axis, from the first on.
NArray tile(const NArray& x, const std::vector<std::int64_t>& counts);
template <Length I> NArray tile(const NArray& x, I count) { return tile(x, std::vector<std::int64_t>{count}); }
// Each element as often as its count says (one for all) along an axis; without one, of all elements in memory order.
NArray repeat(const NArray& x, const std::vector<std::int64_t>& counts, std::optional<std::int64_t> axis = {});
template <Length I> NArray repeat(const NArray& x, I count, std::optional<std::int64_t> axis = {}) {
  return repeat(x, std::vector<std::int64_t>{count}, axis);
}
// log(exp(x).sum(axes)), exact for large and small x.
NArray logsumexp(const NArray& x, const std::vector<std::int64_t>& axes = {});
template <Length I> NArray logsumexp(const NArray& x, I axis) { return logsumexp(x, std::vector<std::int64_t>{axis}); }

// The elements of an axis that integer indices of any shape name; negative ones count from the end. The axes of the
// indices take the place of the axis. A wait for the result throws an IndexError for an index out of range.
NArray take(const NArray& x, const NArray& indices, std::int64_t axis);
// x with values added to the elements that take() would give, in the order of the indices.
NArray put_add(const NArray& x, const NArray& indices, const NArray& values, std::int64_t axis);
// [N] or [1, N] -> [n, N]: 1 at the place of each label, else 0. A wait throws an IndexError for a label not from 0 to
// n - 1.
NArray one_hot(const NArray& labels, std::int64_t n, DType dtype = DType::kFloat32);
// Ascending along an axis, NaN last; stable.
NArray sort(const NArray& x, std::int64_t axis = 0);
NArray argsort(const NArray& x, std::int64_t axis = 0);  // int32
// The k largest along an axis, the largest first, and their places (int32): of equals the first, NaN before all numbers.
struct TopK {
  NArray values, indices;
};
TopK topk(const NArray& x, std::int64_t k, std::int64_t axis = 0);

// Waits and prints the elements as nested lists in owl's order of axes, above 1,000 only those at the edges; then
// shape, type and device. Prints the error of a failed value instead of throwing it.
std::ostream& operator<<(std::ostream& out, const NArray& x);

// The elementwise operation of this name (see elewise.h for the typed names).
NArray elementwise(const char* op, std::span<const Operand> operands);

// ---- templates

namespace detail {
NArray scale(const Operand& a, const Operand& b);
NArray& floor_divide_in_place(NArray& a, const Operand& b);
Shape shape_of_numbers(const char* function, std::initializer_list<std::int64_t> lengths);
std::vector<NArray> split_equally(const NArray& x, std::int64_t parts, std::int64_t axis);
NArray pad_evenly(const NArray& x, std::int64_t width, const Number& value);
[[noreturn]] void refuse_element_type(DType is, DType asked);
[[noreturn]] void refuse_count(std::size_t count, const Shape& shape);
[[noreturn]] void refuse_item(const Shape& shape);
}  // namespace detail

template <class T> requires std::is_arithmetic_v<T>
NArray operator*(const NArray& a, T b) { return detail::scale(a, b); }
template <class T> requires std::is_arithmetic_v<T>
NArray operator*(T a, const NArray& b) { return detail::scale(a, b); }
template <class T> requires std::is_arithmetic_v<T> NArray& operator*=(NArray& a, T b) { return a = a * b; }

template <Length... I> requires(sizeof...(I) > 1) NArray zeros(I... lengths) {
  return zeros(Shape{static_cast<std::int64_t>(lengths)...});
}
template <Length... I> requires(sizeof...(I) > 1) NArray ones(I... lengths) {
  return ones(Shape{static_cast<std::int64_t>(lengths)...});
}
template <Length... I> requires(sizeof...(I) > 1) NArray randn(I... lengths) {
  return randn(detail::shape_of_numbers("randn", {static_cast<std::int64_t>(lengths)...}));
}
template <Length... I> requires(sizeof...(I) > 1) NArray rand(I... lengths) {
  return rand(detail::shape_of_numbers("rand", {static_cast<std::int64_t>(lengths)...}));
}

template <Length I> std::vector<NArray> split(const NArray& x, I parts, std::int64_t axis) {
  return detail::split_equally(x, static_cast<std::int64_t>(parts), axis);
}
template <Length I> NArray pad(const NArray& x, I width, const Number& value) {
  return detail::pad_evenly(x, static_cast<std::int64_t>(width), value);
}

template <class Values> requires requires(const Values& values) { std::span(values); }
NArray from_host(const Values& values, const Shape& shape) {
  const std::span all(values);
  return from_host(std::span<const typename decltype(all)::value_type>(all), shape);
}
template <class T> NArray from_host(std::span<const T> values, const Shape& shape) {
  if (values.size() != static_cast<std::size_t>(shape.size())) detail::refuse_count(values.size(), shape);
  return from_host(values.data(), shape, dtype_of<T>::value);
}

template <class T> std::vector<T> NArray::to_host() const {
  if (dtype_of<T>::value != dtype()) detail::refuse_element_type(dtype(), dtype_of<T>::value);
  const auto count = static_cast<std::size_t>(size());
  if constexpr (std::same_as<T, bool>) {
    const auto bytes = std::make_unique<bool[]>(count);
    copy_to_host(bytes.get());
    return std::vector<bool>(bytes.get(), bytes.get() + count);
  } else {
    std::vector<T> values(count);
    copy_to_host(values.data());
    return values;
  }
}

template <class T> T NArray::item() const {
  if (size() != 1) detail::refuse_item(shape());
  return to_host<T>()[0];
}

}  // namespace owl
