// The registry is complete: every operation has a unique name, documentation, inference and a kernel.
#include <map>
#include <set>
#include <typeinfo>

#include "backend/cpu/kernels.h"
#include "backend/cpu/tile.h"
#include "graph/op.h"
#include "graph/record.h"
#include "ops/add_views.h"
#include "ops/concat.h"
#include "ops/create.h"
#include "ops/nn.h"
#include "ops/norm.h"
#include "ops/records.h"
#include "ops/reduce.h"
#include "ops/scan.h"
#include "ops/sort.h"
#include "ops/take.h"
#include "ops/user.h"
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
      const bool of_floats = op->rule != TypeRule::kInteger, of_integers = op->rule != TypeRule::kFloat;
      for (const DType type : {DType::kFloat32, DType::kFloat64})
        EXPECT_EQ(cpu::tile_function(op->code, type) != nullptr, of_floats) << name(type);
      for (const DType type : {DType::kInt32, DType::kInt64})
        EXPECT_EQ(cpu::tile_function(op->code, type) != nullptr, of_integers) << name(type);
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

// --- parameters

using AnyParams = std::shared_ptr<const Params>;

template <class P, class... Edits> std::vector<AnyParams> variants(const P& first, Edits... edits) {
  std::vector<AnyParams> all{std::make_shared<P>(first)};
  const auto add = [&](auto edit) {
    auto other = std::make_shared<P>(first);
    edit(*other);
    all.push_back(std::move(other));
  };
  (add(edits), ...);
  return all;
}

// The operation as it is recorded, and its parameters: each differs from the first in one field. None: it has none.
struct Example {
  NArray recorded;
  std::vector<AnyParams> params;
};

std::vector<AnyParams> of_create(CreateParams::Names names) {
  CreateParams first({3}, DType::kFloat32, names, 0.25, 0.5);
  first.random = true;
  const auto other_b = [](auto& p) { (p.names[1] ? p.b : p.a) = 3; };
  return variants(first, [](auto& p) { p.shape = {4}; }, [](auto& p) { p.dtype = DType::kFloat64; },
                  [](auto& p) { p.a = 2; }, other_b, [](auto& p) { p.seed = 1; }, [](auto& p) { p.call = 1; },
                  [](auto& p) { p.random = false; });
}

std::vector<AnyParams> of_conv() {
  const auto edit = [](auto member) { return [member](auto& p) { p.convolver.*member += 1; }; };
  using C = conv::Convolver;
  return variants(ConvParams({}, {6, 5, 4, 2}), edit(&C::pad_h), edit(&C::pad_w), edit(&C::stride_v),
                  edit(&C::stride_h), edit(&C::dilation_h), edit(&C::dilation_w), edit(&C::groups),
                  [](auto& p) { p.result = {6, 5}; }, [](auto& p) { p.precision = MatmulPrecision::kTf32; });
}

std::vector<AnyParams> of_pool() {
  const auto edit = [](auto member) { return [member](auto& p) { p.pooler.*member += 1; }; };
  using P = conv::Pooler;
  return variants(PoolParams({2, 2, 2, 2}, {6, 5, 4, 2}), edit(&P::h), edit(&P::w), edit(&P::stride_v),
                  edit(&P::stride_h), edit(&P::pad_h), edit(&P::pad_w), [](auto& p) { p.x = {6, 5}; },
                  [](auto& p) { p.pooler.op = conv::PoolOp::kAverage; }, [](auto& p) { p.pooler.ceil_mode = false; });
}

std::vector<AnyParams> of_views() {
  AddViewsParams first({4, 4});
  first.places = {{1, Strides{1}}};
  return variants(first, [](auto& p) { p.whole = {4, 5}; }, [](auto& p) { p.onto = true; },
                  [](auto& p) { p.places[0].first = 2; }, [](auto& p) { p.places[0].second = {4}; });
}

std::vector<AnyParams> of_indices() {
  return variants(CheckIndicesParams(), [](auto& p) { p.what = "take"; }, [](auto& p) { p.length = 3; },
                  [](auto& p) { p.axis = 1; }, [](auto& p) { p.from_end = false; });
}

