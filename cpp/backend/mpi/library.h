// MPI's library, opened by name at run time: no header of MPI's is used. Open MPI, MPICH and its relatives, and
// libraries with the standard ABI of MPI 5 differ in the values of a few constants, which one table has (library.cpp).
#pragma once

#include <cstdint>
#include <string>

#include "base/module_api.h"

namespace owl::mpi {

// A communicator, a type or a request: a pointer, or an int in the lower half.
using Handle = std::uint64_t;

struct Library {
  std::string path;
  const char* family = "";  // "Open MPI", "MPICH", "MPI's standard ABI"
  std::string version;      // as the library gives it, the first line

  Handle world = 0, byte = 0, errors_return = 0;
  void* status_ignore = nullptr;
  int thread_multiple = 0;

  int (*MPI_Init_thread)(int*, char***, int, int*) = nullptr;
  int (*MPI_Initialized)(int*) = nullptr;
  int (*MPI_Finalized)(int*) = nullptr;
  int (*MPI_Finalize)() = nullptr;
  int (*MPI_Abort)(Handle, int) = nullptr;
  int (*MPI_Comm_dup)(Handle, Handle*) = nullptr;
  int (*MPI_Comm_rank)(Handle, int*) = nullptr;
  int (*MPI_Comm_size)(Handle, int*) = nullptr;
  int (*MPI_Comm_set_errhandler)(Handle, Handle) = nullptr;
  int (*MPI_Error_string)(int, char*, int*) = nullptr;
  int (*MPI_Get_library_version)(char*, int*) = nullptr;
  int (*MPI_Isend)(const void*, int, Handle, int, int, Handle, Handle*) = nullptr;
  int (*MPI_Irecv)(void*, int, Handle, int, int, Handle, Handle*) = nullptr;
  int (*MPI_Ibcast)(void*, int, Handle, int, Handle, Handle*) = nullptr;
  int (*MPI_Test)(Handle*, int*, void*) = nullptr;

  // DeviceError: `code` is an error's.
  void check(int code, const char* function) const;
};

// Opens it, once a process: the first call decides. DeviceError: it cannot be opened, or is no MPI library.
OWL_MODULE_API const Library& open_library(const std::string& path);

}  // namespace owl::mpi
