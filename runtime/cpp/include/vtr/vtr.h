/* The C interface of vtr_runtime: embed sentences and videos from a bundle that vtr-export wrote, and search them.
 *
 * Every function that can fail returns a vtr_status pointer: NULL on success, else an error with a code and one
 * sentence; free it with vtr_status_free. Nothing throws across this interface and nothing ends the process. Sentences
 * are UTF-8.
 *
 * Threads: a model and an index may be used by any number of threads at once; closing one while a call on it still runs
 * is an error of the caller. The library starts no threads of its own; ONNX Runtime's are set by vtr_model_options.
 *
 * Handles: a closed handle must not be used again. Debug builds (VTR_CHECK_HANDLES) find that out and answer
 * VTR_INVALID_ARGUMENT; release builds do not look.
 *
 * Version rule: functions and enumerators are only ever added, options structs grow at their end and are read as far as
 * their struct_size says. A program built against VTR_API_VERSION n runs with every library whose vtr_api_version() is
 * at least n; what breaks that changes the library's soname. */
#ifndef VTR_VTR_H
#define VTR_VTR_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define VTR_EXPORT __attribute__((visibility("default")))
#else
#define VTR_EXPORT
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define VTR_API_VERSION 2 /* 2: vtr_model_options.spin */

/* The version of the interface that the library offers. */
VTR_EXPORT uint32_t vtr_api_version(void);
/* The library's own version, "0.1.0". */
VTR_EXPORT const char *vtr_version(void);

typedef enum vtr_code {
  VTR_OK = 0,
  VTR_INVALID_ARGUMENT = 1, /* wrong use: a null pointer, a size of zero, a closed handle */
  VTR_BUNDLE_ERROR = 2,     /* a damaged, foreign or newer bundle */
  VTR_TEXT_ERROR = 3,       /* a sentence that cannot be tokenized */
  VTR_MEDIA_ERROR = 4,      /* a file or a frame of which no picture can be had */
  VTR_BACKEND_ERROR = 5,    /* the engine cannot run the graph */
  VTR_UNAVAILABLE = 6,      /* what this machine or this build has not: a provider, FFmpeg, a graph of the bundle */
  VTR_INDEX_ERROR = 7,      /* a damaged index */
  VTR_SPACE_ERROR = 8,      /* embeddings of another model */
  VTR_OUT_OF_MEMORY = 9,
  VTR_CANCELLED = 10,
  VTR_INTERNAL = 11 /* a fault of this library */
} vtr_code;

typedef struct vtr_status vtr_status;
VTR_EXPORT vtr_code vtr_status_code(const vtr_status *status); /* of NULL: VTR_OK */
/* One sentence: what is wrong, and what mends it; lives as long as the status. */
VTR_EXPORT const char *vtr_status_message(const vtr_status *status);
VTR_EXPORT void vtr_status_free(vtr_status *status);

/* Text of a known length, which need not end with a zero byte. */
typedef struct vtr_string {
  const char *data;
  size_t size;
} vtr_string;

/* ---- Logging and cancelling ---- */

typedef enum vtr_log_level {
  VTR_LOG_DEBUG = 0,
  VTR_LOG_INFO = 1,
  VTR_LOG_WARNING = 2,
  VTR_LOG_ERROR = 3
} vtr_log_level;
/* Called from any thread that uses the library; it must not call the library again, nor throw. */
typedef void (*vtr_log)(void *user, vtr_log_level level, const char *message);

/* Asks calls to stop: a call that was given it returns VTR_CANCELLED soon after. One may serve any number of calls. */
typedef struct vtr_cancel vtr_cancel;
VTR_EXPORT vtr_status *vtr_cancel_create(vtr_cancel **out);
VTR_EXPORT void vtr_cancel_request(vtr_cancel *cancel);
VTR_EXPORT void vtr_cancel_free(vtr_cancel *cancel);

/* ---- Models ---- */

typedef struct vtr_model vtr_model;

