// cuda/emulated/place.h - a place in the program, as text for people.
#pragma once
#include <cstdint>
#include <string>

namespace eg::emulated {
/// A return address as 32 bits: the offset from where the program was loaded. 0: unknown.
std::uint32_t code_of(const void* return_address);
/// "attention.cu:52", innermost first where code was inlined. Asks addr2line (binutils); without it, says how to ask.
std::string place_of(std::uint32_t code);
}  // namespace eg::emulated
