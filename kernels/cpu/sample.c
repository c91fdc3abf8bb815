/* sample.c - draws tokens: what ref_sample.c specifies, without sorting the vocabulary.
 *
 * Truncations keep a prefix of the candidates ordered by (score, then lower id), so each is a cut.
 * With a small top_k the cut is searched among few: the k-th best of the maxima of disjoint sets is
 * a bar that at least k scores reach.  Otherwise a radix walk over the bits of the scores finds it,
 * by count or by weight, in at most three passes whatever the logits look like.
 * Up to EXACT_MAX candidates the weights are those of ref (libm in double, summed in its order);
 * beyond, they and their sums differ by 1e-12, so an id can differ from ref's only where the random
 * number falls that close to a border.
 * Rows are work items: bits depend on neither batch nor threads.
 * Refuses nothing: kernels.c checked ranges.  Thread: as a backend. */
#include "kernels/cpu/sample.h"
#include "kernels/rng.h"
#include "kernels/split.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    FAST_K = 512,     /* top_k searched through set maxima */
    EXACT_MAX = 4096, /* candidates weighed by libm: 20 us */
    TOP_MAX = 20
};

/* Of one worker; [cap] is the largest n_vocab seen. */
typedef struct {
    int cap;
    uint32_t *may;    /* [cap / 32 + 1] ids that may be drawn */
    float *score;     /* [cap] masked, biased, penalised logits */
    float *hit;       /* [cap] scores of candidates, by rising id */
    int32_t *id;      /* [cap] their ids */
    double *weight;   /* [cap] their weights */
    float *set;       /* [sample_sets(cap)] */
    float *part;      /* [cap, at least the sets] candidates of the bucket a cut is in */
    int32_t *part_at; /* their places */
    double *block;    /* [sample_blocks(cap)] */
} scratch;

struct sample_work {
    int threads;
    scratch *of; /* [threads] */
};

typedef struct {
    pool_queue queue;
    const sample_ops *op;
    struct sample_work *work;
    tensor logits;
    sample_row *rows;
    int n;
} sample_job;

/* What is known of one row while it is drawn. */
typedef struct {
    const sample_ops *op;
    scratch *w;
    sample_row *s;
    const float *x; /* [n] scores: the logits themselves where nothing changes them */
    int n;
    const uint32_t *may; /* NULL: all */
    float best;
    double total; /* weight of all, where top_p alone truncates */
} drawing;

/* ---- scratch -----------------------------------------------------------------------------------
 */

struct sample_work *sample_work_new(int threads)
{
    struct sample_work *w = calloc(1, sizeof *w);
    if (!w) return NULL;
    w->threads = threads;
    w->of = calloc((size_t)threads, sizeof *w->of);
    if (w->of) return w;
    free(w);
    return NULL;
}

static void scratch_clear(scratch *w)
{
    free(w->may);
    free(w->score);
    free(w->hit);
    free(w->id);
    free(w->weight);
    free(w->set);
    free(w->part);
    free(w->part_at);
    free(w->block);
    *w = (scratch){0};
}

void sample_work_free(struct sample_work *w)
{
    if (!w) return;
    for (int i = 0; i < w->threads; i++) scratch_clear(&w->of[i]);
    free(w->of);
    free(w);
}

/* Grows once, at the first step of a model: the size is known only by its rows.  Memory is touched
 * by the worker that uses it. */
static bool scratch_fit(scratch *w, int n)
{
    if (n <= w->cap) return true;
    scratch_clear(w);
    size_t c = (size_t)n, sets = (size_t)sample_sets(n);
    w->may = malloc((c / 32 + 1) * sizeof *w->may);
    w->score = malloc(c * sizeof *w->score);
    w->hit = malloc(c * sizeof *w->hit);
    w->id = malloc(c * sizeof *w->id);
    w->weight = malloc(c * sizeof *w->weight);
    w->set = malloc(sets * sizeof *w->set);
    w->part = malloc((c > sets ? c : sets) * sizeof *w->part);
    w->part_at = malloc((c > sets ? c : sets) * sizeof *w->part_at);
    w->block = malloc((size_t)sample_blocks(n) * sizeof *w->block);
    if (w->may && w->score && w->hit && w->id && w->weight && w->set && w->part && w->part_at &&
        w->block) {
        w->cap = n;
        return true;
    }
    scratch_clear(w);
    return false;
}

