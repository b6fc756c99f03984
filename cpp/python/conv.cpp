// owl.conv: convolution, pooling, local response normalisation and softmax.
#include "owl/conv.h"

#include <pybind11/native_enum.h>
#include <pybind11/stl.h>

#include <array>
#include <tuple>

#include "python/arguments.h"
#include "python/bind.h"
#include "python/caster.h"
#include "python/source.h"
#include "python/text.h"

namespace owl::python {

namespace {

using conv::Convolver, conv::Lrner, conv::Pooler, conv::PoolOp, conv::SoftOp;

std::int64_t at_least(std::int64_t least, std::int64_t value, const char* what) {
  if (value < least)
    throw ShapeError(std::string(what) + " must be at least " + std::to_string(least) + ", got " +
                     std::to_string(value));
  return value;
}

std::int64_t at_least(std::int64_t least, PyObject* given, std::int64_t fallback, const char* what) {
  return at_least(least, given ? to_int(given, what) : fallback, what);
}

template <class E> E one_of(PyObject* given, E fallback, const char* what, const char* type, const char* members) {
  if (!given) return fallback;
  try {
    return py::handle(given).cast<E>();
  } catch (const py::cast_error&) {
    throw py::type_error(std::string(what) + " must be an owl.conv." + type + ", not " + type_name(given) + "; it is " +
                         members);
  }
}

SoftOp soft_op(PyObject* given, const char* what) {
  return one_of(given, SoftOp::kInstance, what, "soft_op", "soft_op.instance or soft_op.channel");
}

Convolver make_convolver(const py::args& args, const py::kwargs& kwargs) {
  const auto [pad_h, pad_w, stride_v, stride_h, dilation, groups] = Given(args, kwargs)->get(
      "Convolver", {"pad_h", "pad_w", "stride_v", "stride_h", "dilation", "groups"}, 0, 4);
  const auto apart = dilation ? to_ints(dilation, "Convolver: dilation") : std::vector<std::int64_t>{1};
  if (apart.size() != 1 && apart.size() != 2)
    throw ShapeError("Convolver: dilation must be one integer or two (along H, along W), got " +
                     std::to_string(apart.size()));
  return {at_least(0, pad_h, 0, "Convolver: pad_h"),
          at_least(0, pad_w, 0, "Convolver: pad_w"),
          at_least(1, stride_v, 1, "Convolver: stride_v"),
          at_least(1, stride_h, 1, "Convolver: stride_h"),
          at_least(1, apart.front(), "Convolver: dilation"),
          at_least(1, apart.back(), "Convolver: dilation"),
          at_least(1, groups, 1, "Convolver: groups")};
}

Pooler make_pooler(const py::args& args, const py::kwargs& kwargs) {
  const auto [h, w, stride_v, stride_h, pad_h, pad_w, op, ceil_mode] = Given(args, kwargs)->get(
      "Pooler", {"h", "w", "stride_v", "stride_h", "pad_h", "pad_w", "op", "ceil_mode"}, 4, 7);
  const Pooler p{at_least(1, h, 0, "Pooler: h"),
                 at_least(1, w, 0, "Pooler: w"),
                 at_least(1, stride_v, 0, "Pooler: stride_v"),
                 at_least(1, stride_h, 0, "Pooler: stride_h"),
                 at_least(0, pad_h, 0, "Pooler: pad_h"),
                 at_least(0, pad_w, 0, "Pooler: pad_w"),
                 one_of(op, PoolOp::kMax, "Pooler: op", "pool_op", "pool_op.max or pool_op.average"),
                 to_bool(ceil_mode, true, "Pooler: ceil_mode")};
  if (p.pad_h >= p.h || p.pad_w >= p.w)
    throw ShapeError("Pooler: padding " + std::to_string(p.pad_h) + " x " + std::to_string(p.pad_w) +
                     " must be smaller than the window " + std::to_string(p.h) + " x " + std::to_string(p.w) +
                     ", or windows would lie wholly outside the image");
  return p;
}

Lrner make_lrner(const py::args& args, const py::kwargs& kwargs) {
  const auto [local_size, alpha, beta] = Given(args, kwargs)->get("Lrner", {"local_size", "alpha", "beta"});
  const auto size = at_least(1, local_size, 0, "Lrner: local_size");
  if (size % 2 == 0)
    throw ShapeError("Lrner: local_size must be odd, a channel and as many on either side, got " +
                     std::to_string(size));
  return {size, to_double(alpha, "Lrner: alpha"), to_double(beta, "Lrner: beta")};
}

// A recording member function as a function for pybind11. `names`: those of its array parameters.
template <class T, class... Arrays>
auto recording(NArray (T::*member)(const Arrays&...) const, const char* function,
               const std::array<const char*, sizeof...(Arrays)>& names) {
  return [=](const T& self, const py::args& args, const py::kwargs& kwargs) {
    std::array<PyObject*, sizeof...(Arrays)> given{};
    Given(args, kwargs)->parse(function, names, static_cast<int>(names.size()), names.size(), given.data());
    const auto array = [&](std::size_t i) {
      return to_narray(given[i], (std::string(function) + ": " + names[i]).c_str());
    };
    const auto arrays = [&]<std::size_t... I>(std::index_sequence<I...>) {
      return std::tuple<Arrays...>{array(I)...};
    }(std::index_sequence_for<Arrays...>());
    note_source();
    return std::apply([&](const Arrays&... each) { return (self.*member)(each...); }, arrays);
  };
}

// Calls `record` with the axis, or with the soft_op.
template <class Record> PyObject* over(PyObject* op, PyObject* axis, const std::string& function, Record record) {
  if (given(op) && given(axis)) throw py::type_error(function + ": op and axis exclude each other");
  if (given(axis)) {
    const auto along = to_int(axis, (function + ": axis").c_str());
    note_source();
    return wrap(record(along));
  }
  const SoftOp which = soft_op(op, (function + ": op").c_str());
  note_source();
  return wrap(record(which));
}

PyObject* softmax(PyObject*, const Call& call) {
  const auto [x, op, axis] = call.get("softmax", {"x", "op", "axis"}, 1, 2);
  const NArray& array = to_narray(x, "softmax: x");
  return over(op, axis, "softmax", [&](auto where) { return conv::softmax(array, where); });
}

PyObject* log_softmax(PyObject*, const Call& call) {
  const auto [x, op, axis] = call.get("log_softmax", {"x", "op", "axis"}, 1, 2);
  const NArray& array = to_narray(x, "log_softmax: x");
  return over(op, axis, "log_softmax", [&](auto where) { return conv::log_softmax(array, where); });
}

PyObject* softmax_back(PyObject*, const Call& call) {
  const auto [err, y, op, axis] = call.get("softmax_back", {"err", "y", "op", "axis"}, 2, 3);
  const NArray &error = to_narray(err, "softmax_back: err"), &result = to_narray(y, "softmax_back: y");
  return over(op, axis, "softmax_back", [&](auto where) { return conv::softmax_back(error, result, where); });
}

PyMethodDef conv_functions[] = {
    method<softmax>("softmax",
        "softmax(x, op=soft_op.instance, *, axis=None)\n--\n\n"
        "exp(x) / sum of exp(x), stable for large values: over all axes but the last (soft_op.instance), over the\n"
        "channel axis, axis -2 (soft_op.channel), or along `axis`. Shape of x; integers give float32."),
    method<log_softmax>("log_softmax",
        "log_softmax(x, op=soft_op.instance, *, axis=None)\n--\n\n"
        "The logarithm of softmax(x, op, axis=axis), computed without its loss of precision."),
    method<softmax_back>("softmax_back",
        "softmax_back(err, y, op=soft_op.instance, *, axis=None)\n--\n\n"
        "The gradient of x, from the error at y = softmax(x, op, axis=axis): y * (err - sum of err * y). err has y's\n"
        "shape."),
    {nullptr, nullptr, 0, nullptr},
};

void bind_enums(py::module_& m) {
  py::native_enum<SoftOp>(m, "soft_op", "enum.Enum", "The axes of softmax: instance, all axes but the last; "
                                                     "channel, the channel axis (-2).")
      .value("instance", SoftOp::kInstance)
      .value("channel", SoftOp::kChannel)
      .finalize();
  py::native_enum<PoolOp>(m, "pool_op", "enum.Enum", "The function of a Pooler: max or average (avg for short).")
      .value("max", PoolOp::kMax)
      .value("average", PoolOp::kAverage)
      .value("avg", PoolOp::kAverage)
      .finalize();
  for (const char* name : {"soft_op", "pool_op"}) m.attr(name).attr("__module__") = "owl.conv";
}

void bind_convolver(py::module_& m) {
  py::class_<Convolver>(m, "Convolver",
                        "A 2-d convolution (cross-correlation, as in other frameworks): padding, strides (v along H,\n"
                        "h along W), dilation (one number, or (along H, along W)) and groups. Images x are\n"
                        "[W, H, C_in, N], weights w [kw, kh, C_in / groups, C_out], the bias b [C_out].\n\n"
                        "ShapeError: a negative padding, a stride, dilation or group count below 1.")
      .def(py::init(&make_convolver))
      .def("ff", recording(&Convolver::ff, "Convolver.ff", {"x", "w", "b"}),
           "ff(self, x, w, b)\n--\n\n"
           "The convolution of x with w, plus b: [W', H', C_out, N].")
      .def("bp", recording(&Convolver::bp, "Convolver.bp", {"err", "x", "w"}),
           "bp(self, err, x, w)\n--\n\n"
           "The gradient of x, from the error at the result; of x only the shape is used.")
      .def("weight_grad", recording(&Convolver::weight_grad, "Convolver.weight_grad", {"err", "x", "w"}),
           "weight_grad(self, err, x, w)\n--\n\n"
           "The gradient of w, from the error at the result; of w only the shape is used.")
      .def("bias_grad", recording(&Convolver::bias_grad, "Convolver.bias_grad", {"err"}),
           "bias_grad(self, err)\n--\n\n"
           "The gradient of b: [C_out].")
      .def_readonly("pad_h", &Convolver::pad_h, "Rows of zeros above and below the image.")
      .def_readonly("pad_w", &Convolver::pad_w, "Columns of zeros left and right of the image.")
      .def_readonly("stride_v", &Convolver::stride_v, "Stride along H.")
      .def_readonly("stride_h", &Convolver::stride_h, "Stride along W.")
      .def_property_readonly(
          "dilation", [](const Convolver& c) { return std::pair(c.dilation_h, c.dilation_w); },
          "The distance of the kernel's elements: (along H, along W).")
      .def_readonly("groups", &Convolver::groups, "The number of groups of channels.")
      .def("__repr__", [](const Convolver& c) {
        return py::str("Convolver(pad_h={}, pad_w={}, stride_v={}, stride_h={}, dilation=({}, {}), groups={})")
            .format(c.pad_h, c.pad_w, c.stride_v, c.stride_h, c.dilation_h, c.dilation_w, c.groups);
      });
}

void bind_pooler(py::module_& m) {
  py::class_<Pooler>(m, "Pooler",
                     "2-d pooling of [W, H, C, N] with windows of h rows and w columns. A partial window at the end\n"
                     "counts; ceil_mode=False drops it. The average divides by the part of the window inside the\n"
                     "padded image.\n\n"
                     "ShapeError: a window or stride below 1, a negative padding or one as large as the window.")
      .def(py::init(&make_pooler))
      .def("ff", recording(&Pooler::ff, "Pooler.ff", {"x"}),
           "ff(self, x)\n--\n\n"
           "The pooled images: [W', H', C, N].")
      .def("bp", recording(&Pooler::bp, "Pooler.bp", {"err", "ff_y", "ff_x"}),
           "bp(self, err, ff_y, ff_x)\n--\n\n"
           "The gradient of x, from the error at y = ff(x). Of equal maxima the first gets the error.")
      .def_readonly("h", &Pooler::h, "Rows of a window.")
      .def_readonly("w", &Pooler::w, "Columns of a window.")
      .def_readonly("stride_v", &Pooler::stride_v, "Stride along H.")
      .def_readonly("stride_h", &Pooler::stride_h, "Stride along W.")
      .def_readonly("pad_h", &Pooler::pad_h, "Rows of padding above and below the image.")
      .def_readonly("pad_w", &Pooler::pad_w, "Columns of padding left and right of the image.")
      .def_readonly("op", &Pooler::op, "pool_op.max or pool_op.average.")
      .def_readonly("ceil_mode", &Pooler::ceil_mode, "Whether a partial window at the end counts.")
      .def("__repr__", [](const Pooler& p) {
        return py::str("Pooler(h={}, w={}, stride_v={}, stride_h={}, pad_h={}, pad_w={}, op={}, ceil_mode={})")
            .format(p.h, p.w, p.stride_v, p.stride_h, p.pad_h, p.pad_w, p.op, p.ceil_mode);
      });
}

void bind_lrner(py::module_& m) {
  py::class_<Lrner>(m, "Lrner",
                    "Local response normalisation across channels of [W, H, C, N]:\n"
                    "y = x / (1 + alpha / local_size * sum of x^2 over local_size channels)^beta.\n\n"
                    "ShapeError: local_size is not a positive odd number.")
      .def(py::init(&make_lrner))
      .def("ff", recording(&Lrner::ff, "Lrner.ff", {"x", "scale"}),
           "ff(self, x, scale)\n--\n\n"
           "The normalised images. `scale` is any array of x's shape, and is not read.")
      .def("bp", recording(&Lrner::bp, "Lrner.bp", {"x", "y", "scale", "err"}),
           "bp(self, x, y, scale, err)\n--\n\n"
           "The gradient of x, from the error at y = ff(x, scale).")
      .def_readonly("local_size", &Lrner::local_size, "The number of channels whose squares are summed.")
      .def_readonly("alpha", &Lrner::alpha, "The factor of the mean of squares.")
      .def_readonly("beta", &Lrner::beta, "The exponent of the divisor.")
      .def("__repr__", [](const Lrner& n) {
        return py::str("Lrner(local_size={}, alpha={}, beta={})").format(n.local_size, n.alpha, n.beta);
      });
}

}  // namespace

void bind_conv(py::module_& m) {
  auto module = m.def_submodule("conv", "Convolution, pooling, normalisation and softmax.");
  py::options options;
  options.disable_function_signatures();  // they would show only *args, **kwargs
  bind_enums(module);
  add_functions(module, conv_functions, "owl.conv");
  bind_convolver(module);
  bind_pooler(module);
  bind_lrner(module);
  for (const char* name : {"Convolver", "Pooler", "Lrner"}) module.attr(name).attr("__module__") = "owl.conv";
}

}  // namespace owl::python
