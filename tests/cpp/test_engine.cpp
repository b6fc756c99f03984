// The runtime: waiting, lifetimes, threads, errors, devices, fork. No Python.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <chrono>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "backend/cpu/cost.h"
#include "base/ranked_mutex.h"
#include "graph/record.h"
#include "ops/nn.h"
#include "ops/user.h"
#include "runtime/scheduler.h"
#include "support.h"

namespace owl::test {
namespace {

using namespace std::chrono_literals;

#if defined(__SANITIZE_THREAD__)
constexpr bool kThreadSanitizer = true;
#else
constexpr bool kThreadSanitizer = false;
#endif

// The reason why this build cannot test a child that is forked while other threads run.
#if defined(__SANITIZE_THREAD__)
constexpr const char* kNoForkBesideThreads = "ThreadSanitizer does not follow threads started after a fork";
#elif defined(__SANITIZE_ADDRESS__)
constexpr const char* kNoForkBesideThreads =
    "AddressSanitizer's allocator does not take its locks over a fork before GCC 14: a child hangs in malloc";
#else
constexpr const char* kNoForkBesideThreads = nullptr;
#endif

// ---- locks

TEST(Engine, LocksAreTakenInOneOrder) {
  HeldRanks held;
  for (std::size_t r = 0; r < kLockRanks; ++r) {
    EXPECT_EQ(held.conflict(static_cast<LockRank>(r)), "");
    held.add(static_cast<LockRank>(r));
    for (std::size_t earlier = 0; earlier <= r; ++earlier)
      EXPECT_NE(held.conflict(static_cast<LockRank>(earlier)), "") << earlier << " after " << r;
    EXPECT_EQ(held.conflict(static_cast<LockRank>(r), true), "") << "at a fork, all of rank " << r;
  }
  for (std::size_t r = kLockRanks; r-- > 1;) held.remove(static_cast<LockRank>(r));
  EXPECT_EQ(held.conflict(LockRank::kPlanner), "");
  held.add(LockRank::kScheduler);
  EXPECT_EQ(held.conflict(LockRank::kWindow),
            "lock order: a thread takes the lock \"window (rank 2)\" while it holds \"scheduler (rank 4)\"; "
            "see LockRank in base/ranked_mutex.h");
  EXPECT_NE(held.conflict(LockRank::kWindow, true), "");
}

#ifndef NDEBUG
TEST(EngineDeathTest, ALockOutOfOrderEndsTheProcess) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  static RankedMutex<LockRank::kAllocator> one, other;
  static RankedMutex<LockRank::kScheduler> scheduler;
  EXPECT_DEATH(
      {
        const std::lock_guard first(one);
        const std::lock_guard second(scheduler);
      },
      "\"scheduler .rank 4.\" while it holds \"allocator .rank 6.\"");
  EXPECT_DEATH(
      {
        const std::lock_guard first(one);
        const std::lock_guard second(other);
      },
      "while it holds \"allocator");
  {  // as before a fork, then unlocked again
    one.lock_at_fork();
    other.lock_at_fork();
    other.unlock();
    one.unlock();
  }
  const std::lock_guard first(scheduler);
  const std::lock_guard second(one);
}
#endif

TEST(Engine, WorkStartsByItself) {
  const auto y = ramp({1000}) + 1.0;
  const auto deadline = std::chrono::steady_clock::now() + 20s;
  while (!y.ready() && std::chrono::steady_clock::now() < deadline) std::this_thread::sleep_for(1ms);
  EXPECT_TRUE(y.ready());
}

// ---- which thread runs what

bool eventually(const NArray& x) {
  const auto deadline = std::chrono::steady_clock::now() + 60s;
  while (!x.ready() && std::chrono::steady_clock::now() < deadline) std::this_thread::sleep_for(100us);
  return x.ready();
}

// When `chunks` chunks of `ns` together end, if the calling thread wakes so many others and all take chunks in turn.
double simulated_end(double ns, std::int64_t chunks, int helpers) {
  std::vector<double> free_at{cpu::cost::kWakeNs * helpers};
  for (int i = 1; i <= helpers; ++i) free_at.push_back(cpu::cost::kWakeNs * i + cpu::cost::kWakeLatencyNs);
  double end = 0;
  for (std::int64_t i = 0; i < chunks; ++i) {
    const auto next = std::ranges::min_element(free_at);
    end = std::max(end, *next += ns / static_cast<double>(chunks));
  }
  return end;
}

TEST(Engine, TheModelWakesAsManyThreadsAsPay) {
  for (const int threads : {1, 2, 8, 64})
    for (double ns = 1e3; ns < 1e9; ns *= 3)
      for (const std::int64_t chunks : {1, 2, 3, 10, 64, 1000}) {
        const int chosen = cpu::cost::helpers(ns, chunks, threads - 1);
        ASSERT_GE(chosen, 0);
        ASSERT_LE(chosen, std::min<std::int64_t>(threads, chunks) - 1);
        const double alone = simulated_end(ns, chunks, 0), end = simulated_end(ns, chunks, chosen);
        double best = alone;
        for (int k = 1; k < threads; ++k) best = std::min(best, simulated_end(ns, chunks, k));
        EXPECT_LE(end, 1.02 * alone) << ns << " ns in " << chunks << " chunks, " << chosen << " of " << threads;
        EXPECT_LE(end, 1.25 * best + 10e3) << ns << " ns in " << chunks << " chunks, " << chosen << " of " << threads;
      }
  EXPECT_EQ(cpu::cost::helpers(20e3, 2, 63), 0) << "waking takes longer";
  EXPECT_EQ(cpu::cost::helpers(1e9, 10'000, 63), 63);
  EXPECT_LT(cpu::cost::helpers(500e3, 500, 63), 32) << "each further thread costs time to wake";
}

int cpu_threads() { return devices()[0].threads; }

// All workers of the CPU sleep, and none watches the window.
void let_workers_sleep() {
  wait_for_all();
  std::this_thread::sleep_for(20ms);
}

TEST(Engine, AWaitingThreadRunsWhatIsShortItself) {
  const Window window(64, -1);
  const auto x = ramp({64 << 10});
  (x + 0.5).wait_for_eval();
  let_workers_sleep();
  const auto before = stats();
  for (int i = 0; i < 20; ++i) {
    const auto y = x + static_cast<double>(i);
    y.wait_for_eval();
    ASSERT_EQ((y[{0}]).item(), i);
  }
  EXPECT_EQ(stats().waiter_tasks - before.waiter_tasks, 20);
  EXPECT_EQ(stats().wakes, before.wakes);
}

TEST(Engine, AWaitingThreadWakesOthersForWhatIsLong) {
  const Window window(64, -1);
  const auto x = ramp({2 << 20});
  (x + 0.5).wait_for_eval();
  for (const bool with_timeout : {false, true}) {
    let_workers_sleep();
    const auto before = stats();
    const auto y = elewise::tanh(x);
    ASSERT_TRUE(y.wait_for_eval(with_timeout ? std::optional(60.0) : std::nullopt));
    const auto wakes = stats().wakes - before.wakes;
    EXPECT_GE(wakes, 1);
    EXPECT_LE(wakes, cpu_threads());
  }
}

// What a thread leaves behind when its own value is ready is for the workers.
TEST(Engine, AThreadThatNoLongerWaitsLeavesTheRestToWorkers) {
  const Window window(64, -1);
  const auto x = ramp({64 << 10}), small = ramp({4});
  for (int i = 0; i < 200; ++i) {
    std::vector<NArray> others;
    for (int k = 0; k < i % 5; ++k) others.push_back(elewise::tanh(x + static_cast<double>(i + k)));
    const auto y = small + 1.0;
    y.wait_for_eval();
    for (const auto& each : others) ASSERT_TRUE(eventually(each)) << i;
  }
}

TEST(Engine, CopiesOfLargeMemoryAreShared) {
  std::vector<float> values(16 << 20);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 1'000'003);
  (ramp({64 << 10}) + 1.0).wait_for_eval(60.0);  // starts the workers
  let_workers_sleep();
  const auto before = stats();
  const auto x = from_host(values.data(), {16 << 20}, DType::kFloat32);
  const auto wakes = stats().wakes - before.wakes;
  EXPECT_GE(wakes, cpu_threads() > 1);
  EXPECT_EQ(test::values(x), values);
  for (int round = 0; round < 5; ++round) {  // the caller may change the source at once
    std::ranges::fill(values, static_cast<float>(round));
    const auto copy = from_host(values.data(), {16 << 20}, DType::kFloat32);
    std::fill(values.rbegin(), values.rend(), -1.0f);
    ASSERT_EQ(elewise::abs(copy - static_cast<double>(round)).max().item(), 0) << round;
  }
  wait_for_all();
  EXPECT_EQ(stats().tasks_in_flight, 0);
}

TEST(Engine, AForkMayComeDuringACopy) {
  if (kNoForkBesideThreads) GTEST_SKIP() << kNoForkBesideThreads;
  const std::vector<float> values(8 << 20, 3);
  const auto x = ramp({300'000});
  (x + 1.0).wait_for_eval();
  std::atomic<bool> stop{false};
  std::thread copies([&] {
    while (!stop) from_host(values.data(), {8 << 20}, DType::kFloat32);
  });
  for (int round = 0; round < 30; ++round) {
    const pid_t child = fork();
    if (child == 0) {
      alarm(30);
      bool ok = (x + 1.0).sum().item() > 0;
      ok &= test::values(from_host(values.data(), {8 << 20}, DType::kFloat32)) == values;
      _exit(ok ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0) << "round " << round;
  }
  stop = true;
  copies.join();
}

// An operation that occupies a worker until the test opens the gate.
std::atomic<bool> gate_open{true};

NArray record_gate(const NArray& x) {
  auto params = std::make_shared<UserParams>();
  params->results = {{x.shape(), x.dtype()}};
  params->work = 1e9;
  params->run = [](const KernelArgs& args, Launch& launch) {
    launch.stage(64, [data = args.out.as<float>()](std::int64_t i) {
      while (!gate_open) std::this_thread::sleep_for(100us);
      if (i == 0) *data = 1;
    });
  };
  Node* const operand = x.node();
  return record_user(user_record("gate"), {&operand, 1}, std::move(params))[0];
}

// A worker that watched the window and then found a task must pass the watch on, because no further operation may be
// recorded.
TEST(Engine, AQuietScriptIsServedWhileAnotherDeviceIsBusy) {
  struct OpenAtEnd {
    ~OpenAtEnd() {
      gate_open = true;
      set_device(0);
    }
  } open_at_end;
  const int busy = create_cpu_device();
  const auto a = ones({1});
  for (int i = 0; i < 300; ++i) {
    set_device(busy);
    const auto x = full({1}, i);
    gate_open = false;
    const auto y = record_gate(x);
    if (i % 3) y.start_eval();
    if (i % 5 == 0) std::this_thread::sleep_for(std::chrono::microseconds(i));
    set_device(0);
    const auto z = a + static_cast<double>(i);
    ASSERT_TRUE(eventually(z)) << i;
    ASSERT_FALSE(y.ready()) << i;
    gate_open = true;
    wait_for_all();
  }
}

TEST(Engine, NodesAndStoragesEndWithTheirHandles) {
  wait_for_all();
  const auto before = stats();
  {
    auto x = ramp({100});
    for (int i = 0; i < 300; ++i) {
      x = elewise::tanh(x) + elewise::mult(x.sum(), x.reshape({10, 10}).trans().max({0, 1}));
    }
    x.wait_for_eval();
  }
  wait_for_all();
  EXPECT_EQ(stats().live_nodes, before.live_nodes);
  EXPECT_EQ(stats().live_storages, before.live_storages);
}

TEST(Engine, AMillionOperationsInAChain) {
  const int n = kThreadSanitizer ? 100'000 : 1'000'000;
  auto x = zeros({1});
  for (int i = 0; i < n; ++i) x = x + 1.0;
  EXPECT_EQ(x.item(), n);
}

// A chain that is recorded completely before planning starts is planned and released without recursion.
TEST(Engine, AMillionOperationsInOneWindow) {
  Window window(1 << 21, -1);
  const int n = kThreadSanitizer ? 50'000 : 1'000'000;
  auto x = zeros({1});
  for (int i = 0; i < n; ++i) x = x + 1.0;
  { const auto dropped = x * 2.0; }
  EXPECT_EQ(x.item(), n);
  x = zeros({1});
  for (int i = 0; i < n; ++i) x = x + 1.0;
  x = NArray();
  EXPECT_EQ(stats().window_nodes, 0);
}

TEST(Engine, TimeoutsEndAWait) {
  auto x = randn({1500, 1500});
  for (int i = 0; i < 6; ++i) x = x * x;
  EXPECT_FALSE(x.wait_for_eval(0.0));
  EXPECT_TRUE(x.wait_for_eval());
  EXPECT_TRUE(x.wait_for_eval(0.0));
}

TEST(Engine, ShapeErrorsAreRaisedAtTheLine) {
  EXPECT_THROW(ramp({3, 4}) * ramp({3, 4}), ShapeError);
  EXPECT_THROW(ramp({3, 4}) + ramp({3, 5}), ShapeError);
  EXPECT_THROW(ramp({3}).reshape({2}), ShapeError);
  EXPECT_THROW(Shape({-1}), ShapeError);
  EXPECT_THROW(NArray().shape(), Error);
  EXPECT_THROW(set_device(1000), DeviceError);
}

TEST(Engine, OutOfMemoryComesHomeAndOnlyThere) {
  const auto good = ramp({1000});
  good.wait_for_eval();
  set_memory_limit(memory_stats().allocated + (8 << 20), 0);
  const auto big = zeros({64 << 20});
  const auto after = big + 1.0;
  const auto fine = good + 1.0;
  EXPECT_THROW(big.wait_for_eval(), OutOfMemoryError);
  EXPECT_THROW(after.wait_for_eval(), OutOfMemoryError);
  EXPECT_EQ(values(fine)[1], 2.0f);
  EXPECT_THROW(wait_for_all(), OutOfMemoryError);
  set_memory_limit(0);
  EXPECT_EQ(zeros({64 << 20}).sum().item(), 0.0);
}

TEST(Engine, MemoryIsBoundedInALoopThatNeverWaits) {
  const int device = create_cpu_device();  // with a peak of its own
  set_device(device);
  auto x = zeros({1 << 16});
  for (int i = 0; i < 3000; ++i) x = elewise::tanh(x + 1.0) * 0.5;
  x.wait_for_eval();
  set_device(0);
  EXPECT_LE(memory_stats(device).allocated, std::size_t{1} << 20);
  EXPECT_LE(memory_stats(device).peak, std::size_t{4} << 20);
}

TEST(Engine, OperandsAreCopiedToTheDeviceThatComputesOnce) {
  const auto x = ramp({10});
  const int other = create_cpu_device();
  const Since since;
  std::thread([&] {
    set_device(other);
    const auto a = x + 1.0, b = x * 2.0;
    EXPECT_EQ(a.device(), other);
    EXPECT_EQ(values(a)[9], 10.0f);
    EXPECT_EQ(values(b)[9], 18.0f);
  }).join();
  EXPECT_EQ(since.copies(), 1);
  EXPECT_EQ(current_device(), 0);
}

TEST(Engine, SixteenThreadsShareArrays) {
  auto shared = ramp({257});
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 16; ++t) {
    threads.emplace_back([&, t] {
      for (int round = 0; round < 20; ++round) {
        auto mine = shared;
        for (int i = 0; i < 30; ++i) mine = mine + double(t);
        const auto total = mine.sum();
        if (values(mine)[1] != 1.0f + 30.0f * static_cast<float>(t)) ++wrong;
        if (round % 3 == 0 && total.item() <= 0) ++wrong;
      }
    });
  }
  for (auto& t : threads) t.join();
  EXPECT_EQ(wrong, 0);
}

TEST(Engine, AForkedChildGoesOnWorking) {
  if (kNoForkBesideThreads) GTEST_SKIP() << kNoForkBesideThreads;
  for (int round = 0; round < 20; ++round) {
    auto x = randn({300, 300});
    for (int i = 0; i < round; ++i) x = x * x * 0.001;  // running, queued or only recorded at the fork
    const pid_t child = fork();
    if (child == 0) {
      alarm(30);
      const bool ok = std::isfinite(x.sum().item()) && (x + 1.0).wait_for_eval();
      _exit(ok ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0) << "round " << round;
    EXPECT_TRUE(std::isfinite(x.sum().item()));
  }
}

// A forked child lacks the worker that runs host-language code, and runs that chunk again. The first fork returns the
// task to the device's queue between its two stages; the second comes while such code runs.
TEST(Engine, AForkedChildRunsTheHostsCodeAnew) {
  if (kNoForkBesideThreads) GTEST_SKIP() << kNoForkBesideThreads;
  static std::atomic<bool> in_first, in_second, first_open, second_open;
  const auto until = [](const std::atomic<bool>& flag) {
    while (!flag) std::this_thread::sleep_for(100us);
  };
  auto params = std::make_shared<UserParams>();
  params->results = {{{1}, DType::kFloat32}};
  params->work = 1e9;
  params->run = [until](const KernelArgs& args, Launch& launch) {
    launch.stage(1, [until](std::int64_t) {
      in_first = true;
      until(first_open);
    });
    launch.stage(1, [until, data = args.out.as<float>(), task = launch.task](std::int64_t) {
      const Scheduler::Outside outside(*task);
      in_second = true;
      until(second_open);
      *data = 1;
    });
  };
  const auto x = ones({1});
  Node* const operand = x.node();
  const auto y = record_user(user_record("outside"), {&operand, 1}, std::move(params))[0];
  y.start_eval();
  until(in_first);
  std::thread opener([] {
    std::this_thread::sleep_for(100ms);  // by then the fork waits for the stage
    first_open = true;
  });
  const auto status_of_child = [&](const auto& work) {
    const pid_t child = fork();
    if (child == 0) {
      alarm(20);
      _exit(work() ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return status;
  };
  EXPECT_EQ(status_of_child([] { return true; }), 0);
  opener.join();
  until(in_second);
  EXPECT_EQ(status_of_child([&] {
              second_open = true;
              const auto z = y + 1.0;
              return z.item() == 2 && (wait_for_all(), true) && (ramp({5000}) + y).sum().item() > 0;
            }), 0);
  second_open = true;
  EXPECT_EQ(y.item(), 1);
}

// Work that threads repeat while another one forks, and the child does once: each takes a lock of the engine.
struct Busy {
  const char* name;
  void (*work)();
};

const NArray& shared_value() {
  static const auto& x = *new NArray(ramp({8}));
  return x;
}

int second_device() {
  static const int id = create_cpu_device();
  return id;
}

std::string trace_path() { return testing::TempDir() + "owl_fork_" + std::to_string(getpid()) + ".json"; }

const Busy kBusy[] = {
    {"allocators", [] { for (int i = 0; i < 50; ++i) memory_stats(0), ramp({16}); }},
    {"allocator of another device", [] { memory_stats(second_device()), empty_cache(); }},
    {"recording", [] { stats(), shared_value() + 1.0; }},
    {"planning", [] { explain(); }},
    {"copies", [] {
       const DeviceScope here(second_device());
       concat(std::vector<NArray>(500, shared_value()), 0);  // needs the copy of each
     }},
    {"devices", [] { devices(); }},
    {"scheduling", [] { (shared_value() + 1.0).wait_for_eval(); }},
    {"describing", [] { describe_engine(); }},
    {"waiting for all", [] { wait_for_all(); }},
    {"a profile", [] {
       try {
         start_profile(trace_path());
         stop_profile();
       } catch (const Error&) {  // another thread's failure
       }
     }},
    {"random numbers", [] { seed(1), rand({2}); }},
    {"a user's operation", [] {
       const Op twice("twice", same_as_first, [](auto in, const Memory& out, Work& work) {
         work.stage(1, [y = out.as<float>(), x = in[0].template as<float>()](std::int64_t) { y[0] = 2 * x[0]; });
       });
       twice(shared_value());
     }},
    {"a held window", [] { HoldWindow hold; }},
    {"GPUs", [] { get_gpu_device_count(); }},
    {"convolutions", [] {
       const auto x = ramp({6, 6, 1, 1}), w = ramp({3, 3, 1, 2});
       conv::Convolver{}.ff(x, w, zeros({2})).wait_for_eval();
     }},
};

void PrintTo(const Busy& busy, std::ostream* out) { *out << busy.name; }

class ForkBeside : public testing::TestWithParam<Busy> {};

// A lock that a thread holds while another one forks would stay locked in the child, which lacks that thread.
TEST_P(ForkBeside, LeavesNoLockTaken) {
  if (kNoForkBesideThreads) GTEST_SKIP() << kNoForkBesideThreads;
  const auto work = GetParam().work;
  work();
  std::atomic<bool> end{false};
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t)
    threads.emplace_back([&] {
      while (!end) work();
    });
  int status = 0, forks = 0;
  for (; forks < 150 && status == 0; ++forks) {
    const pid_t child = fork();
    if (child == 0) {
      alarm(10);
      try {
        work();
        _exit(0);
      } catch (...) {
        _exit(1);
      }
    }
    waitpid(child, &status, 0);
  }
  end = true;
  for (auto& t : threads) t.join();
  std::remove(trace_path().c_str());
  EXPECT_EQ(status, 0) << "the child of fork " << forks << (WIFSIGNALED(status) ? " hung" : " failed");
}
INSTANTIATE_TEST_SUITE_P(Engine, ForkBeside, testing::ValuesIn(kBusy));

// The child releases windows that other threads held and keeps those of the forking thread.
TEST(Engine, AForkedChildHasTheHeldWindowsOfItsOwnThread) {
  const auto in_child = [](const std::function<bool()>& good) {
    const pid_t child = fork();
    if (child == 0) {
      alarm(30);
      _exit(good() ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return status == 0;
  };
  auto& engine = Engine::get();
  const auto limit = engine.window_limit();
  const auto idle = engine.idle_us();
  const auto open = [&] { return engine.window_limit() == limit && engine.idle_us() == idle; };
  std::atomic<int> stage{0};
  std::thread other([&] {
    HoldWindow hold;
    stage = 1;
    while (stage < 2) std::this_thread::yield();
  });
  while (stage < 1) std::this_thread::yield();
  EXPECT_FALSE(open());
  EXPECT_TRUE(in_child([&] {
    if (!open()) return false;
    HoldWindow hold;
    return !open();
  }));
  {
    HoldWindow own;
    EXPECT_TRUE(in_child([&] {
      if (open()) return false;
      own.release();
      return open();
    }));
  }
  EXPECT_FALSE(open());
  stage = 2;
  other.join();
  EXPECT_TRUE(open());
}

// The same seed and program give the same bits with any window.
TEST(Engine, BitsDoNotDependOnTheWindow) {
  std::vector<std::vector<float>> all;
  for (std::size_t count : {1, 2, 7, 1 << 20}) {
    Window window(count, count == 7 ? 0 : -1);
    seed(7);
    auto x = randn({37, 11}), w = randn({37, 37}, 0, 0.1);
    for (int i = 0; i < 20; ++i) {
      const auto h = elewise::tanh(w * x + x.mean({1}));
      x = h - 0.1 * elewise::mult(h, x) / (elewise::exp(x.max({0})) + 1.0);
      if (i % 5 == 0) x = x.trans().trans();
    }
    all.push_back(values(x));
  }
  for (auto& v : all) EXPECT_EQ(0, std::memcmp(v.data(), all[0].data(), v.size() * sizeof(float)));
}

// The precision of a GPU's product is that at recording. A CPU never rounds operands.
TEST(Engine, ThePrecisionOfProductsIsThatOfTheRecording) {
  const auto x = ramp({3, 3}), images = ramp({4, 4, 1, 1}), w = ramp({3, 3, 1, 1});
  const auto product = [](const NArray& p) {
    const auto* params = static_cast<const MatmulParams*>(p.node()->params.get());
    return params ? params->precision : MatmulPrecision::kFloat32;
  };
  const auto convolution = [&] {
    return static_cast<const ConvParams&>(*conv::Convolver{}.ff(images, w, zeros({1})).node()->params).precision;
  };
  EXPECT_EQ(matmul_precision(), MatmulPrecision::kFloat32);
  HoldWindow hold;
  const auto full = x * x;
  EXPECT_EQ(full.node()->params, nullptr);
  for (const auto precision : {MatmulPrecision::kTf32, MatmulPrecision::kBfloat16}) {
    set_matmul_precision(precision);
    const auto y = x * x;
    EXPECT_EQ(product(y), precision);
    EXPECT_EQ(product(x.astype(DType::kInt32) * x), precision) << "computed in float32";
    EXPECT_EQ(convolution(), precision);
    EXPECT_EQ((x.astype(DType::kFloat64) * x).node()->params, nullptr);
    EXPECT_EQ((x.astype(DType::kInt32) * x.astype(DType::kInt32)).node()->params, nullptr);
    set_matmul_precision(MatmulPrecision::kFloat32);
    EXPECT_EQ(product(y), precision);
    EXPECT_EQ(values(y), values(full));
  }
  EXPECT_EQ(convolution(), MatmulPrecision::kFloat32);
}

}  // namespace
}  // namespace owl::test
