// Operations over several devices.
#pragma once

#include <vector>

#include "owl/export.h"
#include "owl/narray.h"

namespace owl OWL_API {

// The sum of arrays of one shape and type, each on a different device: one result on each of these devices, in their
// order. Its bits depend only on the operands and their number, and are the same on all devices. Recorded like any
// operation.
//
//   gradients = owl::all_reduce(gradients);  // of the parts of a minibatch
//
// ShapeError, DTypeError: they differ, or are bool; DeviceError: two are on one device; ValueError: no array.
std::vector<NArray> all_reduce(const std::vector<NArray>& arrays);

}  // namespace owl
