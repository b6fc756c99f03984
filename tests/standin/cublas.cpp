// cuBLASLt: the product of column-major matrices, with float32 and float64 sums in order of k.
#include "standin.h"

#include <cublasLt.h>

#include <algorithm>
#include <cstring>

using namespace standin;

namespace {

constexpr std::uint64_t kMagic = 0x6f776c2d7374616e;

// The objects of handles, whose types are opaque in the header.
struct Description {
  cublasComputeType_t compute;
  cudaDataType_t scale;
  cublasOperation_t a = CUBLAS_OP_N, b = CUBLAS_OP_N;
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  const void* bias = nullptr;
};

struct Layout {
  cudaDataType type;
  std::int64_t rows, columns, stride;
  std::int32_t count = 1;        // of matrices, and the elements
  std::int64_t apart = 0;        // from one to the next

  std::int64_t span() const {
    return rows == 0 || columns == 0 ? 0 : (count - 1) * apart + (columns - 1) * stride + rows;
  }
  bool is_valid() const { return rows >= 1 && columns >= 1 && stride >= rows && count >= 1 && apart >= 0; }
};

struct Preference {
  std::uint64_t workspace = 0;
  std::uint32_t alignment = 256;  // of both operands, in bytes
};

Description& of(cublasLtMatmulDesc_t d) { return *reinterpret_cast<Description*>(d); }
Layout& of(cublasLtMatrixLayout_t l) { return *reinterpret_cast<Layout*>(l); }
Preference& of(cublasLtMatmulPreference_t p) { return *reinterpret_cast<Preference*>(p); }

template <class T> cublasStatus_t take(T& to, const void* from, std::size_t bytes) {
  if (!from || bytes != sizeof(T)) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&to, from, sizeof(T));
  return CUBLAS_STATUS_SUCCESS;
}

struct Product {
  Description description;
  Layout a, b, c, d;
  std::int64_t m, n, k;

  // Sets the shapes and types of a supported product.
  cublasStatus_t set(cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t la, cublasLtMatrixLayout_t lb,
                     cublasLtMatrixLayout_t lc, cublasLtMatrixLayout_t ld) {
    if (!desc || !la || !lb || !lc || !ld) return CUBLAS_STATUS_INVALID_VALUE;
    description = of(desc);
    a = of(la), b = of(lb), c = of(lc), d = of(ld);
    for (const Layout& each : {a, b, c, d})
      if (!each.is_valid()) return CUBLAS_STATUS_INVALID_VALUE;
    m = d.rows, n = d.columns;
    k = description.a == CUBLAS_OP_N ? a.columns : a.rows;
    const bool fits = (description.a == CUBLAS_OP_N ? a.rows : a.columns) == m &&
                      (description.b == CUBLAS_OP_N ? b.rows : b.columns) == k &&
                      (description.b == CUBLAS_OP_N ? b.columns : b.rows) == n && c.rows == m && c.columns == n;
    if (!fits) return CUBLAS_STATUS_INVALID_VALUE;
    for (const Layout& each : {a, b, c}) {
      if (each.type != d.type) return CUBLAS_STATUS_NOT_SUPPORTED;
      if (each.count != d.count) return CUBLAS_STATUS_INVALID_VALUE;
    }
    if (d.count > 1 && d.apart < d.span() / d.count) return CUBLAS_STATUS_INVALID_VALUE;
    if (description.epilogue != CUBLASLT_EPILOGUE_DEFAULT && description.epilogue != CUBLASLT_EPILOGUE_BIAS)
      return CUBLAS_STATUS_NOT_SUPPORTED;
    if (description.scale != d.type) return CUBLAS_STATUS_NOT_SUPPORTED;
    const auto compute = description.compute;
    const bool single = compute == CUBLAS_COMPUTE_32F || compute == CUBLAS_COMPUTE_32F_FAST_TF32 ||
                        compute == CUBLAS_COMPUTE_32F_FAST_16BF;
    const bool known = d.type == CUDA_R_32F ? single : d.type == CUDA_R_64F && compute == CUBLAS_COMPUTE_64F;
    return known ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
  }

  std::string text() const {
    return "matmul " + std::to_string(m) + "x" + std::to_string(n) + "x" + std::to_string(k) +
           (d.type == CUDA_R_32F ? " float32" : " float64") +
           (description.compute == CUBLAS_COMPUTE_32F_FAST_TF32   ? " tf32"
            : description.compute == CUBLAS_COMPUTE_32F_FAST_16BF ? " bfloat16"
                                                                   : "") +
           (description.epilogue == CUBLASLT_EPILOGUE_BIAS ? " bias" : "") +
           (d.count > 1 ? " times " + std::to_string(d.count) : "");
  }
};