/* ---- cuts --------------------------------------------------------------------------------------
 */

/* The last that a truncation keeps: every higher score, and of this score the places up to `at`. */
typedef struct {
    float score;
    int at;
} cut;

/* Unsigned order of the bits = order of the scores; both zeros are one. */
static uint32_t order_of(float score)
{
    union {
        float f;
        uint32_t u;
    } b = {score + 0.0f};
    return b.u ^ (b.u >> 31 ? 0xffffffffu : 0x80000000u);
}

static float score_of(uint32_t order)
{
    union {
        uint32_t u;
        float f;
    } b = {order ^ (order >> 31 ? 0x80000000u : 0xffffffffu)};
    return b.f;
}

/* The shortest prefix of score[n] (by falling score, then place) that holds max_count or whose
 * mass reaches `goal`; all of them if none does.  n >= 1; mass[n] may be NULL: only the count
 * matters.  part[n] and part_at[n] are scratch. */
static cut find_cut(const float *score, const double *mass, int n, int max_count, double goal,
                    float *part, int32_t *part_at)
{
    static const int shifts[] = {21, 10, 0}, widths[] = {11, 11, 10};
    int count[2048], in = n;
    double sum[2048], have = 0;
    int taken = 0;
    const float *from = score; /* candidates still in question, and their places */
    const int32_t *places = NULL;
    for (int level = 0; level < 3; level++) {
        int shift = shifts[level], buckets = 1 << widths[level];
        memset(count, 0, sizeof *count * (size_t)buckets);
        if (mass) memset(sum, 0, sizeof *sum * (size_t)buckets);
        for (int i = 0; i < in; i++) {
            uint32_t b = order_of(from[i]) >> shift & (uint32_t)(buckets - 1);
            count[b]++;
            if (mass) sum[b] += mass[places ? places[i] : i];
        }
        int b = buckets - 1, lowest = 0;
        while (!count[lowest]) lowest++;
        while (b > lowest && taken + count[b] < max_count && (!mass || have + sum[b] < goal)) {
            taken += count[b];
            have += sum[b--];
        }
        while (!count[b]) b--; /* a goal of 0 stopped above them all */
        int m = 0;
        for (int i = 0; i < in; i++)
            if ((order_of(from[i]) >> shift & (uint32_t)(buckets - 1)) == (uint32_t)b) {
                part[m] = from[i];
                part_at[m++] = places ? places[i] : i;
            }
        from = part;
        places = part_at;
        in = m;
    }
    int i = 0; /* all of one score now */
    for (; i + 1 < in; i++) {
        taken++;
        have += mass ? mass[places[i]] : 0;
        if (taken >= max_count || (mass && have >= goal)) break;
    }
    return (cut){from[i], places[i]};
}

static bool survives(cut c, float score, int at)
{
    return score > c.score || (score == c.score && at <= c.at);
}

/* Drops what a cut over hit[m] does not keep; returns how many stay. */
static int apply_cut(scratch *w, int m, cut c)
{
    int kept = 0;
    for (int i = 0; i < m; i++)
        if (survives(c, w->hit[i], i)) {
            w->hit[kept] = w->hit[i];
            w->id[kept] = w->id[i];
            w->weight[kept++] = w->weight[i];
        }
    return kept;
}

/* The k best of x[n] (fewer if fewer are above -inf) in hit, id by rising id. */
static int collect_best(const sample_ops *op, scratch *w, const float *x, int n, int k)
{
    int sets = sample_sets(n);
    float bar = -FLT_MAX;
    if (k < sets) bar = find_cut(w->set, NULL, sets, k, 0, w->part, w->part_at).score;
    if (!(bar >= -FLT_MAX)) bar = -FLT_MAX;
    int m = op->collect(x, n, bar, k, w->hit, w->id); /* lower ids first among equals */
    if (m > k) m = apply_cut(w, m, find_cut(w->hit, NULL, m, k, 0, w->part, w->part_at));
    return m;
}

