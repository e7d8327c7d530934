// FFmpeg's C libraries, with owners for what they allocate.
#pragma once

extern "C" {
#include <libavcodec/avcodec.h>
#include <libavfilter/avfilter.h>
#include <libavfilter/buffersink.h>
#include <libavfilter/buffersrc.h>
#include <libavformat/avformat.h>
#include <libavutil/dict.h>
#include <libavutil/error.h>
#include <libavutil/pixdesc.h>
}

#include <memory>
#include <new>
#include <string>

namespace vtr::internal {

template <typename T, void (*Free)(T **)>
struct FreeByAddress {
  void operator()(T *owned) const { Free(&owned); }
};
using PacketPtr = std::unique_ptr<AVPacket, FreeByAddress<AVPacket, av_packet_free>>;
using FramePtr = std::unique_ptr<AVFrame, FreeByAddress<AVFrame, av_frame_free>>;
using CodecPtr = std::unique_ptr<AVCodecContext, FreeByAddress<AVCodecContext, avcodec_free_context>>;
using FormatPtr = std::unique_ptr<AVFormatContext, FreeByAddress<AVFormatContext, avformat_close_input>>;
using GraphPtr = std::unique_ptr<AVFilterGraph, FreeByAddress<AVFilterGraph, avfilter_graph_free>>;

// The buffer may have been replaced by FFmpeg, and is not freed with its context.
struct FreeIo {
  void operator()(AVIOContext *owned) const {
    av_freep(&owned->buffer);
    avio_context_free(&owned);
  }
};
using IoPtr = std::unique_ptr<AVIOContext, FreeIo>;

inline PacketPtr new_packet() {
  PacketPtr packet(av_packet_alloc());
  if (!packet) throw std::bad_alloc();
  return packet;
}

inline FramePtr new_frame() {
  FramePtr frame(av_frame_alloc());
  if (!frame) throw std::bad_alloc();
  return frame;
}

class Options {
 public:
  Options() = default;
  ~Options() { av_dict_free(&dictionary_); }
  Options(const Options &) = delete;
  Options &operator=(const Options &) = delete;
  void set(const char *name, int64_t value) { av_dict_set_int(&dictionary_, name, value, 0); }
  AVDictionary **address() { return &dictionary_; }

 private:
  AVDictionary *dictionary_ = nullptr;
};

// FFmpeg's words for an error.
inline std::string error_words(int error) {
  char words[AV_ERROR_MAX_STRING_SIZE] = {};
  av_strerror(error, words, sizeof words);
  return words;
}

}  // namespace vtr::internal
