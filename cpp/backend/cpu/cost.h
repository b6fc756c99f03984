// What work costs a CPU, roughly, in nanoseconds on one thread. The planner and the scheduler decide by it what shares
// a task and which thread runs it; no value depends on it. `python benchmarks/costs.py` prints what a machine gives for
// the constants that are times, beside estimates and times of whole tasks.
#pragma once

#include <algorithm>
#include <cstdint>

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

// --- threads: which of them runs what, and nothing else. Chunks, groups and algorithms depend on none of these.
// benchmarks/wake.cpp measures what waking takes; the rest are choices.
inline constexpr double kHandOverNs = 4e3;        // a task's, to a worker: what takes less the caller runs itself,
inline constexpr double kInlineBudgetNs = 100e3;  // up to so much in one go
inline constexpr double kWakeNs = 5e3;            // to wake a sleeping thread, of the thread that wakes it
inline constexpr double kWakeLatencyNs = 30e3;    // until the woken thread runs
inline constexpr double kSpinNs = 50e3;           // a thread without work looks for more before it sleeps
inline constexpr double kWaiterNs = 1e6;          // a longer task is left to workers by a thread that waits for it
inline constexpr double kAtLeast = 0.25;          // of an estimate: operands may be in the cache, products are faster
inline constexpr double kCopyNs = 0.05;           // a byte of host memory that is copied, at least
inline constexpr double kLeastGainNs = 1e3;       // by which each further thread must shorten the work

// How many of `most` sleeping threads to wake for `chunks` equal chunks that take `ns` on the calling thread, which works
// too. It wakes one after the other; each takes chunks once it runs.
inline int helpers(double ns, std::int64_t chunks, int most) {
  const double chunk_ns = ns / static_cast<double>(std::max<std::int64_t>(1, chunks));
  double work = ns, best = ns;  // `work`: of all threads together, their waking included
  int found = 0;
  for (int count = 1; count <= most && count < chunks; ++count) {
    const double joins = kWakeNs * count + kWakeLatencyNs;  // the last of them
    const auto rounds = static_cast<double>((chunks + count) / (count + 1));
    work += kWakeNs + joins;
    const double ends = std::max({work / (count + 1), joins + chunk_ns, rounds * chunk_ns}) + kLeastGainNs * count;
    if (ends >= best) continue;
    best = ends;
    found = count;
  }
  return found;
}

}  // namespace owl::cpu::cost
