// Parameters of normalisation.
#pragma once

#include "graph/op.h"

namespace owl {

struct NormParams : Params {
  explicit NormParams(double eps) : eps(eps) {}
  double eps;

  void visit(const ParamVisitor& field) const override { field("eps", eps); }
};

}  // namespace owl
