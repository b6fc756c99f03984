// The command line of the MNIST programs. options.py does the same for the Python programs: change both.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace mnist {

// Set the program's defaults, then call parse_options.
struct Options {
  std::optional<std::string> data = {};
  std::int64_t epochs = 1, batch_size = 1;
  double lr = 0.1, momentum = 0, weight_decay = 0;
  std::optional<std::int64_t> hidden = {};  // units of the hidden layer; no such option without a default
  std::string device = "auto";              // cpu, gpu, gpu:N or auto
  std::optional<std::int64_t> num_gpus = {};
  std::uint64_t seed = 1;
  std::optional<std::int64_t> max_steps = {};
  std::optional<std::string> log = {};
  bool quiet = false;

  std::string program = {};              // the name by which it was called
  std::vector<std::string> given = {};   // names of the options on the command line
};

// Sets `options` from the command line. --help ends the process with exit code 0, a wrong option with 2.
void parse_options(int argc, char** argv, const char* description, Options& options);

// Ends the process as for a wrong option: usage and message on stderr, exit code 2.
[[noreturn]] void refuse_options(const Options& options, const std::string& message);

// Flushes standard output; std::runtime_error if that fails.
void flush_output();

}  // namespace mnist
