// Tests the stand-in itself: owl_standin_selftest <folder of the libraries> <prelude.h>
// With "race" as a third argument it runs a faulty program, which ThreadSanitizer must report.
#include "standin.h"

#include <cublasLt.h>
#include <cudnn.h>
#include <dlfcn.h>
#include <nccl.h>
#include <nvrtc.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <numeric>
#include <sstream>

namespace {

#define EXPECT(CONDITION) expect(CONDITION, #CONDITION, __LINE__)
void expect(bool condition, const char* text, int line) {
  if (condition) return;
  std::fprintf(stderr, "line %d: %s\n", line, text);
  std::_Exit(1);
}
#define OK(CALL) EXPECT((CALL) == 0)

std::string prelude, folder;

// A kernel adds operand 1 to operand 0, integer 3 elements of them, block by block, into 2.
const char* const kAdd = R"(
OWL_KERNEL(add) {
  const float *a = pointer<float>(args, 0), *b = pointer<float>(args, 1);
  float* c = pointer<float>(args, 2);
  const int64_t n = integer(args, 3);
  OWL_THREADS(t) {
    for (int64_t i = block * kBlock + t; i < n; i += int64_t{blocks} * kBlock) c[i] = a[i] + b[i];
  }
}
)";

std::string compile(const std::string& text, nvrtcResult expected = NVRTC_SUCCESS) {
  nvrtcProgram program = nullptr;
  OK(nvrtcCreateProgram(&program, text.c_str(), "owl.cu", 0, nullptr, nullptr));
  const char* const options[] = {"--gpu-architecture=sm_90"};
  const auto result = nvrtcCompileProgram(program, 1, options);
  std::size_t bytes = 0;
  OK(nvrtcGetProgramLogSize(program, &bytes));
  std::string out(bytes, 0);
  OK(nvrtcGetProgramLog(program, out.data()));
  if (result != expected) std::fprintf(stderr, "%s\n", out.c_str());
  EXPECT(result == expected);
  if (result == NVRTC_SUCCESS) {
    OK(nvrtcGetCUBINSize(program, &bytes));
    out.resize(bytes);
    OK(nvrtcGetCUBIN(program, out.data()));
  }
  OK(nvrtcDestroyProgram(&program));
  return out;
}

struct Slots {
  std::uint64_t slot[4];
  void* pointer() { return slot; }
};

CUdeviceptr allocate(std::size_t bytes) {
  CUdeviceptr data = 0;
  OK(cuMemAlloc(&data, bytes));
  return data;
}

template <class T> T* pinned(std::size_t count) {
  void* data = nullptr;
  OK(cuMemHostAlloc(&data, count * sizeof(T), CU_MEMHOSTALLOC_PORTABLE));
  return static_cast<T*>(data);
}

template <class T> CUdeviceptr upload(const std::vector<T>& values) {
  const auto data = allocate(values.size() * sizeof(T));
  OK(cuMemcpyHtoDAsync(data, values.data(), values.size() * sizeof(T), nullptr));
  OK(cuStreamSynchronize(nullptr));
  return data;
}

template <class T> std::vector<T> download(CUdeviceptr data, std::size_t count) {
  std::vector<T> values(count);
  OK(cuMemcpyDtoHAsync(values.data(), data, count * sizeof(T), nullptr));  // pageable: complete when it returns
  return values;
}

CUresult launch(CUfunction add, CUstream stream, CUdeviceptr a, CUdeviceptr b, CUdeviceptr c, std::uint64_t n) {
  Slots slots{{a, b, c, n}};
  void* argument = slots.pointer();
  const auto result = cuLaunchKernel(add, 3, 1, 1, 256, 1, 1, 0, stream, &argument, nullptr);
  slots = {};  // the launch has copied them
  return result;
}

CUcontext contexts[2];
CUfunction add[2];

