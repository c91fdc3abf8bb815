/* fake_runner.h - a pseudo-model that verifies paging (header only: each test is one file).  It
 * keeps one value per KV slot, a hash of the value one position before (read through the block
 * table, as attention would) and the token: a wrong table, slot, position or a foreign prefix
 * changes the value or breaks the chain, and run fails saying where.  Logits are a hash of the
 * value, so what it draws depends on the sequence's tokens alone; fake_value and fake_draw say what
 * that must be. */
#ifndef QUERN_TESTS_FAKE_RUNNER_H
#define QUERN_TESTS_FAKE_RUNNER_H

#include "engine/runner.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    int n_vocab, kv_block, n_blocks;
    int fail_after; /* run number that reports a device fault; 0 = never */
} fake_options;

typedef struct {
    uint64_t value, before; /* of this position and the one before it */
    int32_t pos;            /* -1 = never written */
    int32_t run;            /* number of the run that wrote it */
} fake_slot;

/* Width of a state of the pseudo-model; sequences at once. */
enum { FAKE_HIDDEN = 5, FAKE_PLACES = 64 };

/* Steps a fake runner lets be open at once.  With 2, results come at finish only, and tokens may
 * name a row of the step before. */
static int fake_depth = 1;

static inline void fake_overlap(void)
{
    fake_depth = 2;
}

typedef struct {
    sample_row *to; /* [n] the caller's */
    sample_row *row;
    int n;
    float *sums_to, *sums; /* [n_sums] */
    size_t n_sums;
} fake_results;

typedef struct {
    runner r;
    fake_results open[2]; /* oldest first */
    int n_open;
    int32_t *drawn; /* [n_drawn] by the last step */
    int n_drawn;
    long overlaps; /* steps started while another was open */
    fake_options o;
    fake_slot *kv;                        /* [n_blocks * kv_block] */
    double sum[FAKE_PLACES][FAKE_HIDDEN]; /* states being pooled */
    long rows, runs;
    int max_rows;
} fake_runner;

/* ---- the gate -------------------------------------------------------------------------------- */

/* While it is shut no step begins: what a test does between two is no matter of who is faster. */
static struct {
    pthread_mutex_t mu;
    pthread_cond_t moved;
    bool shut, waiting; /* waiting: a step is about to be run */
    int allowed;        /* steps that may pass a shut gate */
} fake_gate = {.mu = PTHREAD_MUTEX_INITIALIZER, .moved = PTHREAD_COND_INITIALIZER};

static inline void fake_gate_set(bool shut)
{
    pthread_mutex_lock(&fake_gate.mu);
    fake_gate.shut = shut;
    fake_gate.allowed = 0;
    pthread_cond_broadcast(&fake_gate.moved);
    pthread_mutex_unlock(&fake_gate.mu);
}

/* Lets n steps pass the shut gate; returns when another waits behind it, which there must be.  What
 * they brought is out by then, but for the last of steps that overlap. */
static inline void fake_gate_steps(int n)
{
    pthread_mutex_lock(&fake_gate.mu);
    fake_gate.allowed += n;
    pthread_cond_broadcast(&fake_gate.moved);
    while (fake_gate.allowed || !fake_gate.waiting)
        pthread_cond_wait(&fake_gate.moved, &fake_gate.mu);
    pthread_mutex_unlock(&fake_gate.mu);
}

static inline void fake_gate_pass(void)
{
    pthread_mutex_lock(&fake_gate.mu);
    fake_gate.waiting = true;
    pthread_cond_broadcast(&fake_gate.moved);
    while (fake_gate.shut && !fake_gate.allowed) pthread_cond_wait(&fake_gate.moved, &fake_gate.mu);
    if (fake_gate.shut) fake_gate.allowed--;
    fake_gate.waiting = false;
    pthread_mutex_unlock(&fake_gate.mu);
}

