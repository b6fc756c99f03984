// Operators, comparisons and conversions to Python numbers.
#include "graph/op.h"
#include "graph/record.h"
#include "python/arguments.h"
#include "python/narray_class.h"
#include "python/narray_type.h"
#include "python/operand.h"
#include "python/source.h"

namespace owl::python {

namespace {

[[gnu::cold]] PyObject* not_implemented() { return Py_NewRef(Py_NotImplemented); }

// The two operands of an operator; false if one has a type that may define the operator itself.
bool operands(PyObject* a, PyObject* b, const char* place, Operand (&o)[2]) {
  return to_operand(a, place, o[0]) && to_operand(b, place, o[1]);
}

using Binary = NArray (*)(const Operand&, const Operand&);

PyObject* binary(PyObject* a, PyObject* b, const char* place, Binary apply) noexcept {
  return guarded([&] {
    Operand o[2] = {0.0, 0.0};
    if (!operands(a, b, place, o)) return not_implemented();
    note_source();
    return wrap(apply(o[0], o[1]));
  });
}

PyObject* add(PyObject* a, PyObject* b) noexcept { return binary(a, b, "operand of +", &owl::operator+); }
PyObject* subtract(PyObject* a, PyObject* b) noexcept {
  return binary(a, b, "operand of -", static_cast<Binary>(&owl::operator-));
}
PyObject* divide(PyObject* a, PyObject* b) noexcept { return binary(a, b, "operand of /", &owl::operator/); }

PyObject* floor_divided(PyObject* a, PyObject* b) noexcept {
  return binary(a, b, "operand of //", &owl::floor_divide);
}
PyObject* remainder(PyObject* a, PyObject* b) noexcept { return binary(a, b, "operand of %", &owl::operator%); }
PyObject* bit_and(PyObject* a, PyObject* b) noexcept { return binary(a, b, "operand of &", &owl::operator&); }
PyObject* bit_or(PyObject* a, PyObject* b) noexcept { return binary(a, b, "operand of |", &owl::operator|); }
PyObject* bit_xor(PyObject* a, PyObject* b) noexcept { return binary(a, b, "operand of ^", &owl::operator^); }

PyObject* power(PyObject* a, PyObject* b, PyObject* modulus) noexcept {
  if (modulus != Py_None) {
    PyErr_SetString(PyExc_TypeError, "owl: pow() of an NArray takes no modulus");
    return nullptr;
  }
  return binary(a, b, "operand of **", &owl::pow);
}

// The matrix product of two arrays; with a number it scales.
PyObject* multiply(PyObject* a, PyObject* b) noexcept {
  return guarded([&] {
    if (is_narray(a) && is_narray(b)) {
      note_source();
      return wrap(narray(a) * narray(b));
    }
    Operand o[2] = {0.0, 0.0};
    if (!operands(a, b, "operand of *", o)) return not_implemented();
    static const OpRecord& mult = *find_op("mult");
    note_source();
    return wrap(record_elementwise(mult, o));
  });
}

PyObject* matrix_product(PyObject* a, PyObject* b) noexcept {
  return guarded([&] {
    if (!is_narray(a) || !is_narray(b)) {
      PyObject* other = is_narray(a) ? b : a;
      Operand ignored(0.0);
      if (!to_operand(other, "operand of @", ignored)) return not_implemented();
      throw py::type_error("owl: @ is the matrix product of two NArrays; use * to scale by a number");
    }
    note_source();
    return wrap(narray(a) * narray(b));
  });
}

// In-place operators bind the name on the left to a new value; other names keep the old one.
using InPlace = NArray& (*)(NArray&, const Operand&);

PyObject* in_place(PyObject* a, PyObject* b, const char* place, InPlace apply) noexcept {
  return guarded([&] {
    Operand o[2] = {0.0, 0.0};
    if (!operands(a, b, place, o)) return not_implemented();
    note_source();
    NArray value = narray(a);
    apply(value, o[1]);
    return wrap(std::move(value));
  });
}

PyObject* in_place_add(PyObject* a, PyObject* b) noexcept {
  return in_place(a, b, "operand of +=", &owl::operator+=);
}
PyObject* in_place_subtract(PyObject* a, PyObject* b) noexcept {
  return in_place(a, b, "operand of -=", &owl::operator-=);
}
PyObject* in_place_divide(PyObject* a, PyObject* b) noexcept {
  return in_place(a, b, "operand of /=", &owl::operator/=);
}

PyObject* in_place_floor_divide(PyObject* a, PyObject* b) noexcept {
  return in_place(a, b, "operand of //=", &owl::detail::floor_divide_in_place);
}
PyObject* in_place_remainder(PyObject* a, PyObject* b) noexcept {
  return in_place(a, b, "operand of %=", &owl::operator%=);
}
PyObject* in_place_and(PyObject* a, PyObject* b) noexcept { return in_place(a, b, "operand of &=", &owl::operator&=); }
PyObject* in_place_or(PyObject* a, PyObject* b) noexcept { return in_place(a, b, "operand of |=", &owl::operator|=); }
PyObject* in_place_xor(PyObject* a, PyObject* b) noexcept { return in_place(a, b, "operand of ^=", &owl::operator^=); }

PyObject* inverted(PyObject* a) noexcept {
  return guarded([&] {
    note_source();
    return wrap(~narray(a));
  });
}

PyObject* negative(PyObject* a) noexcept {
  return guarded([&] {
    note_source();
    return wrap(-narray(a));
  });
}

PyObject* positive(PyObject* a) noexcept { return Py_NewRef(a); }

PyObject* absolute(PyObject* a) noexcept {
  return guarded([&] {
    static const OpRecord& abs = *find_op("abs");
    const Operand o[] = {narray(a)};
    note_source();
    return wrap(record_elementwise(abs, o));
  });
}

PyObject* compare(PyObject* a, PyObject* b, int operation) noexcept {
  return guarded([&] {
    const bool equality = operation == Py_EQ || operation == Py_NE;
    // As elsewhere in Python, an array is not equal to None or to a string.
    if (equality && (b == Py_None || PyUnicode_Check(b) || PyBytes_Check(b))) return not_implemented();
    Operand o[2] = {0.0, 0.0};
    if (!operands(a, b, "operand of a comparison", o)) return not_implemented();
    note_source();
    switch (operation) {
      case Py_LT: return wrap(o[0] < o[1]);
      case Py_LE: return wrap(o[0] <= o[1]);
      case Py_GT: return wrap(o[0] > o[1]);
      case Py_GE: return wrap(o[0] >= o[1]);
      case Py_EQ: return wrap(narray(a) == o[1]);
      default: return wrap(narray(a) != o[1]);
    }
  });
}

int truth(PyObject* a) noexcept {
  PyObject* item = guarded([&] {
    if (narray(a).size() != 1)
      throw ShapeError("only an array of one element is true or false; this one has shape " + narray(a).shape().str() +
                       ": write (x != 0).min() for whether all are true, (x != 0).max() for whether any is");
    return narray_item(narray(a));
  });
  if (!item) return -1;
  const int result = PyObject_IsTrue(item);
  Py_DECREF(item);
  return result;
}

template <PyObject* (*Convert)(PyObject*)> PyObject* convert(PyObject* a) noexcept {
  return guarded([&]() -> PyObject* {
    auto item = py::reinterpret_steal<py::object>(narray_item(narray(a)));
    return Convert(item.ptr());
  });
}

PyObject* index(PyObject* a) noexcept {
  return guarded([&] {
    if (is_float(narray(a).dtype()))
      throw py::type_error("owl: only an integer or bool array of one element can be used as an index, not " +
                           std::string(name(narray(a).dtype())));
    auto item = py::reinterpret_steal<py::object>(narray_item(narray(a)));
    return PyNumber_Long(item.ptr());
  });
}

}  // namespace

const PyType_Slot number_slots[] = {
    type_slot(Py_nb_add, &add),
    type_slot(Py_nb_subtract, &subtract),
    type_slot(Py_nb_multiply, &multiply),
    type_slot(Py_nb_true_divide, &divide),
    type_slot(Py_nb_power, &power),
    type_slot(Py_nb_matrix_multiply, &matrix_product),
    type_slot(Py_nb_inplace_add, &in_place_add),
    type_slot(Py_nb_inplace_subtract, &in_place_subtract),
    type_slot(Py_nb_inplace_true_divide, &in_place_divide),
    type_slot(Py_nb_floor_divide, &floor_divided),
    type_slot(Py_nb_remainder, &remainder),
    type_slot(Py_nb_and, &bit_and),
    type_slot(Py_nb_or, &bit_or),
    type_slot(Py_nb_xor, &bit_xor),
    type_slot(Py_nb_invert, &inverted),
    type_slot(Py_nb_inplace_floor_divide, &in_place_floor_divide),
    type_slot(Py_nb_inplace_remainder, &in_place_remainder),
    type_slot(Py_nb_inplace_and, &in_place_and),
    type_slot(Py_nb_inplace_or, &in_place_or),
    type_slot(Py_nb_inplace_xor, &in_place_xor),
    type_slot(Py_nb_negative, &negative),
    type_slot(Py_nb_positive, &positive),
    type_slot(Py_nb_absolute, &absolute),
    type_slot(Py_nb_bool, &truth),
    type_slot(Py_nb_int, &convert<PyNumber_Long>),
    type_slot(Py_nb_float, &convert<PyNumber_Float>),
    type_slot(Py_nb_index, &index),
    type_slot(Py_tp_richcompare, &compare),
    {0, nullptr},
};

}  // namespace owl::python
