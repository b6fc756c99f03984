// The registry is complete: every operation has a unique name, documentation, inference and a kernel.
#include <set>

#include "backend/cpu/kernels.h"
#include "backend/cpu/tile.h"
#include "graph/op.h"
#include "support.h"

namespace owl::test {
namespace {

TEST(Registry, EveryOperationIsComplete) {
  std::set<std::string> names;
  for (const OpRecord* op : all_ops()) {
    SCOPED_TRACE(op->name);
    EXPECT_TRUE(names.insert(op->name).second) << "registered twice";
    EXPECT_EQ(find_op(op->name), op);
    EXPECT_GT(std::string(op->doc).size(), 0u);
    EXPECT_NE(op->gradient, nullptr) << "say how gradients flow through it, or &no_gradient";
    if (op->cls == OpRecord::Class::kKernel) {
      EXPECT_NE(op->infer, nullptr);
      if (!op->joins_devices) {  // all_reduce is a tree of sums on CPUs
        EXPECT_NE(cpu::kernel_of(*op).run, nullptr);
      }
    } else if (op->rule != TypeRule::kCast) {
      EXPECT_GE(op->arity, 1);
      EXPECT_LE(op->arity, kInlineInputs);
      EXPECT_NE(cpu::tile_function(op->code, DType::kFloat32), nullptr);
      EXPECT_NE(cpu::tile_function(op->code, DType::kFloat64), nullptr);
    }
  }
  EXPECT_GT(names.size(), 60u);
}

TEST(Registry, FunctionsOfThePublicHeaderAreRegisteredUnderTheirNames) {
#define OWL_CHECK(NAME, ...)                       \
  ASSERT_NE(find_op(#NAME), nullptr) << #NAME;     \
  EXPECT_TRUE(find_op(#NAME)->in_elewise) << #NAME; \
  EXPECT_EQ(find_op(#NAME)->arity, arity) << #NAME;
  int arity = 1;
  OWL_ELEWISE_UNARY(OWL_CHECK)
  arity = 2;
  OWL_ELEWISE_BINARY(OWL_CHECK)
  OWL_ELEWISE_PARAMETRIC(OWL_CHECK)
  arity = 3;
  OWL_ELEWISE_TERNARY(OWL_CHECK)
#undef OWL_CHECK
}

}  // namespace
}  // namespace owl::test