/* ---- the model ------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t a, uint64_t b)
{
    uint64_t x = a * 0x9e3779b97f4a7c15u ^ (b + 0x7f4a7c15u) * 0xbf58476d1ce4e5b9u;
    x ^= x >> 29;
    x *= 0x94d049bb133111ebu;
    return x ^ x >> 32;
}

/* State i of a slot that holds value. */
static inline float fake_state(uint64_t value, int i)
{
    return (float)(mix(value, 7000 + (uint64_t)i) >> 40) * 0x1p-23f - 1;
}

/* Value after tok[n]; what a slot holds. */
static inline uint64_t fake_value(const int32_t *tok, int n)
{
    uint64_t v = 1;
    for (int i = 0; i < n; i++) v = mix(v, (uint64_t)tok[i] + 1);
    return v;
}

static float logit(uint64_t value, int id)
{
    return (float)(mix(value, (uint64_t)id) >> 48) / 8192.0f;
}

static bool allowed(const sample_row *w, int id)
{
    if (w->allow && !(w->allow[id / 32] >> (id % 32) & 1)) return false;
    for (int i = 0; i < w->n_ban; i++)
        if (w->ban[i] == id) return false;
    for (int i = 0; i < w->n_bias; i++)
        if (w->bias_id[i] == id && w->bias[i] <= -100.0f) return false;
    return true;
}

static float adjusted(uint64_t value, const sample_row *w, int id)
{
    float l = logit(value, id);
    for (int i = 0; i < w->n_bias; i++)
        if (w->bias_id[i] == id) l += w->bias[i];
    for (int i = 0; i < w->n_seen; i++) {
        if (w->seen_id[i] != id) continue;
        if (w->gen_count[i] >= 0) l = l < 0 ? l * w->repetition : l / w->repetition;
        int n = abs(w->gen_count[i]);
        if (n) l -= w->presence + w->frequency * (float)n;
    }
    return l;
}

static void report(uint64_t value, sample_row *w)
{
    double sum = 0;
    for (int id = 0; id < w->n_vocab; id++) sum += exp((double)logit(value, id));
    float lse = (float)log(sum);
    w->logprob = logit(value, w->id) - lse;
    w->rank = 1;
    for (int id = 0; id < w->n_vocab; id++) w->rank += logit(value, id) > logit(value, w->id);
    for (int k = 0; k < w->n_top; k++) {
        int best = -1;
        for (int id = 0; id < w->n_vocab; id++) {
            bool taken = false;
            for (int j = 0; j < k; j++) taken |= w->top_id[j] == id;
            if (!taken && (best < 0 || logit(value, id) > logit(value, best))) best = id;
        }
        w->top_id[k] = best;
        w->top_logprob[k] = logit(value, best) - lse;
    }
}

/* Fills the results of a row from a value, by the rules of sample_row in plain words. */
static inline void fake_draw(uint64_t value, sample_row *w)
{
    w->id = -1;
    bool any = false;
    for (int id = 0; id < w->n_vocab && !any; id++) any = allowed(w, id);
    if (w->forced >= 0) {
        w->id = w->forced;
    } else if (w->temperature > 0) {
        int n = 0;
        for (int id = 0; id < w->n_vocab; id++) n += !any || allowed(w, id);
        uint64_t key = w->choice * 1000003 + w->position;
        int left = (int)(mix(mix(value, w->seed), key) % (uint64_t)n);
        for (w->id = 0; left || (any && !allowed(w, w->id)); w->id++)
            left -= !any || allowed(w, w->id);
    } else {
        float best = 0;
        for (int id = 0; id < w->n_vocab; id++) {
            if (any && !allowed(w, id)) continue;
            float l = adjusted(value, w, id);
            if (w->id < 0 || l > best) w->id = id, best = l;
        }
    }
    if (w->n_top >= 0) report(value, w);
}

static int32_t slot_of(const fake_runner *f, const batch *b, int s, int pos)
{
    return b->block_table[s * b->max_blocks + pos / f->o.kv_block] * f->o.kv_block +
           pos % f->o.kv_block;
}

