// Element types: promotion, and dispatch from a type to its code.
#include "backend/cpu/kernels.h"
#include "base/visit_dtype.h"
#include "ops/nn.h"
#include "ops/records.h"
#include "support.h"

namespace owl::test {
namespace {

constexpr DType kAll[] = {DType::kBool, DType::kInt32, DType::kFloat32, DType::kFloat64};

TEST(DTypes, PromotionIsATableOfAJoin) {
  for (const DType a : kAll) {
    EXPECT_EQ(promote(a, a), a);
    EXPECT_EQ(promote(a, DType::kBool), a);
    EXPECT_EQ(promote(a, DType::kFloat64), DType::kFloat64);
    for (const DType b : kAll) {
      EXPECT_EQ(promote(a, b), promote(b, a));
      for (const DType c : kAll) EXPECT_EQ(promote(promote(a, b), c), promote(a, promote(b, c)));
    }
  }
  EXPECT_EQ(promote(DType::kInt32, DType::kFloat32), DType::kFloat32);
  EXPECT_EQ(promote(DType::kBool, DType::kInt32), DType::kInt32);
  EXPECT_FALSE(is_float(DType::kBool) || is_float(DType::kInt32));
  EXPECT_TRUE(is_float(DType::kFloat32) && is_float(DType::kFloat64));
}

TEST(DTypes, EveryTypeIsVisitedAsItsElements) {
  for (const DType type : kAll)
    EXPECT_EQ(visit_any_dtype("test", type, []<class T>() { return sizeof(T); }), itemsize(type)) << name(type);
}

TEST(DTypes, WhatIsNotListedIsRefused) {
  const auto size_of = []<class T>() { return sizeof(T); };
  EXPECT_EQ((visit_dtype<DType::kInt32, DType::kFloat64>("test", DType::kFloat64, size_of)), 8u);
  try {
    visit_dtype<DType::kInt32, DType::kFloat64>("norm", DType::kFloat32, size_of);
    FAIL() << "no error";
  } catch (const DTypeError& e) {
    EXPECT_STREQ(e.what(), "norm: not computed in float32; use astype first");
  }
}

// A kernel that gets a type which the recorder should have converted throws, rather than read it as another type.
TEST(DTypes, KernelsTakeNoTypeForAnother) {
  const SoftmaxParams softmax(0, 1);
  float memory[4] = {};
  const Shape shape{4};
  for (const OpRecord* op : {&op_softmax, &op_log_softmax}) {
    for (const DType type : {DType::kBool, DType::kInt32}) {
      const ArrayRef x{memory, shape, shape.dense_strides(), type, true};
      Launch launch;
      EXPECT_THROW(cpu::kernel_of(*op).run({{&x, 1}, x, &softmax}, launch), DTypeError) << op->name;
      EXPECT_TRUE(launch.stages.empty());
    }
  }
}

}  // namespace
}  // namespace owl::test
