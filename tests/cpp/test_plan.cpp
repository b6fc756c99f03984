// The plans of small programs: numbers of kernels, buffers, copies. The window is huge and idle workers never plan it,
// so that one plan covers everything.
#include "support.h"

namespace owl::test {
namespace {

class Plan : public ::testing::Test {
 protected:
  Window window_{1 << 20, -1};
};

//   x -> [add -> mult -> relu] -> y        one program, one buffer
TEST_F(Plan, AChainIsOneKernelAndOneBuffer) {
  const auto x = ramp({100, 10});
  const Since since;
  const auto y = elewise::relu((x + 1.0) * 2.0);
  y.wait_for_eval();
  EXPECT_EQ(since.kernels(), 1);
  EXPECT_EQ(since.buffers(), 1);
  EXPECT_EQ(since.fused(), 3);
  EXPECT_EQ(values(y)[5], 12.0f);
}

//   x -> a -+-> b -+-> d                   a diamond is one program; b, held by the script, is its second output
//           +-> c -+
TEST_F(Plan, ADiamondIsOneKernelAndHeldValuesAreItsOutputs) {
  const auto x = ramp({64});
  const Since since;
  NArray b, d;
  {
    const auto a = x + 1.0;
    b = a * 2.0;
    d = b + elewise::square(a);
  }
  d.wait_for_eval();
  EXPECT_EQ(since.kernels(), 1);
  EXPECT_EQ(since.buffers(), 2);
  EXPECT_EQ(values(b)[3], 8.0f);
  EXPECT_EQ(values(d)[3], 24.0f);
}

//   x -> a -+-> [sum] -> s -> b = a - s    b reads s, which needs all of a: a and b must not become one program. The
//           +------------------^           sum reads a while it is computed
TEST_F(Plan, AKernelBetweenKeepsProgramsApart) {
  const auto x = ramp({8, 4});
  const Since since;
  const auto y = [&] {
    const auto a = x + 1.0;
    return a - a.sum({0});
  }();
  y.wait_for_eval();
  EXPECT_EQ(since.kernels(), 2);
  EXPECT_EQ(since.buffers(), 3);
  EXPECT_EQ(values(y)[0], 1.0f - 36.0f);
}

//   w, x -> [matmul -> add -> relu] -> y   elementwise operations after a kernel run on its result, in its memory
TEST_F(Plan, WhatFollowsAKernelRunsInItsTask) {
  const auto x = ramp({3, 2}), w = ramp({4, 3}), b = ramp({4, 1});
  const Since since;
  const auto y = elewise::relu(w * x + b);
  y.wait_for_eval();
  EXPECT_EQ(since.kernels(), 1);
  EXPECT_EQ(since.buffers(), 1);
  EXPECT_EQ(values(y)[1], 1.0f * 0 + 5.0f * 1 + 9.0f * 2 + 1.0f);
}

//   x -> [a -> softmax -> - label] -> y    and those that compute its operand too, if it reads that range by range
TEST_F(Plan, ASoftmaxStandsBetweenWhatMakesItsOperandAndWhatReadsIt) {
  const auto x = ramp({4, 6}), label = ramp({4, 6});
  const Since since;
  const auto y = conv::softmax(x * 0.0 + 1.0) - label;
  y.wait_for_eval();
  EXPECT_EQ(since.kernels(), 1);
  EXPECT_EQ(since.buffers(), 1);
  EXPECT_EQ(values(y)[2], 0.25f - 2.0f);
}

//   x -> a -+-> [sum] -> s                 one pass over memory for the values and one reduction of them; another
//           +-> [max] -> m                 reduction reads the values
TEST_F(Plan, AReductionReadsWhatIsComputedForIt) {
  const auto x = ramp({64, 5});
  const Since since;
  const auto s = [&] { return (x * 2.0).sum(); }();
  s.wait_for_eval();
  EXPECT_EQ(since.kernels(), 1);
  EXPECT_EQ(since.buffers(), 1);
  EXPECT_EQ(values(s)[0], 319.0f * 320.0f);
  const auto a = x + 1.0;
  const auto t = a.sum({0}), m = a.max({1});
  t.wait_for_eval();
  m.wait_for_eval();
  EXPECT_EQ(since.kernels(), 3);
  EXPECT_EQ(since.buffers(), 4);
  EXPECT_EQ(values(m)[63], 320.0f);
  EXPECT_EQ(values(t)[0], 64.0f * 65.0f / 2);
}

//   two short products, their sum: they run side by side, so neither waits in the other's task
TEST_F(Plan, ShortKernelsAreNotTiedToOneAnother) {
  const auto x = ramp({3, 3});
  const Since since;
  const auto y = x * x + x.trans() * x;
  y.wait_for_eval();
  EXPECT_EQ(since.kernels(), 3);
}

//   x -> s -+-> [+] -> y                  y reads s and, through a view, all of s's memory: it must wait for s
//           +-> trans -+
TEST_F(Plan, AViewOfAResultIsReadAfterTheResultIsWritten) {
  const Since since;
  const auto y = [] {
    const auto s = ramp({5, 5}) + 1.0;
    return s + s.trans();
  }();
  ASSERT_TRUE(y.wait_for_eval(20.0));
  EXPECT_EQ(since.kernels(), 2);
  EXPECT_EQ(values(y)[1], 2.0f + 6.0f);
}

TEST_F(Plan, ProgramsOverDifferentShapesStayApartAndBroadcast) {
  const auto x = ramp({4, 3}), b = ramp({4});
  const Since since;
  const auto y = x + (b * 2.0);
  y.wait_for_eval();
  EXPECT_EQ(since.kernels(), 2);
  EXPECT_EQ(values(y)[5], 5.0f + 2.0f);
}

TEST_F(Plan, WhatHasNoHandleIsNotComputed) {
  const auto x = ramp({16});
  const Since since;
  for (int i = 0; i < 100; ++i) (x + double(i)).sum();
  wait_for_all();
  EXPECT_EQ(since.kernels(), 0);
  EXPECT_EQ(since.dropped(), 200);
}

TEST_F(Plan, ADyingInputGivesItsMemory) {
  auto x = ramp({1000});
  x.wait_for_eval();
  const Since since;
  x += 1.0;
  x.wait_for_eval();
  EXPECT_EQ(since.in_place(), 1);
  const auto held = x;
  x += 1.0;
  x.wait_for_eval();
  EXPECT_EQ(since.in_place(), 1);  // held must not change
  EXPECT_EQ(values(held)[1], 2.0f);
  EXPECT_EQ(values(x)[1], 3.0f);
}

// One output takes over the input's memory while another still reads the input.
TEST_F(Plan, TakingOverMemoryIsSafeWithSeveralOutputs) {
  auto x = ramp({5000});
  x.wait_for_eval();
  const auto a = x + 1.0;
  const auto b = x * 3.0 + a;
  const auto c = elewise::square(x) - b;
  x = NArray();
  wait_for_all();
  for (int i : {0, 1, 999, 1024, 4999}) {
    const auto v = static_cast<float>(i);
    EXPECT_EQ(values(a)[static_cast<std::size_t>(i)], v + 1);
    EXPECT_EQ(values(b)[static_cast<std::size_t>(i)], v * 3 + (v + 1));
    EXPECT_EQ(values(c)[static_cast<std::size_t>(i)], v * v - (v * 3 + (v + 1)));
  }
}

TEST_F(Plan, ATransposeThatAProductConsumesCostsNothing) {
  const auto a = ramp({3, 5}), b = ramp({3, 2});
  const Since since;
  const auto c = a.trans() * b;
  c.wait_for_eval();
  EXPECT_EQ(since.kernels(), 1);
  EXPECT_EQ(since.copies(), 0);
  EXPECT_EQ(values(c)[0], 0 * 0 + 1 * 1 + 2 * 2.0f);
}

TEST_F(Plan, ViewsShareMemory) {
  const auto x = ramp({4, 6});
  const Since since;
  const auto y = slice(x, 1, 2, 3).reshape({12});
  EXPECT_EQ(values(y)[0], 8.0f);
  EXPECT_EQ(since.kernels(), 0);
}

TEST_F(Plan, LongChainsAreCutIntoProgramsOfBoundedLength) {
  auto x = ramp({4});
  const Since since;
  for (int i = 0; i < 1000; ++i) x = x + 1.0;
  x.wait_for_eval();
  EXPECT_EQ(since.fused(), 1000);
  EXPECT_LE(since.kernels(), 32);
  EXPECT_EQ(values(x)[0], 1000.0f);
}

//   31 additions of float32 -+-> [add]        with the addition and its operand's conversion, one program would have 65
//   32 additions of int32   -+               instructions
TEST_F(Plan, ProgramsAreJoinedOnlyWhereConversionsFitToo) {
  auto x = ramp({4}), y = ramp({4}).astype(DType::kInt32);
  const Since since;
  for (int i = 0; i < 31; ++i) x = x + 1.0;
  for (int i = 0; i < 32; ++i) y = y + 1;
  const auto z = x + y;
  z.wait_for_eval();
  EXPECT_EQ(since.kernels(), 2);
  EXPECT_EQ(values(z)[3], 2 * 3.0f + 63);
}

TEST(NullDevice, PlansAndSchedulesWithoutComputing) {
  const int null = create_null_device();
  set_device(null);
  const Window window{64, -1};
  const Since since;
  {
    const auto x = zeros({1000, 1000});
    const auto y = x * x + 1.0;
    y.wait_for_eval();
    EXPECT_EQ(since.kernels(), 2);
    EXPECT_THROW(values(y), DeviceError);
  }
  set_device(0);
}

//   x -> conv -> relu -> pool -> conv -> its gradients, and an update: one task, strip by strip
TEST_F(Plan, ImagesRunDepthFirst) {
  const auto run = [](std::int64_t images) {
    const conv::Convolver c{.pad_h = 1, .pad_w = 1};
    const conv::Pooler pool{.h = 3, .w = 3, .stride_v = 1, .stride_h = 1, .pad_h = 1, .pad_w = 1};
    const auto x = ramp({16, 16, 16, images}) * 1e-6, w = ramp({3, 3, 16, 16}) * 1e-4 - 0.1, b = ramp({16});
    wait_for_all();
    const Since since;
    std::vector<NArray> results;
    {
      const auto a = elewise::relu(c.ff(x, w, b));
      const auto y = c.ff(pool.ff(a), w, b);
      const auto s = elewise::relu_back(pool.bp(c.bp(y, a, w), a, a), a);
      results = {w - 0.1 * c.weight_grad(s, x, w), c.bias_grad(s)};
    }
    wait_for_all();
    return std::pair(since.kernels(), std::pair(values(results[0]), values(results[1])));
  };
  const auto [kernels, together] = run(131);
  EXPECT_EQ(kernels, 1);
  const Window alone(1, -1);
  EXPECT_EQ(run(131).second, together);
  EXPECT_GT(run(8).first, 1);
}

}  // namespace
}  // namespace owl::test
