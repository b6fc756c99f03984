// Where the script recorded an operation: a code object and an instruction offset, resolved only for a message.
#pragma once

#include <Python.h>
#include <frameobject.h>

#include <string>

#include "graph/node.h"

namespace owl::python {

// The code object of the last frame that recorded; never freed, because sources point to code objects as long as their
// nodes live, and few code objects record millions of operations.
extern PyCodeObject* last_code;
void note_unseen_source(PyFrameObject* frame, PyCodeObject* code);

inline int last_instruction(PyFrameObject* frame) {
#if PY_VERSION_HEX >= 0x030B0000
  return PyFrame_GetLasti(frame);
#else
  return frame->f_lasti * 2;  // counts instructions in this version
#endif
}

// Notes the script's current line for the engine. Every function that records calls this first.
inline void note_source() {
  PyFrameObject* frame = PyEval_GetFrame();
  if (!frame) {
    current_source = {};
    return;
  }
  PyCodeObject* code = PyFrame_GetCode(frame);
  Py_DECREF(code);  // the frame holds it
  if (code == last_code)
    current_source = {code, last_instruction(frame)};
  else
    note_unseen_source(frame, code);
}

// "file.py:12", or "" if the source is unknown. Needs the GIL.
std::string describe(const Source& source);

}  // namespace owl::python
