#include "report.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace mnist {

namespace {

constexpr std::chrono::milliseconds kBetweenUpdates{250};  // of the progress line, at least
constexpr int kBarWidth = 24;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::string fixed(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

// 1234567 as 1,234,567.
std::string grouped(double value) {
  const std::string digits = fixed(value, 0);
  std::string text;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

std::size_t terminal_columns() {
  winsize size{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

}  // namespace

Report::Report(const Options& options)
    : epochs_(options.epochs), quiet_(options.quiet), on_terminal_(!options.quiet && isatty(STDERR_FILENO)),
      started_(Clock::now()) {}

void Report::begin_epoch(std::int64_t epoch, std::int64_t images) {
  rows_.push_back({.epoch = epoch});
  epoch_images_ = images;
  epoch_started_ = Clock::now();
  drawn_ = {};
}

void Report::step(double loss, std::int64_t images) {
  Row& row = rows_.back();
  row.images += images;
  row.loss_sum += loss * static_cast<double>(images);
  row.seconds = seconds_since(epoch_started_);
  last_loss_ = loss;
  if (on_terminal_ && Clock::now() - drawn_ >= kBetweenUpdates) draw_progress();
}

void Report::end_epoch(double test_accuracy) {
  clear_progress();
  Row& row = rows_.back();
  row.test_accuracy = test_accuracy;
  if (quiet_) return;
  const auto cells = cells_of(row);
  std::printf("epoch %s/%lld  loss %s  test %s  %s images/s  %s s\n", cells[0].c_str(),
              static_cast<long long>(epochs_), cells[1].c_str(), cells[2].c_str(), cells[3].c_str(), cells[4].c_str());
  flush_output();
}

void Report::close(const char* ending) {
  clear_progress();
  std::vector<std::vector<std::string>> table = {{"epoch", "loss", "test", "images/s", "seconds"}};
  const Row* tested = nullptr;
  for (const Row& row : rows_) {
    if (row.images == 0) continue;
    table.push_back(cells_of(row));
    if (row.test_accuracy) tested = &row;
  }
  const bool reached = table.size() > 1;
  if (ending) std::printf("\n%s%s\n", ending, reached ? "" : " before the first step was done");
  if (reached) {
    std::vector<std::size_t> widths(table[0].size());
    for (const auto& row : table)
      for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
    std::printf("\n");
    for (const auto& row : table)
      for (std::size_t i = 0; i < row.size(); ++i)
        std::printf("%s%*s%s", i ? "  " : "", static_cast<int>(widths[i]), row[i].c_str(),
                    i + 1 == row.size() ? "\n" : "");
    if (tested)
      std::printf("test accuracy %s %% after epoch %lld\n", fixed(100 * *tested->test_accuracy, 2).c_str(),
                  static_cast<long long>(tested->epoch));
    std::printf("%s s in all\n", fixed(seconds_since(started_), 1).c_str());
  }
  flush_output();
}

// Epoch, mean loss, test accuracy, images per second and seconds, as they are printed.
std::vector<std::string> Report::cells_of(const Row& row) {
  const auto images = static_cast<double>(row.images);
  return {std::to_string(row.epoch), fixed(row.loss_sum / images, 4),
          row.test_accuracy ? fixed(100 * *row.test_accuracy, 2) + " %" : "-",
          grouped(images / std::max(row.seconds, 1e-9)), fixed(row.seconds, 1)};
}

void Report::draw_progress() {
  const Row& row = rows_.back();
  const double share = static_cast<double>(row.images) / static_cast<double>(std::max<std::int64_t>(1, epoch_images_));
  const auto filled = static_cast<std::size_t>(std::clamp(share, 0.0, 1.0) * kBarWidth);
  std::string line = "epoch " + std::to_string(row.epoch) + "/" + std::to_string(epochs_) + " " +
                     fixed(100 * share, 0) + "% |" + std::string(filled, '#') + std::string(kBarWidth - filled, ' ') +
                     "| " + grouped(static_cast<double>(row.images)) + "/" +
                     grouped(static_cast<double>(epoch_images_)) + " images, " + cells_of(row)[3] + " images/s, loss " +
                     fixed(last_loss_, 4);
  line.resize(std::min(line.size(), terminal_columns() - 1));  // a wrapped line could not be overwritten
  const std::size_t width = line.size();
  if (width < drawn_width_) line.append(drawn_width_ - width, ' ');
  std::fprintf(stderr, "\r%s", line.c_str());
  std::fflush(stderr);
  drawn_width_ = width;
  drawn_ = Clock::now();
}

void Report::clear_progress() {
  if (drawn_width_ == 0) return;
  std::fprintf(stderr, "\r%*s\r", static_cast<int>(drawn_width_), "");
  std::fflush(stderr);
  drawn_width_ = 0;
}

}  // namespace mnist
