#include "interrupt.h"

#include <csignal>

#include "owl/owl.h"

namespace mnist {

namespace {
volatile std::sig_atomic_t came = 0;
}

void note_interrupts() {
  struct sigaction action{};
  if (sigaction(SIGINT, nullptr, &action) == 0 && action.sa_handler == SIG_IGN) return;
  action = {};
  action.sa_handler = [](int) { came = 1; };
  action.sa_flags = static_cast<int>(SA_RESETHAND);  // no SA_RESTART: Ctrl-C interrupts a long read
  sigaction(SIGINT, &action, nullptr);
}

void check_interrupt() {
  if (came) throw owl::Interrupted();
}

}  // namespace mnist
