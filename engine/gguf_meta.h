/* gguf_meta.h - the metadata of a GGUF file written from a checkpoint: hyper-parameters, rope,
 * pooling, sampling defaults, tokenizer and chat template.  From a GGUF source everything is copied
 * but what describes the old tensors.
 * Refuses: tokenizers GGUF has no name for (the pre-tokenizer is stored by name there).
 * Thread: the caller's. */
#ifndef QUERN_ENGINE_GGUF_META_H
#define QUERN_ENGINE_GGUF_META_H

#include "config/gguf_write.h"
#include "engine/models/models.h"

/* path: where c was opened, for general.name; file_type: general.file_type of the new tensors;
 * text_end: the token behind every text of an embedding model, or -1. */
int gguf_meta_write(gguf_writer *w, const checkpoint *c, const arch *a, const char *path,
                    int file_type, int32_t text_end, err *e);

/* tokenizer.* keys from a directory's files; a directory without a tokenizer gets none. */
int gguf_meta_tokenizer(gguf_writer *w, const checkpoint *c, int32_t text_end, err *e);

#endif
