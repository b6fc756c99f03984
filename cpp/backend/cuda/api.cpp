#include "backend/cuda/api.h"

#include <dlfcn.h>

#include <algorithm>
#include <filesystem>
#include <mutex>
#include <string_view>

#include "owl/error.h"

namespace owl::cuda {

namespace {

std::vector<std::string>& folders() {
  static std::vector<std::string> list;
  return list;
}

// NVRTC opens this file by name alone, which finds a file that the process has already opened.
void open_beside(const std::filesystem::path& folder, std::string_view file) {
  if (!file.starts_with("libnvrtc.")) return;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const auto name = entry.path().filename().string();
    if (name.starts_with("libnvrtc-builtins.so")) dlopen(entry.path().c_str(), RTLD_NOW | RTLD_LOCAL);
  }
}

// The library's handle; null if there is none, with the loader's message in `why`. A library that the process has
// already opened comes first, because two copies conflict; then those in the packages' folders, because the system's
// may be of another CUDA version with the same file names.
void* open(const char* file, std::string& why) {
  void* library = dlopen(file, RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD);
  if (library) return library;
  for (const auto& folder : folders()) {
    const auto path = std::filesystem::path(folder) / file;
    if (!(library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL))) continue;
    open_beside(path.parent_path(), file);
    return library;
  }
  library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
  if (!library) why = dlerror();
  return library;
}

#define OWL_TEXT(NAME) #NAME
#define OWL_EXPANDED_TEXT(NAME) OWL_TEXT(NAME)
#define OWL_LOAD(NAME)                                                                          \
  table.NAME = reinterpret_cast<decltype(table.NAME)>(dlsym(library, OWL_EXPANDED_TEXT(NAME))); \
  if (!table.NAME && missing.empty()) missing = OWL_EXPANDED_TEXT(NAME);

[[noreturn]] void refuse(const char* file, const std::string& why, const char* remedy) {
  throw DeviceError(std::string(file) + " cannot be used: " + why + "; " + remedy);
}

constexpr const char* kInstall = "install CUDA's libraries: pip install 'owl-engine[cuda]'";
constexpr const char* kUpdate = "a newer version of it is needed";

#define OWL_TABLE(TYPE, FUNCTION, FILE, LIST, REMEDY)                     \
  const TYPE& FUNCTION() {                                                \
    static const TYPE loaded = [] {                                       \
      TYPE table;                                                         \
      std::string why, missing;                                           \
      void* const library = open(FILE, why);                              \
      if (!library) refuse(FILE, why, REMEDY);                            \
      LIST(OWL_LOAD)                                                      \
      if (!missing.empty()) refuse(FILE, "it lacks " + missing, kUpdate); \
      return table;                                                       \
    }();                                                                  \
    return loaded;                                                        \
  }

OWL_TABLE(Driver, open_driver, "libcuda.so.1", OWL_DRIVER_FUNCTIONS,
          "install NVIDIA's driver, 580 or newer, for a GPU of this machine")

const Nccl& open_nccl() {
  static const Nccl loaded = [] {
    Nccl table;
    std::string why, missing;
    if (void* const library = open("libnccl.so.2", why)) {
      OWL_NCCL_FUNCTIONS(OWL_LOAD)
      if (!missing.empty()) table = {};
    }
    return table;
  }();
  return loaded;
}

}  // namespace

const Driver& driver() {
  static const Driver& loaded = [&]() -> const Driver& {
    const Driver& d = open_driver();
    int version = 0;
    if (d.cuDriverGetVersion(&version) == CUDA_SUCCESS && version < 13000)
      throw DeviceError("NVIDIA's driver is for CUDA " + std::to_string(version / 1000) + "." +
                        std::to_string(version % 1000 / 10) +
                        ", but owl needs one for CUDA 13.0 or newer: install "
                        "driver 580 or newer");
    if (const auto result = d.cuInit(0); result != CUDA_SUCCESS)
      throw DeviceError("CUDA does not start: " + text_of(result) +
                        "; `nvidia-smi` shows whether the driver works and which GPUs it has");
    return d;
  }();
  return loaded;
}

