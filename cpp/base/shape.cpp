#include "owl/shape.h"

#include "owl/error.h"

namespace owl {

namespace {

std::string text(std::span<const std::int64_t> lengths) {
  std::string s = "[";
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    if (i) s += ", ";
    s += std::to_string(lengths[i]);
  }
  return s + "]";
}

}  // namespace

Shape::Shape(std::initializer_list<std::int64_t> lengths) : Shape(std::span(lengths.begin(), lengths.size())) {}

Shape::Shape(std::span<const std::int64_t> lengths) {
  if (lengths.empty()) throw ShapeError("shape []: owl has no 0-d arrays; a single value has shape [1]");
  if (lengths.size() > kMaxAxes)
    throw ShapeError("shape " + text(lengths) + ": at most " + std::to_string(kMaxAxes) + " axes are supported, got " +
                     std::to_string(lengths.size()));
  std::int64_t nonzero = 1;  // a zero must not hide an overflow of the other lengths (strides are made of them)
  size_ = 1;
  for (auto n : lengths) {
    if (n < 0) throw ShapeError("shape " + text(lengths) + ": length " + std::to_string(n) + " is negative");
    // 8 bytes an element at most, so the byte count fits too.
    if (n > 0 && __builtin_mul_overflow(nonzero, n, &nonzero)) nonzero = INT64_MAX;
    if (nonzero > INT64_MAX / 8) throw ShapeError("shape " + text(lengths) + ": too large, its size overflows 64 bits");
    size_ *= n;
    lengths_[ndim_++] = n;
  }
}

Shape Shape::with(int axis, std::int64_t length) const {
  auto lengths = lengths_;
  lengths[axis] = length;
  return Shape(std::span(lengths.data(), static_cast<std::size_t>(ndim_)));
}

Strides Shape::dense_strides() const {
  Strides s{};
  std::int64_t step = 1;
  for (int i = 0; i < ndim_; ++i) {
    s[i] = step;
    step *= lengths_[i];
  }
  return s;
}

std::string Shape::str() const { return text(std::span(begin(), end())); }

int normalize_axis(std::int64_t axis, const Shape& shape, const char* op) {
  const auto n = shape.ndim();
  if (axis < -n || axis >= n)
    throw ShapeError(std::string(op) + ": axis " + std::to_string(axis) + " is out of range for shape " + shape.str() +
                     " (valid: " + std::to_string(-n) + " to " + std::to_string(n - 1) + ")");
  return static_cast<int>(axis < 0 ? axis + n : axis);
}

}  // namespace owl
