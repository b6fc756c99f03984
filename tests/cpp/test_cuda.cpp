// The CUDA backend on the stand-in for CUDA's libraries (tests/standin): the calls on each stream, as data; and that no
// event between streams is missing, under random delays and ThreadSanitizer.
#ifdef OWL_STANDIN_DIR

#include <dlfcn.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <thread>

#include "backend/cuda/backend.h"
#include "backend/cuda/kernels.h"
#include "backend/gpu.h"
#include "owl/inspect.h"
#include "owl/op.h"
#include "runtime/engine.h"
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

// Opened once, in place of CUDA, with two GPUs.
struct Gpus {
  Standin standin;
  int id[2];
  void* library = nullptr;

  Gpus() {
    void* driver = nullptr;
    for (const char* file : {"libcuda.so.1", "libnvrtc.so.13", "libcublasLt.so.13", "libcudnn.so.9", "libnccl.so.2"}) {
      void* const library = dlopen((std::string(OWL_STANDIN_DIR "/") + file).c_str(), RTLD_NOW | RTLD_LOCAL);
      if (!library) throw std::runtime_error(dlerror());
      if (!driver) driver = library;
    }
    library = driver;
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

// Calls a function of the driver as another library of the process would.
#define DRIVER_TEXT(NAME) #NAME
#define DRIVER_NAME(NAME) DRIVER_TEXT(NAME)  // after cuda.h's macros
#define DRIVER(NAME) reinterpret_cast<decltype(&::NAME)>(dlsym(gpus().library, DRIVER_NAME(NAME)))

struct OnDevice {
  explicit OnDevice(int id) { set_device(id); }
  ~OnDevice() { set_device(before); }
  const int before = current_device();
};

// The calls of the stand-in since construction, a line each, without allocations.
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
  // The lines that contain the text.
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

// Simulates another library on a separate thread, with GPU 0 current, until `done`.
class Neighbour {
 public:
  explicit Neighbour(std::function<void(const std::atomic<bool>& done)> f)
      : thread_([this, f = std::move(f)] {
          CUcontext context = nullptr;
          ASSERT_EQ(DRIVER(cuDevicePrimaryCtxRetain)(&context, 0), CUDA_SUCCESS);
          ASSERT_EQ(DRIVER(cuCtxSetCurrent)(context), CUDA_SUCCESS);
          f(done_);
        }) {}
  ~Neighbour() {
    done_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> done_{false};
  std::thread thread_;
};

// The number after "event" in a line.
int event_in(const std::string& line) {
  const auto at = line.find("event ");
  return at == std::string::npos ? -1 : std::atoi(line.c_str() + at + 6);
}

TEST(Cuda, EveryKernelHasAnEntry) {
  for (const OpRecord* op : all_ops())
    if (op->cls == OpRecord::Class::kKernel && !op->copies_in && !op->joins_devices) {
      EXPECT_NE(cuda::find_kernel(*op), nullptr) << op->name;
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
  EXPECT_EQ(log.lines("launch").size(), 2u);  // the program after the product, softmax
  EXPECT_EQ(log.lines("launch owl_program").size(), 1u);
  EXPECT_EQ(log.lines("matmul").size(), 1u);
  EXPECT_LT(log.place("matmul"), log.place("owl_program"));
  EXPECT_LT(log.place("owl_program"), log.place("softmax"));
  EXPECT_TRUE(log.lines("copy").empty());
  EXPECT_EQ(log.lines("record").size(), 1u);
}

// Kernels and calls of the compute stream, by name, without synchronization.
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

// A step of a network with one hidden layer: activations and gradients stay on the GPU, elementwise operations run
// after the product that they need, and nothing is copied.
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
      "matmul 8x16x20",  "owl_program",       // h, after its product
      "matmul 5x16x8",   "owl_program",       // the scores
      "owl_softmax",                          // y, and after it e
      "matmul 8x16x5",   "owl_program",       // eh
      "matmul 5x8x16",   "owl_program",       // the new w2
      "owl_fold_columns",                     // the new b2
      "matmul 8x20x16",  "owl_program",       // the new w1
      "owl_fold_columns",                     // the new b1
  };
  EXPECT_EQ(computed(log), want);
  EXPECT_EQ(log.lines("record").size(), 1u);  // one list, one event after it
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
  for (int i = 0; i < 20 && !waited; ++i) {  // the copy may end before a thread needs to wait for it
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
    // An event is recorded after the copy; the launch follows a wait for it.
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

// Memory aligned to 4 bytes is copied by another path than memory aligned to 16.
TEST(Cuda, GraphsCopyOperandsThatBeginAnywhere) {
  OnDevice on(gpus().id[0]);
  const NArray data = randn({7, 400}), target = randn({5, 400}), start = randn({5, 7});
  for (const int width : {3, 4, 16}) {
    const auto run = [&](int steps) {
      NArray w = start;
      for (int i = 0; i < steps; ++i) {
        w = step(w, slice(data, 1, i % 20 * width + 1, width), slice(target, 1, i % 20 * width + 1, width));
        w.wait_for_eval();
      }
      return values(w);
    };
    eager(true);
    const auto want = run(30);
    eager(false);
    const Stats before = stats();
    EXPECT_EQ(run(30), want) << width;
    EXPECT_GT(stats().graph_replays - before.graph_replays, 10) << width;
  }
}

// A library may wait for owl's exported stream at any time; if a list has no library call, also for the whole GPU.
TEST(Cuda, OthersWaitWhileGraphsAreMade) {
  const int id = gpus().id[0];
  OnDevice on(id);
  auto& backend = *Engine::get().device(id).backend;
  const auto stream = reinterpret_cast<CUstream>(backend.stream());
  const NArray data = randn({20, 400}), target = rand({5, 400}), start = randn({5, 20});
  const auto run = [&](bool with_products) {
    NArray w = start;
    for (int i = 0; i < 40; ++i) {
      const NArray x = slice(data, 1, i % 40 * 10, 10), t = slice(target, 1, i % 40 * 10, 10);
      if (with_products) {
        w = step(w, x, t);
      } else {
        const NArray a = conv::softmax(w), b = conv::softmax(a + 1.0), c = conv::softmax(b * 2.0);
        w = w + conv::softmax(c - a);
      }
      w.wait_for_eval();
    }
    return values(w);
  };
  for (const bool with_products : {true, false}) {
    eager(true);
    const auto want = run(with_products);
    eager(false);
    const Stats before = stats();
    {
      Log log;
      EXPECT_EQ(run(with_products), want);
      const auto captures = log.lines("begin capture"), launches = log.lines("graph launch");
      EXPECT_EQ(captures.empty(), !with_products);  // owl's kernels need no capture
      EXPECT_TRUE(log.lines("capture launch").empty());
      ASSERT_FALSE(launches.empty());
      for (const auto& line : captures) EXPECT_NE(line.substr(0, 15), launches[0].substr(0, 15));
    }
    {
      const Neighbour neighbour([&](const std::atomic<bool>& done) {
        while (!done) {
          ASSERT_EQ(DRIVER(cuStreamSynchronize)(stream), CUDA_SUCCESS);
          if (with_products) continue;
          ASSERT_EQ(DRIVER(cuCtxSynchronize)(), CUDA_SUCCESS);
        }
      });
      for (int i = 0; i < 2; ++i) EXPECT_EQ(run(with_products), want);
    }
    EXPECT_GT(stats().graph_replays - before.graph_replays, 60) << with_products;
  }
}

TEST(Cuda, ACaptureThatIsSpoiltIsMadeAgain) {
  OnDevice on(gpus().id[0]);
  const NArray data = randn({24, 400}), target = rand({5, 400}), start = randn({5, 24});
  const auto run = [&] {
    NArray w = start;
    for (int i = 0; i < 20; ++i) {
      w = step(w, slice(data, 1, i * 10, 10), slice(target, 1, i * 10, 10));
      w.wait_for_eval();
    }
    return values(w);
  };
  eager(true);
  const auto want = run();
  eager(false);
  const Stats before = stats();
  gpus().standin.fail("cuGraphInstantiate:1:2,cuGraphLaunch:1:2");
  EXPECT_EQ(run(), want);
  gpus().standin.fail("");
  EXPECT_EQ(run(), want);
  EXPECT_GT(stats().graph_replays - before.graph_replays, 10);
}

// Like torch.cuda.graph: while it captures, no other thread may make a call that might wait or allocate, unless in
// relaxed mode.
TEST(Cuda, AnotherLibraryCapturesAGraph) {
  OnDevice on(gpus().id[0]);
  gpus().standin.delay(200);
  std::atomic<bool> begun{false};
  {
    const Neighbour neighbour([&](const std::atomic<bool>& done) {
      CUstream stream = nullptr;
      CUgraph graph = nullptr;
      ASSERT_EQ(DRIVER(cuStreamCreate)(&stream, CU_STREAM_NON_BLOCKING), CUDA_SUCCESS);
      ASSERT_EQ(DRIVER(cuStreamBeginCapture)(stream, CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_SUCCESS);
      begun = true;
      while (!done) std::this_thread::yield();
      EXPECT_EQ(DRIVER(cuStreamEndCapture)(stream, &graph), CUDA_SUCCESS);  // the capture was not invalidated
    });
    while (!begun) std::this_thread::yield();
    for (int i = 1; i <= 20; ++i) {
      const std::vector<float> data(static_cast<std::size_t>(1000 + 700 * i), 2);
      const NArray x = from_host(data.data(), {1000 + 700 * i}, DType::kFloat32);
      NArray y = x * 3.0 + static_cast<double>(i);
      EXPECT_EQ(values(y), std::vector<float>(data.size(), 6.0f + static_cast<float>(i)));
      EXPECT_EQ(y.copy_to(gpus().id[1]).sum().size(), 1);
    }
    const NArray m = randn({33, 21});
    EXPECT_EQ(values(m * m.trans()).size(), 33u * 33u);
    empty_cache();
    wait_for_all();
  }
  gpus().standin.delay(0);
}

TEST(Cuda, AnErrorThatPassesIsTriedAgain) {
  OnDevice on(gpus().id[0]);
  const NArray x = arange(0, 777, 1, DType::kFloat32), a = randn({12, 15}), b = randn({15, 13});
  const auto want = values(a * b);
  for (const char* code : {"2", "701", "901"}) {
    gpus().standin.fail((std::string("cuLaunchKernel:1:") + code).c_str());
    EXPECT_EQ(values(x * 2.0)[776], 2 * 776.0f) << code;
    gpus().standin.fail((std::string("cuEventRecord:1:") + code).c_str());
    EXPECT_EQ(values(x * 2.0 + 1.0)[776], 2 * 776.0f + 1) << code;
  }
  gpus().standin.fail("cublasLtMatmul:1:3");  // CUBLAS_STATUS_ALLOC_FAILED
  EXPECT_EQ(values(a * b), want);
  gpus().standin.fail("");
  wait_for_all();
}

TEST(Cuda, AnErrorThatStaysIsThatOfItsValuesAlone) {
  OnDevice on(gpus().id[0]);
  wait_for_all();
  for (const bool for_memory : {false, true}) {
    const NArray x1 = randn({10}), x2 = randn({20}), x3 = randn({30});
    wait_for_all();
    NArray a, b, c, d;
    {
      Window held(1 << 20, -1);
      a = conv::softmax(x1), b = conv::softmax(x2), c = conv::softmax(b), d = conv::softmax(x3);
      // b's launch, and its second try; a's is the first. Then a third, if worker and script meet in trying, else d's
      // first. The second time the list would be a graph.
      gpus().standin.fail(for_memory ? "cuGraphLaunch:1:2,cuLaunchKernel:2:2,cuLaunchKernel:3:2,cuLaunchKernel:4:2"
                                     : "cuLaunchKernel:2:701,cuLaunchKernel:3:701,cuLaunchKernel:4:701");
      try {
        b.wait_for_eval();
        ADD_FAILURE() << "no error";
      } catch (const OutOfMemoryError& e) {
        EXPECT_TRUE(for_memory) << e.what();
      } catch (const DeviceError& e) {
        EXPECT_FALSE(for_memory) << e.what();
        EXPECT_NE(std::string(e.what()).find("softmax failed on Stand-in GPU"), std::string::npos) << e.what();
      }
    }
    gpus().standin.fail("");
    EXPECT_EQ(values(a).size(), 10u);
    EXPECT_EQ(values(d).size(), 30u);
    EXPECT_THROW(values(c), Error);                       // computed from it in the same list
    EXPECT_THROW((c + 1.0).wait_for_eval(), Error);       // and later
    EXPECT_THROW(b.copy_to(0).wait_for_eval(), Error);    // on other devices
    EXPECT_THROW(b.copy_to(gpus().id[1]).wait_for_eval(), Error);
    EXPECT_THROW(b.wait_for_eval(), Error);               // at every wait
    EXPECT_THROW(wait_for_all(), Error);
    EXPECT_NO_THROW(wait_for_all());                      // raised once
    EXPECT_EQ(values(a + 1.0).size(), 10u);
  }
  wait_for_all();  // no failed value is left
}

TEST(Cuda, ALibrarysNextAlgorithmIsTaken) {
  OnDevice on(gpus().id[0]);
  const NArray a = randn({12, 25}), b = randn({25, 14}), x = randn({9, 8, 2, 3}), w = randn({3, 3, 2, 4}),
               bias = randn({4});
  conv::Convolver convolver(1, 1, 1, 1);
  NArray want[4];
  {
    OnDevice host(0);
    want[0] = a * b;
    const NArray y = convolver.ff(x, w, bias);
    want[1] = y, want[2] = convolver.bp(y, x, w), want[3] = convolver.weight_grad(y, x, w);
  }
  const char* const failures[] = {"cublasLtMatmul:1:15", "cudnnConvolutionForward:1:3000",
                                  "cudnnConvolutionBackwardData:1:3000", "cudnnConvolutionBackwardFilter:1:3000"};
  const char* const calls[] = {"cublasLtMatmul", "cudnnConvolutionForward", "cudnnConvolutionBackwardData",
                               "cudnnConvolutionBackwardFilter"};
  const NArray y = convolver.ff(x, w, bias);
  for (int i = 0; i < 4; ++i) {
    zeros({5000}).wait_for_eval();  // its memory stays owl's: not an error that is tried again
    gpus().standin.fail(failures[i]);
    const auto before = gpus().standin.count(calls[i]);
    const NArray got = i == 0   ? a * b
                       : i == 1 ? convolver.ff(x, w, bias)
                       : i == 2 ? convolver.bp(y, x, w)
                                : convolver.weight_grad(y, x, w);
    const auto v = values(got), v0 = values(want[i]);
    for (std::size_t k = 0; k < v.size(); ++k) ASSERT_NEAR(v[k], v0[k], 1e-3) << calls[i];
    EXPECT_EQ(gpus().standin.count(calls[i]) - before, 2) << calls[i];
    EXPECT_GE(memory_stats(gpus().id[0]).cached, 20'000u) << calls[i];
    gpus().standin.fail("");
  }
}

TEST(Cuda, TheBiasIsPartOfWhatFollowsAConvolution) {
  OnDevice on(gpus().id[0]);
  const NArray x = randn({9, 8, 2, 3}), w = randn({3, 3, 2, 4}), bias = randn({4});
  conv::Convolver convolver(1, 1, 1, 1);
  NArray y, z, want_y, want_z;
  const auto make = [&] {
    y = convolver.ff(x, w, bias);
    z = elewise::relu(y) * 2.0 + x.sum() * 0.0;
  };
  {
    OnDevice host(0);
    make();
    want_y = y, want_z = z;
    wait_for_all();
  }
  for (const bool both : {false, true}) {
    Window held(1 << 20, -1);
    const NArray sum = x.sum() * 0.0;
    wait_for_all();
    Log log;
    y = convolver.ff(x, w, bias);
    z = elewise::relu(y) * 2.0 + sum;
    if (!both) y = NArray();
    z.wait_for_eval();
    EXPECT_EQ(log.lines("conv ").size(), 1u);
    EXPECT_EQ(log.lines("launch owl_program").size(), 1u);
    const auto got = values(z), want = values(want_z);
    for (std::size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], want[i], 1e-4);
    if (!both) continue;
    const auto first = values(y), first_want = values(want_y);
    for (std::size_t i = 0; i < first.size(); ++i) ASSERT_NEAR(first[i], first_want[i], 1e-4);
  }
}

// More than one batch of pinned memory each way, and a partial one at the end.
TEST(Cuda, LargeArraysComeAndGo) {
  OnDevice on(gpus().id[0]);
  gpus().standin.delay(500);
  std::vector<float> data(5'000'003);
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<float>(i % 9973);
  NArray x = from_host(data.data(), {static_cast<std::int64_t>(data.size())}, DType::kFloat32) + 1.0;
  for (auto& v : data) v += 1;
  EXPECT_TRUE(values(x) == data);
  gpus().standin.delay(0);
}

// A script that imports data faster than the GPU works does not allocate new memory for each array.
TEST(Cuda, DataWaitsForMemoryOfItsSize) {
  OnDevice on(gpus().id[0]);
  empty_cache();
  NArray sum = zeros({1});
  sum.wait_for_eval();
  gpus().standin.delay(3000);
  const auto before = gpus().standin.count("cuMemAlloc");
  double want = 0;
  for (int i = 0; i < 40; ++i) {
    const std::vector<float> data(4321, static_cast<float>(i));
    sum = sum + from_host(data.data(), {4321}, DType::kFloat32).sum();
    Engine::get().order(sum.node());  // the worker has ordered it, the GPU has not run it
    want += 4321.0 * i;
  }
  EXPECT_EQ(values(sum)[0], static_cast<float>(want));
  EXPECT_LT(gpus().standin.count("cuMemAlloc") - before, 15);
  gpus().standin.delay(0);
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
  gpus().standin.fail("cublasLtMatmulAlgoGetHeuristic:1:15,cublasLtMatmulAlgoGetHeuristic:2:15");
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
// that is freed and reused. Every value is compared with the CPU's. A missing event shows as a wrong value, or as a
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

// Under a limit, memory that the GPU still uses is reused.
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

// The operand of the first sum comes late, and no result is wanted: the GPUs get all sums, in recorded order.
TEST(Cuda, SumsReachTheGpusInRecordedOrder) {
  std::atomic<bool> go{false};
  const Op slow("slow", same_as_first, [&go](std::span<const ConstMemory>, const Memory& out, Work& work) {
    work.stage(1, [&go, out](std::int64_t) {
      while (!go) std::this_thread::yield();
      std::fill_n(out.as<float>(), out.shape.size(), 1.0f);
    });
  }, 1e6);  // so that a worker runs it
  Log log;
  const auto sum_of = [](const NArray& a, const NArray& b) {
    return all_reduce({a.copy_to(gpus().id[0]), b.copy_to(gpus().id[1])});
  };
  const auto late = slow(ones({100}));
  sum_of(late, ones({100}));
  const auto second = sum_of(ones({200}), ones({200}));
  sum_of(ones({300}), ones({300}));
  EXPECT_FALSE(second[0].wait_for_eval(0.1));
  go = true;
  wait_for_all();
  EXPECT_EQ(values(second[1]), std::vector<float>(200, 2));
  for (const char* rank : {" rank 0", " rank 1"}) {
    const auto calls = log.lines(rank);
    ASSERT_EQ(calls.size(), 3u);
    for (std::size_t i = 0; i < 3; ++i)
      EXPECT_NE(calls[i].find("all reduce " + std::to_string(i + 1) + "00 float32"), std::string::npos) << calls[i];
  }
}

// After an error between the calls of a group the next sum works.
TEST(Cuda, ASumThatFailsLeavesNoGroupOpen) {
  std::vector<NArray> parts;
  for (const int id : gpus().id) {
    OnDevice on(id);
    parts.push_back(full({100}, id));
  }
  const auto sum = static_cast<float>(gpus().id[0] + gpus().id[1]);
  gpus().standin.fail("ncclAllReduce:2:3");
  for (auto& each : all_reduce(parts)) EXPECT_THROW(each.wait_for_eval(), DeviceError);
  gpus().standin.fail("");
  EXPECT_EQ(gpus().standin.count("ncclGroupStart"), gpus().standin.count("ncclGroupEnd"));
  for (auto& each : all_reduce(parts)) EXPECT_EQ(values(each), std::vector<float>(100, sum));
}

}  // namespace
}  // namespace owl

#endif
