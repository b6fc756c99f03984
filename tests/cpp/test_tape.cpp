// owl/tape.h: gradients in C++. Only public headers are needed.
#include <owl/owl.h>

#include <thread>

#include "support.h"

namespace owl::test {
namespace {

using Values = std::vector<float>;

TEST(Tape, GradientsOfALoss) {
  const NArray w = ramp({2, 3}), x = ramp({3, 4}), b = ramp({2, 1});
  Tape tape;
  const NArray loss = (square(w * x + b) / 2).sum();
  const auto gradients = tape.gradient(loss, {w, b});
  const NArray err = w * x + b;
  EXPECT_EQ(values(gradients[0]), values(err * x.trans()));
  EXPECT_EQ(values(gradients[1]), values(err.sum(1)));
}

TEST(Tape, TapesNest) {
  const NArray x = ramp({3});
  Tape outer;
  NArray first;
  {
    Tape inner;
    first = inner.gradient(pow(x, 3).sum(), {x})[0];
  }
  EXPECT_EQ(values(first), (Values{0, 3, 12}));
  EXPECT_EQ(values(outer.gradient(first.sum(), {x})[0]), (Values{0, 6, 12}));
}

TEST(Tape, ACheckpointHasTheSameBits) {
  const auto gradient = [](auto wrap) {
    owl::seed(5);
    const NArray w = ramp({3, 3}), x = ramp({3, 4}) / 10;
    const auto layer = wrap([&](const NArray& a, float scale) {
      return tanh(w * tanh(w * a)) * scale + mult(a, randb(a.shape(), 0.5));
    });
    Tape tape;
    const NArray loss = layer(layer(x, 2.0f), 0.5f).sum();
    return values(tape.gradient(loss, {w})[0]);
  };
  EXPECT_EQ(gradient([](auto f) { return checkpoint(f); }), gradient([](auto f) { return f; }));
}

TEST(Tape, ClosedItNotesNothing) {
  const NArray x = ramp({3});
  Tape tape(true);
  const NArray y = square(x).sum();
  tape.close();
  EXPECT_THROW(tape.gradient(exp(y), {x}), Error);
  EXPECT_EQ(values(tape.gradient(y, {x})[0]), (Values{0, 2, 4}));
  EXPECT_EQ(values(tape.gradient(y, {x}, ramp({1}, 3))[0]), (Values{0, 6, 12}));
}

TEST(Tape, StopGradient) {
  const NArray x = ramp({3});
  Tape tape;
  EXPECT_EQ(values(tape.gradient(elewise::mult(stop_gradient(x), x).sum(), {x})[0]), (Values{0, 1, 2}));
  EXPECT_THROW(stop_gradient(NArray()), Error);
}

TEST(Tape, Mistakes) {
  const NArray x = ramp({3}), other = ramp({2});
  Tape tape;
  EXPECT_THROW(tape.gradient(x.sum().astype(DType::kInt32), {x}), DTypeError);
  const NArray y = square(x);
  EXPECT_THROW(tape.gradient(y, {x}), ShapeError);
  EXPECT_THROW(tape.gradient(y, {x}, other), ShapeError);
  EXPECT_THROW(tape.gradient(y, {x.astype(DType::kInt32)}, x), DTypeError);
  EXPECT_THROW(tape.gradient(y, {x, other}, x), Error);
  EXPECT_THROW(tape.gradient(NArray(), {x}), Error);
  const auto gradients = tape.gradient(y, {x, other}, x, Tape::Unused::kZeros);  // none of these has used it up
  EXPECT_EQ(values(gradients[0]), (Values{0, 2, 8}));
  EXPECT_EQ(values(gradients[1]), (Values{0, 0}));
  EXPECT_THROW(tape.gradient(y, {x}, x), Error);
}

const Op twice(
    "twice", same_as_first,
    [](std::span<const ConstMemory> in, const Memory& out, Work& work) {
      work.stage(1, [n = out.shape.size(), x = in[0].as<float>(), y = out.as<float>()](std::int64_t) {
        for (std::int64_t i = 0; i < n; ++i) y[i] = 2 * x[i];
      });
    });

TEST(Tape, OperationsOfTheUsersTakePart) {
  const Op with_gradient = twice.with_backward(
      [](const NArray& err, const NArray&, std::span<const NArray>) { return std::vector<NArray>{err * 2.0}; });
  const NArray x = ramp({3});
  {
    Tape tape;
    EXPECT_EQ(values(tape.gradient(square(with_gradient(x)).sum(), {x})[0]), (Values{0, 8, 16}));
  }
  Tape tape;
  try {
    tape.gradient(twice(x).sum(), {x});
    ADD_FAILURE() << "no error";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("the operation twice has no backward function"), std::string::npos) << e.what();
  }
  const auto wrong = [&](Op::Backward backward) {
    Tape other;
    const NArray y = twice.with_backward(std::move(backward))(x).sum();
    EXPECT_THROW(other.gradient(y, {x}), ShapeError);
  };
  wrong([](const NArray&, const NArray&, std::span<const NArray>) { return std::vector<NArray>{}; });
  wrong([](const NArray&, const NArray&, std::span<const NArray>) { return std::vector<NArray>{ramp({2})}; });
  Tape zeros;
  const NArray y = twice.with_backward([](const NArray&, const NArray&, std::span<const NArray>) {
    return std::vector<NArray>(1);
  })(x).sum();
  EXPECT_EQ(values(zeros.gradient(y, {x})[0]), (Values{0, 0, 0}));
}

TEST(Tape, ThreadsNoteTheirOwn) {
  const NArray x = ramp({3});
  Tape tape;
  const NArray y = square(x).sum();
  NArray elsewhere;
  std::thread([&] { elsewhere = exp(x).sum(); }).join();
  EXPECT_THROW(tape.gradient(elsewhere, {x}), Error);
  NArray gradient;
  std::thread([&] { gradient = tape.gradient(y, {x})[0]; }).join();
  EXPECT_EQ(values(gradient), (Values{0, 2, 4}));
}

}  // namespace
}  // namespace owl::test
