// Convolution as matrix products of unfolded images (im2col): for float64, which oneDNN lacks, and for float32
// convolutions without a fast implementation in oneDNN. One image at a time, single-threaded.
#pragma once

#include "ops/nn.h"

namespace owl::cpu {

// y = the convolution of one image x, plus b.
template <class T> void plain_conv(const ConvGeometry& g, const T* x, const T* w, const T* b, T* y);
// x = the gradient of one image.
template <class T> void plain_conv_back_data(const ConvGeometry& g, T* x, const T* w, const T* y);
// w (+)= one image's part of the gradient of the weights.
template <class T> void plain_conv_back_weight(const ConvGeometry& g, const T* x, T* w, const T* y, bool accumulate);

}  // namespace owl::cpu
