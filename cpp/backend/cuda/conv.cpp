// Convolutions and their gradients, by cuDNN. A column-major [W, H, C, N] is cuDNN's NCHW.
#include <algorithm>
#include <cstring>

#include "backend/cuda/kernels.h"
#include "base/visit_dtype.h"
#include "ops/nn.h"
#include "owl/error.h"

namespace owl::cuda {

namespace {

constexpr std::size_t kMostWorkspace = std::size_t{1} << 28, kSpareWorkspace = std::size_t{1} << 25;  // bytes

enum class Pass { kForward, kData, kWeight };

// An algorithm that the library proposes for a convolution.
struct Algorithm {
  int number;
  std::size_t workspace;
  cudnnMathType_t math;
};

// The deterministic algorithms, the fastest first. The first may use kMostWorkspace; those that replace it if cuDNN
// refuses it after all, at most its workspace or kSpareWorkspace.
template <class Performance>
std::vector<Algorithm> proposals_of(const Performance* found, int count, const std::string& what) {
  std::vector<Algorithm> all;
  for (int i = 0; i < count; ++i) {
    const auto most = all.empty() ? kMostWorkspace : std::max(kSpareWorkspace, all[0].workspace);
    if (found[i].status == CUDNN_STATUS_SUCCESS && found[i].memory <= most &&
        found[i].determinism == CUDNN_DETERMINISTIC)
      all.push_back({static_cast<int>(found[i].algo), found[i].memory, found[i].mathType});
  }
  if (all.empty())
    throw DeviceError(what + ": cuDNN has no deterministic algorithm for it in " + std::to_string(kMostWorkspace) +
                      " bytes of memory");
  return all;
}

class Convolution final : public LibraryCall {
 public:
  Convolution(Resources& resources, Pass pass, const ConvGeometry& g, DType dtype, MatmulPrecision precision)
      : handle_(resources.cudnn_handle(false)),
        pass_(pass),
        double_(visit_float("conv", dtype, []<class T>() { return std::is_same_v<T, double>; })),
        in_full_(precision == MatmulPrecision::kFloat32) {
    const Cudnn& c = cudnn();
    const auto planning = resources.cudnn_handle(true);
    const auto type = double_ ? CUDNN_DATA_DOUBLE : CUDNN_DATA_FLOAT;
    const auto number = [](std::int64_t n) {
      if (n > INT32_MAX) throw DeviceError("conv: a length of " + std::to_string(n) + " is more than cuDNN takes");
      return static_cast<int>(n);
    };
    constexpr const char* names[] = {"conv", "conv_back_data", "conv_back_weight"};
    text_ = std::string(names[static_cast<int>(pass)]) + " " + std::to_string(g.images) + "x" +
            std::to_string(g.channels) + "x" + std::to_string(g.height) + "x" + std::to_string(g.width) + " by " +
            std::to_string(g.filters) + "x" + std::to_string(g.kernel_y) + "x" + std::to_string(g.kernel_x);
    const char* const what = text_.c_str();
    check(c.cudnnCreateTensorDescriptor(x_.address()), what);
    check(c.cudnnSetTensor4dDescriptor(x_, CUDNN_TENSOR_NCHW, type, number(g.images), number(g.channels),
                                       number(g.height), number(g.width)),
          what);
    check(c.cudnnCreateTensorDescriptor(y_.address()), what);
    check(c.cudnnSetTensor4dDescriptor(y_, CUDNN_TENSOR_NCHW, type, number(g.images), number(g.filters),
                                       number(g.out_height), number(g.out_width)),
          what);
    check(c.cudnnCreateFilterDescriptor(w_.address()), what);
    check(c.cudnnSetFilter4dDescriptor(w_, type, CUDNN_TENSOR_NCHW, number(g.filters), number(g.channels / g.groups),
                                       number(g.kernel_y), number(g.kernel_x)),
          what);
    check(c.cudnnCreateConvolutionDescriptor(convolution_.address()), what);
    check(c.cudnnSetConvolution2dDescriptor(convolution_, number(g.pad_y), number(g.pad_x), number(g.stride_y),
                                            number(g.stride_x), number(g.dilation_y), number(g.dilation_x),
                                            CUDNN_CROSS_CORRELATION, type),
          what);
    check(c.cudnnSetConvolutionGroupCount(convolution_, number(g.groups)), what);
    // cuDNN's default would use TF32. "tf32" and "bfloat16" both allow it, because cuDNN cannot round operands to
    // bfloat16 here.
    check(c.cudnnSetConvolutionMathType(convolution_, in_full_ ? CUDNN_FMA_MATH : CUDNN_TENSOR_OP_MATH), what);
    constexpr int kAsked = 24;  // cuDNN proposes each algorithm with several math types
    int count = 0;
    if (pass == Pass::kForward) {
      cudnnConvolutionFwdAlgoPerf_t found[kAsked];
      check(c.cudnnGetConvolutionForwardAlgorithm_v7(planning, x_, w_, convolution_, y_, kAsked, &count, found), what);
      proposals_ = proposals_of(found, count, text_);
    } else if (pass == Pass::kData) {
      cudnnConvolutionBwdDataAlgoPerf_t found[kAsked];
      check(c.cudnnGetConvolutionBackwardDataAlgorithm_v7(planning, w_, y_, convolution_, x_, kAsked, &count, found),
            what);
      proposals_ = proposals_of(found, count, text_);
    } else {
      cudnnConvolutionBwdFilterAlgoPerf_t found[kAsked];
      check(c.cudnnGetConvolutionBackwardFilterAlgorithm_v7(planning, x_, y_, convolution_, w_, kAsked, &count, found),
            what);
      proposals_ = proposals_of(found, count, text_);
    }
    for (const auto& each : proposals_) workspace_bytes_ = std::max(workspace_bytes_, each.workspace);
    if (workspace_bytes_ > 0) workspace_ = resources.workspace(workspace_bytes_);
    set_math();
  }

