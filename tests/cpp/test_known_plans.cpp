// Plans used again (plan/known_plans.h): a loop's batches are planned once, batches that would be planned differently
// have different keys, and equal keys mean equal plans.
#include <functional>
#include <map>
#include <optional>
#include <span>

#include "owl/inspect.h"
#include "plan/emit.h"
#include "plan/group.h"
#include "plan/known_plans.h"
#include "plan/layout.h"
#include "plan/order.h"
#include "plan/plan_key.h"
#include "random_graph.h"
#include "support.h"

namespace owl::test {
namespace {

using planner::Batch;
using planner::BatchPlan;
using planner::PlanKey;

BatchPlan plan_of(Batch& batch) {
  planner::group(batch);
  planner::lay_out(batch);
  return planner::emit(batch, planner::order(batch));
}

class KnownPlansTest : public ::testing::Test {
 protected:
  void SetUp() override { wait_for_all(); }

  // The key of what `record` records; the arrays that it returns are held.
  static PlanKey key_of(const std::function<std::vector<NArray>()>& record) {
    PlanKey key;
    {
      const auto held = record();
      Engine::get().with_window([&](const std::vector<Node*>& window) {
        EXPECT_TRUE(planner::write_key(Batch(window), key));
      });
    }
    wait_for_all();
    return key;
  }

