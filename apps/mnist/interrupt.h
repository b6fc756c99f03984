// Ctrl-C as an exception at a place of the program's choosing.
#pragma once

namespace mnist {

// From now on SIGINT is noted, and a second one ends the process as usual. Where SIGINT is ignored (nohup, a shell's
// background job) it stays ignored.
void note_interrupts();

// Throws owl::Interrupted if SIGINT came.
void check_interrupt();

}  // namespace mnist