typedef struct vtr_model_options {
  size_t struct_size;     /* sizeof(vtr_model_options) */
  const char *backend;    /* "onnx-cpu" (default), "onnx-cuda", "onnx-tensorrt", "onnx-trt-rtx"; NULL: the default */
  int32_t threads;        /* of one graph's run; 0: ONNX Runtime's choice */
  int32_t device;         /* of a GPU provider */
  int32_t allow_fallback; /* not 0: nodes that the provider does not take may run on the CPU; else that is an error */
  vtr_log log;            /* may be NULL */
  void *log_user;
  int32_t spin; /* not 0: with several threads, those that wait for work spin: sooner answers, busy cores */
} vtr_model_options;

/* Fill the options with their defaults. */
VTR_EXPORT void vtr_model_options_init(vtr_model_options *options);

/* Open a bundle's folder: every file is compared with its sha256 first. `options` may be NULL. */
VTR_EXPORT vtr_status *vtr_model_open(const char *folder, const vtr_model_options *options, vtr_model **out);
VTR_EXPORT void vtr_model_close(vtr_model *model);

/* What the bundle is. Strings live as long as the model. */
typedef struct vtr_model_info {
  size_t struct_size;
  const char *name;  /* the backbone's */
  const char *space; /* embeddings may be compared exactly when their spaces are equal */
  const char *variant;
  const char *precision; /* "fp32", "fp16", "bf16", "int8" */
  const char *backend;   /* what runs the graphs */
  size_t dim;            /* D, numbers of an embedding */
  size_t frames;         /* T, frames of a clip */
  size_t frame_size;     /* S, side of a frame in pixels */
  size_t context_length; /* ids of a sentence */
  int32_t has_rerank;
  int32_t has_frame_embeddings;
  int32_t weighs_words; /* the second stage takes a weight for each word */
  double rerank_weight; /* total = cosine + weight * score of the second stage */
} vtr_model_info;
VTR_EXPORT vtr_status *vtr_model_describe(const vtr_model *model, vtr_model_info *info);

/* ---- Text ---- */

/* ids: int32 [count, context_length], zeros behind the end. */
VTR_EXPORT vtr_status *vtr_tokenize(const vtr_model *model, const vtr_string *texts, size_t count, int32_t *ids);
/* The form of a sentence that the tokenizer sees; free it with vtr_free. */
VTR_EXPORT vtr_status *vtr_clean_text(vtr_string text, char **out, size_t *out_size);
/* embeddings: float [count, dim], each of length 1. `cancel` may be NULL, here and below. */
VTR_EXPORT vtr_status *vtr_embed_texts(vtr_model *model, const vtr_string *texts, size_t count, vtr_cancel *cancel,
                                       float *embeddings);
VTR_EXPORT vtr_status *vtr_embed_ids(vtr_model *model, const int32_t *ids, size_t count, size_t length,
                                     vtr_cancel *cancel, float *embeddings);

/* ---- Frames ---- */

/* RGB bytes of the caller's. `row_stride` is in bytes, 0: 3 * width; it may be larger, never negative. */
typedef struct vtr_frame {
  const uint8_t *rgb;
  size_t width;
  size_t height;
  ptrdiff_t row_stride;
} vtr_frame;

/* A clip of 1 to T frames, in the order of time. */
typedef struct vtr_clip {
  const vtr_frame *frames;
  size_t count;
} vtr_clip;

/* Resize and crop as the model was trained with (Pillow's antialiased bicubic): pixels uint8 [S, S, 3]. */
VTR_EXPORT vtr_status *vtr_resize_frame(const vtr_frame *frame, size_t size, uint8_t *pixels);
/* embeddings: float [count, dim]. frame_embeddings: float [count, T, dim], or NULL. Frames of S x S are taken as they
 * stand, without a copy where a clip has all T of them one behind the other. */
