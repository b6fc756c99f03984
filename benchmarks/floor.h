// Shared by the floors: options, threads, timing and the line of JSON that benchmarks/run.py reads.
//
// A floor is the cost of owl's large kernels alone: a bare loop that calls the library that owl itself calls, on as
// many threads as owl would use, without planning, scheduling or updates in between.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <dnnl.hpp>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include "owl/owl.h"

extern "C" void omp_set_num_threads(int n);  // oneDNN's OpenMP runtime, without its header

namespace floors {

// The number after `name` on the command line.
inline int option(int argc, char** argv, const char* name, int otherwise) {
  for (int i = 1; i + 1 < argc; ++i)
    if (std::strcmp(argv[i], name) == 0) return std::atoi(argv[i + 1]);
  return otherwise;
}

// oneDNN partitions its work for the number of OpenMP threads at the time it creates a primitive: call this first.
inline int use_threads_of_owl() {
  const int threads = owl::devices().front().threads;
  omp_set_num_threads(threads);
  return threads;
}

inline void fill(float* data, std::size_t count) {
  static std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::generate_n(data, count, [&] { return normal(random); });
}

template <class Work> double seconds(Work work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The least of `times` measurements, after an uncounted one that touches memory and generates code.
template <class Work> double best(int times, Work work) {
  work();
  double least = seconds(work);
  for (int i = 1; i < times; ++i) least = std::min(least, seconds(work));
  return least;
}

using Figures = std::vector<std::pair<std::string, double>>;

inline void report(const std::string& work, double best, const Figures& more) {
  std::cout << "{\"work\": \"" << work << "\", \"best\": " << best;
  for (const auto& [name, figure] : more) std::cout << ", \"" << name << "\": " << figure;
  std::cout << "}\n";
}

}  // namespace floors
