#include "ops/add_view.h"

#include "graph/gradient.h"
#include "graph/record.h"
#include "ops/records.h"

namespace owl {

namespace {

Results infer_add_view(std::span<Node* const> in, const Params*) { return {in[0]->shape, in[0]->dtype}; }

double add_view_cost(std::span<const Shape> in, const Shape&, const Params*) {
  return 2.0 * static_cast<double>(in[1].size());
}

void add_view_rule(Rule& r) {
  r.to(0, r.error());
  r.to(1, [&]() -> Term {
    if (!r.error().is_array()) return r.error();
    const auto& p = r.params<AddViewParams>();
    const bool is_dense = p.strides == r.shape(1).dense_strides();
    return record_view(dense(r.error().array()), r.shape(1), p.offset, is_dense ? nullptr : &p.strides);
  });
}
constexpr Gradient add_view_gradient{{}, add_view_rule};

}  // namespace

const OpRecord op_add_view{.name = "add_view",
                           .doc = "(whole, x): whole with x added at a view of it: the gradients of a value's views",
                           .arity = 2,
                           .infer = infer_add_view,
                           .cost = add_view_cost,
                           .gradient = &add_view_gradient};

NArray add_view(NArray whole, const NArray& x, std::int64_t offset, const Strides& strides) {
  return record(op_add_view, {dense(whole).node(), dense(x).node()}, std::make_shared<AddViewParams>(offset, strides));
}

}  // namespace owl
