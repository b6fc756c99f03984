# Finds oneDNN and defines the target owl_onednn and
#   OWL_ONEDNN_LIBRARY   the shared library's file, links resolved
#   OWL_ONEDNN_SONAME    the name under which programs load it
#   OWL_ONEDNN_NOTICES   its licence files, to be installed beside a bundled copy
#
# Searched in this order: OWL_ONEDNN_ROOT (CMake variable or environment), the PyPI packages onednn-devel-cpu-gomp and
# onednn-cpu-gomp of the Python in use, CMAKE_PREFIX_PATH and the system. The wheels install their files into the "data"
# folder of pip's scheme, which in an isolated build is not the interpreter's prefix: so the packages' own records tell
# where the files are.

set(OWL_ONEDNN_ROOT "$ENV{OWL_ONEDNN_ROOT}" CACHE PATH "Prefix of a oneDNN 3 installation (include/, lib/)")
set(OWL_ONEDNN_SONAME "libdnnl.so.3")

set(_owl_find_wheel [[
import pathlib
from importlib import metadata
for package, name in (('onednn-devel-cpu-gomp', 'include/dnnl.hpp'), ('onednn-cpu-gomp', 'lib/libdnnl.so.3'),
                      ('onednn-cpu-gomp', 'onednn/THIRD-PARTY-PROGRAMS')):
    found = ''
    try:
        for file in metadata.files(package) or ():
            path = pathlib.Path(file.locate()).resolve()
            if path.as_posix().endswith('/' + name) and path.exists():
                found = str(path.parent)
    except metadata.PackageNotFoundError:
        pass
    print(found)
]])

unset(_owl_include_hint)
unset(_owl_library_hint)
unset(_owl_notices)
if(OWL_ONEDNN_ROOT)
  set(_owl_include_hint "${OWL_ONEDNN_ROOT}/include")
  set(_owl_library_hint "${OWL_ONEDNN_ROOT}/lib" "${OWL_ONEDNN_ROOT}/lib64")
  set(_owl_notices "${OWL_ONEDNN_ROOT}/share/doc/onednn" "${OWL_ONEDNN_ROOT}/share/doc/dnnl")
else()
  find_program(_owl_python3 NAMES python3 python)
  foreach(python IN ITEMS "${Python_EXECUTABLE}" "${PROJECT_SOURCE_DIR}/.venv/bin/python" "${_owl_python3}")
    if(python AND EXISTS "${python}" AND NOT _owl_library_hint)
      execute_process(COMMAND "${python}" -c "${_owl_find_wheel}" OUTPUT_VARIABLE _owl_out RESULT_VARIABLE _owl_rc ERROR_QUIET)
      if(_owl_rc EQUAL 0 AND _owl_out MATCHES "^([^\n]+)\n([^\n]+)\n([^\n]*)")
        set(_owl_include_hint "${CMAKE_MATCH_1}")
        set(_owl_library_hint "${CMAKE_MATCH_2}")
        set(_owl_notices "${CMAKE_MATCH_3}")
      endif()
    endif()
  endforeach()
endif()

# Searched again at every configuration, because an isolated build's folder no longer exists the next time.
unset(_owl_dnnl_include CACHE)
unset(_owl_dnnl_library CACHE)
find_path(_owl_dnnl_include dnnl.hpp HINTS ${_owl_include_hint})
find_library(_owl_dnnl_library NAMES ${OWL_ONEDNN_SONAME} dnnl HINTS ${_owl_library_hint})
mark_as_advanced(_owl_dnnl_include _owl_dnnl_library _owl_python3)
if(NOT _owl_dnnl_include OR NOT _owl_dnnl_library)
  message(FATAL_ERROR "oneDNN was not found. Install it into the Python that builds owl:\n"
    "  pip install onednn-devel-cpu-gomp==2023.2.0\n"
    "or name the prefix of another oneDNN 3 installation: -DOWL_ONEDNN_ROOT=<prefix>.")
endif()

file(REAL_PATH "${_owl_dnnl_library}" OWL_ONEDNN_LIBRARY)
set(OWL_ONEDNN_NOTICES "")
foreach(folder IN LISTS _owl_notices)
  foreach(name IN ITEMS LICENSE THIRD-PARTY-PROGRAMS)
    if(EXISTS "${folder}/${name}")
      list(APPEND OWL_ONEDNN_NOTICES "${folder}/${name}")
    endif()
  endforeach()
endforeach()
message(STATUS "oneDNN: ${OWL_ONEDNN_LIBRARY}")

add_library(owl_onednn_library SHARED IMPORTED GLOBAL)
set_target_properties(owl_onednn_library PROPERTIES
  IMPORTED_LOCATION "${_owl_dnnl_library}" IMPORTED_SONAME "${OWL_ONEDNN_SONAME}"
  INTERFACE_INCLUDE_DIRECTORIES "${_owl_dnnl_include}")
add_library(owl_onednn INTERFACE)
target_link_libraries(owl_onednn INTERFACE owl_onednn_library)

# oneDNN's OpenMP runtime, so that a worker can call omp_set_num_threads(1); owl itself is not compiled with OpenMP.
execute_process(COMMAND ${CMAKE_CXX_COMPILER} -print-file-name=libgomp.so.1
  OUTPUT_VARIABLE _owl_gomp OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(IS_ABSOLUTE "${_owl_gomp}" AND EXISTS "${_owl_gomp}")
  target_link_libraries(owl_onednn INTERFACE "${_owl_gomp}")
endif()
