// A task's error as a value, which every value computed from the failed one inherits.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <string>

#include "base/module_api.h"
#include "base/source.h"
#include "owl/error.h"

namespace owl {

struct Failure {
  std::exception_ptr error;  // one of owl's errors
  std::string message;       // its text; front ends add the place
  const char* op = "";
  Source source;
  std::uint64_t sequence = 0;  // of the failing node: wait_for_all raises the earliest
  mutable std::atomic<bool> reported = false;  // wait_for_all has raised it
  mutable std::atomic<bool> raised = false;    // any wait has
};

// The exception as a failure. Any other exception than owl's is converted: std::bad_alloc to OutOfMemoryError, else to
// Error.
OWL_MODULE_API std::shared_ptr<Failure> failure_of(const std::exception_ptr& error, const char* op,
                                                   const Source& source, std::uint64_t sequence);
template <class E>
std::shared_ptr<Failure> make_failure(const std::string& message, const char* op, const Source& source,
                                      std::uint64_t sequence) {
  return failure_of(std::make_exception_ptr(E(message)), op, source, sequence);
}

// A wait throws a failure with its own error class (Async<ShapeError> for a ShapeError); after catching it,
// `dynamic_cast<const FailureCarrier*>` gives the operation and the place that recorded it.
struct FailureCarrier {
  std::shared_ptr<const Failure> failure;
};
template <class E> struct Async : E, FailureCarrier {
  explicit Async(std::shared_ptr<const Failure> f) : E(f->message), FailureCarrier{std::move(f)} {}
};
[[noreturn]] void raise_failure(std::shared_ptr<const Failure> failure);

// Calls f.operator()<E>() with E the most derived of owl's error classes of `e`.
template <class F> decltype(auto) with_kind_of(const Error& e, F&& f) {
  if (dynamic_cast<const ShapeError*>(&e)) return f.template operator()<ShapeError>();
  if (dynamic_cast<const DTypeError*>(&e)) return f.template operator()<DTypeError>();
  if (dynamic_cast<const DeviceError*>(&e)) return f.template operator()<DeviceError>();
  if (dynamic_cast<const IndexError*>(&e)) return f.template operator()<IndexError>();
  if (dynamic_cast<const DataError*>(&e)) return f.template operator()<DataError>();
  if (dynamic_cast<const OutOfMemoryError*>(&e)) return f.template operator()<OutOfMemoryError>();
  if (dynamic_cast<const NaNError*>(&e)) return f.template operator()<NaNError>();
  if (dynamic_cast<const OverflowError*>(&e)) return f.template operator()<OverflowError>();
  if (dynamic_cast<const ValueError*>(&e)) return f.template operator()<ValueError>();
  return f.template operator()<Error>();
}

// A mixin for errors of kernels whose host-language code raised an exception: that exception, as the front end keeps
// it. Reached through Failure::error.
struct HostCause {
  std::shared_ptr<const void> exception;
};
template <class E> struct Caused : E, HostCause {
  Caused(const std::string& message, std::shared_ptr<const void> exception)
      : E(message), HostCause{std::move(exception)} {}
};
// The host-language exception that caused the failure; null if there is none.
OWL_MODULE_API std::shared_ptr<const void> host_cause_of(const Failure& failure);

}  // namespace owl
