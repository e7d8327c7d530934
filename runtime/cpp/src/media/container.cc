#include "container.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>

namespace vtr::internal {
namespace {

constexpr int kBufferBytes = 1 << 15;
// Above every level: what decoders say of damaged pictures is in the warnings. Demuxers and the scaler have no such
// switch, and a library does not change FFmpeg's logging of the whole process.
constexpr int kQuiet = 64;

// FFmpeg turns a text file into pictures of its characters.
constexpr std::array<const char *, 4> kTextCodecs = {"ansi", "bintext", "idf", "xbin"};

[[noreturn]] void fail(const std::string &sentence) { throw Error(VTR_MEDIA_ERROR, sentence); }

std::string errno_words(int number) { return std::generic_category().message(number); }

}  // namespace

void check_frame_size(int64_t width, int64_t height) {
  if (std::max(width, height) > kMaxSide || width * height > kMaxPixels) {
    fail("a frame of " + std::to_string(width) + " x " + std::to_string(height) +
         " pixels is too large; the limit is " + std::to_string(kMaxSide) + " on a side");
  }
}

void Reading::check_cancelled() const {
  if (cancelled != nullptr && cancelled->load()) throw Error(VTR_CANCELLED, "reading " + path + " was cancelled");
}

VideoBytes::VideoBytes(const std::string &path) {
  struct stat found {};
  const bool there = path.find('\0') == std::string::npos && ::stat(path.c_str(), &found) == 0;
  if (!there || !S_ISREG(found.st_mode)) {
    const char *what = !there ? "does not exist" : S_ISDIR(found.st_mode) ? "is a folder" : "is not a regular file";
    fail(path + " " + what + "; give the path of a video file");
  }
  // Without waiting, should it have become a FIFO meanwhile.
  number_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (number_ < 0) fail(path + " cannot be opened (" + errno_words(errno) + "); check its permissions");
  if (::fstat(number_, &found) != 0 || !S_ISREG(found.st_mode) || found.st_size == 0) {
    ::close(number_);
    fail(path + (S_ISREG(found.st_mode) ? " is empty; fetch it again"
                                        : " is not a regular file; give the path of a video file"));
  }
}

VideoBytes::~VideoBytes() { ::close(number_); }

int VideoBytes::read(uint8_t *into, int most) noexcept {
  ssize_t got;
  do {
    got = ::pread(number_, into, static_cast<size_t>(most), position_);
  } while (got < 0 && errno == EINTR);
  if (got < 0) return -errno;
  position_ += got;
  return static_cast<int>(got);
}

int64_t VideoBytes::seek(int64_t offset, int whence) noexcept {
  if (whence != SEEK_SET) {
    struct stat found {};
    if (whence == SEEK_END && ::fstat(number_, &found) != 0) return -errno;
    if (__builtin_add_overflow(offset, whence == SEEK_END ? found.st_size : position_, &offset)) return -EINVAL;
  }
  if (offset < 0) return -EINVAL;
  position_ = offset;
  return offset;
}

int Demuxer::read_bytes(void *self, uint8_t *into, int most) noexcept {
  auto *demuxer = static_cast<Demuxer *>(self);
  if (demuxer->is_cancelled()) return AVERROR_EXIT;
  const int got = demuxer->file_.read(into, most);
  if (got == 0) return AVERROR_EOF;
  if (got < 0) demuxer->unreadable_ = -got;
  return got < 0 ? AVERROR(-got) : got;
}

int64_t Demuxer::seek_bytes(void *self, int64_t offset, int whence) noexcept {
  auto *demuxer = static_cast<Demuxer *>(self);
  if (whence == AVSEEK_SIZE) return -1;  // FFmpeg then seeks to the end, which tells it
  const int64_t place = demuxer->file_.seek(offset, whence & ~AVSEEK_FORCE);
  return place < 0 ? AVERROR(static_cast<int>(-place)) : place;
}

int Demuxer::refuse_file(AVFormatContext *format, AVIOContext **, const char *, int, AVDictionary **) noexcept {
  static_cast<Demuxer *>(format->opaque)->refused_ = true;
  return AVERROR(EPERM);
}

int Demuxer::interrupted(void *self) noexcept { return static_cast<Demuxer *>(self)->is_cancelled() ? 1 : 0; }

bool Demuxer::is_cancelled() const noexcept { return reading_.cancelled != nullptr && reading_.cancelled->load(); }

std::string Demuxer::failure(int result) {
  reading_.check_cancelled();
  std::string words;
  if (refused_) {
    words = "it refers to other files";
  } else if (unreadable_ != 0) {
    words = errno_words(unreadable_);
  } else if (result < 0) {
    words = error_words(result);
  }
  refused_ = false;
  unreadable_ = 0;
  return words;
}

void Demuxer::check(int result) {
  const std::string why = failure(result);
  if (!why.empty()) fail(reading_.path + " cannot be read as a video (" + why + "); give a video file");
}

void Demuxer::open(AVFormatContext *format, bool as_stored) {
  format->opaque = this;
  format->pb = io_.get();
  // Missing times are derived where decoding times allow it.
  format->flags |= AVFMT_FLAG_GENPTS | AVFMT_FLAG_CUSTOM_IO;
  format->io_open = refuse_file;
  format->interrupt_callback = {interrupted, this};
  Options options;
  options.set("max_pixels", kMaxPixels);
  if (as_stored) options.set("ignore_editlist", 1);
  // The name only helps to know the kind of file; where that fails, the context is freed.
  const int result = avformat_open_input(&format, reading_.path.c_str(), nullptr, options.address());
  format_.reset(format);
  check(result);
}

void Demuxer::probe() {
  std::vector<AVDictionary *> options(format_->nb_streams, nullptr);
  for (AVDictionary *&one : options) av_dict_set_int(&one, "max_pixels", kMaxPixels, 0);
  const int result = avformat_find_stream_info(format_.get(), options.empty() ? nullptr : options.data());
  for (AVDictionary *&one : options) av_dict_free(&one);
  check(result);
}

Demuxer::Demuxer(const Reading &reading, bool as_stored) : reading_(reading), file_(reading.path) {
  auto *buffer = static_cast<unsigned char *>(av_malloc(kBufferBytes));
  if (buffer == nullptr) throw std::bad_alloc();
  io_.reset(avio_alloc_context(buffer, kBufferBytes, 0, this, read_bytes, nullptr, seek_bytes));
  if (!io_) {
    av_free(buffer);
    throw std::bad_alloc();
  }
  io_->seekable = AVIO_SEEKABLE_NORMAL;
  io_->max_packet_size = kBufferBytes;
  AVFormatContext *format = avformat_alloc_context();
  if (format == nullptr) throw std::bad_alloc();
  open(format, as_stored);
  if (!as_stored) probe();
}

bool Demuxer::read(int stream, AVPacket *packet, std::string *problem) {
  for (;;) {
    av_packet_unref(packet);
    const int result = av_read_frame(format_.get(), packet);
    const std::string why = failure(result == AVERROR_EOF ? 0 : result);
    if (problem != nullptr) *problem = why;
    if (result < 0 || !why.empty()) return false;
    // An empty one would tell the decoder that the stream is over.
    if (packet->stream_index == stream && packet->size > 0) return true;
  }
}

bool Demuxer::seek(int stream, int64_t time) {
  return failure(av_seek_frame(format_.get(), stream, time, AVSEEK_FLAG_BACKWARD)).empty();
}

Container::Container(const Reading &reading) : reading_(reading), demuxer_(reading) {
  const std::string &path = reading_.path;
  const int best = av_find_best_stream(format(), AVMEDIA_TYPE_VIDEO, -1, -1, nullptr, 0);
  if (best >= 0) stream_ = format()->streams[best];
  if (best < 0 || (stream_->disposition & AV_DISPOSITION_ATTACHED_PIC) != 0) {
    fail(path + " has no video stream; give a file with one");
  }
  decoder_ = avcodec_find_decoder(stream_->codecpar->codec_id);
  if (decoder_ == nullptr || std::any_of(kTextCodecs.begin(), kTextCodecs.end(),
                                         [&](const char *name) { return std::strcmp(name, decoder_->name) == 0; })) {
    fail(path + " is not a video that can be decoded; encode it as H.264 or another common format");
  }
  codec_.reset(avcodec_alloc_context3(decoder_));
  if (!codec_) throw std::bad_alloc();
  const int filled = avcodec_parameters_to_context(codec_.get(), stream_->codecpar);
  if (filled < 0) fail(path + " cannot be read as a video (" + error_words(filled) + "); give a video file");
  try {
    check_frame_size(codec_->width, codec_->height);
  } catch (const Error &error) {
    fail(path + ": " + error.what());
  }
  codec_->pkt_timebase = stream_->time_base;
  codec_->log_level_offset = kQuiet;
  // Older versions (5.1) round some of MPEG-4's half pixels otherwise in vector code, unless told not to.
  codec_->flags |= AV_CODEC_FLAG_BITEXACT;
  // With more than one, a damaged file gives other pictures, or fewer.
  codec_->thread_count = std::max(reading_.threads, 1);
  codec_->thread_type = reading_.threads > 1 ? FF_THREAD_FRAME | FF_THREAD_SLICE : 0;
}

bool Container::read(AVPacket *packet, std::string *problem) { return demuxer_.read(stream_->index, packet, problem); }

bool Container::seek(int64_t time) {
  if (!demuxer_.seek(stream_->index, time)) return false;
  flush();
  return true;
}

void Container::flush() {
  if (avcodec_is_open(codec_.get())) avcodec_flush_buffers(codec_.get());
}

bool Container::decode(const AVPacket *packet, std::vector<FramePtr> &frames) {
  frames.clear();
  reading_.check_cancelled();
  if (!avcodec_is_open(codec_.get())) {
    Options options;
    options.set("max_pixels", kMaxPixels);
    if (avcodec_open2(codec_.get(), decoder_, options.address()) < 0) return false;
  }
  if (avcodec_send_packet(codec_.get(), packet) < 0) return false;
  for (;;) {
    if (!next_) next_ = new_frame();
    const int result = avcodec_receive_frame(codec_.get(), next_.get());
    if (result == AVERROR(EAGAIN) || result == AVERROR_EOF) return true;
    // What came before invalid data counts.
    if (result == AVERROR_INVALIDDATA && !frames.empty()) return true;
    if (result < 0) {
      frames.clear();
      return false;
    }
    frames.push_back(std::move(next_));
  }
}

}  // namespace vtr::internal
