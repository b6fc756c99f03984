// cuDNN: convolutions of NCHW images and their gradients. float32 is summed in double, so that all orders of summation
// agree; the default math rounds operands to TF32, as cuDNN may.
#include "standin.h"

#include <cudnn.h>

#include <cstdlib>
#include <cstring>

using namespace standin;

struct cudnnContext {
  CUcontext context;
  CUstream stream;
};

struct cudnnTensorStruct {
  cudnnDataType_t type = CUDNN_DATA_FLOAT;
  int n = 0, c = 0, h = 0, w = 0;  // for filters: their number and shape

  std::int64_t size() const { return std::int64_t{n} * c * h * w; }
  std::string text() const {
    return std::to_string(n) + "x" + std::to_string(c) + "x" + std::to_string(h) + "x" + std::to_string(w);
  }
};

struct cudnnFilterStruct : cudnnTensorStruct {};

struct cudnnConvolutionStruct {
  int pad_h = 0, pad_w = 0, stride_h = 1, stride_w = 1, dilation_h = 1, dilation_w = 1, groups = 1;
  cudnnDataType_t type = CUDNN_DATA_FLOAT;
  cudnnMathType_t math = CUDNN_DEFAULT_MATH;
};

namespace {

constexpr std::size_t kWorkspace = 1024;  // bytes that the algorithms request

enum class Pass { kForward, kData, kFilter };

struct Convolution {
  cudnnTensorStruct x, w, y;
  cudnnConvolutionStruct how;

  cudnnStatus_t check() const {
    const auto length = [](int image, int filter, int pad, int stride, int dilation) {
      return (image + 2 * pad - (filter - 1) * dilation - 1) / stride + 1;
    };
    if (x.type != w.type || x.type != y.type || x.type != how.type) return CUDNN_STATUS_NOT_SUPPORTED;
    if (x.size() <= 0 || w.size() <= 0 || y.size() <= 0) return CUDNN_STATUS_BAD_PARAM;
    const bool fits = x.n == y.n && y.c == w.n && x.c == w.c * how.groups && w.n % how.groups == 0 &&
                      y.h == length(x.h, w.h, how.pad_h, how.stride_h, how.dilation_h) &&
                      y.w == length(x.w, w.w, how.pad_w, how.stride_w, how.dilation_w);
    return fits ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_BAD_PARAM;
  }

