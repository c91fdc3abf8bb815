/* split.h - drawing from logits whose rows are cut over ranks by vocabulary.
 *
 * Most rows are decided by few logits: greedy rows by the best, top_k rows by the k best; their
 * logprobs need the sum of all weights besides.  Every rank finds the best of its part; they are
 * exchanged, merged, and rank 0 draws from them with its sampler.  Rows that need more (penalties,
 * masks, a bias, no small top_k) are gathered whole on rank 0.  All ranks decide alike, from the
 * asks.  Either way results are those, bit for bit, of the backend's sampler on the whole rows.
 * Thread: as a backend. */
#ifndef QUERN_KERNELS_SPLIT_H
#define QUERN_KERNELS_SPLIT_H

#include "kernels/comm.h"

C_BEGIN

enum {
    SPLIT_BEST_MAX = 64,
    SPLIT_BLOCK = 1024 /* logits summed together by every sampler; parts begin at multiples */
};

/* What every rank must know of a row; no pointers, so that it can be sent. */
struct split_ask {
    int32_t n_vocab;
    int32_t n_best; /* so many best logits decide the row; 0: it is needed whole */
    int32_t n_top;  /* sample_row.n_top */
    int32_t forced; /* sample_row.forced */
};

/* The best of one part by (logit, lower id), rising by id; NaN and -inf never count. */
struct split_best {
    int32_t n;
    int32_t id[SPLIT_BEST_MAX];
    float logit[SPLIT_BEST_MAX];
    float forced; /* the forced id's logit if the part holds it, else -inf; NaN is -inf */
};

/* The second question about a row, once the best logit of all is known. */
struct split_point {
    float top;   /* sum e^(x - top) */
    int32_t id;  /* and count what comes before (logit, id); < 0: nobody asks */
    float logit; /* of id */
};

split_ask split_ask_of(const sample_row *row);

typedef struct split_sampler split_sampler;
/* start[world + 1]: where the parts begin; all ranks alike.  Takes memory for max_rows rows. */
split_sampler *split_new(backend *be, const int32_t *start, int max_rows, err *e);
void split_free(split_sampler *s);
size_t split_bytes(int world, int rank, int vocab, int max_rows);

/* part[n, own rows of the vocabulary]; rows[n] on rank 0, NULL elsewhere.  Called by all ranks;
 * results as k_sample's. */
void split_sample(split_sampler *s, tensor part, const split_ask *ask, sample_row *rows, int n);

C_END

#endif