  // Operands and result in the order of owl's operation: x, w -> y; err, w -> dx; err, x -> dw.
  void run(CUstream stream, const std::vector<Memory>& memory) const override {
    check(cudnn().cudnnSetStream(handle_, stream), text_.c_str());
    auto status = try_now(memory);
    for (; is_refusal(status) && chosen_ + 1 < proposals_.size(); status = try_now(memory)) {
      ++chosen_;
      set_math();
    }
    check(status, text_.c_str());
  }
  std::string text() const override { return text_; }

 private:
  static bool is_refusal(cudnnStatus_t status) { return status / 1000 == CUDNN_STATUS_NOT_SUPPORTED / 1000; }

  cudnnStatus_t try_now(const std::vector<Memory>& memory) const {
    const float one = 1, zero = 0;
    const double one64 = 1, zero64 = 0;
    const void* const alpha = double_ ? static_cast<const void*>(&one64) : &one;
    const void* const beta = double_ ? static_cast<const void*>(&zero64) : &zero;
    void *const a = memory[0].data, *const b = memory[1].data, *const result = memory[2].data;
    const auto& [algorithm, bytes, math] = proposals_[chosen_];
    const Cudnn& c = cudnn();
    if (pass_ == Pass::kForward)
      return c.cudnnConvolutionForward(handle_, alpha, x_, a, w_, b, convolution_,
                                       static_cast<cudnnConvolutionFwdAlgo_t>(algorithm), workspace_, bytes, beta, y_,
                                       result);
    if (pass_ == Pass::kData)
      return c.cudnnConvolutionBackwardData(handle_, alpha, w_, b, y_, a, convolution_,
                                            static_cast<cudnnConvolutionBwdDataAlgo_t>(algorithm), workspace_, bytes,
                                            beta, x_, result);
    return c.cudnnConvolutionBackwardFilter(handle_, alpha, x_, b, y_, a, convolution_,
                                            static_cast<cudnnConvolutionBwdFilterAlgo_t>(algorithm), workspace_, bytes,
                                            beta, w_, result);
  }

