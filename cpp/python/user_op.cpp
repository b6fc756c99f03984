// Operations defined in Python: a function over NumPy arrays, called on a worker thread (owl.op is built on this).
#include <pybind11/numpy.h>

#include <algorithm>
#include <exception>

#include "backend/cpu/denormals.h"
#include "graph/record.h"
#include "ops/user.h"
#include "python/arguments.h"
#include "python/bind.h"
#include "python/gil.h"
#include "python/later.h"
#include "python/narray_type.h"
#include "python/numpy_types.h"
#include "python/source.h"
#include "python/text.h"
#include "runtime/engine.h"
#include "runtime/scheduler.h"
#include "plan/task.h"

namespace owl::python {

namespace {

// Far above what the engine runs on the thread that records: that one may hold locks which the function needs.
constexpr double kWork = 1e9;

// What Python wants to know of this thread. Making it takes a lock of the interpreter's that a forked child would find
// taken until the process ends: so it is made where fork() waits for this thread, that is before the engine lets it Outside.
class ThreadState {
 public:
  ThreadState() : state_(PyThreadState_New(PyInterpreterState_Main())) {}
  ThreadState(const ThreadState&) = delete;
  ThreadState& operator=(const ThreadState&) = delete;

  // Python's lock, once; the state ends with it.
  class WithGil {
   public:
    explicit WithGil(ThreadState& thread) : state_(thread.state_) { PyEval_AcquireThread(state_); }
    ~WithGil() {
      PyThreadState_Clear(state_);
      PyThreadState_DeleteCurrent();
    }
    WithGil(const WithGil&) = delete;
    WithGil& operator=(const WithGil&) = delete;

   private:
    PyThreadState* state_;
  };

