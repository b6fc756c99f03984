// Treats denormal numbers as zero while owl computes: they are up to a hundred times slower and no network needs them.
// Workers and callers that run tasks set the same mode, so that bits do not depend on the thread that ran an operation.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace owl {

class DenormalsToZero {
#if defined(__x86_64__)
 public:
  DenormalsToZero() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040); }  // FTZ and DAZ
  ~DenormalsToZero() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
 public:
  DenormalsToZero() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("msr fpcr, %0" : : "r"(saved_ | (1ull << 24)));
  }
  ~DenormalsToZero() { asm volatile("msr fpcr, %0" : : "r"(saved_)); }

 private:
  unsigned long long saved_;
#endif
};

// Restores normal denormals, for user code.
class NormalDenormals {
#if defined(__x86_64__)
 public:
  NormalDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ & ~0x8040u); }
  ~NormalDenormals() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
 public:
  NormalDenormals() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("msr fpcr, %0" : : "r"(saved_ & ~(1ull << 24)));
  }
  ~NormalDenormals() { asm volatile("msr fpcr, %0" : : "r"(saved_)); }

 private:
  unsigned long long saved_;
#endif
};

inline void cpu_relax() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace owl
