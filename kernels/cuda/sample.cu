/* sample.cu - draws tokens on the device: what ref_sample.c specifies.
 *
 * A call packs the parameters and lists of its rows into one pinned block, uploads it with one
 * copy, launches up to five kernels (each only over the rows that need it: raw scan for logprobs of
 * rows whose scores differ, masks and penalties, scan, draw, report) and copies the answers back
 * with one copy.  Two calls may be under way; blocks grow between calls, never while in use.  It is
 * queued behind recorded passes, not recorded.
 *
 * Owns the blocks.  Refuses vocabularies beyond MAX_VOCAB.  Thread: the rank's. */
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/sample_draw.cuh"
#include "kernels/rng.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { IN_FLIGHT = 2, SPARE = 64 << 10 };

/* What a kernel runs over: row numbers, in the upload. */
typedef enum { ON_RAW, ON_PREPARE, ON_SCAN, ON_DRAW, ON_REPORT, N_LISTS } list_name;

/* One call. */
typedef struct {
    sample_row *rows; /* [n] the caller's */
    int n;
    void *in, *in_dev; /* upload: row_job[n], lists, words; [in_bytes] pinned and device */
    size_t in_bytes;
    void *out, *out_dev; /* row_answer[max_rows], row_top[max_rows] */
} call;

struct cuda_sampler {
    int max_rows;
    call calls[IN_FLIGHT];
    int oldest, n_open;
    /* Shared: kernels of one call end before those of the next begin. */
    void *sums; /* scan_sums of raw logits and of scores, for max_rows of n_chunks and n_sets */
    int n_chunks, n_sets;
    uint32_t *masks; /* [mask_words_all] */
    size_t masks_all;
    float *saved; /* [saved_all] */
    size_t saved_all;
};

/* ---- memory --------------------------------------------------------------------------------- */

static size_t out_bytes(int rows)
{
    return (size_t)rows * (sizeof(row_answer) + sizeof(row_top));
}

cuda_sampler *cuda_sampler_open(backend *be, const batch_limits *l, err *e)
{
    if (cuda_need_work(be, 0, l->max_out, e)) return NULL;
    cuda_sampler *s = (cuda_sampler *)calloc(1, sizeof *s);
    bool ok = s != NULL;
    for (int i = 0; ok && i < IN_FLIGHT; i++) {
        s->calls[i].out = cuda_alloc_pinned(be, out_bytes(l->max_out));
        s->calls[i].out_dev = cuda_alloc_raw(be, out_bytes(l->max_out));
        ok = s->calls[i].out && s->calls[i].out_dev;
    }
    if (ok) {
        s->max_rows = l->max_out;
        return s;
    }
    cuda_sampler_close(be, s);
    err_set(e, ERR_NOMEM, "cannot allocate the sampler's results for %d rows", l->max_out);
    return NULL;
}

void cuda_sampler_close(backend *be, cuda_sampler *s)
{
    if (!s) return;
    for (int i = 0; i < IN_FLIGHT; i++) {
        cuda_free_pinned(be, s->calls[i].in);
        cuda_free_raw(be, s->calls[i].in_dev);
        cuda_free_pinned(be, s->calls[i].out);
        cuda_free_raw(be, s->calls[i].out_dev);
    }
    cuda_free_raw(be, s->sums);
    cuda_free_raw(be, s->masks);
    cuda_free_raw(be, s->saved);
    free(s);
}

/* The call is not under way: its last results have been collected. */
static bool fit_upload(backend *be, call *c, size_t bytes)
{
    if (bytes <= c->in_bytes) return true;
    size_t want = bytes + bytes / 2 + SPARE;
    cuda_free_pinned(be, c->in);
    cuda_free_raw(be, c->in_dev);
    c->in = cuda_alloc_pinned(be, want);
    c->in_dev = cuda_alloc_raw(be, want);
    c->in_bytes = c->in && c->in_dev ? want : 0;
    return c->in_bytes != 0;
}

/* Device memory that an earlier call may still use: waits for it, which happens a few times in the
 * life of a sampler. */
static bool fit_shared(backend *be, void **p, size_t *have, size_t count, size_t size)
{
    if (count <= *have) return true;
    cuda_free_raw(be, *p);
    *p = cuda_alloc_raw(be, (count + count / 2) * size);
    *have = *p ? count + count / 2 : 0;
    return *p != NULL;
}

