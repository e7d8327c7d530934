#include "service.h"

#include <algorithm>
#include <utility>

namespace {

namespace fs = std::filesystem;
using grpc::ServerContext;
using grpc::Status;
using grpc::StatusCode;

[[noreturn]] void misuse(const std::string &what) { throw vtr::Error(VTR_INVALID_ARGUMENT, what); }

StatusCode code_of(vtr_code code) {
  switch (code) {
    case VTR_OK:
      return StatusCode::OK;
    case VTR_INVALID_ARGUMENT:
    case VTR_TEXT_ERROR:
    case VTR_MEDIA_ERROR:
      return StatusCode::INVALID_ARGUMENT;
    case VTR_SPACE_ERROR:
      return StatusCode::FAILED_PRECONDITION;
    case VTR_UNAVAILABLE:
      return StatusCode::UNIMPLEMENTED;
    case VTR_BUNDLE_ERROR:
    case VTR_INDEX_ERROR:
      return StatusCode::DATA_LOSS;
    case VTR_OUT_OF_MEMORY:
      return StatusCode::RESOURCE_EXHAUSTED;
    case VTR_CANCELLED:
      return StatusCode::CANCELLED;
    case VTR_BACKEND_ERROR:
    case VTR_INTERNAL:
      break;
  }
  return StatusCode::INTERNAL;
}

Status over(const ServerContext &context) {
  if (context.deadline() <= std::chrono::system_clock::now()) {
    return {StatusCode::DEADLINE_EXCEEDED, "the deadline has passed; give more time or less work"};
  }
  return {StatusCode::CANCELLED, "the call was cancelled"};
}

// No exception reaches gRPC, and every one has a status.
template <typename Body>
Status answer(const ServerContext &context, Body &&body) {
  try {
    if (is_over(context)) return over(context);
    body();
    return Status::OK;
  } catch (const Over &) {
    return over(context);
  } catch (const Busy &error) {
    return {StatusCode::RESOURCE_EXHAUSTED, error.what()};
  } catch (const vtr::Error &error) {
    if (error.code() == VTR_CANCELLED) return over(context);
    return {code_of(error.code()), error.what()};
  } catch (const std::bad_alloc &) {
    return {StatusCode::RESOURCE_EXHAUSTED, "memory ran out"};
  } catch (const std::exception &error) {
    return {StatusCode::INTERNAL, error.what()};
  }
}

void put(const float *values, size_t count, vtr::v1::Embedding *into) {
  into->mutable_values()->Add(values, values + count);
}

// One of the few clips that are embedded at a time.
class Slot {
 public:
  Slot(std::atomic<size_t> &taken, size_t most) : taken_(taken) {
    if (taken_.fetch_add(1) >= most) {
      --taken_;
      throw Busy(std::to_string(most) + " clips are being embedded; try again later");
    }
  }
  ~Slot() { --taken_; }
  Slot(const Slot &) = delete;
  Slot &operator=(const Slot &) = delete;

 private:
  std::atomic<size_t> &taken_;
};

vtr::Model open_model(const ServiceOptions &options) {
  vtr_model_options chosen = vtr::Model::options();
  chosen.backend = options.backend.c_str();
  chosen.threads = options.threads;
  return vtr::Model(options.bundle, chosen);
}

}  // namespace

Service::Service(const ServiceOptions &options)
    : options_(options), model_(open_model(options)), batcher_(model_, watch_, options.batching) {
  if (!options.index.empty()) {
    index_.emplace(options.index);
    if (index_->space() != model_.space()) {
      throw vtr::Error(VTR_SPACE_ERROR, options.index + " was made with another model; index the videos with this one");
    }
  }
  if (!options.media.empty()) {
    std::error_code error;
    media_ = fs::canonical(options.media, error);
    if (error || !fs::is_directory(media_)) misuse(options.media + " is not a folder; give one with videos");
  }
}

Status Service::Describe(ServerContext *context, const vtr::v1::DescribeRequest *,
                         vtr::v1::DescribeResponse *response) {
  return answer(*context, [&] {
    const vtr_model_info &info = model_.info();
    response->set_name(info.name);
    response->set_space(info.space);
    response->set_variant(info.variant);
    response->set_precision(info.precision);
    response->set_dim(static_cast<uint32_t>(info.dim));
    response->set_frames(static_cast<uint32_t>(info.frames));
    response->set_frame_size(static_cast<uint32_t>(info.frame_size));
    response->set_index_rows(index_ ? index_->rows() : 0);
    response->set_library_version(vtr_version());
  });
}

vtr::Matrix Service::embed_texts(const std::vector<std::string> &texts, const ServerContext &context) {
  return batcher_.embed(model_.tokenize(texts), texts.size(), context);
}

Status Service::EmbedTexts(ServerContext *context, const vtr::v1::EmbedTextsRequest *request,
                           vtr::v1::EmbedTextsResponse *response) {
  return answer(*context, [&] {
    const auto count = static_cast<size_t>(request->texts_size());
    if (count == 0 || count > options_.texts) {
      misuse(std::to_string(count) + " sentences; give 1 to " + std::to_string(options_.texts));
    }
    const vtr::Matrix found = embed_texts({request->texts().begin(), request->texts().end()}, *context);
    for (size_t row = 0; row < found.rows; ++row) put(found.row(row), found.columns, response->add_embeddings());
    response->set_space(model_.info().space);
  });
}

