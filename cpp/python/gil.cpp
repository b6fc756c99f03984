#include "python/gil.h"

#include <pthread.h>
#include <unistd.h>

#include <atomic>

#include "python/bind.h"
#include "python/source.h"
#include "base/hooks.h"
#include "runtime/engine.h"

namespace owl::python {

thread_local bool runs_user_function = false;

namespace {

std::atomic<bool> leaving{false};
std::atomic<unsigned long> leaver{0};
// Number of threads that are about to reacquire the GIL. During finalization Python ends a thread that acquires it,
// without unwinding its C++ frames; leave() therefore waits for these threads.
std::atomic<int> returning{0};
std::atomic<unsigned long> main_thread{0};  // the thread that handles signals

bool must_stand_still() { return leaving && !runs_user_function && PyThread_get_thread_ident() != leaver; }

[[noreturn]] void stand_still() {
  for (;;) pause();
}

void* release_gil() {
  if (!Py_IsInitialized() || !PyGILState_Check()) return nullptr;
  void* token = PyEval_SaveThread();
  if (must_stand_still()) stand_still();
  return token;
}

void take_gil_back(void* token) {
  if (!token) return;
  ++returning;
  if (must_stand_still()) {
    --returning;
    stand_still();
  }
  PyEval_RestoreThread(static_cast<PyThreadState*>(token));
  --returning;
}

// Only for the main thread: Python runs signal handlers on no other.
bool signal_arrived() {
  if (PyThread_get_thread_ident() != main_thread || !Py_IsInitialized()) return false;
  const auto gil = PyGILState_Ensure();
  const bool interrupted = PyErr_CheckSignals() != 0;
  PyGILState_Release(gil);
  return interrupted;
}

}  // namespace

WithoutGil::WithoutGil() : token_(release_gil()) {}
WithoutGil::~WithoutGil() { take_gil_back(token_); }

void install_runtime_hooks() {
  main_thread = py::module_::import("threading").attr("main_thread")().attr("ident").cast<unsigned long>();
  pthread_atfork(nullptr, nullptr, [] {  // the child has only this thread
    main_thread = PyThread_get_thread_ident();
    returning = 0;
    leaving = false;
  });
  set_runtime_hooks({release_gil, take_gil_back, describe, signal_arrived});
}

void leave() {
  leaver = PyThread_get_thread_ident();
  leaving = true;
  WithoutGil others_come_to_rest;
  for (int i = 0; i < 10'000 && returning > 0; ++i) usleep(100);
  shutdown();
}

void stand_still_if_leaving() {
  if (!must_stand_still()) return;
  PyEval_SaveThread();
  stand_still();
}

}  // namespace owl::python
