// The exceptions of owl. Every message names the faulty values and says what would be right.
#pragma once

#include <stdexcept>
#include <string>

#include "owl/export.h"

namespace owl OWL_API {

struct Error : std::runtime_error { using std::runtime_error::runtime_error; };
struct ShapeError : Error { using Error::Error; };
struct DTypeError : Error { using Error::Error; };
struct DeviceError : Error { using Error::Error; };
struct IndexError : Error { using Error::Error; };
struct DataError : Error { using Error::Error; };
struct OutOfMemoryError : Error { using Error::Error; };
struct NaNError : Error { using Error::Error; };
struct OverflowError : Error { using Error::Error; };  // a number outside the range of int32
struct ValueError : Error { using Error::Error; };     // a number outside its range, such as a probability of 2

// A wait was interrupted by a signal (Ctrl-C); the front end turns it into its own exception.
struct Interrupted : std::exception {
  const char* what() const noexcept override { return "owl: the wait was interrupted"; }
};

}  // namespace owl
