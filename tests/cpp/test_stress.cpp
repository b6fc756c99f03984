// Sixteen threads on shared arrays. Checks values, and above all that ThreadSanitizer reports nothing
// (configure with -DOWL_SANITIZE=thread).
#include <atomic>
#include <cstring>
#include <functional>
#include <mutex>
#include <random>
#include <thread>

#include "support.h"

namespace owl::test {
namespace {

constexpr int kThreads = 16;

// Runs work(0) ... work(15) at the same time; counts those that threw or returned false.
int failures_of(const std::function<bool(int)>& work) {
  std::atomic<int> failed{0}, arrived{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      ++arrived;
      while (arrived < kThreads) std::this_thread::yield();
      try {
        if (!work(t)) ++failed;
      } catch (const std::exception& e) {
        ADD_FAILURE() << "thread " << t << ": " << e.what();
        ++failed;
      }
    });
  }
  for (auto& t : threads) t.join();
  return failed;
}

bool same(const NArray& x, const std::vector<float>& want) {
  const auto got = values(x);
  return got.size() == want.size() && std::memcmp(got.data(), want.data(), got.size() * sizeof(float)) == 0;
}

// Everything below is computed from these by every thread; no thread has waited for `pending`.
struct Shared {
  NArray x = ramp({24, 20}, -200) * 0.01;
  NArray w = ramp({20, 24}, -100) * 0.02;
  NArray pending = elewise::tanh(x * w) + x.sum({1});
  NArray image = ramp({10, 9, 3, 4}, -500) * 0.001;
  NArray kernel = ramp({3, 3, 3, 5}, -60) * 0.01;
  NArray bias = ramp({5});
  conv::Convolver convolver{1, 1, 1, 1};
};

// An expression, chosen by `kind`.
NArray compute(const Shared& s, int kind) {
  switch (kind % 12) {
    case 0: return s.pending + 1.0;
    case 1: return s.x * s.w;
    case 2: return s.pending.trans() * s.x;
    case 3: return s.pending.sum({0}) + s.pending.max({1}).trans();
    case 4: return conv::softmax(s.pending);
    case 5: return s.convolver.ff(s.image, s.kernel, s.bias);
    case 6: return s.convolver.weight_grad(s.convolver.ff(s.image, s.kernel, s.bias), s.image, s.kernel);
    case 7: return s.pending.reshape({48, 12}).trans() * 2.0;
    case 8: return concat({s.x, s.x * 3.0}, 1);
    case 9: return slice(s.pending, 1, 3, 7) - s.bias.sum();
    case 10: return conv::Pooler(2, 2, 2, 2).ff(s.image);
    default: return elewise::mult(s.pending, s.pending.trans()).mean();
  }
}

TEST(Stress, ThreadsComputeAlikeFromSharedArrays) {
  const Shared shared;
  std::vector<std::vector<float>> want;
  for (int kind = 0; kind < 12; ++kind) want.push_back(values(compute(Shared(), kind)));
  EXPECT_EQ(0, failures_of([&](int t) {
    bool good = true;
    for (int i = 0; i < 36; ++i) {
      const auto y = compute(shared, t + i);
      if (i % 4 == 0) y.start_eval();
      if (i % 5 == 0) y.wait_for_eval(1e-5);
      good &= same(y, want[static_cast<std::size_t>((t + i) % 12)]);
    }
    return good;
  }));
}

TEST(Stress, ThreadsCopyBetweenDevices) {
  const int devices[] = {0, create_cpu_device(), create_cpu_device()};
  const Shared shared;
  std::vector<std::vector<float>> want;
  for (int kind = 0; kind < 12; ++kind) want.push_back(values(compute(Shared(), kind)));
  EXPECT_EQ(0, failures_of([&](int t) {
    bool good = true;
    for (int i = 0; i < 24; ++i) {
      set_device(devices[(t + i) % 3]);
      const auto y = compute(shared, t + i);
      set_device(devices[(t + i + 1) % 3]);
      good &= same(y * 1.0, want[static_cast<std::size_t>((t + i) % 12)]);
      good &= same(y.copy_to(devices[i % 3]), want[static_cast<std::size_t>((t + i) % 12)]);
    }
    set_device(0);
    return good;
  }));
}

