/* ref_sample.c - owns the executable spec of sample_row: every step a plain loop over the
 * vocabulary, in double.  All other samplers give the same ids.
 *
 *   1 mask      ids >= n_vocab, allow[], ban[], bias <= -100.  If nothing is left the bans are
 *               lifted, and if there still is nothing (allow[] empty) allow[] is too.
 *   2 scores    logit + bias; repetition; presence and frequency
 *   3 greedy    temperature 0: the best score, lowest id on ties; the end
 *   4 weights   exp((score - best) / temperature) of the unmasked
 *   5 top_k     the k best, lower ids first among equals
 *   6 top_p     of those by falling score: up to and with the one where the running sum of weights
 *               reaches top_p of the whole
 *   7 min_p     weight >= min_p times the best weight; the best always stays
 *   8 draw      u in [0,1) times the sum of what is left; walked by rising id
 * A NaN logit counts as -infinity.  Logprobs are of the untouched softmax over [0, n_vocab), whose
 * weights are summed in blocks of SPLIT_BLOCK, then the blocks.
 * Refuses nothing.  Thread: as a backend. */
#include "kernels/backend.h"
#include "kernels/rng.h"
#include "kernels/split.h"

#include <math.h>
#include <stdlib.h>

typedef struct {
    double score;  /* after bias and penalties */
    double weight; /* 0 = cannot be drawn */
    int id;
} candidate;

static double logit_at(const float *logits, int i)
{
    return isnan(logits[i]) ? -INFINITY : (double)logits[i];
}
static bool is_allowed(const sample_row *s, int id)
{
    return !s->allow || (s->allow[id / 32] >> (id % 32) & 1);
}
static int by_score(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}
static int by_id(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}
static bool has_candidate(const bool *may, int n)
{
    for (int i = 0; i < n; i++)
        if (may[i]) return true;
    return false;
}

/* Step 1. */
static void mask(const sample_row *s, bool *may)
{
    for (int i = 0; i < s->n_vocab; i++) may[i] = is_allowed(s, i);
    for (int i = 0; i < s->n_ban; i++)
        if (s->ban[i] >= 0 && s->ban[i] < s->n_vocab) may[s->ban[i]] = false;
    for (int i = 0; i < s->n_bias; i++)
        if (s->bias_id[i] >= 0 && s->bias_id[i] < s->n_vocab && s->bias[i] <= -100)
            may[s->bias_id[i]] = false;
    if (has_candidate(may, s->n_vocab)) return;
    for (int i = 0; i < s->n_vocab; i++) may[i] = is_allowed(s, i);
    if (has_candidate(may, s->n_vocab)) return;
    for (int i = 0; i < s->n_vocab; i++) may[i] = true;
}

/* Step 2.  score[n_vocab] is f32: the operations are those of the wire's vocabulary, in order. */
static void penalise(const sample_row *s, float *score)
{
    for (int i = 0; i < s->n_bias; i++)
        if (s->bias_id[i] >= 0 && s->bias_id[i] < s->n_vocab && s->bias[i] > -100)
            score[s->bias_id[i]] += s->bias[i];
    for (int i = 0; i < s->n_seen; i++) {
        int id = s->seen_id[i];
        if (id < 0 || id >= s->n_vocab) continue;
        if (s->repetition != 1)
            score[id] = score[id] < 0 ? score[id] * s->repetition : score[id] / s->repetition;
        if (s->gen_count[i] > 0) score[id] -= s->presence + s->frequency * (float)s->gen_count[i];
    }
}

/* Steps 5 to 7 on c[n] sorted by score with weights filled; returns how many stay. */
static int truncate_set(const sample_row *s, candidate *c, int n)
{
    if (s->top_k > 0 && n > s->top_k) n = s->top_k;
    if (s->top_p < 1) {
        double total = 0, sum = 0;
        for (int i = 0; i < n; i++) total += c[i].weight;
        int keep = 0;
        while (keep < n && (keep == 0 || sum < (double)s->top_p * total)) sum += c[keep++].weight;
        n = keep;
    }
    int keep = 1;
    while (keep < n && c[keep].weight >= (double)s->min_p * c[0].weight) keep++;
    return keep;
}

/* Steps 3 to 8 on the n unmasked candidates. */
static int draw(const sample_row *s, candidate *c, int n)
{
    qsort(c, (size_t)n, sizeof *c, by_score);
    if (!(s->temperature > 0) || c[0].score == -INFINITY) return c[0].id;
    for (int i = 0; i < n; i++)
        c[i].weight = exp((c[i].score - c[0].score) / (double)s->temperature);
    n = truncate_set(s, c, n);
    qsort(c, (size_t)n, sizeof *c, by_id);
    double total = 0, sum = 0;
    for (int i = 0; i < n; i++) total += c[i].weight;
    double mark = rng_draw(s->seed, s->choice, s->position) * total;
    int last = 0; /* the last of positive weight, should rounding carry the mark to the end */
    for (int i = 0; i < n; i++) {
        if (c[i].weight > 0) last = i;
        sum += c[i].weight;
        if (mark < sum) return c[i].id;
    }
    return c[last].id;
}

