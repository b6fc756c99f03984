#include "python/source.h"

#include <array>
#include <cstdint>
#include <string>
#include <unordered_map>

#include "base/fork_mutex.h"
#include "python/bind.h"
#include "python/text.h"

namespace owl::python {

PyCodeObject* last_code = nullptr;

namespace {

// The package's folder: frames of its files do not count as the line that recorded an operation.
std::string& package_folder() {
  static std::string folder;
  return folder;
}

// Cached facts about a code object that has recorded an operation. Kept until the process ends, because nodes point to
// it.
struct Known {
  bool own;  // belongs to the package
  std::string file;
};
ForkMutex known_mutex;  // threads without the GIL ask for places too
auto& known = *new std::unordered_map<const void*, Known>;

// The package's code objects that were met last, by their address: each operation that the package records for a script
// walks past some ten of its frames. Guarded by the GIL; entries are never freed, as all code objects in `known`.
std::array<PyCodeObject*, 512> recent_own{};

PyCodeObject*& recent_own_place(PyCodeObject* code) {
  return recent_own[(reinterpret_cast<std::uintptr_t>(code) >> 5) % recent_own.size()];
}

bool find_whether_own(PyCodeObject* code) {
  {
    std::lock_guard lock(known_mutex);
    if (auto found = known.find(code); found != known.end()) return found->second.own;
  }
  auto name = py::reinterpret_borrow<py::object>(reinterpret_cast<PyObject*>(code)).attr("co_filename");
  auto file = to_utf8(name);
  const bool own = !package_folder().empty() && file.starts_with(package_folder());
  std::lock_guard lock(known_mutex);
  if (known.emplace(code, Known{own, std::move(file)}).second) Py_INCREF(code);
  return own;
}

bool is_own_code(PyCodeObject* code) {
  PyCodeObject*& recent = recent_own_place(code);
  if (recent == code) return true;
  const bool own = find_whether_own(code);
  if (own) recent = code;
  return own;
}

// The line that Held found; {} outside its block.
thread_local Source held;

// A block of the package's own code that records many operations: the line is found once for all of them.
class Held {
 public:
  void enter() {
    note_source();
    held = current_source;
  }
  void exit(const py::args&) { held = {}; }
};

}  // namespace

void note_unseen_source(PyFrameObject* frame, PyCodeObject* code) {
  if (held.code && is_own_code(code)) {
    current_source = held;
    return;
  }
  Py_INCREF(frame);
  while (is_own_code(code)) {
    PyFrameObject* caller = PyFrame_GetBack(frame);
    if (!caller) break;
    Py_DECREF(frame);
    frame = caller;
    code = PyFrame_GetCode(frame);
    Py_DECREF(code);
  }
  current_source = {code, last_instruction(frame)};
  // The fast path may only use a frame that was found without walking the stack.
  if (frame == PyEval_GetFrame()) last_code = code;
  Py_DECREF(frame);
}

std::string describe(const Source& source) {
  if (!source.code) return "";
  std::lock_guard lock(known_mutex);
  const auto found = known.find(source.code);
  if (found == known.end()) return "";
  // Reads only the code object's immutable line table, so it needs no GIL.
  const int line = PyCode_Addr2Line(static_cast<PyCodeObject*>(const_cast<void*>(source.code)), source.offset);
  return found->second.file + ":" + std::to_string(line);
}

void bind_source(py::module_& m) {
  m.def(
      "set_package_folder", [](const py::str& folder) { package_folder() = to_utf8(folder); }, py::arg("folder"),
      "Frames of files in this folder are skipped when owl looks for the line that recorded an operation.");
  py::class_<Held>(m, "HeldSource", "A block in which operations that the package records have the line of its begin.")
      .def(py::init<>())
      .def("__enter__", &Held::enter)
      .def("__exit__", &Held::exit);
}

}  // namespace owl::python
