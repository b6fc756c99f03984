// Compiles the CUDA backend's kernels with the real NVRTC, which needs no GPU. All of them, for sm_80 and sm_90:
//
//   owl_cuda_check STANDIN_FOLDER LIBRARY_FOLDER...
//
// Or those that a command, such as a test run, loads on the stand-in, for one architecture, into a folder; use it as
// the command's $XDG_CACHE_HOME on a GPU's machine, where compiling them one after another would take most of its time.
//
//   owl_cuda_check --fill FOLDER ARCHITECTURE LIBRARY_FOLDER... -- COMMAND...
//
// In the first form the texts are those that the backend requests while operations of every family and type run on the
// stand-in for CUDA (tests/standin). LIBRARY_FOLDERs have CUDA's libraries; every function that owl calls is looked up
// in them.
#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "backend/cuda/api.h"
#include "backend/cuda/compiler.h"
#include "backend/gpu.h"
#include "graph/op.h"
#include "graph/record.h"
#include "owl/owl.h"

extern "C" const owl::gpu::Library owl_cuda_library;

namespace {

using namespace owl;

std::mutex mutex;
std::set<std::string> texts;

// ---- the operations

constexpr DType kTypes[] = {DType::kBool, DType::kInt32, DType::kFloat32, DType::kFloat64};

void done(const NArray& x) { x.wait_for_eval(); }

void elementwise() {
  for (const OpRecord* op : all_ops()) {
    if (op->cls != OpRecord::Class::kElementwise || op->rule == TypeRule::kCast) continue;
    for (const DType type : kTypes) {
      if (op->rule == TypeRule::kNoBool && type == DType::kBool) continue;
      if (op->rule == TypeRule::kInteger && is_float(type)) continue;
      const NArray x = ones({5, 3}, type), y = ones({5, 1}, type), c = ones({5, 3}, DType::kBool);
      Operand operands[3] = {x, y, x};
      if (op->rule == TypeRule::kSelect) operands[0] = c;
      done(record_elementwise(*op, std::span(operands, static_cast<std::size_t>(op->arity))));
    }
  }
  for (const DType from : kTypes)
    for (const DType to : kTypes) done(ones({7}, from).astype(to));
  done(ones({6, 4}).transpose({1, 0}).reshape({24}) * 2.0);
}

void reductions() {
  for (const DType type : kTypes) {
    for (const Shape& shape : {Shape{300, 7}, Shape{3, 5}, Shape{200000, 2}, Shape{5, 70000}, Shape{4, 3, 5}}) {
      const NArray x = ones(shape, type);
      for (int axis = 0; axis < shape.ndim(); ++axis) {
        for (const auto& y :
             {x.sum({axis}), x.max({axis}), x.min({axis}), x.mean({axis}), x.var({axis}), x.prod({axis}), x.argmax(axis), x.argmin(axis),
              x.cumsum(axis)})
          done(y);
      }
      done(x.sum());
      x.count_zero();
    }
    done(zeros({0, 3}, type).sum({0}));
    done(zeros({0, 3}, type).mean({0}));
  }
  const NArray x = randn({100, 40});
  done((x * 2.0 + 1.0).sum({0}) - 1.0);
  done((x * 2.0).max({1}));
  done((x * 2.0).cumsum(1) - 1.0);
  Tape tape;
  const NArray sums = x.cumsum(0).sum();
  done(tape.gradient(sums, {x})[0]);
}

void networks() {
  for (const DType type : {DType::kFloat32, DType::kFloat64}) {
    for (const Shape& shape : {Shape{10, 64}, Shape{3000, 4}, Shape{5, 6, 7, 3}})
      for (const auto op : {conv::SoftOp::kInstance, conv::SoftOp::kChannel}) {
        const NArray x = randn(shape, 0, 1, type), y = conv::softmax(x, op);
        done(y);
        done(conv::log_softmax(x, op));
        done(conv::softmax_back(x, y, op));
        done(conv::softmax(x * 2.0, op) - 1.0);
      }
    for (const Shape& shape : {Shape{3, 900}, Shape{40, 30}, Shape{3000, 2}}) {
      const NArray x = randn(shape, 0, 1, type), w = ones({shape[0]}, type);
      done(layer_norm(x * 2.0, w, w) - 1.0);
      Tape tape;
      const NArray y = layer_norm(x, w, w);
      for (const NArray& each : tape.gradient(y, {x, w}, y)) done(each);
    }
    const NArray x = randn({11, 9, 4, 3}, 0, 1, type);
    for (const auto op : {conv::PoolOp::kMax, conv::PoolOp::kAverage}) {
      conv::Pooler pooler(3, 3, 2, 2, 0, 0, op);
      const NArray y = pooler.ff(x);
      done(y);
      done(pooler.bp(y, y, x));
      done(pooler.ff(x) * 2.0);
    }
    for (const double beta : {0.75, 0.5, 1.0, 0.6}) {
      conv::Lrner lrner(5, 0.1, beta);
      const NArray y = lrner.ff(x, x);
      done(y);
      done(lrner.bp(x, y, x, y));
    }
    conv::Convolver convolver(1, 1, 1, 1);
    const NArray w = randn({3, 3, 4, 6}, 0, 1, type), b = randn({6}, 0, 1, type), y = convolver.ff(x, w, b);
    done(elewise::relu(y));
    done(convolver.bp(y, x, w));
    done(convolver.weight_grad(y, x, w));
    done(convolver.bias_grad(y));
    const NArray m = randn({20, 30}, 0, 1, type);
    done(elewise::relu(m * m.trans() + 1.0));
  }
  done(ones({3, 4}, DType::kInt32) * ones({4, 5}, DType::kInt32));
}

void choosing() {
  const NArray places = from_host({0, 2, 2}, {3});
  for (const DType type : kTypes) {
    const NArray x = ones({6, 4}, type), many = ones({2000, 3}, type);
    done(take(x, places, 1));
    done(take(x, places, 1) + 1.0);
    done(one_hot(places, 4, type));
    for (const NArray& each : {sort(x), argsort(many), topk(many, 3).values}) done(each);
    if (type == DType::kBool) continue;
    done(put_add(x, places, ones({6, 3}, type), 1));
    done(matmul(ones({3, 4, 2}, type), ones({4, 3, 2}, type)));
  }
}

void creation() {
  for (const DType type : kTypes) {
    done(full({9}, 1, type));
    done(arange(0, 5, 1, type));
    done(concat({ones({3, 2}, type), ones({3, 4}, type)}, 1));
    if (!is_float(type)) continue;
    const NArray x = ones({6, 4}, type);
    Tape tape;  // of views: place_views, add_views
    done(tape.gradient(square(x[Slice{1, 6}]).sum() + square(x[Slice{0, 3}]).sum() + x[Slice{2, 4}].sum(), {x})[0]);
    done(rand({9}, 0, 1, type));
    done(randn({9}, 0, 1, type));
    done(randb({9}, 0.5, type));
  }
}

// ---- the real compiler

struct Compiler {
  cuda::Nvrtc n;

