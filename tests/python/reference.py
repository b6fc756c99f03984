"""Reference values: plain NumPy in float64, written for clarity and independent of the engine.

`arr` and `val` keep the order of the axes (an owl array of shape [2, 3] is a NumPy array of shape (2, 3)); images are
in NumPy's order, [N, C, H, W] and [C_out, C_in, kh, kw], which is owl's reversed.
"""
import math

import numpy as np

import owl

try:
    from ml_dtypes import bfloat16
except ImportError:  # NumPy has no such type: what needs one is not tested
    bfloat16 = None

DTYPES = ("bool", "uint8", "int32", "int64", "float16", *(["bfloat16"] if bfloat16 else []), "float32", "float64")
INTEGERS = ("uint8", "int32", "int64")
HALVES = ("float16", "bfloat16")
NUMPY_TYPES = tuple(dtype for dtype in DTYPES if dtype != "bfloat16")  # NumPy's own DLPack has these
FLOATS = tuple(dtype for dtype in DTYPES if "float" in dtype)
_ORDER = ("bool", "uint8", "int32", "int64", "float16", "bfloat16", "float32", "float64")


def eps(dtype):
    """The distance from 1 to the next number of a float type."""
    return 2.0**-7 if dtype == "bfloat16" else float(np.finfo(dtype).eps)


def promoted(*dtypes):
    """The type of an operation on arrays of these types."""
    kinds = set(dtypes)
    return "float32" if set(HALVES) <= kinds <= {*_ORDER[:6]} else max(kinds, key=_ORDER.index)


def arr(a):
    """The owl array with NumPy array a's axes in the same order."""
    return owl.from_numpy(np.asarray(a).T)


def val(x):
    """The NumPy array with owl array x's axes in the same order."""
    return x.to_numpy().T


def dtype_of(x):
    return np.dtype(x.dtype).name


def line_up(*arrays):
    """Broadcasting's alignment at the first axis: arrays with as many axes as the longest has."""
    ndim = max(np.ndim(a) for a in arrays)
    return [np.reshape(a, np.shape(a) + (1,) * (ndim - np.ndim(a))) if np.ndim(a) else np.asarray(a) for a in arrays]


def ulps(got, want):
    """The largest error of `got` in units in the last place at `want` (float64); denormals may be flushed."""
    kind = got.dtype.type
    with np.errstate(all="ignore"):
        want_here = want.astype(kind)
        same = (got == want_here) | (np.isnan(got) & np.isnan(want_here))
        finite = np.isfinite(got) & np.isfinite(want_here)
        tiny = np.finfo(kind).tiny
        unit = np.spacing(np.maximum(np.abs(want_here), tiny)).astype(np.float64)
        error = np.abs(got.astype(np.float64) - want.astype(np.float64)) / unit
        error[np.abs(want) < tiny] = np.where(np.abs(got.astype(np.float64)) <= tiny, 0, error)[np.abs(want) < tiny]
    error = np.where(same, 0.0, np.where(finite, error, np.inf))
    return float(error.max()) if error.size else 0.0


erf = np.vectorize(math.erf, otypes=[np.float64])


def sigm(x):
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


# --- softmax; x in NumPy's order: instance over all axes but the first, channel over axis 1

def _soft_axes(x, channel):
    return (1,) if channel else tuple(range(1, x.ndim))


def softmax(x, channel=False):
    axes = _soft_axes(x, channel)
    e = np.exp(x - x.max(axis=axes, keepdims=True))
    return e / e.sum(axis=axes, keepdims=True)


def log_softmax(x, channel=False):
    axes = _soft_axes(x, channel)
    z = x - x.max(axis=axes, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=axes, keepdims=True))


def softmax_back(err, y, channel=False):
    return y * (err - (err * y).sum(axis=_soft_axes(y, channel), keepdims=True))


# --- convolution

class Conv:
    """Cross-correlation and its gradients, one window at a time."""

    def __init__(self, pad_h=0, pad_w=0, stride_v=1, stride_h=1, dilation=1, groups=1):
        self.pad_h, self.pad_w, self.stride_v, self.stride_h = pad_h, pad_w, stride_v, stride_h
        self.dilation, self.groups = dilation, groups

    def out_size(self, x_shape, w_shape):
        def one(length, pad, kernel, stride):
            return (length + 2 * pad - self.dilation * (kernel - 1) - 1) // stride + 1
        return (one(x_shape[2], self.pad_h, w_shape[2], self.stride_v),
                one(x_shape[3], self.pad_w, w_shape[3], self.stride_h))

    def _padded(self, x):
        return np.pad(x, ((0, 0), (0, 0), (self.pad_h,) * 2, (self.pad_w,) * 2))

    def _windows(self, x_shape, w_shape):
        """(n, output channel, i, j, index of the window in the padded image)"""
        d, (kh, kw) = self.dilation, w_shape[2:]
        in_group, out_group = w_shape[1], w_shape[0] // self.groups
        rows, columns = self.out_size(x_shape, w_shape)
        for n in range(x_shape[0]):
            for o in range(w_shape[0]):
                first = o // out_group * in_group
                for i in range(rows):
                    for j in range(columns):
                        y, z = i * self.stride_v, j * self.stride_h
                        yield n, o, i, j, (n, slice(first, first + in_group),
                                           slice(y, y + d * (kh - 1) + 1, d), slice(z, z + d * (kw - 1) + 1, d))

    def ff(self, x, w, b):
        padded = self._padded(x)
        out = np.zeros((x.shape[0], w.shape[0], *self.out_size(x.shape, w.shape)))
        for n, o, i, j, at in self._windows(x.shape, w.shape):
            out[n, o, i, j] = (padded[at] * w[o]).sum() + b[o]
        return out

    def bp(self, err, x, w):
        grad = np.zeros_like(self._padded(x))
        for n, o, i, j, at in self._windows(x.shape, w.shape):
            grad[at] += err[n, o, i, j] * w[o]
        return grad[:, :, self.pad_h:self.pad_h + x.shape[2], self.pad_w:self.pad_w + x.shape[3]]

    def weight_grad(self, err, x, w):
        padded, grad = self._padded(x), np.zeros_like(w)
        for n, o, i, j, at in self._windows(x.shape, w.shape):
            grad[o] += err[n, o, i, j] * padded[at]
        return grad


