// vtr.h for C++17: handles that close themselves, and vtr::Error in place of a status. Header only; exceptions are
// thrown in the caller's code and never cross the library's C interface.
#pragma once

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "vtr/vtr.h"

namespace vtr {

class Error : public std::runtime_error {
 public:
  Error(vtr_code code, const std::string &message) : std::runtime_error(message), code_(code) {}
  vtr_code code() const noexcept { return code_; }

 private:
  vtr_code code_;
};

// Throws vtr::Error for a status that is one.
inline void check(vtr_status *status) {
  if (status == nullptr) return;
  const std::unique_ptr<vtr_status, void (*)(vtr_status *)> owned(status, vtr_status_free);
  throw Error(vtr_status_code(status), vtr_status_message(status));
}

// Rows of equal length, one behind the other.
struct Matrix {
  std::vector<float> values;
  size_t rows = 0;
  size_t columns = 0;

  const float *row(size_t index) const { return values.data() + index * columns; }
};

// Stops the calls that it was given to.
class Cancel {
 public:
  Cancel() {
    vtr_cancel *made = nullptr;
    check(vtr_cancel_create(&made));
    handle_.reset(made);
  }
  void request() { vtr_cancel_request(handle_.get()); }
  vtr_cancel *get() const { return handle_.get(); }

 private:
  struct Free {
    void operator()(vtr_cancel *handle) const { vtr_cancel_free(handle); }
  };
  std::unique_ptr<vtr_cancel, Free> handle_;
};

// What a video shows: pixels [T, S, S, 3], mask [T] of 0 and 1, times [T] in seconds.
struct VideoFrames {
  std::vector<uint8_t> pixels;
  std::vector<uint8_t> mask;
  std::vector<double> times;
  size_t warnings = 0;  // frames that could not be decoded and were replaced
};

// A bundle, opened. May be used by many threads at once.
class Model {
 public:
  static vtr_model_options options() {
    vtr_model_options chosen;
    vtr_model_options_init(&chosen);
    return chosen;
  }

  explicit Model(const std::string &folder, const vtr_model_options &chosen = options()) {
    vtr_model *made = nullptr;
    check(vtr_model_open(folder.c_str(), &chosen, &made));
    handle_.reset(made);
    info_.struct_size = sizeof(info_);
    check(vtr_model_describe(made, &info_));
  }

  const vtr_model_info &info() const { return info_; }
  size_t dim() const { return info_.dim; }
  std::string_view space() const { return info_.space; }
  vtr_model *get() const { return handle_.get(); }

  // [texts, context_length].
  std::vector<int32_t> tokenize(const std::vector<std::string> &texts) const {
    std::vector<int32_t> ids(texts.size() * info_.context_length);
    check(vtr_tokenize(get(), strings(texts).data(), texts.size(), ids.data()));
    return ids;
  }

  Matrix embed_texts(const std::vector<std::string> &texts, const Cancel *cancel = nullptr) const {
    Matrix found = matrix(texts.size());
    check(vtr_embed_texts(get(), strings(texts).data(), texts.size(), raw(cancel), found.values.data()));
    return found;
  }

  Matrix embed_clips(const std::vector<vtr_clip> &clips, const Cancel *cancel = nullptr) const {
    Matrix found = matrix(clips.size());
    check(vtr_embed_clips(get(), clips.data(), clips.size(), raw(cancel), found.values.data(), nullptr));
    return found;
  }

  VideoFrames read_video(const std::string &path, const vtr_window *window = nullptr,
                         const Cancel *cancel = nullptr) const {
    VideoFrames found;
    found.pixels.resize(info_.frames * info_.frame_size * info_.frame_size * 3);
    found.mask.resize(info_.frames);
    found.times.resize(info_.frames);
    check(vtr_read_video(get(), path.c_str(), window, raw(cancel), found.pixels.data(), found.mask.data(),
                         found.times.data(), &found.warnings));
    return found;
  }

  std::vector<float> embed_video(const std::string &path, const vtr_window *window = nullptr,
                                 const Cancel *cancel = nullptr) const {
    std::vector<float> found(info_.dim);
    check(vtr_embed_video(get(), path.c_str(), window, raw(cancel), found.data(), nullptr));
    return found;
  }

  // Scores of `count` candidates: frame embeddings [count, T, dim], mask [count, T].
  std::vector<float> rerank(std::string_view text, const std::vector<float> &frame_embeddings,
                            const std::vector<uint8_t> &mask, const float *word_weights = nullptr,
                            const Cancel *cancel = nullptr) const {
    const size_t count = mask.size() / info_.frames;
    if (mask.size() != count * info_.frames || frame_embeddings.size() != mask.size() * info_.dim) {
      throw Error(VTR_INVALID_ARGUMENT, "the frames' embeddings and their mask do not fit together");
    }
    std::vector<float> scores(count);
    check(vtr_rerank(get(), {text.data(), text.size()}, word_weights, frame_embeddings.data(), mask.data(), count,
                     raw(cancel), scores.data()));
    return scores;
  }

 private:
  struct Close {
    void operator()(vtr_model *handle) const { vtr_model_close(handle); }
  };

  Matrix matrix(size_t rows) const { return {std::vector<float>(rows * info_.dim), rows, info_.dim}; }
  static vtr_cancel *raw(const Cancel *cancel) { return cancel == nullptr ? nullptr : cancel->get(); }
  static std::vector<vtr_string> strings(const std::vector<std::string> &texts) {
    std::vector<vtr_string> found;
    found.reserve(texts.size());
    for (const std::string &text : texts) found.push_back({text.data(), text.size()});
    return found;
  }

  std::unique_ptr<vtr_model, Close> handle_;
  vtr_model_info info_{};
};

struct Hit {
  size_t row;
  float score;
  std::string name;  // the file's path or the sentence; not always UTF-8
  std::optional<double> start, end;
};

// A .vtri file, opened. May be used by many threads at once.
class Index {
 public:
  explicit Index(const std::string &path) {
    vtr_index *made = nullptr;
    check(vtr_index_open(path.c_str(), &made));
    handle_.reset(made);
  }

  size_t rows() const { return vtr_index_rows(handle_.get()); }
  size_t dim() const { return vtr_index_dim(handle_.get()); }
  std::string_view space() const { return vtr_index_space(handle_.get()); }
  vtr_index *get() const { return handle_.get(); }

  // The k best rows of each query, embedded in `space`.
  std::vector<std::vector<Hit>> search(const Matrix &queries, std::string_view space, size_t k,
                                       const Cancel *cancel = nullptr) const {
    if (queries.columns != dim()) throw Error(VTR_SPACE_ERROR, "the queries are of another length than the index");
    std::vector<vtr_hit> raw(queries.rows * k);
    check(vtr_index_search(handle_.get(), std::string(space).c_str(), queries.values.data(), queries.rows, k,
                           cancel == nullptr ? nullptr : cancel->get(), raw.data()));
    std::vector<std::vector<Hit>> found(queries.rows);
    for (size_t i = 0; i < raw.size(); ++i) {
      if (raw[i].row == SIZE_MAX) continue;
      const auto seconds = [](double value) { return value == value ? std::optional<double>(value) : std::nullopt; };
      found[i / k].push_back({raw[i].row, raw[i].score, std::string(raw[i].name.data, raw[i].name.size),
                              seconds(raw[i].start), seconds(raw[i].end)});
    }
    return found;
  }

 private:
  struct Close {
    void operator()(vtr_index *handle) const { vtr_index_close(handle); }
  };
  std::unique_ptr<vtr_index, Close> handle_;
};

}  // namespace vtr