/* ---- masks and penalties ------------------------------------------------------------------------
 */

static bool in_vocab(const sample_row *s, int id)
{
    return id >= 0 && id < s->n_vocab;
}

static void allow_all(uint32_t *may, int n)
{
    memset(may, 0xff, (size_t)(n / 32) * sizeof *may);
    if (n % 32) may[n / 32] = (1u << n % 32) - 1;
}

static int first_allowed(const uint32_t *may, int n)
{
    for (int i = 0; i < n; i += 32)
        if (may[i / 32]) return i + __builtin_ctz(may[i / 32]);
    return -1;
}

static void start_mask(const sample_row *s, uint32_t *may)
{
    allow_all(may, s->n_vocab);
    for (int i = 0; s->allow && i < (s->n_vocab + 31) / 32; i++) may[i] &= s->allow[i];
}

/* What leaves nothing is lifted: first the bans, then allow[]. */
static void fill_mask(const sample_row *s, uint32_t *may)
{
    start_mask(s, may);
    for (int i = 0; i < s->n_ban; i++)
        if (in_vocab(s, s->ban[i])) may[s->ban[i] / 32] &= ~(1u << s->ban[i] % 32);
    for (int i = 0; i < s->n_bias; i++)
        if (in_vocab(s, s->bias_id[i]) && s->bias[i] <= -100)
            may[s->bias_id[i] / 32] &= ~(1u << s->bias_id[i] % 32);
    if (first_allowed(may, s->n_vocab) >= 0) return;
    start_mask(s, may);
    if (first_allowed(may, s->n_vocab) < 0) allow_all(may, s->n_vocab);
}

static void penalise(const sample_row *s, float *score)
{
    for (int i = 0; i < s->n_bias; i++)
        if (in_vocab(s, s->bias_id[i]) && s->bias[i] > -100) score[s->bias_id[i]] += s->bias[i];
    for (int i = 0; i < s->n_seen; i++) {
        int id = s->seen_id[i];
        if (!in_vocab(s, id)) continue;
        if (s->repetition != 1)
            score[id] = score[id] < 0 ? score[id] * s->repetition : score[id] / s->repetition;
        if (s->gen_count[i] > 0) score[id] -= s->presence + s->frequency * (float)s->gen_count[i];
    }
}

static void prepare(drawing *d, const float *logits)
{
    sample_row *s = d->s;
    bool penalties = s->n_seen && (s->repetition != 1 || s->presence != 0 || s->frequency != 0);
    d->x = logits;
    d->may = NULL;
    if (!s->allow && !s->n_ban && !s->n_bias && !penalties) return;
    fill_mask(s, d->w->may);
    d->op->mask(d->w->score, logits, d->w->may, d->n);
    penalise(s, d->w->score);
    d->x = d->w->score;
    d->may = d->w->may;
}

/* ---- drawing -----------------------------------------------------------------------------------
 */

static double weight_of(const drawing *d, float score)
{
    return exp(((double)score - (double)d->best) / (double)d->s->temperature);
}

/* The lowest score whose weight is at least min_p (> 0) of the best: weights rise with scores, so
 * bisecting the bits of a float finds it. */
static float min_p_bar(const drawing *d)
{
    double p = (double)d->s->min_p;
    uint32_t low = order_of(-FLT_MAX), high = order_of(d->best);
    if (weight_of(d, score_of(low)) >= p) return score_of(low);
    while (high - low > 1) { /* high qualifies (or is the best), low does not */
        uint32_t mid = low + (high - low) / 2;
        if (weight_of(d, score_of(mid)) >= p) high = mid;
        else low = mid;
    }
    return score_of(high);
}

/* The first id of the best score, which w->set says the block of. */
static int first_best(const drawing *d)
{
    int set = d->op->find(d->w->set, sample_sets(d->n), d->best), from = set / 16 * SAMPLE_BLOCK;
    return from + d->op->find(d->x + from, d->n - from, d->best);
}

