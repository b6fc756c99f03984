#include "mnist_data.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "digits/digits.h"
#include "file_reader.h"
#include "interrupt.h"

namespace mnist {

namespace fs = std::filesystem;
using owl::DataError;

namespace {

constexpr std::uint64_t kMaxBytes = std::uint64_t{1} << 30;  // limit of one file, unpacked
constexpr std::int64_t kSyntheticTrain = 60'000, kSyntheticTest = 10'000;
constexpr std::uint64_t kSyntheticSeed = 1;

// ---- IDX: a magic number, the lengths of the axes (all big-endian int32), the bytes

struct IdxForm {
  std::uint32_t magic;  // its last byte is the number of axes
  const char* what;
};
constexpr IdxForm kImages{0x803, "images"}, kLabels{0x801, "labels"};

std::string describe_magic(std::uint32_t magic) {
  char hex[11];
  std::snprintf(hex, sizeof hex, "0x%08x", magic);
  if (magic >> 16 == 0x1F8B) return std::string(hex) + ": gzip data, whose name should end in .gz";
  for (const IdxForm& form : {kImages, kLabels})
    if (magic == form.magic) return std::to_string(magic) + " (IDX " + form.what + ")";
  return hex;
}

std::vector<std::uint8_t> read_idx(const fs::path& path, const IdxForm& form) {
  const std::string name = path.string();
  const std::size_t axes = form.magic & 0xFF, header_size = 4 * (1 + axes);
  FileReader file(path);
  const auto header = file.read_up_to(header_size);
  if (header.size() < header_size) {
    file.finish();
    throw DataError(name + ": expected an IDX header of " + std::to_string(header_size) + " bytes, found only " +
                    std::to_string(header.size()));
  }
  std::array<std::uint32_t, 4> numbers{};  // the magic number, then the lengths
  for (std::size_t i = 0; i < header_size; ++i) numbers[i / 4] = numbers[i / 4] << 8 | header[i];
  if (numbers[0] != form.magic)
    throw DataError(name + ": expected magic number " + std::to_string(form.magic) + " (IDX " + form.what +
                    "), found " + describe_magic(numbers[0]));
  if (axes == 3 && (numbers[2] != kSide || numbers[3] != kSide))
    throw DataError(name + ": expected images of " + std::to_string(kSide) + " x " + std::to_string(kSide) +
                    " pixels, found " + std::to_string(numbers[2]) + " x " + std::to_string(numbers[3]));
  const std::uint64_t expected = std::uint64_t{numbers[1]} * (axes == 3 ? kPixels : 1);
  if (expected > kMaxBytes)
    throw DataError(name + ": promises " + std::to_string(expected) + " bytes of data; more than " +
                    std::to_string(kMaxBytes) + " are not read");
  auto body = file.read_up_to(expected + 1);
  if (body.size() <= expected) file.finish();
  if (body.size() != expected)
    throw DataError(name + ": the header promises " + std::to_string(numbers[1]) + " " + form.what + ", " +
                    std::to_string(expected) + " bytes, but " +
                    (body.size() > expected ? "more" : "only " + std::to_string(body.size())) + " follow");
  return body;
}

Digits load_idx(const fs::path& images, const fs::path& labels) {
  Digits digits{read_idx(images, kImages), read_idx(labels, kLabels)};
  const std::string where = images.string() + " and " + labels.filename().string();
  const auto count = static_cast<std::int64_t>(digits.images.size()) / kPixels;
  if (count != digits.size())
    throw DataError(where + ": expected a label for each image, found " + std::to_string(count) + " images and " +
                    std::to_string(digits.size()) + " labels");
  if (count == 0) throw DataError(where + ": expected images, found none");
  const auto wrong = std::find_if(digits.labels.begin(), digits.labels.end(), [](int l) { return l >= kClasses; });
  if (wrong != digits.labels.end())
    throw DataError(where + ": expected labels of 0 to " + std::to_string(kClasses - 1) + ", found " +
                    std::to_string(*wrong) + " at position " + std::to_string(wrong - digits.labels.begin()));
  return digits;
}

// ---- Places

bool is_there(const fs::path& path) {
  std::error_code error;
  return fs::exists(path, error);
}

// The four IDX files: of the training images and labels, then of the test images and labels.
constexpr std::array<const char*, 4> kStems{"train-images-idx3-ubyte", "train-labels-idx1-ubyte",
                                            "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"};

// `...-idx3-ubyte` or `....idx3-ubyte`, plain before .gz; nothing if there is none.
std::optional<fs::path> find_idx(const fs::path& folder, std::string stem) {
  for (const char separator : {'-', '.'}) {
    stem[stem.find("idx") - 1] = separator;
    for (const char* ending : {"", ".gz"}) {
      std::error_code error;
      const fs::path path = folder / (stem + ending);
      if (fs::is_regular_file(path, error)) return path;
    }
  }
  return {};
}

// A file in another form of MNIST is an error, not ignored.
[[noreturn]] void refuse_form(const fs::path& path) {
  throw DataError(path.string() + ": the C++ programs read MNIST's four IDX files (" + kStems[0] +
                  ", ... plain or .gz) only; the Python programs read .npz and .mat files too");
}

// Nothing if the folder has none of the files. If it has only some of them, an error, or with `skip_partial` nothing.
std::optional<Data> load_folder(const fs::path& folder, bool skip_partial = false) {
  std::vector<fs::path> found;
  std::string missing;
  for (const char* stem : kStems) {
    if (auto path = find_idx(folder, stem)) found.push_back(*path);
    else missing += std::string(missing.empty() ? "" : ", ") + stem;
  }
  if (found.size() == kStems.size()) return Data{load_idx(found[0], found[1]), load_idx(found[2], found[3])};
  if (!found.empty() && !skip_partial)
    throw DataError(folder.string() + ": has some of MNIST's four IDX files but not " + missing + " (plain or .gz)");
  for (const char* other : {"mnist.npz", "mnist_all.mat"})
    if (is_there(folder / other)) refuse_form(folder / other);
  return {};
}

std::string home() {
  const char* folder = std::getenv("HOME");
  return folder ? folder : "";
}

// Loads from a place that the user named, which must have the data.
Data load_named(std::string name, const std::string& who) {
  if (name.empty()) throw DataError(who + " is empty; it should name a folder with MNIST");
  if (name[0] == '~' && (name.size() == 1 || name[1] == '/') && !home().empty()) name.replace(0, 1, home());
  const fs::path path(name);
  std::error_code error;
  if (fs::is_directory(path, error)) {
    if (auto data = load_folder(path)) return std::move(*data);
    throw DataError(name + " (" + who + "): found no MNIST in this folder; expected the four IDX files (" + kStems[0] +
                    ", ... plain or .gz)");
  }
  if (!is_there(path)) {
    for (const char* ending : {".mat", ".npz"})  // the Python programs add these suffixes
      if (is_there(name + ending)) refuse_form(name + ending);
    throw DataError(name + " (" + who + "): no such file or folder");
  }
  std::string ending = path.extension().string();
  for (char& c : ending) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  if (ending == ".npz" || ending == ".mat") refuse_form(path);
  throw DataError(name + " (" + who + "): expected a folder; for IDX files name the one that holds all four");
}

// The user's cache folder for owl, which need not exist; nothing if the user has no home folder.
std::optional<fs::path> cache_folder() {
  const char* base = std::getenv("XDG_CACHE_HOME");
  if (base && base[0] == '/') return fs::path(base) / "owl";  // the XDG specification says to ignore a relative path
  if (home().empty()) return {};
  return fs::path(home()) / ".cache" / "owl";
}

Data draw_digits() {
  const auto cache = cache_folder();
  std::fprintf(stderr,
               "mnist: no MNIST in the working folder or %s: using SYNTHETIC digits instead (%lld + %lld drawn images; "
               "accuracies are not MNIST's). OWL_DATA=folder names the real data, "
               "`python -m owl.data fetch mnist` downloads it.\n",
               cache ? (*cache / "mnist").c_str() : "a cache", static_cast<long long>(kSyntheticTrain),
               static_cast<long long>(kSyntheticTest));
  constexpr auto kCount = static_cast<std::size_t>(kSyntheticTrain + kSyntheticTest);
  std::vector<std::uint8_t> images(kCount * kPixels), labels(kCount);
  owl::make_digits(kSyntheticSeed, kSyntheticTrain + kSyntheticTest, images.data(), labels.data(), 0);
  check_interrupt();
  const auto images_end = images.begin() + kSyntheticTrain * kPixels;
  const auto labels_end = labels.begin() + kSyntheticTrain;
  return {{{images.begin(), images_end}, {labels.begin(), labels_end}},
          {{images_end, images.end()}, {labels_end, labels.end()}}};
}

}  // namespace

Data load(const std::optional<std::string>& path) {
  if (path) return load_named(*path, "the data path");
  const char* named = std::getenv("OWL_DATA");
  if (named && *named) return load_named(named, "OWL_DATA");
  if (auto data = load_folder(".")) return std::move(*data);
  if (const auto cache = cache_folder()) {
    if (auto data = load_folder(*cache / "mnist", /*skip_partial=*/true)) return std::move(*data);
    if (auto data = load_folder(*cache)) return std::move(*data);
  }
  return draw_digits();
}

// ---- Minibatches

owl::NArray images_of(const Digits& digits, Choice chosen, const std::vector<std::int64_t>& image_shape) {
  std::vector<float> values(chosen.size() * kPixels);
  float* to = values.data();
  for (const std::int64_t i : chosen) {
    const std::uint8_t* from = digits.images.data() + i * kPixels;
    for (int p = 0; p < kPixels; ++p) to[p] = static_cast<float>(from[p]) * (1.0f / 256);
    to += kPixels;
  }
  std::vector<std::int64_t> lengths = image_shape;
  lengths.push_back(static_cast<std::int64_t>(chosen.size()));
  return owl::from_host(values, owl::Shape(lengths));
}

owl::NArray one_hot_of(const Digits& digits, Choice chosen) {
  std::vector<float> values(chosen.size() * kClasses, 0.0f);
  for (std::size_t n = 0; n < chosen.size(); ++n)
    values[n * kClasses + digits.labels[static_cast<std::size_t>(chosen[n])]] = 1;
  return owl::from_host(values, {kClasses, static_cast<std::int64_t>(chosen.size())});
}

owl::NArray labels_of(const Digits& digits, Choice chosen) {
  std::vector<std::int32_t> values;
  for (const std::int64_t i : chosen) values.push_back(digits.labels[static_cast<std::size_t>(i)]);
  return owl::from_host(values, {1, static_cast<std::int64_t>(chosen.size())});
}

}  // namespace mnist
