// Normalisation of layers and batches.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "owl/export.h"
#include "owl/narray.h"

namespace owl OWL_API {

// (x - mean) / sqrt(var + eps) * weight + bias with the mean and the variance over the first axis, of which weight and
// bias have the length: [n].
NArray layer_norm(const NArray& x, const NArray& weight, const NArray& bias, double eps = 1e-5);
// The same with a given mean and variance of each channel (axis -2): weight, bias, mean and var have as many elements
// as there are channels. Those of the batch itself are x.mean(axes) and x.var(axes) over all other axes.
NArray batch_norm(const NArray& x, const NArray& weight, const NArray& bias, const NArray& mean, const NArray& var,
                  double eps = 1e-5);

// The mean and the variance (NArray::var) over axes, which stay with length 1, of one pass over x; `axes` empty: all.
std::pair<NArray, NArray> moments(const NArray& x, const std::vector<std::int64_t>& axes = {}, double correction = 0);

}  // namespace owl