void open() {
  EXPECT(cuCtxSetCurrent(nullptr) == CUDA_ERROR_NOT_INITIALIZED);
  int version = 0, count = 0, major = 0, can = 0;
  OK(cuDriverGetVersion(&version));
  EXPECT(version == 13000);
  OK(cuInit(0));
  OK(cuDeviceGetCount(&count));
  EXPECT(count == 2);
  OK(cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 1));
  EXPECT(major == 9);
  OK(cuDeviceCanAccessPeer(&can, 0, 1));
  EXPECT(can == 1);
  CUstream none = nullptr;
  EXPECT(cuStreamCreate(&none, CU_STREAM_NON_BLOCKING) == CUDA_ERROR_INVALID_CONTEXT);
  // The other libraries' names lead to this one.
  for (const auto& [file, name] : {std::pair{"libnvrtc.so.13", "nvrtcVersion"}, {"libcublasLt.so.13", "cublasLtMatmul"},
                                   {"libcudnn.so.9", "cudnnConvolutionForward"}, {"libnccl.so.2", "ncclAllReduce"}}) {
    void* const library = dlopen((folder + "/" + file).c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) std::fprintf(stderr, "%s\n", dlerror());
    EXPECT(library && dlsym(library, name));
    EXPECT(dlopen(file, RTLD_NOW | RTLD_LOCAL) == library);
  }
  const std::string error = compile(prelude + "nonsense", NVRTC_ERROR_COMPILATION);
  EXPECT(error.find("nonsense") != std::string::npos);
  const auto code = compile(prelude + kAdd);
  for (int device = 0; device < 2; ++device) {
    OK(cuDevicePrimaryCtxRetain(&contexts[device], device));
    OK(cuCtxSetCurrent(contexts[device]));
    CUmodule module = nullptr;
    EXPECT(cuModuleLoadData(&module, "no image at all") == CUDA_ERROR_INVALID_IMAGE);
    OK(cuModuleLoadData(&module, code.data()));
    EXPECT(cuModuleGetFunction(&add[device], module, "sub") == CUDA_ERROR_NOT_FOUND);
    OK(cuModuleGetFunction(&add[device], module, "add"));
  }
  OK(cuCtxSetCurrent(contexts[0]));
}

void memory() {
  std::size_t free = 0, total = 0, less = 0;
  OK(cuMemGetInfo(&free, &total));
  CUdeviceptr data = 0;
  EXPECT(cuMemAlloc(&data, total + 1) == CUDA_ERROR_OUT_OF_MEMORY);
  data = allocate(1000);
  EXPECT(data % 256 == 0);
  OK(cuMemGetInfo(&less, &total));
  EXPECT(free - less == 1000);
  EXPECT(download<unsigned char>(data, 1000)[999] == 0xCD);
  char host[1001] = {};
  EXPECT(cuMemcpyHtoDAsync(data, host, 1001, nullptr) == CUDA_ERROR_INVALID_VALUE);
  EXPECT(cuMemcpyDtoHAsync(host, data + 1, 1000, nullptr) == CUDA_ERROR_INVALID_VALUE);
  OK(cuMemsetD8Async(data + 1, 7, 998, nullptr));
  const auto bytes = download<unsigned char>(data, 1000);
  EXPECT(bytes[0] == 0xCD && bytes[1] == 7 && bytes[998] == 7 && bytes[999] == 0xCD);
  OK(cuMemFree(data));
  EXPECT(cuMemFree(data) == CUDA_ERROR_INVALID_VALUE);
}