/* Walks m candidates by rising id to where u times their total weight falls. */
static int walk(const drawing *d, int m)
{
    const sample_row *s = d->s;
    const double *w = d->w->weight;
    double total = 0, sum = 0;
    for (int i = 0; i < m; i++) total += w[i];
    double mark = rng_draw(s->seed, s->choice, s->position) * total;
    int last = 0; /* the last of positive weight, should rounding carry the mark to the end */
    for (int i = 0; i < m; i++) {
        if (w[i] > 0) last = i;
        sum += w[i];
        if (mark < sum) return d->w->id[i];
    }
    return d->w->id[last];
}

/* Nothing truncates: block sums find the block, libm the id in it. */
static int draw_from_all(const drawing *d)
{
    const sample_row *s = d->s;
    double *block = d->w->block;
    double total = d->op->weights(d->x, d->n, d->best, 1 / (double)s->temperature, NULL, block);
    double mark = rng_draw(s->seed, s->choice, s->position) * total, sum = 0;
    int b = 0, n_blocks = sample_blocks(d->n);
    while (b + 1 < n_blocks && sum + block[b] <= mark) sum += block[b++];
    int last = -1;
    for (int i = b * SAMPLE_BLOCK; i < d->n; i++) {
        if (!(d->x[i] > -INFINITY)) continue; /* NaN too */
        double weight_i = weight_of(d, d->x[i]);
        if (weight_i > 0) last = i;
        sum += weight_i;
        if (mark < sum) return i;
    }
    if (last >= 0) return last;
    return first_best(d);
}

/* Candidates that top_k and top_p can keep, in hit and id; returns how many. */
static int collect_candidates(drawing *d)
{
    const sample_row *s = d->s;
    scratch *w = d->w;
    if (s->top_k > 0 && s->top_k <= FAST_K) return collect_best(d->op, w, d->x, d->n, s->top_k);
    float bar = -FLT_MAX;
    if (s->top_k <= 0 && s->top_p < 1) {
        /* All that weigh less than (1 - p) total / n together weigh less than 1 - p of the total,
         * so the cut is above them; half of it leaves room for rounding. */
        double t = (double)s->temperature;
        d->total = d->op->weights(d->x, d->n, d->best, 1 / t, NULL, NULL);
        double least = 0.5 * (1 - (double)s->top_p) * d->total / d->n;
        bar = (float)((double)d->best + t * log(least < 0.5 ? least : 0.5));
        if (!(bar >= -FLT_MAX)) bar = -FLT_MAX;
    } else if (s->top_k <= 0) {
        bar = min_p_bar(d);
    }
    return d->op->collect(d->x, d->n, bar, d->n, w->hit, w->id);
}

static void weigh(const drawing *d, int m)
{
    scratch *w = d->w;
    if (m > EXACT_MAX)
        d->op->weights(w->hit, m, d->best, 1 / (double)d->s->temperature, w->weight, NULL);
    else
        for (int i = 0; i < m; i++) w->weight[i] = weight_of(d, w->hit[i]);
}

typedef struct {
    float score;
    int at;
} ranked;

static int by_score(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return x->at < y->at ? -1 : 1;
}

/* top_p over hit[m] as ref sums it: by falling score, one after the other. */
static cut exact_top_p(const drawing *d, int m, ranked *r)
{
    double total = 0, sum = 0;
    for (int i = 0; i < m; i++) r[i] = (ranked){d->w->hit[i], i};
    qsort(r, (size_t)m, sizeof *r, by_score);
    for (int i = 0; i < m; i++) total += d->w->weight[r[i].at];
    int keep = 0;
    while (keep < m && (keep == 0 || sum < (double)d->s->top_p * total))
        sum += d->w->weight[r[keep++].at];
    return (cut){r[keep - 1].score, r[keep - 1].at};
}

static int truncate_p(const drawing *d, int m, double total)
{
    scratch *w = d->w;
    double goal = (double)d->s->top_p * total;
    ranked r[FAST_K];
    if (m <= FAST_K && d->s->top_k > 0) return apply_cut(w, m, exact_top_p(d, m, r));
    return apply_cut(w, m, find_cut(w->hit, w->weight, m, m, goal, w->part, w->part_at));
}

