// Operations with an effect: none is dropped, and those of one token run in the order in which they were recorded.
#include <atomic>
#include <chrono>
#include <functional>
#include <mutex>
#include <thread>

#include "base/failure.h"
#include "graph/record.h"
#include "ops/user.h"
#include "plan/explain.h"
#include "plan/task.h"
#include "support.h"

namespace owl::test {
namespace {

// What ran, by the order in which it was recorded.
struct Log {
  std::mutex mutex;
  std::vector<std::uint64_t> sequences;
  std::atomic<int> inside{0}, together{0};

  void note(std::uint64_t sequence) {
    if (++inside > 1) ++together;
    {
      const std::lock_guard lock(mutex);
      sequences.push_back(sequence);
    }
    std::this_thread::yield();
    --inside;
  }
};

Results infer(std::span<Node* const>, const Params* params) {
  return Results(static_cast<const UserParams&>(*params).results);
}

const OpRecord op_note{.name = "note",
                       .doc = "notes in a log that it runs; x + 1",
                       .arity = -1,
                       .infer = infer,
                       .runs_user_code = true,
                       .effect = true};

NArray note(const NArray& x, Log& log, EffectToken& token, bool fails = false) {
  auto params = std::make_shared<UserParams>();
  params->results = {{x.shape(), DType::kFloat32}};
  params->work = 1e6;
  params->run = [&log, fails](const KernelArgs& args, Launch& launch) {
    EXPECT_EQ(args.in.back().shape.size(), 0);
    EXPECT_EQ(args.results.back().shape.size(), 0);
    launch.stage(1, [&log, fails, n = args.in[0].shape.size(), in = args.in[0].as<float>(),
                     out = args.results[0].as<float>(), sequence = launch.task->sequence](std::int64_t) {
      log.note(sequence);
      if (fails) throw Error("note: it fails");
      for (std::int64_t i = 0; i < n; ++i) out[i] = in[i] + 1;
    });
  };
  Node* const operand = x.node();
  return record_effect(op_note, {&operand, 1}, std::move(params), token)[0];
}

bool eventually(const std::function<bool()>& holds) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!holds() && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  return holds();
}

void expect_in_order(const Log& log, std::size_t count) {
  EXPECT_EQ(log.sequences.size(), count);
  EXPECT_TRUE(std::ranges::is_sorted(log.sequences)) << ::testing::PrintToString(log.sequences);
  EXPECT_EQ(log.together, 0);
}

TEST(Effects, RunThoughNoHandleIsLeft) {
  Window held(1 << 20, -1);
  Log log;
  const auto x = ramp({4});
  wait_for_all();
  const auto before = stats();
  {
    EffectToken token;
    note(x + 1.0, log, token);
    note(note(x, log, token), log, token);
    x + 2.0;  // without an effect: dropped
    EXPECT_EQ(Engine::get().prune(), 4u);
    EXPECT_EQ(explain().tasks.size(), 4u);
  }
  wait_for_all();
  expect_in_order(log, 3);
  EXPECT_EQ(stats().tasks_skipped, before.tasks_skipped);
  EXPECT_TRUE(eventually([&] { return stats().live_nodes == before.live_nodes; }));
  EXPECT_TRUE(eventually([&] { return stats().live_storages == before.live_storages; }));
}

// The results are dropped when their tasks wait for an operand already.
TEST(Effects, AreNotGivenUp) {
  Window held(1 << 20, -1);
  std::atomic<bool> go{false};
  Log log;
  auto params = std::make_shared<UserParams>();
  params->results = {{{4}, DType::kFloat32}};
  params->run = [&go](const KernelArgs&, Launch& launch) {
    launch.stage(1, [&go](std::int64_t) {
      while (!go) std::this_thread::yield();
    });
  };
  {
    EffectToken token;
    auto slow = record(user_record("slow"), std::span<Node* const>(), std::move(params));
    auto result = note(slow, log, token), last = note(result, log, token);
    Engine::get().flush(0, false);
    slow = result = last = {};
  }
  go = true;
  wait_for_all();
  expect_in_order(log, 2);
}

TEST(Effects, OfOneTokenRunInRecordedOrder) {
  constexpr int kThreads = 8, kEach = 100;
  const int devices[] = {create_cpu_device(), create_cpu_device()};
  Log log;
  EffectToken token;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      set_device(devices[t % 2]);
      const auto x = ramp({16});
      for (int i = 0; i < kEach; ++i) {
        const NArray kept = note(x * 2.0, log, token);
        if (i % 10 == 0) {
          EXPECT_EQ(values(kept)[3], 7);
        }
      }
    });
  for (auto& thread : threads) thread.join();
  wait_for_all();
  expect_in_order(log, kThreads * kEach);
}

