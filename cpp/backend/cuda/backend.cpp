// A GPU as a device of the engine: opening it, what it can do and costs, compiled functions and library calls.
#include "backend/cuda/backend.h"

#include <unistd.h>

#include "backend/cuda/compiler.h"
#include "backend/cuda/cost.h"
#include "backend/cuda/kernels.h"
#include "ops/elementwise.h"
#include "owl/error.h"

namespace owl::cuda {

void raise(const Failure& failure) {
  std::rethrow_exception(failure.error);
}

Backend::Backend(int index) : index_(index), process_(getpid()) {
  const Driver& d = driver();
  int count = 0, major = 0, minor = 0;
  check(d.cuDeviceGetCount(&count), "counting GPUs");
  if (index < 0 || index >= count)
    throw DeviceError("CUDA shows " + std::to_string(count) + (count == 1 ? " GPU" : " GPUs") +
                      " here (CUDA_VISIBLE_DEVICES may hide some); use 0 to " + std::to_string(count - 1) +
                      ", or a CPU device");
  check(d.cuDeviceGet(&gpu_, index), "opening the GPU");
  char name[256] = {};
  check(d.cuDeviceGetName(name, sizeof name - 1, gpu_), "opening the GPU");
  check(d.cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, gpu_), "opening the GPU");
  check(d.cuDeviceGetAttribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, gpu_), "opening the GPU");
  name_ = std::string(name) + " (GPU " + std::to_string(index) + ")";
  arch_ = "sm_" + std::to_string(major * 10 + minor);
  if (major * 10 + minor < 75)
    throw DeviceError(name_ + " has compute capability " + std::to_string(major) + "." + std::to_string(minor) +
                      "; owl needs 7.5 or newer, as CUDA 13 does");
  check(d.cuDeviceTotalMem(&memory_, gpu_), "opening the GPU");
  check(d.cuDevicePrimaryCtxRetain(&context_, gpu_), "opening the GPU");
  const Use ours(*this);
  for (CUstream* stream : {&compute_, &in_, &out_, &aside_})
    check(d.cuStreamCreate(stream, CU_STREAM_NON_BLOCKING), "a stream");
  renew_import_stream();
  runner_ = std::make_unique<Runner>(compute_, aside_);
  copy_ = copy_function(*this);  // fails here without a compiler, rather than at the first operation
}

Backend::Use::Use(const Backend& backend) {
  const Driver& d = driver();
  check(d.cuCtxGetCurrent(&before_), "choosing the GPU");
  if (before_ != backend.context_) check(d.cuCtxSetCurrent(backend.context_), "choosing the GPU");
  changed_ = before_ != backend.context_;
  check(d.cuThreadExchangeStreamCaptureMode(&mode_), "choosing the GPU");
}

Backend::Use::~Use() {
  driver().cuThreadExchangeStreamCaptureMode(&mode_);
  if (changed_) driver().cuCtxSetCurrent(before_);
}

// A forked child lacks the GPU, and the threads that may hold the mutex.
bool Backend::foreign_process() const { return getpid() != process_; }

// ---- what it can do, and costs

const KernelTraits& Backend::traits(const OpRecord& op) const { return traits_of(op); }

double Backend::program_cost_ns(const Program& program) const {
  double bytes = 0, operations = 0;
  for (const auto& i : program.inputs) bytes += static_cast<double>(itemsize(i.dtype));
  for (const auto& o : program.outputs) bytes += static_cast<double>(itemsize(o.dtype));
  for (const auto& i : program.instructions)
    operations += elementwise_ops::All::infos[i.code].cost * (i.dtype == DType::kFloat64 ? cost::kFloat64 : 1);
  return cost::kLaunchNs + static_cast<double>(program.shape.size()) *
                               std::max(bytes / cost::kBytesPerNs, operations / cost::kOperationsPerNs);
}

double Backend::kernel_cost_ns(double operations) const {
  return cost::kLaunchNs + operations / cost::kOperationsPerNs;
}

double Backend::long_kernel_ns() const { return cost::kLongKernelNs; }

bool Backend::has_all_reduce() const { return nccl() != nullptr; }

// ---- functions and calls

// The driver and the libraries allocate memory, which owl's cache may hold: on failure empties the cache and tries
// again.
template <class Make> auto Backend::with_room(const Make& make) {
  try {
    return make();
  } catch (const Error&) {
    if (!device_ || is_lost()) throw;
  }
  device_->allocator.empty_cache();
  return make();
}

CUfunction Backend::function(const std::string& key, const char* name, const std::function<std::string()>& text) {
  std::lock_guard lock(functions_mutex_);
  auto& function = functions_[key];
  if (function) return function;
  const auto code = compile(text(), arch_);
  const CUmodule module = with_room([&] {
    CUmodule loaded = nullptr;
    check(driver().cuModuleLoadData(&loaded, code.data()), "loading a kernel");
    return loaded;
  });
  check(driver().cuModuleGetFunction(&function, module, name), "loading a kernel");
  return function;
}

const LibraryCall& Backend::library_call(const std::string& key,
                                         const std::function<std::unique_ptr<LibraryCall>()>& make) {
  {
    std::lock_guard lock(functions_mutex_);
    if (const auto found = calls_.find(key); found != calls_.end()) return *found->second;
  }
  auto call = with_room(make);  // for handles, descriptors and a workspace
  std::lock_guard lock(functions_mutex_);
  return *calls_.emplace(key, std::move(call)).first->second;
}

cublasLtHandle_t Backend::cublas_handle() {
  std::lock_guard lock(functions_mutex_);
  if (!cublas_) check(cublas().cublasLtCreate(&cublas_), "opening cuBLASLt");
  return cublas_;
}

cudnnHandle_t Backend::cudnn_handle(bool planning) {
  std::lock_guard lock(functions_mutex_);
  auto& handle = planning ? cudnn_planning_ : cudnn_;
  if (!handle) check(cudnn().cudnnCreate(&handle), "opening cuDNN");
  return handle;
}

}  // namespace owl::cuda
