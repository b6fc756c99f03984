// What work costs a CPU, roughly, in nanoseconds on one thread. The planner and the scheduler decide by it what shares
// a task and which thread runs it; no value depends on it. `python benchmarks/costs.py` prints what a machine gives for
// the constants that are times, beside estimates and times of whole tasks.
#pragma once

namespace owl::cpu::cost {

// --- programs
inline constexpr double kProgramNs = 100;      // of a program, however short
inline constexpr double kInstructionNs = 10;   // of each of its instructions
inline constexpr double kReadNs = 0.06;        // a byte of an input, from memory
inline constexpr double kStrided = 2;          // times that, where the input is gathered
inline constexpr double kWriteNs = 0.09;       // a byte of a result
inline constexpr double kOperationNs = 0.1;    // an element of an expression of cost 1 (ElementwiseInfo)
inline constexpr double kOperation64Ns = 0.2;  // the same in float64
inline constexpr double kCall64Ns = 1.5;       // and where a float64 function is a call of the C library:
inline constexpr double kLeastCallCost = 10;   // expressions that cost as much
inline constexpr double kProgramChunkNs = 100e3;  // what a thread takes of a program at a time

// --- kernels
inline constexpr double kKernelNs = 200;        // of a kernel, however small
inline constexpr double kOperationsPerNs = 30;  // of OpRecord::cost's: between a sum's 2 and a large product's 120
inline constexpr double kLongKernelNs = 50e3;   // from here on a kernel has the whole device for itself anyway

// --- threads
inline constexpr double kHandOverNs = 4e3;        // a task's, to a worker: what takes less the caller runs itself,
inline constexpr double kInlineBudgetNs = 100e3;  // up to so much in one go

}  // namespace owl::cpu::cost
