// A file that appears whole: what is written goes to a new file beside the old one, which then takes its place.
#pragma once

#include <cstdio>
#include <string>
#include <string_view>

#include "base/module_api.h"

namespace owl {

// At every moment a reader finds the old file or the new one, and two writers at once leave one of the two. A symbolic
// link stays, its target is replaced; a new file has the mode and owner of the old one, or those of any new file. A
// pipe or a device is written as it is. owl/_replace.py does the same.
class OWL_MODULE_API FileReplacement {
 public:
  // `what` comes first in messages. Error: the file cannot be written.
  explicit FileReplacement(const std::string& path, std::string what = "");
  ~FileReplacement();  // without commit(), the old file stays
  FileReplacement(const FileReplacement&) = delete;
  FileReplacement& operator=(const FileReplacement&) = delete;

  std::FILE* file() const { return file_; }
  void commit();  // Error: something of what was written did not reach the disk

 private:
  [[noreturn]] void refuse(int error) const;

  std::string path_, what_;
  std::string target_;  // where the path leads
  std::string part_;    // the new file; empty where the target is written as it is, and after commit()
  std::FILE* file_ = nullptr;
};

// The same for content that is there at once.
OWL_MODULE_API void replace_file(const std::string& path, std::string_view content);

}  // namespace owl
