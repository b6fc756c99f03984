// The matrix product of float32 and float64: cuBLASLt, whose matrices are column-major like owl's.
#include <algorithm>

#include "backend/cuda/kernels.h"
#include "base/visit_dtype.h"
#include "ops/nn.h"
#include "owl/error.h"

namespace owl::cuda {

namespace {

constexpr std::size_t kWorkspace = 32 << 20;  // bytes; NVIDIA's recommendation for Hopper
constexpr int kAsked = 4;                     // algorithms, in case cuBLASLt refuses its best one after all

// An operand in cuBLASLt's terms: `rows` x `columns` in memory, columns `stride` apart, perhaps transposed.
struct Operand {
  bool transposed;
  std::int64_t rows, columns, stride;

  explicit Operand(const ArrayRef& x) {
    const auto m = x.shape[0], n = x.shape[1];
    // The stride of an axis of length 1 is never used.
    transposed = m > 1 && x.strides[0] != 1;
    rows = transposed ? n : m;
    columns = transposed ? m : n;
    stride = columns == 1 ? rows : transposed ? x.strides[0] : x.strides[1];
  }
};

class Product final : public LibraryCall {
 public:
  Product(cublasLtHandle_t handle, DType dtype, MatmulPrecision precision, const Operand& a, const Operand& b,
          std::int64_t m, std::int64_t n, std::int64_t k, std::uint32_t alignment, void* workspace)
      : handle_(handle),
        double_(visit_float("matmul", dtype, []<class T>() { return std::is_same_v<T, double>; })),
        workspace_(workspace),
        text_("matmul " + std::to_string(m) + "x" + std::to_string(k) + "x" + std::to_string(n)) {
    const CublasLt& c = cublas();
    const cudaDataType_t type = double_ ? CUDA_R_64F : CUDA_R_32F;
    const cublasComputeType_t compute = double_                                   ? CUBLAS_COMPUTE_64F
                                        : precision == MatmulPrecision::kTf32     ? CUBLAS_COMPUTE_32F_FAST_TF32
                                        : precision == MatmulPrecision::kBfloat16 ? CUBLAS_COMPUTE_32F_FAST_16BF
                                                                                  : CUBLAS_COMPUTE_32F;
    check(c.cublasLtMatmulDescCreate(product_.address(), compute, type), "matmul");
    set(CUBLASLT_MATMUL_DESC_TRANSA, a.transposed);
    set(CUBLASLT_MATMUL_DESC_TRANSB, b.transposed);
    const auto lay_out = [&](MatrixLayout& layout, std::int64_t rows, std::int64_t columns, std::int64_t stride) {
      check(c.cublasLtMatrixLayoutCreate(layout.address(), type, static_cast<std::uint64_t>(rows),
                                         static_cast<std::uint64_t>(columns), stride),
            "matmul");
    };
    lay_out(a_, a.rows, a.columns, a.stride);
    lay_out(b_, b.rows, b.columns, b.stride);
    lay_out(c_, m, n, m);
    MatmulPreference preference;
    check(c.cublasLtMatmulPreferenceCreate(preference.address()), "matmul");
    check(c.cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &kWorkspace,
                                                 sizeof kWorkspace),
          "matmul");
    for (const auto attribute :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES})
      check(c.cublasLtMatmulPreferenceSetAttribute(preference, attribute, &alignment, sizeof alignment), "matmul");
    cublasLtMatmulHeuristicResult_t found[kAsked] = {};
    int count = 0;
    check(c.cublasLtMatmulAlgoGetHeuristic(handle_, product_, a_, b_, c_, c_, preference, kAsked, found, &count),
          "matmul");
    for (int i = 0; i < count; ++i)
      if (found[i].state == CUBLAS_STATUS_SUCCESS) proposals_.push_back(found[i]);
    if (proposals_.empty()) throw DeviceError(text_ + ": cuBLASLt has no algorithm for it");
  }

  void run(CUstream stream, const std::vector<Memory>& memory) const override {
    auto status = try_now(stream, memory);
    for (; status == CUBLAS_STATUS_NOT_SUPPORTED && chosen_ + 1 < proposals_.size(); status = try_now(stream, memory))
      ++chosen_;
    check(status, "matmul");
  }
  std::string text() const override { return text_; }

 private:
  cublasStatus_t try_now(CUstream stream, const std::vector<Memory>& memory) const {
    const float one = 1, zero = 0;
    const double one64 = 1, zero64 = 0;
    const auto& how = proposals_[chosen_];
    return cublas().cublasLtMatmul(handle_, product_, double_ ? static_cast<const void*>(&one64) : &one,
                                   memory[0].data, a_, memory[1].data, b_,
                                   double_ ? static_cast<const void*>(&zero64) : &zero, memory[2].data, c_,
                                   memory[2].data, c_, &how.algo, workspace_, how.workspaceSize, stream);
  }

  void set(cublasLtMatmulDescAttributes_t attribute, bool transposed) {
    const cublasOperation_t operation = transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    check(cublas().cublasLtMatmulDescSetAttribute(product_, attribute, &operation, sizeof operation), "matmul");
  }

  cublasLtHandle_t handle_;
  const bool double_;
  void* const workspace_;
  const std::string text_;
  MatmulDescriptor product_;
  MatrixLayout a_, b_, c_;
  std::vector<cublasLtMatmulHeuristicResult_t> proposals_;  // the fastest first
  mutable std::size_t chosen_ = 0;                          // calls run one at a time
};

// Views may begin at any element, complete arrays begin at multiples of 256 bytes: so the algorithm, and with it the
// bits, depend only on the view. The fastest algorithms need 16 bytes.
std::uint32_t alignment_of(const ArrayRef& x) {
  return reinterpret_cast<std::uintptr_t>(x.data) % 16 == 0 ? 16 : static_cast<std::uint32_t>(itemsize(x.dtype));
}

// The bytes that an operand spans.
std::size_t span_of(const ArrayRef& x) {
  const auto last = (x.shape[0] - 1) * x.strides[0] + (x.shape[1] - 1) * x.strides[1];
  return static_cast<std::size_t>(last + 1) * itemsize(x.dtype);
}

}  // namespace

void matmul(const Args& args, Emit& emit) {
  const ArrayRef &x = args.in[0], &y = args.in[1];
  if (x.shape[1] == 0) return emit.clear(args.out.data, args.out.nbytes());
  if (args.out.dtype == DType::kInt32) return int_matmul(args, emit);
  const auto* const params = static_cast<const MatmulParams*>(args.params);
  const auto precision = params ? params->precision : MatmulPrecision::kFloat32;
  const Operand a(x), b(y);
  const auto m = args.out.shape[0], n = args.out.shape[1], k = x.shape[1];
  const auto alignment = std::min(alignment_of(x), alignment_of(y));
  std::string key = "matmul " + key_of(params);
  for (const std::int64_t part :
       {m, n, k, std::int64_t{alignment}, a.stride, b.stride, std::int64_t{a.transposed}, std::int64_t{b.transposed},
        static_cast<std::int64_t>(args.out.dtype)})
    key += " " + std::to_string(part);
  const LibraryCall& product = emit.resources().library_call(key, [&] {
    return std::make_unique<Product>(emit.resources().cublas_handle(), args.out.dtype, precision, a, b, m, n, k,
                                     alignment, emit.resources().workspace(kWorkspace));
  });
  emit.call(product,
            {{x.data, span_of(x), false}, {y.data, span_of(y), false}, {args.out.data, args.out.nbytes(), true}});
}

}  // namespace owl::cuda
