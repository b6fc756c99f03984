// User-defined operations in Python: a function over NumPy arrays, called on a worker thread (the base of owl.op).
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

// Far above the cost of tasks that run on the recording thread, which may hold locks that the function needs.
constexpr double kWork = 1e9;

// This thread's Python thread state. Creating it takes a lock of the interpreter, which would stay locked in a forked
// child: so it is created while fork() waits for this thread, that is before Scheduler::Outside.
class ThreadState {
 public:
  ThreadState() : state_(PyThreadState_New(PyInterpreterState_Main())) {}
  ThreadState(const ThreadState&) = delete;
  ThreadState& operator=(const ThreadState&) = delete;

  // Holds the GIL once; the thread state ends with it.
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

// A view of a task's operand or result, axes reversed, without a copy. The view keeps the memory alive.
py::array view_of(const TaskOperand& operand, bool writable) {
  const ArrayRef& a = operand.array;
  std::vector<py::ssize_t> lengths(a.shape.begin(), a.shape.end());
  std::reverse(lengths.begin(), lengths.end());
  auto* keep = new Ref<Storage>(operand.storage);
  auto owner = py::capsule(keep, [](void* p) { delete static_cast<Ref<Storage>*>(p); });
  py::array view(array_dtype(a.dtype), lengths, a.data, owner);
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

// A kept exception must not keep the local variables of its frames: one of them may refer to the failed array, which
// refers to the exception, so that neither would be freed. Names and lines stay.
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
} catch (const py::error_already_set&) {  // the class hides these attributes
}

// Copies the function's return value into the memory of the result.
void take_result(const char* name, py::handle given, const TaskOperand& out) {
  const ArrayRef& wanted = out.array;
  if (!py::isinstance<py::array>(given) && numpy_number(given.ptr()) == NumberKind::kNone)
    throw DTypeError(std::string(name) + ": the function returned " + type_name(given.ptr()) +
                     "; it must return a NumPy array");
  const py::handle dtype = numpy_dtype(wanted.dtype);
  if (!given.attr("dtype").attr("newbyteorder")("=").equal(dtype))
    throw DTypeError(std::string(name) + ": the function returned " + text_of(given.attr("dtype")) + ", expected " +
                     text_of(dtype) + "; convert the result with astype, or pass dtype= to owl.op");
  py::list expected;
  for (int i = wanted.shape.ndim() - 1; i >= 0; --i) expected.append(wanted.shape[i]);
  const py::tuple shape = given.attr("shape");
  const bool single = shape.empty() && wanted.shape == Shape{1};
  if (!single && !shape.equal(py::tuple(expected)))
    throw ShapeError(std::string(name) + ": the function returned an array of shape " + text_of(shape) +
                     ", expected " + text_of(py::tuple(expected)) + ", which is owl's " + wanted.shape.str() +
                     " with the axes reversed; pass shape= to owl.op");
  if (wanted.shape.size() > 0) view_of(out, true)[py::ellipsis()] = given;
}

// Takes one array or, for an operation with several results, the needed ones of a sequence.
void take_results(const py::object& given, const Task& task) {
  if (task.kernel_outputs.empty()) return take_result(task.name, given, task.outputs[0]);
  const auto all = given.cast<py::sequence>();
  for (std::size_t i = 0; i < task.kernel_outputs.size(); ++i)
    if (const int at = task.kernel_outputs[i]; at >= 0)
      take_result(task.name, py::object(all[i]), task.outputs[static_cast<std::size_t>(at)]);
}

// Runs on a worker, inside the task's only chunk.
void call(PyObject* function, Task& task) {
#if PY_VERSION_HEX >= 0x030D0000  // the interpreter holds that lock during fork(): it must not wait for this thread
  Scheduler::Outside outside(task);
  ThreadState thread;
#else
  ThreadState thread;
  Scheduler::Outside outside(task);
#endif
  UseDevice here(*task.device);  // computes operations that the function records
  Flag running(runs_user_function);
  NormalDenormals as_in_the_script;
  std::exception_ptr failure;  // rethrown without the GIL
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

std::shared_ptr<UserParams> params_of(const SharedObject& function, std::vector<ResultType> results) {
  auto params = std::make_shared<UserParams>();
  params->results = std::move(results);
  params->work = kWork;
  params->code = function.get();
  params->run = [function](const KernelArgs&, Launch& launch) {
    launch.stage(1, [function, task = launch.task](std::int64_t) { call(function.get(), *task); });
  };
  return params;
}

// Records the backward function, which gives the gradients of all operands.
void record_backward(const std::string& op_name, const SharedObject& backward, Rule& rule) {
  const NArray error = rule.error_array();
  std::vector<Node*> nodes{error.node(), rule.result().node()};
  std::vector<ResultType> types;
  for (std::size_t i = 0; i < rule.operand_count(); ++i) {
    const NArray& x = rule.array(i);
    nodes.push_back(x.node());
    types.push_back({x.shape(), is_float(x.dtype()) ? x.dtype() : DType::kFloat32});
  }
  const auto gradients = record_user(user_record(op_name + ".back"), nodes, params_of(backward, std::move(types)));
  for (std::size_t i = 0; i < gradients.size(); ++i) rule.to(i, gradients[i]);
}

std::vector<NArray> record_call(const std::string& op_name, PyObject* function, PyObject* arrays,
                                std::vector<ResultType> results, PyObject* backward = nullptr) {
  const auto params = params_of(share(function), std::move(results));
  if (given(backward))
    params->gradient = [op_name, backward = share(backward)](Rule& rule) { record_backward(op_name, backward, rule); };
  auto items = py::reinterpret_steal<py::object>(PySequence_Fast(arrays, "arrays must be a list or tuple of NArrays"));
  if (!items) throw py::error_already_set();
  std::vector<Node*> nodes;
  for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(items.ptr()); ++i)
    nodes.push_back(to_narray(PySequence_Fast_GET_ITEM(items.ptr(), i), "operand").node());
  const OpRecord& op = user_record(op_name);
  note_source();
  return record_user(op, nodes, params);
}

PyObject* record_function(PyObject*, const Call& arguments) {
  const auto [name, function, arrays, shape, dtype, backward] =
      arguments.get("record_function", {"name", "function", "arrays", "shape", "dtype", "backward"}, 5);
  const auto op = to_utf8(name);
  return wrap(record_call(op, function, arrays, {to_result_type(op, shape, dtype)}, backward)[0]);
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
        "record_function(name, function, arrays, shape, dtype, backward=None)\n--\n\n"
        "Records a call of function(*operands as NumPy arrays), which returns an array of this shape (axes reversed)\n"
        "and type. backward(err, y, *operands) gives a gradient of each operand, of its shape and type (float32 for\n"
        "others than floats). The base of owl.op."),
    method<record_functions>("record_functions",
        "record_functions(name, function, arrays, types)\n--\n\n"
        "The same for a function that returns several arrays, of these shapes and types: a list of NArrays. Results\n"
        "that are dropped before it runs take no memory."),
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

void bind_user_op(py::module_& m) { add_functions(m, user_op_functions); }

}  // namespace owl::python
