// Waiting without Python's global lock, and leaving the interpreter while other threads still use owl.
#pragma once

#include <Python.h>

namespace owl::python {

// Releases the GIL for a scope, so that other Python threads run.
class WithoutGil {
 public:
  WithoutGil();
  ~WithoutGil();
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

 private:
  void* token_;
};

// True on a worker that runs a script's function, for which the engine waits at exit.
extern thread_local bool runs_user_function;

// Makes the engine's waits release the GIL and check for signals.
void install_runtime_hooks();

// Stops the engine at exit. Afterwards other threads (only daemon threads: the rest have been joined) that wait for a
// value or get an error of owl block forever, as Python itself blocks them once it finalizes.
void leave();
void stand_still_if_leaving();  // needs the lock

}  // namespace owl::python