void streams() {
  constexpr std::size_t n = 1000;
  CUstream in, work, other;
  OK(cuStreamCreate(&in, CU_STREAM_NON_BLOCKING));
  OK(cuStreamCreate(&work, CU_STREAM_NON_BLOCKING));
  CUevent arrived, done;
  OK(cuEventCreate(&arrived, CU_EVENT_DISABLE_TIMING));
  OK(cuEventCreate(&done, CU_EVENT_DISABLE_TIMING));
  EXPECT(cuEventQuery(done) == CUDA_SUCCESS);  // never recorded
  OK(cuStreamWaitEvent(work, done, 0));
  auto *const x = pinned<float>(n), *const y = pinned<float>(n);
  std::iota(x, x + n, 0.0f);
  const auto a = allocate(n * 4), b = allocate(n * 4);
  OK(cuMemsetD8Async(b, 0, n * 4, work));
  for (int turn = 1; turn <= 20; ++turn) {
    OK(cuMemcpyHtoDAsync(a, x, n * 4, in));
    OK(cuEventRecord(arrived, in));
    OK(cuStreamWaitEvent(work, arrived, 0));
    OK(launch(add[0], work, a, b, b, n));
    OK(cuEventRecord(done, work));
    OK(cuStreamWaitEvent(in, done, 0));
  }
  OK(cuMemcpyDtoHAsync(y, b, n * 4, work));
  OK(cuEventRecord(done, work));
  OK(cuEventSynchronize(done));
  EXPECT(y[n - 1] == 20 * 999.0f);
  EXPECT(cuStreamQuery(work) == CUDA_SUCCESS);
  // A late event, and a wait across devices.
  standin_delay(100000);
  OK(cuMemsetD8Async(a, 0, n * 4, in));
  OK(cuMemsetD8Async(a, 1, n * 4, in));
  OK(cuMemsetD8Async(a, 0, n * 4, in));
  OK(cuEventRecord(arrived, in));
  EXPECT(cuEventQuery(arrived) == CUDA_ERROR_NOT_READY && cuStreamQuery(in) == CUDA_ERROR_NOT_READY);
  OK(cuCtxSetCurrent(contexts[1]));
  OK(cuStreamCreate(&other, CU_STREAM_NON_BLOCKING));
  EXPECT(launch(add[1], work, a, a, a, n) == CUDA_ERROR_INVALID_HANDLE);
  EXPECT(launch(add[0], other, a, a, a, n) == CUDA_ERROR_INVALID_HANDLE);
  EXPECT(cuEventRecord(arrived, other) == CUDA_ERROR_INVALID_HANDLE);
  const auto there = allocate(n * 4);
  OK(cuStreamWaitEvent(other, arrived, 0));
  OK(cuMemcpyPeerAsync(there, contexts[1], a, contexts[0], n * 4, other));
  OK(cuMemcpyDtoHAsync(y, there, n * 4, other));
  OK(cuStreamSynchronize(other));
  standin_delay(0);
  EXPECT(y[5] == 0);
  OK(cuMemFree(there));
  OK(cuCtxSetCurrent(contexts[0]));
  OK(cuMemcpyHtoDAsync(a, x, n * 4, in));
  OK(cuStreamDestroy(in));
  EXPECT(cuStreamSynchronize(in) == CUDA_ERROR_INVALID_HANDLE);
  for (const CUstream plain : {CUstream{nullptr}, CU_STREAM_LEGACY, CU_STREAM_PER_THREAD}) {
    OK(cuEventRecord(done, plain));
    OK(cuStreamWaitEvent(plain, done, 0));
    OK(launch(add[0], plain, b, b, b, n));
    OK(cuStreamSynchronize(plain));
  }
  OK(cuMemFree(a));  // waits for the destroyed stream
  OK(cuMemFree(b));
  OK(cuMemFreeHost(x));
  OK(cuMemFreeHost(y));
  OK(cuEventDestroy(done));
  EXPECT(cuEventQuery(done) == CUDA_ERROR_INVALID_HANDLE);
}

