// The public C++ API, a test for each row of its contract. Includes only <owl/owl.h>.
#include <gtest/gtest.h>
#include <owl/owl.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <sstream>
#include <thread>
#include <vector>

namespace {

using owl::arange, owl::DType, owl::NArray, owl::Shape, owl::Slice;
namespace ele = owl::elewise;
namespace conv = owl::conv;

using Floats = std::vector<float>;
using Ints = std::vector<std::int32_t>;

Floats floats(const NArray& x) { return x.astype(DType::kFloat32).to_host<float>(); }
Ints ints(const NArray& x) { return x.astype(DType::kInt32).to_host<std::int32_t>(); }
NArray array(const Floats& values) { return owl::from_host(values, {static_cast<std::int64_t>(values.size())}); }

// Whether `f` throws an E whose message contains `part`.
template <class E, class F> testing::AssertionResult throws(F f, const std::string& part) {
  try {
    f();
  } catch (const E& e) {
    if (std::string(e.what()).find(part) != std::string::npos) return testing::AssertionSuccess();
    return testing::AssertionFailure() << "the message is: " << e.what();
  } catch (const std::exception& e) {
    return testing::AssertionFailure() << "another exception: " << e.what();
  }
  return testing::AssertionFailure() << "nothing was thrown";
}

// ---- Arrays

TEST(Api, FromHostCopies) {
  Floats values{1, 2, 3, 4, 5, 6};
  const NArray x = owl::from_host(values, {2, 3});
  values[0] = 100;
  EXPECT_EQ(x.shape(), (Shape{2, 3}));
  EXPECT_EQ(x.to_host<float>(), (Floats{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(floats(x[{1, 2}]), Floats{6});  // column-major: the first axis varies fastest
  EXPECT_EQ(owl::from_host(Ints{7}, {1}).dtype(), DType::kInt32);
  EXPECT_EQ(owl::from_host(std::vector<double>{7}, {1}).dtype(), DType::kFloat64);
  const bool flags[] = {true, false};
  const NArray b = owl::from_host(std::span<const bool>(flags), {2});
  EXPECT_EQ(b.dtype(), DType::kBool);
  EXPECT_EQ(ints(b), (Ints{1, 0}));
  EXPECT_TRUE(throws<owl::ShapeError>([&] { owl::from_host(values, {2, 2}); }, "got 6 elements, shape [2, 2] has 4"));
}

TEST(Api, ToHostChecksTheType) {
  EXPECT_TRUE(throws<owl::DTypeError>([] { return arange(3).to_host<double>(); }, "float32, not float64"));
  std::vector<std::uint8_t> flags(2);
  (array({1, -1}) > 0).copy_to_host(flags.data());
  EXPECT_EQ(flags, (std::vector<std::uint8_t>{1, 0}));
}

TEST(Api, FromForeignSharesMemory) {
  static bool released;
  released = false;
  Floats values{1, 2};
  {
    const auto release = [](void* flag) { *static_cast<bool*>(flag) = true; };
    const NArray x = owl::from_foreign(values.data(), {2}, DType::kFloat32, release, &released);
    EXPECT_EQ(floats(x + 1), (Floats{2, 3}));
    owl::wait_for_all();
    EXPECT_FALSE(released);
  }
  owl::wait_for_all();
  EXPECT_TRUE(released);
}

TEST(Api, ChoosingAndSorting) {
  const NArray x = arange(6).reshape({2, 3}), places = owl::from_host({2, -3, 2}, {3});
  EXPECT_EQ(floats(owl::take(x, places, 1)), (Floats{4, 5, 0, 1, 4, 5}));
  EXPECT_EQ(floats(owl::put_add(x, places, owl::ones({2, 3}), -1)), (Floats{1, 2, 2, 3, 6, 7}));
  EXPECT_EQ(floats(owl::one_hot(owl::from_host({1, 0}, {1, 2}), 2)), (Floats{0, 1, 1, 0}));
  EXPECT_TRUE(throws<owl::IndexError>([&] { floats(owl::take(x, owl::from_host({3}, {1}), 1)); },
                                      "take: index 3 is out of range for axis 1 with size 3"));
  EXPECT_TRUE(throws<owl::DTypeError>([&] { owl::take(x, x, 1); }, "float32"));
  const NArray unsorted = array({3, 1, 3, 2});
  EXPECT_EQ(floats(owl::sort(unsorted)), (Floats{1, 2, 3, 3}));
  EXPECT_EQ(ints(owl::argsort(unsorted)), (Ints{1, 3, 0, 2}));
  const owl::TopK top = owl::topk(unsorted, 2);
  EXPECT_EQ(floats(top.values), (Floats{3, 3}));
  EXPECT_EQ(ints(top.indices), (Ints{0, 2}));
  const NArray many = arange(8).reshape({2, 2, 2});  // [[0 2] [1 3]] and [[4 6] [5 7]]
  EXPECT_EQ(floats(owl::matmul(many, arange(4).reshape({2, 2}))), (Floats{2, 3, 6, 11, 6, 7, 26, 31}));
}

TEST(Api, FilledArrays) {
  EXPECT_EQ(floats(owl::zeros({2})), (Floats{0, 0}));
  EXPECT_EQ(floats(owl::ones({2})), (Floats{1, 1}));
  EXPECT_EQ(floats(owl::full({2}, 2.5)), (Floats{2.5, 2.5}));
  EXPECT_EQ(owl::zeros({2}).dtype(), DType::kFloat32);
  EXPECT_EQ(owl::ones({2}, DType::kBool).dtype(), DType::kBool);
  EXPECT_EQ(owl::full({2}, 3, DType::kInt32).to_host<std::int32_t>(), (Ints{3, 3}));
  EXPECT_TRUE(throws<owl::ShapeError>([] { owl::zeros({2, -1}); }, "-1"));
  EXPECT_TRUE(throws<owl::OverflowError>([] { owl::full({2}, 1e10, DType::kInt32); }, "does not fit int32"));
}

template <class... T> concept Randn = requires(T... arguments) { owl::randn(arguments...); };
template <class... T> concept Rand = requires(T... arguments) { owl::rand(arguments...); };
template <class... T> concept Randb = requires(T... arguments) { owl::randb(arguments...); };

TEST(Api, IntegersAsShapes) {
  EXPECT_EQ(owl::zeros(3).shape(), Shape{3});
  EXPECT_EQ(owl::zeros(3, 4).shape(), (Shape{3, 4}));
  EXPECT_EQ(floats(owl::ones(1, 2)), (Floats{1, 1}));
  EXPECT_EQ(owl::ones(3, DType::kInt32).dtype(), DType::kInt32);
  EXPECT_EQ(owl::zeros(3, 0).shape(), (Shape{3, 0}));
  EXPECT_EQ(floats(owl::full(2, 4)), (Floats{4, 4}));
  EXPECT_EQ(owl::randn(3).shape(), Shape{3});
  EXPECT_EQ(owl::randn(3, 4).shape(), (Shape{3, 4}));
  EXPECT_EQ(owl::rand(3L, 4U, 5).shape(), (Shape{3, 4, 5}));
  EXPECT_EQ(owl::randn({3}, 4).shape(), Shape{3});
  EXPECT_EQ(owl::randb(3, 0.5).shape(), Shape{3});
  EXPECT_EQ(arange(6).reshape(2, -1).shape(), (Shape{2, 3}));
  EXPECT_EQ(arange(6).reshape(2, 3).transpose(1, 0).shape(), (Shape{3, 2}));
  EXPECT_EQ(owl::ones(2, 3).reshape(6).shape(), Shape{6});
  EXPECT_THROW(owl::zeros(-1), owl::ShapeError);
  EXPECT_TRUE(throws<owl::ValueError>([] { owl::randn(3, 0, 1); }, "write randn({3, 0, 1}) for the shape, or randn({3}, 0.0, 1.0)"));
  EXPECT_TRUE(throws<owl::ValueError>([] { owl::randn(0, 3); }, "write randn({0, 3}) for the shape, or randn({0}, 0.0, 1.0)"));
  EXPECT_TRUE(throws<owl::ValueError>([] { owl::rand(-3, 4); }, "write rand({3, 4}) for the shape, or rand({3, 4}, 0.0, 1.0)"));
  EXPECT_TRUE(throws<owl::ValueError>([] { owl::rand(3, -1); }, "rand(3, -1)"));
  static_assert(Randn<Shape, double> && Randn<int, int> && !Randn<int, double> && !Randn<int, double, double>);
  static_assert(Rand<Shape, double> && Rand<int, long> && !Rand<int, double> && !Rand<int, int, double>);
  static_assert(Randb<Shape, int> && Randb<int, double> && !Randb<int, int>);
}

TEST(Api, FromHostTakesWhatHoldsElements) {
  EXPECT_EQ(floats(owl::from_host({1.f, 2.f}, {2})), (Floats{1, 2}));
  EXPECT_EQ(owl::from_host({1, 2, 3}, 3).dtype(), DType::kInt32);
  EXPECT_EQ(owl::from_host({1.0}, 1).dtype(), DType::kFloat64);
  EXPECT_EQ(ints(owl::from_host({true, false}, {1, 2})), (Ints{1, 0}));
  EXPECT_EQ(floats(owl::from_host(std::array{3.f, 4.f}, {2})), (Floats{3, 4}));
  const float plain[] = {5, 6};
  EXPECT_EQ(floats(owl::from_host(plain, {2})), (Floats{5, 6}));
  const std::vector<bool> bits{true, false, true};
  const NArray bools = owl::from_host(bits, {3});
  EXPECT_EQ(bools.dtype(), DType::kBool);
  EXPECT_EQ(bools.to_host<bool>(), bits);
  EXPECT_EQ(owl::from_host(bools.to_host<bool>(), {3}).to_host<bool>(), bits);
  EXPECT_TRUE(throws<owl::ShapeError>([&] { owl::from_host(bits, {2}); }, "got 3 elements, shape [2] has 2"));
  Floats changeable{7, 8};
  EXPECT_EQ(floats(owl::from_host(std::span(changeable), {2})), (Floats{7, 8}));
  EXPECT_TRUE(throws<owl::ShapeError>([] { owl::from_host({1.f, 2.f}, {3}); }, "got 2 elements, shape [3] has 3"));
}

// A bool is true if its byte is not 0; exported bools are 0 or 1.
TEST(Api, BoolsOfAnyByte) {
  const std::vector<std::uint8_t> bytes{0, 1, 2, 255, 0, 128, 1, 64, 3, 0, 7};
  const Ints truths{0, 1, 1, 1, 0, 1, 1, 1, 1, 0, 1};
  const auto n = static_cast<std::int64_t>(bytes.size());
  const auto check = [&](const NArray& b) {
    EXPECT_EQ(ints(b), truths);
    EXPECT_EQ(b.sum().item(), 8);
    EXPECT_EQ(ints(b == true), truths);
    EXPECT_EQ(b.count_zero(), 3);
    EXPECT_EQ(b.max().item(), 1);
    std::vector<std::uint8_t> out(bytes.size());
    b.copy_to_host(out.data());
    EXPECT_EQ(Ints(out.begin(), out.end()), truths);
  };
  check(owl::from_host(bytes.data(), n, DType::kBool));
  static int released;
  released = 0;
  auto memory = bytes;
  const auto release = [](void*) { ++released; };
  {
    const NArray shared = owl::from_foreign(memory.data(), n, DType::kBool, release, nullptr);
    check(shared);
    check(shared.copy_to(owl::create_cpu_device()));
  }
  owl::wait_for_all();
  EXPECT_EQ(released, 1);
  EXPECT_EQ(memory, bytes);  // owl does not write to imported memory
  const owl::Op raw(
      "raw", [n](std::span<const owl::ArrayType>) { return owl::ArrayType{n, DType::kBool}; },
      [bytes](std::span<const owl::ConstMemory>, const owl::Memory& out, owl::Work& work) {
        work.stage(1, [bytes, to = static_cast<std::uint8_t*>(out.data)](std::int64_t) {
          std::copy(bytes.begin(), bytes.end(), to);
        });
      });
  check(raw(owl::ones(1)));
}

TEST(Api, Arange) {
  EXPECT_EQ(floats(arange(3)), (Floats{0, 1, 2}));
  EXPECT_EQ(floats(arange(1, 3)), (Floats{1, 2}));
  EXPECT_EQ(floats(arange(1, 0, -0.5)), (Floats{1, 0.5}));
  EXPECT_EQ(arange(3, DType::kInt32).to_host<std::int32_t>(), (Ints{0, 1, 2}));
  EXPECT_THROW(arange(0, 1, 0), owl::Error);
}

TEST(Api, ThePlaceOfTheGenerator) {
  owl::seed(5);
  owl::rand({3});
  const owl::RandomState state = owl::random_state();
  EXPECT_EQ(state, (owl::RandomState{5, 1}));
  const Floats a = floats(owl::randn({1000}));
  owl::set_random_state(state);
  EXPECT_EQ(floats(owl::randn({1000})), a);
}

TEST(Api, RandomNumbersAreAFunctionOfTheSeed) {
  const auto draw = [](std::uint64_t n) {
    owl::seed(n);
    return std::vector<Floats>{floats(owl::randn({1000}, 3, 0.5)), floats(owl::rand({1000}, -1, 1)),
                               floats(owl::randb({1000}, 0.25))};
  };
  const auto a = draw(5);
  EXPECT_EQ(draw(5), a);
  EXPECT_NE(draw(6), a);
  EXPECT_NEAR(owl::from_host(a[0], {1000}).mean().item(), 3, 0.1);
  for (const float v : a[1]) EXPECT_TRUE(v >= -1 && v < 1);
  EXPECT_NEAR(owl::from_host(a[2], {1000}).mean().item(), 0.25, 0.1);
  for (const float v : a[2]) EXPECT_TRUE(v == 0 || v == 1);
  EXPECT_TRUE(throws<owl::Error>([] { owl::randn({2}, 0, -1); }, "sigma"));
  EXPECT_TRUE(throws<owl::Error>([] { owl::randb({2}, 1.5); }, "probability"));
}

TEST(Api, ConcatAndSlice) {
  const NArray a = arange(4).reshape({2, 2}), b = owl::concat({a, a + 10}, 1);
  EXPECT_EQ(b.shape(), (Shape{2, 4}));
  EXPECT_EQ(floats(b), (Floats{0, 1, 2, 3, 10, 11, 12, 13}));
  EXPECT_EQ(floats(owl::concat({a, a}, 0)), (Floats{0, 1, 0, 1, 2, 3, 2, 3}));
  EXPECT_EQ(floats(owl::slice(b, 1, 1, 2)), (Floats{2, 3, 10, 11}));
  EXPECT_EQ(floats(owl::slice(b, -2, 1, 1)), (Floats{1, 3, 11, 13}));
  EXPECT_THROW(owl::concat({a, arange(2)}, 0), owl::ShapeError);
  EXPECT_THROW(owl::slice(b, 1, 3, 2), owl::IndexError);
}

TEST(Api, Properties) {
  const NArray x = owl::zeros({2, 3}, DType::kInt32);
  EXPECT_EQ(x.shape()[0], 2);
  EXPECT_EQ(x.ndim(), 2);
  EXPECT_EQ(x.size(), 6);
  EXPECT_EQ(owl::name(x.dtype()), "int32");
  EXPECT_EQ(x.device(), 0);
  EXPECT_TRUE(x.has_value());
  EXPECT_FALSE(NArray().has_value());
}

// `if (a > 1.0)` would test whether the array is assigned.
static_assert(!std::is_constructible_v<bool, NArray>);
static_assert(!std::is_convertible_v<NArray, bool>);

template <class F> void expect_refused(const char* what, F f) {
  EXPECT_TRUE(throws<owl::Error>(f, "an empty NArray has no value")) << what;
}

// Calls each operator, function and method with an empty array, `e`, and an assigned one, `a`.
void expect_all_refused(const NArray& e) {
  const NArray a = owl::ones({2, 2});
  const NArray image = owl::ones({4, 4, 1, 1}), one = owl::ones({1});
  NArray changed;
#define REFUSED(EXPRESSION) expect_refused(#EXPRESSION, [&] { (void)(EXPRESSION); })
  REFUSED(e + 1);
  REFUSED(e - 1.0);
  REFUSED(e * 2.0);
  REFUSED(2.0 * e);
  REFUSED(e / 2);
  REFUSED(1 + e);
  REFUSED(1 / e);
  REFUSED(-e);
  REFUSED(a + e);
  REFUSED(e + a);
  REFUSED(a - e);
  REFUSED(a / e);
  REFUSED(a * e);
  REFUSED(e * a);
  REFUSED(e + e);
  REFUSED(a > e);
  REFUSED(e >= a);
  REFUSED(e < 1);
  REFUSED(1 <= e);
  REFUSED(e == e);
  REFUSED(a != e);
  REFUSED(owl::pow(e, 2));
  REFUSED(owl::pow(a, e));
  REFUSED(owl::pow(2.0, e));
  REFUSED(owl::matmul(a, e));
  REFUSED(owl::concat({a, e}, 0));
  REFUSED(owl::slice(e, 0, 0, 1));
  REFUSED(owl::all_reduce({e}));
  REFUSED(owl::elementwise("exp", std::vector<owl::Operand>{e}));
#define OWL_FUNCTION(NAME, STRUCT) REFUSED(ele::NAME(e));
  OWL_ELEWISE_UNARY(OWL_FUNCTION)
#undef OWL_FUNCTION
#define OWL_FUNCTION(NAME, STRUCT) REFUSED(ele::NAME(e, a)); REFUSED(ele::NAME(a, e)); REFUSED(ele::NAME(1.0, e));
  OWL_ELEWISE_BINARY(OWL_FUNCTION)
#undef OWL_FUNCTION
#define OWL_FUNCTION(NAME, STRUCT) REFUSED(ele::NAME(e, 0, 1)); REFUSED(ele::NAME(a, e, 1)); REFUSED(ele::NAME(a, 0, e));
  OWL_ELEWISE_TERNARY(OWL_FUNCTION)
#undef OWL_FUNCTION
  REFUSED(ele::sigm_back(e));
  REFUSED(ele::tanh_back(e));
  REFUSED(conv::softmax(e));
  REFUSED(conv::log_softmax(e));
  REFUSED(conv::softmax_back(e, a));
  REFUSED(conv::softmax_back(a, e));
  const conv::Convolver c;
  REFUSED(c.ff(e, image, one));
  REFUSED(c.ff(image, e, one));
  REFUSED(c.ff(image, image, e));
  REFUSED(c.bp(e, image, image));
  REFUSED(c.bp(image, e, image));
  REFUSED(c.bp(image, image, e));
  REFUSED(c.weight_grad(e, image, image));
  REFUSED(c.weight_grad(image, e, image));
  REFUSED(c.weight_grad(image, image, e));
  REFUSED(c.bias_grad(e));
  for (const auto op : {conv::PoolOp::kMax, conv::PoolOp::kAverage}) {
    const conv::Pooler p{.h = 2, .w = 2, .stride_v = 2, .stride_h = 2, .op = op};
    const NArray pooled = p.ff(image);
    REFUSED(p.ff(e));
    REFUSED(p.bp(e, pooled, image));
    REFUSED(p.bp(pooled, e, image));
    REFUSED(p.bp(pooled, pooled, e));
  }
  const conv::Lrner l{3, 1, 0.75};
  REFUSED(l.ff(e, image));
  REFUSED(l.ff(image, e));
  REFUSED(l.bp(e, image, image, image));
  REFUSED(l.bp(image, e, image, image));
  REFUSED(l.bp(image, image, e, image));
  REFUSED(l.bp(image, image, image, e));
  REFUSED(owl::Op("op", owl::same_as_first, [](auto, auto&, auto&) {})(a, e));
  REFUSED(owl::explain(std::vector{a, e}));
  REFUSED(owl::draw(std::vector{e}));
  REFUSED((changed = e, changed += 1));
  REFUSED((changed = e, changed += a));
  REFUSED((changed = e, changed -= a));
  REFUSED((changed = e, changed *= a));
  REFUSED((changed = e, changed *= 2));
  REFUSED((changed = e, changed /= 2));
  REFUSED((changed = a, changed += e));
  REFUSED((changed = a, changed -= e));
  REFUSED((changed = a, changed *= e));
  REFUSED((changed = a, changed /= e));
  REFUSED(e.shape());
  REFUSED(e.dtype());
  REFUSED(e.device());
  REFUSED(e.size());
  REFUSED(e.ndim());
  REFUSED(e.reshape({1}));
  REFUSED(e.reshape(1));
  REFUSED(e.trans());
  REFUSED(e.transpose({0}));
  REFUSED(e[0]);
  REFUSED(e.index({}));
  REFUSED(e.astype(DType::kInt32));
  REFUSED(e.copy_to(0));
  REFUSED(e.sum());
  REFUSED(e.max(0));
  REFUSED(e.min());
  REFUSED(e.mean(0));
  REFUSED(e.argmax());
  REFUSED(e.argmin(0));
  REFUSED(e.max_index(0));
  REFUSED(e.count_zero());
  REFUSED(e.start_eval());
  REFUSED(e.wait_for_eval());
  REFUSED(e.ready());
  REFUSED(e.copy_to_host(nullptr));
  REFUSED(e.to_host<float>());
  REFUSED(e.item());
#undef REFUSED
}

TEST(Api, AnEmptyArrayIsAnErrorEverywhere) { expect_all_refused(NArray()); }

TEST(Api, AMovedFromArrayIsAnErrorEverywhere) {
  NArray from = owl::ones({2, 2});
  const NArray to = std::move(from);
  EXPECT_FALSE(from.has_value());  // NOLINT: tests the moved-from array
  expect_all_refused(from);
  from = to;
  EXPECT_EQ(floats(from), (Floats{1, 1, 1, 1}));
}

std::string text(const NArray& x) { return (std::ostringstream() << x).str(); }

TEST(Api, PrintingWaitsAndShowsValues) {
  const owl::HoldWindow hold;
  const NArray x = arange(6).reshape({2, 3}) * 2;
  EXPECT_EQ(text(x), "NArray([[ 0.,  4.,  8.],\n        [ 2.,  6., 10.]], shape=[2, 3], dtype=float32, device=0)");
  EXPECT_EQ(text(x.trans()), "NArray([[ 0.,  2.],\n        [ 4.,  6.],\n        [ 8., 10.]], shape=[3, 2], dtype=float32, device=0)");
  EXPECT_EQ(text(x[{1, Slice{1, 3}}]), "NArray([ 6., 10.], shape=[2], dtype=float32, device=0)");
  const bool flags[] = {true, false};
  EXPECT_EQ(text(owl::from_host(std::span<const bool>(flags), {2})),
            "NArray([ True, False], shape=[2], dtype=bool, device=0)");
  EXPECT_EQ(text(owl::from_host(Floats{}, {0, 2})), "NArray([], shape=[0, 2], dtype=float32, device=0)");
  EXPECT_EQ(text(owl::full({1}, 0.1)), "NArray([0.1], shape=[1], dtype=float32, device=0)");
  EXPECT_EQ(text(owl::full({1, 1, 2}, 1.0 / 3, DType::kFloat64)),
            "NArray([[[0.333333333, 0.333333333]]], shape=[1, 1, 2], dtype=float64, device=0)");
  EXPECT_EQ(text(NArray()), "NArray()");
}

TEST(Api, PrintingMarksFloatsAndBoolsAsPythonDoes) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  EXPECT_EQ(text(owl::ones(3)), "NArray([1., 1., 1.], shape=[3], dtype=float32, device=0)");
  EXPECT_EQ(text(owl::ones(3, DType::kInt32)), "NArray([1, 1, 1], shape=[3], dtype=int32, device=0)");
  EXPECT_EQ(text(owl::from_host({-2.f, 0.5f, kInf}, 3)), "NArray([-2., 0.5, inf], shape=[3], dtype=float32, device=0)");
  EXPECT_EQ(text(owl::full(1, 1e30)), "NArray([1e+30], shape=[1], dtype=float32, device=0)");
  EXPECT_EQ(text(owl::full(1, 3, DType::kFloat64)), "NArray([3.], shape=[1], dtype=float64, device=0)");
}

TEST(Api, ExplainAndDrawTakeOneArrayOrSeveral) {
  const owl::HoldWindow hold;
  const NArray a = owl::ones(3) + 1.0, b = owl::ones(4) + 1.0;
  const std::vector<NArray> both{a, b};
  EXPECT_EQ(owl::explain(a).str(), owl::explain({a}).str());
  EXPECT_EQ(owl::explain({a, b}).str(), owl::explain(both).str());
  EXPECT_EQ(owl::draw({a, b}), owl::draw(both));
  EXPECT_EQ(owl::draw(a), owl::draw({a}));
  EXPECT_NE(owl::draw(a), owl::draw({a, b}));
  EXPECT_TRUE(throws<owl::Error>([] { owl::draw(NArray()); }, "draw: an empty NArray has no value"));
  EXPECT_TRUE(throws<owl::Error>([] { owl::explain(NArray()); }, "explain: an empty NArray has no value"));
}

TEST(Api, AnErrorNamesTheFunctionThatWasCalled) {
  EXPECT_TRUE(throws<owl::ShapeError>([] { owl::zeros(Shape()); }, "zeros: shape []"));
  EXPECT_TRUE(throws<owl::ShapeError>([] { owl::ones(Shape()); }, "ones: shape []"));
  EXPECT_TRUE(throws<owl::ShapeError>([] { owl::full(Shape(), 2); }, "full: shape []"));
}

TEST(Api, PrintingCutsAboveAThousandElements) {
  const std::string whole = text(arange(1000, DType::kInt32));
  EXPECT_EQ(whole.find("..."), std::string::npos);
  EXPECT_NE(whole.find("998, 999], shape=[1000]"), std::string::npos);
  for (std::size_t begin = 0, end; begin < whole.size(); begin = end + 1) {  // no line is too long
    end = std::min(whole.find('\n', begin), whole.size());
    EXPECT_TRUE(end - begin <= 76 || end == whole.size());
  }
  EXPECT_EQ(text(arange(1001, DType::kInt32)),
            "NArray([   0,    1,    2, ...,  998,  999, 1000], shape=[1001], dtype=int32, device=0)");
  EXPECT_EQ(text(arange(2000, DType::kInt32).reshape({1000, 2})),
            "NArray([[   0, 1000],\n        [   1, 1001],\n        [   2, 1002],\n        ...,\n        [ 997, 1997],\n"
            "        [ 998, 1998],\n        [ 999, 1999]], shape=[1000, 2], dtype=int32, device=0)");
}

TEST(Api, PrintingShowsWhatFailed) {
  owl::trace_nan();
  const NArray bad = ele::ln(owl::zeros({3}) - 1.0);
  owl::trace_nan(false);
  const std::string shown = text(bad);
  EXPECT_EQ(shown.rfind("NArray(<ln", 0), 0u) << shown;
  EXPECT_NE(shown.find(">, shape=[3], dtype=float32, device=0)"), std::string::npos) << shown;
  EXPECT_EQ(text(bad), shown);
  EXPECT_THROW(bad.wait_for_eval(), owl::NaNError);
}

TEST(Api, ArraysLikeOthers) {
  const NArray x = owl::full({2, 3}, 5, DType::kInt32);
  for (const NArray& like : {owl::zeros_like(x), owl::ones_like(x), owl::full_like(x, 7)}) {
    EXPECT_EQ(like.shape(), x.shape());
    EXPECT_EQ(like.dtype(), DType::kInt32);
  }
  EXPECT_EQ(owl::full_like(x, 7, DType::kFloat32).to_host<float>(), Floats(6, 7));
  EXPECT_EQ(owl::full_like(x, 7).to_host<std::int32_t>(), std::vector<std::int32_t>(6, 7));
  EXPECT_THROW(owl::full_like(x, 3e9), owl::OverflowError);
}

TEST(Api, EyeAndLinspace) {
  EXPECT_EQ(floats(owl::eye(2)), (Floats{1, 0, 0, 1}));
  EXPECT_EQ(owl::eye(2, DType::kInt32).dtype(), DType::kInt32);
  EXPECT_EQ(floats(owl::eye(2, 3, 1)), (Floats{0, 0, 1, 0, 0, 1}));
  EXPECT_EQ(floats(owl::eye(2, 3, -1)), (Floats{0, 1, 0, 0, 0, 0}));
  EXPECT_EQ(floats(owl::eye(2, 3, 5)), Floats(6, 0));
  EXPECT_EQ(owl::eye(0).shape(), (Shape{0, 0}));
  EXPECT_THROW(owl::eye(-1), owl::ShapeError);
  EXPECT_EQ(floats(owl::linspace(0, 1, 5)), (Floats{0, 0.25, 0.5, 0.75, 1}));
  EXPECT_EQ(floats(owl::linspace(0, 1, 4, false)), (Floats{0, 0.25, 0.5, 0.75}));
  EXPECT_EQ(floats(owl::linspace(3, 9, 1)), Floats{3});
  EXPECT_EQ(owl::linspace(0, 1, 0).shape(), Shape{0});
  EXPECT_EQ(owl::linspace(0, 1).size(), 50);
  EXPECT_EQ(owl::linspace(-2, 2, 4, true, DType::kInt32).to_host<std::int32_t>(), (std::vector<std::int32_t>{-2, -1, 0, 2}));
  const auto exact = owl::linspace(0, 0.1, 7, true, DType::kFloat64).to_host<double>();
  EXPECT_EQ(exact.back(), 0.1);
  EXPECT_THROW(owl::linspace(0, 1, -1), owl::ShapeError);
  EXPECT_THROW(owl::linspace(0, INFINITY), owl::ValueError);
}

TEST(Api, BasicIndexing) {
  const NArray x = arange(24).reshape({4, 3, 2});
  EXPECT_EQ(x[1].shape(), (Shape{3, 2}));
  EXPECT_EQ(floats(x[{1, 2, 1}]), Floats{21});
  EXPECT_EQ(floats(x[{-1, -1, -1}]), Floats{23});
  EXPECT_EQ(floats(x[{Slice{1, 3}, 0, 0}]), (Floats{1, 2}));
  EXPECT_EQ(floats(x[{Slice{}, 0, 0}]), (Floats{0, 1, 2, 3}));
  EXPECT_EQ(floats(x[{Slice{.step = 2}, 1, 0}]), (Floats{4, 6}));
  EXPECT_EQ(floats(x[{Slice{.step = -1}, 0, 0}]), (Floats{3, 2, 1, 0}));
  EXPECT_EQ(floats(x[{Slice{-2, {}}, 0, 0}]), (Floats{2, 3}));
  EXPECT_EQ(floats(x[{Slice{3, 0, -2}, 0, 0}]), (Floats{3, 1}));
  EXPECT_EQ(x[(Slice{2, 100})].shape(), (Shape{2, 3, 2}));
  EXPECT_EQ(x[(Slice{3, 1})].shape(), (Shape{0, 3, 2}));
  EXPECT_EQ(x[(Slice{-100, 1})].shape(), (Shape{1, 3, 2}));
  EXPECT_EQ(x[(Slice{.step = std::numeric_limits<std::int64_t>::min()})].shape(), (Shape{1, 3, 2}));
  EXPECT_EQ((x[{owl::ellipsis, 1}]).shape(), (Shape{4, 3}));
  EXPECT_EQ((x[{owl::new_axis, owl::ellipsis, owl::new_axis}]).shape(), (Shape{1, 4, 3, 2, 1}));
  EXPECT_EQ((x[{0, owl::ellipsis, 0}]).shape(), (Shape{3}));
  EXPECT_EQ(floats(x[owl::ellipsis]), floats(x));
  EXPECT_TRUE(throws<owl::IndexError>([&] { return x[4]; }, "index 4 is out of range for axis 0 with size 4"));
  EXPECT_TRUE(throws<owl::IndexError>([&] { return x[{0, -4}]; }, "index -4 is out of range for axis 1 with size 3"));
  EXPECT_TRUE(throws<owl::IndexError>([&] { return x[{0, 0, 0, 0}]; }, "too many indices"));
  EXPECT_TRUE(throws<owl::IndexError>([&] { return x[{owl::ellipsis, owl::ellipsis}]; }, "more than one ellipsis"));
  EXPECT_TRUE(throws<owl::IndexError>([&] { return x[Slice{.step = 0}]; }, "step"));
}

// Every slice of a short axis, compared with the elements that a loop visits.
TEST(Api, SlicesAreAsNumPys) {
  const NArray x = arange(4);
  constexpr int kOpen = 99;
  for (int start = -7; start <= 8; ++start)
    for (int stop = -7; stop <= 8; ++stop)
      for (int step = -5; step <= 5; ++step) {
        if (step == 0) continue;
        const int low = step < 0 ? -1 : 0, high = step < 0 ? 3 : 4;
        int from = start == 8 ? kOpen : start, to = stop == 8 ? kOpen : stop;
        Slice s{.step = step};
        if (from != kOpen) s.start = from;
        if (to != kOpen) s.stop = to;
        from = from == kOpen ? (step < 0 ? high : low) : std::clamp(from < 0 ? from + 4 : from, low, high);
        to = to == kOpen ? (step < 0 ? low : high) : std::clamp(to < 0 ? to + 4 : to, low, high);
        Floats expected;
        for (int i = from; step > 0 ? i < to : i > to; i += step) expected.push_back(static_cast<float>(i));
        ASSERT_EQ(floats(x[s]), expected) << start << ":" << stop << ":" << step;
      }
}

TEST(Api, Item) {
  EXPECT_EQ(arange(3)[2].item(), 2);
  EXPECT_EQ(owl::full({1}, -7, DType::kInt32).item(), -7);
  EXPECT_TRUE(throws<owl::ShapeError>([] { return arange(3).item(); }, "[3]"));
}

TEST(Api, AstypeAndCopyTo) {
  EXPECT_EQ(array({1.9F, -1.9F}).astype(DType::kInt32).to_host<std::int32_t>(), (Ints{1, -1}));
  const int other = owl::create_cpu_device();
  const NArray x = array({1, 2}), y = x.copy_to(other);
  EXPECT_EQ(y.device(), other);
  EXPECT_EQ(x.device(), 0);
  EXPECT_EQ(floats(y), floats(x));
  EXPECT_THROW(x.copy_to(1'000'000), owl::DeviceError);
}

// ---- Operators

TEST(Api, Arithmetic) {
  const NArray a = array({1, 2, 4}), b = array({2, 2, 2});
  EXPECT_EQ(floats(a + b), (Floats{3, 4, 6}));
  EXPECT_EQ(floats(a - b), (Floats{-1, 0, 2}));
  EXPECT_EQ(floats(a / b), (Floats{0.5, 1, 2}));
  EXPECT_EQ(floats(1 - a), (Floats{0, -1, -3}));
  EXPECT_EQ(floats(4 / a), (Floats{4, 2, 1}));
  EXPECT_EQ(floats(a * 2), (Floats{2, 4, 8}));
  EXPECT_EQ(floats(0.5 * a), (Floats{0.5, 1, 2}));
  EXPECT_EQ(floats(-a), (Floats{-1, -2, -4}));
  EXPECT_EQ(floats(owl::pow(a, 2)), (Floats{1, 4, 16}));
  EXPECT_EQ(floats(owl::pow(2, a)), (Floats{2, 4, 16}));
  EXPECT_EQ(floats(a + std::size_t{1}), (Floats{2, 3, 5}));
}

TEST(Api, TimesIsTheMatrixProduct) {
  const NArray a = arange(6).reshape({2, 3}), b = arange(6).reshape({3, 2});
  EXPECT_EQ(floats(a * b), (Floats{10, 13, 28, 40}));
  EXPECT_EQ(floats(owl::matmul(a, b)), (Floats{10, 13, 28, 40}));
  NArray c = a;
  c *= b;
  EXPECT_EQ(floats(c), (Floats{10, 13, 28, 40}));
  EXPECT_TRUE(throws<owl::ShapeError>([&] { return a * a; }, "inner sizes 3 and 2 differ"));
}

TEST(Api, InPlaceFormsRebindTheName) {
  NArray a = array({1, 2});
  const NArray before = a;
  a += 1;
  a -= array({1, 1});
  a *= 4;
  a /= 2;
  EXPECT_EQ(floats(a), (Floats{2, 4}));
  EXPECT_EQ(floats(before), (Floats{1, 2}));
  EXPECT_TRUE(throws<owl::ShapeError>([&] { a += owl::zeros({2, 2}); }, "would enlarge"));
}

TEST(Api, Broadcasting) {
  const NArray a = arange(6).reshape({2, 3}), column = array({10, 20}), row = arange(3).reshape({1, 3});
  EXPECT_EQ(floats(a + column), (Floats{10, 21, 12, 23, 14, 25}));  // a missing trailing axis counts as 1
  EXPECT_EQ(floats(a + row), (Floats{0, 1, 3, 4, 6, 7}));
  EXPECT_TRUE(throws<owl::ShapeError>([&] { return a + arange(3); }, "[2, 3]"));
}

TEST(Api, Comparisons) {
  const NArray a = array({1, 2, 3}), b = array({3, 2, 1});
  EXPECT_EQ((a > b).dtype(), DType::kBool);
  EXPECT_EQ(ints(a > b), (Ints{0, 0, 1}));
  EXPECT_EQ(ints(a >= b), (Ints{0, 1, 1}));
  EXPECT_EQ(ints(a < b), (Ints{1, 0, 0}));
  EXPECT_EQ(ints(a <= b), (Ints{1, 1, 0}));
  EXPECT_EQ(ints(a == b), (Ints{0, 1, 0}));
  EXPECT_EQ(ints(a != b), (Ints{1, 0, 1}));
  EXPECT_EQ(ints(a == 2), (Ints{0, 1, 0}));
  EXPECT_EQ(ints(2 == a), (Ints{0, 1, 0}));
  EXPECT_EQ(ints(2 != a), (Ints{1, 0, 1}));
  EXPECT_EQ(ints(2 > a), (Ints{1, 0, 0}));
}

TEST(Api, Types) {
  const NArray i = arange(3, DType::kInt32), f = arange(3), d = arange(3, DType::kFloat64), b = f > 1;
  EXPECT_EQ((i + f).dtype(), DType::kFloat32);
  EXPECT_EQ((f + d).dtype(), DType::kFloat64);
  EXPECT_EQ((b + i).dtype(), DType::kInt32);
  EXPECT_EQ((f + 1.5).dtype(), DType::kFloat32);
  EXPECT_EQ((i + 1).dtype(), DType::kInt32);
  EXPECT_EQ((i * 2).dtype(), DType::kInt32);
  EXPECT_EQ((i * 2.5).dtype(), DType::kFloat32);
  EXPECT_EQ((2 * i).to_host<std::int32_t>(), (Ints{0, 2, 4}));
  EXPECT_EQ((i / 2).dtype(), DType::kFloat32);
  EXPECT_EQ(ele::relu(i).dtype(), DType::kInt32);
  EXPECT_EQ(ele::exp(i).dtype(), DType::kFloat32);
  EXPECT_EQ(i.sum().dtype(), DType::kInt32);
  EXPECT_EQ(b.sum().dtype(), DType::kInt32);
  NArray j = i;
  j *= 3;
  EXPECT_EQ(j.dtype(), DType::kInt32);
  EXPECT_TRUE(throws<owl::OverflowError>([&] { return i + (std::int64_t{1} << 31); }, "2147483648"));
}

// ---- Methods

TEST(Api, Shapes) {
  const NArray x = arange(6).reshape({2, -1});
  EXPECT_EQ(x.shape(), (Shape{2, 3}));
  EXPECT_EQ(floats(x.trans()), (Floats{0, 2, 4, 1, 3, 5}));
  EXPECT_EQ(arange(24).reshape({2, 3, 4}).transpose({2, 0, 1}).shape(), (Shape{4, 2, 3}));
  EXPECT_THROW(x.reshape({4, -1}), owl::ShapeError);
  EXPECT_THROW(x.reshape({}), owl::ShapeError);
  EXPECT_THROW(arange(3).trans(), owl::ShapeError);
  EXPECT_THROW(x.transpose({0, 0}), owl::ShapeError);
}

TEST(Api, Reductions) {
  const NArray x = arange(6).reshape({2, 3});
  EXPECT_EQ(x.sum(0).shape(), (Shape{1, 3}));
  EXPECT_EQ(floats(x.sum(0)), (Floats{1, 5, 9}));
  EXPECT_EQ(floats(x.sum(-1)), (Floats{6, 9}));
  EXPECT_EQ(x.sum({0, 1}).shape(), (Shape{1, 1}));
  EXPECT_EQ(x.sum().shape(), Shape{1});
  EXPECT_EQ(x.sum({}).shape(), Shape{1});
  EXPECT_EQ(x.sum().item(), 15);
  EXPECT_EQ(floats(x.max(1)), (Floats{4, 5}));
  EXPECT_EQ(floats(x.min(0)), (Floats{0, 2, 4}));
  EXPECT_EQ(floats(x.mean(0)), (Floats{0.5, 2.5, 4.5}));
  EXPECT_EQ(x.max().item(), 5);
  EXPECT_EQ(x.min().item(), 0);
  EXPECT_EQ(x.mean().item(), 2.5);
  EXPECT_THROW(x.sum(2), owl::ShapeError);
}

TEST(Api, IntegerOperators) {
  NArray x = owl::from_host<std::int32_t>({7, -7, 6}, {3});
  const NArray y = owl::from_host<std::int32_t>({3, 3, 0}, {3});
  EXPECT_EQ(ints(owl::floor_divide(x, y)), (Ints{2, -3, 0}));
  EXPECT_EQ(ints(x % y), (Ints{1, 2, 0}));
  EXPECT_EQ(ints(x & 3), (Ints{3, 1, 2}));
  EXPECT_EQ(ints(8 | x), (Ints{15, -7, 14}));
  EXPECT_EQ(ints(x ^ y), (Ints{4, -6, 6}));
  EXPECT_EQ(ints(~x), (Ints{-8, 6, -7}));
  EXPECT_EQ(ints((x > 0) & ~(y == 0)), (Ints{1, 0, 0}));
  EXPECT_EQ(floats(array({5.5, -5.5}) % 2), (Floats{1.5, 0.5}));
  x %= 4;
  x |= 8;
  x ^= 1;
  x &= 14;
  EXPECT_EQ(ints(x), (Ints{10, 8, 10}));
  EXPECT_TRUE(throws<owl::DTypeError>([] { return array({1}) & 1; }, "bit_and of float32"));
}

TEST(Api, ProductsAndCumulativeSums) {
  const NArray x = arange(6).reshape({2, 3}) + 1;
  EXPECT_EQ(floats(x.prod()), Floats{720});
  EXPECT_EQ(floats(x.prod(0)), (Floats{2, 12, 30}));
  EXPECT_EQ(floats(x.prod({0, 1})), Floats{720});
  EXPECT_EQ(floats(x.cumsum(0)), (Floats{1, 3, 3, 7, 5, 11}));
  EXPECT_EQ(floats(x.cumsum(-1)), (Floats{1, 2, 4, 6, 9, 12}));
  EXPECT_TRUE(throws<owl::ShapeError>([&] { return x.cumsum(2); }, "cumsum: axis 2"));
}

TEST(Api, SpreadAndTruth) {
  const NArray x = arange(6).reshape({2, 3});
  EXPECT_EQ(floats(x.var(0)), (Floats{0.25, 0.25, 0.25}));
  EXPECT_EQ(floats(x.var(0, 1)), (Floats{0.5, 0.5, 0.5}));
  EXPECT_EQ(floats(x.std({0})), (Floats{0.5, 0.5, 0.5}));
  EXPECT_NEAR(x.std().item(), std::sqrt(35.0 / 12), 1e-6);
  EXPECT_EQ(ints(x.all(0)), (Ints{0, 1, 1}));
  EXPECT_EQ(ints((x > 4).any({0, 1})), Ints{1});
  EXPECT_EQ(x.any(1).shape(), (Shape{2, 1}));
  EXPECT_NEAR(owl::logsumexp(x + 1000).item(), 1005.456193, 1e-3);
  EXPECT_EQ(owl::logsumexp(x, -1).shape(), (Shape{2, 1}));
  EXPECT_TRUE(throws<owl::ShapeError>([&] { return x.std(2); }, "std: axis 2"));
}

TEST(Api, Rearrangements) {
  const NArray x = arange(6).reshape({2, 3});
  EXPECT_EQ(owl::stack({x, x, x, x}).shape(), (Shape{4, 2, 3}));
  EXPECT_EQ(owl::stack({x, x}, -1).shape(), (Shape{2, 3, 2}));
  EXPECT_EQ(floats(owl::split(x, 3, 1)[1]), (Floats{2, 3}));
  EXPECT_EQ(owl::split(x, {1}, 1).size(), 2U);
  EXPECT_EQ(floats(owl::split(x, {1}, 1)[1]), (Floats{2, 3, 4, 5}));
  EXPECT_EQ(owl::pad(x, 1).shape(), (Shape{4, 5}));
  EXPECT_EQ(floats(owl::pad(x, {{1, 0}, {0, 1}}, 7)), (Floats{7, 0, 1, 7, 2, 3, 7, 4, 5, 7, 7, 7}));
  EXPECT_EQ(floats(owl::flip(x, 0)), (Floats{1, 0, 3, 2, 5, 4}));
  EXPECT_EQ(floats(owl::flip(x)), (Floats{5, 4, 3, 2, 1, 0}));
  EXPECT_EQ(floats(owl::roll(x, 1)), (Floats{5, 0, 1, 2, 3, 4}));
  EXPECT_EQ(floats(owl::roll(x, -1, 1)), (Floats{2, 3, 4, 5, 0, 1}));
  EXPECT_EQ(floats(owl::roll(x, {1, 1}, {0, 1})), (Floats{5, 4, 1, 0, 3, 2}));
  EXPECT_EQ(floats(owl::tile(array({1, 2}), 2)), (Floats{1, 2, 1, 2}));
  EXPECT_EQ(owl::tile(x, {1, 2, 4}).shape(), (Shape{2, 6, 4}));
  EXPECT_EQ(floats(owl::repeat(array({1, 2}), 2)), (Floats{1, 1, 2, 2}));
  EXPECT_EQ(floats(owl::repeat(x, {2, 0}, 0)), (Floats{0, 0, 2, 2, 4, 4}));
  EXPECT_TRUE(throws<owl::ShapeError>([&] { return owl::split(x, 2, 1)[0]; }, "2 equal parts"));
}

TEST(Api, ReductionsOverAnEmptyAxis) {
  const NArray x = owl::zeros({0, 2});
  EXPECT_EQ(floats(x.sum(0)), (Floats{0, 0}));
  for (const float v : floats(x.mean(0))) EXPECT_TRUE(std::isnan(v));
  EXPECT_THROW(x.max(0), owl::ShapeError);
  EXPECT_THROW(x.min(0), owl::ShapeError);
  EXPECT_THROW(x.argmax(0), owl::ShapeError);
}

TEST(Api, ArgmaxAndArgmin) {
  const NArray x = owl::from_host(Floats{1, 3, 3, 0, 7, 7}, {3, 2});
  EXPECT_EQ(x.argmax(0).dtype(), DType::kInt32);
  EXPECT_EQ(x.argmax(0).to_host<std::int32_t>(), (Ints{1, 1}));
  EXPECT_EQ(x.argmin(0).to_host<std::int32_t>(), (Ints{0, 0}));
  EXPECT_EQ(x.max_index(0).to_host<std::int32_t>(), (Ints{1, 1}));
  EXPECT_EQ(x.argmax().item(), 4);
  EXPECT_EQ(x.argmin().item(), 3);
  EXPECT_EQ(x.argmax(-1).shape(), (Shape{3, 1}));
}

TEST(Api, CountZero) { EXPECT_EQ(array({0, 1, 0, -0.0F}).count_zero(), 3); }

TEST(Api, Waiting) {
  const NArray x = arange(1000) + 1;
  x.start_eval();
  EXPECT_TRUE(x.wait_for_eval(60));
  EXPECT_TRUE(x.ready());
  EXPECT_TRUE(x.wait_for_eval());
  const owl::HoldWindow hold;
  EXPECT_FALSE((x + 1).ready());
}

// ---- elewise

TEST(Api, ElementwiseFunctions) {
  const double v = 0.3;
  const NArray x = owl::full({1}, v, DType::kFloat64);
  const auto near = [](const NArray& y, double expected) { EXPECT_NEAR(y.item(), expected, 1e-12); };
  near(ele::exp(x), std::exp(v));
  near(ele::expm1(x), std::expm1(v));
  near(ele::ln(x), std::log(v));
  near(ele::log1p(x), std::log1p(v));
  near(ele::sqrt(x), std::sqrt(v));
  near(ele::square(x), v * v);
  near(ele::abs(-x), v);
  near(ele::sign(-x), -1);
  near(ele::sin(x), std::sin(v));
  near(ele::cos(x), std::cos(v));
  near(ele::floor(x), 0);
  near(ele::ceil(x), 1);
  near(ele::erf(x), std::erf(v));
  near(ele::isnan(x), 0);
  near(ele::sigm(x), 1 / (1 + std::exp(-v)));
  near(ele::relu(-x), 0);
  near(ele::tanh(x), std::tanh(v));
  near(ele::gelu(x), v / 2 * (1 + std::erf(v / std::sqrt(2))));
  near(ele::gelu(x, false), v / 2 * (1 + std::erf(v / std::sqrt(2))));
  near(ele::gelu(x, true), v / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v))));
  near(ele::leaky_relu(-x), -0.01 * v);
  near(ele::leaky_relu(-x, 0.2), -0.2 * v);
  near(ele::elu(-x), std::expm1(-v));
  near(ele::elu(-x, 0.5), 0.5 * std::expm1(-v));
  near(ele::softplus(x), std::log1p(std::exp(v)));
  near(ele::round(x + 1.5), 2);
  near(ele::trunc(x - 1.5), -1);
  near(ele::fmod(x - 2, 0.5), std::fmod(v - 2, 0.5));
  near(ele::isinf(x), 0);
  near(ele::isfinite(x), 1);
  near(ele::exp2(x), std::exp2(v));
  near(ele::log2(x), std::log2(v));
  near(ele::log10(x), std::log10(v));
  near(ele::rsqrt(x), 1 / std::sqrt(v));
  near(ele::tan(x), std::tan(v));
  near(ele::asin(x), std::asin(v));
  near(ele::acos(x), std::acos(v));
  near(ele::atan(x), std::atan(v));
  near(ele::atan2(x, -2), std::atan2(v, -2));
  near(ele::sinh(x), std::sinh(v));
  near(ele::cosh(x), std::cosh(v));
  near(ele::silu(x), v / (1 + std::exp(-v)));
  near(ele::hard_sigmoid(x), v / 6 + 0.5);
  near(ele::hard_swish(x), v * (v / 6 + 0.5));
  near(ele::mish(x), v * std::tanh(std::log1p(std::exp(v))));
  near(ele::mult(x, x), v * v);
  near(ele::maximum(x, 1), 1);
  near(ele::minimum(x, 1), v);
  near(ele::clip(x, 0.5, 1), 0.5);
  EXPECT_THROW(ele::clip(x, 1, 0), owl::ValueError);
  near(ele::log(x), std::log(v));
  near(ele::sigmoid(x), 1 / (1 + std::exp(-v)));
  near(ele::multiply(x, 2), 2 * v);
  near(owl::exp(x), std::exp(v));
  near(owl::log(x), std::log(v));
  near(owl::leaky_relu(-x, 0.2), -0.2 * v);
  near(ele::where(x > 0, x, 7), v);
  near(ele::relu_back(2 * x, -x), 0);
  near(ele::sigm_back(2 * x, x), 2 * v * v * (1 - v));
  near(ele::tanh_back(2 * x, x), 2 * v * (1 - v * v));
  near(ele::sigm_back(x), v * (1 - v));
  near(ele::tanh_back(x), 1 - v * v);
}