/* Everything attention would read for the last row of sequence s. */
static int check_chain(const fake_runner *f, const batch *b, int s, err *e)
{
    uint64_t before = 1;
    for (int p = 0; p < b->ctx_len[s]; p++) {
        int32_t at = slot_of(f, b, s, p);
        if (at < 0 || at >= f->o.n_blocks * f->o.kv_block)
            return err_set(e, ERR_DEVICE, "sequence %d: slot %d of position %d is out of range", s,
                           at, p);
        if (f->kv[at].pos != p || f->kv[at].before != before)
            return err_set(e, ERR_DEVICE,
                           "sequence %d: slot %d holds position %d of another text, not %d", s, at,
                           f->kv[at].pos, p);
        before = f->kv[at].value;
    }
    return 0;
}

static int run_seq(fake_runner *f, const batch *b, int s, err *e)
{
    int r0 = b->seq_start[s], r1 = b->seq_start[s + 1];
    if (r1 <= r0) return err_set(e, ERR_DEVICE, "sequence %d has no rows", s);
    if (b->pos[r1 - 1] + 1 != b->ctx_len[s])
        return err_set(e, ERR_DEVICE, "sequence %d: wrong ctx_len", s);
    for (int r = r0; r < r1; r++) {
        int p = b->pos[r];
        if (p != b->pos[r0] + r - r0) return err_set(e, ERR_DEVICE, "row %d: position %d", r, p);
        int32_t tok = b->tok[r];
        if (tok < 0 && f->r.depth > 1 && -1 - tok < f->n_drawn) tok = f->drawn[-1 - tok];
        if (tok < 0 || tok >= f->o.n_vocab)
            return err_set(e, ERR_DEVICE, "row %d: token %d", r, b->tok[r]);
        if (b->slot[r] != slot_of(f, b, s, p))
            return err_set(e, ERR_DEVICE, "row %d: slot is not in the table", r);
        fake_slot *at = &f->kv[b->slot[r]];
        if (at->run == (int32_t)f->runs)
            return err_set(e, ERR_DEVICE, "slot %d is written twice", b->slot[r]);
        uint64_t before = p ? f->kv[slot_of(f, b, s, p - 1)].value : 1;
        *at = (fake_slot){.value = mix(before, (uint64_t)tok + 1),
                          .before = before,
                          .pos = p,
                          .run = (int32_t)f->runs};
    }
    return 0;
}

/* The sums of states that the batch asks for. */
static int fake_pool(fake_runner *f, const batch *b, float *pooled, err *e)
{
    int used = 0;
    for (int i = 0; i < b->n_pool; i++) {
        const pool_span *p = &b->pool[i];
        if (p->place < 0 || p->place >= FAKE_PLACES || p->first != used)
            return err_set(e, ERR_DEVICE, "span %d: rows %d of place %d", i, p->first, p->place);
        used += p->n;
        double *s = f->sum[p->place];
        if (p->begin) memset(s, 0, sizeof f->sum[0]);
        for (int k = 0; k < p->n; k++) {
            uint64_t value = f->kv[b->slot[b->out_row[b->n_out + p->first + k]]].value;
            for (int h = 0; h < FAKE_HIDDEN; h++) s[h] += (double)fake_state(value, h);
        }
        for (int h = 0; h < FAKE_HIDDEN; h++) pooled[i * FAKE_HIDDEN + h] = (float)s[h];
    }
    return used == b->n_state ? 0 : err_set(e, ERR_DEVICE, "%d states, %d used", b->n_state, used);
}

