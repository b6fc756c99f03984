// Views (reshape, transpose, index, slice) and concatenation.
#include <algorithm>
#include <string>

#include "graph/gradient.h"
#include "graph/record.h"
#include "ops/concat.h"
#include "ops/records.h"

namespace owl {

namespace {

std::string text(std::span<const std::int64_t> lengths) {
  std::string s = "[";
  for (std::size_t i = 0; i < lengths.size(); ++i) s += (i ? ", " : "") + std::to_string(lengths[i]);
  return s + "]";
}

const Node& node_of(const NArray& x, const char* op) {
  if (!x.has_value()) throw Error(std::string(op) + ": an empty NArray has no value; assign one first");
  return *x.node();
}

// A view with these strides, recorded as dense where they are.
NArray view(const NArray& x, const Shape& shape, std::int64_t offset, const Strides& strides) {
  const Strides dense_strides = shape.dense_strides();
  bool is_dense = true;
  for (int i = 0; i < shape.ndim(); ++i) is_dense = is_dense && (shape[i] == 1 || strides[i] == dense_strides[i]);
  if (shape.size() == 0) return record_view(x, shape, 0, nullptr);
  return record_view(x, shape, offset, is_dense ? nullptr : &strides);
}

Results infer_concat(std::span<Node* const> in, const Params* params) {
  const int axis = static_cast<const ConcatParams*>(params)->axis;
  const Shape& first = in[0]->shape;
  std::int64_t length = 0;
  for (const Node* x : in) {
    bool fits = x->shape.ndim() == first.ndim();
    for (int i = 0; i < first.ndim() && fits; ++i) fits = i == axis || x->shape[i] == first[i];
    if (!fits)
      throw ShapeError("concat along axis " + std::to_string(axis) + " of " + first.str() + " and " + x->shape.str() +
                       ": all other axes must be equal");
    length += x->shape[axis];
  }
  return {first.with(axis, length), in[0]->dtype};
}

// Each operand gets its slice of the error.
void concat_rule(Rule& r) {
  const int axis = r.params<ConcatParams>().axis;
  std::int64_t offset = 0;
  for (std::size_t i = 0; i < r.operand_count(); ++i) {
    const std::int64_t length = r.shape(i)[axis];
    r.to(i, [&]() -> Term {
      if (!r.error().is_array()) return r.error();
      return slice(r.error().array(), axis, offset, length);
    });
    offset += length;
  }
}
constexpr Gradient concat_gradient{{}, concat_rule};

}  // namespace

const OpRecord op_concat = {.name = "concat",
                            .doc = "joins arrays along one axis; the others are equal",
                            .arity = -1,
                            .infer = infer_concat,
                            .gradient = &concat_gradient};

NArray NArray::reshape(std::vector<std::int64_t> lengths) const {
  const Shape& old = node_of(*this, "reshape").shape;
  if (lengths.empty())
    throw ShapeError("reshape: " + old.str() + " to []: owl has no 0-d arrays; a single value has shape [1]");
  std::int64_t known = 1;
  auto open = lengths.end();
  for (auto it = lengths.begin(); it != lengths.end(); ++it) {
    if (*it == -1 && open == lengths.end()) open = it;
    else if (*it < 0) throw ShapeError("reshape: " + text(lengths) + " has " +
                                       (*it == -1 ? "more than one -1" : "the negative length " + std::to_string(*it)));
    else if (__builtin_mul_overflow(known, *it, &known)) known = INT64_MAX;
  }
  const bool fits = open == lengths.end() ? known == old.size() : known != 0 && old.size() % known == 0;
  if (!fits)
    throw ShapeError("reshape: " + old.str() + " has " + std::to_string(old.size()) + " elements, " + text(lengths) +
                     (open == lengths.end() ? " has " + std::to_string(known)
                                            : " needs a multiple of " + std::to_string(known)));
  if (open != lengths.end()) *open = old.size() / known;
  return record_view(dense(*this), Shape(lengths), 0, nullptr);
}

NArray NArray::trans() const {
  const Shape& s = node_of(*this, "trans").shape;
  if (s.ndim() != 2)
    throw ShapeError("trans: " + s.str() + " has " + std::to_string(s.ndim()) +
                     " axes, expected 2; transpose(axes) takes any number");
  return transpose({1, 0});
}

NArray NArray::transpose(const std::vector<std::int64_t>& axes) const {
  const Node& x = node_of(*this, "transpose");
  const int n = x.shape.ndim();
  const auto refuse = [&](const char* why) {
    throw ShapeError("transpose: axes " + text(axes) + " of shape " + x.shape.str() + ": " + why);
  };
  if (static_cast<int>(axes.size()) != n) refuse("each axis must be named once");
  const Strides old = strides_of(x);
  Strides strides{};
  std::int64_t lengths[kMaxAxes];
  unsigned seen = 0;
  for (int i = 0; i < n; ++i) {
    const int axis = normalize_axis(axes[static_cast<std::size_t>(i)], x.shape, "transpose");
    if (seen >> axis & 1) refuse("each axis must be named once");
    seen |= 1u << axis;
    lengths[i] = x.shape[axis];
    strides[i] = old[axis];
  }
  return view(*this, Shape(std::span(lengths, static_cast<std::size_t>(n))), 0, strides);
}

NArray NArray::index(std::span<const IndexItem> items) const {
  const Node& x = node_of(*this, "index");
  const Strides old = strides_of(x);
  std::vector<std::int64_t> lengths;
  Strides strides{};
  std::int64_t offset = 0;
  int axis = 0;
  const auto keep = [&](std::int64_t length, std::int64_t stride) {
    if (lengths.size() == kMaxAxes)
      throw ShapeError("index: the result would have more than " + std::to_string(kMaxAxes) + " axes");
    strides[lengths.size()] = stride;
    lengths.push_back(length);
  };
  const auto check = [&](std::int64_t at) {
    if (at < 0 || at >= x.shape[axis])
      throw IndexError("index " + std::to_string(at) + " is out of range for axis " + std::to_string(axis) +
                       " with size " + std::to_string(x.shape[axis]));
  };
  for (const IndexItem& item : items) {
    if (item.kind == IndexItem::Kind::kNewAxis) {
      keep(1, 0);
      continue;
    }
    if (axis >= x.shape.ndim())
      throw IndexError("index: too many indices for shape " + x.shape.str() + ", which has " +
                       std::to_string(x.shape.ndim()) + " axes");
    if (item.kind == IndexItem::Kind::kInteger) {
      const std::int64_t at = item.start < 0 ? item.start + x.shape[axis] : item.start;
      if (at < 0 || at >= x.shape[axis]) check(item.start);
      offset += at * old[axis];
    } else {
      if (item.count < 0) throw IndexError("index: a slice of " + std::to_string(item.count) + " elements");
      if (item.count > 0) {
        check(item.start);
        check(item.start + (item.count - 1) * item.step);
        offset += item.start * old[axis];
      }
      keep(item.count, item.step * old[axis]);
    }
    ++axis;
  }
  for (; axis < x.shape.ndim(); ++axis) keep(x.shape[axis], old[axis]);
  if (lengths.empty()) keep(1, 1);
  return view(*this, Shape(lengths), offset, strides);
}

namespace {

// start:stop:step on an axis of this length, by Python's rules.
IndexItem resolve(const Slice& s, std::int64_t length) {
  const std::int64_t step = std::max(s.step.value_or(1), -INT64_MAX);
  if (step == 0) throw IndexError("index: the step of a slice must not be 0");
  const std::int64_t low = step < 0 ? -1 : 0, high = step < 0 ? length - 1 : length;
  const auto place = [&](std::optional<std::int64_t> at, std::int64_t open) {
    if (!at) return open;
    return std::clamp(*at < 0 ? *at + length : *at, low, high);
  };
  const std::int64_t start = place(s.start, step < 0 ? high : low), stop = place(s.stop, step < 0 ? low : high);
  std::int64_t count = 0;
  if (step > 0 && start < stop) count = (stop - start - 1) / step + 1;
  if (step < 0 && start > stop) count = (start - stop - 1) / -step + 1;
  return {IndexItem::Kind::kSlice, start, count, count > 1 ? step : 1};
}

}  // namespace

NArray NArray::operator[](std::initializer_list<Index> indices) const {
  const Shape& old = node_of(*this, "index").shape;
  int named = 0, ellipses = 0;
  for (const Index& i : indices) {
    ellipses += std::holds_alternative<Ellipsis>(i);
    named += std::holds_alternative<std::int64_t>(i) || std::holds_alternative<Slice>(i);
  }
  if (ellipses > 1) throw IndexError("index: more than one ellipsis");
  if (named > old.ndim())
    throw IndexError("index: too many indices: shape " + old.str() + " has " + std::to_string(old.ndim()) +
                     " axes, but " + std::to_string(named) + " were indexed");
  std::vector<IndexItem> items;
  int axis = 0;
  for (const Index& i : indices) {
    if (std::holds_alternative<Ellipsis>(i)) {
      for (const int end = axis + old.ndim() - named; axis < end; ++axis)
        items.push_back({IndexItem::Kind::kSlice, 0, old[axis], 1});
    } else if (std::holds_alternative<NewAxis>(i)) {
      items.push_back({IndexItem::Kind::kNewAxis});
    } else if (const auto* s = std::get_if<Slice>(&i)) {
      items.push_back(resolve(*s, old[axis++]));
    } else {
      items.push_back({IndexItem::Kind::kInteger, *std::get_if<std::int64_t>(&i)});
      ++axis;
    }
  }
  return index(items);
}

NArray slice(const NArray& x, std::int64_t along, std::int64_t offset, std::int64_t count) {
  const Shape& s = node_of(x, "slice").shape;
  const int axis = normalize_axis(along, s, "slice");
  if (offset < 0 || count < 0 || count > s[axis] - offset)
    throw IndexError("slice: offset " + std::to_string(offset) + " and count " + std::to_string(count) +
                     " are out of range for axis " + std::to_string(axis) + " with size " + std::to_string(s[axis]));
  Strides strides = strides_of(*x.node());
  return view(x, s.with(axis, count), offset * strides[axis], strides);
}

NArray concat(const std::vector<NArray>& arrays, std::int64_t along) {
  if (arrays.empty()) throw ShapeError("concat: needs one array at least");
  DType type = node_of(arrays[0], "concat").dtype;
  for (const auto& a : arrays) type = promote(type, node_of(a, "concat").dtype);
  const int axis = normalize_axis(along, arrays[0].shape(), "concat");
  std::vector<NArray> operands;
  std::vector<Node*> nodes;
  for (const auto& a : arrays) {
    operands.push_back(record_cast(a, type));
    nodes.push_back(operands.back().node());
  }
  return record(op_concat, nodes, std::make_shared<ConcatParams>(axis));
}

}  // namespace owl
