// The matrix product.
#include <algorithm>
#include <atomic>
#include <string>

#include "graph/gradient.h"
#include "graph/record.h"
#include "ops/nn.h"
#include "ops/records.h"
#include "ops/terms.h"

namespace owl {

namespace {

std::string what(const Shape& a, const Shape& b) { return "matrix product of " + a.str() + " and " + b.str() + ": "; }

// Of the two leading axes; the others broadcast.
Results infer_matmul(std::span<Node* const> in, const Params*) {
  const Shape &a = in[0]->shape, &b = in[1]->shape;
  if (a.ndim() < 2 || b.ndim() < 2)
    throw ShapeError(what(a, b) +
                     "each must have at least 2 axes; reshape([-1, 1]) makes a column of a vector, reshape([1, -1]) a row");
  if (a[1] != b[0])
    throw ShapeError(what(a, b) + "inner sizes " + std::to_string(a[1]) + " and " + std::to_string(b[0]) + " differ");
  std::int64_t lengths[kMaxAxes] = {a[0], b[1]};
  const int ndim = std::max(a.ndim(), b.ndim());
  for (int i = 2; i < ndim; ++i) {
    const auto m = a.at_or_one(i), n = b.at_or_one(i);
    if (m != n && m != 1 && n != 1)
      throw ShapeError(what(a, b) + "lengths " + std::to_string(m) + " and " + std::to_string(n) + " of axis " +
                       std::to_string(i) + " differ and neither is 1");
    lengths[i] = m == 1 ? n : m;
  }
  return {Shape(std::span(lengths, static_cast<std::size_t>(ndim))), in[0]->dtype};
}

double matmul_cost(std::span<const Shape> in, const Shape& out, const Params*) {
  return 2.0 * static_cast<double>(out.size()) * static_cast<double>(in[0][1]);
}

NArray transposed(const NArray& x) {
  std::vector<std::int64_t> axes(static_cast<std::size_t>(x.ndim()));
  for (std::size_t i = 0; i < axes.size(); ++i) axes[i] = static_cast<std::int64_t>(i < 2 ? 1 - i : i);
  return x.transpose(axes);
}

Shape with_exchanged_axes(const Shape& shape) { return shape.with(0, shape[1]).with(1, shape[0]); }

bool is_one_matrix(const Shape& shape) {
  for (int i = 2; i < shape.ndim(); ++i)
    if (shape[i] != 1) return false;
  return true;
}

// In the precision of the product. What one matrix on the left gets from many on the right is one product, too. The
// gradient of a transposed matrix is computed as that of the matrix itself, so that what reads it, an update for instance,
// can run in the product's task, and its place in a larger array is one in memory.
void matmul_rule(Rule& r) {
  const auto product = [&](const NArray& a, const NArray& b) {
    return record(op_matmul, {a.node(), b.node()}, r.shared_params());
  };
  const auto onto = [](const NArray& x, const Shape& shape) { return sum_to(x, x.shape(), shape).array(); };
  const Shape &a = r.shape(0), &b = r.shape(1);
  const NArray e = r.error_array();
  r.to(0, [&]() -> Term {
    if (!is_one_matrix(a) || is_one_matrix(b)) {
      if (r.is_transposed(0)) return transposed(onto(product(r.array(1), transposed(e)), with_exchanged_axes(a)));
      return onto(product(e, transposed(r.array(1))), a);
    }
    const NArray flat = product(e.reshape({a[0], e.size() / std::max<std::int64_t>(1, a[0])}),
                                r.array(1).reshape({b[0], b.size() / std::max<std::int64_t>(1, b[0])}).trans());
    return flat.reshape(std::vector<std::int64_t>(a.begin(), a.end()));
  });
  r.to(1, [&]() -> Term {
    if (r.is_transposed(1)) return transposed(onto(product(transposed(e), r.array(0)), with_exchanged_axes(b)));
    return onto(product(transposed(r.array(0)), e), b);
  });
}
constexpr Gradient matmul_gradient{{operand(1), operand(0)}, matmul_rule};

}  // namespace

const OpRecord op_matmul{.name = "matmul",
                         .doc = "the matrix product: [m, k, ...] x [k, n, ...] -> [m, n, ...]",
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
  const DType both = promote(a.dtype(), b.dtype());
  const DType whole = sum_type(both);  // each element is a sum
  const DType type = compute_type(whole);
  std::shared_ptr<const Params> params;
  if (type == DType::kFloat32 && matmul_precision() != MatmulPrecision::kFloat32)
    params = std::make_shared<MatmulParams>(matmul_precision());
  if (a.dtype() == type && b.dtype() == type) return record(op_matmul, {a.node(), b.node()}, std::move(params));
  Node* const nodes[] = {a.node(), b.node()};
  infer_matmul(nodes, nullptr);  // an error before anything is recorded
  const NArray left = record_cast(a, type), right = record_cast(b, type);
  return record_cast(record(op_matmul, {left.node(), right.node()}, std::move(params)), whole);
}

NArray operator*(const NArray& a, const NArray& b) {
  const Shape left = a.shape(), right = b.shape();
  if (left.ndim() != 2 || right.ndim() != 2)
    throw ShapeError(what(left, right) + "both must have 2 axes (elewise.mult is the elementwise product" +
                     (left.ndim() > 2 || right.ndim() > 2 ? ", matmul takes more axes)" : ")"));
  return matmul(a, b);
}
NArray& operator*=(NArray& a, const NArray& b) { return a = a * b; }

}  // namespace owl