TEST(Effects, OfTwoTokensAreNotOrdered) {
  Window held(1 << 20, -1);
  Log log;
  EffectToken one, other;
  const auto x = ramp({4});
  note(x, log, one);
  note(x, log, one);
  note(x, log, other);
  const auto plan = explain();
  ASSERT_EQ(plan.tasks.size(), 3u);
  EXPECT_EQ(plan.tasks[1].after, std::vector<int>{0});
  EXPECT_EQ(plan.tasks[2].after, std::vector<int>{});
  EXPECT_EQ(plan.tasks[0].shape, (Shape{4}));
  wait_for_all();  // `log` must outlive them
}

// One that fails keeps none behind it from running, and is told of though no handle is left.
TEST(Effects, AFailureIsRaisedOnceAndStopsNoOther) {
  for (const bool together : {true, false}) {
    Window held(together ? 1 << 20 : 1, -1);
    Log log;
    EffectToken token;
    const auto x = ramp({4});
    const NArray first = note(x, log, token), second = note(x, log, token, true), third = note(x, log, token);
    note(second, log, token);  // is not run: it has no operand
    const NArray last = note(x, log, token);
    EXPECT_EQ(values(first)[0], 1);
    EXPECT_THROW(second.wait_for_eval(), Error);
    EXPECT_EQ(values(third)[0], 1);
    EXPECT_EQ(values(last)[0], 1);
    expect_in_order(log, 4);
  }
}

TEST(Effects, AFailureThatAWaitHasRaisedIsNotRaisedAgain) {
  Log log;
  EffectToken token;
  const auto x = ramp({4});
  wait_for_all();
  EXPECT_THROW(note(x, log, token, true).wait_for_eval(), Error);
  wait_for_all();
  EXPECT_EQ(values(note(x, log, token))[0], 1);
  wait_for_all();
  expect_in_order(log, 2);
}

TEST(Effects, AFailureWithoutAHandleIsRaisedByTheWaitForAll) {
  Log log;
  EffectToken token;
  const auto x = ramp({4});
  wait_for_all();
  note(x, log, token, true);
  for (int i = 0; i < 3; ++i) note(x, log, token);
  note(x, log, token, true);
  try {
    wait_for_all();
    FAIL() << "the failure is lost";
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "note: it fails");
    const auto* carrier = dynamic_cast<const FailureCarrier*>(&e);
    ASSERT_NE(carrier, nullptr);
    EXPECT_STREQ(carrier->failure->op, "note");
    EXPECT_EQ(carrier->failure->sequence, log.sequences.front());
  }
  note(x, log, token);
  wait_for_all();
  expect_in_order(log, 6);
}

TEST(Effects, RunAtOnceWhereAllDo) {
  Log log;
  EffectToken token;
  const auto x = ramp({4});
  eager();
  note(x, log, token);
  EXPECT_EQ(log.sequences.size(), 1u);
  note(x, log, token);
  EXPECT_EQ(log.sequences.size(), 2u);
  eager(false);
}

}  // namespace
}  // namespace owl::test
