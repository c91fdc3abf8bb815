/* kernels.h - the seam between the model and a device: tensors, weights, the batch, the ops.
 *
 * Ops are at the vocabulary of the model; each does what Qwen always does together.  Rules:
 *  - an op returns void and may be asynchronous; the first fault is latched with the op's name and
 *    read at k_sync; a device fault is final.
 *  - no allocation, no host synchronisation and no host-visible result inside an op (k_sample's
 *    results are valid after k_sync).
 *  - callers use the k_* wrappers: they check shapes once for all backends and are the one place
 *    where --trace-ops hooks in.
 *  - bits of an output row depend on that row's inputs and the weights only (the rule of bits):
 *    not on M, on neighbours, on the number of threads or on how work was cut.
 *  - an op is admitted only with its plain version in ref.c, a row in tests/test_ops.c and a line
 *    in docs/ops.md.
 * Thread: a backend is used by one thread at a time (its rank's), which need not be the one that
 * opened it; it runs its own pool inside. */
#ifndef QUERN_KERNELS_KERNELS_H
#define QUERN_KERNELS_KERNELS_H

#include "base/dtype.h"
#include "base/err.h"
#include "base/linkage.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

C_BEGIN

/* ---- values ---------------------------------------------------------------------------------- */

typedef enum {
    ACT_F32, /* float */
    ACT_Q8,  /* cpu only: rows already quantised as records of 32 k (linear_glu -> linear_add) */
    ACT_BF16 /* cuda: every activation but logits and the cos/sin rows */
} act_type;

/* A view, never an owner: rows x cols values, row r at ptr + r * ld elements (not ACT_Q8).  ptr is
 * the backend's: only a backend whose memory is the host's may be read through it. */
typedef struct {
    void *ptr;
    int rows, cols, ld;
    act_type type;
} tensor;

/* Row r of an f32 tensor in host memory. */
static inline float *tensor_row(tensor t, int r)
{
    return (float *)t.ptr + (size_t)r * (size_t)t.ld;
}

/* How the parts of an uploaded weight are joined. */
typedef enum {
    JOIN_ROWS, /* parts stacked: q|k|v, or a single matrix */
    JOIN_GLU /* exactly two parts of equal shape, gate then up, consumed by linear_glu (or, through
                plain linear, as gate rows followed by up rows) */
} weight_join;

/* One matrix as the checkpoint stores it: rows x in, rows of row_bytes bytes, row-major. */
typedef struct {
    const void *data;  /* [rows][row_bytes], borrowed during the upload only */
    int type;          /* dtype */
    int rows;          /* out features of this part */
    const float *bias; /* [rows] or NULL */
} weight_part;

enum { WEIGHT_MAX_SEG = 4 };

/* A linear map y[out] = W[out, in] x[in] + bias.  Uploaded once, then const.  A weight whose parts
 * have different types keeps one segment per run of rows of one type. */
typedef struct {
    int out, in; /* features; `out` is the true row count, storage may be padded */
    weight_join join;
    int n_seg;
    struct {
        int type; /* dtype of the source */
        int row0, rows;
        void *data; /* device layout, owned by the weight */
        size_t bytes;
    } seg[WEIGHT_MAX_SEG];
    float *bias;  /* [out] device, owned, or NULL */
    size_t bytes; /* all device bytes */
    /* An embedding cut over ranks holds rows [row0, row0 + out) of rows_all; 0, 0 where it is
     * whole.  Set after the upload. */
    int row0, rows_all;
} weight;

/* A per-channel vector (norm weights), f32 on the device. */
typedef struct {
    float *v; /* [n] owned */
    int n;
} vec;

typedef enum { KV_F32, KV_F16, KV_BF16, KV_Q8_0 } kv_type;

/* KV pages of one layer of one rank: [n_blocks][kv_heads] blocks of be->kv_block positions, K and
 * V. The inner layout belongs to the backend. */