static size_t sums_bytes(int rows, int n_chunks, int n_sets)
{
    size_t line = (size_t)n_chunks * sizeof(chunk_sum) + sizeof(row_sum);
    return (size_t)rows * (line + (size_t)n_sets * sizeof(float));
}

static bool fit_vocab(backend *be, cuda_sampler *s, int cols)
{
    int n_chunks = (cols + CHUNK - 1) / CHUNK, n_sets = n_chunks * SETS_PER_CHUNK;
    if (n_chunks <= s->n_chunks) return true;
    size_t none = 0;
    if (!fit_shared(be, &s->sums, &none, 2 * sums_bytes(s->max_rows, n_chunks, n_sets), 1))
        return false;
    s->n_chunks = n_chunks;
    s->n_sets = n_sets;
    return true;
}

static scan_sums sums_at(const cuda_sampler *s, int which)
{
    char *p = (char *)s->sums + (size_t)which * sums_bytes(s->max_rows, s->n_chunks, s->n_sets);
    size_t rows = (size_t)s->max_rows;
    scan_sums r;
    r.chunk = (chunk_sum *)p;
    r.row = (row_sum *)(p + rows * (size_t)s->n_chunks * sizeof(chunk_sum));
    r.set = (float *)(r.row + rows);
    return r;
}

/* ---- parameters -------------------------------------------------------------------------------
 */

/* The upload being filled, and what the shared memory must hold. */
typedef struct {
    row_job *job;
    int32_t *list[N_LISTS];
    int n_list[N_LISTS];
    int32_t *words;
    size_t n_words, n_saved;
    int n_masks, longest; /* longest: most ids of a row */
} packing;

static bool has_penalties(const sample_row *r)
{
    return r->n_seen > 0 && (r->repetition != 1 || r->presence != 0 || r->frequency != 0);
}
static bool has_mask(const sample_row *r)
{
    bool bans = r->allow || r->n_ban > 0;
    for (int i = 0; !bans && i < r->n_bias; i++) bans = r->bias[i] <= -100;
    return bans;
}
static size_t words_of(const sample_row *r)
{
    if (r->forced >= 0) return 0;
    size_t n = r->allow ? ((size_t)r->n_vocab + 31) / 32 : 0;
    n += (size_t)r->n_ban + 2 * (size_t)r->n_bias;
    return n + (has_penalties(r) ? 2 * (size_t)r->n_seen : 0);
}

static int put_words(packing *p, const void *src, size_t n)
{
    size_t at = p->n_words;
    if (n) memcpy(p->words + at, src, n * sizeof *p->words);
    p->n_words += n;
    return (int)at;
}

static void put_lists(packing *p, row_job *j, const sample_row *r)
{
    j->allow = r->allow ? put_words(p, r->allow, ((size_t)r->n_vocab + 31) / 32) : -1;
    j->n_ban = r->n_ban;
    j->ban = put_words(p, r->ban, (size_t)r->n_ban);
    j->n_bias = r->n_bias;
    j->bias = put_words(p, r->bias_id, (size_t)r->n_bias);
    put_words(p, r->bias, (size_t)r->n_bias);
    j->n_seen = has_penalties(r) ? r->n_seen : 0;
    j->seen = put_words(p, r->seen_id, (size_t)j->n_seen);
    put_words(p, r->gen_count, (size_t)j->n_seen);
    j->repetition = r->repetition;
    j->presence = r->presence;
    j->frequency = r->frequency;
    j->mask = has_mask(r) ? p->n_masks++ : -1;
    j->saved = -1;
    if (r->n_top >= 0 && j->n_bias + j->n_seen > 0) {
        j->saved = (int)p->n_saved;
        p->n_saved += (size_t)j->n_bias + (size_t)j->n_seen;
    }
}