std::vector<AnyParams> of_sort() {
  return variants(SortParams(0, 4, false), [](auto& p) { p.axis = 1; }, [](auto& p) { p.count = 3; },
                  [](auto& p) { p.largest_first = true; });
}

NArray in_tf32(const NArray& a, const NArray& b) {
  set_matmul_precision(MatmulPrecision::kTf32);
  NArray product = matmul(a, b);
  set_matmul_precision(MatmulPrecision::kFloat32);
  return product;
}

std::map<std::string, Example> examples() {
  const NArray x = ramp({6, 5, 4, 2}), m = ramp({4, 4}), w = ramp({3, 3, 4, 8}), b = ramp({8});
  const NArray places = from_host({0, 1, 2, 3}, {4});
  const conv::Convolver convolver;
  const conv::Pooler pooler{2, 2, 2, 2};
  const conv::Lrner lrner{3, 0.5, 0.75};
  const NArray y = convolver.ff(x, w, b), pooled = pooler.ff(x);
  const auto reduce = variants(ReduceParams(0b011, false), [](auto& p) { p.axes = 0b111; }, [](auto& p) { p.all = true; });
  const auto soft = variants(SoftmaxParams(0, 3), [](auto& p) { p.first = 1; }, [](auto& p) { p.count = 1; });
  const auto local = variants(LrnParams(lrner), [](auto& p) { p.lrner.local_size = 5; },
                              [](auto& p) { p.lrner.alpha = 1; }, [](auto& p) { p.lrner.beta = 1; });
  const auto precision = variants(MatmulParams(MatmulPrecision::kTf32),
                                  [](auto& p) { p.precision = MatmulPrecision::kBfloat16; },
                                  [](auto& p) { p.precision = MatmulPrecision::kFloat32; });
  const auto norm = variants(NormParams(1e-5), [](auto& p) { p.eps = 1; });
  const auto axis = variants(ConcatParams(0), [](auto& p) { p.axis = 1; });
  return {{"full", {full({3}, 2), of_create({"value"})}},
          {"arange", {arange(0, 5), of_create({"start", "step"})}},
          {"rand", {rand(Shape{3}), of_create({"low", "high"})}},
          {"randn", {randn(Shape{3}), of_create({"mu", "sigma"})}},
          {"randb", {randb({3}, 0.5), of_create({"probability"})}},
          {"copy", {dense(m.trans()), {}}},
          {"concat", {concat({m, m}, 0), axis}},
          {"place_views", {add_views({}, {{ramp({2}), 1, Strides{1}}}, {4, 4}), of_views()}},
          {"add_views", {add_views(m, {{ramp({2}), 1, Strides{1}}}, {4, 4}), of_views()}},
          {"check_indices", {record(op_check_indices, {places.node()}, of_indices()[0]), of_indices()}},
          {"take", {take(m, places, 0), variants(TakeParams(0), [](auto& p) { p.axis = 1; })}},
          {"put_add", {put_add(m, places, m, 0), variants(TakeParams(0), [](auto& p) { p.axis = 1; })}},
          {"sort", {sort(m), of_sort()}},
          {"sum", {x.sum(), reduce}},
          {"mean", {x.mean(), reduce}},
          {"moments", {moments(x).second, variants(MomentsParams(0b011, false, 0), [](auto& p) { p.axes = 0b111; },
                                                   [](auto& p) { p.all = true; }, [](auto& p) { p.correction = 1; })}},
          {"prod", {x.prod(), reduce}},
          {"max", {x.max(), reduce}},
          {"min", {x.min(), reduce}},
          {"argmax", {x.argmax(), reduce}},
          {"argmin", {x.argmin(), reduce}},
          {"count_zero", {record(op_count_zero, {x.node()}, reduce[0]), reduce}},
          {"cumsum", {x.cumsum(0), variants(ScanParams(0, false), [](auto& p) { p.axis = 1; }, [](auto& p) { p.backwards = true; })}},
          {"matmul", {in_tf32(m, m), precision}},
          {"softmax", {conv::softmax(x), soft}},
          {"log_softmax", {conv::log_softmax(x), soft}},
          {"softmax_back", {conv::softmax_back(x, x), soft}},
          {"log_softmax_back", {record(op_log_softmax_back, {x.node(), x.node()}, soft[0]), soft}},
          {"layer_norm", {layer_norm(m, ramp({4}), ramp({4})), norm}},
          {"layer_norm_back", {record_all(op_layer_norm_back, std::vector{m.node(), m.node(), ramp({4}).node()}, norm[0])[0], norm}},
          {"conv", {y, of_conv()}},
          {"conv_back_data", {convolver.bp(y, x, w), of_conv()}},
          {"conv_back_weight", {convolver.weight_grad(y, x, w), of_conv()}},
          {"conv_back_bias", {convolver.bias_grad(y), {}}},
          {"pool", {pooled, of_pool()}},
          {"pool_back", {pooler.bp(pooled, pooled, x), of_pool()}},
          {"lrn", {lrner.ff(x, x), local}},
          {"lrn_back", {lrner.bp(x, x, x, x), local}},
          {"device_copy", {m.copy_to(create_cpu_device()), {}}}};
}