typedef struct {
    void *data;
    kv_type type;
    int n_blocks, kv_heads, head_dim;
} kv_pages;

/* Hidden states of one sequence that are pooled together: rows first .. first + n of the states of
 * this step are added, in order, to the sum kept at `place`, which starts anew if begin is set. */
typedef struct {
    int32_t first, n, place, begin;
} pool_span;

/* A step as kernels see it; all they ever see of scheduling.  The engine makes one in host memory;
 * k_batch turns it into one whose pointers the ops may follow.  A sequence contributes
 * seq_start[s+1] - seq_start[s] >= 1 rows, in order of position; there is no decode/prefill flag.
 * Where a backend has two attention bodies whose bits differ, the row decides and not the step:
 * positions below n_prompt take the one, generated positions the other, so that a recomputed
 * sequence gets the bits it had at first. */
typedef struct {
    int n_tok, n_seq, n_out;
    int n_state, n_pool; /* rows whose last hidden state is wanted, and what they are pooled into */
    int max_blocks;      /* row length of block_table */
    bool full; /* every row sees all ctx_len positions of its sequence, which is all in this step */
    /* [n_tok] token ids; -1 - j is the id drawn for row j by the k_sample before this step, which
     * the host may not know yet (only after k_mark, with a backend that has `mark`) */
    const int32_t *tok;
    const int32_t *pos;         /* [n_tok] positions */
    const int32_t *slot;        /* [n_tok] block * kv_block + offset, where k and v of the row go */
    const int32_t *seq_start;   /* [n_seq+1] first row of each sequence */
    const int32_t *ctx_len;     /* [n_seq] positions visible to the last row = its position + 1 */
    const int32_t *block_table; /* [n_seq][max_blocks] */
    const int32_t *out_row;     /* [n_out + n_state] rows whose logits are wanted, rising; then the
                                   rows whose states are */
    const pool_span *pool;      /* [n_pool] */
    const int32_t *n_prompt;    /* [n_seq] length of the prompt; NULL: every row is a prompt's */
    int bucket; /* set by k_batch: > 0 names a shape whose pass may be recorded and replayed */
} batch;

/* The largest batch a backend will see. */
typedef struct {
    int max_tok, max_seqs, max_out, max_blocks;
    int max_state; /* hidden states of a step; 0: none are wanted */
    int hidden;    /* their width */
    /* Of the model: what the work space of attention depends on.  0: no attention will be asked
     * for. */
    int heads, kv_heads, head_dim;
} batch_limits;

/* Rotary embedding as a table of frequencies: linear, NTK and YaRN scaling only change the table.
 */
typedef struct {
    int dim;               /* rotated dims of a head, even */
    const float *inv_freq; /* [dim/2] f32, in the backend's memory */
    float scale;           /* cos and sin are multiplied by it (YaRN's attention factor), else 1 */
} rope_spec;

/* What to draw from one row of logits, and the answer.  Order (API G3): mask -> bias -> repetition
 * -> presence, frequency -> temperature -> top_k -> top_p -> min_p -> draw.  Logprobs are of the
 * untouched softmax over rows [0, n_vocab) (G12).  The best unmasked token always survives; where
 * every token is banned the ban is lifted.  Greedy: lowest id on ties. */
typedef struct {
    float temperature;         /* 0 = greedy */
    int top_k;                 /* <= 0 = off */
    float top_p, min_p;        /* 1 and 0 = off */
    float repetition;          /* 1 = off; over all of seen[] (logit < 0: times, else divided) */
    float presence, frequency; /* 0 = off; over seen[] with gen_count > 0 */
    int n_vocab;               /* rows >= n_vocab are padding: never drawn, not in the softmax */
    const uint32_t *allow;     /* [(n_vocab+31)/32] bit set = may be drawn, or NULL */
    int n_ban;
    const int32_t *ban; /* [n_ban] ids never drawn */
    int n_bias;
    const int32_t *bias_id; /* [n_bias] */
    const float *bias;      /* [n_bias]; <= -100 bans */
    int n_seen;
    const int32_t *seen_id;          /* [n_seen] distinct ids of the penalty window */
    const int32_t *gen_count;        /* [n_seen] times generated (0: in the prompt only) */
    uint64_t seed, choice, position; /* key of the counter-based random number */
    int n_top;                       /* top logprobs wanted, 0..20; -1 = no logprobs at all */
    int32_t forced;                  /* >= 0: report this id instead of drawing (prompt logprobs) */
    /* results */
    int32_t id;
    float logprob;      /* of id; 0 when n_top < 0 */
    int rank;           /* 1 = most likely; 0 when n_top < 0 */
    int32_t top_id[20]; /* best first, ties by id */
    float top_logprob[20];
} sample_row;