static void put_draw(row_job *j, const sample_row *r)
{
    double temp = (double)r->temperature;
    double scale = 1.4426950408889634074 / temp; /* log2(e) */
    j->temperature = r->temperature;
    j->inv_temp = 1 / temp;
    j->scale[0] = scale < (double)FLT_MAX ? (float)scale : FLT_MAX;
    j->scale[1] = scale < (double)FLT_MAX ? (float)(scale - (double)j->scale[0]) : 0;
    j->top_k = r->top_k > 0 && r->top_k < r->n_vocab ? r->top_k : 0;
    if (r->min_p > 1) j->top_k = 1; /* only the best weighs min_p times its own weight or "stays" */
    j->top_p = r->top_p;
    j->min_gap = r->min_p > 0 && r->min_p <= 1 ? -log((double)r->min_p) * temp : -1;
    j->u = rng_draw(r->seed, r->choice, r->position);
    bool cuts = j->top_k > 0 || j->top_p < 1 || j->min_gap >= 0;
    j->flags |= ROW_DRAWS | (cuts ? ROW_SETS : 0);
    if (j->top_k == 0 && (j->top_p < 1 || !cuts)) j->flags |= ROW_MASS;
}

static void enlist(packing *p, list_name list, int row)
{
    p->list[list][p->n_list[list]++] = row;
}

static void put_row(packing *p, const sample_row *r, int row)
{
    row_job *j = &p->job[row];
    *j = (row_job){};
    j->n = r->n_vocab;
    j->n_top = r->n_top;
    j->forced = r->forced;
    j->mask = j->saved = j->allow = -1;
    j->min_gap = -1;
    if (p->longest < r->n_vocab) p->longest = r->n_vocab;
    bool reports = r->n_top >= 0 || r->forced >= 0;
    if (reports) enlist(p, ON_REPORT, row);
    if (r->forced >= 0) {
        if (r->n_top >= 0) enlist(p, ON_RAW, row);
        return;
    }
    put_lists(p, j, r);
    if (r->temperature > 0) put_draw(j, r);
    bool changed = j->mask >= 0 || j->n_bias > 0 || j->n_seen > 0;
    if (changed) enlist(p, ON_PREPARE, row);
    if (r->n_top >= 0) {
        if (changed || (r->temperature > 0 && r->temperature != 1)) enlist(p, ON_RAW, row);
        else j->flags |= ROW_PLAIN | ROW_SETS | ROW_MASS;
    }
    enlist(p, ON_SCAN, row);
    if (j->flags & ROW_DRAWS) enlist(p, ON_DRAW, row);
}

/* Bytes in front of the words: jobs and lists. */
static size_t head_bytes(int n)
{
    return (size_t)n * (sizeof(row_job) + N_LISTS * sizeof(int32_t));
}

static packing pack(call *c, const sample_row *rows, int n)
{
    packing p = {};
    p.job = (row_job *)c->in;
    for (int l = 0; l < N_LISTS; l++)
        p.list[l] = (int32_t *)((char *)c->in + (size_t)n * sizeof(row_job)) + l * n;
    p.words = (int32_t *)c->in;
    p.n_words = head_bytes(n) / sizeof(int32_t);
    for (int i = 0; i < n; i++) put_row(&p, &rows[i], i);
    return p;
}

/* ---- the op -----------------------------------------------------------------------------------
 */

static sample_args args_of(backend *be, cuda_sampler *s, const call *c, const packing *p,
                           tensor logits)
{
    cuda_state *st = cuda_of(be);
    sample_args a;
    a.logits = (float *)logits.ptr;
    a.ld = logits.ld;
    a.words = (const int32_t *)c->in_dev;
    a.job = (const row_job *)c->in_dev;
    a.masks = s->masks;
    a.mask_words = (p->longest + 31) / 32;
    a.saved = s->saved;
    a.raw = sums_at(s, 0);
    a.score = sums_at(s, 1);
    a.n_chunks = s->n_chunks;
    a.n_sets = s->n_sets;
    a.ticket = st->ticket;
    a.drawn = st->drawn;
    a.answer = (row_answer *)c->out_dev;
    a.top = (row_top *)(a.answer + s->max_rows);
    return a;
}

