// Element types: promotion, and dispatch from a type to its code.
#include <iterator>
#include <sstream>

#include "backend/cpu/kernels.h"
#include "base/visit_dtype.h"
#include "ops/nn.h"
#include "ops/records.h"
#include "support.h"

namespace owl::test {
namespace {

constexpr DType kAll[] = {DType::kBool,    DType::kUInt8,    DType::kInt32,   DType::kInt64,
                          DType::kFloat16, DType::kBFloat16, DType::kFloat32, DType::kFloat64};
static_assert(std::size(kAll) == kDTypeCount);

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
  EXPECT_EQ(promote(DType::kInt64, DType::kFloat32), DType::kFloat32);
  EXPECT_EQ(promote(DType::kUInt8, DType::kInt32), DType::kInt32);
  EXPECT_EQ(promote(DType::kInt64, DType::kFloat16), DType::kFloat16);
  EXPECT_EQ(promote(DType::kBFloat16, DType::kFloat16), DType::kFloat32);
  for (const DType a : kAll)
    for (const DType b : kAll) {
      const DType both = promote(compute_type(a), compute_type(b));
      if (!is_float(promote(a, b))) {
        EXPECT_EQ(compute_type(promote(a, b)), compute_type(both)) << name(a) << name(b);
      }
    }
  for (const DType a : kAll) EXPECT_FALSE(is_narrow(compute_type(a)) || !is_float(float_type(a)));
  EXPECT_FALSE(is_float(DType::kBool) || is_float(DType::kInt32) || is_float(DType::kInt64));
  EXPECT_TRUE(is_float(DType::kFloat32) && is_float(DType::kFloat64));
}

TEST(DTypes, EveryTypeIsVisitedAsItsElements) {
  for (const DType type : kAll)
    EXPECT_EQ(visit_any_dtype("test", type, []<class T>() { return sizeof(T); }), itemsize(type)) << name(type);
}

TEST(DTypes, HalvesOnTheHost) {
  EXPECT_EQ(to_float(Float16{0x3c01}), 1 + 0x1p-10f);
  EXPECT_EQ(to_float(BFloat16{0x3f81}), 1 + 0x1p-7f);
  EXPECT_EQ(to_float16(65519.99).bits, 0x7bff);
  EXPECT_EQ(to_float16(65520).bits, 0x7c00);
  EXPECT_EQ(to_float16(1 + 0x1p-11 + 0x1p-40).bits, 0x3c01);  // float32 has no number between 1 + 2^-11 and this
  EXPECT_EQ(to_float16(1 + 0x1p-11).bits, 0x3c00);
  EXPECT_EQ(to_bfloat16(-3e38).bits, 0xff62);
  for (unsigned bits = 0; bits < 65536; ++bits) {
    const Float16 half{static_cast<std::uint16_t>(bits)};
    const BFloat16 brain{static_cast<std::uint16_t>(bits)};
    if ((bits & 0x7fff) <= 0x7c00) {
      EXPECT_EQ(to_float16(double{to_float(half)}), half);
    }
    if ((bits & 0x7fff) <= 0x7f80) {
      EXPECT_EQ(to_bfloat16(double{to_float(brain)}), brain);
    }
  }
}

TEST(DTypes, Int64IsExact) {
  constexpr std::int64_t n = (std::int64_t{1} << 53) + 1;
  const NArray x = full({2}, n, DType::kInt64);
  EXPECT_EQ(x[0].item<std::int64_t>(), n);
  EXPECT_EQ((x + 1).to_host<std::int64_t>(), (std::vector<std::int64_t>{n + 1, n + 1}));
  EXPECT_EQ((x * n)[0].item<std::int64_t>(), static_cast<std::int64_t>(static_cast<std::uint64_t>(n) * n));
  EXPECT_EQ(arange(n, n + 2, 1, DType::kInt64).to_host<std::int64_t>(), (std::vector<std::int64_t>{n, n + 1}));
  EXPECT_EQ(from_host<std::int64_t>({n, -n}, {2}).sum().item<std::int64_t>(), 0);
  EXPECT_THROW(x.item<float>(), ShapeError);
  EXPECT_THROW(x[0].item<float>(), DTypeError);
  EXPECT_THROW(x + std::uint64_t{1} + ~std::uint64_t{0}, OverflowError);
  EXPECT_THROW(full({1}, ~std::uint64_t{0}, DType::kInt64), OverflowError);
  EXPECT_THROW(full({1}, 256, DType::kUInt8), OverflowError);
  EXPECT_EQ((x < ~std::uint64_t{0}).to_host<bool>(), (std::vector<bool>{true, true}));
}

TEST(DTypes, ArraysOfNarrowTypes) {
  const NArray bytes = from_host<std::uint8_t>({200, 100}, {2});
  EXPECT_EQ((bytes + bytes).to_host<std::uint8_t>(), (std::vector<std::uint8_t>{144, 200}));
  EXPECT_EQ(bytes.sum().item<std::int64_t>(), 300);
  const std::vector<Float16> ones{to_float16(1), to_float16(0x1p-11)};
  EXPECT_EQ(from_host(ones, {2}).to_host<Float16>(), ones);
  EXPECT_EQ(from_host(ones, {2}).sum().item(), 1.0);  // of 1 + 2^-11, rounded once
  EXPECT_EQ((from_host(ones, {2}) + 1).dtype(), DType::kFloat16);
  std::ostringstream text;
  text << full({3}, 0.1, DType::kBFloat16) << full({1}, 255, DType::kUInt8);
  EXPECT_NE(text.str().find("[0.1, 0.1, 0.1]"), std::string::npos) << text.str();
  EXPECT_NE(text.str().find("[255]"), std::string::npos) << text.str();
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
    for (const DType type : {DType::kBool, DType::kInt32, DType::kFloat16, DType::kInt64}) {
      const ArrayRef x{memory, shape, shape.dense_strides(), type, true};
      Launch launch;
      EXPECT_THROW(cpu::kernel_of(*op).run({{&x, 1}, x, &softmax}, launch), DTypeError) << op->name;
      EXPECT_TRUE(launch.stages.empty());
    }
  }
}

}  // namespace
}  // namespace owl::test