/* ---- backend --------------------------------------------------------------------------------- */

typedef struct backend backend;
/* Of split.h. */
typedef struct split_ask split_ask;
typedef struct split_best split_best;
typedef struct split_point split_point;

typedef struct {
    const char *name;     /* "auto", "cpu", "ref", "cuda", in the emulated build "cuda-emu" */
    const char *isa;      /* cpu: "auto", "avx512", "avxvnni", "avx2", "portable" */
    int device;           /* cuda: ordinal among the visible devices */
    bool batch_invariant; /* cuda: one body for every number of rows (cpu and ref: always so) */
    bool no_graphs;       /* cuda: run every pass eagerly */
    int threads;          /* 0 = all cores this process may use (affinity and cgroup) */
    bool bf16_repack; /* cpu: BF16/F16 matrices as 14-bit block integers (faster prefill, 3e-8 NMSE)
                       */
    size_t scratch_bytes; /* arena; 0 = grown by k_scratch_reserve */
} backend_options;

typedef struct {
    const char *name;
    /* memory */
    void *(*alloc)(backend *, size_t bytes); /* zeroed, 64-byte aligned, NULL when out */
    void (*release)(backend *, void *p, size_t bytes);
    int (*upload_weight)(backend *, weight *w, const weight_part *parts, int n_parts, int in,
                         weight_join join, err *e);
    void (*release_weight)(backend *, weight *w);
    /* Made-up values instead of parts[].data, the same for the same seed; NULL: k_dummy_weight
     * makes them on the host. */
    int (*dummy_weight)(backend *, weight *w, const weight_part *parts, int n_parts, int in,
                        weight_join join, uint64_t seed, err *e);
    size_t (*weight_bytes)(int type, int64_t rows, int64_t in); /* what upload_weight will take */
    size_t (*kv_block_bytes)(kv_type t, int kv_heads,
                             int head_dim); /* K and V of one block, one layer */
    int (*sync)(backend *, err *e);
    /* Those up to wait may be NULL where the backend's memory is the host's and ops have run when
     * they return (cpu, ref): the wrappers then copy, do nothing, or say "not recorded". */
    void (*upload)(backend *, void *dst, const void *src, size_t bytes); /* src is free on return */
    void (*download)(backend *, void *dst, const void *src, size_t bytes); /* waits */
    int (*batch_reserve)(backend *, const batch_limits *l, err *e);
    void (*batch_upload)(backend *, const batch *host, batch *device);
    uint64_t (*mem_available)(backend *); /* bytes, of the device */
    bool (*replay)(backend *, const batch *b,
                   tensor *logits); /* true: the recorded pass was queued */
    void (*record)(backend *, const batch *b);
    void (*record_end)(backend *, const batch *b, const tensor *logits);
    /* Overlap: mark stands behind all samples queued so far; wait returns when that one is reached
     * and the sample_rows before it are filled.  NULL: k_sample has filled them on return. */
    int (*mark)(backend *);
    int (*wait)(backend *, int mark, err *e);
    /* Collectives on this backend's memory: a comm around host, which closing the result closes;
     * host stays the caller's where this fails.  All ranks call it at the same time.  NULL: host's
     * do. */
    struct comm *(*join)(backend *, struct comm *host, err *e);
    /* Ids the last `sample` drew, int32 [rows], in the backend's memory and in order with the ops;
     * NULL where the host has them at once. */
    void *(*drawn)(backend *);
    /* rows; embed: zeros for a token of another rank's rows */
    void (*embed)(backend *, tensor y, const int32_t *tok, const weight *w);
    void (*gather_rows)(backend *, tensor y, tensor x, const int32_t *row);
    /* math; all f32 in and out unless said */
    void (*linear)(backend *, tensor y, tensor x, const weight *w);
    void (*rms_norm)(backend *, tensor y, tensor x, const vec *w, float eps);
    void (*glu)(backend *, tensor y, tensor gate_up); /* silu(gate) * up; gate_up = [n, 2*ff] */
    void (*add)(backend *, tensor y, tensor x);       /* y += x */
    /* position */
    void (*rope_rows)(backend *, tensor cs, const int32_t *pos, const rope_spec *r);
    void (*rope_store)(backend *, tensor qkv, int heads, int kv_heads, int head_dim,
                       const vec *q_norm, const vec *k_norm, float eps, tensor cs, kv_pages *kv,
                       const batch *b);
    void (*attn_paged)(backend *, tensor o, tensor qkv, int heads, const kv_pages *kv,
                       const batch *b);
    /* y[i, hidden] (f32) = the sum of x's rows over span[i], continued in sum[place][hidden]
     * (double); fetch copies f32 rows to the host, there after sync or wait (NULL: at once). */
    void (*pool)(backend *, tensor y, tensor x, double *sum, const pool_span *span);
    void (*fetch)(backend *, float *dst, tensor y);
    /* optional fusions: NULL = composition in engine/blocks.c; a test proves fused == composed in
     * bits (cpu) or within the op's bound */
    void (*rope_attn)(backend *, tensor o, tensor qkv, int heads, const vec *q_norm,
                      const vec *k_norm, float eps, tensor cs, kv_pages *kv, const batch *b);
    void (*norm_linear)(backend *, tensor y, tensor x, const vec *norm, float eps, const weight *w);
    void (*norm_glu)(backend *, tensor y, tensor x, const vec *norm, float eps, const weight *w);
    void (*linear_add)(backend *, tensor y, tensor x, const weight *w); /* y += W x + bias */
    bool (*glu_out_q8)(const weight *down); /* norm_glu may write ACT_Q8 rows for this consumer */
    /* logits */
    void (*sample)(backend *, tensor logits, sample_row *rows, int n);
    /* A row of logits cut over ranks (split.h); NULL: whole rows go to rank 0. */
    void (*split_best)(backend *, tensor part, int first, const split_ask *ask, int n,
                       split_best *out);
    void (*split_mass)(backend *, tensor part, int first, const split_ask *ask,
                       const split_point *at, int n, double *out, int ld);
} backend_ops;

