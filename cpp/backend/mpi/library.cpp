#include "backend/mpi/library.h"

#include <dlfcn.h>

#include <filesystem>
#include <memory>

#include "owl/error.h"

namespace owl::mpi {

namespace {

struct Constants {
  const char* family;
  Handle world, byte, errors_return;
  std::uintptr_t status_ignore;
  int thread_multiple;
};
constexpr Constants kMpich{"MPICH", 0x44000000, 0x4c00010d, 0x54000001, 1, 3};
constexpr Constants kStandard{"MPI's standard ABI", 0x101, 0x247, 0x143, 0, 4096};

// Open MPI's handles are addresses of objects of the library.
Constants open_mpi(void* file) {
  const auto object = [&](const char* name) { return reinterpret_cast<Handle>(dlsym(file, name)); };
  return {"Open MPI", object("ompi_mpi_comm_world"), object("ompi_mpi_byte"), object("ompi_mpi_errors_return"), 0, 3};
}

std::string file_of(void* function, const std::string& fallback) {
  Dl_info info{};
  if (!dladdr(function, &info) || !info.dli_fname) return fallback;
  std::error_code error;
  const auto real = std::filesystem::canonical(info.dli_fname, error);
  return error ? info.dli_fname : real.string();
}

Constants constants_of(void* file, const std::string& path) {
  if (dlsym(file, "ompi_mpi_comm_world")) return open_mpi(file);
  const bool standard = std::filesystem::path(path).filename().string().starts_with("libmpi_abi.");
  return standard ? kStandard : kMpich;
}

template <class F> void find(void* file, const std::string& path, const char* name, F*& function) {
  function = reinterpret_cast<F*>(dlsym(file, name));
  if (!function) throw DeviceError(path + " is not an MPI library that owl can use: it lacks " + name);
}

std::unique_ptr<Library> opened(const std::string& name) {
  // Global: Open MPI's own plug-ins look for its names.
  void* const file = dlopen(name.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (!file) throw DeviceError(std::string("MPI's library cannot be opened: ") + dlerror());
  auto library = std::make_unique<Library>();
  Library& l = *library;
#define FIND(NAME) find(file, name, #NAME, l.NAME)
  FIND(MPI_Init_thread);
  FIND(MPI_Initialized);
  FIND(MPI_Finalized);
  FIND(MPI_Finalize);
  FIND(MPI_Abort);
  FIND(MPI_Comm_dup);
  FIND(MPI_Comm_rank);
  FIND(MPI_Comm_size);
  FIND(MPI_Comm_set_errhandler);
  FIND(MPI_Error_string);
  FIND(MPI_Get_library_version);
  FIND(MPI_Isend);
  FIND(MPI_Irecv);
  FIND(MPI_Ibcast);
  FIND(MPI_Test);
#undef FIND
  l.path = file_of(reinterpret_cast<void*>(l.MPI_Init_thread), name);
  const Constants c = constants_of(file, l.path);
  l.family = c.family;
  l.world = c.world;
  l.byte = c.byte;
  l.errors_return = c.errors_return;
  l.status_ignore = reinterpret_cast<void*>(c.status_ignore);
  l.thread_multiple = c.thread_multiple;
  char text[8192] = {};  // the largest MPI_MAX_LIBRARY_VERSION_STRING
  int length = 0;
  l.MPI_Get_library_version(text, &length);
  l.version = text;
  l.version.resize(std::min(l.version.size(), l.version.find_first_of(",\n")));
  return library;
}

}  // namespace

void Library::check(int code, const char* function) const {
  if (code == 0) return;
  char text[8192] = {};
  int length = 0;
  MPI_Error_string(code, text, &length);
  throw DeviceError(std::string(function) + " of " + version + " failed: " + text);
}

const Library& open_library(const std::string& path) {
  static Library* library = nullptr;
  if (!library) library = opened(path).release();
  return *library;
}

}  // namespace owl::mpi