class LargeConv(Conv):
    """The same for large images: one position of the kernel at a time, a matrix product over all windows."""

    def _taps(self, x, w):
        """(position in the kernel, index of all windows' elements there in the padded images)"""
        rows, columns = self.out_size(x.shape, w.shape)
        for p in range(w.shape[2]):
            for q in range(w.shape[3]):
                y, z = p * self.dilation, q * self.dilation
                yield (p, q), (..., slice(y, y + (rows - 1) * self.stride_v + 1, self.stride_v),
                               slice(z, z + (columns - 1) * self.stride_h + 1, self.stride_h))

    def _images(self, a):
        """[n, groups, channels of a group, places]"""
        return a.reshape(len(a), self.groups, a.shape[1] // self.groups, -1)

    def _weights(self, w):
        return np.ascontiguousarray(np.moveaxis(w.reshape(self.groups, -1, *w.shape[1:]), (3, 4), (0, 1)))

    def ff(self, x, w, b):
        padded, weights, out = self._padded(x), self._weights(w), 0
        for place, at in self._taps(x, w):
            out = out + weights[place] @ self._images(padded[at])
        return out.reshape(len(x), len(w), *self.out_size(x.shape, w.shape)) + b[:, None, None]

    def bp(self, err, x, w):
        grad, weights, errors = np.zeros_like(self._padded(x)), self._weights(w), self._images(err)
        for place, at in self._taps(x, w):
            grad[at] += (weights[place].swapaxes(1, 2) @ errors).reshape(grad[at].shape)
        return grad[:, :, self.pad_h:self.pad_h + x.shape[2], self.pad_w:self.pad_w + x.shape[3]]

    def weight_grad(self, err, x, w):
        padded, grad, errors = self._padded(x), np.zeros_like(w), self._images(err)
        for (p, q), at in self._taps(x, w):
            grad[:, :, p, q] = (errors @ self._images(padded[at]).swapaxes(2, 3)).sum(axis=0).reshape(w.shape[:2])
        return grad


# --- pooling

class Pool:
    """Pooling, one window at a time: Caffe's rules for a partial window at the end and for the average's divisor."""

    def __init__(self, h, w, stride_v, stride_h, pad_h=0, pad_w=0, average=False, ceil_mode=True):
        self.kernel, self.stride, self.pad = (h, w), (stride_v, stride_h), (pad_h, pad_w)
        self.average, self.ceil_mode = average, ceil_mode

    def out_size(self, size):
        counts = []
        for length, k, s, p in zip(size, self.kernel, self.stride, self.pad):
            span = length + 2 * p - k
            count = (-(-span // s) if self.ceil_mode else span // s) + 1
            while (count - 1) * s >= length + p:  # a window that begins after the image does not count
                count -= 1
            counts.append(count)
        return tuple(counts)

    def _windows(self, x_shape):
        """(n, c, i, j, index of the window's part in the image, size of its part in the padded image)"""
        rows, columns = self.out_size(x_shape[2:])
        for n in range(x_shape[0]):
            for c in range(x_shape[1]):
                for i in range(rows):
                    for j in range(columns):
                        index, size = [n, c], 1
                        for at, axis in ((i, 0), (j, 1)):
                            start = at * self.stride[axis] - self.pad[axis]
                            stop = min(start + self.kernel[axis], x_shape[2 + axis] + self.pad[axis])
                            size *= stop - start
                            index.append(slice(max(start, 0), min(stop, x_shape[2 + axis])))
                        yield n, c, i, j, tuple(index), size

    def ff(self, x):
        out = np.zeros((*x.shape[:2], *self.out_size(x.shape[2:])), x.dtype)
        for n, c, i, j, at, size in self._windows(x.shape):
            out[n, c, i, j] = x[at].sum() / size if self.average else x[at].max()
        return out

    def bp(self, err, x):
        grad = np.zeros(x.shape)
        for n, c, i, j, at, size in self._windows(x.shape):
            if self.average:
                grad[at] += err[n, c, i, j] / size
            else:
                part = x[at]
                y, z = np.unravel_index(part.argmax(), part.shape)
                grad[n, c, at[2].start + y, at[3].start + z] += err[n, c, i, j]
        return grad


# --- local response normalisation, across channels

def _lrn_sum(a, size):
    half, out = size // 2, np.zeros_like(a)
    for c in range(a.shape[1]):
        out[:, c] = a[:, max(0, c - half):c + half + 1].sum(axis=1)
    return out


def lrn_scale(x, size, alpha):
    return 1 + alpha / size * _lrn_sum(x * x, size)


def lrn(x, size, alpha, beta):
    return x * lrn_scale(x, size, alpha) ** -beta


def lrn_back(x, err, size, alpha, beta):
    scale = lrn_scale(x, size, alpha)
    y = x * scale ** -beta
    return err * scale ** -beta - 2 * alpha * beta / size * x * _lrn_sum(err * y / scale, size)