  explicit Compiler(const std::string& folder) {
    for (const char* file : {"libnvrtc-builtins.so.13.0", "libnvrtc-builtins.so.13"})
      dlopen((folder + "/" + file).c_str(), RTLD_NOW);
    void* const library = dlopen((folder + "/libnvrtc.so.13").c_str(), RTLD_NOW);
    if (!library) return;
#define OWL_LOAD(NAME) n.NAME = reinterpret_cast<decltype(n.NAME)>(dlsym(library, #NAME));
    OWL_NVRTC_FUNCTIONS(OWL_LOAD)
  }
  bool there() const { return n.nvrtcCompileProgram; }

  struct Result {
    std::string log, code;  // the compiler's messages if it fails, then without code
  };
  Result compile(const std::string& text, const char* arch) const {
    nvrtcProgram program = nullptr;
    n.nvrtcCreateProgram(&program, text.c_str(), "owl.cu", 0, nullptr, nullptr);
    const auto architecture = std::string("--gpu-architecture=") + arch;
    std::vector<const char*> options{architecture.c_str()};
    options.insert(options.end(), std::begin(cuda::kCompilerOptions), std::end(cuda::kCompilerOptions));
    const auto result = n.nvrtcCompileProgram(program, static_cast<int>(options.size()), options.data());
    Result all;
    std::size_t size = 0;
    if (result != NVRTC_SUCCESS) {
      n.nvrtcGetProgramLogSize(program, &size);
      all.log.resize(size);
      n.nvrtcGetProgramLog(program, all.log.data());
      all.log = std::string(n.nvrtcGetErrorString(result)) + "\n" + all.log;
    } else if (n.nvrtcGetCUBINSize(program, &size) == NVRTC_SUCCESS) {
      all.code.resize(size);
      n.nvrtcGetCUBIN(program, all.code.data());
    }
    n.nvrtcDestroyProgram(&program);
    return all;
  }
};

// The number of functions of the list that the library lacks.
#define OWL_LACKS(NAME) \
  (dlsym(library, OWL_TEXT_OF(NAME)) ? 0 : (std::printf("  %s lacks %s\n", file, OWL_TEXT_OF(NAME)), 1)) +
#define OWL_TEXT(NAME) #NAME
#define OWL_TEXT_OF(NAME) OWL_TEXT(NAME)
template <class Look>
int look_into(const char* file, const std::vector<std::string>& folders, Look look) {
  for (const auto& folder : folders)
    if (void* const library = dlopen((folder + "/" + file).c_str(), RTLD_NOW | RTLD_LOCAL)) return look(library);
  std::printf("  %s: not among the folders\n", file);
  return 1;
}

int look_up_functions(const std::vector<std::string>& folders) {
  int lacking = 0;
  const char* file = "libnvrtc.so.13";
  lacking += look_into(file, folders, [&](void* library) { return OWL_NVRTC_FUNCTIONS(OWL_LACKS) 0; });
  file = "libcublasLt.so.13";
  lacking += look_into(file, folders, [&](void* library) { return OWL_CUBLAS_FUNCTIONS(OWL_LACKS) 0; });
  file = "libcudnn.so.9";
  lacking += look_into(file, folders, [&](void* library) { return OWL_CUDNN_FUNCTIONS(OWL_LACKS) 0; });
  file = "libnccl.so.2";
  lacking += look_into(file, folders, [&](void* library) { return OWL_NCCL_FUNCTIONS(OWL_LACKS) 0; });
  return lacking;
}

// Runs the operations on the stand-in and writes the texts to files of the folder.
int collect(const std::string& standin, const std::filesystem::path& folder) {
  for (const char* file : {"libcuda.so.1", "libnvrtc.so.13", "libcublasLt.so.13", "libcudnn.so.9", "libnccl.so.2"})
    if (!dlopen((standin + "/" + file).c_str(), RTLD_NOW | RTLD_LOCAL)) {
      std::printf("FAILED: %s\n", dlerror());
      return 1;
    }
  cuda::on_compile = [](const std::string& text) {
    std::lock_guard lock(mutex);
    texts.insert(text);
  };
  gpu::use_library(owl_cuda_library);
  try {
    set_device(create_gpu_device(0));
    creation();
    choosing();
    elementwise();
    reductions();
    networks();
    wait_for_all();
  } catch (const std::exception& e) {
    std::printf("FAILED: %s\n", e.what());
    return 1;
  }
  int number = 0;
  for (const auto& text : texts) std::ofstream(folder / std::to_string(number++)) << text;
  return 0;
}

// Reads the texts of a folder and removes it.
std::vector<std::string> take_texts(const std::filesystem::path& folder) {
  std::vector<std::string> all;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::ifstream file(entry.path());
    all.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  std::filesystem::remove_all(folder);
  return all;
}

std::unique_ptr<Compiler> find_compiler(const std::vector<std::string>& libraries) {
  for (const auto& library : libraries)
    if (auto compiler = std::make_unique<Compiler>(library); compiler->there()) return compiler;
  std::printf("FAILED: no libnvrtc.so.13 among the folders\n");
  return nullptr;
}

// Compiles each text for each architecture, on all processors, and passes the code to `take`. Returns the number of
// failures.
template <class Take>
int compile_each(const Compiler& compiler, const std::vector<std::string>& all, const std::vector<const char*>& archs,
                 Take take) {
  std::atomic<std::size_t> next{0};
  std::atomic<int> failed{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < std::max(1u, std::thread::hardware_concurrency()); ++t)
    threads.emplace_back([&] {
      for (std::size_t i; (i = next++) < archs.size() * all.size();) {
        const auto& text = all[i / archs.size()];
        const char* const arch = archs[i % archs.size()];
        const auto [log, code] = compiler.compile(text, arch);
        std::lock_guard lock(mutex);
        if (log.empty())
          take(text, arch, code);
        else
          std::printf("FAILED for %s: %s\n--- the text:\n%s\n", arch, log.c_str(),
                      failed++ == 0 ? text.c_str() : "(not shown again)");
      }
    });
  for (auto& thread : threads) thread.join();
  return failed;
}

int compile_all(const std::filesystem::path& folder, const std::vector<std::string>& libraries) {
  const auto all = take_texts(folder);
  const int lacking = look_up_functions(libraries);
  const auto compiler = find_compiler(libraries);
  if (!compiler) return 1;
  const int failed = compile_each(*compiler, all, {"sm_80", "sm_90"}, [](auto&&...) {});
  std::printf(
      "CUDA kernels: %zu texts compiled by NVRTC for sm_80 and sm_90, %d failed; functions looked up in the real "
      "libraries, %d missing\n",
      all.size(), failed, lacking);
  return failed > 0 || lacking > 0;
}

// Runs the command; returns its exit status.
int run(char** command) {
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    execvp(command[0], command);
    std::perror(command[0]);
    _exit(127);
  }
  int status = 1;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int fill(const std::filesystem::path& folder, const char* arch, const std::vector<std::string>& libraries,
         char** command) {
  const auto compiler = find_compiler(libraries);
  if (!compiler) return 1;
  std::string texts_folder = (std::filesystem::temp_directory_path() / "owl_cuda_check_XXXXXX").string();
  if (!mkdtemp(texts_folder.data())) return 1;
  setenv("STANDIN_CUDA_TEXTS", texts_folder.c_str(), 1);
  const int status = run(command);
  const auto all = take_texts(texts_folder);
  cuda::NvrtcVersion version;
  compiler->n.nvrtcVersion(&version.major, &version.minor);
  std::filesystem::create_directories(folder / "owl/kernels");
  const int failed = compile_each(*compiler, all, {arch}, [&](auto& text, auto* target, auto& code) {
    std::ofstream(folder / "owl/kernels" / cuda::cubin_name(text, target, version), std::ios::binary) << code;
  });
  std::printf("CUDA kernels: %zu texts of `%s` (exit status %d) compiled by NVRTC %d.%d for %s into %s, %d failed\n",
              all.size(), command[0], status, version.major, version.minor, arch, folder.c_str(), failed);
  return failed > 0 || all.empty();
}

}  // namespace

