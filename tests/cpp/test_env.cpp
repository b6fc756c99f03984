// Settings: reads the cgroup's files from a temporary root folder.
#include <filesystem>
#include <fstream>

#include "base/env.h"
#include "support.h"

namespace owl::test {
namespace {

namespace fs = std::filesystem;

// A temporary folder in place of "/", removed at the end.
struct Root {
  Root() {
    std::string pattern = (fs::temp_directory_path() / "owl_root_XXXXXX").string();
    path = mkdtemp(pattern.data());
  }
  ~Root() { fs::remove_all(path); }
  Root& with(const std::string& file, const std::string& text) {
    fs::create_directories((path / file).parent_path());
    std::ofstream(path / file) << text;
    return *this;
  }
  int cpus() const { return cgroup_cpus(path); }

  fs::path path;
};

constexpr int kMany = 1000;  // more than any test machine has

TEST(Cgroup, NoFilesAreNoQuota) { EXPECT_GT(Root().cpus(), kMany); }

TEST(Cgroup, Version2) {
  const auto of = [](const std::string& text) { return Root().with("sys/fs/cgroup/cpu.max", text).cpus(); };
  EXPECT_GT(of("max 100000\n"), kMany);
  EXPECT_EQ(of("200000 100000\n"), 2);
  EXPECT_EQ(of("150000 100000\n"), 2);
  EXPECT_EQ(of("1000 100000\n"), 1);
  EXPECT_EQ(of("400000 50000\n"), 8);
}

TEST(Cgroup, BrokenFilesAreNoQuota) {
  for (const char* text : {"", "\n", "max", "100000", "0 100000", "-1 100000", "100000 0", "many 100000", "1 x"})
    EXPECT_GT(Root().with("sys/fs/cgroup/cpu.max", text).cpus(), kMany) << text;
}

TEST(Cgroup, TheGroupAndAllAroundItCount) {
  Root root;
  root.with("proc/self/cgroup", "0::/user.slice/app.scope\n").with("sys/fs/cgroup/user.slice/cpu.max", "300000 100000");
  EXPECT_EQ(root.cpus(), 3);
  root.with("sys/fs/cgroup/user.slice/app.scope/cpu.max", "50000 100000");
  EXPECT_EQ(root.cpus(), 1);
  root.with("sys/fs/cgroup/user.slice/app.scope/cpu.max", "max 100000");
  EXPECT_EQ(root.cpus(), 3);
  root.with("sys/fs/cgroup/elsewhere/cpu.max", "50000 100000");
  EXPECT_EQ(root.cpus(), 3);
}

TEST(Cgroup, Version1) {
  Root root;
  root.with("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1").with("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000");
  EXPECT_GT(root.cpus(), kMany);
  root.with("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "250000");
  EXPECT_EQ(root.cpus(), 3);
  root.with("proc/self/cgroup", "11:memory:/\n4:cpu,cpuacct:/docker/1234\n0::/\n")
      .with("sys/fs/cgroup/cpu/docker/1234/cpu.cfs_quota_us", "200000")
      .with("sys/fs/cgroup/cpu/docker/1234/cpu.cfs_period_us", "100000");
  EXPECT_EQ(root.cpus(), 2);
}

TEST(Cgroup, AtLeastOneThread) {
  EXPECT_GE(available_threads(), 1);
  EXPECT_LE(available_threads(), cgroup_cpus("/"));
}

}  // namespace
}  // namespace owl::test
