// What an x86 processor says it can do, and what the system keeps of its registers.
#pragma once
#include <cpuid.h>

namespace edge_vlm {

constexpr unsigned kSavesAvx = 0x06, kSavesAvx512 = 0xe6;  // Intel's manual, volume 1, 13.3

struct Features {
  unsigned ecx1 = 0, ebx7 = 0, ecx7 = 0, edx7 = 0, eax7_1 = 0;  // registers of leaves 1 and 7; volume 2, CPUID

  // All zero where the system does not save the registers of `saved`.
  explicit Features(unsigned saved) {
    constexpr unsigned kOsXsave = 1u << 27;
    unsigned a, b, c, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & kOsXsave)) return;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if ((low & saved) != saved) return;
    ecx1 = c;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) ebx7 = b, ecx7 = c, edx7 = d;
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d)) eax7_1 = a;
  }
};

}  // namespace edge_vlm
