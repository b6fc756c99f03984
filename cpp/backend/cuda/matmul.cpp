// The matrix product of float32 and float64: cuBLASLt, whose matrices are column-major like owl's.
#include <algorithm>

#include "backend/cpu/strided_copy.h"
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

// The products along the axes behind the leading two: batches of `size` that lie evenly spaced in all three arrays, one
// after another.
struct Batches {
  std::int64_t size = 1, count = 1;
  std::int64_t a = 0, b = 0, c = 0;  // steps in a batch, in elements
  cpu::Axes axes;                    // from batch to batch, and the steps along them
  Strides steps_a{}, steps_b{}, steps_c{};

  explicit Batches(const Args& args) {
    const ArrayRef &x = args.in[0], &y = args.in[1];
    const Shape& out = args.out.shape;
    Strides dense = out.dense_strides();
    std::int64_t lengths[kMaxAxes] = {1};
    for (int i = 2; i < out.ndim(); ++i) {
      const auto to = static_cast<std::size_t>(i - 2), from = static_cast<std::size_t>(i);
      lengths[to] = out[i];
      steps_a[to] = x.shape.at_or_one(i) == 1 ? 0 : x.strides[from];
      steps_b[to] = y.shape.at_or_one(i) == 1 ? 0 : y.strides[from];
      steps_c[to] = dense[from];
    }
    Strides* const all[] = {&steps_a, &steps_b, &steps_c};
    axes = cpu::merge_axes(Shape(std::span(lengths, static_cast<std::size_t>(std::max(1, out.ndim() - 2)))), all, 3);
    take_longest();
  }

  // Where batch i begins.
  void at(std::int64_t i, std::int64_t& of_a, std::int64_t& of_b, std::int64_t& of_c) const {
    of_a = of_b = of_c = 0;
    for (std::size_t k = 0; k < static_cast<std::size_t>(axes.count); ++k) {
      const auto step = i % axes.lengths[k];
      of_a += step * steps_a[k], of_b += step * steps_b[k], of_c += step * steps_c[k];
      i /= axes.lengths[k];
    }
  }

 private:
  // The longest axis becomes the batch.
  void take_longest() {
    const auto longest = static_cast<std::size_t>(std::max_element(axes.lengths, axes.lengths + axes.count) - axes.lengths);
    size = std::exchange(axes.lengths[longest], 1);
    a = steps_a[longest], b = steps_b[longest], c = steps_c[longest];
    for (int k = 0; k < axes.count; ++k) count *= axes.lengths[k];
  }
};

class Product final : public LibraryCall {
 public:
  Product(cublasLtHandle_t handle, DType dtype, MatmulPrecision precision, const Operand& a, const Operand& b,
          std::int64_t m, std::int64_t n, std::int64_t k, const Batches& batches, std::uint32_t alignment,
          void* workspace)
      : handle_(handle),
        double_(visit_float("matmul", dtype, []<class T>() { return std::is_same_v<T, double>; })),
        workspace_(workspace),
        text_("matmul " + std::to_string(m) + "x" + std::to_string(k) + "x" + std::to_string(n) +
              (batches.size > 1 ? " times " + std::to_string(batches.size) : "")) {
    const CublasLt& c = cublas();
    const cudaDataType_t type = double_ ? CUDA_R_64F : CUDA_R_32F;
    const cublasComputeType_t compute = double_                                   ? CUBLAS_COMPUTE_64F
                                        : precision == MatmulPrecision::kTf32     ? CUBLAS_COMPUTE_32F_FAST_TF32
                                        : precision == MatmulPrecision::kBfloat16 ? CUBLAS_COMPUTE_32F_FAST_16BF
                                                                                  : CUBLAS_COMPUTE_32F;
    check(c.cublasLtMatmulDescCreate(product_.address(), compute, type), "matmul");
    set(CUBLASLT_MATMUL_DESC_TRANSA, a.transposed);
    set(CUBLASLT_MATMUL_DESC_TRANSB, b.transposed);
    const auto lay_out = [&](MatrixLayout& layout, std::int64_t rows, std::int64_t columns, std::int64_t stride,
                             std::int64_t apart) {
      check(c.cublasLtMatrixLayoutCreate(layout.address(), type, static_cast<std::uint64_t>(rows),
                                         static_cast<std::uint64_t>(columns), stride),
            "matmul");
      if (batches.size == 1) return;
      const auto count = static_cast<std::int32_t>(batches.size);
      check(c.cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count), "matmul");
      check(c.cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &apart, sizeof apart),
            "matmul");
    };
    lay_out(a_, a.rows, a.columns, a.stride, batches.a);
    lay_out(b_, b.rows, b.columns, b.stride, batches.b);
    lay_out(c_, m, n, m, batches.c);
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
std::uint32_t alignment_of(const void* data, std::int64_t apart, DType dtype) {
  const auto size = itemsize(dtype);
  const auto bits = reinterpret_cast<std::uintptr_t>(data) | static_cast<std::uint64_t>(apart) * size;
  return bits % 16 == 0 ? 16 : static_cast<std::uint32_t>(size);
}

