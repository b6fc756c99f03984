# Finds the headers for the CUDA backend: CUDA 13, cuDNN 9 and NCCL 2. The backend opens the libraries at run time, so
# it does not link them.
#   OWL_CUDA_FOUND       whether all headers were found
#   OWL_CUDA_INCLUDES    their folders
#   OWL_CUDA_LIBRARIES   folders that should have the libraries, for the check of the kernels' texts
#
# Each header is searched in this order: OWL_CUDA_ROOT (CMake variable or environment: a toolkit, or a site-packages
# folder), NVIDIA's packages of the Python in use, a toolkit of the system, the usual include folders. A header of
# another major version is skipped. PyPI splits the toolkit: a folder may have cuda.h and lack headers that cuda.h
# includes.

set(_owl_cuda_default "$ENV{OWL_CUDA}")
if(_owl_cuda_default STREQUAL "")
  set(_owl_cuda_default auto)
endif()
set(OWL_CUDA "${_owl_cuda_default}" CACHE STRING "Build the CUDA backend: auto (where its headers are found), on or off")
set_property(CACHE OWL_CUDA PROPERTY STRINGS auto on off)
set(OWL_CUDA_ROOT "$ENV{OWL_CUDA_ROOT}" CACHE PATH "Prefix of a CUDA 13 toolkit, or a site-packages folder with it")
string(TOLOWER "${OWL_CUDA}" _owl_cuda_wanted)
if(NOT _owl_cuda_wanted MATCHES "^(auto|on|off)$")
  message(FATAL_ERROR "OWL_CUDA=${OWL_CUDA}: expected auto, on or off")
endif()

set(OWL_CUDA_FOUND FALSE)
set(OWL_CUDA_INCLUDES "")
set(OWL_CUDA_LIBRARIES "")
if(_owl_cuda_wanted STREQUAL "off")
  message(STATUS "CUDA backend: left out, as OWL_CUDA=off says")
  return()
endif()

# ---- the folders, in order -------------------------------------------------------------------------------------------
set(_owl_cuda_folders "")
function(_owl_cuda_add)  # include folders below prefixes
  foreach(prefix IN LISTS ARGN)
    foreach(below IN ITEMS include targets/x86_64-linux/include targets/sbsa-linux/include
        nvidia/cu13/include nvidia/cudnn/include nvidia/nccl/include)
      if(prefix AND IS_DIRECTORY "${prefix}/${below}")
        list(APPEND _owl_cuda_folders "${prefix}/${below}")
      endif()
    endforeach()
  endforeach()
  list(REMOVE_DUPLICATES _owl_cuda_folders)
  set(_owl_cuda_folders "${_owl_cuda_folders}" PARENT_SCOPE)
endfunction()

_owl_cuda_add("${OWL_CUDA_ROOT}")
find_program(_owl_python3 NAMES python3 python)
foreach(python IN ITEMS "${Python_EXECUTABLE}" "${PROJECT_SOURCE_DIR}/.venv/bin/python" "${_owl_python3}")
  if(python AND EXISTS "${python}")
    execute_process(COMMAND "${python}" -c "import sys; print(';'.join(p for p in sys.path if p))"
      OUTPUT_VARIABLE _owl_out OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE _owl_rc ERROR_QUIET)
    if(_owl_rc EQUAL 0)
      foreach(path IN LISTS _owl_out)
        if(IS_DIRECTORY "${path}/nvidia")
          _owl_cuda_add("${path}")
        endif()
      endforeach()
    endif()
  endif()
endforeach()
find_program(_owl_nvcc nvcc)
mark_as_advanced(_owl_python3 _owl_nvcc)
if(_owl_nvcc)
  file(REAL_PATH "${_owl_nvcc}" _owl_nvcc_file)
  cmake_path(SET _owl_nvcc_prefix NORMALIZE "${_owl_nvcc_file}/../..")
endif()
_owl_cuda_add("$ENV{CUDA_PATH}" "$ENV{CUDA_HOME}" /usr/local/cuda "${_owl_nvcc_prefix}")
_owl_cuda_add(${CMAKE_PREFIX_PATH} ${CMAKE_SYSTEM_PREFIX_PATH})
list(APPEND _owl_cuda_folders "/usr/include/${CMAKE_LIBRARY_ARCHITECTURE}")

# ---- the headers -----------------------------------------------------------------------------------------------------
# The value of a numeric macro; empty if the file does not define it.
function(_owl_cuda_number variable file macro)
  set(${variable} "" PARENT_SCOPE)
  if(EXISTS "${file}")
    file(STRINGS "${file}" lines REGEX "^[ \t]*#[ \t]*define[ \t]+${macro}[ \t]+[0-9]+" LIMIT_COUNT 1)
    if(lines MATCHES "${macro}[ \t]+([0-9]+)")
      set(${variable} "${CMAKE_MATCH_1}" PARENT_SCOPE)
    endif()
  endif()
