// Rearrangements, composed of views, joins and broadcasting.
#include <algorithm>
#include <string>

#include "graph/record.h"
#include "ops/records.h"

namespace owl {

namespace {

using Lengths = std::vector<std::int64_t>;

const Shape& shape_of(const NArray& x, const char* op) {
  if (!x.has_value()) throw Error(std::string(op) + ": an empty NArray has no value; assign one first");
  return x.shape();
}

// The items of an index that takes every axis whole.
std::vector<IndexItem> whole(const Shape& shape) {
  std::vector<IndexItem> items;
  for (const std::int64_t length : shape) items.push_back({IndexItem::Kind::kSlice, 0, length, 1});
  return items;
}

// x in this shape, to which its axes of length 1 broadcast.
NArray broadcast(const NArray& x, const Shape& shape) {
  const Operand operands[] = {x, true};  // a product with true keeps the type and every bit
  return record_elementwise(*find_op("mult"), operands, &shape);
}

// The axes before and behind an axis, as one each.
struct Around {
  std::int64_t before = 1, length, behind = 1;
};
Around around(const Shape& shape, int axis) {
  Around a{.length = shape[axis]};
  for (int i = 0; i < shape.ndim(); ++i) {
    if (i < axis) a.before *= shape[i];
    if (i > axis) a.behind *= shape[i];
  }
  return a;
}

// A whole axis `count` times, or each of its elements: an axis more, behind it or in front, along which x broadcasts.
NArray multiply_axis(const NArray& x, int axis, std::int64_t count, bool each) {
  const Shape result = x.shape().with(axis, Shape{x.shape()[axis], count}.size());
  if (count == 1) return x;
  const auto [before, length, behind] = around(x.shape(), axis);
  const NArray parts = each ? x.reshape({before, 1, length, behind}) : x.reshape({before, length, 1, behind});
  const Shape all = each ? Shape{before, count, length, behind} : Shape{before, length, count, behind};
  return broadcast(parts, all).reshape(lengths_of(result));
}

void require_counts(const char* op, const Lengths& counts) {
  for (const std::int64_t n : counts)
    if (n < 0) throw ShapeError(std::string(op) + ": the count " + std::to_string(n) + " is negative");
}

NArray roll_axis(const NArray& x, int axis, std::int64_t shift) {
  const std::int64_t n = x.shape()[axis];
  const std::int64_t from_end = n == 0 ? 0 : (shift % n + n) % n;
  if (from_end == 0) return x;
  return concat({slice(x, axis, n - from_end, from_end), slice(x, axis, 0, n - from_end)}, axis);
}

}  // namespace

NArray stack(const std::vector<NArray>& arrays, std::int64_t along) {
  if (arrays.empty()) throw ShapeError("stack: needs one array at least");
  const Shape& shape = shape_of(arrays[0], "stack");
  if (shape.ndim() == kMaxAxes)
    throw ShapeError("stack of " + shape.str() + ": the result would have more than " + std::to_string(kMaxAxes) +
                     " axes");
  for (const NArray& a : arrays)
    if (!(shape_of(a, "stack") == shape))
      throw ShapeError("stack of " + shape.str() + " and " + a.shape().str() + ": all shapes must be equal");
  Lengths longer = lengths_of(shape);
  longer.push_back(1);
  const int axis = normalize_axis(along, Shape(longer), "stack");
  std::vector<NArray> parts;
  for (const NArray& a : arrays) {
    auto items = whole(shape);
    items.insert(items.begin() + axis, IndexItem{IndexItem::Kind::kNewAxis});
    parts.push_back(a.index(items));
  }
  return concat(parts, axis);
}

std::vector<NArray> split(const NArray& x, const std::vector<std::int64_t>& places, std::int64_t along) {
  const Shape& shape = shape_of(x, "split");
  const int axis = normalize_axis(along, shape, "split");
  const std::int64_t length = shape[axis];
  std::vector<NArray> parts;
  std::int64_t from = 0;
  const auto part_until = [&](std::int64_t place) {
    const std::int64_t stop = std::clamp(place < 0 ? place + length : place, std::int64_t{0}, length);
    parts.push_back(slice(x, axis, from, std::max<std::int64_t>(stop - from, 0)));
    from = stop;
  };
  for (const std::int64_t place : places) part_until(place);
  part_until(length);
  return parts;
}

std::vector<NArray> detail::split_equally(const NArray& x, std::int64_t parts, std::int64_t along) {
  const Shape& shape = shape_of(x, "split");
  const int axis = normalize_axis(along, shape, "split");
  if (parts < 1 || shape[axis] % parts != 0)
    throw ShapeError("split: axis " + std::to_string(axis) + " of " + shape.str() + " does not divide into " +
                     std::to_string(parts) + " equal parts; a list of places cuts into any parts");
  const std::int64_t each = shape[axis] / parts;
  std::vector<NArray> all;
  for (std::int64_t i = 0; i < parts; ++i) all.push_back(slice(x, axis, i * each, each));
  return all;
}

NArray pad(const NArray& x, const Widths& widths, const Number& value) {
  const Shape& shape = shape_of(x, "pad");
  const auto axes = static_cast<std::size_t>(shape.ndim());
  if (widths.size() != axes && widths.size() != 1)
    throw ShapeError("pad: " + std::to_string(widths.size()) + " pairs of widths for shape " + shape.str() +
                     "; there must be one for each axis, or one for all");
  NArray result = x;
  for (std::size_t axis = 0; axis < axes; ++axis) {
    const auto [before, behind] = widths[widths.size() == 1 ? 0 : axis];
    if (before < 0 || behind < 0)
      throw ShapeError("pad: the width " + std::to_string(std::min(before, behind)) + " is negative");
    const int along = static_cast<int>(axis);
    std::vector<NArray> parts;
    if (before) parts.push_back(full(result.shape().with(along, before), value, x.dtype()));
    parts.push_back(result);
    if (behind) parts.push_back(full(result.shape().with(along, behind), value, x.dtype()));
    if (parts.size() > 1) result = concat(parts, along);
  }
  return result;
}

NArray detail::pad_evenly(const NArray& x, std::int64_t width, const Number& value) { return pad(x, {{width, width}}, value); }

NArray flip(const NArray& x, const std::vector<std::int64_t>& axes) {
  const Shape& shape = shape_of(x, "flip");
  auto items = whole(shape);
  const auto turn = [](IndexItem& item) {
    if (item.count > 1) item = {IndexItem::Kind::kSlice, item.count - 1, item.count, -1};
  };
  if (axes.empty()) std::ranges::for_each(items, turn);
  unsigned seen = 0;
  for (const std::int64_t each : axes) {
    const int axis = normalize_axis(each, shape, "flip");
    if (seen >> axis & 1)
      throw ShapeError("flip: axis " + std::to_string(each) + " of shape " + shape.str() + " is named twice");
    seen |= 1u << axis;
    turn(items[static_cast<std::size_t>(axis)]);
  }
  return x.index(items);
}

NArray roll(const NArray& x, const std::vector<std::int64_t>& shifts, const std::vector<std::int64_t>& axes) {
  const Shape shape = shape_of(x, "roll");
  if (axes.empty()) return roll(x.reshape({-1}), shifts, {0}).reshape(lengths_of(shape));
  const std::size_t count = std::max(shifts.size(), axes.size());
  if ((shifts.size() != count && shifts.size() != 1) || (axes.size() != count && axes.size() != 1))
    throw ShapeError("roll: " + std::to_string(shifts.size()) + " shifts for " + std::to_string(axes.size()) +
                     " axes; there must be as many, or one");
  NArray result = x;
  for (std::size_t i = 0; i < count; ++i) {
    const int axis = normalize_axis(axes[axes.size() == 1 ? 0 : i], shape, "roll");
    result = roll_axis(result, axis, shifts[shifts.size() == 1 ? 0 : i]);
  }
  return result;
}

NArray tile(const NArray& x, const std::vector<std::int64_t>& counts) {
  Lengths lengths = lengths_of(shape_of(x, "tile"));
  require_counts("tile", counts);
  while (lengths.size() < counts.size()) lengths.push_back(1);
  NArray result = lengths.size() == static_cast<std::size_t>(x.ndim()) ? x : x.reshape(lengths);
  for (std::size_t axis = 0; axis < counts.size(); ++axis)
    result = multiply_axis(result, static_cast<int>(axis), counts[axis], false);
  return result;
}

NArray repeat(const NArray& x, const std::vector<std::int64_t>& counts, std::optional<std::int64_t> along) {
  const Shape shape = shape_of(x, "repeat");
  if (!along) return repeat(x.reshape({-1}), counts, 0);
  const int axis = normalize_axis(*along, shape, "repeat");
  require_counts("repeat", counts);
  if (counts.size() == 1) return multiply_axis(x, axis, counts[0], true);
  if (static_cast<std::int64_t>(counts.size()) != shape[axis])
    throw ShapeError("repeat: " + std::to_string(counts.size()) + " counts for axis " + std::to_string(axis) +
                     " of shape " + shape.str() + "; there must be one for each of its elements, or one for all");
  std::vector<NArray> parts;
  for (std::int64_t i = 0; i < shape[axis]; ++i)
    if (const std::int64_t n = counts[static_cast<std::size_t>(i)])
      parts.push_back(multiply_axis(slice(x, axis, i, 1), axis, n, true));
  return parts.empty() ? slice(x, axis, 0, 0) : concat(parts, axis);
}

}  // namespace owl
