# Finds an installed GoogleTest (target GTest::gtest_main). Without it `make test` skips the C++ tests and says so.
find_package(GTest QUIET)
if(TARGET GTest::gtest_main)
  message(STATUS "GoogleTest: found")
else()
  message(STATUS "GoogleTest: not found, the C++ tests are left out (Debian and Ubuntu: apt install libgtest-dev)")
endif()
