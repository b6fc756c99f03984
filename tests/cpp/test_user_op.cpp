// owl/op.h: user-defined operations. Uses only public headers.
#include <owl/owl.h>

#include <algorithm>
#include <atomic>
#include <cmath>

#include "base/failure.h"
#include "support.h"

namespace owl::test {
namespace {

// ---- the example of docs/user-operations.md, word for word
// The Euclidean norm of each column: [rows, columns] -> [1, columns].
const owl::Op column_norms(
    "column_norms",
    [](std::span<const owl::ArrayType> in) {
      if (in[0].shape.ndim() != 2) throw owl::ShapeError("column_norms of " + in[0].shape.str() + ": needs 2 axes");
      if (in[0].dtype != owl::DType::kFloat32) throw owl::DTypeError("column_norms: needs float32");
      return owl::ArrayType{{1, in[0].shape[1]}, owl::DType::kFloat32};
    },
    [](std::span<const owl::ConstMemory> in, const owl::Memory& out, owl::Work& work) {
      const float* x = in[0].as<float>();
      float* norms = out.as<float>();
      const std::int64_t rows = in[0].shape[0], columns = in[0].shape[1];
      const std::int64_t columns_per_chunk = std::max<std::int64_t>(1, 100'000 / std::max<std::int64_t>(1, rows));
      const std::int64_t chunks = (columns + columns_per_chunk - 1) / columns_per_chunk;
      work.stage(chunks, [=](std::int64_t chunk) {
        const std::int64_t end = std::min(columns, (chunk + 1) * columns_per_chunk);
        for (std::int64_t j = chunk * columns_per_chunk; j < end; ++j) {
          float sum = 0;
          for (std::int64_t i = 0; i < rows; ++i) sum += x[j * rows + i] * x[j * rows + i];
          norms[j] = std::sqrt(sum);
        }
      });
    },
    2.0);

owl::NArray unit_columns(const owl::NArray& x) { return x / column_norms(x); }
// ---- end of the example

TEST(UserOp, TheExampleOfTheDocuments) {
  const auto y = unit_columns(ramp({3, 1000}) + 1.0);
  const auto v = values(y);
  for (std::size_t j = 0; j < 1000; ++j) {
    double sum = 0;
    for (std::size_t i = 0; i < 3; ++i) sum += static_cast<double>(v[3 * j + i]) * static_cast<double>(v[3 * j + i]);
    ASSERT_NEAR(sum, 1.0, 1e-6);
  }
  EXPECT_THROW(column_norms(ones({3})), ShapeError);
  EXPECT_THROW(column_norms(ones({3, 3}, DType::kInt32)), DTypeError);
  EXPECT_EQ(column_norms(ones({3, 0})).size(), 0);
}

Op scale_rows() {
  return Op("scale_rows", same_as_first, [](std::span<const ConstMemory> in, const Memory& out, Work& work) {
    const float *x = in[0].as<float>(), *factors = in[1].as<float>();
    float* y = out.as<float>();
    const std::int64_t rows = out.shape[0];
    work.stage(out.shape[1], [=](std::int64_t column) {
      for (std::int64_t i = 0; i < rows; ++i) y[column * rows + i] = x[column * rows + i] * factors[i];
    });
  });
}

TEST(UserOp, ComputesInChunksAmongBuiltInOperations) {
  const auto op = scale_rows();
  const auto x = ramp({3, 500}), factors = ramp({3}, 1);
  const auto y = op(x + 1.0, factors) * 2.0;
  EXPECT_EQ(y.shape(), (Shape{3, 500}));
  const auto v = values(y);
  for (std::size_t i = 0; i < v.size(); ++i) ASSERT_EQ(v[i], 2.0f * (static_cast<float>(i) + 1) * static_cast<float>(i % 3 + 1));
}

TEST(UserOp, OperandsAreDense) {
  const auto op = scale_rows();
  const auto x = ramp({4, 3}).trans();  // strided
  EXPECT_EQ(values(op(x, ones({3}))), values(x));
}

TEST(UserOp, RecordingRunsTheRuleAndNotTheKernel) {
  const Window window(1 << 20, -1);
  std::atomic<int> rules{0}, kernels{0};
  const Op op("counted", [&](std::span<const ArrayType> in) { ++rules; return in[0]; },
              [&](std::span<const ConstMemory> in, const Memory& out, Work&) {
                ++kernels;
                std::copy_n(in[0].as<float>(), out.shape.size(), out.as<float>());
              });
  const auto y = op(ones({3}));
  { const auto dropped = op(ones({3})); }
  EXPECT_EQ(rules, 2);
  EXPECT_EQ(kernels, 0);
  EXPECT_EQ(values(y)[0], 1.0f);
  wait_for_all();
  EXPECT_EQ(kernels, 1);
}

TEST(UserOp, AnOpMayGoBeforeItsResultsAreComputed) {
  const Window window(1 << 20, -1);
  NArray y = scale_rows()(ones({2, 2}), ramp({2}));
  EXPECT_EQ(values(y), (std::vector<float>{0, 1, 0, 1}));
}

TEST(UserOp, StagesAndScratch) {
  const Op sum_of_chunks(
      "sum_of_chunks", [](std::span<const ArrayType> in) { return ArrayType{{1}, in[0].dtype}; },
      [](std::span<const ConstMemory> in, const Memory& out, Work& work) {
        const auto n = in[0].shape.size(), chunks = (n + 99) / 100;
        auto* partial = static_cast<float*>(work.scratch(static_cast<std::size_t>(chunks) * sizeof(float)));
        work.stage(chunks, [=, x = in[0].as<float>()](std::int64_t c) {
          partial[c] = 0;
          for (auto i = c * 100; i < std::min(n, c * 100 + 100); ++i) partial[c] += x[i];
        });
        work.stage(1, [=, y = out.as<float>()](std::int64_t) {
          y[0] = 0;
          for (std::int64_t c = 0; c < chunks; ++c) y[0] += partial[c];
        });
      });
  EXPECT_EQ(sum_of_chunks(ramp({1000})).item(), 499500.0);
}

TEST(UserOp, RulesBroadcastAndPromote) {
  const std::vector<ArrayType> in = {{{3}, DType::kInt32}, {{1, 4}, DType::kFloat64}};
  EXPECT_EQ(broadcast_of_all(in).shape, (Shape{3, 4}));
  EXPECT_EQ(broadcast_of_all(in).dtype, DType::kFloat64);
  const std::vector<ArrayType> differ = {{{3}, DType::kInt32}, {{2}, DType::kInt32}};
  EXPECT_THROW(broadcast_of_all(differ), ShapeError);
  EXPECT_THROW(same_as_first({}), ShapeError);
}

TEST(UserOp, ErrorsAreRaisedAtTheLineOrComeHome) {
  const auto op = scale_rows();
  EXPECT_THROW(op(NArray(), ones({1})), Error);
  EXPECT_THROW(Op("", same_as_first, nullptr), Error);
  const auto good = ones({2, 2}) + 1.0;
  const auto wrong = op(full({2, 2}, 1, DType::kFloat64), ones({2}));  // the kernel wants float
  const auto after = wrong + 1.0;
  EXPECT_THROW(after.wait_for_eval(), DTypeError);
  const Op throws("throws", same_as_first, [](std::span<const ConstMemory>, const Memory&, Work& work) {
    work.stage(8, [](std::int64_t chunk) {
      if (chunk == 3) throw Error("no third chunk");
    });
  });
  const auto y = throws(good);
  try {
    y.wait_for_eval();
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "throws: no third chunk");
    EXPECT_STREQ(dynamic_cast<const FailureCarrier&>(e).failure->op, "throws");
  }
  EXPECT_EQ(values(good)[3], 2.0f);
}

// Every error names the operation, once, and keeps its class.
TEST(UserOp, ErrorsNameTheOperation) {
  const auto message_of = []<class E>(std::type_identity<E>, const auto& f) -> std::string {
    try {
      f();
    } catch (const E& e) {
      return e.what();
    } catch (const std::exception& e) {
      return std::string("another exception: ") + e.what();
    }
    return "nothing was thrown";
  };
  const auto copy = [](std::span<const ConstMemory> in, const Memory& out, Work& work) {
    work.stage(1, [x = in[0].as<float>(), y = out.as<float>(), n = out.shape.size()](std::int64_t) { std::copy_n(x, n, y); });
  };
  const auto rule_error = [&]<class E>(std::type_identity<E> kind, const std::string& text) {
    const Op op("mine", [text](std::span<const ArrayType>) -> ArrayType { throw E(text); }, copy);
    return message_of(kind, [&] { op(ones(3)); });
  };
  EXPECT_EQ(rule_error(std::type_identity<ShapeError>{}, "needs 2 axes"), "mine: needs 2 axes");
  EXPECT_EQ(rule_error(std::type_identity<DTypeError>{}, "mine of int32: needs float32"), "mine of int32: needs float32");
  EXPECT_EQ(rule_error(std::type_identity<DTypeError>{}, "minerals"), "mine: minerals");
  EXPECT_EQ(rule_error(std::type_identity<ValueError>{}, "too small"), "mine: too small");
  EXPECT_EQ(rule_error(std::type_identity<Error>{}, "no"), "mine: no");
  EXPECT_EQ(rule_error(std::type_identity<std::domain_error>{}, "not owl's"), "not owl's");
  EXPECT_EQ(message_of(std::type_identity<ShapeError>{}, [&] { Op("mine", broadcast_of_all, copy)(ones(3), ones(2)); }),
            "mine: shapes [3] and [2] do not broadcast: lengths 3 and 2 of axis 0 differ");
  EXPECT_EQ(message_of(std::type_identity<ShapeError>{},
                       [&] { Op("mine", [](auto) { return ArrayType{{-1}}; }, copy)(ones(3)); }),
            "mine: shape [-1]: length -1 is negative");
  EXPECT_EQ(message_of(std::type_identity<ShapeError>{}, [&] { Op("mine", [](auto) { return ArrayType{}; }, copy)(ones(3)); }),
            "mine: the rule gave a shape without axes");
  EXPECT_EQ(message_of(std::type_identity<DTypeError>{},
                       [&] { Op("mine", same_as_first, copy)(ones(3, DType::kInt32)).wait_for_eval(); }),
            "mine: the elements are int32, not float32");
  const auto kernel_error = [&]<class E, class Seen>(std::type_identity<E>, std::type_identity<Seen> seen) {
    const Op op("mine", same_as_first, [](std::span<const ConstMemory>, const Memory&, Work& work) {
      work.stage(3, [](std::int64_t chunk) { if (chunk == 1) throw E("bad chunk"); });
    });
    const NArray y = op(ones(3)), after = y + 1.0;
    EXPECT_EQ(message_of(seen, [&] { after.wait_for_eval(); }), "mine: bad chunk");
    EXPECT_EQ(message_of(seen, [&] { y.wait_for_eval(); }), "mine: bad chunk");
  };
  const auto keeps_its_kind = [&]<class... E>(std::type_identity<E>... kinds) { (kernel_error(kinds, kinds), ...); };
  keeps_its_kind(std::type_identity<ShapeError>{}, std::type_identity<DTypeError>{}, std::type_identity<DeviceError>{},
                 std::type_identity<IndexError>{}, std::type_identity<DataError>{},
                 std::type_identity<OutOfMemoryError>{}, std::type_identity<NaNError>{},
                 std::type_identity<OverflowError>{}, std::type_identity<ValueError>{}, std::type_identity<Error>{});
  kernel_error(std::type_identity<std::runtime_error>{}, std::type_identity<Error>{});
}

TEST(UserOp, OnAnotherDevice) {
  const int device = create_cpu_device();
  const auto x = ramp({2, 2});
  set_device(device);
  const auto y = scale_rows()(x, ones({2}));
  set_device(0);
  EXPECT_EQ(y.device(), device);
  EXPECT_EQ(values(y), values(x));
}

}  // namespace
}  // namespace owl::test
