#include "access.h"

#include <algorithm>
#include <iterator>

namespace vtr::internal {
namespace {

// The kinds of NAL units that a packet holds, one bit each: they have 5 bits in H.264 and 6 in H.265.
using Kinds = uint64_t;
constexpr Kinds bit(unsigned kind) { return Kinds{1} << kind; }
constexpr Kinds bits(unsigned first, unsigned last) { return (Kinds{2} << last) - bit(first); }
bool only(Kinds kinds, Kinds allowed) { return kinds != 0 && (kinds & ~allowed) == 0; }

// The NAL units of a packet: behind sizes of `length` bytes (ISO/IEC 14496-15), or, where that is 0, behind start codes
// (Annex B). A size that the packet does not hold ends them.
template <typename Each>
void each_unit(Bytes packet, size_t length, const Each &each) {
  const uint8_t *at = packet.data, *const end = packet.data + packet.size;
  if (length > 0) {
    while (static_cast<size_t>(end - at) > length) {
      size_t size = 0;
      for (size_t i = 0; i < length; ++i) size = size << 8 | *at++;
      if (size == 0 || size > static_cast<size_t>(end - at)) return;
      each(Bytes{at, size});
      at += size;
    }
    return;
  }
  static const uint8_t kCode[] = {0, 0, 1};
  at = std::search(at, end, std::begin(kCode), std::end(kCode));
  while (at != end) {
    at += sizeof kCode;
    const uint8_t *next = std::search(at, end, std::begin(kCode), std::end(kCode));
    each(Bytes{at, static_cast<size_t>(next - at)});
    at = next;
  }
}

// ITU-T H.264, 7.4.1: type 5 is an instantaneous refresh, 7 and 8 are parameter sets, nal_ref_idc 0 is no reference.
Access h264(Bytes packet, size_t length) {
  Kinds kinds = 0;
  bool referenced = false;
  each_unit(packet, length, [&](Bytes unit) {
    const unsigned kind = unit.size > 0 ? unit.data[0] & 31u : 0;
    kinds |= bit(kind);
    if (kind >= 1 && kind <= 5 && (unit.data[0] >> 5 & 3) != 0) referenced = true;
  });
  const Kinds pictures = kinds & bits(1, 5);
  Access found;
  found.start = pictures == bit(5);
  found.droppable = pictures == bit(1) && !referenced;
  found.parameters = (kinds & (bit(7) | bit(8) | bit(13) | bit(15))) != 0;
  found.complete = (kinds & bit(7)) != 0 && (kinds & bit(8)) != 0;
  found.layered = (kinds & (bit(14) | bit(20) | bit(21))) != 0;
  return found;
}

// ITU-T H.265, 7.4.2.2: types 16 to 21 are random access points, whose leading pictures have earlier times; even ones
// up to 14 are no references within their temporal layer; 32 to 34 are parameter sets.
Access hevc(Bytes packet, size_t length) {
  Kinds kinds = 0;
  Access found;
  each_unit(packet, length, [&](Bytes unit) {
    if (unit.size < 2) return;
    const unsigned kind = unit.data[0] >> 1 & 63u;
    kinds |= bit(kind);
    const unsigned layer = (unit.data[0] & 1u) << 5 | unit.data[1] >> 3, temporal = unit.data[1] & 7u;
    if (layer > 0 || (kind < 32 && temporal > 1)) found.layered = true;
  });
  constexpr Kinds sets = bits(32, 34);
  constexpr Kinds even = 0x5555;  // 0, 2, .. 14
  const Kinds pictures = kinds & bits(0, 31);
  found.start = only(pictures, bits(16, 21));
  found.droppable = only(pictures, even);
  found.parameters = (kinds & sets) != 0;
  found.complete = (kinds & sets) == sets;
  return found;
}

// RFC 6386, 9.1: the first bit is 0 for a key frame.
Access vp8(Bytes packet) {
  Access found;
  found.start = packet.size > 0 && (packet.data[0] & 1) == 0;
  return found;
}

// VP9 bitstream specification, 6.2: marker, profile, show_existing_frame, frame_type, show_frame.
Access vp9(Bytes packet) {
  Access found;
  if (packet.size == 0 || packet.data[0] >> 6 != 2) return found;
  const unsigned first = packet.data[0];
  const unsigned shift = (first >> 4 & 3) == 3 ? 1 : 0;  // profile 3 has a reserved bit
  const auto flag = [&](unsigned place) { return (first >> (place - shift) & 1) != 0; };
  found.start = !flag(3) && !flag(2) && flag(1);
  return found;
}

// AV1 bitstream specification, 5.3 and 5.9.2: a sequence header, then a key frame that is shown at once.
Access av1(Bytes packet) {
  Access found;
  bool sequence = false;
  size_t at = 0;
  while (at < packet.size) {
    const unsigned head = packet.data[at];
    const unsigned kind = head >> 3 & 15;
    at += 1 + (head >> 2 & 1);
    uint64_t size = at < packet.size ? packet.size - at : 0;
    if ((head >> 1 & 1) != 0) {
      size = 0;
      for (unsigned shift = 0; at < packet.size; shift += 7) {
        const unsigned byte = packet.data[at++];
        // Further bits name a size that no packet has.
        if (shift < 63) {
          size |= static_cast<uint64_t>(byte & 127) << shift;
        } else if ((byte & 127) != 0) {
          size = packet.size;
        }
        if ((byte & 128) == 0) break;
      }
    }
    if (kind == 1) sequence = true;
    if (kind == 3 || kind == 6) {  // frame header, frame: show_existing_frame, frame_type, show_frame
      const unsigned first = at < packet.size ? packet.data[at] : 255;
      found.start = sequence && first >> 7 == 0 && (first >> 5 & 3) == 0 && (first >> 4 & 1) != 0;
      return found;
    }
    if (at >= packet.size || size > packet.size - at) break;
    at += size;
  }
  return found;
}

Access intra(Bytes) {
  Access found;
  found.start = found.droppable = true;
  return found;
}

// How many bytes the size of a unit has, by the file's head; 0: start codes.
size_t length_bytes(Bytes extradata, size_t place) {
  return extradata.size > place && extradata.data[0] == 1 ? (extradata.data[place] & 3u) + 1 : 0;
}

}  // namespace

Inspect inspector(const std::string &codec, const std::string &pixel_format, Bytes extradata) {
  if (codec == "h264") {
    // Decoders mend the 4:4:4 of old x264 versions, which only the file's first packet names.
    if (pixel_format.find("444") != std::string::npos || pixel_format.compare(0, 3, "gbr") == 0) return {};
    return [length = length_bytes(extradata, 4)](Bytes packet) { return h264(packet, length); };
  }
  if (codec == "hevc") {
    return [length = length_bytes(extradata, 21)](Bytes packet) { return hevc(packet, length); };
  }
  if (codec == "vp8") return vp8;
  if (codec == "vp9") return vp9;
  if (codec == "libdav1d" || codec == "av1") return av1;
  if (codec == "prores" || codec == "dnxhd") return intra;
  return {};
}

}  // namespace vtr::internal
