// A stand-in for CUDA's libraries: tests of the CUDA backend use it on machines without a GPU.
//
// Device memory is the host's, a stream is a thread with a queue, and the host's compiler compiles kernels. It is
// stricter than CUDA, and delays what CUDA may delay, so that missing synchronisation shows. For ThreadSanitizer a
// stream's thread and its callers synchronise only by `Flag`s: the one that links work to the queue orders the caller
// before the work, a marker's orders the work before its waiters. A mutex taken by both would order more than CUDA does
// and hide races. So streams' threads never take World::mutex.
//
// Settings, from the environment:
//   STANDIN_CUDA_GPUS                    number of devices (2)
//   STANDIN_CUDA_MEMORY                  bytes of each device (4 GiB)
//   STANDIN_CUDA_CAPABILITY              compute capability of each device (90)
//   STANDIN_CUDA_DRIVER                  the driver's reported version (13000)
//   STANDIN_CUDA_DELAY_US                longest random sleep of a stream before an operation
//   STANDIN_CUDA_SEED                    seed of these sleeps
//   STANDIN_CUDA_FAIL=name:n:code,...    the n-th call of a function fails; 700, 716 and 719 break the context
//   STANDIN_CUDA_LOG=path                a line for each call that enqueues or allocates
//   STANDIN_CUDA_CXXFLAGS                compiler flags of kernels (nvrtc.cpp)
//   STANDIN_CUDA_TEXTS=folder            gets the text of each loaded kernel (nvrtc.cpp)
//   STANDIN_CUDNN_CUDART                 the CUDA version that cuDNN reports (13000)
// Tests call the standin_ functions below, which exist in the library under these names.
#pragma once

#include <cuda.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <unordered_set>
#include <utility>
#include <vector>

extern "C" {
long long standin_count(const char* name);  // calls of that function so far; names as in the source: "cuMemAlloc"
void standin_fail(const char* spec);        // as STANDIN_CUDA_FAIL, counted from now; "" ends it and repairs contexts
void standin_delay(int us);
void standin_log(const char* path);         // "" ends it
}

namespace standin {

// Set once; any number of threads may wait for it. Work before set() happens before the return of wait(); nothing else
// is ordered: reading a flag that is not set acquires nothing.
class Flag {
 public:
  void set();
  bool is_set() const {
    return value_.load(std::memory_order_relaxed) != 0 && value_.load(std::memory_order_acquire) != 0;
  }
  void wait() const;
  void clear() { value_.store(0, std::memory_order_relaxed); }

 private:
  std::atomic<std::uint32_t> value_{0};
};

// A position in a stream's queue. Markers are recycled rather than freed, because freeing would order the threads.
struct Marker {
  Flag done;
  std::atomic<int> users{0};

  Marker* join() {
    users.fetch_add(1, std::memory_order_relaxed);
    return this;
  }
  void leave() { users.fetch_sub(1, std::memory_order_release); }
  void wait_and_leave() {
    done.wait();
    leave();
  }
};

// One operation of a stream, or a graph's node: a kernel, or `work`. May run several times.
struct Step {
  CUfunction function = nullptr;
  unsigned blocks = 0, threads = 0;
  std::vector<std::byte> arguments;
  std::function<void()> work;

  void run() const;
};

struct Capture {
  std::uint64_t id = 0;
  CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
  std::thread::id thread;
  CUgraph graph = nullptr;
  CUgraphNode last = nullptr;  // cuStreamGetCaptureInfo returns its address
  bool invalid = false;
  bool owns = true;            // the capture created the graph
};

struct Work {  // of a queue
  Step step;
  Marker* marker = nullptr;  // set when the step is done
  bool slow = true;          // sleeps before it
  bool ends = false;         // the thread
  Work* next = nullptr;      // once `linked`
  Flag linked;
};

}  // namespace standin

// The handles' types are declared by cuda.h.
struct CUctx_st {
  int device = 0;
  int retained = 0;
  std::size_t total = 0, used = 0;
  int streams = 0, events = 0, execs = 0;  // created so far: their numbers
  CUstream plain = nullptr;                // the default stream, number 0
  std::set<int> peers;
  std::atomic<int> broken{0};  // the error that every call returns
};

struct CUstream_st {
  CUcontext context = nullptr;
  int number = 0;
  std::uint64_t id = 0;
  bool blocking = false;  // synchronises with the default stream, which its capture therefore forbids
  std::unique_ptr<standin::Capture> capture;
  CUstream joined = nullptr;  // the stream whose capture it has joined by an event
  standin::Capture* captured() const { return capture ? capture.get() : joined ? joined->capture.get() : nullptr; }
  bool started = false;
  std::uint64_t pushed = 0;
  standin::Work* newest = nullptr;
  std::atomic<std::uint64_t> finished{0};

  bool idle() const {
    return finished.load(std::memory_order_relaxed) == pushed && finished.load(std::memory_order_acquire) == pushed;
  }
};

struct CUevent_st {
  CUcontext context = nullptr;
  int number = 0;
  standin::Marker* last = nullptr;  // none: never recorded
  std::uint64_t capture = 0;        // the capture of its last record; 0: none
};

struct CUfunc_st {
  CUmodule module = nullptr;
  std::string name;
  void (*entry)(const void* arguments, long long block, long long blocks) = nullptr;
  unsigned argument_bytes = 0;
};