  // Calls `product(x's index, w's, y's)` for each product of the convolution.
  template <class F> [[gnu::always_inline]] void each(F product) const {
    const int filters = w.n / how.groups;
    for (int n = 0; n < y.n; ++n)
      for (int k = 0; k < y.c; ++k)
        for (int i = 0; i < y.h; ++i)
          for (int j = 0; j < y.w; ++j) {
            const auto to = ((std::int64_t{n} * y.c + k) * y.h + i) * y.w + j;
            for (int c = 0; c < w.c; ++c)
              for (int r = 0; r < w.h; ++r) {
                const int row = i * how.stride_h - how.pad_h + r * how.dilation_h;
                if (row < 0 || row >= x.h) continue;
                for (int s = 0; s < w.w; ++s) {
                  const int column = j * how.stride_w - how.pad_w + s * how.dilation_w;
                  if (column < 0 || column >= x.w) continue;
                  const int channel = k / filters * w.c + c;
                  product(((std::int64_t{n} * x.c + channel) * x.h + row) * x.w + column,
                          ((std::int64_t{k} * w.c + c) * w.h + r) * w.w + s, to);
                }
              }
          }
  }
};

// Computes one of the three from the other two. On private memory, so it needs no sanitizer.
[[gnu::no_sanitize("thread"), gnu::no_sanitize("address"), gnu::noinline]] void sum(const Convolution& conv, Pass pass,
                                                                                    double* x, double* w, double* y) {
  if (pass == Pass::kForward) conv.each([=](auto i, auto j, auto k) { y[k] += x[i] * w[j]; });
  else if (pass == Pass::kData) conv.each([=](auto i, auto j, auto k) { x[i] += w[j] * y[k]; });
  else conv.each([=](auto i, auto j, auto k) { w[j] += x[i] * y[k]; });
}

template <class T>
void run(const Convolution& conv, Pass pass, double alpha, double beta, const void* x, const void* w, const void* y,
         void* result) {
  const auto taken = [&](const void* data, std::int64_t count, bool is_result) {
    std::vector<double> all(static_cast<std::size_t>(count));
    if (is_result) return all;
    for (std::size_t i = 0; i < all.size(); ++i) {
      const T value = static_cast<const T*>(data)[i];
      all[i] = value;
      if constexpr (std::is_same_v<T, float>)
        if (conv.how.math != CUDNN_FMA_MATH) all[i] = rounded(value, kTf32Bits);
    }
    return all;
  };
  auto images = taken(x, conv.x.size(), pass == Pass::kData);
  auto filters = taken(w, conv.w.size(), pass == Pass::kFilter);
  auto results = taken(y, conv.y.size(), pass == Pass::kForward);
  sum(conv, pass, images.data(), filters.data(), results.data());
  const auto& sums = pass == Pass::kForward ? results : pass == Pass::kData ? images : filters;
  auto* const to = static_cast<T*>(result);
  for (std::size_t i = 0; i < sums.size(); ++i)
    to[i] = static_cast<T>(alpha * sums[i] + (beta != 0 ? beta * to[i] : 0));
}

cudnnStatus_t enqueue(cudnnHandle_t handle, Pass pass, const void* alpha, const void* beta, const cudnnTensorStruct* xd,
                      const void* x, const cudnnTensorStruct* wd, const void* w, const cudnnConvolutionStruct* how,
                      const cudnnTensorStruct* yd, const void* y, void* result, void* workspace, std::size_t bytes) {
  if (!handle || !xd || !wd || !how || !yd || !alpha || !beta) return CUDNN_STATUS_BAD_PARAM_NULL_POINTER;
  if (!current || handle->context != current) return CUDNN_STATUS_BAD_PARAM;
  const Convolution conv{*xd, *wd, *yd, *how};
  if (const auto status = conv.check()) return status;
  const bool single = conv.x.type == CUDNN_DATA_FLOAT;
  const double a = single ? double{*static_cast<const float*>(alpha)} : *static_cast<const double*>(alpha);
  const double b = single ? double{*static_cast<const float*>(beta)} : *static_cast<const double*>(beta);
  if (bytes < kWorkspace) return CUDNN_STATUS_BAD_PARAM_SIZE_INSUFFICIENT;
  Lock lock(world().mutex);
  const auto holds = [&](const void* data, const cudnnTensorStruct& shape) {
    return world().holds(data, static_cast<std::size_t>(shape.size()) * (single ? 4 : 8), current->device);
  };
  if (!holds(x, conv.x) || !holds(w, conv.w) || !holds(y, conv.y) || !world().holds(workspace, bytes, current->device))
    return CUDNN_STATUS_BAD_PARAM;
  // Tensor cores' kernels read 16 bytes at a time.
  const auto addresses = reinterpret_cast<std::uintptr_t>(x) | reinterpret_cast<std::uintptr_t>(w) |
                         reinterpret_cast<std::uintptr_t>(y);
  if (addresses % 16 != 0) {
    current->broken.store(CUDA_ERROR_MISALIGNED_ADDRESS, std::memory_order_relaxed);
    return CUDNN_STATUS_EXECUTION_FAILED;
  }
  Step step;
  step.work = [=] {
    std::memset(workspace, 0xEE, kWorkspace);  // no other call may use it meanwhile
    single ? run<float>(conv, pass, a, b, x, w, y, result) : run<double>(conv, pass, a, b, x, w, y, result);
    std::memset(workspace, 0xEE, kWorkspace);
  };
  const char* const names[] = {"conv ", "conv data ", "conv filter "};
  const auto text = names[static_cast<int>(pass)] + conv.x.text() + " by " + conv.w.text() +
                    (!single ? " float64" : conv.how.math == CUDNN_FMA_MATH ? " float32" : " float32 tf32");
  return world().enqueue(handle->stream, std::move(step), text) == CUDA_SUCCESS ? CUDNN_STATUS_SUCCESS
                                                                                : CUDNN_STATUS_EXECUTION_FAILED;
}

// An algorithm that is not deterministic, the fastest, and two that are.
template <class Performance, class Algorithm>
cudnnStatus_t find(const cudnnTensorStruct* x, const cudnnTensorStruct* w, const cudnnConvolutionStruct* how,
                   const cudnnTensorStruct* y, int asked, int* count, Performance* results, Algorithm good,
                   Algorithm slow, const Algorithm* loose) {
  if (!x || !w || !how || !y || !count || !results || asked < 1) return CUDNN_STATUS_BAD_PARAM;
  if (const auto status = Convolution{*x, *w, *y, *how}.check()) return status;
  *count = 0;
  const auto add = [&](Algorithm algorithm, cudnnDeterminism_t determinism) {
    if (*count == asked) return;
    Performance& result = results[*count];
    result = {};
    result.algo = algorithm;
    result.status = CUDNN_STATUS_SUCCESS;
    result.time = static_cast<float>(++*count);
    result.memory = kWorkspace;
    result.determinism = determinism;
    result.mathType = how->math;
  };
  if (loose) add(*loose, CUDNN_NON_DETERMINISTIC);
  add(good, CUDNN_DETERMINISTIC);
  add(slow, CUDNN_DETERMINISTIC);
  return CUDNN_STATUS_SUCCESS;
}

constexpr auto kForwardAlgorithm = CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM;
constexpr auto kDataAlgorithm = CUDNN_CONVOLUTION_BWD_DATA_ALGO_1;
constexpr auto kFilterAlgorithm = CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1;
constexpr auto kSlowForwardAlgorithm = CUDNN_CONVOLUTION_FWD_ALGO_GEMM;
constexpr auto kSlowDataAlgorithm = CUDNN_CONVOLUTION_BWD_DATA_ALGO_WINOGRAD;
constexpr auto kSlowFilterAlgorithm = CUDNN_CONVOLUTION_BWD_FILTER_ALGO_WINOGRAD_NONFUSED;
constexpr auto kLooseAlgorithm = CUDNN_CONVOLUTION_BWD_FILTER_ALGO_0;

cudnnStatus_t set(cudnnTensorStruct* to, cudnnTensorFormat_t format, cudnnDataType_t type, int n, int c, int h, int w) {
  if (!to || n < 1 || c < 1 || h < 1 || w < 1) return CUDNN_STATUS_BAD_PARAM;
  if (format != CUDNN_TENSOR_NCHW || (type != CUDNN_DATA_FLOAT && type != CUDNN_DATA_DOUBLE))
    return CUDNN_STATUS_NOT_SUPPORTED;
  to->type = type;
  to->n = n, to->c = c, to->h = h, to->w = w;
  return CUDNN_STATUS_SUCCESS;
}

template <class T> cudnnStatus_t create(T** to) {
  if (!to) return CUDNN_STATUS_BAD_PARAM_NULL_POINTER;
  *to = new T;
  return CUDNN_STATUS_SUCCESS;
}

template <class T> cudnnStatus_t destroy(T* made) {
  delete made;
  return CUDNN_STATUS_SUCCESS;
}

}  // namespace