static int draw(drawing *d)
{
    const sample_row *s = d->s;
    scratch *w = d->w;
    if (s->top_k <= 0 && s->top_p >= 1 && !(s->min_p > 0)) return draw_from_all(d);
    int m = collect_candidates(d);
    if (s->top_k > FAST_K && m > s->top_k)
        m = apply_cut(w, m, find_cut(w->hit, NULL, m, s->top_k, 0, w->part, w->part_at));
    weigh(d, m);
    if (s->top_p < 1) {
        double total = s->top_k > 0 ? 0 : d->total;
        for (int i = 0; s->top_k > 0 && i < m; i++) total += w->weight[i];
        m = truncate_p(d, m, total);
    }
    if (s->min_p > 1) m = apply_cut(w, m, find_cut(w->hit, NULL, m, 1, 0, w->part, w->part_at));
    else if (s->min_p > 0) m = apply_cut(w, m, (cut){min_p_bar(d), m});
    return walk(d, m);
}

static int choose(drawing *d, const float *logits)
{
    const sample_row *s = d->s;
    prepare(d, logits);
    d->best = d->op->maxima(d->x, d->n, d->w->set);
    if (d->best == -INFINITY) return d->may ? first_allowed(d->may, d->n) : 0;
    if (!(s->temperature > 0)) return first_best(d);
    return draw(d);
}

/* ---- logprobs ----------------------------------------------------------------------------------
 */

static float plain(float logit)
{
    return logit == logit ? logit : -INFINITY;
}

/* Those of x[n] that come before (logit, id); `at` is the place of the id, inside or outside. */
static int count_before(const sample_ops *op, const float *x, int n, float logit, int at)
{
    int lower = at < 0 ? 0 : at < n ? at : n;
    int before = logit > -INFINITY ? op->count(x, lower, logit, true) : lower; /* NaN is -inf */
    return before + op->count(x + lower, n - lower, logit, false);
}

/* 1 + how many come before id. */
static int rank_of(const drawing *d, const float *x, int id)
{
    return 1 + count_before(d->op, x, d->n, plain(x[id]), id);
}

static void report(const drawing *d, const float *x)
{
    sample_row *s = d->s;
    scratch *w = d->w;
    ranked r[TOP_MAX];
    float best = d->op->maxima(x, d->n, w->set);
    double norm = best > -INFINITY ? (double)best + log(d->op->sum_exp(x, d->n, best)) : 0;
    s->logprob = (float)((double)plain(x[s->id]) - norm);
    s->rank = rank_of(d, x, s->id);
    int m = s->n_top ? collect_best(d->op, w, x, d->n, s->n_top) : 0;
    for (int i = 0; i < m; i++) r[i] = (ranked){w->hit[i], w->id[i]};
    qsort(r, (size_t)m, sizeof *r, by_score);
    /* Where fewer are above -inf than asked for, the others follow by id. */
    for (int i = 0; i < d->n && m < s->n_top; i++)
        if (plain(x[i]) == -INFINITY) r[m++] = (ranked){-INFINITY, i};
    for (int i = 0; i < s->n_top; i++) {
        s->top_id[i] = i < m ? r[i].at : -1;
        s->top_logprob[i] = i < m ? (float)((double)r[i].score - norm) : -INFINITY;
    }
}

/* ---- the op ------------------------------------------------------------------------------------
 */

static void sample_rows(void *arg, int id, int n)
{
    (void)n;
    sample_job *j = arg;
    for (int i; (i = pool_take(&j->queue, j->n)) >= 0;) {
        sample_row *s = &j->rows[i];
        drawing d = {.op = j->op, .w = &j->work->of[id], .s = s, .n = s->n_vocab};
        const float *logits = tensor_row(j->logits, i);
        s->id = s->forced >= 0 ? s->forced : choose(&d, logits);
        s->logprob = 0;
        s->rank = 0;
        if (s->n_top >= 0) report(&d, logits);
    }
}

