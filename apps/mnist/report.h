// The output of a run: a progress line on a terminal, a line after each epoch, and a table at the end.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "options.h"

namespace mnist {

class Report {
 public:
  explicit Report(const Options& options);

  void begin_epoch(std::int64_t epoch, std::int64_t images);
  void step(double loss, std::int64_t images);  // the mean loss of a step over so many images
  void end_epoch(double test_accuracy);
  // Prints the table; `ending` says why the run ended early.
  void close(const char* ending = nullptr);
  bool began() const { return !rows_.empty(); }

 private:
  using Clock = std::chrono::steady_clock;

  // The figures of an epoch, complete or so far.
  struct Row {
    std::int64_t epoch;
    std::int64_t images = 0;
    double loss_sum = 0;  // over the images
    double seconds = 0;   // of training
    std::optional<double> test_accuracy = {};
  };

  static std::vector<std::string> cells_of(const Row& row);
  void draw_progress();
  void clear_progress();

  std::int64_t epochs_;
  bool quiet_;
  bool on_terminal_;             // progress is drawn
  std::vector<Row> rows_;
  std::int64_t epoch_images_ = 0;
  double last_loss_ = 0;
  Clock::time_point started_, epoch_started_, drawn_;
  std::size_t drawn_width_ = 0;  // of the progress line that is on the terminal
};

}  // namespace mnist
