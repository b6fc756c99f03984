// Objects that live as long as a GPU's device: compiled kernels, and its libraries' handles, prepared calls and
// workspaces.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "backend/cuda/api.h"
#include "backend/cuda/commands.h"

namespace owl::cuda {

class Resources {
 public:
  // Looked up by `key`, and created by `text`, or `make`, if missing. Throws DeviceError, OutOfMemoryError.
  virtual CUfunction function(const std::string& key, const char* name, const std::function<std::string()>& text) = 0;
  virtual const LibraryCall& library_call(const std::string& key,
                                          const std::function<std::unique_ptr<LibraryCall>()>& make) = 0;
  virtual std::int64_t* cell() = 0;  // of pinned memory, which holds Watched::kNothing
  virtual void* workspace(std::size_t bytes) = 0;  // for one call at a time in the compute stream
  virtual cublasLtHandle_t cublas_handle() = 0;
  // One handle for calls, one for planning: only one thread at a time may use a handle.
  virtual cudnnHandle_t cudnn_handle(bool planning) = 0;

 protected:
  ~Resources() = default;
};

}  // namespace owl::cuda
