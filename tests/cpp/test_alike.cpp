// Equal programs over small arrays of their own: one task, whose results are bit for bit those of many.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <ctime>
#include <functional>
#include <numeric>
#include <random>
#include <span>

#include "base/env.h"
#include "graph/record.h"
#include "ops/user.h"
#include "plan/batch_alike.h"
#include "plan/cut.h"
#include "plan/explain.h"
#include "runtime/scheduler.h"
#include "support.h"

namespace owl::test {
namespace {

struct WithoutAlike {
  WithoutAlike() { planner::batch_alike = false; }
  ~WithoutAlike() { planner::batch_alike = true; }
};

// A parameter with the state of Adam.
struct Parameter {
  NArray value, mean, square, gradient;

  void step(double rate) {
    mean = mean * 0.9 + gradient * 0.1;
    square = square * 0.999 + elewise::mult(gradient, gradient) * 0.001;
    value = value - mean * rate / (elewise::sqrt(square) + 1e-8);
  }
};

std::vector<Parameter> parameters(const std::vector<Shape>& shapes) {
  std::vector<Parameter> all;
  float start = 1;
  for (const auto& shape : shapes) {
    all.push_back({ramp(shape, start), zeros(shape), zeros(shape), ramp(shape, -start) * 0.01});
    start += 1;
  }
  wait_for_all();
  return all;
}

std::vector<float> all_values(const std::vector<Parameter>& parameters) {
  std::vector<float> all;
  for (const auto& p : parameters)
    for (const NArray* x : {&p.value, &p.mean, &p.square}) {
      const auto some = values(*x);
      all.insert(all.end(), some.begin(), some.end());
    }
  return all;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

std::vector<NArray> eight(float start = 0) {
  std::vector<NArray> all;
  for (int i = 0; i < 8; ++i) all.push_back(ramp({3 + i}, start + static_cast<float>(i)));
  wait_for_all();
  return all;
}

TEST(Alike, AnUpdateOfManyParametersIsFewTasks) {
  auto all = parameters(std::vector<Shape>(100, Shape{8, 8}));
  HoldWindow held;
  for (auto& p : all) p.step(0.01);
  const Plan plan = explain();
  ASSERT_EQ(plan.tasks.size(), 1u) << plan.str();
  EXPECT_EQ(plan.tasks[0].alike, 100);
  EXPECT_EQ(plan.tasks[0].outputs, 300);
  EXPECT_EQ(plan.tasks[0].operations.size(), 1200u);
  EXPECT_NE(plan.str().find("100 alike: mult"), std::string::npos) << plan.str();
  WithoutAlike off;
  EXPECT_EQ(explain().tasks.size(), 100u);
}

TEST(Alike, TheWindowDoesNotCutAnUpdateApart) {
  auto all = parameters(std::vector<Shape>(100, Shape{8, 8}));
  Window short_window(64, -1);
  Since since;
  for (auto& p : all) p.step(0.01);
  wait_for_all();
  EXPECT_LE(since.kernels(), 4);
  EXPECT_EQ(since.buffers(), 300);  // no intermediate was written
  EXPECT_EQ(since.in_place(), 300);
}

TEST(Alike, BitsAreThoseOfManyTasks) {
  std::vector<Shape> shapes{{64, 64}, {7}, {1}, {3, 5}, {300, 2}, {0}, {1000}, {64, 64}, {31}, {2, 2, 2}};
  for (const std::size_t window : {1u, 5u, 64u, 1u << 20}) {
    std::vector<float> results[2];
    for (const bool alike : {false, true}) {
      planner::batch_alike = alike;
      auto all = parameters(shapes);
      Window changed(window, -1);
      for (int step = 0; step < 5; ++step)
        for (std::size_t i = 0; i < all.size(); ++i) all[i].step(0.01 * static_cast<double>(1 + i));  // other constants
      results[alike] = all_values(all);
    }
    EXPECT_TRUE(same_bits(results[0], results[1])) << "window " << window;
  }
}

TEST(Alike, BroadcastOperandsAndOtherTypesKeepTheirPrograms) {
  HoldWindow held;
  std::vector<NArray> sums;
  const auto column = ramp({4, 1}), wide = ramp({4, 5});
  for (int i = 0; i < 5; ++i) sums.push_back(elewise::mult(wide + static_cast<double>(i), column));
  for (int i = 0; i < 5; ++i) sums.push_back(elewise::mult(wide + static_cast<double>(i), ramp({4, 5})));
  for (int i = 0; i < 5; ++i) sums.push_back((wide.astype(DType::kFloat64) + static_cast<double>(i)) * 9.0);
  const auto tasks = explain().tasks;
  EXPECT_EQ(tasks.size(), 3u);
  EXPECT_EQ(values(sums[2])[5], (5 + 2) * 1);
  EXPECT_EQ(values(sums[7])[5], (5 + 2) * 5);
  EXPECT_EQ(values(sums[12].astype(DType::kFloat32))[5], (5 + 2) * 9);
}

TEST(Alike, FewerThanFourRunSideBySide) {
  const auto all = eight();
  HoldWindow held;
  std::vector<NArray> sums;
  for (int i = 0; i < 3; ++i) sums.push_back(all[static_cast<std::size_t>(i)] + 1.0);
  EXPECT_EQ(explain().tasks.size(), 3u);
  sums.push_back(all[3] + 1.0);
  EXPECT_EQ(explain().tasks.size(), 1u);
}

// On this process's clock, which other processes do not disturb.
double seconds_to_explain(int operations) {
  const auto all = eight();
  HoldWindow held;
  std::vector<NArray> sums;
  for (int i = 0; i < operations; ++i) sums.push_back(all[static_cast<std::size_t>(i % 8)] + 1.0);
  double least = 1e9;
  for (int run = 0; run < 2; ++run) {
    const auto begin = std::clock();
    EXPECT_LT(explain().tasks.size(), static_cast<std::size_t>(operations / 4));
    least = std::min(least, static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC);
  }
  return least;
}

TEST(Alike, TheTimeToPlanGrowsAsTheWindow) {
  const double few = seconds_to_explain(5'000), many = seconds_to_explain(20'000);
  EXPECT_LT(many, 8 * few) << few << " s, then " << many << " s";
}

// Leaves eight sums of 8 held back: the window is too short for them.
std::vector<NArray> held_sums(const std::vector<NArray>& operands) {
  std::vector<NArray> sums;
  for (const auto& x : operands) sums.push_back(x + 1.0);
  for (int i = 0; i < 40; ++i) sums.push_back(zeros({1 + i % 2}));  // push them out of the window
  sums.resize(operands.size());
  return sums;
}

TEST(Alike, WhatIsHeldBackRunsWhenAValueIsAskedFor) {
  const auto all = eight();
  Window never(8, -1);
  Since since;
  const auto sums = held_sums(all);
  EXPECT_EQ(since.now().tasks_in_flight, 0);
  EXPECT_EQ(values(sums[5])[0], 6);
  EXPECT_EQ(values(sums[0])[2], 3);
}

TEST(Alike, WhatIsHeldBackRunsWhenTheScriptIsQuiet) {
  const auto all = eight();
  Window soon(8, 100);
  const auto sums = held_sums(all);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  const auto is_done = [&] { return sums[7].node()->storage() && sums[7].node()->storage()->ready(); };
  while (!is_done() && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  EXPECT_TRUE(is_done());
}

TEST(Alike, WhatReadsThemLetsThemGo) {
  const auto all = eight();
  Window never(8, -1);
  const auto sums = held_sums(all);
  std::vector<NArray> readers;
  for (const auto& x : sums) readers.push_back(x.sum());
  for (int i = 0; i < 60; ++i) readers.push_back(zeros({1 + i % 2}));
  wait_for_all();
  for (int i = 0; i < 8; ++i) {
    const int n = 3 + i;
    EXPECT_EQ(values(readers[static_cast<std::size_t>(i)])[0], static_cast<float>(n * i + n * (n - 1) / 2 + n));
  }
}

TEST(Alike, AChainOfThemKeepsItsOrder) {
  auto all = eight();
  Window never(4, -1);
  for (int step = 0; step < 50; ++step)
    for (auto& x : all) x = x * 0.5 + 1.0;
  for (auto& x : all) EXPECT_NEAR(values(x)[0], 2, 1e-5);
}

TEST(Alike, OnlyWhatReadsAFailureFails) {
  const auto all = eight();
  Window never(1 << 20, -1);
  std::vector<NArray> sums;
  const NArray bad = all[0].sum();
  set_fault(0, 1);
  EXPECT_THROW(bad.wait_for_eval(), Error);
  for (int i = 0; i < 8; ++i) sums.push_back((i == 3 ? bad : all[static_cast<std::size_t>(i)]) + 1.0);
  EXPECT_EQ(explain().tasks.size(), 1u);
  for (int i = 0; i < 8; ++i) {
    if (i == 3) EXPECT_THROW(sums[3].wait_for_eval(), Error);
    else EXPECT_EQ(values(sums[static_cast<std::size_t>(i)])[0], static_cast<float>(i + 1));
  }
}

TEST(Alike, WhatIsDroppedWhileItIsHeldBackIsNotComputed) {
  const auto all = eight();
  Window never(8, -1);
  auto sums = held_sums(all);
  const auto before = stats();
  sums.resize(5);
  wait_for_all();
  EXPECT_EQ(values(sums[4])[0], 5);
  std::int64_t bytes = 0;
  for (const auto& x : sums) bytes += 4 * x.size();
  EXPECT_LE(stats().bytes_written - before.bytes_written, bytes + 8 * (4 + 8));  // and of zeros that the window had
}

TEST(Alike, UnderALimitOfMemoryEachIsATask) {
  const auto all = eight();
  set_memory_limit(std::size_t{1} << 30);
  {
    HoldWindow held;
    std::vector<NArray> sums;
    for (const auto& x : all) sums.push_back(x + 1.0);
    EXPECT_EQ(explain().tasks.size(), 8u);
  }
  set_memory_limit(0);
}

std::size_t held_back() {
  std::size_t count = 0;
  Engine::get().with_window([&](const auto&) { count = Engine::get().held_back().size(); });
  return count;
}

TEST(Alike, ALimitOfMemoryLetsThemGo) {
  const auto all = eight();
  Window never(8, -1);
  for (const auto device : {std::optional<int>(), std::optional<int>(0)}) {
    const auto sums = held_sums(all);
    EXPECT_GE(held_back(), 1u);
    set_memory_limit(std::size_t{1} << 30, device);
    EXPECT_EQ(held_back(), 0u);
    set_memory_limit(0);
    EXPECT_EQ(values(sums[5])[0], 6);
  }
}

TEST(Alike, WhatIsHeldBackKeepsLittleMemory) {
  wait_for_all();
  Window never(32, -1);
  std::vector<NArray> parts;
  const auto before = memory_stats().allocated;
  for (int i = 0; i < 40; ++i) {
    const NArray large = zeros({4 << 20});
    for (int k = 0; k < 20; ++k) parts.push_back(slice(large, 0, k, 1) + 1.0);
  }
  while (stats().tasks_in_flight > 0) std::this_thread::yield();
  EXPECT_LE(memory_stats().allocated - before, std::size_t{400} << 20);  // of 640
}

TEST(Alike, FewDifferentProgramsAreHeldBack) {
  const auto all = eight();
  Window never(64, -1);
  std::vector<NArray> made;
  for (int length = 1; length < 40; ++length)
    for (const bool adds : {false, true})
      for (const auto& x : all) {
        made.push_back(x);
        for (int i = 0; i < length; ++i) made.back() = adds ? made.back() + 1.0 : made.back() * 2.0;
      }
  EXPECT_GT(held_back(), 1u);
  EXPECT_LE(held_back(), 64u);
}

TEST(Alike, AskingForOneOfThemLeavesTheWindowAsItIs) {
  const auto all = eight();
  Window never(8, -1);
  const auto sums = held_sums(all);
  const NArray later = zeros({5});
  EXPECT_EQ(stats().window_nodes, 1);
  EXPECT_EQ(values(sums[5])[0], 6);
  EXPECT_EQ(stats().window_nodes, 1);
}

TEST(Alike, ADescriptionNamesWhatIsHeldBack) {
  const auto all = eight();
  Window never(8, -1);
  const auto sums = held_sums(all);
  EXPECT_NE(describe_engine().find("task add on device 0: held back for more that are alike, 8 so far"),
            std::string::npos) << describe_engine();
}

TEST(Alike, OnlyWhatGetsNoMemoryFails) {
  const auto all = eight();
  std::vector<NArray> sums;
  {
    HoldWindow held;
    for (const auto& x : all) sums.push_back(x + 1.0);
    EXPECT_EQ(explain().tasks.size(), 1u);
    set_fault(3, 0);
    sums[0].start_eval();
  }
  for (std::size_t i = 0; i < sums.size(); ++i) {
    if (i == 2) EXPECT_THROW(sums[i].wait_for_eval(), OutOfMemoryError);
    else EXPECT_EQ(values(sums[i])[0], static_cast<float>(i + 1));
  }
}

TEST(Alike, LargeArraysAreTasksOfTheirOwn) {
  std::vector<NArray> all;
  for (int i = 0; i < 8; ++i) all.push_back(zeros({1 << 19}));
  wait_for_all();
  HoldWindow held;
  for (auto& x : all) x = x + 1.0;
  EXPECT_EQ(explain().tasks.size(), 8u);
}

// User code that waits for a value must not wait for programs that read its own task's result.
TEST(Alike, UserCodeWaitsForWhatItRecordsItself) {
  const auto all = eight();
  auto params = std::make_shared<UserParams>();
  params->results = {{Shape{4}, DType::kFloat32}};
  std::vector<NArray> inner;
  params->run = [&inner, &all](const KernelArgs& args, Launch& launch) {
    launch.stage(1, [&inner, &all, out = args.out](std::int64_t) {
      for (const auto& x : all) inner.push_back(x + 1.0);
      std::fill_n(out.as<float>(), 4, values(inner[7])[0]);
    });
  };
  Window never(1 << 20, -1);
  Node* const operand = all[0].node();
  const auto made = record_user(user_record("waits"), {&operand, 1}, std::move(params));
  std::vector<NArray> after;
  for (int i = 0; i < 8; ++i) after.push_back(made[0] + 1.0);  // alike, and all need the task above
  for (const auto& x : after) EXPECT_EQ(values(x)[0], 9);
}

TEST(Alike, AChildOfAForkComputesWhatWasHeldBack) {
  const auto all = eight();
  Window never(8, -1);
  const auto sums = held_sums(all);
  const pid_t child = fork();
  if (child == 0) _exit(values(sums[6])[0] == 7 ? 0 : 1);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(values(sums[6])[0], 7);
}

// --- where batches end

// The nodes as the window would hold them.
std::vector<Node*> nodes_of(const std::vector<NArray>& arrays) {
  std::vector<Node*> nodes;
  for (const auto& x : arrays) nodes.push_back(x.node());
  return nodes;
}

TEST(Cut, IsWhereFewestValuesCross) {
  HoldWindow held;
  std::vector<NArray> recorded;  // chains of 5 operations
  for (int chain = 0; chain < 20; ++chain) {
    NArray x = zeros({4});
    recorded.push_back(x);
    for (int i = 0; i < 4; ++i) recorded.push_back(x = x + 1.0);
  }
  const auto nodes = nodes_of(recorded);
  EXPECT_EQ(planner::cut(nodes, 64), 60u);
  EXPECT_EQ(planner::cut(nodes, 65), 65u);
  EXPECT_EQ(planner::cut(nodes, 3), 3u);  // no end of a chain is near
  EXPECT_EQ(planner::cut(nodes, 100), 100u);
  for (const Node* node : nodes) EXPECT_EQ(node->plan.index, -1);
}

TEST(Cut, OfAllIsOneAfterTheOther) {
  HoldWindow held;
  std::mt19937 random(1);
  std::vector<NArray> recorded{zeros({4}), zeros({4})};
  while (recorded.size() < 1000) {
    const auto some = [&] { return recorded[recorded.size() - 1 - random() % std::min<std::size_t>(30, recorded.size())]; };
    recorded.push_back(some() + some());
  }
  const auto nodes = nodes_of(recorded);
  std::span<Node* const> rest = nodes;
  for (const std::size_t length : planner::cut_all(nodes, 64)) {
    EXPECT_EQ(length, planner::cut(rest, 64));
    rest = rest.subspan(length);
  }
  EXPECT_TRUE(rest.empty());
  EXPECT_TRUE(planner::cut_all({}, 64).empty());
}

}  // namespace
}  // namespace owl::test
