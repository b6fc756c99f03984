#include "file_reader.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

#include "interrupt.h"
#include "owl/owl.h"

extern char** environ;

namespace mnist {

using owl::DataError;

namespace {

std::string reason(int error) { return std::strerror(error); }

// read(2), whose wait Ctrl-C ends.
ssize_t read_some(int file, std::uint8_t* to, std::size_t size) {
  for (;;) {
    check_interrupt();
    const ssize_t count = read(file, to, size);
    if (count >= 0 || errno != EINTR) return count;
  }
}

void close_and_forget(int& file) {
  if (file >= 0) close(std::exchange(file, -1));
}

}  // namespace

FileReader::FileReader(const std::filesystem::path& path) : name_(path.string()) {
  data_ = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (data_ < 0) throw DataError(name_ + ": cannot be read: " + reason(errno));
  if (path.extension() == ".gz") start_gzip();
}

FileReader::~FileReader() {
  close_and_forget(data_);  // gzip ends by SIGPIPE if it still writes
  close_and_forget(messages_);
  if (gzip_ > 0) wait_for_gzip();
}

void FileReader::start_gzip() {
  std::array<int, 2> unpacked{-1, -1}, messages{-1, -1};  // pipes: the read end, the write end
  int error = 0;
  if (pipe2(unpacked.data(), O_CLOEXEC) != 0 || pipe2(messages.data(), O_CLOEXEC) != 0) error = errno;
  if (error == 0) {
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, data_, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&files, unpacked[1], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&files, messages[1], STDERR_FILENO);
    std::string program = "gzip", options = "-dc";
    std::array<char*, 3> arguments{program.data(), options.data(), nullptr};
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    sigset_t ends_gzip;  // gzip must not inherit that this process ignores it
    sigemptyset(&ends_gzip);
    sigaddset(&ends_gzip, SIGPIPE);
    posix_spawnattr_setsigdefault(&attributes, &ends_gzip);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
    error = posix_spawnp(&gzip_, program.c_str(), &files, &attributes, arguments.data(), environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&files);
  }
  close_and_forget(unpacked[1]);
  close_and_forget(messages[1]);
  close_and_forget(data_);
  data_ = unpacked[0];
  messages_ = messages[0];
  if (error != 0) {
    gzip_ = -1;
    close_and_forget(data_);
    close_and_forget(messages_);
    throw DataError(name_ + ": cannot be unpacked: starting the program gzip failed (" + reason(error) +
                    "); unpack the file, or put gzip on the PATH");
  }
}

std::vector<std::uint8_t> FileReader::read_up_to(std::size_t size) {
  constexpr std::size_t kPiece = 1 << 16;  // a pipe's capacity
  std::vector<std::uint8_t> bytes;
  while (bytes.size() < size) {
    const std::size_t begin = bytes.size();
    bytes.resize(begin + std::min(kPiece, size - begin));
    const ssize_t count = read_some(data_, bytes.data() + begin, bytes.size() - begin);
    bytes.resize(begin + static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
    if (count < 0) throw DataError(name_ + ": cannot be read: " + reason(errno));
    if (count == 0) break;
  }
  return bytes;
}

void FileReader::finish() {
  if (gzip_ < 0) return;
  std::string said;
  std::array<std::uint8_t, 256> piece;
  for (ssize_t count; (count = read_some(messages_, piece.data(), piece.size())) > 0;)
    said.append(piece.begin(), piece.begin() + count);
  const int status = wait_for_gzip();
  check_interrupt();  // Ctrl-C reaches gzip too
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return;
  if (WIFSIGNALED(status)) said = "it was ended by signal " + std::to_string(WTERMSIG(status));
  std::replace(said.begin(), said.end(), '\n', ' ');  // an error is one line
  said.erase(0, std::min(said.find_first_not_of(' '), said.size()));
  said.erase(said.find_last_not_of(' ') + 1);
  throw DataError(name_ + ": expected sound compressed data, found damaged or other data (" + said + ")");
}

int FileReader::wait_for_gzip() {
  int status = 0;
  while (waitpid(gzip_, &status, 0) < 0 && errno == EINTR) {
  }
  gzip_ = -1;
  return status;
}

}  // namespace mnist
