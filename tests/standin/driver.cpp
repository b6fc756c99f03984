// The driver's functions, except graphs (graph.cpp): devices, contexts, memory, streams, events, modules, launches.
#include "standin.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string_view>

using namespace standin;

namespace {

constexpr int kPoison = 0xCD;

std::byte* pointer(CUdeviceptr data) { return reinterpret_cast<std::byte*>(data); }

bool has_device(CUdevice device) { return device >= 0 && static_cast<std::size_t>(device) < world().contexts.size(); }

std::string count_of(std::size_t bytes) { return std::to_string(bytes); }

enum class Host { kPageable, kPinned, kInvalid };

// The kind of host memory; a range that leaves pinned memory is an error.
Host kind_of(const void* data, std::size_t bytes) {
  const auto begin = reinterpret_cast<std::uintptr_t>(data);
  const auto& pinned = world().pinned;
  auto at = pinned.upper_bound(begin);
  if (at != pinned.end() && at->first < begin + bytes) return Host::kInvalid;
  if (at == pinned.begin()) return Host::kPageable;
  --at;
  if (begin >= at->first + at->second.bytes) return Host::kPageable;
  return begin + bytes <= at->first + at->second.bytes ? Host::kPinned : Host::kInvalid;
}

// A copy's stream, which must exist and be of the current context.
CUresult stream_of(CUstream handle, CUstream* stream) {
  *stream = world().find(handle);
  return *stream && (*stream)->context == current ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

Step copy_of(void* to, const void* from, std::size_t bytes) {
  Step step;
  step.work = [=] { std::memcpy(to, from, bytes); };
  return step;
}

struct Code {
  CUresult code;
  const char *name, *text;
};
#define STANDIN_CODE(NAME, TEXT) {NAME, #NAME, TEXT}
constexpr Code kCodes[] = {
    STANDIN_CODE(CUDA_SUCCESS, "no error"),
    STANDIN_CODE(CUDA_ERROR_INVALID_VALUE, "invalid argument"),
    STANDIN_CODE(CUDA_ERROR_OUT_OF_MEMORY, "out of memory"),
    STANDIN_CODE(CUDA_ERROR_NOT_INITIALIZED, "initialization error"),
    STANDIN_CODE(CUDA_ERROR_DEINITIALIZED, "driver shutting down"),
    STANDIN_CODE(CUDA_ERROR_NO_DEVICE, "no CUDA-capable device is detected"),
    STANDIN_CODE(CUDA_ERROR_INVALID_DEVICE, "invalid device ordinal"),
    STANDIN_CODE(CUDA_ERROR_INVALID_IMAGE, "device kernel image is invalid"),
    STANDIN_CODE(CUDA_ERROR_INVALID_CONTEXT, "invalid device context"),
    STANDIN_CODE(CUDA_ERROR_ILLEGAL_STATE, "the operation cannot be performed in the present state"),
    STANDIN_CODE(CUDA_ERROR_NO_BINARY_FOR_GPU, "no kernel image is available for execution on the device"),
    STANDIN_CODE(CUDA_ERROR_ECC_UNCORRECTABLE, "uncorrectable ECC error encountered"),
    STANDIN_CODE(CUDA_ERROR_INVALID_HANDLE, "invalid resource handle"),
    STANDIN_CODE(CUDA_ERROR_NOT_FOUND, "named symbol not found"),
    STANDIN_CODE(CUDA_ERROR_NOT_READY, "device not ready"),
    STANDIN_CODE(CUDA_ERROR_ILLEGAL_ADDRESS, "an illegal memory access was encountered"),
    STANDIN_CODE(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "too many resources requested for launch"),
    STANDIN_CODE(CUDA_ERROR_MISALIGNED_ADDRESS, "misaligned address"),
    STANDIN_CODE(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "operation would make the legacy stream depend on a capturing "
                                                     "blocking stream"),
    STANDIN_CODE(CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED, "peer access is already enabled"),
    STANDIN_CODE(CUDA_ERROR_CONTEXT_IS_DESTROYED, "context is destroyed"),
    STANDIN_CODE(CUDA_ERROR_LAUNCH_FAILED, "unspecified launch failure"),
    STANDIN_CODE(CUDA_ERROR_NOT_SUPPORTED, "operation not supported"),
    STANDIN_CODE(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "operation not permitted when stream is capturing"),
    STANDIN_CODE(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "operation failed due to a previous error during capture"),
    STANDIN_CODE(CUDA_ERROR_STREAM_CAPTURE_UNJOINED, "capturing stream has unjoined work"),
    STANDIN_CODE(CUDA_ERROR_STREAM_CAPTURE_ISOLATION, "dependency created on uncaptured work in another stream"),
    STANDIN_CODE(CUDA_ERROR_CAPTURED_EVENT, "operation not permitted on an event last recorded in a capturing stream"),
    STANDIN_CODE(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, "attempt to terminate a thread-local capture sequence from "
                                                         "another thread"),
    STANDIN_CODE(CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE, "the graph update was not performed because it included changes "
                                                       "that an instantiated graph does not allow"),
    STANDIN_CODE(CUDA_ERROR_UNKNOWN, "unknown error"),
};

// Use of a destroyed stream is undefined in CUDA, so it ends the tests. Only cuStreamGetId reports it.
void refuse_the_gone(CUstream handle) {
  if (!world().gone.contains(handle)) return;
  std::fprintf(stderr, "standin: a stream is used that was destroyed\n");
  std::abort();
}

// Writes a kernel's text to the folder STANDIN_CUDA_TEXTS, if set. Equal texts have equal names.
void note_text(void* library) {
  const char* const folder = std::getenv("STANDIN_CUDA_TEXTS");
  const auto* const text = static_cast<const char*>(dlsym(library, "standin_text"));
  if (!folder || !text) return;
  const auto path = std::filesystem::path(folder) / std::to_string(std::hash<std::string_view>{}(text));
  const auto draft = path.string() + "." + std::to_string(getpid());
  std::ofstream(draft, std::ios::binary) << text;
  std::error_code error;
  std::filesystem::rename(draft, path, error);
}

const Code* find_code(CUresult code) {
  const auto* const at = std::ranges::find(kCodes, code, &Code::code);
  return at == std::end(kCodes) ? nullptr : at;
}

}  // namespace

// ---- the driver and its devices

CUresult CUDAAPI cuInit(unsigned flags) {
  STANDIN_DRIVER(cuInit, kNothing);
  if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
  int none = 0;
  const int process = getpid();
  if (!world().process.compare_exchange_strong(none, process) && none != process) return CUDA_ERROR_NOT_INITIALIZED;
  return world().contexts.empty() ? CUDA_ERROR_NO_DEVICE : CUDA_SUCCESS;
}

CUresult CUDAAPI cuDriverGetVersion(int* version) {
  STANDIN_DRIVER(cuDriverGetVersion, kNothing);
  const char* const told = std::getenv("STANDIN_CUDA_DRIVER");
  *version = told ? std::atoi(told) : 13000;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetCount(int* count) {
  STANDIN_DRIVER(cuDeviceGetCount, kInit);
  *count = static_cast<int>(world().contexts.size());
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGet(CUdevice* device, int ordinal) {
  STANDIN_DRIVER(cuDeviceGet, kInit);
  if (!has_device(ordinal)) return CUDA_ERROR_INVALID_DEVICE;
  *device = ordinal;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetName(char* name, int length, CUdevice device) {
  STANDIN_DRIVER(cuDeviceGetName, kInit);
  if (!has_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  std::snprintf(name, static_cast<std::size_t>(length), "Stand-in GPU");
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice device) {
  STANDIN_DRIVER(cuDeviceGetAttribute, kInit);
  if (!has_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  const char* const told = std::getenv("STANDIN_CUDA_CAPABILITY");
  const int capability = told ? std::atoi(told) : 90;
  *value = attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR   ? capability / 10
           : attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR ? capability % 10
           : attribute == CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT     ? 4
                                                                       : 0;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceTotalMem(std::size_t* bytes, CUdevice device) {
  STANDIN_DRIVER(cuDeviceTotalMem, kInit);
  if (!has_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  *bytes = world().contexts[static_cast<std::size_t>(device)]->total;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceCanAccessPeer(int* can, CUdevice device, CUdevice peer) {
  STANDIN_DRIVER(cuDeviceCanAccessPeer, kInit);
  if (!has_device(device) || !has_device(peer)) return CUDA_ERROR_INVALID_DEVICE;
  *can = device != peer;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGetErrorName(CUresult error, const char** text) {
  STANDIN_DRIVER(cuGetErrorName, kNothing);
  const Code* const code = find_code(error);
  *text = code ? code->name : nullptr;
  return code ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult CUDAAPI cuGetErrorString(CUresult error, const char** text) {
  STANDIN_DRIVER(cuGetErrorString, kNothing);
  const Code* const code = find_code(error);
  *text = code ? code->text : nullptr;
  return code ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

// ---- contexts

CUresult CUDAAPI cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
  STANDIN_DRIVER(cuDevicePrimaryCtxRetain, kInit);
  if (!has_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  Lock lock(world().mutex);
  *context = world().contexts[static_cast<std::size_t>(device)].get();
  ++(*context)->retained;
  return CUDA_SUCCESS;
}

// Waits, but keeps the context's objects.
CUresult CUDAAPI cuDevicePrimaryCtxRelease(CUdevice device) {
  STANDIN_DRIVER(cuDevicePrimaryCtxRelease, kInit);
  if (!has_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  Lock lock(world().mutex);
  const CUcontext context = world().contexts[static_cast<std::size_t>(device)].get();
  if (context->retained == 0) return CUDA_ERROR_INVALID_CONTEXT;
  if (--context->retained > 0) return CUDA_SUCCESS;
  const auto ends = world().ends_of(context);
  lock.unlock();
  wait_for(ends);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxSetCurrent(CUcontext context) {
  STANDIN_DRIVER(cuCtxSetCurrent, kInit);
  if (context) {
    Lock lock(world().mutex);
    const auto is_it = [&](const auto& each) { return each.get() == context && each->retained > 0; };
    if (std::ranges::none_of(world().contexts, is_it)) return CUDA_ERROR_INVALID_CONTEXT;
  }
  current = context;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxGetCurrent(CUcontext* context) {
  STANDIN_DRIVER(cuCtxGetCurrent, kInit);
  *context = current;
  return CUDA_SUCCESS;
}

// Waits for the whole device, which a capture on any of its streams forbids.
CUresult CUDAAPI cuCtxSynchronize() {
  STANDIN_DRIVER(cuCtxSynchronize, kContext);
  Lock lock(world().mutex);
  if (world().breaks_captures(current)) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  const auto ends = world().ends_of(current);
  lock.unlock();
  wait_for(ends);
  return static_cast<CUresult>(current->broken.load(std::memory_order_relaxed));
}

CUresult CUDAAPI cuCtxEnablePeerAccess(CUcontext peer, unsigned flags) {
  STANDIN_DRIVER(cuCtxEnablePeerAccess, kContext);
  if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
  Lock lock(world().mutex);
  if (!peer || peer == current) return CUDA_ERROR_INVALID_CONTEXT;
  return current->peers.insert(peer->device).second ? CUDA_SUCCESS : CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED;
}

// ---- memory

CUresult CUDAAPI cuMemAlloc(CUdeviceptr* data, std::size_t bytes) {
  STANDIN_DRIVER(cuMemAlloc, kContext);
  if (!data || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  Lock lock(world().mutex);
  if (world().is_unsafe()) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  if (bytes >> 47 != 0) return CUDA_ERROR_INVALID_VALUE;  // more than the address space
  if (bytes > current->total - current->used) return CUDA_ERROR_OUT_OF_MEMORY;
  void* made = nullptr;
  if (posix_memalign(&made, 256, bytes) != 0) return CUDA_ERROR_OUT_OF_MEMORY;
  current->used += bytes;
  world().memory[reinterpret_cast<std::uintptr_t>(made)] = {bytes, current->device};
  log("gpu " + std::to_string(current->device) + ": alloc " + count_of(bytes));
  lock.unlock();
  std::memset(made, kPoison, bytes);
  *data = reinterpret_cast<CUdeviceptr>(made);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemFree(CUdeviceptr data) {
  STANDIN_DRIVER(cuMemFree, kContext);
  if (!data) return CUDA_SUCCESS;
  Lock lock(world().mutex);
  if (world().is_unsafe()) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  const auto at = world().memory.find(data);
  if (at == world().memory.end()) return CUDA_ERROR_INVALID_VALUE;
  const Block block = at->second;
  world().memory.erase(at);
  const CUcontext context = world().contexts[static_cast<std::size_t>(block.device)].get();
  log("gpu " + std::to_string(block.device) + ": free " + count_of(block.bytes));
  const auto ends = world().ends_of(context);
  lock.unlock();
  wait_for(ends);
  std::free(pointer(data));
  lock.lock();
  context->used -= block.bytes;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemGetInfo(std::size_t* free, std::size_t* total) {
  STANDIN_DRIVER(cuMemGetInfo, kContext);
  Lock lock(world().mutex);
  *free = current->total - current->used;
  *total = current->total;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemHostAlloc(void** data, std::size_t bytes, unsigned) {
  STANDIN_DRIVER(cuMemHostAlloc, kContext);
  if (!data || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  Lock lock(world().mutex);
  if (world().is_unsafe()) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  if (posix_memalign(data, 4096, bytes) != 0) return CUDA_ERROR_OUT_OF_MEMORY;
  std::memset(*data, kPoison, bytes);
  world().pinned[reinterpret_cast<std::uintptr_t>(*data)] = {bytes, current->device};
  log("host alloc " + count_of(bytes));
  return CUDA_SUCCESS;
}

// Does not wait, which CUDA does not guarantee.
CUresult CUDAAPI cuMemFreeHost(void* data) {
  STANDIN_DRIVER(cuMemFreeHost, kContext);
  Lock lock(world().mutex);
  if (world().is_unsafe()) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  if (world().pinned.erase(reinterpret_cast<std::uintptr_t>(data)) == 0) return CUDA_ERROR_INVALID_VALUE;
  std::free(data);
  return CUDA_SUCCESS;
}

// ---- copies

CUresult CUDAAPI cuMemcpyHtoDAsync(CUdeviceptr to, const void* from, std::size_t bytes, CUstream handle) {
  STANDIN_DRIVER(cuMemcpyHtoDAsync, kContext);
  Lock lock(world().mutex);
  CUstream stream = nullptr;
  if (const auto result = stream_of(handle, &stream)) return result;
  if (bytes == 0) return CUDA_SUCCESS;
  if (!world().holds(pointer(to), bytes, current->device)) return CUDA_ERROR_INVALID_VALUE;
  const Host kind = kind_of(from, bytes);
  if (kind == Host::kInvalid) return CUDA_ERROR_INVALID_VALUE;
  const auto text = "copy HtoD " + count_of(bytes);
  if (kind == Host::kPinned) return world().enqueue(stream, copy_of(pointer(to), from, bytes), text);
  if (stream->capture) {
    stream->capture->invalid = true;
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  Step step;  // has copied the data when the call returns
  const auto* const begin = static_cast<const std::byte*>(from);
  step.work = [to, data = std::vector<std::byte>(begin, begin + bytes)] {
    std::memcpy(pointer(to), data.data(), data.size());
  };
  return world().enqueue(stream, std::move(step), text + " pageable");
}

CUresult CUDAAPI cuMemcpyDtoHAsync(void* to, CUdeviceptr from, std::size_t bytes, CUstream handle) {
  STANDIN_DRIVER(cuMemcpyDtoHAsync, kContext);
  Lock lock(world().mutex);
  CUstream stream = nullptr;
  if (const auto result = stream_of(handle, &stream)) return result;
  if (bytes == 0) return CUDA_SUCCESS;
  if (!world().holds(pointer(from), bytes, current->device)) return CUDA_ERROR_INVALID_VALUE;
  const Host kind = kind_of(to, bytes);
  if (kind == Host::kInvalid) return CUDA_ERROR_INVALID_VALUE;
  const auto text = "copy DtoH " + count_of(bytes);
  if (kind == Host::kPinned) return world().enqueue(stream, copy_of(to, pointer(from), bytes), text);
  if (stream->capture) {
    stream->capture->invalid = true;
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  if (const auto result = world().enqueue(stream, copy_of(to, pointer(from), bytes), text + " pageable")) return result;
  const auto ends = world().ends_of(current, stream);
  lock.unlock();
  wait_for(ends);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, std::size_t bytes, CUstream handle) {
  STANDIN_DRIVER(cuMemcpyDtoDAsync, kContext);
  Lock lock(world().mutex);
  if (bytes == 0) return CUDA_SUCCESS;
  if (!world().holds(pointer(to), bytes, current->device) || !world().holds(pointer(from), bytes, current->device))
    return CUDA_ERROR_INVALID_VALUE;
  return world().enqueue(handle, copy_of(pointer(to), pointer(from), bytes), "copy DtoD " + count_of(bytes));
}

CUresult CUDAAPI cuMemcpyPeerAsync(CUdeviceptr to, CUcontext to_context, CUdeviceptr from, CUcontext from_context,
                                   std::size_t bytes, CUstream handle) {
  STANDIN_DRIVER(cuMemcpyPeerAsync, kContext);
  Lock lock(world().mutex);
  CUstream stream = nullptr;
  if (const auto result = stream_of(handle, &stream)) return result;
  for (const CUcontext context : {to_context, from_context})
    if (std::ranges::find(world().contexts, context, [](auto& each) { return each.get(); }) == world().contexts.end())
      return CUDA_ERROR_INVALID_CONTEXT;
  if (bytes == 0) return CUDA_SUCCESS;
  if (!world().holds(pointer(to), bytes, to_context->device) ||
      !world().holds(pointer(from), bytes, from_context->device))
    return CUDA_ERROR_INVALID_VALUE;
  const auto text = "peer copy " + std::to_string(from_context->device) + " -> " +
                    std::to_string(to_context->device) + " " + count_of(bytes);
  return world().enqueue(stream, copy_of(pointer(to), pointer(from), bytes), text);
}

CUresult CUDAAPI cuMemsetD8Async(CUdeviceptr to, unsigned char value, std::size_t bytes, CUstream handle) {
  STANDIN_DRIVER(cuMemsetD8Async, kContext);
  Lock lock(world().mutex);
  if (bytes == 0) return CUDA_SUCCESS;
  if (!world().holds(pointer(to), bytes, current->device)) return CUDA_ERROR_INVALID_VALUE;
  Step step;
  step.work = [=] { std::memset(pointer(to), value, bytes); };
  return world().enqueue(handle, std::move(step), "memset " + count_of(bytes));
}

// ---- streams

CUresult CUDAAPI cuStreamCreateWithPriority(CUstream* stream, unsigned flags, int) {
  STANDIN_DRIVER(cuStreamCreateWithPriority, kContext);
  if (!stream || flags > CU_STREAM_NON_BLOCKING) return CUDA_ERROR_INVALID_VALUE;
  Lock lock(world().mutex);
  *stream = world().make_stream(current, ++current->streams);
  (*stream)->blocking = flags != CU_STREAM_NON_BLOCKING;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamCreate(CUstream* stream, unsigned flags) {
  STANDIN_DRIVER(cuStreamCreate, kContext);
  if (!stream || flags > CU_STREAM_NON_BLOCKING) return CUDA_ERROR_INVALID_VALUE;
  Lock lock(world().mutex);
  *stream = world().make_stream(current, ++current->streams);
  (*stream)->blocking = flags != CU_STREAM_NON_BLOCKING;
  return CUDA_SUCCESS;
}

// Does not wait; its work is still done.
CUresult CUDAAPI cuStreamDestroy(CUstream stream) {
  STANDIN_DRIVER(cuStreamDestroy, kContext);
  Lock lock(world().mutex);
  if (world().streams.erase(stream) == 0) return CUDA_ERROR_INVALID_HANDLE;
  world().gone.insert(stream);
  if (stream->started) {
    Marker* const ending = world().mark();
    world().push(stream, {}, ending->join(), false);
    world().endings.emplace_back(stream->context, ending);
    auto* const end = new Work;
    end->ends = true;
    stream->newest->next = end;
    std::exchange(stream->newest, nullptr)->linked.set();
  } else {
    delete std::exchange(stream->newest, nullptr);
  }
  bury(stream);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamSynchronize(CUstream handle) {
  STANDIN_DRIVER(cuStreamSynchronize, kContext);
  Lock lock(world().mutex);
  const CUstream stream = world().find(handle);
  if (!stream) return CUDA_ERROR_INVALID_HANDLE;
  if (stream->capture) {
    stream->capture->invalid = true;
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  if (world().is_unsafe()) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  const auto ends = world().ends_of(stream->context, stream);
  lock.unlock();
  wait_for(ends);
  return static_cast<CUresult>(stream->context->broken.load(std::memory_order_relaxed));
}

CUresult CUDAAPI cuStreamQuery(CUstream handle) {
  STANDIN_DRIVER(cuStreamQuery, kContext);
  Lock lock(world().mutex);
  const CUstream stream = world().find(handle);
  if (!stream) return CUDA_ERROR_INVALID_HANDLE;
  if (stream->capture) {
    stream->capture->invalid = true;
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  if (world().is_unsafe()) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  return stream->idle() ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

CUresult CUDAAPI cuStreamGetId(CUstream handle, unsigned long long* id) {
  STANDIN_DRIVER(cuStreamGetId, kContext);
  Lock lock(world().mutex);
  const CUstream stream = world().find(handle);
  if (!stream) return CUDA_ERROR_INVALID_HANDLE;
  if (!id) return CUDA_ERROR_INVALID_VALUE;
  *id = stream->id;
  return CUDA_SUCCESS;
}

// The stream's thread calls the function, which must not call CUDA.
CUresult CUDAAPI cuLaunchHostFunc(CUstream handle, CUhostFn function, void* data) {
  STANDIN_DRIVER(cuLaunchHostFunc, kContext);
  if (!function) return CUDA_ERROR_INVALID_VALUE;
  Lock lock(world().mutex);
  Step step;
  step.work = [=] { function(data); };
  return world().enqueue(handle, std::move(step), "host function");
}

CUresult CUDAAPI cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode* mode) {
  STANDIN_DRIVER(cuThreadExchangeStreamCaptureMode, kInit);
  if (!mode || *mode > CU_STREAM_CAPTURE_MODE_RELAXED) return CUDA_ERROR_INVALID_VALUE;
  std::swap(*mode, mode_of_thread);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamWaitEvent(CUstream handle, CUevent event, unsigned) {
  STANDIN_DRIVER(cuStreamWaitEvent, kContext);
  Lock lock(world().mutex);
  refuse_the_gone(handle);
  const CUstream stream = world().find(handle);
  if (!stream || !world().events.contains(event)) return CUDA_ERROR_INVALID_HANDLE;
  if (Capture* const capture = stream->capture.get()) {
    if (capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (event->capture == capture->id) return CUDA_SUCCESS;  // every node depends on the one before
    capture->invalid = true;
    return CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
  }
  if (event->capture != 0) {  // the stream joins a capture that has not ended
    for (const CUstream other : world().streams) {
      if (!other->capture || other->capture->id != event->capture) continue;
      log(name_of(stream) + "joins a capture");
      stream->joined = other;
      return CUDA_SUCCESS;
    }
    return CUDA_ERROR_CAPTURED_EVENT;
  }
  log(name_of(stream) + "wait event " + std::to_string(event->number) +
      (event->context == stream->context ? "" : " of gpu " + std::to_string(event->context->device)));
  if (!event->last) return CUDA_SUCCESS;
  Step step;
  step.work = [marker = event->last->join()] { marker->wait_and_leave(); };
  world().push(stream, std::move(step), nullptr);
  return CUDA_SUCCESS;
}

// ---- events

CUresult CUDAAPI cuEventCreate(CUevent* event, unsigned) {
  STANDIN_DRIVER(cuEventCreate, kContext);
  if (!event) return CUDA_ERROR_INVALID_VALUE;
  Lock lock(world().mutex);
  *event = new CUevent_st;
  (*event)->context = current;
  (*event)->number = ++current->events;
  world().events.insert(*event);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuEventRecord(CUevent event, CUstream handle) {
  STANDIN_DRIVER(cuEventRecord, kContext);
  Lock lock(world().mutex);
  refuse_the_gone(handle);
  if (!world().events.contains(event)) return CUDA_ERROR_INVALID_HANDLE;
  const CUstream stream = world().find(handle);
  if (!stream || stream->context != event->context) return CUDA_ERROR_INVALID_HANDLE;
  if (Capture* const capture = stream->captured()) {
    if (capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    event->capture = capture->id;
    return CUDA_SUCCESS;
  }
  log(name_of(stream) + "record event " + std::to_string(event->number));
  if (event->last) event->last->leave();
  event->capture = 0;
  event->last = world().mark();
  world().push(stream, {}, event->last->join());
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuEventQuery(CUevent event) {
  STANDIN_DRIVER(cuEventQuery, kContext);
  Lock lock(world().mutex);
  if (!world().events.contains(event)) return CUDA_ERROR_INVALID_HANDLE;
  if (event->capture != 0) return CUDA_ERROR_CAPTURED_EVENT;
  if (world().is_unsafe()) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  return !event->last || event->last->done.is_set() ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

CUresult CUDAAPI cuEventSynchronize(CUevent event) {
  STANDIN_DRIVER(cuEventSynchronize, kContext);
  Lock lock(world().mutex);
  if (!world().events.contains(event)) return CUDA_ERROR_INVALID_HANDLE;
  if (event->capture != 0) return CUDA_ERROR_CAPTURED_EVENT;
  if (world().is_unsafe()) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  const CUcontext context = event->context;
  if (Marker* const marker = event->last ? event->last->join() : nullptr) {
    lock.unlock();
    marker->wait_and_leave();
  }
  return static_cast<CUresult>(context->broken.load(std::memory_order_relaxed));
}

CUresult CUDAAPI cuEventDestroy(CUevent event) {
  STANDIN_DRIVER(cuEventDestroy, kContext);
  Lock lock(world().mutex);
  if (world().events.erase(event) == 0) return CUDA_ERROR_INVALID_HANDLE;
  if (event->last) event->last->leave();
  bury(event);
  return CUDA_SUCCESS;
}

// ---- modules and launches

CUresult CUDAAPI cuModuleLoadData(CUmodule* module, const void* image) {
  STANDIN_DRIVER(cuModuleLoadData, kContext);
  if (!module || !image) return CUDA_ERROR_INVALID_VALUE;
  ElfW(Ehdr) head;
  std::memcpy(&head, image, SELFMAG);
  if (std::memcmp(head.e_ident, ELFMAG, SELFMAG) != 0) return CUDA_ERROR_INVALID_IMAGE;
  std::memcpy(&head, image, sizeof head);
  const auto bytes = head.e_shoff + std::size_t{head.e_shentsize} * head.e_shnum;
  // Unique file names: the loader would treat equal names as the same library.
  static std::atomic<int> files{0};
  std::error_code error;
  auto path = std::filesystem::temp_directory_path(error).string() + "/standin_" + std::to_string(getpid()) + "_" +
              std::to_string(++files) + "_XXXXXX";
  const int file = mkstemp(path.data());
  if (file < 0) return CUDA_ERROR_OPERATING_SYSTEM;
  std::FILE* const out = fdopen(file, "wb");
  {
    Lock lock(world().mutex);
    if (world().is_unsafe() || !world().take(current, kModuleBytes)) {
      std::fclose(out);
      unlink(path.c_str());
      return world().is_unsafe() ? CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED : CUDA_ERROR_OUT_OF_MEMORY;
    }
  }
  const bool written = std::fwrite(image, 1, bytes, out) == bytes;
  const bool closed = std::fclose(out) == 0;
  void* const library = written && closed ? dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL) : nullptr;
  if (!library) {
    const char* const why = dlerror();
    std::fprintf(stderr, "standin: a module cannot be loaded: %s\n", why ? why : "the file cannot be written");
  }
  unlink(path.c_str());
  if (!library) return CUDA_ERROR_INVALID_IMAGE;
  note_text(library);
  Lock lock(world().mutex);
  *module = new CUmod_st;
  (*module)->context = current;
  (*module)->library = library;
  world().modules.insert(*module);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuModuleUnload(CUmodule module) {
  STANDIN_DRIVER(cuModuleUnload, kContext);
  Lock lock(world().mutex);
  if (world().modules.erase(module) == 0) return CUDA_ERROR_INVALID_HANDLE;
  for (const auto& [name, function] : module->functions) {
    world().functions.erase(function);
    bury(function);
  }
  bury(module);
  const auto ends = world().ends_of(module->context);
  lock.unlock();
  wait_for(ends);
  dlclose(module->library);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
  STANDIN_DRIVER(cuModuleGetFunction, kContext);
  Lock lock(world().mutex);
  if (!world().modules.contains(module)) return CUDA_ERROR_INVALID_HANDLE;
  if (!function || !name) return CUDA_ERROR_INVALID_VALUE;
  CUfunction& known = module->functions[name];
  if (!known) {
    void* const entry = dlsym(module->library, name);
    const void* const bytes = dlsym(module->library, (std::string(name) + "_argument_bytes").c_str());
    if (!entry || !bytes) {
      module->functions.erase(name);
      return CUDA_ERROR_NOT_FOUND;
    }
    known = new CUfunc_st;
    known->module = module;
    known->name = name;
    known->entry = reinterpret_cast<decltype(known->entry)>(entry);
    known->argument_bytes = *static_cast<const unsigned*>(bytes);
    world().functions.insert(known);
  }
  *function = known;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuFuncGetName(const char** name, CUfunction function) {
  STANDIN_DRIVER(cuFuncGetName, kContext);
  Lock lock(world().mutex);
  if (!world().functions.contains(function)) return CUDA_ERROR_INVALID_HANDLE;
  *name = function->name.c_str();
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuLaunchKernel(CUfunction function, unsigned x, unsigned y, unsigned z, unsigned threads,
                                unsigned threads_y, unsigned threads_z, unsigned, CUstream handle, void** parameters,
                                void** extra) {
  STANDIN_DRIVER(cuLaunchKernel, kContext);
  Lock lock(world().mutex);
  if (!world().functions.contains(function) || function->module->context != current) return CUDA_ERROR_INVALID_HANDLE;
  if (x == 0 || x > 0x7fffffff || y != 1 || z != 1 || threads == 0 || threads > 1024 || threads_y != 1 ||
      threads_z != 1 || !parameters || !parameters[0] || extra)
    return CUDA_ERROR_INVALID_VALUE;
  Step step;
  step.function = function;
  step.blocks = x;
  step.threads = threads;
  const auto* const arguments = static_cast<const std::byte*>(parameters[0]);
  step.arguments.assign(arguments, arguments + function->argument_bytes);
  return world().enqueue(handle, std::move(step), "launch " + function->name + " blocks " + std::to_string(x));
}
