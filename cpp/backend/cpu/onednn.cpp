#include "backend/cpu/onednn.h"

#include <cstdlib>
#include <new>

#include "base/env.h"
#include "owl/error.h"

// oneDNN's OpenMP runtime, without its header: no file of owl is compiled with OpenMP.
extern "C" void omp_set_num_threads(int n);

namespace owl::cpu {

namespace {

constexpr std::size_t kKeptBytes = 8 << 20;

struct ThreadBuffer {
  std::byte* data = nullptr;
  std::size_t bytes = 0;
  ~ThreadBuffer() { std::free(data); }
  void release() {
    std::free(data);
    data = nullptr;
    bytes = 0;
  }
};
thread_local ThreadBuffer thread_buffers[2];

// Applies OWL_ISA to oneDNN's kernels; must precede the first of them.
bool limit_instructions() {
  if (settings().isa == Isa::kAvx512) return false;
  const auto most = settings().isa == Isa::kAvx2 ? dnnl::cpu_isa::avx2 : dnnl::cpu_isa::sse41;
  if (dnnl::set_max_cpu_isa(most) != dnnl::status::success)
    throw Error("OWL_ISA: oneDNN was used before owl in this process and can no longer be limited");
  return true;
}

}  // namespace

void use_one_openmp_thread() {
  static thread_local bool done = false;
  if (done) return;
  static const bool limited = limit_instructions();
  (void)limited;
  omp_set_num_threads(1);
  done = true;
}

const dnnl::engine& onednn_engine() {
  use_one_openmp_thread();
  // Never destroyed: threads may still run a kernel when the process exits.
  static const auto* engine = new dnnl::engine(dnnl::engine::kind::cpu, 0);
  return *engine;
}

dnnl::stream& onednn_stream() {
  use_one_openmp_thread();
  static thread_local dnnl::stream stream(onednn_engine());
  return stream;
}

ThreadScratch::ThreadScratch(std::size_t bytes, For user) : user_(user) {
  auto& buffer = thread_buffers[static_cast<int>(user)];
  if (bytes > buffer.bytes) {
    buffer.release();
    buffer.data = static_cast<std::byte*>(std::aligned_alloc(64, padded(bytes)));
    if (!buffer.data) throw std::bad_alloc();
    buffer.bytes = padded(bytes);
  }
  next_ = buffer.data;
}

ThreadScratch::~ThreadScratch() {
  auto& buffer = thread_buffers[static_cast<int>(user_)];
  if (buffer.bytes > kKeptBytes) buffer.release();
}

std::byte* ThreadScratch::take(std::size_t bytes) {
  if (bytes == 0) return nullptr;
  std::byte* piece = next_;
  next_ += padded(bytes);
  return piece;
}

}  // namespace owl::cpu
