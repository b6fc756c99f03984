// Several devices together.
#pragma once

#include <vector>

#include "owl/export.h"
#include "owl/narray.h"

namespace owl OWL_API {

// The sum of arrays that have one shape and type and live on a device each: on every one of these devices, in their order.
// With the same number of arrays its bits are always the same, and the same on all devices. Recorded like any operation.
//
//   gradients = owl::all_reduce(gradients);  // of the parts of a minibatch
//
// ShapeError, DTypeError: they differ, or are bool; DeviceError: two on one device; ValueError: no array at all.
std::vector<NArray> all_reduce(const std::vector<NArray>& arrays);

}  // namespace owl