struct CUmod_st {
  CUcontext context = nullptr;
  void* library = nullptr;
  std::map<std::string, CUfunction> functions;
};

struct CUgraphNode_st {
  CUgraph graph = nullptr;
  std::size_t place = 0;
  standin::Step step;
  void* parameter = nullptr;  // cuGraphKernelNodeGetParams returns its address
};

struct CUgraph_st {
  CUcontext context = nullptr;
  std::vector<CUgraphNode> nodes;  // each depends on the one before
};

struct CUgraphExec_st {
  CUcontext context = nullptr;
  int number = 0;
  CUgraph source = nullptr;
  std::vector<standin::Step> steps;
  standin::Marker* last = nullptr;  // of its latest launch
};

namespace standin {

// Counts the calls of one function.
class Counter {
 public:
  explicit Counter(const char* name);
  const char* const name;
  std::atomic<long long> calls{0};
  const Counter* next;
};

enum class Needs { kNothing, kInit, kContext };

// Counts the call; the error that it must return, else 0.
int enter(Counter& counter, Needs needs);

// NAME as it is written, before cuda.h's macros rename it.
#define STANDIN_ENTER(STATUS, TEXT, NEEDS)                                               \
  static ::standin::Counter counter_of_calls(TEXT);                                      \
  if (const int planned = ::standin::enter(counter_of_calls, ::standin::Needs::NEEDS))   \
    return static_cast<STATUS>(planned)
#define STANDIN_DRIVER(NAME, NEEDS) STANDIN_ENTER(CUresult, #NAME, NEEDS)
#define STANDIN_LIBRARY(STATUS, NAME) STANDIN_ENTER(STATUS, #NAME, kNothing)

using Lock = std::unique_lock<std::mutex>;

struct Block {
  std::size_t bytes = 0;
  int device = 0;
};

// The state shared by all calls. Never destroyed: streams' threads may outlive main().
struct World {
  World();

  std::mutex mutex;  // guards the members up to the atomics, and the objects of handles
  std::vector<std::unique_ptr<CUctx_st>> contexts;  // the devices' primary ones
  std::map<std::uintptr_t, Block> memory, pinned;
  std::unordered_set<CUstream> streams, gone;  // existing; destroyed
  std::unordered_set<CUevent> events;
  std::unordered_set<CUmodule> modules;
  std::unordered_set<CUfunction> functions;
  std::unordered_set<CUgraph> graphs;
  std::unordered_set<CUgraphNode> nodes;
  std::unordered_set<CUgraphExec> execs;
  std::vector<std::shared_ptr<void>> dead;  // handles are never reused, so that a stale one is always detected
  std::deque<Marker*> markers;
  std::vector<std::pair<CUcontext, Marker*>> endings;  // of destroyed streams that may still run
  std::uint64_t captures = 0, stream_ids = 0;

  std::atomic<int> process{0};  // that called cuInit
  std::atomic<int> delay_us{0};
  std::atomic<unsigned> seed{0};

  // With the mutex held:
  CUstream find(CUstream handle);  // null if there is none
  CUstream make_stream(CUcontext context, int number);
  Marker* mark();                        // with one user
  void push(CUstream stream, Step step, Marker* marker, bool slow = true);
  CUgraphNode add_node(CUgraph graph, Step step);
  // Adds work to the stream of a handle, or a node to the graph that it captures. `text` is for the log.
  CUresult enqueue(CUstream handle, Step step, const std::string& text);
  // The markers to wait for until the stream, or the whole device, has done its work.
  std::vector<Marker*> ends_of(CUcontext context, CUstream only = nullptr);
  // Whether a capture forbids this thread calls that may synchronise, by the thread's mode
  // (cuThreadExchangeStreamCaptureMode) and the capture's; that capture then becomes invalid.
  bool is_unsafe();
  // Whether any stream of the device is captured, in any mode; those captures then become invalid.
  bool breaks_captures(CUcontext context);
  // Allocates memory for the driver or a library itself. False: out of memory.
  bool take(CUcontext context, std::size_t bytes);
  void give_back(CUcontext context, std::size_t bytes) { context->used -= bytes; }
  // Whether the bytes lie in one allocation, of that device.
  bool holds(const void* data, std::size_t bytes, int device) const;
};

World& world();
extern thread_local CUcontext current;
extern thread_local CUstreamCaptureMode mode_of_thread;

// Device memory that the driver and the libraries use themselves.
constexpr std::size_t kModuleBytes = 64 << 10, kExecBytes = 64 << 10, kCublasBytes = 8 << 20, kCudnnBytes = 32 << 20;

void wait_for(const std::vector<Marker*>& markers);
void nap();  // a stream's, before an operation
void log(const std::string& line);
std::string name_of(CUstream stream);  // "gpu 0 stream 1: "
std::vector<std::string> words_of(const char* text, char separator = ' ');

template <class T> void bury(T* handle) { world().dead.push_back(std::shared_ptr<T>(handle)); }

// Rounds to `bits` bits of mantissa, to nearest even, as tensor cores do with their operands.
float rounded(float x, int bits);
constexpr int kTf32Bits = 10, kBfloat16Bits = 7;

}  // namespace standin