// ---- handles and descriptors

cudnnStatus_t CUDNNWINAPI cudnnCreate(cudnnHandle_t* handle) {
  STANDIN_LIBRARY(cudnnStatus_t, cudnnCreate);
  if (!handle) return CUDNN_STATUS_BAD_PARAM_NULL_POINTER;
  if (!current) return CUDNN_STATUS_NOT_INITIALIZED;
  Lock lock(world().mutex);
  if (!world().take(current, kCudnnBytes)) return CUDNN_STATUS_ALLOC_FAILED;
  *handle = new cudnnContext{current, nullptr};
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t CUDNNWINAPI cudnnDestroy(cudnnHandle_t handle) {
  STANDIN_LIBRARY(cudnnStatus_t, cudnnDestroy);
  Lock lock(world().mutex);
  world().give_back(handle->context, kCudnnBytes);
  return destroy(handle);
}

cudnnStatus_t CUDNNWINAPI cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
  STANDIN_LIBRARY(cudnnStatus_t, cudnnSetStream);
  if (!handle) return CUDNN_STATUS_BAD_PARAM_NULL_POINTER;
  Lock lock(world().mutex);
  const CUstream found = world().find(stream);
  if (!found || found->context != handle->context) return CUDNN_STATUS_BAD_PARAM_STREAM_MISMATCH;
  handle->stream = stream;
  return CUDNN_STATUS_SUCCESS;
}

