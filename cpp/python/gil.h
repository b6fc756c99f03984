// Waiting without Python's global lock, and leaving the interpreter while other threads still use owl.
#pragma once

#include <Python.h>

namespace owl::python {

// While it lives, other Python threads run.
class WithoutGil {
 public:
  WithoutGil();
  ~WithoutGil();
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

 private:
  void* token_;
};

// This thread is a worker that runs a script's function: at the end of the process the engine waits for it.
extern thread_local bool runs_user_function;

// Makes the engine's waits release the lock and notice signals.
void install_runtime_hooks();

// At the end of the process: stops the engine. From then on other threads (daemon threads: the rest has been joined)
// that wait for a value or meet an error of owl stand still, as Python itself lets them do once it finalizes.
void leave();
void stand_still_if_leaving();  // needs the lock

}  // namespace owl::python
