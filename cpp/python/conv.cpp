// owl.conv: convolution, pooling, local response normalisation and softmax.
#include "owl/conv.h"

#include <pybind11/native_enum.h>
#include <pybind11/stl.h>

#include <variant>

#include "python/bind.h"
#include "python/caster.h"
#include "python/source.h"

namespace owl::python {

namespace {

using conv::Convolver, conv::Lrner, conv::Pooler, conv::PoolOp, conv::SoftOp;

// One length for both directions, or (along H, along W).
using OneOrTwo = std::variant<std::int64_t, std::pair<std::int64_t, std::int64_t>>;

std::pair<std::int64_t, std::int64_t> both(const OneOrTwo& v) {
  if (const auto* one = std::get_if<std::int64_t>(&v)) return {*one, *one};
  return std::get<1>(v);
}

void at_least(std::int64_t least, std::int64_t value, const char* what) {
  if (value < least)
    throw ShapeError(std::string(what) + " must be at least " + std::to_string(least) + ", got " +
                     std::to_string(value));
}

Convolver make_convolver(std::int64_t pad_h, std::int64_t pad_w, std::int64_t stride_v, std::int64_t stride_h,
                         const OneOrTwo& dilation, std::int64_t groups) {
  const auto [dilation_h, dilation_w] = both(dilation);
  at_least(0, pad_h, "Convolver: pad_h");
  at_least(0, pad_w, "Convolver: pad_w");
  at_least(1, stride_v, "Convolver: stride_v");
  at_least(1, stride_h, "Convolver: stride_h");
  at_least(1, dilation_h, "Convolver: dilation");
  at_least(1, dilation_w, "Convolver: dilation");
  at_least(1, groups, "Convolver: groups");
  return {pad_h, pad_w, stride_v, stride_h, dilation_h, dilation_w, groups};
}

Pooler make_pooler(std::int64_t h, std::int64_t w, std::int64_t stride_v, std::int64_t stride_h, std::int64_t pad_h,
                   std::int64_t pad_w, PoolOp op, bool ceil_mode) {
  at_least(1, h, "Pooler: h");
  at_least(1, w, "Pooler: w");
  at_least(1, stride_v, "Pooler: stride_v");
  at_least(1, stride_h, "Pooler: stride_h");
  at_least(0, pad_h, "Pooler: pad_h");
  at_least(0, pad_w, "Pooler: pad_w");
  if (pad_h >= h || pad_w >= w)
    throw ShapeError("Pooler: padding " + std::to_string(pad_h) + " x " + std::to_string(pad_w) +
                     " must be smaller than the window " + std::to_string(h) + " x " + std::to_string(w) +
                     ", or windows would lie wholly outside the image");
  return {h, w, stride_v, stride_h, pad_h, pad_w, op, ceil_mode};
}

Lrner make_lrner(std::int64_t local_size, double alpha, double beta) {
  at_least(1, local_size, "Lrner: local_size");
  if (local_size % 2 == 0)
    throw ShapeError("Lrner: local_size must be odd, a channel and as many on either side, got " +
                     std::to_string(local_size));
  return {local_size, alpha, beta};
}

// A member function that records, as a function for pybind11.
template <class T, class... Arrays> auto recording(NArray (T::*member)(const Arrays&...) const) {
  return [member](const T& self, const Arrays&... arrays) {
    note_source();
    return (self.*member)(arrays...);
  };
}

void bind_enums(py::module_& m) {
  py::native_enum<SoftOp>(m, "soft_op", "enum.Enum", "What softmax runs over: instance, all axes but the last; "
                                                     "channel, the channel axis (-2).")
      .value("instance", SoftOp::kInstance)
      .value("channel", SoftOp::kChannel)
      .finalize();
  py::native_enum<PoolOp>(m, "pool_op", "enum.Enum", "What a Pooler computes: max or average (avg for short).")
      .value("max", PoolOp::kMax)
      .value("average", PoolOp::kAverage)
      .value("avg", PoolOp::kAverage)
      .finalize();
  for (const char* name : {"soft_op", "pool_op"}) m.attr(name).attr("__module__") = "owl.conv";
}

void bind_softmax(py::module_& m) {
  m.def(
      "softmax", [](const NArray& x, SoftOp op) { note_source(); return conv::softmax(x, op); }, py::arg("x"),
      py::arg("op") = SoftOp::kInstance,
      "exp(x) / sum of exp(x), stable for large values: over all axes but the last (soft_op.instance) or over the\n"
      "channel axis, axis -2 (soft_op.channel). Shape of x; integers give float32.");
  m.def(
      "log_softmax", [](const NArray& x, SoftOp op) { note_source(); return conv::log_softmax(x, op); }, py::arg("x"),
      py::arg("op") = SoftOp::kInstance, "The logarithm of softmax(x, op), without its loss of precision.");
  m.def(
      "softmax_back",
      [](const NArray& err, const NArray& y, SoftOp op) { note_source(); return conv::softmax_back(err, y, op); },
      py::arg("err"), py::arg("y"), py::arg("op") = SoftOp::kInstance,
      "The gradient of x, from the error at y = softmax(x, op): y * (err - sum of err * y). err has y's shape.");
}

void bind_convolver(py::module_& m) {
  py::class_<Convolver>(m, "Convolver",
                        "A 2-d convolution (cross-correlation, as every framework does): padding, strides (v along H,\n"
                        "h along W), dilation (one number, or (along H, along W)) and groups. Images x are\n"
                        "[W, H, C_in, N], weights w [kw, kh, C_in / groups, C_out], the bias b [C_out].\n\n"
                        "ShapeError: a negative padding, a stride, dilation or group count below 1.")
      .def(py::init(&make_convolver), py::arg("pad_h") = 0, py::arg("pad_w") = 0, py::arg("stride_v") = 1,
           py::arg("stride_h") = 1, py::kw_only(), py::arg("dilation") = 1, py::arg("groups") = 1)
      .def("ff", recording(&Convolver::ff), py::arg("x"), py::arg("w"), py::arg("b"),
           "The convolution of x with w, plus b: [W', H', C_out, N].")
      .def("bp", recording(&Convolver::bp), py::arg("err"), py::arg("x"), py::arg("w"),
           "The gradient of x, from the error at the result; only x's shape matters.")
      .def("weight_grad", recording(&Convolver::weight_grad), py::arg("err"), py::arg("x"), py::arg("w"),
           "The gradient of w, from the error at the result; only w's shape matters.")
      .def("bias_grad", recording(&Convolver::bias_grad), py::arg("err"), "The gradient of b: [C_out].")
      .def_readonly("pad_h", &Convolver::pad_h, "Rows of zeros above and below the image.")
      .def_readonly("pad_w", &Convolver::pad_w, "Columns of zeros left and right of the image.")
      .def_readonly("stride_v", &Convolver::stride_v, "Steps along H from one place of the kernel to the next.")
      .def_readonly("stride_h", &Convolver::stride_h, "Steps along W from one place of the kernel to the next.")
      .def_property_readonly(
          "dilation", [](const Convolver& c) { return std::pair(c.dilation_h, c.dilation_w); },
          "How far apart the kernel's elements lie: (along H, along W).")
      .def_readonly("groups", &Convolver::groups, "Into how many groups the channels are divided.")
      .def("__repr__", [](const Convolver& c) {
        return py::str("Convolver(pad_h={}, pad_w={}, stride_v={}, stride_h={}, dilation=({}, {}), groups={})")
            .format(c.pad_h, c.pad_w, c.stride_v, c.stride_h, c.dilation_h, c.dilation_w, c.groups);
      });
}

void bind_pooler(py::module_& m) {
  py::class_<Pooler>(m, "Pooler",
                     "2-d pooling of [W, H, C, N] with windows of h rows and w columns. A last, partial window\n"
                     "counts; ceil_mode=False drops it. The average divides by the part of the window inside the\n"
                     "padded image.\n\n"
                     "ShapeError: a window or stride below 1, a negative padding or one as large as the window.")
      .def(py::init(&make_pooler), py::arg("h"), py::arg("w"), py::arg("stride_v"), py::arg("stride_h"),
           py::arg("pad_h") = 0, py::arg("pad_w") = 0, py::arg("op") = PoolOp::kMax, py::kw_only(),
           py::arg("ceil_mode") = true)
      .def("ff", recording(&Pooler::ff), py::arg("x"), "The pooled images: [W', H', C, N].")
      .def("bp", recording(&Pooler::bp), py::arg("err"), py::arg("ff_y"), py::arg("ff_x"),
           "The gradient of x, from the error at y = ff(x). Of equal maxima the first takes the error.")
      .def_readonly("h", &Pooler::h, "Rows of a window.")
      .def_readonly("w", &Pooler::w, "Columns of a window.")
      .def_readonly("stride_v", &Pooler::stride_v, "Steps along H from one window to the next.")
      .def_readonly("stride_h", &Pooler::stride_h, "Steps along W from one window to the next.")
      .def_readonly("pad_h", &Pooler::pad_h, "Rows of padding above and below the image.")
      .def_readonly("pad_w", &Pooler::pad_w, "Columns of padding left and right of the image.")
      .def_readonly("op", &Pooler::op, "pool_op.max or pool_op.average.")
      .def_readonly("ceil_mode", &Pooler::ceil_mode, "Whether a last, partial window counts.")
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
      .def(py::init(&make_lrner), py::arg("local_size"), py::arg("alpha"), py::arg("beta"))
      .def("ff", recording(&Lrner::ff), py::arg("x"), py::arg("scale"),
           "The normalised images. `scale` is any array of x's shape: neither read nor changed.")
      .def("bp", recording(&Lrner::bp), py::arg("x"), py::arg("y"), py::arg("scale"), py::arg("err"),
           "The gradient of x, from the error at y = ff(x, scale).")
      .def_readonly("local_size", &Lrner::local_size, "Over how many channels the squares are summed.")
      .def_readonly("alpha", &Lrner::alpha, "The factor of the mean of squares.")
      .def_readonly("beta", &Lrner::beta, "The exponent of the divisor.")
      .def("__repr__", [](const Lrner& n) {
        return py::str("Lrner(local_size={}, alpha={}, beta={})").format(n.local_size, n.alpha, n.beta);
      });
}

}  // namespace

void bind_conv(py::module_& m) {
  auto module = m.def_submodule("conv", "Convolution, pooling, normalisation and softmax.");
  bind_enums(module);
  bind_softmax(module);
  bind_convolver(module);
  bind_pooler(module);
  bind_lrner(module);
  for (const char* name : {"Convolver", "Pooler", "Lrner"}) module.attr(name).attr("__module__") = "owl.conv";
}

}  // namespace owl::python