  Window window_{1 << 20, -1};
  const NArray x = ramp({4, 4}), y = ramp({4, 4}, 1);
};

TEST_F(KnownPlansTest, ALoopIsPlannedOnce) {
  const Since since;
  for (int i = 1; i <= 5; ++i) {
    NArray a = ramp({2, 3}, static_cast<float>(i));
    const NArray b = (a * static_cast<double>(i) + 0.5).sum({0});
    EXPECT_EQ(values(b), (std::vector<float>{i * (2.0f * i + 1) + 1, i * (2.0f * i + 5) + 1, i * (2.0f * i + 9) + 1}));
  }
  EXPECT_EQ(since.now().plans_reused - since.before.plans_reused, 4);
}

TEST_F(KnownPlansTest, WhatAPlanTakesFromItsBatchIsNotInTheKey) {
  const auto key = key_of([&] { return std::vector{x * 2.0 + slice(y, 1, 0, 2).sum() * 3.0}; });
  EXPECT_EQ(key, key_of([&] { return std::vector{y * 5.0 + slice(x, 1, 1, 2).sum() * 7.0}; }));  // numbers and offsets
  EXPECT_FALSE(key.empty());
}

TEST_F(KnownPlansTest, WhatAPlanDependsOnIsInTheKey) {
  const NArray wide = x.astype(DType::kFloat64), row = ramp({4, 1}), large = ramp({8, 8});
  wait_for_all();
  using Arrays = std::vector<NArray>;
  const auto two_results = [&](bool values, bool places) {
    auto [sorted, order] = topk(x, 2, 0);
    return values && places ? Arrays{sorted, order} : values ? Arrays{sorted} : Arrays{order};
  };
  const std::vector<std::function<Arrays()>> all = {
      [&] { return Arrays{x + 1.0}; },
      [&] { return Arrays{x - 1.0}; },                                      // operation
      [&] { return Arrays{wide + 1.0}; },                                   // type
      [&] { return Arrays{large + 1.0}; },                                  // shape
      [&] { return Arrays{row + 1.0}; },
      [&] { return Arrays{x.trans() + 1.0}; },                              // strides
      [&] { return Arrays{slice(large, 0, 0, 4) + 1.0}; },
      [&] { return Arrays{x + y}; },                                        // which operands are one
      [&] { return Arrays{x + x}; },
      [&] { return Arrays{1.0 + x}; },                                      // their order
      [&] { return Arrays{x + row}; },
      [&] { return Arrays{x + 1.0 + 1.0}; },                                // which numbers are one
      [&] { return Arrays{x + 1.0 + 2.0}; },
      [&] { const auto a = x + 1.0; return Arrays{a, a + 2.0}; },           // what has a handle
      [&] { const auto a = x + 1.0; return Arrays{a, a.trans() + 2.0}; },
      [&] { const auto a = x + 1.0, t = a.trans(); return Arrays{a, t, t + 2.0}; },
      [&] { return Arrays{x.sum({0})}; },                                   // parameters
      [&] { return Arrays{x.sum({1})}; },
      [&] { return two_results(true, true); },                              // which results
      [&] { return two_results(true, false); },
      [&] { return two_results(false, true); },
      [&] {                                                                 // device
        static const int second = create_cpu_device();
        const int first = current_device();
        set_device(second);
        const auto made = zeros({4, 4}) + 1.0;
        set_device(first);
        return Arrays{made};
      },
      [&] { return Arrays{zeros({4, 4}) + 1.0}; },
      [&] {                                                                 // checked for NaN
        trace_nan(true);
        const auto made = x + 1.0;
        trace_nan(false);
        return Arrays{made};
      },
  };
  std::map<PlanKey, std::size_t> keys;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto key = key_of(all[i]);
    const auto [known, is_new] = keys.emplace(key, i);
    EXPECT_TRUE(is_new) << "programs " << known->second << " and " << i << " have one key";
    EXPECT_EQ(key, key_of(all[i])) << "program " << i << " has two keys";
  }
}

TEST_F(KnownPlansTest, AMemoryLimitIsInTheKey) {
  const auto key = [&] { return key_of([&] { return std::vector{x + 1.0}; }); };
  const auto without = key();
  set_memory_limit(1 << 26);
  EXPECT_NE(key(), without);
  set_memory_limit(0);
  EXPECT_EQ(key(), without);
}

TEST_F(KnownPlansTest, ABatchOfManyNumbersIsPlannedEachTime) {
  const Since since;
  for (int turn = 0; turn < 2; ++turn) {
    NArray a = x;
    for (int i = 0; i < 70; ++i) a = a + 1.0 / (1 + i);
    EXPECT_NEAR(values(a)[0], 4.8328f, 1e-3);
  }
  EXPECT_EQ(since.now().plans_reused, since.before.plans_reused);
}

// In short pieces, of which many are alike.
TEST_F(KnownPlansTest, EqualKeysHaveEqualPlans) {
  std::map<PlanKey, BatchPlan> known;
  int again = 0;
  for (unsigned seed = 0; seed < 200; ++seed) {
    RandomGraph graph(seed);
    graph.record(10 + static_cast<int>(seed % 90));
    Engine::get().with_window([&](const std::vector<Node*>& window) {
      const std::span<Node* const> all(window);
      const std::size_t most = 1 + seed % 4;
      for (std::size_t at = 0; at < all.size(); at += most) {
        Batch batch(all.subspan(at, std::min(most, all.size() - at)));
        PlanKey key;
        if (!planner::write_key(batch, key)) continue;
        auto plan = plan_of(batch);
        const auto [place, is_new] = known.emplace(key, plan);
        again += !is_new;
        EXPECT_EQ(place->second, plan) << "seed " << seed << ", operations from " << at;
      }
    });
  }
  EXPECT_GT(again, 1000);
  EXPECT_GT(known.size(), 1000u);
}

TEST_F(KnownPlansTest, AnotherPlanIsReported) {
  std::optional<BatchPlan> first;
  const auto a = x + y, b = elewise::relu(x);
  Engine::get().with_window([&](const std::vector<Node*>& window) {
    for (std::size_t i = window.size() - 2; i < window.size(); ++i) {
      Batch batch(std::span<Node* const>(window).subspan(i, 1));
      const auto plan = plan_of(batch);
      if (!first) first = plan;
      else EXPECT_THROW(planner::verify_known(*first, plan), Error);
    }
  });
  EXPECT_NO_THROW(planner::verify_known(*first, *first));
}

}  // namespace
}  // namespace owl::test
