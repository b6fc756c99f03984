// layer_norm and batch_norm.
#include "owl/norm.h"

#include "python/arguments.h"
#include "python/bind.h"
#include "python/narray_type.h"
#include "python/source.h"

namespace owl::python {

namespace {

double eps_of(PyObject* given, const char* what) { return given ? to_double(given, what) : 1e-5; }

PyObject* layer_norm(PyObject*, const Call& call) {
  const auto [x, weight, bias, eps] = call.get("layer_norm", {"x", "weight", "bias", "eps"}, 3);
  const NArray& array = to_narray(x, "layer_norm: x");
  const NArray &scale = to_narray(weight, "layer_norm: weight"), &shift = to_narray(bias, "layer_norm: bias");
  const double least = eps_of(eps, "layer_norm: eps");
  note_source();
  return wrap(owl::layer_norm(array, scale, shift, least));
}

PyObject* batch_norm(PyObject*, const Call& call) {
  const auto [x, weight, bias, mean, var, eps] =
      call.get("batch_norm", {"x", "weight", "bias", "mean", "var", "eps"}, 5);
  const NArray& array = to_narray(x, "batch_norm: x");
  const NArray &scale = to_narray(weight, "batch_norm: weight"), &shift = to_narray(bias, "batch_norm: bias");
  const NArray &centre = to_narray(mean, "batch_norm: mean"), &spread = to_narray(var, "batch_norm: var");
  const double least = eps_of(eps, "batch_norm: eps");
  note_source();
  return wrap(owl::batch_norm(array, scale, shift, centre, spread, least));
}

PyObject* moments(PyObject*, const Call& call) {
  const auto [x, axis, correction] = call.get("moments", {"x", "axis", "correction"}, 1);
  const NArray& array = to_narray(x, "moments: x");
  const auto axes = to_axes(axis, "moments: axis");
  const double taken = correction ? to_double(correction, "moments: correction") : 0;
  note_source();
  auto [mean, var] = owl::moments(array, axes, taken);
  const auto first = py::reinterpret_steal<py::object>(wrap(std::move(mean)));
  const auto second = py::reinterpret_steal<py::object>(wrap(std::move(var)));
  if (!first || !second) throw py::error_already_set();
  return py::make_tuple(first, second).release().ptr();
}

PyMethodDef norm_functions[] = {
    method<layer_norm>("layer_norm",
        "layer_norm(x, weight, bias, eps=1e-5)\n--\n\n"
        "(x - mean) / sqrt(var + eps) * weight + bias, with the mean and the variance over the first axis, whose\n"
        "length weight and bias have. Shape of x; integers give float32.\n\n"
        "ShapeError: another length. ValueError: a negative eps."),
    method<batch_norm>("batch_norm",
        "batch_norm(x, weight, bias, mean, var, eps=1e-5)\n--\n\n"
        "(x - mean) / sqrt(var + eps) * weight + bias, with a number of each for every channel, the index along axis\n"
        "-2. Those of the batch itself are x.mean(axes) and x.var(axes) over all the other axes.\n\n"
        "ShapeError: not as many elements as channels, or x has one axis. ValueError: a negative eps."),
    method<moments>("moments",
        "moments(x, axis=None, correction=0)\n--\n\n"
        "(x.mean(axis), x.var(axis, correction)) of one pass over x: over an axis or a list of axes, which stay with\n"
        "length 1; without axis over all, shape [1]. Integers give float32."),
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

void bind_norm(py::module_& m) { add_functions(m, norm_functions); }

}  // namespace owl::python
