#include "ops/add_views.h"

#include "graph/gradient.h"
#include "graph/record.h"
#include "ops/records.h"

namespace owl {

namespace {

const AddViewsParams& of(const Params* params) { return static_cast<const AddViewsParams&>(*params); }

Results infer_add_views(std::span<Node* const> in, const Params* params) { return {of(params).whole, in[0]->dtype}; }

double add_views_cost(std::span<const Shape> in, const Shape& out, const Params*) {
  double elements = static_cast<double>(out.size());
  for (const Shape& each : in) elements += 2.0 * static_cast<double>(each.size());
  return elements;
}

// Each part gets its view of the error.
void add_views_rule(Rule& r) {
  const auto& p = r.params<AddViewsParams>();
  const Term& e = r.error();
  if (p.onto) r.to(0, e);
  for (std::size_t i = 0; i < p.places.size(); ++i) {
    const std::size_t at = i + p.onto;
    r.to(at, [&]() -> Term {
      if (!e.is_array()) return e;
      const auto& [offset, strides] = p.places[i];
      const bool is_dense = strides == r.shape(at).dense_strides();
      return record_view(dense(e.array()), r.shape(at), offset, is_dense ? nullptr : &strides);
    });
  }
}
constexpr Gradient add_views_gradient{{}, add_views_rule};

}  // namespace

// Two operations, because only the second may take over the memory of operand 0.
const OpRecord op_place_views{.name = "place_views",
                              .doc = "arrays added into zeros, each in its place: the gradients of a value's views",
                              .arity = -1,
                              .infer = infer_add_views,
                              .cost = add_views_cost,
                              .gradient = &add_views_gradient};
const OpRecord op_add_views{.name = "add_views",
                            .doc = "(whole, x ...): arrays added onto one, each in its place",
                            .arity = -1,
                            .infer = infer_add_views,
                            .cost = add_views_cost,
                            .gradient = &add_views_gradient};

// Halves are added in float32, as in all sums, and rounded once.
NArray add_views(const NArray& onto, std::vector<ViewPart> parts, const Shape& whole) {
  const DType type = parts.front().x.dtype(), inner = compute_type(type);
  auto params = std::make_shared<AddViewsParams>(whole);
  params->onto = onto.has_value();
  std::vector<NArray> operands;
  if (params->onto) operands.push_back(dense(record_cast(onto, inner)));
  for (ViewPart& part : parts) {
    operands.push_back(dense(record_cast(part.x, inner)));
    params->places.emplace_back(part.offset, part.strides);
  }
  std::vector<Node*> nodes;
  for (const NArray& each : operands) nodes.push_back(each.node());
  return record_cast(record(onto.has_value() ? op_add_views : op_place_views, nodes, std::move(params)), type);
}

}  // namespace owl