// sums(m, n) = a(m, k) * b(k, n), each element's sum in order of k. On private memory, so it needs no sanitizer.
template <class T>
[[gnu::no_sanitize("thread"), gnu::no_sanitize("address"), gnu::noinline]] void multiply(
    const T* a, const T* b, T* sums, std::int64_t m, std::int64_t n, std::int64_t k) {
  for (std::int64_t j = 0; j < n; ++j)
    for (std::int64_t p = 0; p < k; ++p) {
      const T factor = b[j * k + p];
      for (std::int64_t i = 0; i < m; ++i) sums[j * m + i] += a[p * m + i] * factor;
    }
}

// The matrix as contiguous rows x columns, its elements rounded to the compute type.
template <class T>
std::vector<T> packed(const T* data, std::int64_t stride, bool transposed, std::int64_t rows, std::int64_t columns,
                      cublasComputeType_t compute) {
  std::vector<T> result(static_cast<std::size_t>(rows * columns));
  auto to = result.begin();
  for (std::int64_t j = 0; j < columns; ++j)
    for (std::int64_t i = 0; i < rows; ++i) *to++ = transposed ? data[i * stride + j] : data[j * stride + i];
  if constexpr (std::is_same_v<T, float>) {
    const int bits = compute == CUBLAS_COMPUTE_32F_FAST_TF32   ? kTf32Bits
                     : compute == CUBLAS_COMPUTE_32F_FAST_16BF ? kBfloat16Bits
                                                               : 0;
    if (bits > 0)
      for (T& x : result) x = rounded(x, bits);
  }
  return result;
}

template <class T>
void run_one(const Product& p, double alpha_value, double beta_value, const void* a, const void* b, const void* c,
         void* d) {
  const auto alpha = static_cast<T>(alpha_value), beta = static_cast<T>(beta_value);
  const auto& how = p.description;
  const auto left = packed(static_cast<const T*>(a), p.a.stride, how.a != CUBLAS_OP_N, p.m, p.k, how.compute);
  const auto right = packed(static_cast<const T*>(b), p.b.stride, how.b != CUBLAS_OP_N, p.k, p.n, how.compute);
  std::vector<T> sums(static_cast<std::size_t>(p.m * p.n));
  multiply(left.data(), right.data(), sums.data(), p.m, p.n, p.k);
  const T* const bias = how.epilogue == CUBLASLT_EPILOGUE_BIAS ? static_cast<const T*>(how.bias) : nullptr;
  for (std::int64_t j = 0; j < p.n; ++j)
    for (std::int64_t i = 0; i < p.m; ++i) {
      T x = alpha * sums[static_cast<std::size_t>(j * p.m + i)];
      if (beta != 0) x += beta * static_cast<const T*>(c)[j * p.c.stride + i];
      if (bias) x += bias[i];
      static_cast<T*>(d)[j * p.d.stride + i] = x;
    }
}

template <class T>
void run(const Product& p, double alpha, double beta, const void* a, const void* b, const void* c, void* d) {
  for (std::int64_t i = 0; i < p.d.count; ++i)
    run_one<T>(p, alpha, beta, static_cast<const T*>(a) + i * p.a.apart, static_cast<const T*>(b) + i * p.b.apart,
               static_cast<const T*>(c) + i * p.c.apart, static_cast<T*>(d) + i * p.d.apart);
}

}  // namespace

struct cublasLtContext {
  CUcontext context;
};

cublasStatus_t CUBLASWINAPI cublasLtCreate(cublasLtHandle_t* handle) {
  STANDIN_LIBRARY(cublasStatus_t, cublasLtCreate);
  if (!handle) return CUBLAS_STATUS_INVALID_VALUE;
  if (!current) return CUBLAS_STATUS_NOT_INITIALIZED;
  Lock lock(world().mutex);
  if (!world().take(current, kCublasBytes)) return CUBLAS_STATUS_ALLOC_FAILED;
  *handle = new cublasLtContext{current};
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t CUBLASWINAPI cublasLtDestroy(cublasLtHandle_t handle) {
  STANDIN_LIBRARY(cublasStatus_t, cublasLtDestroy);
  Lock lock(world().mutex);
  world().give_back(handle->context, kCublasBytes);
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}

std::size_t CUBLASWINAPI cublasLtGetVersion() { return 130000; }

const char* CUBLASWINAPI cublasLtGetStatusString(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS: return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED: return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED: return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_EXECUTION_FAILED: return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_INTERNAL_ERROR: return "CUBLAS_STATUS_INTERNAL_ERROR";
    case CUBLAS_STATUS_NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
    default: return "CUBLAS_STATUS unknown";
  }
}

