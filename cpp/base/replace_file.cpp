#include "base/replace_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "owl/error.h"

namespace owl {

namespace fs = std::filesystem;

namespace {

// The target of `path` if it is a symbolic link; the file need not exist.
fs::path target_of(fs::path path) {
  std::error_code error;
  while (fs::is_symlink(path, error)) path = path.parent_path() / fs::read_symlink(path, error);
  return path;
}

// Creates a new file in the same folder, with the process's default mode; -1: see errno.
int open_beside(const fs::path& target, std::string& name) {
  static std::atomic<unsigned> count{0};
  for (;;) {
    const auto own = ".owl-" + std::to_string(getpid()) + "-" + std::to_string(++count) + ".part";
    name = (target.parent_path() / own).string();
    const int file = open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (file >= 0 || errno != EEXIST) return file;  // a process of another machine may have the same id
  }
}

// As far as the system allows. If the group cannot be kept, the group's permissions are removed: they would apply to
// another group.
void keep_mode_and_owner(int file, const struct stat& old) {
  struct stat now{};
  if (fstat(file, &now) != 0) return;
  mode_t mode = old.st_mode & 07777;
  if (now.st_gid != old.st_gid && fchown(file, static_cast<uid_t>(-1), old.st_gid) != 0) mode &= ~mode_t{070};
  if (now.st_uid != old.st_uid && fchown(file, old.st_uid, static_cast<gid_t>(-1)) != 0) mode &= 0777;
  if ((now.st_mode & 07777) != mode) fchmod(file, mode);
}

}  // namespace

FileReplacement::FileReplacement(const std::string& path, std::string what) : path_(path), what_(std::move(what)) {
  struct stat old{};
  const bool exists = stat(path.c_str(), &old) == 0;
  if (!exists && errno != ENOENT) refuse(errno);
  if (exists && !S_ISREG(old.st_mode)) {  // fopen fails for a folder
    if (!(file_ = std::fopen(path.c_str(), "we"))) refuse(errno);
    return;
  }
  if (exists && faccessat(AT_FDCWD, path.c_str(), W_OK, AT_EACCESS) != 0) refuse(errno);
  target_ = target_of(path).string();
  std::string part;
  const int handle = open_beside(target_, part);
  if (handle < 0) refuse(errno);
  part_ = std::move(part);
  if (exists) keep_mode_and_owner(handle, old);
  file_ = fdopen(handle, "w");
}

FileReplacement::~FileReplacement() {
  if (file_) std::fclose(file_);
  if (!part_.empty()) unlink(part_.c_str());
}

void FileReplacement::commit() {
  errno = 0;
  int error = std::fflush(file_) == 0 && !std::ferror(file_) ? 0 : errno ? errno : EIO;
  if (!error && !part_.empty() && fsync(fileno(file_)) != 0) error = errno;
  if (std::fclose(std::exchange(file_, nullptr)) != 0 && !error) error = errno;
  if (!error && !part_.empty() && std::rename(part_.c_str(), target_.c_str()) != 0) error = errno;
  if (error) refuse(error);
  part_.clear();
}

void FileReplacement::refuse(int error) const {
  throw Error(what_ + "cannot write " + path_ + ": " + std::strerror(error));
}

void replace_file(const std::string& path, std::string_view content) {
  FileReplacement replacement(path);
  std::fwrite(content.data(), 1, content.size(), replacement.file());
  replacement.commit();
}

}  // namespace owl
