// One GPU as a device of the engine. Its worker turns tasks into commands, collects these in a list and submits the
// list to the compute stream. Copies to and from the GPU have their own streams, synchronized with the compute stream
// by events.
//
// Three counters measure progress:
//   ticket   the lists submitted to the compute stream, from 1. A storage's is that of the list that writes it, or, if
//            it is the target of a copy, of the last list that may use its memory for another value.
//   arrival  the copies on the stream into the device. The compute stream waits for one before it reads the value.
//   done     the ticket, or arrival, up to which everything has run.
//
// Errors. A kernel's fault makes the device fail for this process (is_sticky in api.h). Any other error belongs to a
// command: the commands not launched yet stay in the list, owl frees its unused memory to the driver and tries the
// command once more; if it fails again, the values of its task fail, and those that this list computes from them.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <mutex>
#include <set>
#include <unordered_map>

#include "backend/cuda/api.h"
#include "backend/cuda/commands.h"
#include "backend/cuda/resources.h"
#include "device/device.h"
#include "plan/task.h"

namespace owl::cuda {

class Emit;
struct Kernel;
struct Watched;

class Backend final : public owl::Backend, public Resources {
 public:
  explicit Backend(int index);  // DeviceError
  void attach(Device& device) { device_ = &device; }
  const std::string& name() const { return name_; }

  void* allocate(std::size_t bytes) override;
  void free(void* data, std::size_t bytes, std::uint64_t place) override;
  void launch(Task& task, Launch& launch) override;
  const KernelTraits& traits(const OpRecord& op) const override;
  double program_cost_ns(const Program& program) const override;
  bool runs_segments() const override { return true; }
  double kernel_cost_ns(double operations) const override;
  double long_kernel_ns() const override;
  bool host_readable() const override { return false; }
  bool is_async() const override { return true; }
  void upload(Storage& to, const void* host) override;
  void download_strided(void* host, const Storage& from, std::size_t offset, const Shape& shape, const Strides& strides,
                        DType dtype) override;
  void download(void* host, const Storage& from, std::size_t offset, std::size_t bytes) override;
  void clear(void* data, std::size_t bytes) override;

  void submit() override;
  bool is_complete(const Storage& storage) override;
  bool synchronize(const Storage* storage, const std::function<bool()>& go_on) override;
  std::shared_ptr<const Failure> failure(const Storage* value) override;
  std::uint64_t place() override { return place_; }
  bool has_passed(std::uint64_t place) override { return place <= done_.load(std::memory_order_acquire); }
  void require_arrival(std::uint64_t arrival) override;

  int gpu() const override { return index_; }
  std::uintptr_t stream() override;
  std::uintptr_t import_stream() override { return reinterpret_cast<std::uintptr_t>(import_stream_.load()); }
  void renew_import_stream() override;
  void receive(Storage& storage) override;
  bool is_capturing(std::uintptr_t stream) override;
  std::uint64_t export_to_stream(const Storage& storage, std::uintptr_t stream) override;
  void join_stream(const Ref<Storage>& storage, std::uintptr_t stream, std::uint64_t number) override;
  bool has_all_reduce() const override;
  void when_through(void (*function)(void*), void* data) override;

  CUfunction function(const std::string& key, const char* name, const std::function<std::string()>& text) override;
  const LibraryCall& library_call(const std::string& key,
                                  const std::function<std::unique_ptr<LibraryCall>()>& make) override;
  std::int64_t* cell() override;
  void* workspace(std::size_t bytes) override;
  cublasLtHandle_t cublas_handle() override;
  cudnnHandle_t cudnn_handle(bool planning) override;
  // Makes this the thread's current GPU for a scope. Other libraries in the process have their own current GPU; they
  // may also be capturing a CUDA graph on another thread, and neither may disturb the other.
  class Use {
   public:
    explicit Use(const Backend& backend);
    ~Use();
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;

   private:
    CUcontext before_ = nullptr;
    bool changed_ = false;
    CUstreamCaptureMode mode_ = CU_STREAM_CAPTURE_MODE_RELAXED;  // after construction: the thread's previous mode
  };

 private:
  using Lock = std::unique_lock<std::mutex>;

  // Work on a stream, and the objects that it keeps until it has run.
  struct Pending {
    std::uint64_t number;
    CUevent event;
    void* pinned = nullptr;
    std::size_t pinned_bytes = 0;
    Ref<Storage> source;       // of a copy from another GPU
    std::size_t launches = 0;  // of a list
  };
  // A task of the list being collected, with its operands: if it fails, so do the tasks that read it.
  struct Ordered {
    std::uint64_t order;
    const char* op;
    Source source;
    std::uint64_t sequence;
    std::vector<std::uint64_t> reads;
  };
  // A number that the task's launches may have written, once its list has run.
  struct Check {
    std::int64_t* cell;
    std::function<std::string(std::int64_t)> message;
    std::uint64_t ticket, order;
  };
  // Memory that another library has released, and the stream that may still use it.
  struct Returned {
    Ref<Storage> storage;
    CUstream stream;
    std::uint64_t number;
  };
  struct Due {  // when_through
    void (*function)(void*);
    void* data;
    std::atomic<bool> called{false};

    Due(void (*function)(void*), void* data) : function(function), data(data) {}
    void call() {
      if (!called.exchange(true)) function(data);
    }
  };

