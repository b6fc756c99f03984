// What it costs to wake a sleeping thread, and how long it takes until that thread runs: kWakeNs and kWakeLatencyNs of
// cpp/backend/cpu/cost.h. Prints medians in nanoseconds, after the thread has slept for several times.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

double ns_between(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration<double, std::nano>(end - begin).count();
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

// A thread that sleeps until it is called.
class Sleeper {
 public:
  ~Sleeper() {
    call(true);
    thread_.join();
  }

  // Nanoseconds of the call, and until the thread runs.
  std::pair<double, double> wake() {
    runs_ = false;
    const auto begin = Clock::now();
    call(false);
    const auto called = Clock::now();
    while (!runs_.load(std::memory_order_acquire)) {
    }
    return {ns_between(begin, called), ns_between(begin, woken_)};
  }

 private:
  void call(bool stop) {
    {
      const std::lock_guard lock(mutex_);
      called_ = true;
      stop_ = stop;
    }
    condition_.notify_one();
  }

  void work() {
    std::unique_lock lock(mutex_);
    while (!stop_) {
      condition_.wait(lock, [&] { return called_; });
      woken_ = Clock::now();
      called_ = false;
      runs_.store(true, std::memory_order_release);
    }
  }

  std::mutex mutex_;
  std::condition_variable condition_;
  bool called_ = false, stop_ = false;
  std::atomic<bool> runs_{false};
  Clock::time_point woken_;
  std::thread thread_{[this] { work(); }};
};

}  // namespace

int main() {
  Sleeper sleeper;
  for (const int slept_us : {20, 100, 1000}) {
    std::vector<double> costs, latencies;
    for (int i = 0; i < 1000; ++i) {
      std::this_thread::sleep_for(std::chrono::microseconds(slept_us));
      const auto [cost, latency] = sleeper.wake();
      costs.push_back(cost);
      latencies.push_back(latency);
    }
    std::printf("asleep for %4d us: to wake it %6.0f, until it runs %6.0f\n", slept_us, median(costs), median(latencies));
  }
}