// ---- conv

TEST(Api, Softmax) {
  const NArray x = owl::from_host(Floats{1000, 1000, 0, std::log(3.0F)}, {2, 2});
  const Floats y = floats(conv::softmax(x));
  EXPECT_NEAR(y[0], 0.5, 1e-6);
  EXPECT_NEAR(y[3], 0.75, 1e-6);
  EXPECT_NEAR(floats(conv::log_softmax(x))[3], std::log(0.75), 1e-6);
  const NArray z = conv::softmax(arange(8).reshape({2, 2, 2}), conv::SoftOp::kChannel);
  for (const float sum : floats(z.sum(1))) EXPECT_NEAR(sum, 1, 1e-6);
  for (const float g : floats(conv::softmax_back(owl::ones({2, 2}), conv::softmax(x)))) EXPECT_NEAR(g, 0, 1e-6);
  for (const float sum : floats(conv::softmax(z, 0).sum(0))) EXPECT_NEAR(sum, 1, 1e-6);
  for (const float sum : floats(owl::exp(conv::log_softmax(z, -1)).sum(2))) EXPECT_NEAR(sum, 1, 1e-6);
}

TEST(Api, Normalisation) {
  const NArray x = array({1, 3, 2, 6}).reshape({2, 2}), w = array({2, 1}), b = array({0, 1});
  const Floats y = floats(owl::layer_norm(x, w, b, 0));
  EXPECT_NEAR(y[0], -2, 1e-6);
  EXPECT_NEAR(y[1], 2, 1e-6);
  EXPECT_NEAR(y[3], 2, 1e-6);
  EXPECT_EQ(floats(owl::batch_norm(x, w, b, array({1, 2}), array({4, 1}), 0)), (Floats{0, 2, 1, 5}));
  const auto [mean, var] = owl::moments(x, {0});
  EXPECT_EQ(floats(mean), (Floats{2, 4}));
  EXPECT_EQ(floats(var), (Floats{1, 4}));
  EXPECT_EQ(floats(owl::moments(x, {}, 1).first), (Floats{3}));
  EXPECT_TRUE(throws<owl::ShapeError>([&] { return owl::layer_norm(x, array({1, 2, 3}), b); }, "weight has shape [3]"));
  EXPECT_TRUE(throws<owl::ValueError>([&] { return owl::layer_norm(x, w, b, -1); }, "eps"));
}