// The bytes that the matrices of a batch span.
std::size_t span_of(const ArrayRef& x, std::int64_t size, std::int64_t apart) {
  const auto last = (x.shape[0] - 1) * x.strides[0] + (x.shape[1] - 1) * x.strides[1] + (size - 1) * apart;
  return static_cast<std::size_t>(last + 1) * itemsize(x.dtype);
}

std::size_t span_of_result(std::int64_t m, std::int64_t n, const Batches& batches, DType dtype) {
  return static_cast<std::size_t>(m * n + (batches.size - 1) * batches.c) * itemsize(dtype);
}

void* moved(void* data, std::int64_t elements, DType dtype) {
  return static_cast<char*>(data) + elements * static_cast<std::int64_t>(itemsize(dtype));
}

bool is_one_matrix(const Shape& shape) { return shape.size() == shape[0] * shape[1]; }

void products(const Args& args, Emit& emit) {
  const ArrayRef &x = args.in[0], &y = args.in[1];
  if (x.shape[1] == 0) return emit.clear(args.out.data, args.out.nbytes());
  if (!is_float(args.out.dtype)) return int_matmul(args, emit);
  const auto* const params = static_cast<const MatmulParams*>(args.params);
  const auto precision = params ? params->precision : MatmulPrecision::kFloat32;
  const Operand a(x), b(y);
  const Batches batches(args);
  const auto m = args.out.shape[0], n = args.out.shape[1], k = x.shape[1];
  const DType dtype = args.out.dtype;
  for (std::int64_t i = 0; i < batches.count; ++i) {
    std::int64_t of_a, of_b, of_c;
    batches.at(i, of_a, of_b, of_c);
    void *const left = moved(x.data, of_a, dtype), *const right = moved(y.data, of_b, dtype);
    const auto alignment = std::min(alignment_of(left, batches.a, dtype), alignment_of(right, batches.b, dtype));
    std::string key = "matmul " + key_of(params);
    for (const std::int64_t part : {m, n, k, std::int64_t{alignment}, a.stride, b.stride, std::int64_t{a.transposed},
                                    std::int64_t{b.transposed}, static_cast<std::int64_t>(dtype), batches.size,
                                    batches.a, batches.b, batches.c})
      key += " " + std::to_string(part);
    const LibraryCall& product = emit.resources().library_call(key, [&] {
      return std::make_unique<Product>(emit.resources().cublas_handle(), dtype, precision, a, b, m, n, k, batches,
                                       alignment, emit.resources().workspace(kWorkspace));
    });
    emit.call(product, {{left, span_of(x, batches.size, batches.a), false},
                        {right, span_of(y, batches.size, batches.b), false},
                        {moved(args.out.data, of_c, dtype), span_of_result(m, n, batches, dtype), true}});
  }
}

}  // namespace

// One matrix on the left with dense ones on the right is one product.
void matmul(const Args& args, Emit& emit) {
  ArrayRef in[] = {args.in[0], args.in[1]};
  if (args.out.shape.ndim() == 2 || !is_one_matrix(in[0].shape) || !in[1].dense) return products(args, emit);
  const auto m = in[0].shape[0], k = in[0].shape[1], n = k > 0 ? in[1].shape.size() / k : 0;
  Args one{in, args.out, args.params};
  in[0].shape = Shape{m, k};
  in[1].shape = Shape{k, n};
  in[1].strides = in[1].shape.dense_strides();
  one.out.shape = Shape{m, n};
  products(k > 0 ? one : args, emit);
}

}  // namespace owl::cuda
