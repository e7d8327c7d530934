/* A program in C11 on the installed header alone:  plain BUNDLE SENTENCE */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vtr/vtr.h>

static int failed(vtr_status *status) {
  if (status == NULL) return 0;
  fprintf(stderr, "%s\n", vtr_status_message(status));
  vtr_status_free(status);
  return 1;
}

int main(int argc, char **argv) {
  vtr_model *model = NULL;
  vtr_model_info info = {0};
  vtr_string text;
  float *embedding;
  double length = 0;
  if (argc != 3 || vtr_api_version() < VTR_API_VERSION) return 2;
  if (failed(vtr_model_open(argv[1], NULL, &model))) return 1;
  info.struct_size = sizeof(info);
  if (failed(vtr_model_describe(model, &info))) return 1;
  embedding = malloc(info.dim * sizeof(float));
  text.data = argv[2];
  text.size = strlen(argv[2]);
  if (embedding == NULL || failed(vtr_embed_texts(model, &text, 1, NULL, embedding))) return 1;
  for (size_t i = 0; i < info.dim; ++i) length += (double)embedding[i] * embedding[i];
  free(embedding);
  vtr_model_close(model);
  printf("version %s, an embedding of length %.3f\n", vtr_version(), sqrt(length));
  return fabs(length - 1) < 1e-4 ? 0 : 1;
}