/* Weights of block i of logits[n]. */
static double block_sum(const float *logits, int n, int i, double best)
{
    double sum = 0;
    for (int k = i * SPLIT_BLOCK; k < n && k < (i + 1) * SPLIT_BLOCK; k++)
        sum += exp(logit_at(logits, k) - best);
    return sum;
}

/* Logprob and rank of s->id and the n_top best of the untouched softmax.  c[n_vocab] is scratch. */
static void report(sample_row *s, const float *logits, candidate *c)
{
    double best = -INFINITY, sum = 0;
    for (int i = 0; i < s->n_vocab; i++) best = fmax(best, logit_at(logits, i));
    for (int i = 0; best > -INFINITY && i < s->n_vocab; i += SPLIT_BLOCK)
        sum += block_sum(logits, s->n_vocab, i / SPLIT_BLOCK, best);
    for (int i = 0; i < s->n_vocab; i++) c[i] = (candidate){logit_at(logits, i), 0, i};
    double norm = best > -INFINITY ? best + log(sum) : 0;
    qsort(c, (size_t)s->n_vocab, sizeof *c, by_score);
    for (int i = 0; i < s->n_top; i++) {
        s->top_id[i] = i < s->n_vocab ? c[i].id : -1;
        s->top_logprob[i] = i < s->n_vocab ? (float)(c[i].score - norm) : -INFINITY;
    }
    for (int i = 0; i < s->n_vocab; i++)
        if (c[i].id == s->id) {
            s->logprob = (float)(c[i].score - norm);
            s->rank = i + 1;
        }
}

static void sample_one(sample_row *s, const float *logits, candidate *c, float *score, bool *may)
{
    if (s->forced >= 0) s->id = s->forced;
    else {
        for (int i = 0; i < s->n_vocab; i++) score[i] = (float)logit_at(logits, i);
        mask(s, may);
        penalise(s, score);
        int n = 0;
        for (int i = 0; i < s->n_vocab; i++)
            if (may[i]) c[n++] = (candidate){(double)score[i], 0, i};
        s->id = draw(s, c, n);
    }
    s->logprob = 0;
    s->rank = 0;
    if (s->n_top >= 0) report(s, logits, c);
}

void ref_sample(backend *be, tensor logits, sample_row *rows, int n)
{
    size_t cols = (size_t)logits.cols;
    candidate *c = malloc(cols * sizeof *c); /* [cols] each */
    float *score = malloc(cols * sizeof *score);
    bool *may = malloc(cols * sizeof *may);
    if (!c || !score || !may) k_fault(be, "sample", "out of memory for %zu candidates", cols);
    else
        for (int i = 0; i < n; i++) sample_one(&rows[i], tensor_row(logits, i), c, score, may);
    free(c);
    free(score);
    free(may);
}

/* ---- logits cut over ranks ------------------------------------------------------------------ */

static int real_logits(tensor part, int first, const split_ask *a)
{
    int n = a->n_vocab - first;
    return n < 0 ? 0 : n < part.cols ? n : part.cols;
}

void ref_split_best(backend *be, tensor part, int first, const split_ask *ask, int n,
                    split_best *out)
{
    candidate *c = malloc((size_t)part.cols * sizeof *c);
    if (!c) k_fault(be, "sample", "out of memory for %d candidates", part.cols);
    for (int r = 0; r < n; r++) {
        const float *logits = tensor_row(part, r);
        int cols = real_logits(part, first, &ask[r]), m = 0, at = ask[r].forced - first;
        bool own = ask[r].forced >= 0 && at >= 0 && at < cols;
        out[r].n = 0;
        out[r].forced = own ? (float)logit_at(logits, at) : -INFINITY;
        for (int i = 0; c && i < cols; i++)
            if (logit_at(logits, i) > -INFINITY)
                c[m++] = (candidate){logit_at(logits, i), 0, first + i};
        if (!m) continue;
        qsort(c, (size_t)m, sizeof *c, by_score);
        if (m > ask[r].n_best) m = ask[r].n_best;
        qsort(c, (size_t)m, sizeof *c, by_id);
        for (; out[r].n < m; out[r].n++) {
            out[r].id[out[r].n] = c[out[r].n].id;
            out[r].logit[out[r].n] = (float)c[out[r].n].score;
        }
    }
    free(c);
}

void ref_split_mass(backend *be, tensor part, int first, const split_ask *ask,
                    const split_point *at, int n, double *out, int ld)
{
    (void)be;
    for (int r = 0; r < n; r++, out += ld) {
        const float *logits = tensor_row(part, r);
        int cols = real_logits(part, first, &ask[r]);
        for (int i = 0; i < ld; i++) out[i] = 0;
        for (int i = 0; i < cols && at[r].id >= 0; i++) {
            double v = logit_at(logits, i), want = (double)at[r].logit;
            out[0] += v > want || (v == want && first + i < at[r].id);
        }
        for (int i = 0; i < cols; i += SPLIT_BLOCK)
            out[1 + i / SPLIT_BLOCK] = block_sum(logits, cols, i / SPLIT_BLOCK, (double)at[r].top);
    }
}
