// explain, profile and trace_nan from C++, and while other threads record.
#include <atomic>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <thread>

#include "support.h"

namespace owl::test {
namespace {

TEST(Inspect, ExplainsWhatWouldRun) {
  const auto a = ramp({4, 3});
  a.wait_for_eval();
  HoldWindow hold;
  const NArray y[] = {conv::softmax(elewise::relu(a.trans() * a + 1.0))};
  const auto plan = explain(y);
  ASSERT_EQ(plan.tasks.size(), 2u);
  EXPECT_EQ(plan.tasks[0].operations, (std::vector<std::string>{"matmul", "add", "relu"}));
  EXPECT_EQ(plan.tasks[1].operations, std::vector<std::string>{"softmax"});
  EXPECT_EQ(plan.tasks[1].after, std::vector<int>{0});
  EXPECT_EQ(plan.tasks[1].reuses, 0);
  EXPECT_FALSE(y[0].ready());
  EXPECT_NE(draw(y).find("subgraph cluster_"), std::string::npos);
  EXPECT_NE(describe_engine().find("4 operations recorded"), std::string::npos);
}

TEST(Inspect, DrawShowsParameters) {
  const auto a = ramp({4, 3});
  HoldWindow hold;
  EXPECT_NE(draw(a.sum(1)).find("label=\"sum\\nfloat32 [4, 1]\\naxes=[1], all=false"), std::string::npos) << draw(a.sum(1));
  EXPECT_NE(draw(full({2}, 0.5) + 1.0).find("value=0.5"), std::string::npos);
}

TEST(Inspect, NanErrorsComeHome) {
  trace_nan();
  const auto bad = elewise::ln(zeros({3}) - 1.0) + 1.0;
  const auto good = zeros({3}) + 2.0;
  trace_nan(false);
  EXPECT_THROW(bad.wait_for_eval(), NaNError);
  EXPECT_EQ(values(good), (std::vector<float>{2, 2, 2}));
}

// All inspection functions, while four threads record, wait and fail.
TEST(Inspect, LookingIsThreadSafe) {
  const auto path = ::testing::TempDir() + "owl_profile.json";
  std::atomic<bool> done{false};
  std::atomic<int> failed{0}, wrong{0};
  std::thread looker([&] {
    const auto x = ones({64});
    while (!done) {
      const NArray y[] = {x * 2.0 + 1.0};
      explain(y);
      draw(y);
      describe_engine();
      start_profile(path);
      { HoldWindow hold; }
      stop_profile();
    }
  });
  std::vector<std::thread> workers;
  for (int t = 0; t < 4; ++t)
    workers.emplace_back([&, t] {
      for (int i = 0; i < 60; ++i) {
        auto x = full({200, 200}, t == 3 ? 1e38 : 0.5);
        trace_nan();
        x = elewise::mult(x * x, 2.0);
        const auto good = ones({5}) + static_cast<double>(i);
        try {
          wrong += x.sum().item() != 200.0 * 200 * 200 * 0.25 * 2;
        } catch (const NaNError&) {
          ++failed;
        }
        wrong += good.sum().item() != 5.0 * (i + 1);
      }
    });
  for (auto& w : workers) w.join();
  done = true;
  looker.join();
  trace_nan(false);
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(failed, 60);  // the thread whose products overflow
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  EXPECT_TRUE(text.str().starts_with("{\"displayTimeUnit\""));
  std::remove(path.c_str());
}

}  // namespace
}  // namespace owl::test