cublasStatus_t CUBLASWINAPI cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* description, cublasComputeType_t compute,
                                                     cudaDataType_t scale) {
  STANDIN_LIBRARY(cublasStatus_t, cublasLtMatmulDescCreate);
  if (!description) return CUBLAS_STATUS_INVALID_VALUE;
  *description = reinterpret_cast<cublasLtMatmulDesc_t>(new Description{compute, scale});
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t CUBLASWINAPI cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t description) {
  STANDIN_LIBRARY(cublasStatus_t, cublasLtMatmulDescDestroy);
  delete &of(description);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t CUBLASWINAPI cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t description,
                                                           cublasLtMatmulDescAttributes_t attribute, const void* value,
                                                           std::size_t bytes) {
  STANDIN_LIBRARY(cublasStatus_t, cublasLtMatmulDescSetAttribute);
  if (!description) return CUBLAS_STATUS_INVALID_VALUE;
  Description& d = of(description);
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA: return take(d.a, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB: return take(d.b, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE: return take(d.epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER: return take(d.bias, value, bytes);
    default: return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

cublasStatus_t CUBLASWINAPI cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type,
                                                       std::uint64_t rows, std::uint64_t columns, std::int64_t stride) {
  STANDIN_LIBRARY(cublasStatus_t, cublasLtMatrixLayoutCreate);
  if (!layout) return CUBLAS_STATUS_INVALID_VALUE;
  *layout = reinterpret_cast<cublasLtMatrixLayout_t>(
      new Layout{type, static_cast<std::int64_t>(rows), static_cast<std::int64_t>(columns), stride});
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t CUBLASWINAPI cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  STANDIN_LIBRARY(cublasStatus_t, cublasLtMatrixLayoutDestroy);
  delete &of(layout);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t CUBLASWINAPI cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                             cublasLtMatrixLayoutAttribute_t attribute,
                                                             const void* value, std::size_t bytes) {
  STANDIN_LIBRARY(cublasStatus_t, cublasLtMatrixLayoutSetAttribute);
  if (!layout) return CUBLAS_STATUS_INVALID_VALUE;
  Layout& l = of(layout);
  std::int32_t number = 0;
  cublasStatus_t result = CUBLAS_STATUS_SUCCESS;
  switch (attribute) {
    case CUBLASLT_MATRIX_LAYOUT_ROWS: return take(l.rows, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_COLS: return take(l.columns, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_LD: return take(l.stride, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_ORDER:
      result = take(number, value, bytes);
      return result == CUBLAS_STATUS_SUCCESS && number != CUBLASLT_ORDER_COL ? CUBLAS_STATUS_NOT_SUPPORTED : result;
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT: return take(l.count, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET: return take(l.apart, value, bytes);
    default: return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

cublasStatus_t CUBLASWINAPI cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  STANDIN_LIBRARY(cublasStatus_t, cublasLtMatmulPreferenceCreate);
  if (!preference) return CUBLAS_STATUS_INVALID_VALUE;
  *preference = reinterpret_cast<cublasLtMatmulPreference_t>(new Preference);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t CUBLASWINAPI cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  STANDIN_LIBRARY(cublasStatus_t, cublasLtMatmulPreferenceDestroy);
  delete &of(preference);
  return CUBLAS_STATUS_SUCCESS;
}

// The returned algorithms rely on the alignment.
cublasStatus_t CUBLASWINAPI cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                                 cublasLtMatmulPreferenceAttributes_t attribute,
                                                                 const void* value, std::size_t bytes) {
  STANDIN_LIBRARY(cublasStatus_t, cublasLtMatmulPreferenceSetAttribute);
  if (!preference || !value) return CUBLAS_STATUS_INVALID_VALUE;
  if (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) return take(of(preference).workspace, value, bytes);
  std::uint32_t number = 0;
  if (const auto status = take(number, value, bytes)) return status;
  if (attribute == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES) of(preference).alignment = number;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t CUBLASWINAPI cublasLtMatmulAlgoGetHeuristic(
    cublasLtHandle_t handle, cublasLtMatmulDesc_t description, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
    cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t preference, int asked,
    cublasLtMatmulHeuristicResult_t* results, int* count) {
  STANDIN_LIBRARY(cublasStatus_t, cublasLtMatmulAlgoGetHeuristic);
  if (!handle || !preference || !results || !count || asked < 1) return CUBLAS_STATUS_INVALID_VALUE;
  *count = 0;
  Product product;
  if (const auto result = product.set(description, a, b, c, d)) return result;
  for (; *count < std::min(asked, 2); ++*count) {
    auto& found = results[*count];
    found = {};
    found.algo.data[0] = kMagic + static_cast<std::uint64_t>(*count);  // and its product
    found.algo.data[1] = static_cast<std::uint64_t>(product.m);
    found.algo.data[2] = static_cast<std::uint64_t>(product.n);
    found.algo.data[3] = static_cast<std::uint64_t>(product.k);
    found.algo.data[4] = of(preference).alignment;
    found.algo.data[5] = static_cast<std::uint64_t>(product.d.count);
    found.state = CUBLAS_STATUS_SUCCESS;
    found.wavesCount = 1;
  }
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t CUBLASWINAPI cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t description, const void* alpha,
                                           const void* a, cublasLtMatrixLayout_t la, const void* b,
                                           cublasLtMatrixLayout_t lb, const void* beta, const void* c,
                                           cublasLtMatrixLayout_t lc, void* d, cublasLtMatrixLayout_t ld,
                                           const cublasLtMatmulAlgo_t* algorithm, void* workspace,
                                           std::size_t workspace_bytes, cudaStream_t stream) {
  STANDIN_LIBRARY(cublasStatus_t, cublasLtMatmul);
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (!current || handle->context != current || !alpha || !beta) return CUBLAS_STATUS_INVALID_VALUE;
  Product p;
  if (const auto result = p.set(description, la, lb, lc, ld)) return result;
  if (algorithm && (algorithm->data[0] - kMagic > 1 || algorithm->data[1] != static_cast<std::uint64_t>(p.m) ||
                    algorithm->data[2] != static_cast<std::uint64_t>(p.n) ||
                    algorithm->data[3] != static_cast<std::uint64_t>(p.k) ||
                    algorithm->data[5] != static_cast<std::uint64_t>(p.d.count)))
    return CUBLAS_STATUS_INVALID_VALUE;
  const bool single = p.d.type == CUDA_R_32F;
  const auto misaligned = [&](const void* data, const Layout& layout) {
    const auto apart = static_cast<std::uint64_t>(layout.apart) * (single ? 4 : 8);
    return (reinterpret_cast<std::uintptr_t>(data) | apart) % algorithm->data[4] != 0;
  };
  if (algorithm && (misaligned(a, p.a) || misaligned(b, p.b))) return CUBLAS_STATUS_INVALID_VALUE;
  const double x = single ? double{*static_cast<const float*>(alpha)} : *static_cast<const double*>(alpha);
  const double y = single ? double{*static_cast<const float*>(beta)} : *static_cast<const double*>(beta);
  Lock lock(world().mutex);
  const auto holds = [&](const void* data, std::int64_t count) {
    return world().holds(data, static_cast<std::size_t>(count) * (single ? 4 : 8), current->device);
  };
  if (!holds(a, p.a.span()) || !holds(b, p.b.span()) || !holds(d, p.d.span()) || (y != 0 && !holds(c, p.c.span())))
    return CUBLAS_STATUS_INVALID_VALUE;
  if (p.description.epilogue == CUBLASLT_EPILOGUE_BIAS && !holds(p.description.bias, p.m))
    return CUBLAS_STATUS_INVALID_VALUE;
  if (workspace_bytes > 0 && !world().holds(workspace, workspace_bytes, current->device))
    return CUBLAS_STATUS_INVALID_VALUE;
  Step step;
  step.work = [=] { single ? run<float>(p, x, y, a, b, c, d) : run<double>(p, x, y, a, b, c, d); };
  return world().enqueue(stream, std::move(step), p.text()) == CUDA_SUCCESS ? CUBLAS_STATUS_SUCCESS
                                                                            : CUBLAS_STATUS_EXECUTION_FAILED;
}