  void set_math() const {
    if (!in_full_)
      check(cudnn().cudnnSetConvolutionMathType(convolution_, proposals_[chosen_].math), text_.c_str());
  }

  const cudnnHandle_t handle_;
  const Pass pass_;
  const bool double_, in_full_;
  std::string text_;
  TensorDescriptor x_, y_;
  FilterDescriptor w_;
  ConvolutionDescriptor convolution_;
  std::vector<Algorithm> proposals_;
  mutable std::size_t chosen_ = 0;  // calls run one at a time
  void* workspace_ = nullptr;
  std::size_t workspace_bytes_ = 0;
};

// cuDNN's kernels may read 16 bytes at a time without checking the alignment. A view may begin at any element, so a
// misaligned one is copied.
void* aligned(const ArrayRef& x, Emit& emit) {
  if (reinterpret_cast<std::uintptr_t>(x.data) % 16 == 0) return x.data;
  Args args{{&x, 1}, x};
  args.out.data = emit.scratch(x.nbytes());
  copy(args, emit);
  return args.out.data;
}

void convolve(Pass pass, const ConvGeometry& g, MatmulPrecision precision, const Args& args, Emit& emit, void* result) {
  const std::string key = "conv " + std::to_string(static_cast<int>(pass)) + " " + args.in[0].shape.str() + " " +
                          args.in[1].shape.str() + " " + std::string(name(args.out.dtype)) + " " +
                          key_of(args.params);
  const LibraryCall& call = emit.resources().library_call(
      key, [&] { return std::make_unique<Convolution>(emit.resources(), pass, g, args.out.dtype, precision); });
  emit.call(call, {{aligned(args.in[0], emit), args.in[0].nbytes(), false},
                   {aligned(args.in[1], emit), args.in[1].nbytes(), false},
                   {result, args.out.nbytes(), true}});
}

const ConvParams& of(const Args& args) { return static_cast<const ConvParams&>(*args.params); }

// Without elements the sum is 0.
bool is_empty(const Args& args) { return args.in[0].shape.size() == 0 || args.in[1].shape.size() == 0; }

}  // namespace

// The bias is a program after the library's call, joined with task.after.
void conv(const Args& args, Emit& emit) {
  const auto g = conv_geometry("conv", of(args).convolver, args.in[0].shape, args.in[1].shape);
  if (is_empty(args))
    emit.clear(args.out.data, args.out.nbytes());
  else
    convolve(Pass::kForward, g, of(args).precision, args, emit, args.out.data);
  Program program;
  const DType dtype = args.out.dtype;
  program.shape = args.out.shape;
  program.inputs.push_back({dtype, args.out.shape.dense_strides(), true});
  program.inputs.push_back({dtype, {0, 0, 1, 0}, false});
  program.instructions.push_back({find_op("add")->code, dtype, dtype, 2, {0, 1, 0}});
  program.outputs.push_back({2, dtype});
  emit.finish(program, {args.out.data, args.in[2].data}, {args.out.data});
}

void conv_back_data(const Args& args, Emit& emit) {
  const auto& p = of(args);
  const auto g = conv_geometry("conv_back_data", p.convolver, p.result, args.in[1].shape);
  if (is_empty(args)) return emit.clear(args.out.data, args.out.nbytes());
  convolve(Pass::kData, g, p.precision, args, emit, args.out.data);
}

void conv_back_weight(const Args& args, Emit& emit) {
  const auto& p = of(args);
  const auto g = conv_geometry("conv_back_weight", p.convolver, args.in[1].shape, p.result);
  if (is_empty(args)) return emit.clear(args.out.data, args.out.nbytes());
  convolve(Pass::kWeight, g, p.precision, args, emit, args.out.data);
}

}  // namespace owl::cuda
