// The C interface over the library: checks what it is given, and turns every exception into a status.
#include "vtr/vtr.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <mutex>
#include <new>
#include <set>
#include <string>
#include <vector>

#include "index.h"
#include "model.h"
#include "resize.h"
#include "sampling.h"
#include "text_cleaning.h"
#include "unicode.h"

#ifndef VTR_LIBRARY_VERSION
#error "the build gives VTR_LIBRARY_VERSION"
#endif

namespace internal = vtr::internal;

struct vtr_status {
  vtr_code code;
  std::string message;
};
struct vtr_cancel : internal::Cancel {};
struct vtr_model {
  vtr_model(const char *folder, const internal::EngineOptions &options) : model(folder, options) {}
  const internal::Model model;
};
struct vtr_index {
  explicit vtr_index(const char *path) : index(path) {}
  const internal::Index index;
};

namespace {

using internal::Error;

// Given out when memory is too short for a message of its own; never freed.
vtr_status *out_of_memory() {
  static vtr_status status{VTR_OUT_OF_MEMORY, "memory ran out; give smaller batches or frames"};
  return &status;
}

vtr_status *status_of(vtr_code code, const char *message) noexcept {
  try {
    return new vtr_status{code, message};
  } catch (...) {
    return out_of_memory();
  }
}

template <typename Body>
vtr_status *guard(Body &&body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const Error &error) {
    return status_of(error.code(), error.what());
  } catch (const std::bad_alloc &) {
    return out_of_memory();
  } catch (const std::length_error &) {
    return out_of_memory();
  } catch (const std::exception &error) {
    return status_of(VTR_INTERNAL, error.what());
  } catch (...) {
    return status_of(VTR_INTERNAL, "an unknown exception; please report it");
  }
}

void need(const void *pointer, const char *name) {
  if (pointer == nullptr) throw Error(VTR_INVALID_ARGUMENT, std::string(name) + " is NULL; give a pointer");
}

// Handles that are open, where the build looks for closed ones that are used again.
class Handles {
 public:
#ifdef VTR_CHECK_HANDLES
  static void opened(const void *handle) {
    const std::lock_guard<std::mutex> lock(mutex());
    live().insert(handle);
  }
  static void closed(const void *handle) {
    const std::lock_guard<std::mutex> lock(mutex());
    live().erase(handle);
  }
  static void check(const void *handle, const char *name) {
    need(handle, name);
    const std::lock_guard<std::mutex> lock(mutex());
    if (live().count(handle) == 0) {
      throw Error(VTR_INVALID_ARGUMENT,
                  std::string(name) + " is closed or was never opened; keep it open while it is used");
    }
  }
  static bool known(const void *handle) {
    const std::lock_guard<std::mutex> lock(mutex());
    return live().count(handle) != 0;
  }

 private:
  static std::mutex &mutex() {
    static std::mutex found;
    return found;
  }
  static std::set<const void *> &live() {
    static std::set<const void *> found;
    return found;
  }
#else
  static void opened(const void *) {}
  static void closed(const void *) {}
  static void check(const void *handle, const char *name) { need(handle, name); }
  static bool known(const void *handle) { return handle != nullptr; }
#endif
};

void check_cancel(const vtr_cancel *cancel) {
  if (cancel != nullptr) Handles::check(cancel, "cancel");
}

// Rows of `width` numbers each: refused where their bytes would not fit into a size_t.
void check_count(size_t count, size_t width) {
  size_t bytes = 0;
  if (__builtin_mul_overflow(count, width, &bytes) || __builtin_mul_overflow(bytes, sizeof(double), &bytes)) {
    throw Error(VTR_INVALID_ARGUMENT, "a count of " + std::to_string(count) + " is too large; give smaller batches");
  }
}

std::string_view view(const vtr_string &text) {
  if (text.size != 0) need(text.data, "a text's data");
  return {text.data == nullptr ? "" : text.data, text.size};
}

void check_texts(const vtr_string *texts, size_t count) {
  if (count != 0) need(texts, "texts");
  for (size_t i = 0; i < count; ++i) view(texts[i]);
}

internal::FrameView view(const vtr_frame *frame) {
  need(frame, "frame");
  need(frame->rgb, "a frame's rgb");
  constexpr size_t kMost = std::numeric_limits<ptrdiff_t>::max() / 3;
  if (frame->width == 0 || frame->height == 0 || frame->width > kMost) {
    throw Error(VTR_INVALID_ARGUMENT, "a frame has " + std::to_string(frame->width) + " x " +
                                          std::to_string(frame->height) + " pixels; give frames with at least one");
  }
  const auto tight = static_cast<ptrdiff_t>(frame->width * 3);
  const ptrdiff_t stride = frame->row_stride == 0 ? tight : frame->row_stride;
  if (stride < tight) {
    throw Error(VTR_INVALID_ARGUMENT, "a frame's row stride is " + std::to_string(stride) + " and its rows take " +
                                          std::to_string(tight) + " bytes; give the bytes from one row to the next");
  }
  return {frame->rgb, frame->width, frame->height, stride};
}

