"""DLPack capsules by ctypes: exports and imports them without an array library."""
import ctypes
import math

import numpy as np

HOST, GPU, PINNED, ROCM, MANAGED = 1, 2, 3, 10, 13
READ_ONLY, COPIED = 1, 2
CODES = {"b": 6, "i": 0, "u": 1, "f": 2, "V": 4}  # V: ml_dtypes' bfloat16


class Device(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int32), ("id", ctypes.c_int32)]


class DataType(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class Tensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("device", Device), ("ndim", ctypes.c_int32), ("dtype", DataType),
                ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
                ("byte_offset", ctypes.c_uint64)]


Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class Plain(ctypes.Structure):
    _fields_ = [("tensor", Tensor), ("context", ctypes.c_void_p), ("deleter", Deleter)]


class Versioned(ctypes.Structure):
    _fields_ = [("major", ctypes.c_uint32), ("minor", ctypes.c_uint32), ("context", ctypes.c_void_p),
                ("deleter", Deleter), ("flags", ctypes.c_uint64), ("tensor", Tensor)]


def api(name, result, *arguments):
    return ctypes.PYFUNCTYPE(result, *arguments)((name, ctypes.pythonapi))


new = api("PyCapsule_New", ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
is_valid = api("PyCapsule_IsValid", ctypes.c_int, ctypes.py_object, ctypes.c_char_p)
pointer = api("PyCapsule_GetPointer", ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
set_name = api("PyCapsule_SetName", ctypes.c_int, ctypes.py_object, ctypes.c_char_p)

kept = {}  # the targets of capsules, until their deleter is called


def make(address, shape, dtype, device, strides=None, deleted=lambda: None):
    """A capsule of foreign memory: shape and strides (in elements) in C's order; its release calls `deleted`."""
    dtype = np.dtype(dtype)
    managed = Plain()
    lengths = (ctypes.c_int64 * len(shape))(*shape)
    steps = (ctypes.c_int64 * len(shape))(*strides) if strides else None

    def delete(address):
        deleted()
        kept.pop(address)

    managed.tensor = Tensor(address, Device(*device), len(shape), DataType(CODES[dtype.kind], 8 * dtype.itemsize, 1),
                            lengths, steps, 0)
    managed.deleter = Deleter(delete)
    address = ctypes.addressof(managed)
    kept[address] = managed, lengths, steps
    return new(address, b"dltensor", None)


class Taken:
    """A capsule's tensor as its consumer sees it."""

    def __init__(self, capsule):
        versioned = bool(is_valid(capsule, b"dltensor_versioned"))
        name, kind = (b"dltensor_versioned", Versioned) if versioned else (b"dltensor", Plain)
        self._address = pointer(capsule, name)
        self._used = b"used_" + name  # a capsule does not copy its name
        set_name(capsule, self._used)
        self._capsule = capsule
        self._managed = kind.from_address(self._address)
        t = self._managed.tensor
        self.address, self.device, self.ndim = t.data or 0, (t.device.type, t.device.id), t.ndim
        self.shape, self.strides = tuple(t.shape[:t.ndim]), tuple(t.strides[:t.ndim])
        letter = {code: kind for kind, code in CODES.items()}[t.dtype.code]
        self.dtype = np.dtype("bfloat16" if letter == "V" else f"{letter}{t.dtype.bits // 8}")
        self.read_only = bool(versioned and self._managed.flags & READ_ONLY)
        self.nbytes = math.prod(self.shape) * self.dtype.itemsize

        self.flags = self._managed.flags if versioned else 0

    def close(self):
        """Releases the memory."""
        managed, self._managed = self._managed, None
        if managed is not None:
            managed.deleter(self._address)


class Producer:
    """An array of another library. Records the arguments of __dlpack__; `deleted` counts releases."""

    def __init__(self, address, shape, dtype, device, strides=None, ask=lambda stream: None, deleted=lambda: None):
        self.tensor = address, shape, dtype, device, strides
        self.asked, self.deleted = [], 0
        self._ask, self._deleted = ask, deleted

    def __dlpack_device__(self):
        return self.tensor[3]

    def __dlpack__(self, *, stream=None, **arguments):
        self.asked.append({"stream": stream, **arguments})
        self._ask(stream)
        return make(*self.tensor, deleted=self._let_go)

    def _let_go(self):
        self.deleted += 1
        self._deleted()
