// The entropy coder of contract/codecs/rans.py and the rounding before it; each value equals what numpy computes there.
// Python calls it through ctypes, without onnxruntime: the codec works on rows that have left the tower.
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace {

constexpr uint32_t kBits = 16;
constexpr uint32_t kTotal = 1u << kBits;
constexpr int kOutside = 8;
constexpr size_t kSymbols = 256;

inline int16_t ToInt16(float whole) {
  return static_cast<int16_t>(std::fmin(std::fmax(whole, -32768.0f), 32767.0f));
}

inline size_t BlockEnd(size_t first, size_t lanes, size_t number) { return first + lanes < number ? first + lanes : number; }

}  // namespace

extern "C" {

// Rounds levels (rows, width) times inverse_steps (rows), and writes them as pairs (rows, width / 2), as
// contract/codecs/nibbles.py packs them, and the values outside -7 to 7 in their order. Returns the number of these;
// `outside` has room for rows * width.
__attribute__((visibility("default"))) size_t EdgeVlmEcqRound(const float* levels, const float* inverse_steps,
                                                             size_t rows, size_t width, uint8_t* pairs,
                                                             int16_t* outside) {
  size_t found = 0;
  for (size_t row = 0; row < rows; ++row, levels += width, pairs += width / 2) {
    const float inverse = inverse_steps[row];
    int is_outside = 0;
    for (size_t i = 0; i < width / 2; ++i) {
      const float low = std::nearbyint(levels[2 * i] * inverse), high = std::nearbyint(levels[2 * i + 1] * inverse);
      const int a = static_cast<int>(std::fmin(std::fmax(low, -8.0f), 8.0f));
      const int b = static_cast<int>(std::fmin(std::fmax(high, -8.0f), 8.0f));
      is_outside |= (a == kOutside) | (a == -kOutside) | (b == kOutside) | (b == -kOutside);
      pairs[i] = static_cast<uint8_t>((a & 15) | (b & 15) << 4);
    }
    if (!is_outside) continue;
    for (size_t i = 0; i < width; ++i) {
      const float whole = std::nearbyint(levels[i] * inverse);
      outside[found] = ToInt16(whole);
      found += std::fabs(whole) >= kOutside;
    }
  }
  return found;
}

// Turns pairs (levels, number) into states (lanes) and words, which fill the end of `words`, a buffer of levels *
// number. Returns how many words these are.
__attribute__((visibility("default"))) size_t EdgeVlmRansEncode(const uint8_t* pairs, size_t levels, size_t number,
                                                               const uint32_t* frequencies, size_t lanes,
                                                               uint32_t* states, uint16_t* words) {
  uint16_t* const end = words + levels * number;
  uint16_t* next = end;
  for (size_t lane = 0; lane < lanes; ++lane) states[lane] = kTotal;
  for (size_t level = levels; level-- > 0;) {
    // The quotient is below 2^16, so a factor of 1 + 2^-50 changes it by less than 2^-33, and it misses the next whole
    // number by 2^-16 or more.
    double inverse[kSymbols];
    uint32_t frequency[kSymbols], start[kSymbols], sum = 0;
    for (size_t symbol = 0; symbol < kSymbols; ++symbol) {
      frequency[symbol] = frequencies[level * kSymbols + symbol];
      inverse[symbol] = (1.0 + 0x1p-50) / frequency[symbol];
      start[symbol] = sum;
      sum += frequency[symbol];
    }
    const uint8_t* const from = pairs + level * number;
    for (size_t block = (number + lanes - 1) / lanes; block-- > 0;) {
      const size_t first = block * lanes;
      for (size_t i = BlockEnd(first, lanes, number); i-- > first;) {
        const uint8_t symbol = from[i];
        uint32_t x = states[i - first];
        const uint32_t is_full = (x >> kBits) >= frequency[symbol];
        next[-1] = static_cast<uint16_t>(x);
        next -= is_full;
        x >>= is_full * kBits;
        const uint32_t quotient = static_cast<uint32_t>(static_cast<int32_t>(x * inverse[symbol]));
        states[i - first] = x + quotient * (kTotal - frequency[symbol]) + start[symbol];
      }
    }
  }
  return static_cast<size_t>(end - next);
}

// Turns states and words back into pairs (levels, number), and overwrites the states. Returns how many words it read,
// or -1 where there are too few. symbol_at has room for 2^16 bytes.
__attribute__((visibility("default"))) int64_t EdgeVlmRansDecode(uint32_t* states, size_t lanes, const uint16_t* words,
                                                                size_t num_words, const uint32_t* frequencies,
                                                                uint8_t* symbol_at, size_t levels, size_t number,
                                                                uint8_t* pairs) {
  size_t used = 0;
  for (size_t level = 0; level < levels; ++level) {
    uint32_t frequency[kSymbols], start[kSymbols], sum = 0;
    for (size_t symbol = 0; symbol < kSymbols; ++symbol) {
      frequency[symbol] = frequencies[level * kSymbols + symbol];
      start[symbol] = sum;
      for (uint32_t i = 0; i < frequency[symbol]; ++i) symbol_at[sum + i] = static_cast<uint8_t>(symbol);
      sum += frequency[symbol];
    }
    uint8_t* const to = pairs + level * number;
    for (size_t first = 0; first < number; first += lanes) {
      for (size_t i = first; i < BlockEnd(first, lanes, number); ++i) {
        uint32_t x = states[i - first];
        const uint32_t slot = x & (kTotal - 1);
        const uint8_t symbol = symbol_at[slot];
        to[i] = symbol;
        x = (x >> kBits) * frequency[symbol] + slot - start[symbol];
        if (x < kTotal) {
          if (used == num_words) return -1;
          x = x << kBits | words[used++];
        }
        states[i - first] = x;
      }
    }
  }
  return static_cast<int64_t>(used);
}
}
