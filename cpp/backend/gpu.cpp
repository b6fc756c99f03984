#include "backend/gpu.h"

#include <dlfcn.h>

#include <filesystem>

#include "base/fork_mutex.h"
#include "owl/error.h"

namespace owl::gpu {

namespace {

constexpr const char* kFile = "libowl_cuda.so";

ForkMutex mutex;
const Library* opened = nullptr;
std::vector<std::string> folders;

// It is in libowl's folder.
std::string path_of_library() {
  Dl_info info{};
  if (!dladdr(reinterpret_cast<const void*>(&path_of_library), &info) || !info.dli_fname) return kFile;
  return (std::filesystem::path(info.dli_fname).parent_path() / kFile).string();
}

const Library& library() {
  std::lock_guard lock(mutex);
  if (opened) return *opened;
  const auto path = path_of_library();
  if (!std::filesystem::exists(path))
    throw DeviceError("this build of owl has no CUDA backend (there is no " + path +
                      "): install it with OWL_CUDA=on pip install 'owl-engine[cuda]'");
  void* const file = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!file) throw DeviceError(path + " cannot be loaded: " + dlerror());
  const auto* const found = static_cast<const Library*>(dlsym(file, "owl_cuda_library"));
  if (!found) throw DeviceError(path + " is not owl's CUDA backend: it lacks owl_cuda_library");
  auto all = folders;
  const auto packages = std::filesystem::path(path).parent_path() / "../../nvidia";  // pip's folder of both packages
  for (const char* part : {"cu13", "cudnn", "nccl"}) all.push_back((packages / part / "lib").string());
  found->set_folders(std::move(all));
  return *(opened = found);
}

}  // namespace

int count() {
  try {
    return library().count();
  } catch (const DeviceError&) {  // make_device() reports it
    return 0;
  }
}

std::unique_ptr<Device> make_device(int index) { return library().make_device(index); }


void set_library_folders(std::vector<std::string> list) {
  std::lock_guard lock(mutex);
  folders = std::move(list);
}

void use_library(const Library& library) {
  std::lock_guard lock(mutex);
  opened = &library;
}

}  // namespace owl::gpu
