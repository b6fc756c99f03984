#include "base/failure.h"

#include <new>

namespace owl {

std::shared_ptr<Failure> failure_of(const std::exception_ptr& error, const char* op, const Source& source,
                                    std::uint64_t sequence) {
  auto f = std::make_shared<Failure>();
  f->op = op;
  f->source = source;
  f->sequence = sequence;
  try {
    std::rethrow_exception(error);
  } catch (const Error& e) {
    f->message = e.what();
    f->error = error;
    return f;
  } catch (const std::bad_alloc&) {
    f->message = std::string(op) + ": the host is out of memory";
    f->error = std::make_exception_ptr(OutOfMemoryError(f->message));
    return f;
  } catch (const std::exception& e) {
    f->message = e.what();
  } catch (...) {
    f->message = std::string(op) + ": unknown exception";
  }
  f->error = std::make_exception_ptr(Error(f->message));
  return f;
}

void raise_failure(std::shared_ptr<const Failure> failure) {
  failure->raised = true;
  try {
    std::rethrow_exception(failure->error);
  } catch (const Error& e) {
    with_kind_of(e, [&]<class E>() { throw Async<E>(failure); });
  }
  throw Async<Error>(failure);  // not reached: a failure's error is one of owl's
}

std::shared_ptr<const void> host_cause_of(const Failure& failure) {
  try {
    std::rethrow_exception(failure.error);
  } catch (const Error& e) {
    const auto* cause = dynamic_cast<const HostCause*>(&e);
    return cause ? cause->exception : nullptr;
  }
}

}  // namespace owl
