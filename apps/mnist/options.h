// The command line of the MNIST programs. options.py is the same for the Python programs: one changes with the other.
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
  std::optional<std::int64_t> hidden = {};  // units of the hidden layer; no such option where it has no default
  std::string device = "auto";              // cpu, gpu, gpu:N or auto
  std::optional<std::int64_t> num_gpus = {};
  std::uint64_t seed = 1;
  std::optional<std::int64_t> max_steps = {};
  std::optional<std::string> log = {};
  bool quiet = false;

  std::string program = {};              // the name under which it was called
  std::vector<std::string> given = {};   // the names of the options that the command line holds
};

// Replaces in `options` what the command line says. --help ends the process with exit code 0, a wrong option with 2.
void parse_options(int argc, char** argv, const char* description, Options& options);

// Ends the process as a wrong option does: the usage and the message on stderr, exit code 2.
[[noreturn]] void refuse_options(const Options& options, const std::string& message);

// What was printed reaches standard output; std::runtime_error where that cannot be written.
void flush_output();

}  // namespace mnist