void expect_told_apart(const std::vector<AnyParams>& variants) {
  std::set<std::string> keys;
  for (const auto& params : variants) EXPECT_TRUE(keys.insert(key_of(params.get())).second) << key_of(params.get());
}

TEST(Registry, ParametersAreVisitedAndToldApart) {
  Window held(1 << 20, -1);
  const auto all = examples();
  for (const OpRecord* op : all_ops()) {
    if (op->cls != OpRecord::Class::kKernel || op->joins_devices) continue;
    SCOPED_TRACE(op->name);
    ASSERT_TRUE(all.contains(op->name)) << "needs an example here";
    const auto& [recorded, variants] = all.at(op->name);
    const Node& result = *recorded.node();
    const Node& node = result.op ? result : *result.base;  // which has several results
    ASSERT_EQ(node.op, op);
    if (variants.empty()) {
      EXPECT_EQ(node.params, nullptr) << "has parameters: " << text_of(node.params.get());
      continue;
    }
    ASSERT_NE(node.params, nullptr);
    const Params &is = *node.params, &expected = *variants[0];
    EXPECT_EQ(typeid(is), typeid(expected));
    EXPECT_NE(text_of(&is), "");
    expect_told_apart(variants);
  }
}

TEST(Registry, ParametersOfUsersOperationsAreToldApart) {
  UserParams first;
  first.results = {{{3}, DType::kFloat32}};
  static const int code = 0;
  const auto all = variants(first, [](auto& p) { p.results[0].shape = {4}; },
                            [](auto& p) { p.results[0].dtype = DType::kBool; },
                            [](auto& p) { p.results.push_back(p.results[0]); }, [](auto& p) { p.work = 1; },
                            [](auto& p) { p.code = &code; });
  expect_told_apart(all);
  EXPECT_EQ(text_of(all.front().get()), text_of(all.back().get()));  // an address is no text
}

TEST(Registry, ParametersAsText) {
  EXPECT_EQ(text_of(nullptr), "");
  const ReduceParams reduce(0b101, false);
  EXPECT_EQ(text_of(&reduce), "axes=[0, 2], all=false");
  const CreateParams created({2, 3}, DType::kFloat64, {"low", "high"}, 0.1, 1e300);
  EXPECT_EQ(text_of(&created), "shape=[2, 3], dtype=float64, low=0.1, high=1e+300");
  const SoftmaxParams soft(conv::SoftOp::kChannel, 4);
  EXPECT_EQ(text_of(&soft), "first=2, count=1");
  const MatmulParams precision(MatmulPrecision::kTf32);
  EXPECT_EQ(text_of(&precision), "precision=tf32");
}

}  // namespace
}  // namespace owl::test
