// Common parts of all calls: counting and planned failures, the log, and streams with their queues.
#include "standin.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

#ifdef __SSE__
#include <xmmintrin.h>
#endif

namespace standin {

namespace {

std::atomic<const Counter*> counters{nullptr};
thread_local std::mt19937 chance;

long long setting(const char* name, long long otherwise) {
  const char* const text = std::getenv(name);
  return text && *text ? std::atoll(text) : otherwise;
}

struct Plan {
  std::string name;
  long long calls;  // until it fails
  int code;
};

struct Failures {
  std::mutex mutex;
  std::vector<Plan> plans;
  std::atomic<bool> any{false};

  void set(const char* spec) {
    std::lock_guard lock(mutex);
    plans.clear();
    for (const auto& text : words_of(spec, ',')) {
      const auto parts = words_of(text.c_str(), ':');
      if (parts.size() == 3) plans.push_back({parts[0], std::atoll(parts[1].c_str()), std::atoi(parts[2].c_str())});
      else std::fprintf(stderr, "STANDIN_CUDA_FAIL: '%s' is not name:n:code\n", text.c_str());
    }
    any.store(!plans.empty(), std::memory_order_relaxed);
  }

  int of(const char* name) {
    if (!any.load(std::memory_order_relaxed)) return 0;
    std::lock_guard lock(mutex);
    int code = 0;
    for (auto& plan : plans)
      if (plan.name == name && --plan.calls == 0) code = plan.code;
    return code;
  }
};

struct Log {
  std::mutex mutex;
  std::FILE* file = nullptr;
  std::atomic<bool> on{false};