VTR_EXPORT vtr_status *vtr_embed_clips(vtr_model *model, const vtr_clip *clips, size_t count, vtr_cancel *cancel,
                                       float *embeddings, float *frame_embeddings);
/* The same for frames of the model's own size: pixels uint8 [count, T, S, S, 3], mask uint8 [count, T] of 0 and 1. */
VTR_EXPORT vtr_status *vtr_embed_pixels(vtr_model *model, const uint8_t *pixels, const uint8_t *mask, size_t count,
                                        vtr_cancel *cancel, float *embeddings, float *frame_embeddings);

/* ---- Videos (where the library was built with FFmpeg: vtr_has_video) ---- */

VTR_EXPORT int32_t vtr_has_video(void);

/* A part of a video in seconds from its first frame; end <= start: to the end. */
typedef struct vtr_window {
  double start;
  double end;
} vtr_window;

/* Frames of a video file: pixels uint8 [T, S, S, 3], mask uint8 [T], times double [T] (NaN where masked). `window` may
 * be NULL: the whole. `warnings`, where not NULL, counts frames that could not be decoded and were replaced. */
VTR_EXPORT vtr_status *vtr_read_video(const vtr_model *model, const char *path, const vtr_window *window,
                                      vtr_cancel *cancel, uint8_t *pixels, uint8_t *mask, double *times,
                                      size_t *warnings);
VTR_EXPORT vtr_status *vtr_embed_video(vtr_model *model, const char *path, const vtr_window *window, vtr_cancel *cancel,
                                       float *embedding, float *frame_embeddings);

/* ---- The second stage ---- */

/* Score `count` candidates of one sentence by the bundle's graph: frame_embeddings float [count, T, dim], mask uint8
 * [count, T] -> scores float [count]. word_weights float [context_length], one for each id of vtr_tokenize: 2 for
 * nouns, verbs and adjectives, else 1, where the bundle weighs words (vtr_model_info.weighs_words); else NULL.
 * VTR_UNAVAILABLE where the bundle has no such graph. */
VTR_EXPORT vtr_status *vtr_rerank(vtr_model *model, vtr_string text, const float *word_weights,
                                  const float *frame_embeddings, const uint8_t *mask, size_t count, vtr_cancel *cancel,
                                  float *scores);

/* ---- Indexes ---- */

typedef struct vtr_index vtr_index;

typedef struct vtr_hit {
  size_t row;
  float score;     /* the cosine */
  vtr_string name; /* the file's path, or the sentence; lives as long as the index; not always UTF-8 */
  double start;    /* seconds; NaN: the whole file */
  double end;
} vtr_hit;

/* Open a .vtri file; its rows are read as they are searched. */
VTR_EXPORT vtr_status *vtr_index_open(const char *path, vtr_index **out);
VTR_EXPORT void vtr_index_close(vtr_index *index);
VTR_EXPORT size_t vtr_index_rows(const vtr_index *index);
VTR_EXPORT size_t vtr_index_dim(const vtr_index *index);
VTR_EXPORT const char *vtr_index_space(const vtr_index *index);
/* The k best rows of each query, exactly: queries float [count, dim] of space `space`, hits [count, k], best first;
 * where the index has fewer rows, the rest has row == SIZE_MAX. VTR_SPACE_ERROR where the spaces differ. */
VTR_EXPORT vtr_status *vtr_index_search(const vtr_index *index, const char *space, const float *queries, size_t count,
                                        size_t k, vtr_cancel *cancel, vtr_hit *hits);

/* The frames' embeddings that an index keeps of a row, for vtr_rerank: float [frames, dim] and mask uint8 [frames]. */
VTR_EXPORT vtr_status *vtr_index_frame_embeddings(const vtr_index *index, size_t row, size_t frames,
                                                  float *frame_embeddings, uint8_t *mask);

/* Free what the library gave to be freed. */
VTR_EXPORT void vtr_free(void *memory);

#ifdef __cplusplus
}
#endif
#endif /* VTR_VTR_H */