TEST(Api, Convolver) {
  const conv::Convolver c{.pad_h = 1, .pad_w = 1};
  const NArray x = arange(9).reshape({3, 3, 1, 1}), w = owl::ones({3, 3, 1, 1}), b = owl::full({1}, 0.5);
  EXPECT_EQ(floats(c.ff(x, w, b)), (Floats{8.5, 15.5, 12.5, 21.5, 36.5, 27.5, 20.5, 33.5, 24.5}));
  const NArray err = owl::ones({3, 3, 1, 1});
  EXPECT_EQ(floats(c.bp(err, x, w)), (Floats{4, 6, 4, 6, 9, 6, 4, 6, 4}));
  EXPECT_EQ(floats(c.weight_grad(err, x, w))[4], 36);
  EXPECT_EQ(floats(c.bias_grad(err)), Floats{9});
  const conv::Convolver wide{.dilation_h = 2, .dilation_w = 2, .groups = 2};
  EXPECT_EQ(wide.ff(owl::ones({5, 5, 2, 1}), owl::ones({3, 3, 1, 4}), owl::zeros({4})).shape(), (Shape{1, 1, 4, 1}));
  EXPECT_THROW((conv::Convolver{.stride_v = 0}.ff(x, w, b)), owl::ShapeError);
}

