// Scans: the sums of the elements so far along an axis.
#include "ops/scan.h"

#include "graph/gradient.h"
#include "graph/record.h"
#include "ops/records.h"
#include "owl/error.h"

namespace owl {

namespace {

Results infer_scan(std::span<Node* const> in, const Params*) { return {in[0]->shape, in[0]->dtype}; }

NArray record_cumsum(const NArray& x, int axis, bool backwards) {
  return record(op_cumsum, {dense(x).node()}, std::make_shared<ScanParams>(axis, backwards));
}

// What adds an element to all sums from its place on.
constexpr Gradient cumsum_gradient{{}, [](Rule& r) {
  const auto& p = r.params<ScanParams>();
  r.to(0, [&] { return record_cumsum(r.error_array(), p.axis, !p.backwards); });
}};

}  // namespace

const OpRecord op_cumsum{.name = "cumsum",
                         .doc = "x [...], an axis: the sum of the elements so far along it",
                         .arity = 1,
                         .infer = infer_scan,
                         .gradient = &cumsum_gradient};

NArray NArray::cumsum(std::int64_t axis) const {
  if (!has_value()) throw Error("cumsum: an empty NArray has no value; assign one first");
  const int along = normalize_axis(axis, shape(), "cumsum");
  const DType type = sum_type(dtype());
  return record_cast(record_cumsum(record_cast(*this, compute_type(type)), along, false), type);
}

}  // namespace owl
