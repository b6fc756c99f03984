// Atomic replacement of files: the content is written to a new file beside the old one, which it then replaces.
#pragma once

#include <cstdio>
#include <string>
#include <string_view>

#include "base/module_api.h"

namespace owl {

// A reader always finds either the whole old file or the whole new one, and of two concurrent writers one wins. A
// symbolic link stays and its target is replaced; the new file gets the mode and owner of the old one, or the defaults.
// A pipe or a device is written directly. owl/_replace.py does the same in Python.
class OWL_MODULE_API FileReplacement {
 public:
  // `what` comes first in messages. Error: the file cannot be written.
  explicit FileReplacement(const std::string& path, std::string what = "");
  ~FileReplacement();  // without commit(), the old file stays
  FileReplacement(const FileReplacement&) = delete;
  FileReplacement& operator=(const FileReplacement&) = delete;

  std::FILE* file() const { return file_; }
  void commit();  // Error: not all of the content reached the disk

 private:
  [[noreturn]] void refuse(int error) const;

  std::string path_, what_;
  std::string target_;  // the path, symbolic links resolved
  std::string part_;    // the new file; empty if the target is written directly, and after commit()
  std::FILE* file_ = nullptr;
};

// The same in one call.
OWL_MODULE_API void replace_file(const std::string& path, std::string_view content);

}  // namespace owl
