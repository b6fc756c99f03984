# Finds Python's headers and pybind11 (PyPI package pybind11, installed for the Python that builds owl).
find_package(Python 3.10 REQUIRED COMPONENTS Interpreter OPTIONAL_COMPONENTS Development.Module)
if(NOT Python_Development.Module_FOUND)
  message(FATAL_ERROR "${Python_EXECUTABLE} has no headers (Python.h). On Debian and Ubuntu: apt install python3-dev; "
    "on Fedora: dnf install python3-devel.")
endif()
if(NOT pybind11_DIR)
  execute_process(COMMAND "${Python_EXECUTABLE}" -c "import pybind11; print(pybind11.get_cmake_dir())"
    OUTPUT_VARIABLE _owl_pybind11 OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
set(PYBIND11_FINDPYTHON ON)
find_package(pybind11 3.0 CONFIG QUIET HINTS "${_owl_pybind11}")
if(NOT pybind11_FOUND)
  message(FATAL_ERROR "pybind11 was not found: ${Python_EXECUTABLE} -m pip install pybind11")
endif()
message(STATUS "pybind11: ${pybind11_VERSION} for Python ${Python_VERSION}")