static int fake_run(runner *r, const batch *b, sample_row *row, float *pooled, err *e)
{
    fake_runner *f = (fake_runner *)r;
    f->runs++;
    f->rows += b->n_tok;
    if (b->n_tok > f->max_rows) f->max_rows = b->n_tok;
    fake_gate_pass();
    if (f->o.fail_after && f->runs >= f->o.fail_after) return err_set(e, ERR_DEVICE, "fake fault");
    for (int s = 0; s < b->n_seq; s++) {
        int rc = run_seq(f, b, s, e);
        if (rc) return rc;
    }
    for (int s = 0; s < b->n_seq; s++) {
        int rc = check_chain(f, b, s, e);
        if (rc) return rc;
    }
    for (int i = 0; i < b->n_out; i++) {
        if (i && b->out_row[i] <= b->out_row[i - 1])
            return err_set(e, ERR_DEVICE, "out rows do not rise");
        fake_draw(f->kv[b->slot[b->out_row[i]]].value, &row[i]);
    }
    return fake_pool(f, b, pooled, e);
}

/* What a device does: the rows are read now, their results are there when it is done. */
static int fake_start(runner *r, const batch *b, sample_row *row, float *pooled, err *e)
{
    fake_runner *f = (fake_runner *)r;
    size_t n = (size_t)b->n_out;
    if (f->n_open == r->depth) return err_set(e, ERR_DEVICE, "a third step is started");
    f->overlaps += f->n_open;
    sample_row *copy = malloc((n + 1) * sizeof *copy);
    if (!copy) abort();
    if (n) memcpy(copy, row, n * sizeof *copy);
    size_t sums = (size_t)b->n_pool * FAKE_HIDDEN;
    float *later = calloc(sums + 1, sizeof *later);
    if (!later) abort();
    int rc = fake_run(r, b, copy, later, e);
    for (size_t i = 0; i < sums; i++) pooled[i] = NAN;
    free(f->drawn);
    f->drawn = malloc((n + 1) * sizeof *f->drawn);
    if (!f->drawn) abort();
    for (size_t i = 0; i < n; i++) {
        f->drawn[i] = copy[i].id;
        copy[i].allow = NULL;
        copy[i].ban = copy[i].bias_id = copy[i].seen_id = copy[i].gen_count = NULL;
        copy[i].bias = NULL;
        row[i].id = -77;
    }
    f->n_drawn = b->n_out;
    f->open[f->n_open++] = (fake_results){row, copy, b->n_out, pooled, later, sums};
    return rc;
}

static int fake_finish(runner *r, err *e)
{
    fake_runner *f = (fake_runner *)r;
    if (!f->n_open) return err_set(e, ERR_DEVICE, "no step is open");
    fake_results done = f->open[0];
    f->open[0] = f->open[1];
    f->n_open--;
    if (done.n) memcpy(done.to, done.row, (size_t)done.n * sizeof *done.to);
    if (done.n_sums) memcpy(done.sums_to, done.sums, done.n_sums * sizeof *done.sums);
    free(done.row);
    free(done.sums);
    return 0;
}

static void fake_close(runner *r)
{
    fake_runner *f = (fake_runner *)r;
    for (int i = 0; i < f->n_open; i++) {
        free(f->open[i].row);
        free(f->open[i].sums);
    }
    free(f->drawn);
    free(f->kv);
    free(f);
}

static inline runner *fake_runner_new(const fake_options *o)
{
    fake_runner *f = calloc(1, sizeof *f);
    size_t n = (size_t)o->n_blocks * (size_t)o->kv_block;
    if (f) f->kv = malloc(n * sizeof *f->kv);
    if (!f || !f->kv) abort();
    for (size_t i = 0; i < n; i++) f->kv[i] = (fake_slot){.pos = -1, .run = -1};
    f->o = *o;
    f->r = (runner){.depth = 1, .start = fake_run, .close = fake_close};
    if (fake_depth > 1) f->r = (runner){fake_depth, fake_start, fake_finish, fake_close};
    return &f->r;
}

/* Rows computed, steps run, largest step so far. */
static inline void fake_runner_counts(const runner *r, long *rows, long *runs, int *max_rows)
{
    const fake_runner *f = (const fake_runner *)r;
    *rows = f->rows;
    *runs = f->runs;
    *max_rows = f->max_rows;
}

static inline long fake_runner_overlaps(const runner *r)
{
    return ((const fake_runner *)r)->overlaps;
}

#endif