const char* CUDNNWINAPI cudnnGetErrorString(cudnnStatus_t status) {
  switch (status) {
    case CUDNN_STATUS_SUCCESS: return "CUDNN_STATUS_SUCCESS";
    case CUDNN_STATUS_ALLOC_FAILED: return "CUDNN_STATUS_ALLOC_FAILED";
    case CUDNN_STATUS_NOT_INITIALIZED: return "CUDNN_STATUS_NOT_INITIALIZED";
    case CUDNN_STATUS_BAD_PARAM: return "CUDNN_STATUS_BAD_PARAM";
    case CUDNN_STATUS_BAD_PARAM_NULL_POINTER: return "CUDNN_STATUS_BAD_PARAM_NULL_POINTER";
    case CUDNN_STATUS_BAD_PARAM_SIZE_INSUFFICIENT: return "CUDNN_STATUS_BAD_PARAM_SIZE_INSUFFICIENT";
    case CUDNN_STATUS_BAD_PARAM_STREAM_MISMATCH: return "CUDNN_STATUS_BAD_PARAM_STREAM_MISMATCH";
    case CUDNN_STATUS_NOT_SUPPORTED: return "CUDNN_STATUS_NOT_SUPPORTED";
    case CUDNN_STATUS_INTERNAL_ERROR: return "CUDNN_STATUS_INTERNAL_ERROR";
    case CUDNN_STATUS_EXECUTION_FAILED: return "CUDNN_STATUS_EXECUTION_FAILED";
    default: return "CUDNN_STATUS unknown";
  }
}

std::size_t CUDNNWINAPI cudnnGetVersion() { return CUDNN_VERSION; }

std::size_t CUDNNWINAPI cudnnGetCudartVersion() {
  const char* const told = std::getenv("STANDIN_CUDNN_CUDART");
  return told ? static_cast<std::size_t>(std::atoll(told)) : 13000;
}

cudnnStatus_t CUDNNWINAPI cudnnCreateTensorDescriptor(cudnnTensorDescriptor_t* tensor) {
  STANDIN_LIBRARY(cudnnStatus_t, cudnnCreateTensorDescriptor);
  return create(tensor);
}

cudnnStatus_t CUDNNWINAPI cudnnSetTensor4dDescriptor(cudnnTensorDescriptor_t tensor, cudnnTensorFormat_t format,
                                                     cudnnDataType_t type, int n, int c, int h, int w) {
  STANDIN_LIBRARY(cudnnStatus_t, cudnnSetTensor4dDescriptor);
  return set(tensor, format, type, n, c, h, w);
}

cudnnStatus_t CUDNNWINAPI cudnnDestroyTensorDescriptor(cudnnTensorDescriptor_t tensor) {
  STANDIN_LIBRARY(cudnnStatus_t, cudnnDestroyTensorDescriptor);
  return destroy(tensor);
}

cudnnStatus_t CUDNNWINAPI cudnnCreateFilterDescriptor(cudnnFilterDescriptor_t* filter) {
  STANDIN_LIBRARY(cudnnStatus_t, cudnnCreateFilterDescriptor);
  return create(filter);
}

cudnnStatus_t CUDNNWINAPI cudnnSetFilter4dDescriptor(cudnnFilterDescriptor_t filter, cudnnDataType_t type,
                                                     cudnnTensorFormat_t format, int k, int c, int h, int w) {
  STANDIN_LIBRARY(cudnnStatus_t, cudnnSetFilter4dDescriptor);
  return set(filter, format, type, k, c, h, w);
}

cudnnStatus_t CUDNNWINAPI cudnnDestroyFilterDescriptor(cudnnFilterDescriptor_t filter) {
  STANDIN_LIBRARY(cudnnStatus_t, cudnnDestroyFilterDescriptor);
  return destroy(filter);
}

cudnnStatus_t CUDNNWINAPI cudnnCreateConvolutionDescriptor(cudnnConvolutionDescriptor_t* convolution) {
  STANDIN_LIBRARY(cudnnStatus_t, cudnnCreateConvolutionDescriptor);
  return create(convolution);
}

