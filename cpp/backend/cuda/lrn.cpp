// Local response normalisation and its gradient: a thread for each element.
#include <algorithm>

#include "backend/cuda/kernels.h"
#include "backend/cuda/printer.h"
#include "base/visit_dtype.h"
#include "ops/nn.h"

namespace owl::cuda {

namespace {

struct Normalisation {
  const Args& args;
  Slots slots;
  std::string types;

  explicit Normalisation(const Args& a) : args(a) {
    const auto& l = static_cast<const LrnParams&>(*args.params).lrner;
    const Shape& x = args.out.shape;
    slots.add(x.size());
    slots.add(x[0] * x[1]);
    slots.add(x[2]);
    slots.add(std::min(l.local_size / 2, x[2]));
    slots.add(l.alpha / static_cast<double>(l.local_size));
    slots.add(l.beta);
    const double beta = visit_float("lrn", args.out.dtype, [&]<class T>() { return double{static_cast<T>(l.beta)}; });
    const int quarters = beta == 0.75 ? 3 : beta == 0.5 ? 2 : beta == 1 ? 4 : 0;
    types = std::string("using T = ") + type_name(args.out.dtype) +
            ";\nusing R = T;\nconstexpr int kBeta = " + std::to_string(quarters) + ";\n";
  }

  void launch(const char* name, const char* which, bool stores, Emit& emit) const {
    emit.launch({name, text::lrn, types + which}, blocks_for(args.out.shape.size()), slots, false, stores);
  }
};

}  // namespace

void lrn(const Args& args, Emit& emit) { Normalisation(args).launch("owl_lrn", "#define OWL_LRN\n", true, emit); }

void lrn_back(const Args& args, Emit& emit) {
  Normalisation n(args);
  n.slots.add(args.in[1].data);
  n.slots.add(args.in[2].data);
  n.slots.add(emit.scratch(args.out.nbytes()));
  n.slots.add(emit.scratch(args.out.nbytes()));
  n.launch("owl_lrn_ratios", "#define OWL_RATIOS\n", false, emit);
  n.launch("owl_lrn_back", "#define OWL_LRN_BACK\n", true, emit);
}

}  // namespace owl::cuda
