// The bytes of a file, unpacked on the way where its name ends in .gz.
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
  // owl::DataError, here and below: the file cannot be read, or is not sound gzip data. A .gz file is unpacked by the
  // program gzip, which gets the open file and never sees its name.
  explicit FileReader(const std::filesystem::path& path);
  ~FileReader();  // ends gzip where it still runs
  FileReader(const FileReader&) = delete;
  FileReader& operator=(const FileReader&) = delete;

  // At most `size` bytes, fewer only at the end. Piece by piece: a damaged header may promise more than memory holds.
  std::vector<std::uint8_t> read_up_to(std::size_t size);
  // At the end of the data: throws where what was unpacked is not sound.
  void finish();

 private:
  void start_gzip();
  int wait_for_gzip();

  std::string name_;
  int data_ = -1;      // the file itself, or what gzip makes of it
  int messages_ = -1;  // what gzip has to say
  pid_t gzip_ = -1;
};

}  // namespace mnist