cudnnStatus_t CUDNNWINAPI cudnnSetConvolution2dDescriptor(cudnnConvolutionDescriptor_t convolution, int pad_h,
                                                          int pad_w, int stride_h, int stride_w, int dilation_h,
                                                          int dilation_w, cudnnConvolutionMode_t mode,
                                                          cudnnDataType_t type) {
  STANDIN_LIBRARY(cudnnStatus_t, cudnnSetConvolution2dDescriptor);
  if (!convolution || pad_h < 0 || pad_w < 0 || stride_h < 1 || stride_w < 1 || dilation_h < 1 || dilation_w < 1)
    return CUDNN_STATUS_BAD_PARAM;
  if (mode != CUDNN_CROSS_CORRELATION) return CUDNN_STATUS_NOT_SUPPORTED;
  convolution->pad_h = pad_h, convolution->pad_w = pad_w;
  convolution->stride_h = stride_h, convolution->stride_w = stride_w;
  convolution->dilation_h = dilation_h, convolution->dilation_w = dilation_w;
  convolution->type = type;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t CUDNNWINAPI cudnnSetConvolutionGroupCount(cudnnConvolutionDescriptor_t convolution, int groups) {
  STANDIN_LIBRARY(cudnnStatus_t, cudnnSetConvolutionGroupCount);
  if (!convolution || groups < 1) return CUDNN_STATUS_BAD_PARAM;
  convolution->groups = groups;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t CUDNNWINAPI cudnnSetConvolutionMathType(cudnnConvolutionDescriptor_t convolution, cudnnMathType_t math) {
  STANDIN_LIBRARY(cudnnStatus_t, cudnnSetConvolutionMathType);
  if (!convolution) return CUDNN_STATUS_BAD_PARAM;
  convolution->math = math;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t CUDNNWINAPI cudnnDestroyConvolutionDescriptor(cudnnConvolutionDescriptor_t convolution) {
  STANDIN_LIBRARY(cudnnStatus_t, cudnnDestroyConvolutionDescriptor);
  return destroy(convolution);
}

// ---- algorithms

cudnnStatus_t CUDNNWINAPI cudnnGetConvolutionForwardAlgorithm_v7(
    cudnnHandle_t handle, const cudnnTensorDescriptor_t x, const cudnnFilterDescriptor_t w,
    const cudnnConvolutionDescriptor_t convolution, const cudnnTensorDescriptor_t y, const int asked, int* count,
    cudnnConvolutionFwdAlgoPerf_t* results) {
  STANDIN_LIBRARY(cudnnStatus_t, cudnnGetConvolutionForwardAlgorithm_v7);
  if (!handle) return CUDNN_STATUS_BAD_PARAM_NULL_POINTER;
  return find<cudnnConvolutionFwdAlgoPerf_t, cudnnConvolutionFwdAlgo_t>(x, w, convolution, y, asked, count, results,
                                                                        kForwardAlgorithm, kSlowForwardAlgorithm,
                                                                        nullptr);
}

cudnnStatus_t CUDNNWINAPI cudnnGetConvolutionBackwardDataAlgorithm_v7(
    cudnnHandle_t handle, const cudnnFilterDescriptor_t w, const cudnnTensorDescriptor_t dy,
    const cudnnConvolutionDescriptor_t convolution, const cudnnTensorDescriptor_t dx, const int asked, int* count,
    cudnnConvolutionBwdDataAlgoPerf_t* results) {
  STANDIN_LIBRARY(cudnnStatus_t, cudnnGetConvolutionBackwardDataAlgorithm_v7);
  if (!handle) return CUDNN_STATUS_BAD_PARAM_NULL_POINTER;
  return find<cudnnConvolutionBwdDataAlgoPerf_t, cudnnConvolutionBwdDataAlgo_t>(dx, w, convolution, dy, asked, count,
                                                                                results, kDataAlgorithm, kSlowDataAlgorithm,
                                                                                nullptr);
}

cudnnStatus_t CUDNNWINAPI cudnnGetConvolutionBackwardFilterAlgorithm_v7(
    cudnnHandle_t handle, const cudnnTensorDescriptor_t x, const cudnnTensorDescriptor_t dy,
    const cudnnConvolutionDescriptor_t convolution, const cudnnFilterDescriptor_t dw, const int asked, int* count,
    cudnnConvolutionBwdFilterAlgoPerf_t* results) {
  STANDIN_LIBRARY(cudnnStatus_t, cudnnGetConvolutionBackwardFilterAlgorithm_v7);
  if (!handle) return CUDNN_STATUS_BAD_PARAM_NULL_POINTER;
  return find<cudnnConvolutionBwdFilterAlgoPerf_t, cudnnConvolutionBwdFilterAlgo_t>(
      x, dw, convolution, dy, asked, count, results, kFilterAlgorithm, kSlowFilterAlgorithm, &kLooseAlgorithm);
}

cudnnStatus_t CUDNNWINAPI cudnnGetConvolutionForwardWorkspaceSize(
    cudnnHandle_t handle, const cudnnTensorDescriptor_t, const cudnnFilterDescriptor_t,
    const cudnnConvolutionDescriptor_t, const cudnnTensorDescriptor_t, cudnnConvolutionFwdAlgo_t, std::size_t* bytes) {
  STANDIN_LIBRARY(cudnnStatus_t, cudnnGetConvolutionForwardWorkspaceSize);
  if (!handle || !bytes) return CUDNN_STATUS_BAD_PARAM_NULL_POINTER;
  *bytes = kWorkspace;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t CUDNNWINAPI cudnnGetConvolutionBackwardDataWorkspaceSize(
    cudnnHandle_t handle, const cudnnFilterDescriptor_t, const cudnnTensorDescriptor_t,
    const cudnnConvolutionDescriptor_t, const cudnnTensorDescriptor_t, cudnnConvolutionBwdDataAlgo_t,
    std::size_t* bytes) {
  STANDIN_LIBRARY(cudnnStatus_t, cudnnGetConvolutionBackwardDataWorkspaceSize);
  if (!handle || !bytes) return CUDNN_STATUS_BAD_PARAM_NULL_POINTER;
  *bytes = kWorkspace;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t CUDNNWINAPI cudnnGetConvolutionBackwardFilterWorkspaceSize(
    cudnnHandle_t handle, const cudnnTensorDescriptor_t, const cudnnTensorDescriptor_t,
    const cudnnConvolutionDescriptor_t, const cudnnFilterDescriptor_t, cudnnConvolutionBwdFilterAlgo_t,
    std::size_t* bytes) {
  STANDIN_LIBRARY(cudnnStatus_t, cudnnGetConvolutionBackwardFilterWorkspaceSize);
  if (!handle || !bytes) return CUDNN_STATUS_BAD_PARAM_NULL_POINTER;
  *bytes = kWorkspace;
  return CUDNN_STATUS_SUCCESS;
}

// ---- convolutions

cudnnStatus_t CUDNNWINAPI cudnnConvolutionForward(cudnnHandle_t handle, const void* alpha,
                                                  const cudnnTensorDescriptor_t xd, const void* x,
                                                  const cudnnFilterDescriptor_t wd, const void* w,
                                                  const cudnnConvolutionDescriptor_t convolution,
                                                  cudnnConvolutionFwdAlgo_t algorithm, void* workspace,
                                                  std::size_t bytes, const void* beta, const cudnnTensorDescriptor_t yd,
                                                  void* y) {
  STANDIN_LIBRARY(cudnnStatus_t, cudnnConvolutionForward);
  if (algorithm != kForwardAlgorithm && algorithm != kSlowForwardAlgorithm) return CUDNN_STATUS_NOT_SUPPORTED;
  return enqueue(handle, Pass::kForward, alpha, beta, xd, x, wd, w, convolution, yd, y, y, workspace, bytes);
}

cudnnStatus_t CUDNNWINAPI cudnnConvolutionBackwardData(cudnnHandle_t handle, const void* alpha,
                                                       const cudnnFilterDescriptor_t wd, const void* w,
                                                       const cudnnTensorDescriptor_t dyd, const void* dy,
                                                       const cudnnConvolutionDescriptor_t convolution,
                                                       cudnnConvolutionBwdDataAlgo_t algorithm, void* workspace,
                                                       std::size_t bytes, const void* beta,
                                                       const cudnnTensorDescriptor_t dxd, void* dx) {
  STANDIN_LIBRARY(cudnnStatus_t, cudnnConvolutionBackwardData);
  if (algorithm != kDataAlgorithm && algorithm != kSlowDataAlgorithm) return CUDNN_STATUS_NOT_SUPPORTED;
  return enqueue(handle, Pass::kData, alpha, beta, dxd, dx, wd, w, convolution, dyd, dy, dx, workspace, bytes);
}

cudnnStatus_t CUDNNWINAPI cudnnConvolutionBackwardFilter(cudnnHandle_t handle, const void* alpha,
                                                         const cudnnTensorDescriptor_t xd, const void* x,
                                                         const cudnnTensorDescriptor_t dyd, const void* dy,
                                                         const cudnnConvolutionDescriptor_t convolution,
                                                         cudnnConvolutionBwdFilterAlgo_t algorithm, void* workspace,
                                                         std::size_t bytes, const void* beta,
                                                         const cudnnFilterDescriptor_t dwd, void* dw) {
  STANDIN_LIBRARY(cudnnStatus_t, cudnnConvolutionBackwardFilter);
  if (algorithm != kFilterAlgorithm && algorithm != kSlowFilterAlgorithm && algorithm != kLooseAlgorithm)
    return CUDNN_STATUS_NOT_SUPPORTED;
  return enqueue(handle, Pass::kFilter, alpha, beta, xd, x, dwd, dw, convolution, dyd, dy, dw, workspace, bytes);
}