  void set(const char* path) {
    std::lock_guard lock(mutex);
    if (file) std::fclose(file);
    file = path && *path ? std::fopen(path, "a") : nullptr;
    on.store(file != nullptr, std::memory_order_relaxed);
  }
};

Failures& failures() {
  static auto& all = []() -> Failures& {
    auto& made = *new Failures;
    if (const char* spec = std::getenv("STANDIN_CUDA_FAIL")) made.set(spec);
    return made;
  }();
  return all;
}

Log& the_log() {
  static auto& only = []() -> Log& {
    auto& made = *new Log;
    made.set(std::getenv("STANDIN_CUDA_LOG"));
    return made;
  }();
  return only;
}

// GPUs' kernels are compiled with --ftz=true.
void flush_denormals() {
#ifdef __SSE__
  _mm_setcsr(_mm_getcsr() | 0x8040);
#endif
}

// A stream's thread. `at` is the last finished work; its successor may not be linked yet.
void serve(CUstream stream, Work* at, unsigned seed) {
  flush_denormals();
  chance.seed(seed);
  for (std::uint64_t done = 1;; ++done) {
    at->linked.wait();
    delete std::exchange(at, at->next);
    if (at->ends) break;
    if (at->slow) nap();
    at->step.run();
    at->step = {};
    stream->finished.store(done, std::memory_order_release);  // first: a marker's waiter finds the stream idle
    if (Marker* const marker = at->marker) {
      marker->done.set();
      marker->leave();
    }
  }
  delete at;
}

}  // namespace

thread_local CUcontext current = nullptr;
thread_local CUstreamCaptureMode mode_of_thread = CU_STREAM_CAPTURE_MODE_GLOBAL;

// ---- flags

void Flag::set() {
  value_.store(1, std::memory_order_release);
  // Uses only the address: a waiter may have freed the flag by now.
  syscall(SYS_futex, &value_, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

void Flag::wait() const {
  while (!is_set()) syscall(SYS_futex, &value_, FUTEX_WAIT_PRIVATE, 0, nullptr, nullptr, 0);
}

// ---- helpers

void Step::run() const {
  if (!function) return work ? work() : void();
  for (unsigned block = 0; block < blocks; ++block) function->entry(arguments.data(), block, blocks);
}

std::vector<std::string> words_of(const char* text, char separator) {
  std::vector<std::string> words;
  std::string word;
  for (; text && *text; ++text) {
    if (*text != separator) word += *text;
    else if (!word.empty()) words.push_back(std::exchange(word, {}));
  }
  if (!word.empty()) words.push_back(word);
  return words;
}

float rounded(float x, int bits) {
  auto pattern = std::bit_cast<std::uint32_t>(x);
  if ((pattern & 0x7f800000) == 0x7f800000) return x;
  const int dropped = 23 - bits;
  pattern += (1u << (dropped - 1)) - 1 + ((pattern >> dropped) & 1);
  return std::bit_cast<float>(pattern >> dropped << dropped);
}

void nap() {
  const int most = world().delay_us.load(std::memory_order_relaxed);
  if (most > 0) std::this_thread::sleep_for(std::chrono::microseconds(chance() % (static_cast<unsigned>(most) + 1)));
}

void log(const std::string& line) {
  Log& to = the_log();
  if (!to.on.load(std::memory_order_relaxed)) return;
  std::lock_guard lock(to.mutex);
  if (!to.file) return;
  std::fprintf(to.file, "%s\n", line.c_str());
  std::fflush(to.file);
}

std::string name_of(CUstream stream) {
  return "gpu " + std::to_string(stream->context->device) + " stream " + std::to_string(stream->number) + ": ";
}

// ---- calls

Counter::Counter(const char* name) : name(name), next(counters.load()) {
  while (!counters.compare_exchange_weak(next, this)) {
  }
}

int enter(Counter& counter, Needs needs) {
  counter.calls.fetch_add(1, std::memory_order_relaxed);
  if (needs != Needs::kNothing && world().process.load(std::memory_order_relaxed) != getpid())
    return CUDA_ERROR_NOT_INITIALIZED;  // a forked child has no CUDA either
  if (needs == Needs::kContext) {
    if (!current) return CUDA_ERROR_INVALID_CONTEXT;
    if (const int code = current->broken.load(std::memory_order_relaxed)) return code;
  }
  const int code = failures().of(counter.name);
  if ((code == CUDA_ERROR_ILLEGAL_ADDRESS || code == CUDA_ERROR_MISALIGNED_ADDRESS ||
       code == CUDA_ERROR_LAUNCH_FAILED) && current)
    current->broken.store(code, std::memory_order_relaxed);
  return code;
}

// ---- the world

World::World() {
  delay_us = static_cast<int>(setting("STANDIN_CUDA_DELAY_US", 0));
  seed = static_cast<unsigned>(setting("STANDIN_CUDA_SEED", 0));
  const auto bytes = static_cast<std::size_t>(setting("STANDIN_CUDA_MEMORY", 4ll << 30));
  for (int device = 0; device < setting("STANDIN_CUDA_GPUS", 2); ++device) {
    auto& context = *contexts.emplace_back(std::make_unique<CUctx_st>());
    context.device = device;
    context.total = bytes;
    context.plain = make_stream(&context, 0);
  }
}

World& world() {
  static World& only = *new World;
  return only;
}

namespace {

// A thread's default stream of each device, created at its first use.
thread_local std::map<CUcontext, CUstream> own_streams;

}  // namespace

CUstream World::find(CUstream handle) {
  if (!handle || handle == CU_STREAM_LEGACY) return current ? current->plain : nullptr;
  if (handle == CU_STREAM_PER_THREAD) {
    if (!current) return nullptr;
    CUstream& own = own_streams[current];
    if (own) return own;
    own = make_stream(current, ++current->streams);
    own->blocking = true;
    return own;
  }
  return streams.contains(handle) ? handle : nullptr;
}

CUstream World::make_stream(CUcontext context, int number) {
  auto* const stream = new CUstream_st;
  stream->context = context;
  stream->number = number;
  stream->id = ++stream_ids;
  stream->newest = new Work;  // counts as done
  streams.insert(stream);
  return stream;
}

Marker* World::mark() {
  for (int tries = 0; tries < 4 && !markers.empty(); ++tries) {
    Marker* const oldest = markers.front();
    markers.pop_front();
    markers.push_back(oldest);
    if (oldest->users.load(std::memory_order_relaxed) != 0) continue;
    oldest->done.clear();
    return oldest->join();
  }
  return markers.emplace_back(new Marker)->join();
}

void World::push(CUstream stream, Step step, Marker* marker, bool slow) {
  auto* const work = new Work;
  work->step = std::move(step);
  work->marker = marker;
  work->slow = slow;
  if (!stream->started) {
    stream->started = true;
    const auto number = static_cast<unsigned>(stream->context->device * 1000 + stream->number);
    std::thread(serve, stream, stream->newest, seed.load() + 7919 * number).detach();
  }
  Work* const before = std::exchange(stream->newest, work);
  ++stream->pushed;
  before->next = work;
  before->linked.set();
}

CUresult World::enqueue(CUstream handle, Step step, const std::string& text) {
  const CUstream stream = find(handle);
  if (!stream || stream->context != current) return CUDA_ERROR_INVALID_HANDLE;
  if (const int code = current->broken.load(std::memory_order_relaxed)) return static_cast<CUresult>(code);
  Capture* const capture = stream->captured();
  if (!capture) {
    log(name_of(stream) + text);
    push(stream, std::move(step), nullptr);
    return CUDA_SUCCESS;
  }
  if (capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  log(name_of(stream) + "capture " + text);
  capture->last = add_node(capture->graph, std::move(step));
  return CUDA_SUCCESS;
}

CUgraphNode World::add_node(CUgraph graph, Step step) {
  auto* const node = new CUgraphNode_st;
  node->graph = graph;
  node->place = graph->nodes.size();
  node->step = std::move(step);
  graph->nodes.push_back(node);
  nodes.insert(node);
  return node;
}

std::vector<Marker*> World::ends_of(CUcontext context, CUstream only) {
  std::vector<Marker*> ends;
  for (const CUstream stream : streams) {
    if (stream->context != context || (only && stream != only) || stream->idle()) continue;
    Marker* const end = mark();
    push(stream, {}, end->join(), false);
    ends.push_back(end);
  }
  if (only) return ends;
  std::erase_if(endings, [&](const auto& ending) {
    if (ending.first != context) return false;
    ends.push_back(ending.second);
    return true;
  });
  return ends;
}

bool World::is_unsafe() {
  if (mode_of_thread == CU_STREAM_CAPTURE_MODE_RELAXED) return false;
  bool unsafe = false;
  for (const CUstream stream : streams) {
    Capture* const capture = stream->capture.get();
    if (!capture || capture->mode == CU_STREAM_CAPTURE_MODE_RELAXED) continue;
    constexpr auto global = CU_STREAM_CAPTURE_MODE_GLOBAL;
    const bool others = capture->mode == global && mode_of_thread == global;
    if (!others && capture->thread != std::this_thread::get_id()) continue;
    unsafe = capture->invalid = true;
  }
  return unsafe;
}

bool World::breaks_captures(CUcontext context) {
  bool breaks = false;
  for (const CUstream stream : streams)
    if (stream->context == context && stream->capture) breaks = stream->capture->invalid = true;
  return breaks;
}

bool World::take(CUcontext context, std::size_t bytes) {
  if (bytes > context->total - context->used) return false;
  context->used += bytes;
  return true;
}

bool World::holds(const void* data, std::size_t bytes, int device) const {
  const auto begin = reinterpret_cast<std::uintptr_t>(data);
  auto at = memory.upper_bound(begin);
  if (at == memory.begin()) return false;
  --at;
  return at->second.device == device && begin - at->first <= at->second.bytes &&
         bytes <= at->second.bytes - (begin - at->first);
}

void wait_for(const std::vector<Marker*>& markers) {
  for (Marker* const marker : markers) marker->wait_and_leave();
}

}  // namespace standin

// ---- functions for tests

long long standin_count(const char* name) {
  long long calls = 0;
  for (auto* at = standin::counters.load(); at; at = at->next)
    if (std::strcmp(at->name, name) == 0) calls += at->calls.load(std::memory_order_relaxed);
  return calls;
}

void standin_fail(const char* spec) {
  standin::failures().set(spec);
  if (spec && *spec) return;
  for (auto& context : standin::world().contexts) context->broken.store(0, std::memory_order_relaxed);
}

void standin_delay(int us) { standin::world().delay_us.store(us, std::memory_order_relaxed); }

void standin_log(const char* path) { standin::the_log().set(path); }