 private:
  PyThreadState* state_;
};

struct Flag {
  explicit Flag(bool& flag) : flag_(flag) { flag_ = true; }
  ~Flag() { flag_ = false; }
  bool& flag_;
};

// The memory of a task's operand or result, axes reversed, without a copy. The view keeps the memory.
py::array view_of(const TaskOperand& operand, bool writable) {
  const ArrayRef& a = operand.array;
  std::vector<py::ssize_t> lengths(a.shape.begin(), a.shape.end());
  std::reverse(lengths.begin(), lengths.end());
  auto* keep = new Ref<Storage>(operand.storage);
  auto owner = py::capsule(keep, [](void* p) { delete static_cast<Ref<Storage>*>(p); });
  py::array view(py::reinterpret_borrow<py::dtype>(numpy_dtype(a.dtype)), lengths, a.data, owner);
  if (!writable) view.attr("setflags")(py::arg("write") = false);
  return view;
}

std::string text_of(py::handle o) {
  try {
    return to_utf8(py::str(o));
  } catch (const py::error_already_set&) {
    return "(which cannot be shown)";
  }
}

// An exception that is kept must not keep the variables of the frames that it passed: one of them may be, or hold, the
// array that failed, and both would never be freed. Names and lines stay.
void drop_variables(const py::object& exception) try {
  const auto clear = py::module_::import("traceback").attr("clear_frames");
  std::vector<py::object> chain{exception};
  for (std::size_t i = 0; i < chain.size(); ++i) {
    if (const py::object trace = chain[i].attr("__traceback__"); !trace.is_none()) clear(trace);
    for (const char* link : {"__cause__", "__context__"}) {
      const py::object next = chain[i].attr(link);
      const auto is_next = [&](const py::object& known) { return known.is(next); };
      if (!next.is_none() && std::ranges::none_of(chain, is_next)) chain.push_back(next);
    }
  }
} catch (const py::error_already_set&) {  // a class that hides these attributes
}

// Copies what the function gave into the memory of the result.
void take_result(const char* name, py::handle given, const TaskOperand& out) {
  const ArrayRef& wanted = out.array;
  if (!py::isinstance<py::array>(given) && numpy_number(given.ptr()) == NumberKind::kNone)
    throw DTypeError(std::string(name) + ": the function returned " + type_name(given.ptr()) +
                     "; it must return a NumPy array");
  const py::handle dtype = numpy_dtype(wanted.dtype);
  if (!given.attr("dtype").attr("newbyteorder")("=").equal(dtype))
    throw DTypeError(std::string(name) + ": the function returned " + text_of(given.attr("dtype")) + ", expected " +
                     text_of(dtype) + "; convert the result with astype, or say dtype= when the operation is made");
  py::list expected;
  for (int i = wanted.shape.ndim() - 1; i >= 0; --i) expected.append(wanted.shape[i]);
  const py::tuple shape = given.attr("shape");
  const bool single = shape.empty() && wanted.shape == Shape{1};
  if (!single && !shape.equal(py::tuple(expected)))
    throw ShapeError(std::string(name) + ": the function returned an array of shape " + text_of(shape) +
                     ", expected " + text_of(py::tuple(expected)) + ", which is owl's " + wanted.shape.str() +
                     " with the axes reversed; say shape= when the operation is made");
  if (wanted.shape.size() > 0) view_of(out, true)[py::ellipsis()] = given;
}

// One array or, of an operation with several results, a sequence of them, of which those are taken that are wanted.
void take_results(const py::object& given, const Task& task) {
  if (task.kernel_outputs.empty()) return take_result(task.name, given, task.outputs[0]);
  const auto all = given.cast<py::sequence>();
  for (std::size_t i = 0; i < task.kernel_outputs.size(); ++i)
    if (const int at = task.kernel_outputs[i]; at >= 0)
      take_result(task.name, py::object(all[i]), task.outputs[static_cast<std::size_t>(at)]);
}

// On a worker, inside the task's one chunk.
void call(PyObject* function, Task& task) {
#if PY_VERSION_HEX >= 0x030D0000  // the interpreter itself holds that lock over a fork: waiting for us it must not be
  Scheduler::Outside outside(task);
  ThreadState thread;
#else
  ThreadState thread;
  Scheduler::Outside outside(task);
#endif
  UseDevice here(*task.device);  // computes what the function itself may record
  Flag running(runs_user_function);
  NormalDenormals as_in_the_script;
  std::exception_ptr failure;  // thrown on without Python's lock
  {
    ThreadState::WithGil gil(thread);
    try {
      release_what_is_due();
      py::tuple arguments(task.inputs.size());
      for (std::size_t i = 0; i < task.inputs.size(); ++i) arguments[i] = view_of(task.inputs[i], false);
      take_results(py::reinterpret_borrow<py::object>(function)(*arguments), task);
    } catch (py::error_already_set& e) {
      const py::object value = e.value();
      if (e.trace()) PyException_SetTraceback(value.ptr(), e.trace().ptr());
      std::string text = std::string(task.name) + ": the function raised " + type_name(value.ptr());
      if (const auto words = text_of(value); !words.empty()) text += ": " + words;
      drop_variables(value);
      failure = caused_error(value.ptr(), text);
    } catch (...) {
      failure = std::current_exception();
    }
  }
  if (failure) std::rethrow_exception(failure);
}

ResultType to_result_type(const std::string& op, PyObject* shape, PyObject* dtype) {
  return naming(op, [&] { return ResultType{to_shape(shape, (op + ": shape").c_str()), to_dtype(dtype)}; });
}

std::vector<NArray> record_call(const std::string& op_name, PyObject* function, PyObject* arrays,
                                std::vector<ResultType> results) {
  auto params = std::make_shared<UserParams>();
  params->results = std::move(results);
  params->work = kWork;
  params->code = function;
  params->run = [function = share(function)](const KernelArgs&, Launch& launch) {
    launch.stage(1, [function, task = launch.task](std::int64_t) { call(function.get(), *task); });
  };
  auto items = py::reinterpret_steal<py::object>(PySequence_Fast(arrays, "arrays must be a list or tuple of NArrays"));
  if (!items) throw py::error_already_set();
  std::vector<Node*> nodes;
  for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(items.ptr()); ++i)
    nodes.push_back(to_narray(PySequence_Fast_GET_ITEM(items.ptr(), i), "operand").node());
  const OpRecord& op = user_record(op_name);
  note_source();
  return record_user(op, nodes, std::move(params));
}

PyObject* record_function(PyObject*, const Call& arguments) {
  const auto [name, function, arrays, shape, dtype] =
      arguments.get("record_function", {"name", "function", "arrays", "shape", "dtype"});
  const auto op = to_utf8(name);
  return wrap(record_call(op, function, arrays, {to_result_type(op, shape, dtype)})[0]);
}

PyObject* record_functions(PyObject*, const Call& arguments) {
  const auto [name, function, arrays, types] =
      arguments.get("record_functions", {"name", "function", "arrays", "types"});
  const auto op = to_utf8(name);
  std::vector<ResultType> results;
  for (const py::handle type : py::reinterpret_borrow<py::object>(types)) {
    const auto pair = type.cast<py::tuple>();
    results.push_back(to_result_type(op, py::object(pair[0]).ptr(), py::object(pair[1]).ptr()));
  }
  py::list all;
  for (NArray& result : record_call(op, function, arrays, std::move(results)))
    all.append(py::reinterpret_steal<py::object>(wrap(std::move(result))));
  return all.release().ptr();
}

PyMethodDef user_op_functions[] = {
    method<record_function>("record_function",
        "record_function(name, function, arrays, shape, dtype)\n--\n\n"
        "Records a call of function(*operands as NumPy arrays), which gives an array of this shape (axes reversed)\n"
        "and type. What owl.op is built on."),
    method<record_functions>("record_functions",
        "record_functions(name, function, arrays, types)\n--\n\n"
        "The same for a function that gives several arrays, of these shapes and types: a list of as many NArrays. Results\n"
        "that are dropped before it runs take no memory."),
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

void bind_user_op(py::module_& m) { add_functions(m, user_op_functions); }

}  // namespace owl::python
