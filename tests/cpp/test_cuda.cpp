// The CUDA backend on the stand-in for CUDA's libraries (tests/standin): what is handed to which stream, as data; and
// that nothing is missing between streams, under random delays and ThreadSanitizer.
#ifdef OWL_STANDIN_DIR

#include <dlfcn.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include "backend/cuda/backend.h"
#include "backend/gpu.h"
#include "owl/inspect.h"
#include "support.h"

extern "C" const owl::gpu::Library owl_cuda_library;

namespace owl {
namespace {

using test::values;
using test::Window;

// The stand-in's own functions.
struct Standin {
  long long (*count)(const char* function);
  void (*fail)(const char* spec);
  void (*delay)(int us);
  void (*log)(const char* path);
};

// Opened once, in place of CUDA; with it two GPUs.
struct Gpus {
  Standin standin;
  int id[2];

  Gpus() {
    void* driver = nullptr;
    for (const char* file : {"libcuda.so.1", "libnvrtc.so.13", "libcublasLt.so.13", "libcudnn.so.9", "libnccl.so.2"}) {
      void* const library = dlopen((std::string(OWL_STANDIN_DIR) + "/" + file).c_str(), RTLD_NOW | RTLD_LOCAL);
      if (!library) throw std::runtime_error(dlerror());
      if (!driver) driver = library;
    }
    standin.count = reinterpret_cast<long long (*)(const char*)>(dlsym(driver, "standin_count"));
    standin.fail = reinterpret_cast<void (*)(const char*)>(dlsym(driver, "standin_fail"));
    standin.delay = reinterpret_cast<void (*)(int)>(dlsym(driver, "standin_delay"));
    standin.log = reinterpret_cast<void (*)(const char*)>(dlsym(driver, "standin_log"));
    gpu::use_library(owl_cuda_library);
    for (int i = 0; i < 2; ++i) id[i] = create_gpu_device(i);
  }
};
const Gpus& gpus() {
  static const Gpus* const all = new Gpus;
  return *all;
}

struct OnDevice {
  explicit OnDevice(int id) { set_device(id); }
  ~OnDevice() { set_device(0); }
};

// What the stand-in is asked for from construction on, a line each; allocations are left out.
class Log {
 public:
  Log() : path_(std::filesystem::temp_directory_path() / ("owl-standin-" + std::to_string(getpid()))) {
    std::filesystem::remove(path_);
    gpus().standin.log(path_.c_str());
  }
  ~Log() {
    gpus().standin.log("");
    std::filesystem::remove(path_);
  }
  std::vector<std::string> lines() const {
    std::vector<std::string> all;
    std::ifstream file(path_);
    for (std::string line; std::getline(file, line);)
      if (line.find("alloc") == std::string::npos) all.push_back(line);
    return all;
  }
  // Those that hold the text.
  std::vector<std::string> lines(const std::string& text) const {
    std::vector<std::string> some;
    for (auto& line : lines())
      if (line.find(text) != std::string::npos) some.push_back(line);
    return some;
  }
  std::ptrdiff_t place(const std::string& text) const {
    const auto all = lines();
    return std::find_if(all.begin(), all.end(), [&](auto& l) { return l.find(text) != std::string::npos; }) -
           all.begin();
  }