void cpu_sample(backend *be, tensor logits, sample_row *rows, int n)
{
    cpu_state *cpu = cpu_of(be);
    sample_job j = {
        .op = cpu->sample, .work = cpu->sample_work, .logits = logits, .rows = rows, .n = n};
    for (int i = 0; i < j.work->threads; i++)
        if (!scratch_fit(&j.work->of[i], logits.cols)) {
            k_fault(be, "sample", "out of memory for %d candidates", logits.cols);
            return;
        }
    pool_queue_init(&j.queue);
    if (n == 1) pool_run_alone(cpu->pool, sample_rows, &j);
    else pool_run(cpu->pool, sample_rows, &j);
}

/* ---- logits cut over ranks ---------------------------------------------------------------------
 */

typedef struct {
    pool_queue queue;
    const sample_ops *op;
    struct sample_work *work;
    tensor part;
    int first, n;
    const split_ask *ask;
    split_best *best;
    const split_point *at; /* NULL: the best are asked for, else sums and counts */
    double *mass;
    int mass_ld;
} split_job;

/* How many of the part's logits belong to the vocabulary. */
static int real_logits(const split_job *j, const split_ask *a)
{
    int n = a->n_vocab - j->first;
    return n < 0 ? 0 : n < j->part.cols ? n : j->part.cols;
}

static void find_best(const split_job *j, const split_ask *a, scratch *w, const float *x, int n,
                      split_best *out)
{
    int at = a->forced - j->first;
    out->n = 0;
    out->forced = a->forced >= 0 && at >= 0 && at < n ? plain(x[at]) : -INFINITY;
    if (n == 0 || j->op->maxima(x, n, w->set) == -INFINITY) return;
    out->n = collect_best(j->op, w, x, n, a->n_best);
    for (int i = 0; i < out->n; i++) {
        out->id[i] = j->first + w->id[i];
        out->logit[i] = w->hit[i];
    }
}

static void find_mass(const split_job *j, const split_point *p, const float *x, int n, double *out)
{
    out[0] = p->id < 0 ? 0 : count_before(j->op, x, n, p->logit, p->id - j->first);
    for (int i = 0; i < n; i += SAMPLE_BLOCK) {
        int len = n - i < SAMPLE_BLOCK ? n - i : SAMPLE_BLOCK;
        out[1 + i / SAMPLE_BLOCK] = j->op->sum_exp(x + i, len, p->top);
    }
}

static void split_rows(void *arg, int id, int n_workers)
{
    (void)n_workers;
    split_job *j = arg;
    for (int i; (i = pool_take(&j->queue, j->n)) >= 0;) {
        const split_ask *a = &j->ask[i];
        const float *x = tensor_row(j->part, i);
        int n = real_logits(j, a);
        if (!a->n_best) continue;
        if (!j->at) {
            find_best(j, a, &j->work->of[id], x, n, &j->best[i]);
        } else if (a->n_top >= 0) {
            double *out = j->mass + (size_t)i * (size_t)j->mass_ld;
            memset(out, 0, (size_t)j->mass_ld * sizeof *out);
            find_mass(j, &j->at[i], x, n, out);
        }
    }
}

static void run_split(backend *be, split_job *j)
{
    cpu_state *cpu = cpu_of(be);
    j->op = cpu->sample;
    j->work = cpu->sample_work;
    for (int i = 0; i < j->work->threads; i++)
        if (!scratch_fit(&j->work->of[i], j->part.cols)) {
            k_fault(be, "sample", "out of memory for %d candidates", j->part.cols);
            return;
        }
    pool_queue_init(&j->queue);
    if (j->n == 1) pool_run_alone(cpu->pool, split_rows, j);
    else pool_run(cpu->pool, split_rows, j);
}

void cpu_split_best(backend *be, tensor part, int first, const split_ask *ask, int n,
                    split_best *out)
{
    split_job j = {.part = part, .first = first, .n = n, .ask = ask, .best = out};
    for (int i = 0; i < n; i++) out[i].n = 0;
    run_split(be, &j);
}

void cpu_split_mass(backend *be, tensor part, int first, const split_ask *ask,
                    const split_point *at, int n, double *out, int ld)
{
    split_job j = {
        .part = part, .first = first, .n = n, .ask = ask, .at = at, .mass = out, .mass_ld = ld};
    run_split(be, &j);
}