void graphs() {
  constexpr std::size_t n = 300;
  CUstream stream;
  CUevent event;
  OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  OK(cuEventCreate(&event, 0));
  OK(cuEventRecord(event, stream));
  const auto a = upload(std::vector<float>(n, 1)), b = upload(std::vector<float>(n, 0)),
             c = upload(std::vector<float>(n, 100));
  OK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
  OK(launch(add[0], stream, a, b, b, n));
  CUstreamCaptureStatus status;
  CUgraph graph = nullptr;
  const CUgraphNode* last = nullptr;
  std::size_t count = 0;
  OK(cuStreamGetCaptureInfo(stream, &status, nullptr, &graph, &last, nullptr, &count));
  EXPECT(status == CU_STREAM_CAPTURE_STATUS_ACTIVE && count == 1);
  const CUgraphNode first = *last;
  OK(launch(add[0], stream, b, b, b, n));
  OK(cuStreamGetCaptureInfo(stream, &status, nullptr, &graph, &last, nullptr, &count));
  EXPECT(count == 1 && *last != first);
  OK(cuMemFree(allocate(10)));  // allowed in this mode
  OK(cuStreamEndCapture(stream, &graph));
  EXPECT(download<float>(b, n)[0] == 0);
  CUgraphExec exec = nullptr;
  OK(cuGraphInstantiate(&exec, graph, 0));
  OK(cuGraphLaunch(exec, stream));  // (0 + 1) * 2
  Slots slots{{c, b, b, n}};
  void* argument = slots.pointer();
  CUDA_KERNEL_NODE_PARAMS params{};
  params.func = add[0];
  params.gridDimX = params.gridDimY = params.gridDimZ = params.blockDimX = params.blockDimY = params.blockDimZ = 1;
  params.kernelParams = &argument;
  OK(cuGraphExecKernelNodeSetParams(exec, first, &params));
  OK(cuGraphLaunch(exec, stream));  // (2 + 100) * 2
  params.func = add[1];
  EXPECT(cuGraphExecKernelNodeSetParams(exec, first, &params) == CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE);
  params.func = add[0];
  OK(cuGraphDestroy(graph));
  EXPECT(cuGraphExecKernelNodeSetParams(exec, first, &params) == CUDA_ERROR_INVALID_VALUE);
  OK(cuGraphExecDestroy(exec));
  OK(cuStreamSynchronize(stream));
  EXPECT(download<float>(b, n)[n - 1] == 204);
  // Calls that a capture forbids.
  const auto broken = [&](CUstreamCaptureMode mode, const std::function<CUresult()>& call) {
    OK(cuStreamBeginCapture(stream, mode));
    const auto result = call();
    EXPECT(cuStreamEndCapture(stream, &graph) == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED && !graph);
    return result;
  };
  EXPECT(broken(CU_STREAM_CAPTURE_MODE_RELAXED, [&] { return cuStreamWaitEvent(stream, event, 0); }) ==
         CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
  EXPECT(broken(CU_STREAM_CAPTURE_MODE_RELAXED, [&] { return cuStreamSynchronize(stream); }) ==
         CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  EXPECT(broken(CU_STREAM_CAPTURE_MODE_RELAXED, [&] { return cuStreamQuery(stream); }) ==
         CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  float host[n];
  EXPECT(broken(CU_STREAM_CAPTURE_MODE_RELAXED, [&] { return cuMemcpyDtoHAsync(host, b, n * 4, stream); }) ==
         CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  CUdeviceptr data = 0;
  EXPECT(broken(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL, [&] { return cuMemAlloc(&data, 10); }) ==
         CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  // An event within a capture.
  OK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
  OK(cuEventRecord(event, stream));
  OK(cuStreamWaitEvent(stream, event, 0));
  OK(cuStreamEndCapture(stream, &graph));
  EXPECT(cuEventQuery(event) == CUDA_ERROR_CAPTURED_EVENT);
  OK(cuGraphDestroy(graph));
}

// A capture on one thread, and another thread's calls meanwhile.
void captures_elsewhere() {
  CUstream stream, other;
  CUevent event;
  CUgraph graph = nullptr;
  OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  OK(cuStreamCreate(&other, CU_STREAM_NON_BLOCKING));
  OK(cuEventCreate(&event, 0));
  OK(cuEventRecord(event, other));
  const auto elsewhere = [&](CUstreamCaptureMode capture, CUstreamCaptureMode mode, CUresult expected) {
    OK(cuStreamBeginCapture(stream, capture));
    std::thread([&] {
      OK(cuCtxSetCurrent(contexts[0]));
      CUstreamCaptureMode before = mode;
      OK(cuThreadExchangeStreamCaptureMode(&before));
      EXPECT(before == CU_STREAM_CAPTURE_MODE_GLOBAL);
      EXPECT(cuEventSynchronize(event) == expected);
      EXPECT(cuEventQuery(event) == expected);
      CUdeviceptr data = 0;
      EXPECT(cuMemAlloc(&data, 10) == expected);
      if (data) OK(cuMemFree(data));
    }).join();
    EXPECT(cuStreamEndCapture(stream, &graph) ==
           (expected == CUDA_SUCCESS ? CUDA_SUCCESS : CUDA_ERROR_STREAM_CAPTURE_INVALIDATED));
    if (graph) OK(cuGraphDestroy(graph));
  };
  constexpr auto global = CU_STREAM_CAPTURE_MODE_GLOBAL, local = CU_STREAM_CAPTURE_MODE_THREAD_LOCAL,
                 relaxed = CU_STREAM_CAPTURE_MODE_RELAXED;
  elsewhere(global, global, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  elsewhere(global, local, CUDA_SUCCESS);
  elsewhere(global, relaxed, CUDA_SUCCESS);
  elsewhere(local, global, CUDA_SUCCESS);
  elsewhere(relaxed, global, CUDA_SUCCESS);
  // No capture mode allows waiting for the whole device.
  OK(cuStreamBeginCapture(stream, relaxed));
  EXPECT(cuCtxSynchronize() == CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  EXPECT(cuStreamEndCapture(stream, &graph) == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  OK(cuCtxSynchronize());
}

// A graph of added nodes with a captured part.
void graphs_in_parts() {
  constexpr std::size_t n = 300;
  CUstream stream;
  CUgraph graph = nullptr, same = nullptr;
  CUgraphNode first = nullptr, last = nullptr;
  OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  const auto a = upload(std::vector<float>(n, 1)), b = upload(std::vector<float>(n, 0));
  Slots slots{{a, b, b, n}};
  void* argument = slots.pointer();
  CUDA_KERNEL_NODE_PARAMS params{};
  params.func = add[0];
  params.gridDimX = 3, params.blockDimX = 256;
  params.gridDimY = params.gridDimZ = params.blockDimY = params.blockDimZ = 1;
  params.kernelParams = &argument;
  OK(cuGraphCreate(&graph, 0));
  OK(cuGraphAddKernelNode(&first, graph, nullptr, 0, &params));
  EXPECT(cuGraphAddKernelNode(&last, graph, nullptr, 0, &params) == CUDA_ERROR_INVALID_VALUE);  // after no node
  EXPECT(cuStreamBeginCaptureToGraph(stream, graph, nullptr, nullptr, 0, CU_STREAM_CAPTURE_MODE_RELAXED) ==
         CUDA_ERROR_INVALID_VALUE);
  OK(cuStreamBeginCaptureToGraph(stream, graph, &first, nullptr, 1, CU_STREAM_CAPTURE_MODE_RELAXED));
  OK(launch(add[0], stream, b, b, b, n));
  EXPECT(cuGraphAddKernelNode(&last, graph, &first, 1, &params) == CUDA_ERROR_INVALID_VALUE);  // while it is captured
  CUstreamCaptureStatus status;
  const CUgraphNode* nodes = nullptr;
  std::size_t count = 0;
  OK(cuStreamGetCaptureInfo(stream, &status, nullptr, &same, &nodes, nullptr, &count));
  EXPECT(same == graph && count == 1 && nodes[0] != first);
  const CUgraphNode middle = nodes[0];
  OK(cuStreamEndCapture(stream, &same));
  OK(cuGraphAddKernelNode(&last, graph, &middle, 1, &params));
  CUgraphExec exec = nullptr;
  OK(cuGraphInstantiate(&exec, graph, 0));
  OK(cuGraphLaunch(exec, stream));
  OK(cuStreamSynchronize(stream));
  EXPECT(download<float>(b, n)[n - 1] == 3);  // (0 + 1) * 2 + 1
  // An invalidated capture leaves the graph to its owner.
  OK(cuStreamBeginCaptureToGraph(stream, graph, &last, nullptr, 1, CU_STREAM_CAPTURE_MODE_RELAXED));
  EXPECT(cuStreamQuery(stream) == CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  EXPECT(cuStreamEndCapture(stream, &same) == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED && !same);
  OK(cuGraphExecDestroy(exec));
  OK(cuGraphDestroy(graph));
}

void numbers_and_host_functions() {
  CUstream stream;
  unsigned long long id = 0, plain = 0, own = 0, others = 0;
  OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  OK(cuStreamGetId(stream, &id));
  OK(cuStreamGetId(CU_STREAM_LEGACY, &plain));
  OK(cuStreamGetId(CU_STREAM_PER_THREAD, &own));
  std::thread([&] {
    OK(cuCtxSetCurrent(contexts[0]));
    OK(cuStreamGetId(CU_STREAM_PER_THREAD, &others));
  }).join();
  EXPECT(id != plain && own != plain && own != others);
  std::atomic<int> called{0};
  OK(cuLaunchHostFunc(stream, [](void* p) { ++*static_cast<std::atomic<int>*>(p); }, &called));
  OK(cuStreamSynchronize(stream));
  EXPECT(called == 1);
  OK(cuStreamDestroy(stream));
  EXPECT(cuStreamGetId(stream, &id) == CUDA_ERROR_INVALID_HANDLE);
}

std::vector<float> product(cublasComputeType_t compute, bool transposed, bool bias) {
  // a is 3 x 2, b 2 x 4
  const std::vector<float> a = transposed ? std::vector<float>{1, 4, 2, 5, 3, 6} : std::vector<float>{1, 2, 3, 4, 5, 6};
  const auto da = upload(a), db = upload(std::vector<float>{1, 0, 0, 1, 1, 1, 1.001953125f, 0}),
             dd = allocate(12 * 4), dv = upload(std::vector<float>{10, 20, 30});
  cublasLtHandle_t handle;
  cublasLtMatmulDesc_t description;
  cublasLtMatrixLayout_t la, lb, ld;
  cublasLtMatmulPreference_t preference;
  OK(cublasLtCreate(&handle));
  OK(cublasLtMatmulDescCreate(&description, compute, CUDA_R_32F));
  const cublasOperation_t operation = transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
  OK(cublasLtMatmulDescSetAttribute(description, CUBLASLT_MATMUL_DESC_TRANSA, &operation, sizeof operation));
  const cublasLtEpilogue_t epilogue = bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
  OK(cublasLtMatmulDescSetAttribute(description, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue));
  OK(cublasLtMatmulDescSetAttribute(description, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &dv, sizeof dv));
  OK(cublasLtMatrixLayoutCreate(&la, CUDA_R_32F, transposed ? 2 : 3, transposed ? 3 : 2, transposed ? 2 : 3));
  OK(cublasLtMatrixLayoutCreate(&lb, CUDA_R_32F, 2, 4, 2));
  OK(cublasLtMatrixLayoutCreate(&ld, CUDA_R_32F, 3, 4, 3));
  OK(cublasLtMatmulPreferenceCreate(&preference));
  cublasLtMatmulHeuristicResult_t found{};
  int count = 0;
  OK(cublasLtMatmulAlgoGetHeuristic(handle, description, la, lb, ld, ld, preference, 1, &found, &count));
  EXPECT(count == 1 && found.workspaceSize == 0);
  const float one = 1, zero = 0;
  const auto at = [](CUdeviceptr data) { return reinterpret_cast<void*>(data); };
  OK(cublasLtMatmul(handle, description, &one, at(da), la, at(db), lb, &zero, at(dd), ld, at(dd), ld, &found.algo,
                    nullptr, 0, nullptr));
  EXPECT(cublasLtMatmul(handle, description, &one, at(da + 4), la, at(db), lb, &zero, at(dd), ld, at(dd), ld,
                        &found.algo, nullptr, 0, nullptr) == CUBLAS_STATUS_INVALID_VALUE);
  auto result = download<float>(dd, 12);
  for (const auto data : {da, db, dd, dv}) OK(cuMemFree(data));
  OK(cublasLtMatmulDescDestroy(description));
  for (const auto layout : {la, lb, ld}) OK(cublasLtMatrixLayoutDestroy(layout));
  OK(cublasLtMatmulPreferenceDestroy(preference));
  OK(cublasLtDestroy(handle));
  return result;
}

void products() {
  for (const bool transposed : {false, true}) {
    const auto plain = product(CUBLAS_COMPUTE_32F, transposed, false);
    EXPECT((std::vector<float>(plain.begin(), plain.begin() + 9) == std::vector<float>{1, 2, 3, 4, 5, 6, 5, 7, 9}));
    EXPECT(plain[9] == 1.001953125f);
    EXPECT(product(CUBLAS_COMPUTE_32F, transposed, true)[0] == 11);
    EXPECT(product(CUBLAS_COMPUTE_32F_FAST_TF32, transposed, false)[9] == 1.001953125f);
    EXPECT(product(CUBLAS_COMPUTE_32F_FAST_16BF, transposed, false)[9] == 1);
  }
}

// Gradients by their definition: <err, conv(x, w)> = <back_data(err, w), x> = <back_filter(err, x), w>.
void convolutions() {
  cudnnHandle_t handle;
  OK(cudnnCreate(&handle));
  OK(cudnnSetStream(handle, nullptr));
  cudnnTensorDescriptor_t xd, yd;
  cudnnFilterDescriptor_t wd;
  cudnnConvolutionDescriptor_t convolution;
  OK(cudnnCreateTensorDescriptor(&xd));
  OK(cudnnCreateTensorDescriptor(&yd));
  OK(cudnnCreateFilterDescriptor(&wd));
  OK(cudnnCreateConvolutionDescriptor(&convolution));
  OK(cudnnSetTensor4dDescriptor(xd, CUDNN_TENSOR_NCHW, CUDNN_DATA_DOUBLE, 2, 4, 7, 6));
  OK(cudnnSetFilter4dDescriptor(wd, CUDNN_DATA_DOUBLE, CUDNN_TENSOR_NCHW, 6, 2, 3, 2));
  OK(cudnnSetTensor4dDescriptor(yd, CUDNN_TENSOR_NCHW, CUDNN_DATA_DOUBLE, 2, 6, 4, 6));
  OK(cudnnSetConvolution2dDescriptor(convolution, 1, 1, 2, 1, 1, 2, CUDNN_CROSS_CORRELATION, CUDNN_DATA_DOUBLE));
  OK(cudnnSetConvolutionGroupCount(convolution, 2));
  const auto some = [](std::size_t count) {
    std::vector<double> values(count);
    for (std::size_t i = 0; i < count; ++i) values[i] = std::sin(static_cast<double>(i * count));
    return values;
  };
  const auto x = some(2 * 4 * 7 * 6), w = some(6 * 2 * 3 * 2), err = some(2 * 6 * 4 * 6);
  const auto dx = upload(x), dw = upload(w), derr = upload(err), gx = allocate(x.size() * 8),
             gw = allocate(w.size() * 8), dy = allocate(err.size() * 8), workspace = allocate(1024);
  const auto at = [](CUdeviceptr data) { return reinterpret_cast<void*>(data); };
  const double one = 1, zero = 0;
  int count = 0;
  cudnnConvolutionFwdAlgoPerf_t forward[4];
  OK(cudnnGetConvolutionForwardAlgorithm_v7(handle, xd, wd, convolution, yd, 4, &count, forward));
  EXPECT(count == 2 && forward[1].determinism == CUDNN_DETERMINISTIC);
  cudnnConvolutionBwdDataAlgoPerf_t data[4];
  OK(cudnnGetConvolutionBackwardDataAlgorithm_v7(handle, wd, yd, convolution, xd, 4, &count, data));
  cudnnConvolutionBwdFilterAlgoPerf_t filter[4];
  OK(cudnnGetConvolutionBackwardFilterAlgorithm_v7(handle, xd, yd, convolution, wd, 4, &count, filter));
  EXPECT(count == 3 && filter[0].determinism == CUDNN_NON_DETERMINISTIC);
  EXPECT(filter[1].determinism == CUDNN_DETERMINISTIC);
  OK(cudnnConvolutionForward(handle, &one, xd, at(dx), wd, at(dw), convolution, forward[0].algo, at(workspace), 1024,
                             &zero, yd, at(dy)));
  OK(cudnnConvolutionBackwardData(handle, &one, wd, at(dw), yd, at(derr), convolution, data[0].algo, at(workspace),
                                  1024, &zero, xd, at(gx)));
  OK(cudnnConvolutionBackwardFilter(handle, &one, xd, at(dx), yd, at(derr), convolution, filter[1].algo, at(workspace),
                                    1024, &zero, wd, at(gw)));
  const auto dot = [](const std::vector<double>& a, CUdeviceptr b) {
    const auto values = download<double>(b, a.size());
    return std::inner_product(a.begin(), a.end(), values.begin(), 0.0);
  };
  const double expected = dot(err, dy);
  EXPECT(std::abs(expected) > 1e-3 && std::abs(dot(x, gx) - expected) < 1e-9 && std::abs(dot(w, gw) - expected) < 1e-9);
  for (const auto each : {dx, dw, derr, gx, gw, dy, workspace}) OK(cuMemFree(each));
  OK(cudnnDestroyTensorDescriptor(xd));
  OK(cudnnDestroyTensorDescriptor(yd));
  OK(cudnnDestroyFilterDescriptor(wd));
  OK(cudnnDestroyConvolutionDescriptor(convolution));
  OK(cudnnDestroy(handle));
}

void sums() {
  ncclComm_t ranks[2];
  CUstream streams[2];
  CUdeviceptr data[2];
  const int devices[] = {0, 1};
  OK(ncclCommInitAll(ranks, 2, devices));
  for (int i = 0; i < 2; ++i) {
    OK(cuCtxSetCurrent(contexts[i]));
    OK(cuStreamCreate(&streams[i], CU_STREAM_NON_BLOCKING));
    data[i] = upload(std::vector<float>{1.0f + static_cast<float>(i), 5});
  }
  for (int turn = 0; turn < 2; ++turn) {
    OK(ncclGroupStart());
    for (int i = 0; i < 2; ++i) {
      void* const at = reinterpret_cast<void*>(data[i]);
      OK(ncclAllReduce(at, at, 2, ncclFloat32, ncclSum, ranks[i], streams[i]));
    }
    OK(ncclGroupEnd());
  }
  for (int i = 0; i < 2; ++i) {
    OK(cuCtxSetCurrent(contexts[i]));
    OK(cuStreamSynchronize(streams[i]));
    EXPECT((download<float>(data[i], 2) == std::vector<float>{6, 20}));
    OK(cuMemFree(data[i]));
    OK(ncclCommDestroy(ranks[i]));
  }
  OK(cuCtxSetCurrent(contexts[0]));
}

void failures() {
  CUdeviceptr data = 0;
  const auto before = standin_count("cuMemAlloc");
  standin_fail("cuMemAlloc:2:2,nvrtcVersion:1:11");
  OK(cuMemFree(allocate(10)));
  EXPECT(cuMemAlloc(&data, 10) == CUDA_ERROR_OUT_OF_MEMORY);
  OK(cuMemFree(allocate(10)));
  EXPECT(standin_count("cuMemAlloc") == before + 3);
  int major = 0, minor = 0;
  EXPECT(nvrtcVersion(&major, &minor) == NVRTC_ERROR_INTERNAL_ERROR);
  standin_fail("cuStreamSynchronize:1:700");
  EXPECT(cuStreamSynchronize(nullptr) == CUDA_ERROR_ILLEGAL_ADDRESS);
  EXPECT(cuMemAlloc(&data, 10) == CUDA_ERROR_ILLEGAL_ADDRESS);
  standin_fail("");
  OK(cuMemFree(allocate(10)));
}

void logs() {
  const auto path = folder + "/selftest.log";
  std::remove(path.c_str());
  standin_log(path.c_str());
  const auto data = allocate(65536);
  OK(cuMemsetD8Async(data, 0, 65536, nullptr));
  OK(launch(add[0], nullptr, data, data, data, 100));
  OK(cuMemFree(data));
  standin_log("");
  std::ostringstream all;
  all << std::ifstream(path).rdbuf();
  EXPECT(all.str() == "gpu 0: alloc 65536\ngpu 0 stream 0: memset 65536\ngpu 0 stream 0: launch add blocks 3\n"
                      "gpu 0: free 65536\n");
}

// Reads pinned memory without waiting for the copy into it.
void race() {
  auto* const host = pinned<int>(1);
  const auto data = upload(std::vector<int>{5});
  OK(cuMemcpyDtoHAsync(host, data, 4, nullptr));
  usleep(100000);
  CUdeviceptr other = 0;  // calls that do not wait do not order
  OK(cuMemAlloc(&other, 4));
  OK(cuMemsetD8Async(other, 0, 4, nullptr));
  std::printf("read %d\n", *host);
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 3) return std::puts("arguments: <folder of the libraries> <prelude.h>"), 2;
  folder = arguments[1];
  std::ostringstream text;
  text << "#define OWL_SLOTS 4\n#include <cstdint>\nusing Index = std::int32_t;\n";
  text << std::ifstream(arguments[2]).rdbuf();
  prelude = text.str();
  open();
  if (count > 3) return race(), 0;
  memory();
  streams();
  graphs();
  captures_elsewhere();
  graphs_in_parts();
  numbers_and_host_functions();
  products();
  convolutions();
  sums();
  failures();
  logs();
  std::puts("ok");
}
