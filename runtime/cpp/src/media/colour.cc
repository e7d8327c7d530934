#include "colour.h"

#include <cstdlib>
#include <cstring>
#include <string>

#include "container.h"

namespace vtr::internal {
namespace {

// These flags give the same bytes in FFmpeg 5.1 and 8, with and without SIMD; the default ones do not.
constexpr const char *kScaleFlags = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp+bitexact";

// libswscale aborts the whole process on these.
bool is_fatal(const std::string &format) { return format == "yaf32be" || format == "yaf32le"; }

// AVColorSpace to the names that the scale filter knows; what is not here counts as unspecified.
const char *matrix_name(int matrix, int height) {
  switch (matrix) {
    case 1:
      return "bt709";
    case 4:
      return "fcc";
    case 5:
      return "bt470";
    case 6:
      return "smpte170m";
    case 7:
      return "smpte240m";
    case 9:
    case 10:
      return "bt2020";
    default:
      return height >= 720 ? "bt709" : "smpte170m";
  }
}

const char *range_name(int range, const std::string &format) {
  if (range == 1) return "limited";
  if (range == 2) return "full";
  return format.compare(0, 4, "yuvj") == 0 ? "full" : "limited";
}

bool has_alpha(const AVPixFmtDescriptor *format) {
  return (format->flags & AV_PIX_FMT_FLAG_PAL) != 0 || format->nb_components == 2 || format->nb_components == 4;
}

}  // namespace

int RgbConverter::build(const Kind &kind) {
  const AVPixFmtDescriptor *format = av_pix_fmt_desc_get(static_cast<AVPixelFormat>(kind.format));
  const std::string name = format->name;
  const std::string buffer = "video_size=" + std::to_string(kind.width) + "x" + std::to_string(kind.height) +
                             ":pix_fmt=" + std::to_string(kind.format) + ":time_base=1/25:pixel_aspect=1/1";
  std::string scale = std::string("flags=") + kScaleFlags;
  if ((format->flags & (AV_PIX_FMT_FLAG_RGB | AV_PIX_FMT_FLAG_PAL)) == 0) {
    scale += std::string(":in_color_matrix=") + matrix_name(kind.matrix, kind.height) +
             ":in_range=" + range_name(kind.range, name);
  }
  graph_.reset(avfilter_graph_alloc());
  if (!graph_) throw std::bad_alloc();
  graph_->nb_threads = 1;
  AVFilterContext *scaler = nullptr, *target = nullptr;
  const auto add = [this](AVFilterContext *&made, const char *filter, const char *options) {
    const AVFilter *kind = avfilter_get_by_name(filter);
    if (kind == nullptr) return AVERROR_FILTER_NOT_FOUND;
    return avfilter_graph_create_filter(&made, kind, filter, options, nullptr, graph_.get());
  };
  int result = add(source_, "buffer", buffer.c_str());
  if (result >= 0) result = add(scaler, "scale", scale.c_str());
  if (result >= 0) result = add(target, "format", has_alpha(format) ? "rgba" : "rgb24");
  if (result >= 0) result = add(sink_, "buffersink", nullptr);
  if (result >= 0) result = avfilter_link(source_, 0, scaler, 0);
  if (result >= 0) result = avfilter_link(scaler, 0, target, 0);
  if (result >= 0) result = avfilter_link(target, 0, sink_, 0);
  if (result >= 0) result = avfilter_graph_config(graph_.get(), nullptr);
  return result;
}

int RgbConverter::run(AVFrame *frame) {
  const Kind kind{frame->width, frame->height, frame->format, frame->colorspace, frame->color_range};
  int result = 0;
  if (!graph_ || !(kind == kind_)) {
    kind_ = kind;
    result = build(kind);
  }
  done_ = new_frame();
  if (result >= 0) result = av_buffersrc_write_frame(source_, frame);
  if (result >= 0) result = av_buffersink_get_frame(sink_, done_.get());
  return result;
}

RgbView RgbConverter::convert(AVFrame *frame) {
  check_frame_size(frame->width, frame->height);
  const char *known = av_get_pix_fmt_name(static_cast<AVPixelFormat>(frame->format));
  const std::string name = known == nullptr ? "none" : known;
  if (known == nullptr || is_fatal(name)) {
    throw Error(VTR_MEDIA_ERROR,
                "pixel format " + name + " cannot be converted to RGB; encode the video in another one");
  }
  const int result = run(frame);
  if (result < 0) {
    graph_.reset();
    throw Error(VTR_MEDIA_ERROR, "pixel format " + name + " cannot be converted to RGB (" + error_words(result) +
                                     "); encode the video in another one");
  }
  const auto width = static_cast<size_t>(done_->width), height = static_cast<size_t>(done_->height);
  const auto stride = static_cast<size_t>(done_->linesize[0]);
  if (done_->format != AV_PIX_FMT_RGBA) return {done_->data[0], width, height, stride};
  over_black_.resize(3 * width * height);
  uint8_t *out = over_black_.data();
  for (size_t row = 0; row < height; ++row) {
    const uint8_t *in = done_->data[0] + row * stride;
    // round(value * alpha / 255), halves up, in integers.
    for (size_t x = 0; x < width; ++x, in += 4, out += 3) {
      for (size_t channel = 0; channel < 3; ++channel)
        out[channel] = static_cast<uint8_t>((in[channel] * in[3] + 127) / 255);
    }
  }
  return {over_black_.data(), width, height, 3 * width};
}

RgbView turn_upright(const RgbView &rgb, const int32_t *matrix, std::vector<uint8_t> &buffer, bool &exact) {
  const int64_t a = matrix[0], b = matrix[1], c = matrix[3], d = matrix[4];  // x' = a x + c y, y' = b x + d y
  exact = false;
  if (a * d == b * c) return rgb;
  const bool upright = std::llabs(a) + std::llabs(d) >= std::llabs(b) + std::llabs(c);
  const bool mirror_x = upright ? a < 0 : c < 0, mirror_y = upright ? d < 0 : b < 0;
  exact = upright ? b == 0 && c == 0 : a == 0 && d == 0;
  if (upright && !mirror_x && !mirror_y) return rgb;
  const size_t width = upright ? rgb.width : rgb.height, height = upright ? rgb.height : rgb.width;
  buffer.resize(3 * width * height);
  uint8_t *out = buffer.data();
  for (size_t y = 0; y < height; ++y) {
    const size_t row = mirror_y ? height - 1 - y : y;
    for (size_t x = 0; x < width; ++x, out += 3) {
      const size_t column = mirror_x ? width - 1 - x : x;
      const uint8_t *in = upright ? rgb.data + row * rgb.stride + 3 * column : rgb.data + column * rgb.stride + 3 * row;
      std::memcpy(out, in, 3);
    }
  }
  return {buffer.data(), width, height, 3 * width};
}

}  // namespace vtr::internal
