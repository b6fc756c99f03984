#include "python/later.h"

#include <atomic>

namespace owl::python {

namespace {

struct Due {
  void (*release)(void*);
  void* what;
  Due* next;
};

// A lock-free list: a lock held at a fork would stay locked in the child.
std::atomic<Due*> due{nullptr};

int release_all(void*) {
  for (Due* first = due.exchange(nullptr); first;) {
    first->release(first->what);
    Due* next = first->next;
    delete first;
    first = next;
  }
  return 0;
}

}  // namespace

void release_later(void (*release)(void*), void* what) {
  auto* added = new Due{release, what, due.load()};
  while (!due.compare_exchange_weak(added->next, added)) {
  }
  // If the queue is full, the next call of release_later releases this object too.
  if (Py_IsInitialized()) Py_AddPendingCall(&release_all, nullptr);
}

void release_what_is_due() { release_all(nullptr); }

SharedObject share(PyObject* o) {
  return {Py_NewRef(o), [](PyObject* object) {
    release_later([](void* p) { Py_DECREF(static_cast<PyObject*>(p)); }, object);
  }};
}

}  // namespace owl::python