// The first form uses two processes, one after the other: NVRTC calls the driver, which must not be the stand-in.
int main(int argc, char** argv) {
  if (argc > 2 && std::string(argv[1]) == "--compile") return compile_all(argv[2], {argv + 3, argv + argc});
  char** const end = argv + argc;
  char** const dashes = std::find_if(argv, end, [](const char* word) { return std::string(word) == "--"; });
  const bool fills = argc > 1 && std::string(argv[1]) == "--fill";
  if (fills && dashes - argv >= 5 && dashes + 1 < end) return fill(argv[2], argv[3], {argv + 4, dashes}, dashes + 1);
  if (argc < 3 || fills) {
    std::fprintf(stderr, "use: owl_cuda_check STANDIN_FOLDER LIBRARY_FOLDER...\n"
                         "     owl_cuda_check --fill FOLDER ARCHITECTURE LIBRARY_FOLDER... -- COMMAND...\n");
    return 2;
  }
  std::string name = (std::filesystem::temp_directory_path() / "owl_cuda_check_XXXXXX").string();
  const char* const folder = mkdtemp(name.data());
  if (!folder || collect(argv[1], folder) != 0) return 1;
  std::fflush(stdout);
  std::vector<char*> arguments{argv[0], const_cast<char*>("--compile"), name.data()};
  arguments.insert(arguments.end(), argv + 2, argv + argc);
  arguments.push_back(nullptr);
  execv("/proc/self/exe", arguments.data());
  std::perror("execv");
  return 1;
}