OWL_TABLE(Nvrtc, nvrtc, kNvrtc, OWL_NVRTC_FUNCTIONS, kInstall)
OWL_TABLE(CublasLt, cublas, "libcublasLt.so.13", OWL_CUBLAS_FUNCTIONS, kInstall)
namespace {
OWL_TABLE(Cudnn, open_cudnn, "libcudnn.so.9", OWL_CUDNN_FUNCTIONS, kInstall)
}  // namespace

const Cudnn& cudnn() {
  static const Cudnn& checked = []() -> const Cudnn& {
    cublas(), nvrtc();  // cuDNN opens them by name
    const Cudnn& c = open_cudnn();
    if (const auto version = c.cudnnGetCudartVersion(); version / 1000 != 13)
      throw DeviceError("libcudnn.so.9 cannot be used: the one found is for CUDA " + std::to_string(version / 1000) +
                        ", owl needs one for CUDA 13; another library of the process may have opened it (PyTorch for "
                        "CUDA 12, say), or it is the system's: " + kInstall);
    return c;
  }();
  return checked;
}

const Nccl* nccl() {
  const Nccl& n = open_nccl();
  return n.ncclAllReduce ? &n : nullptr;
}

bool is_open(const char* file) {
  void* const library = dlopen(file, RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD);
  if (library) dlclose(library);
  return library;
}

void set_library_folders(std::vector<std::string> list) { folders() = std::move(list); }

std::string text_of(CUresult result) {
  const char *name = nullptr, *text = nullptr;
  open_driver().cuGetErrorName(result, &name);
  open_driver().cuGetErrorString(result, &text);
  return std::string(text ? text : "unknown error") + " (" + (name ? name : std::to_string(result).c_str()) + ")";
}

bool is_sticky(CUresult result) {
  constexpr CUresult kSticky[] = {CUDA_ERROR_DEINITIALIZED,
                                  CUDA_ERROR_ECC_UNCORRECTABLE,
                                  CUDA_ERROR_ILLEGAL_ADDRESS,
                                  CUDA_ERROR_LAUNCH_TIMEOUT,
                                  CUDA_ERROR_CONTEXT_IS_DESTROYED,
                                  CUDA_ERROR_ASSERT,
                                  CUDA_ERROR_HARDWARE_STACK_ERROR,
                                  CUDA_ERROR_ILLEGAL_INSTRUCTION,
                                  CUDA_ERROR_MISALIGNED_ADDRESS,
                                  CUDA_ERROR_INVALID_ADDRESS_SPACE,
                                  CUDA_ERROR_INVALID_PC,
                                  CUDA_ERROR_LAUNCH_FAILED,
                                  CUDA_ERROR_UNKNOWN};
  return std::ranges::find(kSticky, result) != std::end(kSticky);
}

namespace {

[[noreturn]] void refuse(const char* what, const char* by, const std::string& text, bool for_memory) {
  const auto message = std::string(what) + ": " + by + " reported: " + text;
  if (for_memory) throw OutOfMemoryError(message);
  throw DeviceError(message);
}

}  // namespace

void check(CUresult result, const char* what) {
  if (result != CUDA_SUCCESS) refuse(what, "the GPU", text_of(result), result == CUDA_ERROR_OUT_OF_MEMORY);
}
void check(nvrtcResult result, const char* what) {
  if (result != NVRTC_SUCCESS) refuse(what, "NVRTC", nvrtc().nvrtcGetErrorString(result), false);
}
void check(cublasStatus_t result, const char* what) {
  if (result != CUBLAS_STATUS_SUCCESS)
    refuse(what, "cuBLASLt", cublas().cublasLtGetStatusString(result), result == CUBLAS_STATUS_ALLOC_FAILED);
}
void check(cudnnStatus_t result, const char* what) {
  if (result != CUDNN_STATUS_SUCCESS)
    refuse(what, "cuDNN", cudnn().cudnnGetErrorString(result), result == CUDNN_STATUS_ALLOC_FAILED);
}
void check(ncclResult_t result, const char* what) {
  if (result != ncclSuccess) refuse(what, "NCCL", nccl()->ncclGetErrorString(result), false);
}

}  // namespace owl::cuda
