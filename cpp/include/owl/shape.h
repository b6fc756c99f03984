// Shapes: column-major, the first axis varies fastest.
#pragma once

#include <array>
#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

#include "owl/export.h"

namespace owl OWL_API {

inline constexpr int kMaxAxes = 8;

using Strides = std::array<std::int64_t, kMaxAxes>;  // in elements

template <class T> concept Length = std::integral<T> && !std::same_as<T, bool>;

class Shape {
 public:
  Shape() = default;
  // ShapeError: no axis, more than kMaxAxes, a negative length, or a size that overflows.
  Shape(std::initializer_list<std::int64_t> lengths);
  template <Length I> Shape(I length) : Shape({static_cast<std::int64_t>(length)}) {}  // one axis
  explicit Shape(std::span<const std::int64_t> lengths);

  int ndim() const { return ndim_; }
  std::int64_t size() const { return size_; }
  std::int64_t operator[](int axis) const { return lengths_[axis]; }
  // The length of an axis, or 1 beyond the last axis.
  std::int64_t at_or_one(int axis) const { return axis < ndim_ ? lengths_[axis] : 1; }
  const std::int64_t* begin() const { return lengths_.data(); }
  const std::int64_t* end() const { return lengths_.data() + ndim_; }

  // This shape with one axis's length replaced.
  Shape with(int axis, std::int64_t length) const;
  // The strides of a dense column-major array; entries past ndim are 0.
  Strides dense_strides() const;
  std::string str() const;  // "[256, 784]"

  bool operator==(const Shape& o) const {
    if (ndim_ != o.ndim_ || size_ != o.size_) return false;
    for (int i = 0; i < ndim_; ++i)
      if (lengths_[i] != o.lengths_[i]) return false;
    return true;
  }

 private:
  std::array<std::int64_t, kMaxAxes> lengths_{};
  std::int64_t size_ = 0;
  int ndim_ = 0;
};

// `axis` counted from 0, negative from the end; ShapeError names `op`, the axis and the shape.
int normalize_axis(std::int64_t axis, const Shape& shape, const char* op);

}  // namespace owl
