// The functions that libowl calls in this library.
#include "backend/cuda/backend.h"
#include "backend/gpu.h"

namespace owl::cuda {

namespace {

int count() {
  int n = 0;
  check(driver().cuDeviceGetCount(&n), "counting GPUs");
  return n;
}

std::unique_ptr<Device> make_device(int index) {
  auto backend = std::make_unique<Backend>(index);
  Backend& made = *backend;
  auto device = std::make_unique<Device>(Device::Kind::kGpu, made.name(), 1, false, std::move(backend));
  made.attach(*device);
  return device;
}


}  // namespace

}  // namespace owl::cuda

extern "C" __attribute__((visibility("default"))) const owl::gpu::Library owl_cuda_library = {
    owl::cuda::count, owl::cuda::make_device, owl::cuda::set_library_folders};