TEST(Api, Pooler) {
  const NArray x = arange(9).reshape({3, 3, 1, 1});
  const conv::Pooler max{.h = 2, .w = 2, .stride_v = 2, .stride_h = 2};
  EXPECT_EQ(floats(max.ff(x)), (Floats{4, 5, 7, 8}));
  EXPECT_EQ(floats(max.bp(owl::ones({2, 2, 1, 1}), max.ff(x), x)), (Floats{0, 0, 0, 0, 1, 1, 0, 1, 1}));
  const conv::Pooler average{.h = 2, .w = 2, .stride_v = 2, .stride_h = 2, .op = conv::PoolOp::kAverage};
  EXPECT_EQ(floats(average.ff(x)), (Floats{2, 3.5, 6.5, 8}));
  const conv::Pooler whole{.h = 2, .w = 2, .stride_v = 2, .stride_h = 2, .ceil_mode = false};
  EXPECT_EQ(floats(whole.ff(x)), Floats{4});
  EXPECT_THROW((conv::Pooler{.h = 0, .w = 1, .stride_v = 1, .stride_h = 1}.ff(x)), owl::ShapeError);
}

TEST(Api, Lrner) {
  const conv::Lrner l{.local_size = 3, .alpha = 3, .beta = 1};
  const NArray x = owl::ones({1, 1, 3, 1});
  const NArray y = l.ff(x, x);
  EXPECT_NEAR(floats(y)[0], 1.0 / 3, 1e-6);
  EXPECT_NEAR(floats(y)[1], 1.0 / 4, 1e-6);
  EXPECT_EQ(l.bp(x, y, x, x).shape(), x.shape());
  EXPECT_THROW((conv::Lrner{.local_size = 2, .alpha = 1, .beta = 1}.ff(x, x)), owl::ShapeError);
}