Status Service::EmbedFrames(ServerContext *context, const vtr::v1::EmbedFramesRequest *request,
                            vtr::v1::EmbedVideoResponse *response) {
  return answer(*context, [&] {
    std::vector<vtr_frame> frames;
    for (const vtr::v1::Frame &frame : request->frames()) {
      const uint64_t pixels = uint64_t{frame.width()} * frame.height();
      if (pixels == 0 || frame.rgb().size() % 3 != 0 || frame.rgb().size() / 3 != pixels) {
        misuse("frame " + std::to_string(frames.size()) + " of " + std::to_string(frame.width()) + " x " +
               std::to_string(frame.height()) + " pixels has " + std::to_string(frame.rgb().size()) +
               " bytes; give 3 for each pixel");
      }
      frames.push_back({reinterpret_cast<const uint8_t *>(frame.rgb().data()), frame.width(), frame.height(), 0});
    }
    const Slot slot(clips_, options_.clips);
    vtr::Cancel cancel;
    const Watch::Guard guard(watch_, *context, [&] { cancel.request(); });
    const vtr::Matrix found = model_.embed_clips({{frames.data(), frames.size()}}, &cancel);
    put(found.row(0), found.columns, response->mutable_embedding());
    response->set_space(model_.info().space);
  });
}

// A file of the media folder, wherever links lead. A client names nothing outside, nor learns what is there.
std::string Service::media_path(const std::string &given) const {
  if (media_.empty()) throw vtr::Error(VTR_UNAVAILABLE, "this server embeds no files; start it with --media FOLDER");
  const fs::path path(given);
  const bool upwards = std::find(path.begin(), path.end(), fs::path("..")) != path.end();
  std::error_code error;
  if (!given.empty() && given.find('\0') == given.npos && path.is_relative() && !upwards) {
    const fs::path real = fs::canonical(media_ / path, error);
    const auto [end, _] = std::mismatch(media_.begin(), media_.end(), real.begin(), real.end());
    if (!error && end == media_.end() && fs::is_regular_file(real, error)) return real.string();
  }
  misuse("no such file in the server's media folder; give the path of a file inside it");
}

Status Service::EmbedVideo(ServerContext *context, const vtr::v1::EmbedVideoRequest *request,
                           vtr::v1::EmbedVideoResponse *response) {
  return answer(*context, [&] {
    const std::string path = media_path(request->path());
    const vtr_window window = {request->start(), request->end()};
    const Slot slot(clips_, options_.clips);
    vtr::Cancel cancel;
    const Watch::Guard guard(watch_, *context, [&] { cancel.request(); });
    std::vector<float> embedding(model_.dim());
    vtr::VideoFrames frames;
    try {
      frames = model_.read_video(path, &window, &cancel);
    } catch (const vtr::Error &error) {
      // The library names the file in full; a client sees the name that it gave.
      std::string message = error.what();
      for (size_t at = 0; (at = message.find(path, at)) != message.npos; at += request->path().size()) {
        message.replace(at, path.size(), request->path());
      }
      throw vtr::Error(error.code(), message);
    }
    vtr::check(vtr_embed_pixels(model_.get(), frames.pixels.data(), frames.mask.data(), 1, cancel.get(),
                                embedding.data(), nullptr));
    put(embedding.data(), embedding.size(), response->mutable_embedding());
    response->set_space(model_.info().space);
    response->set_warnings(static_cast<uint32_t>(frames.warnings));
  });
}

Status Service::Search(ServerContext *context, const vtr::v1::SearchRequest *request,
                       vtr::v1::SearchResponse *response) {
  return answer(*context, [&] {
    if (!index_) throw vtr::Error(VTR_UNAVAILABLE, "this server has no index; start it with --index FILE.vtri");
    const size_t k = request->k() == 0 ? 10 : request->k();
    if (k > options_.most_k) misuse("k is " + std::to_string(k) + "; give 1 to " + std::to_string(options_.most_k));
    vtr::Matrix query;
    std::string space = model_.info().space;
    if (request->has_text()) {
      query = embed_texts({request->text()}, *context);
    } else if (request->has_embedding()) {
      const auto &values = request->embedding().values();
      query = {{values.begin(), values.end()}, 1, static_cast<size_t>(values.size())};
      space = request->space();
    } else {
      misuse("no query; give a text or an embedding");
    }
    vtr::Cancel cancel;
    const Watch::Guard guard(watch_, *context, [&] { cancel.request(); });
    const auto hits = index_->search(query, space, k, &cancel);
    for (const vtr::Hit &hit : hits.front()) {
      vtr::v1::Hit *found = response->add_hits();
      found->set_row(hit.row);
      found->set_score(hit.score);
      found->set_name(hit.name);
      if (hit.start) found->set_start(*hit.start);
      if (hit.end) found->set_end(*hit.end);
    }
  });
}
