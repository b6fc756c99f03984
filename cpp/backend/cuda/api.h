// CUDA's libraries, opened at run time: the functions that owl calls, in tables.
//
// All of them need the driver; owl opens the others at their first use. It looks for them by name, as the system's
// loader does, and in the folders of NVIDIA's packages from PyPI (set_library_folders).
#pragma once

#include <cublasLt.h>
#include <cuda.h>
#include <cudnn.h>
#include <nccl.h>
#include <nvrtc.h>

#include <string>
#include <vector>

namespace owl::cuda {

// cuda.h's macros rename some functions to newer versions: look up the name after expansion.
// clang-format off
#define OWL_DRIVER_FUNCTIONS(X) \
  X(cuInit) X(cuDriverGetVersion) X(cuDeviceGetCount) X(cuDeviceGet) X(cuDeviceGetName) X(cuDeviceGetAttribute) \
  X(cuDevicePrimaryCtxRetain) X(cuCtxSetCurrent) X(cuCtxGetCurrent) X(cuDeviceCanAccessPeer) \
  X(cuDeviceTotalMem) X(cuCtxEnablePeerAccess) X(cuCtxSynchronize) X(cuGetErrorString) X(cuGetErrorName) \
  X(cuMemAlloc) X(cuMemFree) X(cuMemHostAlloc) X(cuMemcpyHtoDAsync) X(cuMemcpyDtoHAsync) X(cuMemcpyPeerAsync) \
  X(cuStreamCreate) X(cuStreamGetId) X(cuStreamQuery) X(cuStreamWaitEvent) X(cuEventCreate) X(cuEventRecord) \
  X(cuEventQuery) X(cuEventSynchronize) X(cuModuleLoadData) X(cuModuleGetFunction) X(cuLaunchKernel) \
  X(cuLaunchHostFunc) X(cuThreadExchangeStreamCaptureMode) X(cuStreamIsCapturing) X(cuStreamBeginCaptureToGraph) \
  X(cuStreamEndCapture) X(cuStreamGetCaptureInfo) X(cuGraphCreate) X(cuGraphAddKernelNode) X(cuGraphInstantiate) \
  X(cuGraphLaunch) X(cuGraphExecKernelNodeSetParams) X(cuGraphDestroy) X(cuGraphExecDestroy)
#define OWL_NVRTC_FUNCTIONS(X) \
  X(nvrtcVersion) X(nvrtcCreateProgram) X(nvrtcCompileProgram) X(nvrtcGetCUBINSize) X(nvrtcGetCUBIN) \
  X(nvrtcGetProgramLogSize) X(nvrtcGetProgramLog) X(nvrtcDestroyProgram) X(nvrtcGetErrorString)
#define OWL_CUBLAS_FUNCTIONS(X) \
  X(cublasLtCreate) X(cublasLtMatmul) X(cublasLtMatmulDescCreate) X(cublasLtMatmulDescSetAttribute) \
  X(cublasLtMatrixLayoutCreate) X(cublasLtMatmulPreferenceCreate) X(cublasLtMatmulPreferenceSetAttribute) \
  X(cublasLtMatmulAlgoGetHeuristic) X(cublasLtGetStatusString) X(cublasLtMatmulDescDestroy) \
  X(cublasLtMatrixLayoutDestroy) X(cublasLtMatmulPreferenceDestroy) X(cublasLtMatrixLayoutSetAttribute)
#define OWL_CUDNN_FUNCTIONS(X) \
  X(cudnnCreate) X(cudnnGetCudartVersion) X(cudnnSetStream) X(cudnnGetErrorString) X(cudnnCreateTensorDescriptor) \
  X(cudnnSetTensor4dDescriptor) X(cudnnCreateFilterDescriptor) X(cudnnSetFilter4dDescriptor) \
  X(cudnnCreateConvolutionDescriptor) X(cudnnSetConvolution2dDescriptor) X(cudnnSetConvolutionGroupCount) \
  X(cudnnSetConvolutionMathType) X(cudnnGetConvolutionForwardAlgorithm_v7) \
  X(cudnnGetConvolutionBackwardDataAlgorithm_v7) X(cudnnGetConvolutionBackwardFilterAlgorithm_v7) \
  X(cudnnConvolutionForward) X(cudnnConvolutionBackwardData) X(cudnnConvolutionBackwardFilter) \
  X(cudnnDestroyTensorDescriptor) X(cudnnDestroyFilterDescriptor) X(cudnnDestroyConvolutionDescriptor)
#define OWL_NCCL_FUNCTIONS(X) \
  X(ncclCommInitAll) X(ncclAllReduce) X(ncclGroupStart) X(ncclGroupEnd) X(ncclGetErrorString)
// clang-format on

#define OWL_MEMBER(NAME) decltype(&::NAME) NAME = nullptr;
struct Driver { OWL_DRIVER_FUNCTIONS(OWL_MEMBER) };
struct Nvrtc { OWL_NVRTC_FUNCTIONS(OWL_MEMBER) };
struct CublasLt { OWL_CUBLAS_FUNCTIONS(OWL_MEMBER) };
struct Cudnn { OWL_CUDNN_FUNCTIONS(OWL_MEMBER) };
struct Nccl { OWL_NCCL_FUNCTIONS(OWL_MEMBER) };
#undef OWL_MEMBER

// Each opens its library at the first call. DeviceError: the library cannot be opened; says what was looked for, and
// what to do.
const Driver& driver();
const Nvrtc& nvrtc();
const CublasLt& cublas();
const Cudnn& cudnn();
const Nccl* nccl();  // null if it is missing: copies and additions replace it
bool is_open(const char* file);  // whether the process has opened that library already
inline constexpr const char* kNvrtc = "libnvrtc.so.13";

// A descriptor of cuBLASLt or cuDNN, destroyed by a function of its table.
template <class Handle, auto table, auto destroy> class Descriptor {
 public:
  Descriptor() = default;
  ~Descriptor() {
    if (handle_) (table().*destroy)(handle_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  Handle* address() { return &handle_; }  // for the function that creates it
  operator Handle() const { return handle_; }

 private:
  Handle handle_ = nullptr;
};
using MatmulDescriptor = Descriptor<cublasLtMatmulDesc_t, cublas, &CublasLt::cublasLtMatmulDescDestroy>;
using MatrixLayout = Descriptor<cublasLtMatrixLayout_t, cublas, &CublasLt::cublasLtMatrixLayoutDestroy>;
using MatmulPreference = Descriptor<cublasLtMatmulPreference_t, cublas, &CublasLt::cublasLtMatmulPreferenceDestroy>;
using TensorDescriptor = Descriptor<cudnnTensorDescriptor_t, cudnn, &Cudnn::cudnnDestroyTensorDescriptor>;
using FilterDescriptor = Descriptor<cudnnFilterDescriptor_t, cudnn, &Cudnn::cudnnDestroyFilterDescriptor>;
using ConvolutionDescriptor =
    Descriptor<cudnnConvolutionDescriptor_t, cudnn, &Cudnn::cudnnDestroyConvolutionDescriptor>;

// Adds folders to search, those of this process's Python packages. Call it before the functions above.
void set_library_folders(std::vector<std::string> folders);

// Throw DeviceError, or OutOfMemoryError, with `what` and the error's own text.
void check(CUresult result, const char* what);
void check(nvrtcResult result, const char* what);
void check(cublasStatus_t result, const char* what);
void check(cudnnStatus_t result, const char* what);
void check(ncclResult_t result, const char* what);
std::string text_of(CUresult result);  // "out of memory (CUDA_ERROR_OUT_OF_MEMORY)"
// Whether a kernel caused the error: then every later call of the process on this GPU returns it.
bool is_sticky(CUresult result);
// Whether CUDA refused the call because another library is capturing: not a fault.
inline bool is_about_capture(CUresult result) {
  return result >= CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED && result <= CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
}

inline CUdeviceptr address(const void* data) { return reinterpret_cast<CUdeviceptr>(data); }

}  // namespace owl::cuda
