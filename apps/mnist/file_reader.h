// Reads the bytes of a file, unpacked if its name ends in .gz.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace mnist {

class FileReader {
 public:
  // owl::DataError, here and below: the file cannot be read, or is not valid gzip data. The program gzip unpacks a .gz
  // file; it gets the open file, not its name.
  explicit FileReader(const std::filesystem::path& path);
  ~FileReader();  // ends gzip if it still runs
  FileReader(const FileReader&) = delete;
  FileReader& operator=(const FileReader&) = delete;

  // At most `size` bytes, fewer only at the end. Reads piece by piece: a damaged header may state a size beyond all
  // memory.
  std::vector<std::uint8_t> read_up_to(std::size_t size);
  // Call at the end of the data: throws if gzip reported damaged data.
  void finish();

 private:
  void start_gzip();
  int wait_for_gzip();

  std::string name_;
  int data_ = -1;      // the file itself, or gzip's output
  int messages_ = -1;  // gzip's standard error
  pid_t gzip_ = -1;
};

}  // namespace mnist