 private:
  std::filesystem::path path_;
};

// Number behind "event" in a line.
int event_in(const std::string& line) {
  const auto at = line.find("event ");
  return at == std::string::npos ? -1 : std::atoi(line.c_str() + at + 6);
}

TEST(Cuda, EveryKernelHasAnEntry) {
  for (const OpRecord* op : all_ops())
    if (op->cls == OpRecord::Class::kKernel && !op->copies_in && !op->joins_devices) {
      EXPECT_NE(cuda::find_kernel(op->name), nullptr) << op->name;
    }
}

TEST(Cuda, APlanIsFewLaunches) {
  OnDevice on(gpus().id[0]);
  Window held(1 << 20, -1);
  const NArray w = randn({10, 784}), x = randn({784, 32}), b = randn({10, 1});
  wait_for_all();
  Log log;
  const NArray y = conv::softmax(elewise::relu(w * x + b) * 2.0);
  y.wait_for_eval();
  EXPECT_EQ(log.lines("launch").size(), 2u);  // the program behind the product, softmax
  EXPECT_EQ(log.lines("launch owl_program").size(), 1u);
  EXPECT_EQ(log.lines("matmul").size(), 1u);
  EXPECT_LT(log.place("matmul"), log.place("owl_program"));
  EXPECT_LT(log.place("owl_program"), log.place("softmax"));
  EXPECT_TRUE(log.lines("copy").empty());
  EXPECT_EQ(log.lines("record").size(), 1u);
}

// Kernels and calls of the compute stream, by name; what goes between streams is left out.
std::vector<std::string> computed(const Log& log) {
  std::vector<std::string> names;
  for (std::string line : log.lines()) {
    line = line.substr(line.find(": ") + 2);
    if (line.starts_with("launch ")) names.push_back(line.substr(7, line.find(" blocks") - 7));
    else if (line.starts_with("matmul ")) names.push_back(line.substr(0, line.find(" float32")));
    else if (line.find("event") == std::string::npos) names.push_back(line);
  }
  return names;
}

// A step of a network with one hidden layer: activations and gradients stay on the card, what is elementwise runs behind
// the product that it needs, and nothing is copied.
TEST(Cuda, ATrainingStepAsData) {
  OnDevice on(gpus().id[0]);
  Window held(1 << 20, -1);
  const NArray x = randn({20, 16}), t = rand({5, 16});
  NArray w1 = randn({8, 20}), b1 = zeros({8, 1}), w2 = randn({5, 8}), b2 = zeros({5, 1});
  wait_for_all();
  Log log;
  {
    const NArray h = elewise::relu(w1 * x + b1), y = conv::softmax(w2 * h + b2), e = (y - t) / 16.0;
    const NArray eh = elewise::relu_back(w2.trans() * e, h);
    w2 = w2 - (e * h.trans()) * 0.1;
    b2 = b2 - e.sum({1}) * 0.1;
    w1 = w1 - (eh * x.trans()) * 0.1;
    b1 = b1 - eh.sum({1}) * 0.1;
  }
  wait_for_all();
  const std::vector<std::string> want = {
      "matmul 8x16x20",  "owl_program",       // h, behind its product
      "matmul 5x16x8",   "owl_program",       // the scores
      "owl_softmax",                          // y, and behind it e
      "matmul 8x16x5",   "owl_program",       // eh
      "matmul 5x8x16",   "owl_program",       // the new w2
      "owl_fold_columns",                     // the new b2
      "matmul 8x20x16",  "owl_program",       // the new w1
      "owl_fold_columns",                     // the new b1
  };
  EXPECT_EQ(computed(log), want);
  EXPECT_EQ(log.lines("record").size(), 1u);  // one list, one event behind it
  EXPECT_TRUE(log.lines("wait").empty());
}

TEST(Cuda, ElementwiseOperationsBecomePartOfAReduction) {
  OnDevice on(gpus().id[0]);
  Window held(1 << 20, -1);
  const NArray x = randn({300, 40});
  wait_for_all();
  Log log;
  const NArray y = elewise::exp((x * 2.0 + 1.0).sum({0})) - 1.0;
  y.wait_for_eval();
  EXPECT_EQ(log.lines("launch").size(), 1u);
}

TEST(Cuda, UploadsHaveAStreamOfTheirOwn) {
  OnDevice on(gpus().id[0]);
  gpus().standin.delay(20'000);
  bool waited = false;
  for (int i = 0; i < 20 && !waited; ++i) {  // the copy may be through before anybody needs to wait for it
    wait_for_all();
    Log log;
    const std::vector<float> data(1000, 2);
    const NArray y = from_host(data.data(), {1000}, DType::kFloat32) + 1.0;
    EXPECT_EQ(values(y), std::vector<float>(1000, 3));
    const auto in = log.lines("HtoD"), launch = log.lines("launch"), out = log.lines("DtoH");
    ASSERT_EQ(in.size(), 1u);
    ASSERT_EQ(launch.size(), 1u);
    ASSERT_EQ(out.size(), 1u);
    EXPECT_NE(in[0].substr(0, 16), launch[0].substr(0, 16));
    EXPECT_NE(out[0].substr(0, 16), launch[0].substr(0, 16));
    // An event is recorded behind the copy; the launch comes after a wait for it.
    const auto all = log.lines();
    const auto copied = log.place("HtoD"), launched = log.place("launch");
    ASSERT_LT(copied + 1, launched);
    const auto& recorded = all[static_cast<std::size_t>(copied) + 1];
    EXPECT_NE(recorded.find("record"), std::string::npos);
    for (auto k = copied; k < launched; ++k) {
      const auto& line = all[static_cast<std::size_t>(k)];
      waited |= line.find("wait") != std::string::npos && event_in(line) == event_in(recorded);
    }
  }
  EXPECT_TRUE(waited);
  gpus().standin.delay(0);
}

TEST(Cuda, GpusCopyToEachOther) {
  NArray x;
  {
    OnDevice on(gpus().id[0]);
    x = arange(0, 5000, 1, DType::kFloat32) * 2.0;
    wait_for_all();
  }
  Log log;
  OnDevice on(gpus().id[1]);
  const NArray y = x + 1.0;
  const auto v = values(y);
  for (std::size_t i = 0; i < v.size(); ++i) ASSERT_EQ(v[i], 2 * static_cast<float>(i) + 1);
  EXPECT_EQ(log.lines("peer copy").size(), 1u);
  EXPECT_EQ(log.lines("HtoD").size(), 0u);
}

NArray step(const NArray& w, const NArray& x, const NArray& t) {
  const NArray y = elewise::sigm(w * x);
  return w - (elewise::sigm_back(y - t, y) * x.trans()) * 0.1;
}

TEST(Cuda, LoopsBecomeGraphs) {
  OnDevice on(gpus().id[0]);
  const NArray data = randn({20, 400}), target = rand({5, 400});
  const NArray start = randn({5, 20});
  const auto run = [&](int steps) {
    NArray w = start;
    for (int i = 0; i < steps; ++i) {
      w = step(w, slice(data, 1, i % 40 * 10, 10), slice(target, 1, i % 40 * 10, 10));
      w.wait_for_eval();
    }
    return values(w);
  };
  eager(true);
  const auto want = run(60);
  eager(false);
  const Stats before = stats();
  EXPECT_EQ(run(60), want);
  const Stats after = stats();
  EXPECT_GT(after.graph_replays - before.graph_replays, 40);
  EXPECT_LT(after.graph_captures - before.graph_captures, 12);
}

TEST(Cuda, MemoryThatRunsOutIsAnErrorOfTheValue) {
  OnDevice on(gpus().id[0]);
  const NArray x = randn({1000});
  x.wait_for_eval();
  empty_cache();
  gpus().standin.fail("cuMemAlloc:1:2,cuMemAlloc:2:2,cuMemAlloc:3:2,cuMemAlloc:4:2,cuMemAlloc:5:2,cuMemAlloc:6:2");
  const NArray y = concat({x, x, x}, 0);
  EXPECT_THROW(y.wait_for_eval(), OutOfMemoryError);
  gpus().standin.fail("");
  EXPECT_EQ(values(x + 0.0).size(), 1000u);
}

TEST(Cuda, AMissingFeatureIsAnErrorOfTheValue) {
  OnDevice on(gpus().id[0]);
  const NArray a = randn({31, 17}), b = randn({17, 13});
  gpus().standin.fail("cublasLtMatmulAlgoGetHeuristic:1:15");
  const NArray y = a * b;
  try {
    y.wait_for_eval();
    ADD_FAILURE() << "no error";
  } catch (const DeviceError& e) {
    EXPECT_NE(std::string(e.what()).find("cuBLASLt"), std::string::npos) << e.what();
  }
  gpus().standin.fail("");
  EXPECT_EQ(values(a * b).size(), 31u * 13u);
}

// A script's life on several devices from several threads: uploads, work, copies between devices, downloads, memory
// that goes and comes back. Every value is compared with the CPU's. A missing event shows as a wrong value, or as a
// race.
void live(unsigned seed, int rounds) {
  std::mt19937 random(seed);
  const int devices[] = {gpus().id[0], gpus().id[1], 0};
  std::vector<std::pair<NArray, std::vector<float>>> pool;
  for (int i = 0; i < rounds; ++i) {
    set_device(devices[random() % 3]);
    const auto n = static_cast<std::int64_t>(1 + random() % 3000);
    if (pool.size() < 3 || random() % 4 == 0) {
      std::vector<float> v(static_cast<std::size_t>(n));
      for (auto& x : v) x = static_cast<float>(random() % 1000);
      pool.emplace_back(from_host(v.data(), {n}, DType::kFloat32), v);
      std::fill(v.begin(), v.end(), -1.0f);  // the array has its own copy
    }
    const auto at = random() % pool.size();
    auto [x, v] = pool[at];
    const auto number = static_cast<double>(random() % 7);
    switch (random() % 4) {
      case 0:
        x = x + number;
        for (auto& e : v) e += static_cast<float>(number);
        break;
      case 1:
        x = elewise::abs(x * 0.5);
        for (auto& e : v) e = std::abs(e * 0.5f);
        break;
      case 2: {
        const auto& [y, u] = pool[random() % pool.size()];
        if (y.size() != x.size()) break;
        x = x - y;
        for (std::size_t k = 0; k < v.size(); ++k) v[k] -= u[k];
        break;
      }
      default: {
        x = concat({x, x}, 0);
        const auto once = v;
        v.insert(v.end(), once.begin(), once.end());
      }
    }
    if (x.size() > 20000) continue;
    if (random() % 3 == 0)
      pool[at] = {x, v};
    else
      pool.emplace_back(x, v);
    if (random() % 5 == 0) {
      ASSERT_EQ(values(x), v) << "seed " << seed << ", round " << i;
    }
    if (pool.size() > 8) pool.erase(pool.begin() + static_cast<std::ptrdiff_t>(random() % pool.size()));
  }
  for (auto& [x, v] : pool) ASSERT_EQ(values(x), v) << "seed " << seed;
  set_device(0);
}

void live_on_threads(unsigned seed, int delay_us) {
  gpus().standin.delay(delay_us);
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 3; ++t) threads.emplace_back([=] { live(100 * t + seed, 120); });
  for (auto& thread : threads) thread.join();
  gpus().standin.delay(0);
}

TEST(Cuda, NothingIsMissingBetweenStreams) {
  live_on_threads(0, 0);
  live_on_threads(1, 200);
}

// Under a limit memory is reused that the GPU is not through with.
TEST(Cuda, NothingIsMissingWhereMemoryIsShort) {
  empty_cache();
  for (const int id : gpus().id) set_memory_limit(memory_stats(id).allocated + 3'000'000, id);
  live_on_threads(2, 300);
  for (const int id : gpus().id) set_memory_limit(0, id);
}

TEST(Cuda, LibrariesAndDelays) {
  gpus().standin.delay(100);
  std::vector<float> want;
  for (const int device : {0, gpus().id[0], gpus().id[1]}) {
    OnDevice on(device);
    seed(9);
    NArray w = randn({8, 30});
    for (int i = 0; i < 12; ++i) {
      std::vector<float> v(300, static_cast<float>(i) / 10);
      const NArray x = from_host(v.data(), {30, 10}, DType::kFloat32);
      w = w - (elewise::tanh(w * x) * x.trans()) * 0.01;
    }
    const auto got = values(w);
    if (device == 0) want = got;
    for (std::size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], want[i], 1e-4) << device;
  }
  gpus().standin.delay(0);
}

// A minibatch shared between two GPUs, the gradients summed by NCCL.
TEST(Cuda, GpusTrainTogether) {
  gpus().standin.delay(100);
  const auto calls = gpus().standin.count("ncclAllReduce");
  std::vector<float> data(20 * 16), start(4 * 20);
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<float>(i % 17) / 17 - 0.5f;
  for (std::size_t i = 0; i < start.size(); ++i) start[i] = static_cast<float>(i % 5) / 5 - 0.4f;
  const auto train = [&](std::vector<int> devices) {
    const auto share = 16 / static_cast<std::int64_t>(devices.size());
    std::vector<NArray> w;
    for (const int device : devices) {
      OnDevice on(device);
      w.push_back(from_host(start.data(), {4, 20}, DType::kFloat32));
    }
    for (int step = 0; step < 10; ++step) {
      std::vector<NArray> gradients;
      for (std::size_t d = 0; d < devices.size(); ++d) {
        OnDevice on(devices[d]);
        const NArray x =
            from_host(data.data() + static_cast<std::int64_t>(d) * share * 20, {20, share}, DType::kFloat32);
        gradients.push_back(elewise::tanh(w[d] * x) * x.trans());
      }
      gradients = all_reduce(gradients);
      for (std::size_t d = 0; d < devices.size(); ++d) {
        OnDevice on(devices[d]);
        w[d] = w[d] - gradients[d] * 0.01;
      }
    }
    std::vector<std::vector<float>> all;
    for (auto& each : w) all.push_back(values(each));
    return all;
  };
  const auto alone = train({0}), together = train({gpus().id[0], gpus().id[1]});
  EXPECT_EQ(together[0], together[1]);
  for (std::size_t i = 0; i < start.size(); ++i) EXPECT_NEAR(together[0][i], alone[0][i], 1e-5);
  EXPECT_EQ(gpus().standin.count("ncclAllReduce") - calls, 20);
  gpus().standin.delay(0);
}

}  // namespace
}  // namespace owl

#endif