// ---- Settled corners

TEST(Api, ThereAreNoArraysWithoutAxes) {
  EXPECT_EQ((arange(4).reshape({2, 2})[{0, 0}]).shape(), Shape{1});
  EXPECT_THROW(owl::zeros(Shape(std::initializer_list<std::int64_t>{})), owl::ShapeError);
  for (const auto make : {+[] { return owl::zeros({}); }, +[] { return owl::randn({}); }, +[] { return owl::rand({}); },
                          +[] { return owl::randb({}, 0.5); }, +[] { return owl::from_host(Floats{}, {}); }})
    EXPECT_TRUE(throws<owl::ShapeError>(make, "owl has no 0-d arrays"));
  EXPECT_THROW(owl::zeros({std::int64_t{1} << 40, std::int64_t{1} << 40}), owl::ShapeError);
}

// ---- Devices

TEST(Api, InitializeIsHarmless) {
  owl::initialize();
  int argc = 0;
  char** argv = nullptr;
  owl::initialize(&argc, &argv);
  EXPECT_EQ(owl::ones({1}).item(), 1);
}

TEST(Api, Devices) {
  const int id = owl::create_cpu_device();
  bool found = false;
  for (const owl::DeviceInfo& d : owl::devices()) found = found || (d.id == id && d.kind == "cpu" && d.threads >= 1);
  EXPECT_TRUE(found);
  EXPECT_GE(owl::get_gpu_device_count(), 0);
  EXPECT_TRUE(throws<owl::DeviceError>([] { owl::create_gpu_device(1000); }, "GPU 1000"));
  if (!owl::has_cuda() && owl::get_gpu_device_count() == 0) {
    EXPECT_TRUE(throws<owl::DeviceError>([] { owl::create_gpu_device(0); }, "OWL_SIMULATED_GPUS"));
  }
}

