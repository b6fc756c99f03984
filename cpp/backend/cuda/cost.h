// What work costs a GPU, roughly, in nanoseconds: for owl.explain. From data sheets (NVIDIA A100: 1.5 TB/s, 19.5
// TFLOP/s of float32, 9.7 of float64), not measured.
#pragma once

namespace owl::cuda::cost {

inline constexpr double kLaunchNs = 2e3;            // of a launch, however small
inline constexpr double kBytesPerNs = 1500;         // to and from the GPU's memory
inline constexpr double kOperationsPerNs = 19'500;  // in float32
inline constexpr double kFloat64 = 2;               // times as long
// All kernels of a device run on one stream, one after another, so none is kept waiting by what another must wait for.
inline constexpr double kLongKernelNs = 0;

}  // namespace owl::cuda::cost
