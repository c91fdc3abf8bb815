/* pooling.h - what a checkpoint is for: generating text, embeddings, or judging documents, and how
 * its hidden states become a vector or a score.  Told by its files (sentence-transformers' modules,
 * the class in config.json, the model card's task, GGUF's pooling_type), never by its name, and by
 * the operator's --embeddings and --pooling.
 * Refuses: modules and ways of pooling that are not built, naming them.  Thread: the caller's. */
#ifndef QUERN_CONFIG_POOLING_H
#define QUERN_CONFIG_POOLING_H

#include "base/err.h"
#include "base/json.h"

#include <stdbool.h>
#include <stdint.h>

struct gguf;

typedef enum { POOL_NONE, POOL_LAST, POOL_MEAN, POOL_CLS } pool_kind;

/* Whose rows make a score of the last hidden state. */
typedef enum {
    SCORE_NONE,
    SCORE_WORDS, /* of the output matrix, the tokens "yes" and "no" */
    SCORE_IDS,   /* of the output matrix, yes_id and no_id */
    SCORE_TENSOR /* score.weight, or GGUF's POOL_GGUF_TENSOR: one row, or two */
} score_kind;

#define POOL_GGUF_TENSOR "cls.output.weight"

enum { POOL_MAX_DIMS = 32 };

typedef struct {
    bool generates;  /* it answers chat and completions */
    bool embeds;     /* it answers embeddings: */
    pool_kind kind;  /* which states make the vector */
    bool end_token;  /* the pooled token is <|endoftext|> where the tokenizer's files name none */
    bool matryoshka; /* a beginning of the vector is a vector: */
    int64_t dims[POOL_MAX_DIMS]; /* [n_dims] the lengths it was trained for; none: any from 32 on */
    int n_dims;
    score_kind score; /* it answers rerank and score */
    int64_t yes_id, no_id;
    bool no_first; /* SCORE_TENSOR: the row of "no" comes first */
} pooling;

/* A plain language model. */
pooling pooling_default(void);
/* From the files of a directory whose config.json is given; model_type as model_config has it. */
int pooling_from_dir(pooling *p, const char *dir, const json *config, const char *class_name,
                     const char *model_type, err *e);
/* arch: the file's general.architecture. */
int pooling_from_gguf(pooling *p, const struct gguf *g, const char *arch, err *e);
/* --embeddings and --pooling (auto, mean, last, cls or rank; NULL = auto). */
int pooling_override(pooling *p, bool embeddings, const char *word, err *e);
/* "last", "mean", "cls". */
const char *pooling_word(pool_kind k);

#endif
