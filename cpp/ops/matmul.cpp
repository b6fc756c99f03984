// The matrix product.
#include <atomic>

#include "graph/gradient.h"
#include "graph/record.h"
#include "ops/nn.h"
#include "ops/records.h"

namespace owl {

namespace {

Results infer_matmul(std::span<Node* const> in, const Params*) {
  const Shape &a = in[0]->shape, &b = in[1]->shape;
  const auto what = [&] { return "matrix product of " + a.str() + " and " + b.str() + ": "; };
  if (a.ndim() != 2 || b.ndim() != 2)
    throw ShapeError(what() + "both must have 2 axes (elewise.mult is the elementwise product)");
  if (a[1] != b[0])
    throw ShapeError(what() + "inner sizes " + std::to_string(a[1]) + " and " + std::to_string(b[0]) + " differ");
  return {Shape{a[0], b[1]}, in[0]->dtype};
}

double matmul_cost(std::span<const Shape> in, const Shape& out, const Params*) {
  return 2.0 * static_cast<double>(out.size()) * static_cast<double>(in[0][1]);
}

// In the precision of the product. The gradient of a transposed matrix is computed as that of the matrix itself, so that
// what reads it, an update for instance, can run in the product's task.
void matmul_rule(Rule& r) {
  const auto product = [&](const NArray& a, const NArray& b) {
    return record(op_matmul, {a.node(), b.node()}, r.shared_params());
  };
  r.to(0, [&] {
    if (r.is_transposed(0)) return product(r.array(1), r.error_array().trans()).trans();
    return product(r.error_array(), r.array(1).trans());
  });
  r.to(1, [&] {
    if (r.is_transposed(1)) return product(r.error_array().trans(), r.array(0)).trans();
    return product(r.array(0).trans(), r.error_array());
  });
}
constexpr Gradient matmul_gradient{{operand(1), operand(0)}, matmul_rule};

}  // namespace

const OpRecord op_matmul{.name = "matmul",
                         .doc = "the matrix product: [m, k] x [k, n] -> [m, n]",
                         .arity = 2,
                         .infer = infer_matmul,
                         .cost = matmul_cost,
                         .gradient = &matmul_gradient};

namespace {
std::atomic<MatmulPrecision> precision{MatmulPrecision::kFloat32};
}
void set_matmul_precision(MatmulPrecision p) { precision = p; }
MatmulPrecision matmul_precision() { return precision.load(std::memory_order_relaxed); }

NArray matmul(const NArray& a, const NArray& b) {
  const DType type = promote(promote(a.dtype(), b.dtype()), DType::kInt32);
  std::shared_ptr<const Params> params;
  if (type == DType::kFloat32 && matmul_precision() != MatmulPrecision::kFloat32)
    params = std::make_shared<MatmulParams>(matmul_precision());
  if (a.dtype() == type && b.dtype() == type) return record(op_matmul, {a.node(), b.node()}, std::move(params));
  Node* const nodes[] = {a.node(), b.node()};
  infer_matmul(nodes, nullptr);  // an error before anything is recorded
  const NArray left = record_cast(a, type), right = record_cast(b, type);
  return record(op_matmul, {left.node(), right.node()}, std::move(params));
}

NArray operator*(const NArray& a, const NArray& b) { return matmul(a, b); }
NArray& operator*=(NArray& a, const NArray& b) { return a = matmul(a, b); }

}  // namespace owl