TEST(Api, TheCurrentDeviceIsTheThreadsOwn) {
  const int other = owl::create_cpu_device();
  const NArray x = owl::ones({3});
  {
    const owl::DeviceScope there(other);
    EXPECT_EQ(owl::current_device(), other);
    const NArray y = x + 1;  // owl copies the operand there
    EXPECT_EQ(y.device(), other);
    EXPECT_EQ(floats(y), (Floats{2, 2, 2}));
    {
      const owl::DeviceScope back(0);
      EXPECT_EQ((x + y).device(), 0);
    }
    EXPECT_EQ(owl::current_device(), other);
    std::thread([] { EXPECT_EQ(owl::current_device(), 0); }).join();
  }
  EXPECT_EQ(owl::current_device(), 0);
  owl::set_device(other);
  EXPECT_EQ(owl::zeros({1}).device(), other);
  owl::set_device(0);
  EXPECT_TRUE(throws<owl::DeviceError>([] { const owl::DeviceScope none(-1); }, "no device -1"));
  EXPECT_EQ(owl::current_device(), 0);
}

TEST(Api, AllReduce) {
  std::vector<int> ids{0};
  for (int i = 1; i < 5; ++i) ids.push_back(owl::create_cpu_device());
  for (const std::size_t count : {1, 2, 3, 5}) {
    std::vector<NArray> parts;
    Floats total(6, 0);
    for (std::size_t i = 0; i < count; ++i) {
      const owl::DeviceScope there(ids[i]);
      parts.push_back(arange(6).reshape({2, 3}) + static_cast<double>(i));
      for (std::size_t k = 0; k < total.size(); ++k) total[k] += static_cast<float>(k + i);
    }
    const auto sums = owl::all_reduce(parts);
    ASSERT_EQ(sums.size(), count);
    for (std::size_t i = 0; i < count; ++i) {
      EXPECT_EQ(sums[i].device(), ids[i]);
      EXPECT_EQ(sums[i].shape(), (Shape{2, 3}));
      EXPECT_EQ(sums[i].to_host<float>(), total);
    }
  }
  const NArray x = owl::ones({2}), y = x.copy_to(ids[1]);
  EXPECT_TRUE(throws<owl::ValueError>([] { owl::all_reduce({}); }, "the list is empty"));
  EXPECT_TRUE(throws<owl::ShapeError>([&] { owl::all_reduce({owl::ones({3}), y}); }, "shape [3], array 1 [2]"));
  EXPECT_TRUE(throws<owl::DTypeError>([&] { owl::all_reduce({x.astype(DType::kInt32), y}); }, "int32, array 1 float32"));
  EXPECT_TRUE(throws<owl::DTypeError>([&] { owl::all_reduce({x > 0}); }, "bool"));
  EXPECT_TRUE(throws<owl::DeviceError>([&] { owl::all_reduce({x, y, x}); }, "array 0 and array 2 are both on device 0"));
  EXPECT_THROW(owl::all_reduce({x, NArray()}), owl::Error);
}

