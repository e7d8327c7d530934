// A video file that is open: its best stream, its packets, the limits.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "ffmpeg.h"
#include "status.h"

namespace vtr::internal {

constexpr int kMaxSide = 16384;
constexpr int64_t kMaxPixels = int64_t{1} << 28;

// Error(VTR_MEDIA_ERROR) for a frame beyond the limits.
void check_frame_size(int64_t width, int64_t height);

// How a file is read.
struct Reading {
  std::string path;
  const std::atomic<bool> *cancelled = nullptr;  // may be null
  int threads = 1;                               // of the decoder

  // Error(VTR_CANCELLED) once that was asked for.
  void check_cancelled() const;
};

// An open regular file.
class VideoBytes {
 public:
  // Error(VTR_MEDIA_ERROR) for what is none, or is empty.
  explicit VideoBytes(const std::string &path);
  ~VideoBytes();
  VideoBytes(const VideoBytes &) = delete;
  VideoBytes &operator=(const VideoBytes &) = delete;

  // As FFmpeg's callbacks: what was done, or a negative errno.
  int read(uint8_t *into, int most) noexcept;
  int64_t seek(int64_t offset, int whence) noexcept;

 private:
  int number_ = -1;
  int64_t position_ = 0;
};

// A regular file taken apart into packets. Files that it names (playlists, references) are never opened.
class Demuxer {
 public:
  // Error(VTR_MEDIA_ERROR) for what FFmpeg cannot read as a video, Error(VTR_CANCELLED). `as_stored`: only the head is
  // read, and edit lists of QuickTime and MP4 are left out.
  explicit Demuxer(const Reading &reading, bool as_stored = false);
  Demuxer(const Demuxer &) = delete;
  Demuxer &operator=(const Demuxer &) = delete;

  AVFormatContext *format() const { return format_.get(); }
  // A stream's next packet that holds data, false where there is none. `problem` then says why the file cannot be read
  // further, and is empty at its end.
  bool read(int stream, AVPacket *packet, std::string *problem = nullptr);
  // Go to the key picture at or before a time of the stream; false where that cannot be done.
  bool seek(int stream, int64_t time);

 private:
  static int read_bytes(void *self, uint8_t *into, int most) noexcept;
  static int64_t seek_bytes(void *self, int64_t offset, int whence) noexcept;
  static int refuse_file(AVFormatContext *format, AVIOContext **, const char *, int, AVDictionary **) noexcept;
  static int interrupted(void *self) noexcept;

  void open(AVFormatContext *format, bool as_stored);
  void probe();
  // Error where a step of opening failed.
  void check(int result);
  // Why the last call failed, by what the callbacks saw or by its result; empty where it did not.
  std::string failure(int result);
  bool is_cancelled() const noexcept;

  Reading reading_;
  VideoBytes file_;
  bool refused_ = false;  // since the last failure()
  int unreadable_ = 0;    // errno, since the last failure()
  IoPtr io_;
  FormatPtr format_;
};

// The best video stream of a file.
class Container {
 public:
  // Error(VTR_MEDIA_ERROR) for what is no video, Error(VTR_CANCELLED).
  explicit Container(const Reading &reading);

  AVFormatContext *format() const { return demuxer_.format(); }
  AVStream *stream() const { return stream_; }
  // With the stream's parameters; not open before something is decoded.
  AVCodecContext *codec() const { return codec_.get(); }

  // See Demuxer::read.
  bool read(AVPacket *packet, std::string *problem = nullptr);
  // See Demuxer::seek; what was decoded is forgotten.
  bool seek(int64_t time);
  // The pictures that a packet completes, or, with null, all that the decoder still holds; false for a packet that
  // cannot be decoded.
  bool decode(const AVPacket *packet, std::vector<FramePtr> &frames);
  // Forget what was decoded, to begin anew elsewhere.
  void flush();

 private:
  Reading reading_;
  Demuxer demuxer_;
  AVStream *stream_ = nullptr;
  const AVCodec *decoder_ = nullptr;
  CodecPtr codec_;
  FramePtr next_;
};

}  // namespace vtr::internal
