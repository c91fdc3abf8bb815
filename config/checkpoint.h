/* checkpoint.h - a model on disk, whichever form it has: a Hugging Face directory or a GGUF file.
 * One list of tensors (row-major, outermost dim first, Hugging Face names kept, GGUF names kept:
 * engine/models maps both), one model_config, one tokenizer_source.
 * Thread: const after opening. */
#ifndef QUERN_CONFIG_CHECKPOINT_H
#define QUERN_CONFIG_CHECKPOINT_H

#include "config/gguf.h"
#include "config/model_config.h"
#include "config/safetensors.h"

typedef struct checkpoint checkpoint;

typedef struct {
    const char *name;
    int type; /* dtype, -1 if unreadable */
    const char *type_name;
    int n_dims;
    int64_t dim[4];   /* outermost first: dim[0] rows (out), dim[1] columns (in) */
    const void *data; /* NULL: it has none (checkpoint_set_tensors) */
    size_t bytes;
} ckpt_tensor;

typedef struct {
    bool weights; /* false: vocabulary-only uses (tokenize, render) and config-only plans */
} checkpoint_options;

/* path: a directory, a .gguf file, or the first (any) part of a split set. */
checkpoint *checkpoint_open(const char *path, const checkpoint_options *o, err *e);
void checkpoint_close(checkpoint *c);

bool checkpoint_is_gguf(const checkpoint *c);
const model_config *checkpoint_config(const checkpoint *c); /* NULL if the directory has none */
/* The same, for whoever opened it to apply the operator's options before anyone else looks. */
model_config *checkpoint_config_edit(checkpoint *c);
size_t checkpoint_n_tensors(const checkpoint *c);
const ckpt_tensor *checkpoint_tensor_at(const checkpoint *c, size_t i);
const ckpt_tensor *checkpoint_find(const checkpoint *c, const char *name);
/* The source of t is read; does nothing for one without data. */
void checkpoint_drop(const checkpoint *c, const ckpt_tensor *t);
/* For a checkpoint opened without weights: t[n] become its tensors, without data; names are copied,
 * bytes and type_name filled in from type and dims. */
int checkpoint_set_tensors(checkpoint *c, const ckpt_tensor *t, size_t n, err *e);
const gguf *checkpoint_gguf(const checkpoint *c); /* NULL for a directory */
/* Paths of the text files of a directory, NULL where absent (borrowed). */
typedef struct {
    const char *tokenizer_json, *vocab_json, *merges, *tokenizer_config, *chat_template;
} checkpoint_text;
checkpoint_text checkpoint_text_files(const checkpoint *c);
/* Stem for the served name: V8 ("models--O--N/snapshots/x" -> "O/N", "-00001-of-0000n" dropped). */
void checkpoint_name(const char *path, char *out, size_t n);
/* Bytes of all files. */
uint64_t checkpoint_bytes(const checkpoint *c);

#endif