TEST(Api, WaitForAllRaisesWhatFailed) {
  const owl::Op failing("failing", owl::same_as_first, [](auto, const owl::Memory&, owl::Work&) {
    throw std::runtime_error("no luck");
  });
  const NArray x = failing(owl::ones({2})), y = x + 1, other = owl::ones({2}) + 1;
  EXPECT_TRUE(throws<owl::Error>([] { owl::wait_for_all(); }, "no luck"));
  EXPECT_TRUE(throws<owl::Error>([&] { y.wait_for_eval(); }, "no luck"));
  EXPECT_EQ(floats(other), (Floats{2, 2}));
}

TEST(Api, Memory) {
  const int id = owl::create_cpu_device();
  const owl::DeviceScope there(id);
  NArray x = owl::ones({1 << 20});
  x.wait_for_eval();
  EXPECT_GE(owl::memory_stats(id).allocated, std::size_t{4} << 20);
  EXPECT_GE(owl::memory_stats().allocated, owl::memory_stats(id).allocated);
  EXPECT_GE(owl::memory_stats(id).peak, std::size_t{4} << 20);
  x = NArray();
  owl::wait_for_all();
  owl::empty_cache();
  EXPECT_EQ(owl::memory_stats(id).cached, 0U);
  owl::set_memory_limit(1 << 20, id);
  EXPECT_EQ(owl::memory_stats(id).limit, std::size_t{1} << 20);
  const NArray large = owl::ones({1 << 20});
  EXPECT_THROW(large.wait_for_eval(), owl::OutOfMemoryError);
  owl::set_memory_limit(0, id);
  EXPECT_EQ(owl::ones({1 << 20}).sum().item(), 1 << 20);
}