  bool foreign_process() const;
  void launch_kernel(Task& task, Launch& launch, Emit& emit);
  static void emit_segments(Task& task, Emit& emit);
  ArrayRef emit_before(const Task& task, const Kernel& kernel, Launch& launch, Emit& emit);
  void copy_in(Task& task);
  void all_reduce(Task& task);
  void copy_from_gpu(Storage& to, const TaskOperand& from, std::size_t bytes);
  void append(std::vector<Command> commands, std::vector<Watched> watched, Task& task);
  template <class Make> auto with_room(const Make& make);
  void refuse_if_failed();
  void trace(Task& task, Launch& launch);

  // With the mutex held.
  void reach(Backend& other);
  std::uint64_t collect(std::vector<Command> commands);  // returns their order number
  // Launches the collected commands. May release the lock meanwhile, but not `for_allocator`: then a failed command
  // stays in the list, with those after it.
  void submit_locked(Lock& lock, bool for_allocator = false);
  bool launch_list();  // false: the first command of list_ has failed
  bool is_lost() const;
  void drop_failed();
  // The values of this task fail, and those of later tasks that read them: returns the numbers of these tasks.
  std::set<std::uint64_t> fail_values(std::uint64_t order, const std::shared_ptr<const Failure>& failure);
  void settle_checks(std::uint64_t ticket);  // of the lists up to this one, which have run
  void settle_checks_of(Lock& lock, const Storage& value);
  std::shared_ptr<const Failure> failure_of(const Storage& value) const;
  void settle_returned(Lock& lock);
  bool join(CUstream stream);  // the stream is another library's
  void poll();
  void poll(std::deque<Pending>& pending, std::atomic<std::uint64_t>& done);
  void fail(const std::string& what, const Command* command);
  void free_now(void* data);
  CUevent record(CUstream stream);
  CUevent event_of(const std::deque<Pending>& pending, std::uint64_t number) const;  // null: it has run
  void wait_for_ticket(Lock& lock, CUstream stream, std::uint64_t ticket);
  void wait_for_arrival(CUstream stream, std::uint64_t arrival);
  void* take_pinned(Lock& lock, std::size_t bytes);
  void forget_finished(Lock& lock);  // releases the lock meanwhile

  const int index_;
  const pid_t process_;
  std::string name_, arch_;
  CUdevice gpu_ = 0;
  CUcontext context_ = nullptr;
  std::size_t memory_ = 0;  // the GPU's
  CUstream compute_ = nullptr, in_ = nullptr, out_ = nullptr, aside_ = nullptr;
  std::atomic<CUstream> import_stream_{nullptr};
  Device* device_ = nullptr;

  std::mutex mutex_;
  std::vector<Command> list_;      // of the next ticket
  std::vector<Ordered> ordered_;   // the tasks of that ticket, including those already launched
  std::deque<Check> checks_;       // of lists that may not have run
  std::deque<Ordered> checked_;    // the tasks of earlier lists, from that of the first check on
  std::vector<std::int64_t*> cells_;  // unused
  std::uint64_t orders_ = 0;       // order numbers given so far
  bool partly_ = false;            // part of the list is launched
  bool joined_ = false;            // the list waits for other libraries' work
  bool emptied_ = false;           // the cache was emptied for its first command
  std::string error_;              // that command's error
  bool lacks_memory_ = false;      // the error is a lack of memory
  std::vector<void*> to_free_;     // after the list is launched
  std::unordered_map<std::uint64_t, std::shared_ptr<const Failure>> failed_values_;  // by order
  std::vector<std::uint64_t> unreported_;                                            // of these
  std::atomic<bool> any_failed_{false};
  std::atomic<std::uint64_t> ticket_{1}, done_{0};  // of the list being filled; of the last that has run
  // The newest list with a command. A single number, because any thread may free memory: between two separate updates
  // it could read the previous list.
  std::atomic<std::uint64_t> place_{0};
  std::deque<Pending> submitted_;
  std::size_t launches_ = 0;  // of submitted_
  std::atomic<std::uint64_t> arrival_{0}, arrived_{0};  // the last enqueued; the last that has run
  std::deque<Pending> arriving_;
  std::atomic<std::uint64_t> expected_{0};                      // the arrival for which the next list waits
  std::uint64_t awaited_ = 0;                                   // the arrival for which the compute stream has waited
  std::vector<CUevent> events_;                                 // unused
  std::vector<Ref<Storage>> finished_;                          // to be released without the lock
  std::vector<Returned> returned_;
  std::vector<std::shared_ptr<Due>> dues_;
  std::unordered_map<std::size_t, std::vector<void*>> pinned_;  // unused, by size
  std::set<Backend*> reached_;
  std::unique_ptr<Runner> runner_;
  CUfunction copy_ = nullptr;
  std::shared_ptr<const Failure> failure_;
  std::atomic<bool> failed_{false};

  std::mutex functions_mutex_;
  std::unordered_map<std::string, CUfunction> functions_;
  std::unordered_map<std::string, std::unique_ptr<LibraryCall>> calls_;
  std::vector<std::pair<void*, std::size_t>> workspaces_;
  cublasLtHandle_t cublas_ = nullptr;
  cudnnHandle_t cudnn_ = nullptr, cudnn_planning_ = nullptr;
};

[[noreturn]] void raise(const Failure& failure);

}  // namespace owl::cuda
