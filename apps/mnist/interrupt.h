// Ctrl-C as an exception, thrown where the program checks for it.
#pragma once

namespace mnist {

// From now on SIGINT is noted, and a second one ends the process as usual. If SIGINT is ignored (nohup, a shell's
// background job), it stays ignored.
void note_interrupts();

// Throws owl::Interrupted if SIGINT came.
void check_interrupt();

}  // namespace mnist
