// MNIST for the programs of this folder: IDX files found on disk, otherwise synthetic digits.
//
// Places are searched in this order:
//
//   1. the path that the caller names,
//   2. the environment variable OWL_DATA,
//   3. the working folder,
//   4. the user's cache, $XDG_CACHE_HOME/owl/mnist or ~/.cache/owl/mnist (`python -m owl.data fetch mnist` downloads
//      into it), then the folder above it.
//
// Otherwise load() draws synthetic digits and says so on stderr. A place that the user named (1, 2) must have the data;
// a file found in 3 or 4 must be valid. A faulty file raises an owl::DataError that names it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "owl/owl.h"

namespace mnist {

inline constexpr int kSide = 28;  // pixels along each edge of an image
inline constexpr int kPixels = kSide * kSide;
inline constexpr int kClasses = 10;

struct Digits {
  std::vector<std::uint8_t> images;  // kPixels for each image, row by row; 0 background, 255 ink
  std::vector<std::uint8_t> labels;  // 0 to 9

  std::int64_t size() const { return static_cast<std::int64_t>(labels.size()); }
};

struct Data {
  Digits train, test;
};

// `path` names a folder with the four IDX files, each plain or .gz.
Data load(const std::optional<std::string>& path);

// Which images of a Digits, in order.
using Choice = std::span<const std::int64_t>;

// The images as a float32 array [...image_shape, n] in 0..1 (divided by 256, as Minerva did), on the current device.
owl::NArray images_of(const Digits& digits, Choice chosen, const std::vector<std::int64_t>& image_shape);
// The labels as a float32 array [10, n] with a single 1 in each column.
owl::NArray one_hot_of(const Digits& digits, Choice chosen);
// The labels as an int32 array [1, n].
owl::NArray labels_of(const Digits& digits, Choice chosen);

}  // namespace mnist