std::optional<internal::Window> view(const vtr_window *window) {
  if (window == nullptr) return std::nullopt;
  if (!std::isfinite(window->start) || window->start < 0 || std::isnan(window->end)) {
    throw Error(VTR_INVALID_ARGUMENT, "a window starts at " + std::to_string(window->start) +
                                          "; give seconds from the video's first frame, 0 or more");
  }
  internal::Window found;
  if (window->start > 0) found.start = window->start;
  if (window->end > window->start && std::isfinite(window->end)) found.end = window->end;
  return found;
}

}  // namespace

extern "C" {

uint32_t vtr_api_version(void) { return VTR_API_VERSION; }
const char *vtr_version(void) { return VTR_LIBRARY_VERSION; }

vtr_code vtr_status_code(const vtr_status *status) { return status == nullptr ? VTR_OK : status->code; }
const char *vtr_status_message(const vtr_status *status) { return status == nullptr ? "" : status->message.c_str(); }
void vtr_status_free(vtr_status *status) {
  if (status != out_of_memory()) delete status;
}
void vtr_free(void *memory) { std::free(memory); }

vtr_status *vtr_cancel_create(vtr_cancel **out) {
  return guard([&] {
    need(out, "out");
    *out = new vtr_cancel;
    Handles::opened(*out);
  });
}

void vtr_cancel_request(vtr_cancel *cancel) {
  if (Handles::known(cancel)) vtr_status_free(guard([&] { cancel->request(); }));
}

void vtr_cancel_free(vtr_cancel *cancel) {
  if (!Handles::known(cancel)) return;
  Handles::closed(cancel);
  delete cancel;
}

void vtr_model_options_init(vtr_model_options *options) {
  if (options == nullptr) return;
  *options = vtr_model_options{};
  options->struct_size = sizeof(*options);
  options->threads = 1;
}

vtr_status *vtr_model_open(const char *folder, const vtr_model_options *options, vtr_model **out) {
  return guard([&] {
    need(folder, "folder");
    need(out, "out");
    *out = nullptr;
    vtr_model_options chosen;
    vtr_model_options_init(&chosen);
    if (options != nullptr) {
      if (options->struct_size < sizeof(size_t) || options->struct_size > 4096) {
        throw Error(VTR_INVALID_ARGUMENT, "the options' struct_size is " + std::to_string(options->struct_size) +
                                              "; fill them with vtr_model_options_init first");
      }
      std::memcpy(&chosen, options, std::min(options->struct_size, sizeof(chosen)));
    }
    internal::EngineOptions engine;
    if (chosen.backend != nullptr) engine.backend = chosen.backend;
    engine.threads = chosen.threads;
    engine.device = chosen.device;
    engine.allow_fallback = chosen.allow_fallback != 0;
    engine.log = chosen.log;
    engine.log_user = chosen.log_user;
    engine.spin = chosen.spin != 0;
    *out = new vtr_model(folder, engine);
    Handles::opened(*out);
  });
}

void vtr_model_close(vtr_model *model) {
  if (!Handles::known(model)) return;
  Handles::closed(model);
  delete model;
}

vtr_status *vtr_model_describe(const vtr_model *model, vtr_model_info *info) {
  return guard([&] {
    Handles::check(model, "model");
    need(info, "info");
    const internal::Manifest &manifest = model->model.manifest();
    vtr_model_info found{};
    const size_t size = std::min(info->struct_size, sizeof(found));
    if (size < sizeof(size_t)) {
      throw Error(VTR_INVALID_ARGUMENT, "the info's struct_size is 0; set it to sizeof(vtr_model_info)");
    }
    found.struct_size = info->struct_size;
    found.name = manifest.name.c_str();
    found.space = manifest.space.c_str();
    found.variant = manifest.variant.c_str();
    found.precision = manifest.precision.c_str();
    found.backend = model->model.engine().backend().c_str();
    found.dim = manifest.dim;
    found.frames = manifest.frames.count;
    found.frame_size = manifest.frames.size;
    found.context_length = manifest.text.context_length;
    found.has_rerank = manifest.rerank.has_value();
    found.weighs_words = manifest.rerank && manifest.rerank->textual_attention;
    found.has_frame_embeddings = model->model.has_frame_embeddings();
    found.rerank_weight = manifest.rerank ? manifest.rerank->weight : 0;
    std::memcpy(info, &found, size);
  });
}

vtr_status *vtr_tokenize(const vtr_model *model, const vtr_string *texts, size_t count, int32_t *ids) {
  return guard([&] {
    Handles::check(model, "model");
    if (count != 0) need(ids, "ids");
    check_count(count, model->model.manifest().text.context_length);
    check_texts(texts, count);
    model->model.tokenizer().encode(texts, count, ids);
  });
}

vtr_status *vtr_clean_text(vtr_string text, char **out, size_t *out_size) {
  return guard([&] {
    need(out, "out");
    need(out_size, "out_size");
    *out = nullptr;
    const std::string cleaned = internal::to_utf8(internal::clean(view(text)));
    auto *copy = static_cast<char *>(std::malloc(cleaned.size() + 1));
    if (copy == nullptr) throw std::bad_alloc();
    std::memcpy(copy, cleaned.c_str(), cleaned.size() + 1);
    *out = copy;
    *out_size = cleaned.size();
  });
}

vtr_status *vtr_embed_texts(vtr_model *model, const vtr_string *texts, size_t count, vtr_cancel *cancel,
                            float *embeddings) {
  return guard([&] {
    Handles::check(model, "model");
    check_cancel(cancel);
    if (count != 0) need(embeddings, "embeddings");
    check_count(count, model->model.manifest().dim);
    check_texts(texts, count);
    model->model.embed_texts(texts, count, cancel, embeddings);
  });
}

vtr_status *vtr_embed_ids(vtr_model *model, const int32_t *ids, size_t count, size_t length, vtr_cancel *cancel,
                          float *embeddings) {
  return guard([&] {
    Handles::check(model, "model");
    check_cancel(cancel);
    if (count == 0) return;
    need(ids, "ids");
    need(embeddings, "embeddings");
    check_count(count, std::max(length, model->model.manifest().dim));
    model->model.embed_ids(ids, count, length, cancel, embeddings);
  });
}

vtr_status *vtr_resize_frame(const vtr_frame *frame, size_t size, uint8_t *pixels) {
  return guard([&] {
    need(pixels, "pixels");
    if (size < 1 || size > 1024) {
      throw Error(VTR_INVALID_ARGUMENT, "a size of " + std::to_string(size) + " pixels; give 1 to 1024");
    }
    const internal::FrameView given = view(frame);
    internal::resize_crop(given.rgb, given.width, given.height, given.row_stride, size, pixels);
  });
}

vtr_status *vtr_embed_clips(vtr_model *model, const vtr_clip *clips, size_t count, vtr_cancel *cancel,
                            float *embeddings, float *frame_embeddings) {
  return guard([&] {
    Handles::check(model, "model");
    check_cancel(cancel);
    if (count == 0) return;
    need(clips, "clips");
    need(embeddings, "embeddings");
    check_count(count, model->model.pixels_of_clip());
    std::vector<std::vector<internal::FrameView>> given(count);
    for (size_t i = 0; i < count; ++i) {
      if (clips[i].count > model->model.manifest().frames.count || clips[i].count == 0) {
        throw Error(VTR_INVALID_ARGUMENT, "clip " + std::to_string(i) + " has " + std::to_string(clips[i].count) +
                                              " frames and the bundle takes 1 to " +
                                              std::to_string(model->model.manifest().frames.count) +
                                              "; sample them first (vtr_sample_frames)");
      }
      need(clips[i].frames, "a clip's frames");
      for (size_t t = 0; t < clips[i].count; ++t) given[i].push_back(view(&clips[i].frames[t]));
    }
    model->model.embed_clips(given, cancel, embeddings, frame_embeddings);
  });
}

vtr_status *vtr_embed_pixels(vtr_model *model, const uint8_t *pixels, const uint8_t *mask, size_t count,
                             vtr_cancel *cancel, float *embeddings, float *frame_embeddings) {
  return guard([&] {
    Handles::check(model, "model");
    check_cancel(cancel);
    if (count == 0) return;
    need(pixels, "pixels");
    need(mask, "mask");
    need(embeddings, "embeddings");
    check_count(count, model->model.pixels_of_clip());
    model->model.embed_pixels(pixels, mask, count, cancel, embeddings, frame_embeddings);
  });
}

int32_t vtr_has_video(void) {
#ifdef VTR_WITH_VIDEO
  return 1;
#else
  return 0;
#endif
}

vtr_status *vtr_read_video(const vtr_model *model, const char *path, const vtr_window *window, vtr_cancel *cancel,
                           uint8_t *pixels, uint8_t *mask, double *times, size_t *warnings) {
  return guard([&] {
    Handles::check(model, "model");
    check_cancel(cancel);
    need(path, "path");
    need(pixels, "pixels");
    need(mask, "mask");
    const internal::Frames frames = model->model.read_video(path, view(window), cancel);
    std::copy(frames.pixels.begin(), frames.pixels.end(), pixels);
    std::copy(frames.mask.begin(), frames.mask.end(), mask);
    if (times != nullptr) std::copy(frames.times.begin(), frames.times.end(), times);
    if (warnings != nullptr) *warnings = frames.warnings;
  });
}

vtr_status *vtr_embed_video(vtr_model *model, const char *path, const vtr_window *window, vtr_cancel *cancel,
                            float *embedding, float *frame_embeddings) {
  return guard([&] {
    Handles::check(model, "model");
    check_cancel(cancel);
    need(path, "path");
    need(embedding, "embedding");
    const internal::Frames frames = model->model.read_video(path, view(window), cancel);
    model->model.embed_pixels(frames.pixels.data(), frames.mask.data(), 1, cancel, embedding, frame_embeddings);
  });
}

vtr_status *vtr_rerank(vtr_model *model, vtr_string text, const float *word_weights, const float *frame_embeddings,
                       const uint8_t *mask, size_t count, vtr_cancel *cancel, float *scores) {
  return guard([&] {
    Handles::check(model, "model");
    check_cancel(cancel);
    if (count == 0) return;
    need(frame_embeddings, "frame_embeddings");
    need(mask, "mask");
    need(scores, "scores");
    check_count(count, model->model.manifest().dim * model->model.manifest().frames.count);
    model->model.rerank(view(text), word_weights, frame_embeddings, mask, count, cancel, scores);
  });
}

vtr_status *vtr_index_open(const char *path, vtr_index **out) {
  return guard([&] {
    need(path, "path");
    need(out, "out");
    *out = nullptr;
    *out = new vtr_index(path);
    Handles::opened(*out);
  });
}

void vtr_index_close(vtr_index *index) {
  if (!Handles::known(index)) return;
  Handles::closed(index);
  delete index;
}

size_t vtr_index_rows(const vtr_index *index) { return Handles::known(index) ? index->index.rows() : 0; }
size_t vtr_index_dim(const vtr_index *index) { return Handles::known(index) ? index->index.dim() : 0; }
const char *vtr_index_space(const vtr_index *index) {
  return Handles::known(index) ? index->index.space().c_str() : "";
}

vtr_status *vtr_index_search(const vtr_index *index, const char *space, const float *queries, size_t count, size_t k,
                             vtr_cancel *cancel, vtr_hit *hits) {
  return guard([&] {
    Handles::check(index, "index");
    check_cancel(cancel);
    need(space, "space");
    const internal::Index &rows = index->index;
    if (rows.space() != space) {
      throw Error(VTR_SPACE_ERROR, "the index was made with another model (space " + rows.space().substr(0, 12) +
                                       ", the queries' is " + std::string(space).substr(0, 12) +
                                       "); search it with its own bundle, or index the videos again with this one");
    }
    if (count == 0 || k == 0) return;
    need(queries, "queries");
    need(hits, "hits");
    check_count(count, rows.dim());
    check_count(count, k);
    for (size_t query = 0; query < count; ++query) {
      const auto best = rows.search(queries + query * rows.dim(), k, cancel);
      for (size_t place = 0; place < k; ++place) {
        vtr_hit &hit = hits[query * k + place];
        hit = {SIZE_MAX, 0, {nullptr, 0}, std::nan(""), std::nan("")};
        if (place >= best.size()) continue;
        const auto name = rows.name(best[place].row);
        hit = {best[place].row,
               best[place].score,
               {name.data(), name.size()},
               rows.start(best[place].row),
               rows.end(best[place].row)};
      }
    }
  });
}

vtr_status *vtr_index_frame_embeddings(const vtr_index *index, size_t row, size_t frames, float *frame_embeddings,
                                       uint8_t *mask) {
  return guard([&] {
    Handles::check(index, "index");
    need(frame_embeddings, "frame_embeddings");
    need(mask, "mask");
    const internal::Index &rows = index->index;
    if (row >= rows.rows()) {
      throw Error(VTR_INVALID_ARGUMENT, "row " + std::to_string(row) + " of an index of " +
                                            std::to_string(rows.rows()) + " rows; give a row of a hit");
    }
    if (!rows.frame_embeddings(row, frames, frame_embeddings)) {
      throw Error(VTR_UNAVAILABLE,
                  "the index keeps no embeddings of so many frames, which a second stage reads; embed the videos again "
                  "with a bundle that was exported with --rerank");
    }
    for (size_t t = 0; t < frames; ++t) {
      mask[t] = 0;
      for (size_t i = 0; i < rows.dim() && mask[t] == 0; ++i) mask[t] = frame_embeddings[t * rows.dim() + i] != 0;
    }
  });
}

}  // extern "C"