struct comm;

struct backend {
    const backend_ops *op;
    int kv_block;      /* positions per KV block: cpu 32, cuda 16 */
    act_type act;      /* what k_scratch makes and activations are: f32, on cuda bf16 */
    struct comm *comm; /* the other ranks of this model (kernels/comm.h); NULL = alone.  Borrowed */
    int threads;
    char isa[16];    /* what really runs, for the start-up lines and the fingerprint */
    char device[64]; /* cuda: the name of the GPU; "" on the host's processor */
    bool invariant;  /* one body for every number of rows: the rule of bits holds */
    bool exact_f32;  /* ref */
    /* scratch: a bump arena at a fixed address; same sequence of takes -> same addresses */
    char *scratch;
    size_t scratch_cap, scratch_used, scratch_peak;
    /* fault latch */
    char fault[160]; /* "" = none; "op: what" */
    /* --trace-ops: what to show, and where the forward pass is */
    struct {
        bool on;
        char op[24];           /* "" = every op */
        int layer, step;       /* -1 = every one */
        int at_layer, at_step; /* at_layer -1: outside the layers */
    } trace;
    void *state; /* the backend's own */
};

/* Opens by name.  e says what to change (which option, what this machine has). */
backend *backend_open(const backend_options *o, err *e);
void backend_close(backend *be);
/* Cores this process may use: affinity mask cut by the cgroup's CPU quota; at least 1. */
int backend_cores(void);