static void launch(backend *be, const sample_args &a, const call *c, const packing *p)
{
    gpu_stream *stream = cuda_of(be)->stream;
    const int32_t *list[N_LISTS];
    for (int l = 0; l < N_LISTS; l++)
        list[l] = (const int32_t *)c->in_dev + (p->list[l] - (const int32_t *)c->in);
    const int *n = p->n_list;
    unsigned chunks = (unsigned)((p->longest + CHUNK - 1) / CHUNK);
    if (n[ON_RAW])
        GPU_LAUNCH(scan_kernel, dim3(chunks, (unsigned)n[ON_RAW]), dim3(SCAN_THREADS), 0, true,
                   stream, a, list[ON_RAW], true);
    if (n[ON_PREPARE])
        GPU_LAUNCH(prepare_kernel, dim3((unsigned)n[ON_PREPARE]), dim3(SCAN_THREADS), 0, true,
                   stream, a, list[ON_PREPARE]);
    if (n[ON_SCAN])
        GPU_LAUNCH(scan_kernel, dim3(chunks, (unsigned)n[ON_SCAN]), dim3(SCAN_THREADS), 0, true,
                   stream, a, list[ON_SCAN], false);
    if (n[ON_DRAW])
        GPU_LAUNCH(draw_kernel, dim3((unsigned)n[ON_DRAW]), dim3(PICK_THREADS), 0, true, stream, a,
                   list[ON_DRAW]);
    if (n[ON_REPORT])
        GPU_LAUNCH(report_kernel, dim3((unsigned)n[ON_REPORT]), dim3(PICK_THREADS), 0, true, stream,
                   a, list[ON_REPORT]);
}

/* Memory for the call; false: a fault is latched. */
static bool fit(backend *be, cuda_sampler *s, call *c, tensor logits, const sample_row *rows, int n)
{
    size_t words = 0;
    for (int i = 0; i < n; i++) words += words_of(&rows[i]);
    if (logits.cols > MAX_VOCAB) {
        k_fault(be, "sample", "%d logits a row; at most %d are supported", logits.cols, MAX_VOCAB);
        return false;
    }
    if (words < INT32_MAX / 2 && fit_upload(be, c, head_bytes(n) + words * sizeof(int32_t)) &&
        fit_vocab(be, s, logits.cols))
        return true;
    if (!gpu_error(cuda_of(be)->dev)) /* else that is the reason */
        k_fault(be, "sample", "out of memory for %d rows of %d logits with %zu words of lists", n,
                logits.cols, words);
    return false;
}

void cuda_sampler_queue(backend *be, cuda_sampler *s, tensor logits, sample_row *rows, int n)
{
    assert(s->n_open < IN_FLIGHT && n <= s->max_rows);
    call *c = &s->calls[(s->oldest + s->n_open++) % IN_FLIGHT];
    c->rows = rows;
    c->n = 0;
    if (n == 0 || !fit(be, s, c, logits, rows, n)) return;
    gpu_stream *stream = cuda_of(be)->stream;
    packing p = pack(c, rows, n);
    size_t mask_words = ((size_t)p.longest + 31) / 32;
    if (!fit_shared(be, (void **)&s->masks, &s->masks_all, (size_t)p.n_masks * mask_words, 4) ||
        !fit_shared(be, (void **)&s->saved, &s->saved_all, p.n_saved, 4)) {
        if (!gpu_error(cuda_of(be)->dev))
            k_fault(be, "sample", "out of memory for %d masks and %zu saved logits", p.n_masks,
                    p.n_saved);
        return;
    }
    c->n = n;
    gpu_memcpy_async(c->in_dev, c->in, p.n_words * sizeof(int32_t), stream);
    launch(be, args_of(be, s, c, &p, logits), c, &p);
    bool tops = false;
    for (int i = 0; i < n; i++) tops |= rows[i].n_top > 0;
    size_t answers = (size_t)s->max_rows * sizeof(row_answer);
    gpu_memcpy_async(c->out, c->out_dev,
                     tops ? answers + (size_t)n * sizeof(row_top) : (size_t)n * sizeof(row_answer),
                     stream);
}

void cuda_sampler_collect(cuda_sampler *s)
{
    assert(s->n_open > 0);
    call *c = &s->calls[s->oldest];
    s->oldest = (s->oldest + 1) % IN_FLIGHT;
    s->n_open--;
    const row_answer *answer = (const row_answer *)c->out;
    const row_top *top = (const row_top *)(answer + s->max_rows);
    for (int i = 0; i < c->n; i++) {
        sample_row *r = &c->rows[i];
        r->id = answer[i].id;
        r->logprob = answer[i].logprob;
        r->rank = answer[i].rank;
        for (int k = 0; k < r->n_top; k++) {
            r->top_id[k] = top[i].id[k];
            r->top_logprob[k] = top[i].logprob[k];
        }
    }
}
