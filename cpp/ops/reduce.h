// Parameters of the reductions.
#pragma once

#include "graph/op.h"

namespace owl {

struct ReduceParams : Params {
  ReduceParams(unsigned axes, bool all) : axes(axes), all(all) {}
  unsigned axes;  // bit i: axis i is reduced
  bool all;       // no axis was named: the result's shape is [1]

  void visit(const ParamVisitor& field) const override {
    std::vector<std::int64_t> list;
    for (int axis = 0; axis < kMaxAxes; ++axis)
      if (axes >> axis & 1) list.push_back(axis);
    field("axes", list);
    field("all", all);
  }
};

struct MomentsParams : ReduceParams {
  MomentsParams(unsigned axes, bool all, double correction) : ReduceParams(axes, all), correction(correction) {}
  double correction;  // taken from the count that divides

  void visit(const ParamVisitor& field) const override {
    ReduceParams::visit(field);
    field("correction", correction);
  }
};

}  // namespace owl
