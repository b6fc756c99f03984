// Operations with several results: each is a separate array, and a result without handle or reader is not computed.
#include <atomic>
#include <chrono>
#include <functional>
#include <thread>

#include "graph/record.h"
#include "ops/user.h"
#include "plan/explain.h"
#include "support.h"

namespace owl::test {
namespace {

std::atomic<int> runs{0};
std::atomic<unsigned> wanted{0};  // bit i: the kernel's last run had to compute result i

// Of x [n]: x + 1 [n], twice x as [1, n], and whether x > 1 [n] (with a bool of another byte than 0 and 1).
std::vector<NArray> record_three(const NArray& x) {
  const auto n = x.shape().size();
  auto params = std::make_shared<UserParams>();
  params->results = {{x.shape(), DType::kFloat32}, {Shape{1, n}, DType::kFloat32}, {x.shape(), DType::kBool}};
  params->work = 1e6;
  params->run = [n](const KernelArgs& args, Launch& launch) {
    unsigned asked = 0;
    for (std::size_t i = 0; i < args.results.size(); ++i) asked |= (args.results[i].data ? 1u : 0u) << i;
    wanted = asked;
    launch.stage(1, [n, in = args.in[0].as<float>(), out = args.results](std::int64_t) {
      ++runs;
      for (std::int64_t i = 0; i < n; ++i) {
        if (out[0].data) out[0].as<float>()[i] = in[i] + 1;
        if (out[1].data) out[1].as<float>()[i] = 2 * in[i];
        if (out[2].data) out[2].as<std::uint8_t>()[i] = in[i] > 1 ? 7 : 0;
      }
    });
  };
  Node* const operand = x.node();
  return record_user(user_record("three"), {&operand, 1}, std::move(params));
}

// A worker releases a task's storages a moment after the task has ended.
bool eventually(const std::function<bool()>& holds) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!holds() && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  return holds();
}
bool storages_are(std::int64_t n) {
  return eventually([n] { return stats().live_storages == n; });
}

TEST(Results, EachIsAnArrayOfItsOwn) {
  const auto x = ramp({4});
  const int before = runs;
  auto all = record_three(x);
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[1].shape(), (Shape{1, 4}));
  EXPECT_EQ(all[2].dtype(), DType::kBool);
  EXPECT_EQ(values(all[0]), (std::vector<float>{1, 2, 3, 4}));
  EXPECT_EQ(values(all[1]), (std::vector<float>{0, 2, 4, 6}));
  EXPECT_EQ(values(all[2].astype(DType::kFloat32)), (std::vector<float>{0, 0, 1, 1}));
  EXPECT_EQ(all[2].sum().item(), 2);
  EXPECT_EQ(runs, before + 1);
  EXPECT_EQ(wanted, 0b111u);
}

TEST(Results, WhatReadsThemIsFusedAroundThem) {
  Window held(1 << 20, -1);
  const auto x = ramp({4}) + 1.0;
  const auto all = record_three(x);
  const auto y = (all[0] + all[1].reshape({4})) * 2.0, z = all[1].trans() * all[1];  // a view, and a product
  EXPECT_EQ(values(y), (std::vector<float>{8, 14, 20, 26}));
  EXPECT_EQ(z.shape(), (Shape{4, 4}));
  EXPECT_EQ(values(z)[5], 16);
}

TEST(Results, WhatIsDroppedBeforeItRunsIsNotComputed) {
  Window held(1 << 20, -1);
  const auto x = ramp({1 << 16});
  wait_for_all();
  const auto before = stats();
  auto all = record_three(x);
  const NArray kept = all[1];
  all.clear();
  EXPECT_EQ(explain().tasks.at(0).outputs, 1);
  EXPECT_EQ(kept.reshape({1 << 16})[3].item(), 6);
  EXPECT_EQ(wanted, 0b010u);
  EXPECT_EQ(stats().buffers_written, before.buffers_written + 1);
  EXPECT_TRUE(storages_are(before.live_storages + 1));
}

TEST(Results, WithoutHandlesNothingRuns) {
  Window held(1 << 20, -1);
  const auto x = ramp({4});
  wait_for_all();
  const auto before = stats();
  const int ran = runs;
  record_three(x);
  wait_for_all();
  EXPECT_EQ(runs, ran);
  EXPECT_TRUE(eventually([&] { return stats().live_nodes == before.live_nodes; }));
  EXPECT_TRUE(storages_are(before.live_storages));
}

TEST(Results, TheMemoryOfEachGoesWithItsLastHandle) {
  const auto x = ramp({1 << 16});
  wait_for_all();
  const auto before = stats();
  auto all = record_three(x);
  wait_for_all();
  EXPECT_TRUE(storages_are(before.live_storages + 3));
  NArray view = all[0].reshape({256, 256});
  all.erase(all.begin());
  EXPECT_TRUE(storages_are(before.live_storages + 3));
  view = {};
  EXPECT_TRUE(storages_are(before.live_storages + 2));
  all.clear();
  EXPECT_TRUE(storages_are(before.live_storages));
  EXPECT_TRUE(eventually([&] { return stats().live_nodes == before.live_nodes; }));
}

TEST(Results, AFailureIsEveryResults) {
  auto params = std::make_shared<UserParams>();
  params->results = {{Shape{2}, DType::kFloat32}, {Shape{3}, DType::kInt32}};
  params->run = [](const KernelArgs&, Launch& launch) {
    launch.stage(1, [](std::int64_t) { throw ValueError("no such number"); });
  };
  const auto x = ramp({4});
  Node* const operand = x.node();
  const auto all = record_user(user_record("failing"), {&operand, 1}, std::move(params));
  for (const NArray& result : all) EXPECT_THROW((result + 1.0).wait_for_eval(), ValueError);
  for (const NArray& result : all) EXPECT_THROW(result.wait_for_eval(), ValueError);
}

TEST(Results, OnAnotherDevice) {
  const int other = create_cpu_device();
  const auto x = ramp({4});
  const auto all = record_three(x);
  set_device(other);
  const auto sum = all[0] + all[1].reshape({4});  // copies of results
  const auto there = record_three(x);             // computed on that device
  set_device(0);
  EXPECT_EQ(sum.device(), other);
  EXPECT_EQ(values(sum), (std::vector<float>{1, 4, 7, 10}));
  EXPECT_EQ(there[1].device(), other);
  EXPECT_EQ(values(there[1]), (std::vector<float>{0, 2, 4, 6}));
}

// Threads record, read and drop results while others plan and run them.
TEST(Results, DroppedByThreadsWhileTheyAreComputed) {
  wait_for_all();
  const auto before = stats();
  {
    const auto x = ramp({64});
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t)
      threads.emplace_back([&, t] {
        for (int i = 0; i < 500; ++i) {
          auto all = record_three(x);
          const auto drop = static_cast<std::size_t>((i + t) % 3);
          if (i % 2) all[(drop + 1) % 3].start_eval();
          all[drop] = {};
          const NArray& kept = all[(drop + 1) % 3];
          const auto y = (kept.dtype() == DType::kBool ? kept.astype(DType::kFloat32) : kept).sum();
          if (i % 3 == 0 && y.item() != (drop == 2 ? 64 * 65 / 2 : drop == 0 ? 64 * 63 : 62)) ++wrong;
        }
      });
    for (auto& t : threads) t.join();
    EXPECT_EQ(wrong, 0);
  }
  wait_for_all();
  EXPECT_TRUE(eventually([&] { return stats().live_nodes == before.live_nodes; }));
  EXPECT_TRUE(storages_are(before.live_storages));
}

}  // namespace
}  // namespace owl::test