TEST(Api, TraceNan) {
  owl::trace_nan();
  EXPECT_TRUE(owl::tracing_nan());
  const NArray x = ele::ln(owl::zeros({1}));
  EXPECT_THROW(x.wait_for_eval(), owl::NaNError);
  owl::trace_nan(false);
  EXPECT_FALSE(owl::tracing_nan());
  EXPECT_TRUE(std::isinf(ele::ln(owl::zeros({1})).item()));
}

// ---- Errors

TEST(Api, EveryErrorIsAnOwlError) {
  const auto is_one = []<class E>() {
    try {
      throw E("message");
    } catch (const owl::Error& e) {
      return std::string(e.what()) == "message";
    }
  };
  EXPECT_TRUE(is_one.operator()<owl::ShapeError>());
  EXPECT_TRUE(is_one.operator()<owl::DTypeError>());
  EXPECT_TRUE(is_one.operator()<owl::DeviceError>());
  EXPECT_TRUE(is_one.operator()<owl::IndexError>());
  EXPECT_TRUE(is_one.operator()<owl::DataError>());
  EXPECT_TRUE(is_one.operator()<owl::OutOfMemoryError>());
  EXPECT_TRUE(is_one.operator()<owl::NaNError>());
  EXPECT_TRUE(is_one.operator()<owl::OverflowError>());
}

}  // namespace