endfunction()

set(_owl_cuda_lacking "")
set(_owl_cuda_others "")
# Finds a header whose `macro`, in `file` beside it, is between two numbers; no macro: any version.
function(_owl_cuda_find header what file macro least below)
  foreach(folder IN LISTS _owl_cuda_folders)
    if(EXISTS "${folder}/${header}")
      _owl_cuda_number(number "${folder}/${file}" "${macro}")
      if(NOT macro OR (number AND number GREATER_EQUAL least AND number LESS below))
        list(APPEND OWL_CUDA_INCLUDES "${folder}")
        list(REMOVE_DUPLICATES OWL_CUDA_INCLUDES)
        set(OWL_CUDA_INCLUDES "${OWL_CUDA_INCLUDES}" PARENT_SCOPE)
        set(_owl_cuda_${header} "${folder}" PARENT_SCOPE)
        return()
      endif()
      list(APPEND _owl_cuda_others "${folder}/${header}")
    endif()
  endforeach()
  set(_owl_cuda_lacking ${_owl_cuda_lacking} "${header} (${what})" PARENT_SCOPE)
  set(_owl_cuda_others "${_owl_cuda_others}" PARENT_SCOPE)
endfunction()

_owl_cuda_find(cuda.h "CUDA 13" cuda.h CUDA_VERSION 13000 14000)
_owl_cuda_find(nvrtc.h "CUDA 13" "" "" 0 0)
_owl_cuda_find(cublasLt.h "CUDA 13" cublas_api.h CUBLAS_VER_MAJOR 13 14)
_owl_cuda_find(crt/host_defines.h "CUDA 13, nvidia-cuda-crt" "" "" 0 0)
_owl_cuda_find(nv/target "CUDA 13, nvidia-cuda-cccl" "" "" 0 0)
_owl_cuda_find(cudnn.h "cuDNN 9" cudnn_version.h CUDNN_MAJOR 9 10)
_owl_cuda_find(nccl.h "NCCL 2" nccl.h NCCL_MAJOR 2 3)

if(_owl_cuda_lacking)
  list(LENGTH _owl_cuda_lacking _owl_count)
  list(JOIN _owl_cuda_lacking ", " _owl_cuda_lacking)
  if(_owl_count EQUAL 1)
    set(_owl_cuda_why "${_owl_cuda_lacking} was not found")
  else()
    set(_owl_cuda_why "${_owl_cuda_lacking} were not found")
  endif()
  if(_owl_cuda_others)
    list(JOIN _owl_cuda_others ", " _owl_cuda_others)
    string(APPEND _owl_cuda_why " (there is another version of them: ${_owl_cuda_others})")
  endif()
  if(_owl_cuda_wanted STREQUAL "on")
    message(FATAL_ERROR "OWL_CUDA=on, but ${_owl_cuda_why}. `make build OWL_CUDA=on` installs NVIDIA's packages into .venv. "
      "To have them in another Python that builds owl:\n"
      "  python third_party/requirements.py cuda > cuda.txt && pip install -r cuda.txt\n"
      "A toolkit of CUDA 13, with cuDNN and NCCL, does as well: -DOWL_CUDA_ROOT=<prefix>.")
  endif()
  set(OWL_CUDA_INCLUDES "")
  message(STATUS "CUDA backend: left out, ${_owl_cuda_why}")
  return()
endif()
set(OWL_CUDA_FOUND TRUE)

foreach(folder IN LISTS OWL_CUDA_INCLUDES)
  foreach(below IN ITEMS lib lib64 "lib/${CMAKE_LIBRARY_ARCHITECTURE}")
    cmake_path(SET library NORMALIZE "${folder}/../${below}")
    if(IS_DIRECTORY "${library}")
      list(APPEND OWL_CUDA_LIBRARIES "${library}")
    endif()
  endforeach()
endforeach()
list(REMOVE_DUPLICATES OWL_CUDA_LIBRARIES)

_owl_cuda_number(_owl_cuda_version "${_owl_cuda_cuda.h}/cuda.h" CUDA_VERSION)
math(EXPR _owl_cuda_major "${_owl_cuda_version} / 1000")
math(EXPR _owl_cuda_minor "${_owl_cuda_version} % 1000 / 10")
_owl_cuda_number(_owl_cudnn_minor "${_owl_cuda_cudnn.h}/cudnn_version.h" CUDNN_MINOR)
_owl_cuda_number(_owl_nccl_minor "${_owl_cuda_nccl.h}/nccl.h" NCCL_MINOR)
list(JOIN OWL_CUDA_INCLUDES ", " _owl_cuda_where)
message(STATUS "CUDA backend: built with the headers of CUDA ${_owl_cuda_major}.${_owl_cuda_minor}, "
  "cuDNN 9.${_owl_cudnn_minor}, NCCL 2.${_owl_nccl_minor} (${_owl_cuda_where})")
