// Sorting along an axis: the values in order, and the places that they come from. Of equals the first comes first, and
// NaN is larger than all numbers.
#include "ops/sort.h"

#include <string>

#include "graph/gradient.h"
#include "graph/record.h"
#include "ops/records.h"
#include "ops/take.h"

namespace owl {

namespace {

Results infer_sort(std::span<Node* const> in, const Params* params) {
  const auto& p = static_cast<const SortParams&>(*params);
  const Shape shape = in[0]->shape.with(p.axis, p.count);
  const ResultType results[] = {{shape, in[0]->dtype}, {shape, DType::kInt32}};
  return Results(results);
}

double sort_cost(std::span<const Shape> in, const Shape&, const Params*) {
  return 30.0 * static_cast<double>(in[0].size());
}

// Where the values lie in the flat array.
NArray flat_places(const NArray& places, const AroundAxis& x, std::int64_t count) {
  const auto multiples = [](std::int64_t n, std::int64_t step) {
    return arange(0, static_cast<double>(n * step), static_cast<double>(step), DType::kInt32);
  };
  return multiples(x.inner, 1).reshape({x.inner, 1, 1}) + places.reshape({x.inner, count, x.outer}) * x.inner +
         multiples(x.outer, x.inner * x.length).reshape({1, 1, x.outer});
}

// Every value's error goes to the place that it comes from.
void sort_rule(Rule& r) {
  r.to(0, [&]() -> Term {
    if (r.error(0).is_zero()) return {};
    const auto& p = r.params<SortParams>();
    const Shape& shape = r.shape(0);
    if (shape.size() == 0) return {};
    const NArray error = r.error_array(0), places = flat_places(r.result(1), AroundAxis(shape, p.axis), p.count);
    const NArray flat = put_add(zeros({shape.size()}, error.dtype()), places.reshape({-1}), error.reshape({-1}), 0);
    return flat.reshape(std::vector<std::int64_t>(shape.begin(), shape.end()));
  });
}
constexpr Gradient sort_gradient{{result(1)}, sort_rule};

// The values in order and their places.
std::vector<NArray> record_sort(const char* what, const NArray& x, std::int64_t along, std::optional<std::int64_t> k) {
  if (!x.has_value()) throw Error(std::string(what) + ": an empty NArray has no value; assign one first");
  const Shape shape = x.shape();
  const int axis = normalize_axis(along, shape, what);
  const std::int64_t length = shape[axis];
  if (length > INT32_MAX)
    throw ShapeError(std::string(what) + ": axis " + std::to_string(axis) + " has " + std::to_string(length) +
                     " elements, more than an int32 index can tell apart");
  if (k && (*k < 0 || *k > length))
    throw ShapeError(std::string(what) + ": k is " + std::to_string(*k) + ", but axis " + std::to_string(axis) + " of " +
                     shape.str() + " has " + std::to_string(length) + " elements");
  const NArray operand = dense(record_cast(x, compute_type(x.dtype())));
  Node* const inputs[] = {operand.node()};
  auto results = record_all(op_sort, inputs, std::make_shared<SortParams>(axis, k.value_or(length), k.has_value()));
  results[0] = record_cast(results[0], x.dtype());
  return results;
}

}  // namespace

const OpRecord op_sort{.name = "sort",
                       .doc = "the first elements of each line along an axis in order, and their places on the axis",
                       .arity = 1,
                       .infer = infer_sort,
                       .cost = sort_cost,
                       .gradient = &sort_gradient};

NArray sort(const NArray& x, std::int64_t axis) { return record_sort("sort", x, axis, {})[0]; }
NArray argsort(const NArray& x, std::int64_t axis) { return record_sort("argsort", x, axis, {})[1]; }

TopK topk(const NArray& x, std::int64_t k, std::int64_t axis) {
  auto results = record_sort("topk", x, axis, k);
  return {std::move(results[0]), std::move(results[1])};
}

}  // namespace owl