// Threads put arrays into a common pool, take others' out, compute from them, and drop them at any moment.
TEST(Stress, ThreadsPassArraysOn) {
  wait_for_all();
  const auto before = stats();
  {
    std::mutex mutex;
    std::vector<NArray> pool(8, ramp({30, 30}));
    EXPECT_EQ(0, failures_of([&](int t) {
      std::mt19937 random(static_cast<unsigned>(t));
      for (int i = 0; i < 120; ++i) {
        NArray a, b;
        {
          const std::lock_guard lock(mutex);
          a = pool[random() % pool.size()];
          b = pool[random() % pool.size()];
        }
        NArray made;
        switch (random() % 6) {
          case 0: made = elewise::maximum(a, b.trans()); break;
          case 1: made = a * b * 1e-4; break;
          case 2: made = a + b.mean({0}); break;
          case 3: made = elewise::clip(a, -1000.0, 1000.0); break;
          case 4: made = ramp({30, 30}, static_cast<float>(t)); break;
          default: made = a.reshape({900}).reshape({30, 30}) - 0.5; break;
        }
        if (random() % 8 == 0) made.wait_for_eval();
        if (random() % 16 == 0) made.ready();
        const std::lock_guard lock(mutex);
        pool[random() % pool.size()] = made;
      }
      return true;
    }));
    for (auto& x : pool) EXPECT_EQ(values(x).size(), 900u);
  }
  wait_for_all();
  EXPECT_EQ(stats().live_nodes, before.live_nodes);
  EXPECT_EQ(stats().live_storages, before.live_storages);
}

TEST(Stress, ThreadsWaitCountAndChangeSettings) {
  const Shared shared;
  const auto want = values(compute(Shared(), 0));
  EXPECT_EQ(0, failures_of([&](int t) {
    for (int i = 0; i < 30; ++i) {
      const auto y = shared.pending + 1.0;
      switch (t % 6) {
        case 0: wait_for_all(); break;
        case 1: stats(); break;
        case 2: memory_stats(); break;
        case 3: empty_cache(); break;
        case 4: set_window(static_cast<std::size_t>(1 + i % 70), i % 3 ? 100 : -1); break;
        default: devices(); break;
      }
      if (!same(y, want)) return false;
    }
    return true;
  }));
  set_window(64, 100);
}

// Threads that import data and compute, under a limit of a fraction of what all of them record.
TEST(Stress, ThreadsShareAMemoryLimit) {
  const int device = create_cpu_device();
  const std::size_t limit = 8 << 20;
  set_memory_limit(limit, device);
  std::atomic<bool> done{false};
  std::atomic<int> above{0};
  std::thread watch([&] {
    while (!done) {
      const auto now = memory_stats(device);
      if (now.allocated + now.cached > limit) ++above;
      std::this_thread::yield();
    }
  });
  EXPECT_EQ(0, failures_of([&](int t) {
    set_device(device);
    bool good = true;
    std::vector<NArray> sums;
    for (int i = 0; i < 20; ++i) sums.push_back((ramp({100, 100}, static_cast<float>(t)) * 2.0).trans().max());
    for (auto& s : sums) good &= s.item() == 2.0 * (9999 + t);
    return good;
  }));
  done = true;
  watch.join();
  EXPECT_EQ(above, 0);
}

TEST(Stress, FailuresReachEveryThreadThatReads) {
  const int device = create_cpu_device();
  set_memory_limit(1 << 20, device);
  set_device(device);
  const auto failing = zeros({1 << 20}) + 1.0;
  const auto fine = ramp({100});
  set_device(0);
  EXPECT_EQ(0, failures_of([&](int t) {
    set_device(device);
    for (int i = 0; i < 20; ++i) {
      const auto y = failing.reshape({1 << 10, 1 << 10}).sum({t % 2}) * 2.0;
      try {
        y.wait_for_eval();
        return false;
      } catch (const OutOfMemoryError&) {
      }
      if (values(fine + 1.0)[0] != 1.0f) return false;
    }
    return true;
  }));
  set_memory_limit(0, device);
}

// Operations, data and copies of several threads under a limit that makes them wait for each other's memory.
TEST(Stress, ATightLimit) {
  const int device = create_cpu_device();
  const NArray elsewhere = ramp({64, 64}, -2000) * 1e-4;
  elsewhere.wait_for_eval();
  const std::vector<float> data(64 * 64, 0.5f);
  set_memory_limit(std::size_t{kThreads} * 10 * 64 * 64 * sizeof(float), device);
  const auto compute = [&](int i) {
    const NArray x = from_host(data, {64, 64});
    return ((elewise::exp(x * (0.01 * i)) * elsewhere).trans() * x).sum({0}).max();
  };
  const auto run = [&](int t) {
    set_device(device);
    std::vector<NArray> results;
    for (int i = 0; i < 20; ++i) results.push_back(compute(t + i));
    std::vector<double> found;
    for (auto& r : results) found.push_back(r.item());
    for (int i = 0; i < 20; ++i)
      if (compute(t + i).item() != found[static_cast<std::size_t>(i)]) return false;
    return true;
  };
  EXPECT_EQ(failures_of(run), 0);
  wait_for_all();
  const auto stats = memory_stats(device);
  EXPECT_LE(stats.peak, stats.limit);
}

}  // namespace
}  // namespace owl::test