/* Scratch: reserve once for the largest step (not inside a step), mark/release around blocks. */
int k_scratch_reserve(backend *be, size_t bytes, err *e);
size_t k_scratch_mark(const backend *be);
void k_scratch_release(backend *be, size_t mark);
/* rows x cols activations of the backend's type, 64-byte aligned rows of at least 16 values.
 * Asserts on overflow of the reserved arena: sizes come from blocks_scratch_bytes, not from
 * requests. */
tensor k_scratch(backend *be, int rows, int cols);
tensor k_scratch_f32(backend *be, int rows, int cols); /* logits, cos/sin rows */
tensor k_scratch_q8(backend *be, int rows, int cols);
void k_fault(backend *be, const char *op, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* --trace-ops OP[,LAYER[,STEP]] ("*" = every one): each matching op's output is summed up on stderr
 * (shape, range, mean square, NaN and infinity counts, first values).  e names what is accepted. */
int k_trace(backend *be, const char *spec, err *e);
/* The pass says where it is: a new step, then each layer (-1 outside). */
void k_trace_step(backend *be);
void k_trace_layer(backend *be, int layer);

/* ---- wrappers -------------------------------------------------------------------------------- */

void *k_alloc(backend *be, size_t bytes);
void k_free(backend *be, void *p, size_t bytes);
int k_upload_weight(backend *be, weight *w, const weight_part *parts, int n_parts, int in,
                    weight_join join, err *e);
/* The same with values made up from seed, about as large as a trained model's: parts[].data is not
 * read, biases are.  For measuring speed; equal on every run, not across backends. */
int k_dummy_weight(backend *be, weight *w, const weight_part *parts, int n_parts, int in,
                   weight_join join, uint64_t seed, err *e);
void k_release_weight(backend *be, weight *w);
int k_upload_vec(backend *be, vec *v, const float *src, int n, err *e);
void k_release_vec(backend *be, vec *v);
/* 0, or ERR_DEVICE with the latched fault. */
int k_sync(backend *be, err *e);
/* Copies into and out of the backend's memory, in order with the ops; download waits for them. */
void k_upload(backend *be, void *dst, const void *src, size_t bytes);
void k_download(backend *be, void *dst, const void *src, size_t bytes);
/* Once, before the first k_batch. */
int k_batch_reserve(backend *be, const batch_limits *l, err *e);
/* The batch as the ops read it: *b itself, or a copy on the device (padded with rows that do
 * nothing up to a recorded shape; then n_tok, n_seq and n_out of the result are larger, within the
 * limits).  Valid until the next but one. */
batch k_batch(backend *be, const batch *b);
/* Bytes that weights and KV may take: of the device, or of this process where that is the host's;
 * 0 if the system does not say. */
uint64_t k_mem_available(backend *be);
/* A pass over a batch with a bucket: replay queues what was recorded for that bucket and sets
 * *logits, or says false; record .. record_end brackets the eager pass that is to be kept. */
bool k_replay(backend *be, const batch *b, tensor *logits);
void k_record(backend *be, const batch *b);
void k_record_end(backend *be, const batch *b, const tensor *logits);
/* Overlap (see backend_ops).  k_can_overlap: k_sample returns before its results are there. */
bool k_can_overlap(const backend *be);
int k_mark(backend *be);
int k_wait(backend *be, int mark, err *e);

/* y[n, in] = rows tok[] of w; the rows of an embedding cut over ranks add up to them. */
void k_embed(backend *be, tensor y, const int32_t *tok, const weight *w);
/* y[i] = x[row[i]]. */
void k_gather_rows(backend *be, tensor y, tensor x, const int32_t *row);
/* y[n, out] = x[n, in] W^T + bias. */
void k_linear(backend *be, tensor y, tensor x, const weight *w);
/* y = x * rsqrt(mean(x^2) + eps) * w, per row. */
void k_rms_norm(backend *be, tensor y, tensor x, const vec *w, float eps);
void k_glu(backend *be, tensor y, tensor gate_up);
void k_add(backend *be, tensor y, tensor x);
/* cs[n, dim]: cos of the dim/2 angles, then sin, times r->scale. */
void k_rope_rows(backend *be, tensor cs, const int32_t *pos, const rope_spec *r);
/* qkv[n, (heads + 2 kv_heads) * head_dim]: per-head RMSNorm of q and k (norms may be NULL), rotate
 * (half-split pairs i, i + dim/2) q in place, write rotated k and v to kv at b->slot. */
void k_rope_store(backend *be, tensor qkv, int heads, int kv_heads, int head_dim, const vec *q_norm,
                  const vec *k_norm, float eps, tensor cs, kv_pages *kv, const batch *b);
/* o[n, heads * head_dim] = softmax(q k^T / sqrt(head_dim)) v over positions <= own; q at the front
 * of qkv's rows.  KV is cut into chunks of 256 absolute positions, folded in order. */
void k_attn_paged(backend *be, tensor o, tensor qkv, int heads, const kv_pages *kv, const batch *b);
/* Fusions with their compositions inside: safe to call on every backend. */
/* k_rope_store, then k_attn_paged. */
void k_rope_attn(backend *be, tensor o, tensor qkv, int heads, const vec *q_norm, const vec *k_norm,
                 float eps, tensor cs, kv_pages *kv, const batch *b);
void k_norm_linear(backend *be, tensor y, tensor x, const vec *norm, float eps, const weight *w);
/* y[n, ff] = glu(W rms_norm(x)), W joined by JOIN_GLU.  y may be ACT_Q8 if k_glu_out_q8(be, down).
 */
void k_norm_glu(backend *be, tensor y, tensor x, const vec *norm, float eps, const weight *w);
bool k_glu_out_q8(const backend *be, const weight *down);
void k_linear_add(backend *be, tensor y, tensor x, const weight *w);
/* y[n, cols] (f32): sums of rows of x, in order, over n spans (in the backend's memory); sum: the
 * backend's memory for the sums under way, double [places][cols]. */
void k_pool(backend *be, tensor y, tensor x, double *sum, const pool_span *span);
/* Copies the rows of an f32 tensor into dst[rows][cols] on the host, where they are after k_sync or
 * after k_wait for a later mark. */
void k_fetch(backend *be, float *dst, tensor y);
/* Draws from logits[>= n, >= n_vocab] (f32); results in rows[] after k_sync, or after k_wait for a
 * later mark.  rows[] must stay until then; what its pointers show is read before the call ends. */
void k_sample(backend *be, tensor logits, sample_row *rows, int n);

/* Over the ranks (comm.h); nothing where be->comm is NULL.
 * be->comm becomes one that works on be's memory; once, by all ranks, before they load. */
int k_join(backend *be, err *e);
/* x becomes the sum over all ranks. */
void k_all_reduce(backend *be, tensor x);
/* The ids rank 0 drew for n rows become every rank's, for tokens -1 - j of the next batch. */
void k_share_drawn(backend *be, int n);

/* Host-side reference conversion of n elements (a multiple of the block) to f32; exact. */
void dequant_row(int type, const void *src, float *dst, int64_t n);
/* The reverse for the types `quern quantize` writes (Q8_0, Q4_0, Q5_0, Q4_K, Q6_K, F16, BF16, F32,
 * Q4_1, Q5_1, Q5_K as fallbacks of the mixes); ERR_UNSUPPORTED for others. */
int quant_row(int type, const float *src, void *dst, int64_t n);

C_END

#endif
