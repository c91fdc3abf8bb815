/* sampling.c - owns copies of a request's sampling parameters and the counters of penalties.
 * Refuses: ids outside the vocabulary, empty stop strings and banned words.
 * Thread: see sampling.h. */
#include "engine/sampling.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- the vocabulary by bytes ----------------------------------------------------------------- */

static int by_bytes(const void *a, const void *b, void *tok)
{
    size_t n, m;
    const char *x = tokenizer_piece(tok, *(const int32_t *)a, &n);
    const char *y = tokenizer_piece(tok, *(const int32_t *)b, &m);
    int c = memcmp(x, y, n < m ? n : m);
    if (c) return c;
    return n < m ? -1 : n > m;
}

int vocab_order_init(vocab_order *v, const tokenizer *t, int n_vocab)
{
    v->n = 0;
    v->id = malloc((size_t)n_vocab * sizeof *v->id);
    if (!v->id) return ERR_NOMEM;
    for (int32_t i = 0; i < n_vocab; i++) {
        size_t n;
        if (tokenizer_piece(t, i, &n) && n > 0) v->id[v->n++] = i;
    }
    qsort_r(v->id, (size_t)v->n, sizeof *v->id, by_bytes, (void *)t);
    return 0;
}

void vocab_order_clear(vocab_order *v)
{
    free(v->id);
    *v = (vocab_order){0};
}

/* First place whose token, cut to n bytes, is not below (above = false) or is above s[n]. */
static int bound(const vocab_order *v, const tokenizer *t, const char *s, size_t n, bool above)
{
    int lo = 0, hi = v->n;
    while (lo < hi) {
        int mid = lo + (hi - lo) / 2;
        size_t m;
        const char *p = tokenizer_piece(t, v->id[mid], &m);
        int c = memcmp(p, s, m < n ? m : n);
        if (c == 0 && m < n) c = -1;
        if (c < 0 || (above && c == 0)) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

/* ---- the plan -------------------------------------------------------------------------------- */

static bool among(const int32_t *v, int n, int32_t id)
{
    for (int i = 0; i < n; i++)
        if (v[i] == id) return true;
    return false;
}

bool sample_plan_is_end(const sample_plan *p, int32_t id)
{
    return among(p->base->end_id, p->base->n_end, id) || among(p->end_id, p->s.n_end, id);
}

bool sample_plan_is_stop_id(const sample_plan *p, int32_t id)
{
    return among(p->stop_id, p->s.n_stop_id, id);
}

static int check_ids(const int32_t *id, int n, int n_vocab, const char *what, err *e)
{
    for (int i = 0; i < n; i++)
        if (id[i] < 0 || id[i] >= n_vocab)
            return err_set(e, ERR_INVALID, "'%s' holds token id %d, the vocabulary has ids 0 to %d",
                           what, id[i], n_vocab - 1);
    return 0;
}

static int copy_word(sample_word *w, const char *text, size_t n, const char *what, err *e)
{
    if (n == 0) return err_set(e, ERR_INVALID, "'%s' must not hold an empty string", what);
    w->text = malloc(n);
    if (!w->text) return err_set(e, ERR_NOMEM, "out of memory");
    memcpy(w->text, text, n);
    w->n = n;
    return 0;
}

/* malloc of n elements that is never NULL for want of elements. */
static void *array(int n, size_t size)
{
    return calloc((size_t)n + 1, size);
}

static int copy_stops(sample_plan *p, const sampling *s, err *e)
{
    p->stop = array(s->n_stop, sizeof *p->stop);
    p->stop_text = array(s->n_stop, sizeof *p->stop_text);
    p->stop_len = array(s->n_stop, sizeof *p->stop_len);
    p->stop_id = array(s->n_stop_id, sizeof *p->stop_id);
    p->end_id = array(s->n_end, sizeof *p->end_id);
    if (!p->stop || !p->stop_text || !p->stop_len || !p->stop_id || !p->end_id)
        return err_set(e, ERR_NOMEM, "out of memory");
    for (int i = 0; i < s->n_stop; i++) {
        int rc = copy_word(&p->stop[i], s->stop[i], s->stop_len[i], "stop", e);
        if (rc) return rc;
        p->stop_text[i] = p->stop[i].text;
        p->stop_len[i] = p->stop[i].n;
    }
    if (s->n_stop_id) memcpy(p->stop_id, s->stop_id, (size_t)s->n_stop_id * sizeof *p->stop_id);
    if (s->n_end) memcpy(p->end_id, s->end_id, (size_t)s->n_end * sizeof *p->end_id);
    p->s.stop = p->stop_text;
    p->s.stop_len = p->stop_len;
    p->s.stop_id = p->stop_id;
    p->s.end_id = p->end_id;
    int rc = check_ids(s->end_id, s->n_end, p->base->n_vocab, "end tokens", e);
    return rc ? rc : check_ids(s->stop_id, s->n_stop_id, p->base->n_vocab, "stop_token_ids", e);
}

typedef struct {
    int32_t id;
    int place;
    float bias;
} bias_entry;

static int by_id_place(const void *a, const void *b)
{
    const bias_entry *x = a, *y = b;
    if (x->id != y->id) return x->id < y->id ? -1 : 1;
    return x->place - y->place;
}

/* Sorted by id; of equal ids the last one given counts, as with JSON members. */
static int copy_bias(sample_plan *p, const sampling *s, err *e)
{
    int rc = check_ids(s->bias_id, s->n_bias, p->base->n_vocab, "logit_bias", e);
    if (rc) return rc;
    p->bias_id = array(s->n_bias, sizeof *p->bias_id);
    p->bias = array(s->n_bias, sizeof *p->bias);
    bias_entry *t = array(s->n_bias, sizeof *t);
    if (!p->bias_id || !p->bias || !t) {
        free(t);
        return err_set(e, ERR_NOMEM, "out of memory");
    }
    for (int i = 0; i < s->n_bias; i++) t[i] = (bias_entry){s->bias_id[i], i, s->bias[i]};
    qsort(t, (size_t)s->n_bias, sizeof *t, by_id_place);
    int n = 0;
    for (int i = 0; i < s->n_bias; i++) {
        if (i + 1 < s->n_bias && t[i + 1].id == t[i].id) continue;
        p->bias_id[n] = t[i].id;
        p->bias[n++] = t[i].bias;
    }
    free(t);
    p->s.n_bias = n;
    p->s.bias_id = p->bias_id;
    p->s.bias = p->bias;
    return 0;
}

static int copy_allowed(sample_plan *p, const sampling *s, err *e)
{
    p->s.allowed = NULL;
    if (s->n_allowed == 0) return 0;
    int rc = check_ids(s->allowed, s->n_allowed, p->base->n_vocab, "allowed_token_ids", e);
    if (rc) return rc;
    p->allow = calloc(((size_t)p->base->n_vocab + 31) / 32, sizeof *p->allow);
    if (!p->allow) return err_set(e, ERR_NOMEM, "out of memory");
    for (int i = 0; i < s->n_allowed; i++)
        p->allow[s->allowed[i] / 32] |= 1u << (s->allowed[i] % 32);
    return 0;
}

/* Bytes the token adds to the text a client sees. */
static const char *visible(const sample_plan *p, int32_t id, size_t *n)
{
    const char *text = tokenizer_piece(p->base->tok, id, n);
    if (!text || (tokenizer_is_special(p->base->tok, id) && !p->s.keep_special)) *n = 0;
    return text;
}

static bool holds_bad(const sample_plan *p, const char *text, size_t n)
{
    for (int i = 0; i < p->s.n_bad_word; i++)
        if (n >= p->bad[i].n && memmem(text, n, p->bad[i].text, p->bad[i].n)) return true;
    return false;
}

static int copy_bad_words(sample_plan *p, const sampling *s, err *e)
{
    p->s.bad_word = NULL;
    if (s->n_bad_word == 0) return 0;
    if (!p->base->tok) return err_set(e, ERR_INVALID, "'bad_words' needs a tokenizer");
    p->bad = array(s->n_bad_word, sizeof *p->bad);
    if (!p->bad) return err_set(e, ERR_NOMEM, "out of memory");
    for (int i = 0; i < s->n_bad_word; i++) {
        int rc = copy_word(&p->bad[i], s->bad_word[i], strlen(s->bad_word[i]), "bad_words", e);
        if (rc) return rc;
        if (p->bad[i].n > p->longest_bad) p->longest_bad = p->bad[i].n;
    }
    int n = 0;
    int32_t *list = array(p->base->n_vocab, sizeof *list);
    if (!list) return err_set(e, ERR_NOMEM, "out of memory");
    for (int32_t id = 0; id < p->base->n_vocab; id++) {
        size_t len;
        const char *text = visible(p, id, &len);
        if (len && holds_bad(p, text, len)) list[n++] = id;
    }
    p->n_holds_bad = n;
    int32_t *fit = realloc(list, ((size_t)n + 1) * sizeof *list);
    p->holds_bad = fit ? fit : list;
    return 0;
}

int sample_plan_init(sample_plan *p, const sampling *s, const sampling_base *base, err *e)
{
    *p = (sample_plan){.s = *s, .base = base};
    int rc = copy_stops(p, s, e);
    if (!rc) rc = copy_bias(p, s, e);
    if (!rc) rc = copy_allowed(p, s, e);
    if (!rc) rc = copy_bad_words(p, s, e);
    if (rc) sample_plan_clear(p);
    return rc;
}

void sample_plan_clear(sample_plan *p)
{
    for (int i = 0; p->stop && i < p->s.n_stop; i++) free(p->stop[i].text);
    for (int i = 0; p->bad && i < p->s.n_bad_word; i++) free(p->bad[i].text);
    free(p->stop);
    free(p->stop_text);
    free(p->stop_len);
    free(p->stop_id);
    free(p->end_id);
    free(p->bias_id);
    free(p->bias);
    free(p->allow);
    free(p->bad);
    free(p->holds_bad);
    *p = (sample_plan){0};
}

/* ---- counters of the penalties --------------------------------------------------------------- */

static bool has_repetition(const sampling *s)
{
    return s->repetition != 1 && s->repeat_last_n != 0;
}

static bool has_presence(const sampling *s)
{
    return s->presence != 0 || s->frequency != 0;
}

static size_t home(const sampler *m, int32_t id)
{
    return ((uint32_t)id * 2654435761u) & (m->n_table - 1);
}

static void table_put(sampler *m, int index)
{
    size_t at = home(m, m->id[index]);
    while (m->table[at]) at = (at + 1) & (m->n_table - 1);
    m->table[at] = index + 1;
}

static int grow(sampler *m)
{
    int cap = m->cap ? m->cap * 2 : 64;
    int32_t *id = realloc(m->id, (size_t)cap * sizeof *id);
    if (id) m->id = id;
    int32_t *in = realloc(m->in_window, (size_t)cap * sizeof *in);
    if (in) m->in_window = in;
    int32_t *made = realloc(m->generated, (size_t)cap * sizeof *made);
    if (made) m->generated = made;
    size_t n_table = (size_t)cap * 2;
    int32_t *table = calloc(n_table, sizeof *table);
    if (!id || !in || !made || !table) {
        free(table);
        return ERR_NOMEM;
    }
    free(m->table);
    m->table = table;
    m->n_table = n_table;
    m->cap = cap;
    for (int i = 0; i < m->n; i++) table_put(m, i);
    return 0;
}

/* Index of id, entering it if need be; negative when out of memory. */
static int entry(sampler *m, int32_t id)
{
    if (m->n == m->cap && grow(m)) return ERR_NOMEM;
    for (size_t at = home(m, id); m->table[at]; at = (at + 1) & (m->n_table - 1))
        if (m->id[m->table[at] - 1] == id) return m->table[at] - 1;
    m->id[m->n] = id;
    m->in_window[m->n] = m->generated[m->n] = 0;
    table_put(m, m->n);
    return m->n++;
}

/* Token i of q enters the window; the one that falls out of its other end leaves. */
static int count(sampler *m, const seq *q, int i)
{
    const sampling *s = &m->plan->s;
    bool made = i >= q->n_prompt && has_presence(s);
    if (!has_repetition(s) && !made) return 0;
    int k = entry(m, seq_tok(q, i));
    if (k < 0) return k;
    m->generated[k] += made;
    if (!has_repetition(s)) return 0;
    m->in_window[k]++;
    if (s->repeat_last_n < 0 || i < s->repeat_last_n) return 0;
    int old = entry(m, seq_tok(q, i - (int)s->repeat_last_n));
    if (old < 0) return old;
    assert(m->in_window[old] > 0);
    m->in_window[old]--;
    return 0;
}

int sampler_init(sampler *m, const sample_plan *p, const seq *q)
{
    *m = (sampler){.plan = p};
    if (p->longest_bad && !(m->tail = malloc(p->longest_bad))) return ERR_NOMEM;
    if (!has_repetition(&p->s)) return 0;
    for (int i = 0; i < q->n_prompt; i++) {
        int rc = count(m, q, i);
        if (rc) {
            sampler_clear(m);
            return rc;
        }
    }
    return 0;
}

void sampler_clear(sampler *m)
{
    free(m->id);
    free(m->in_window);
    free(m->generated);
    free(m->table);
    free(m->ban);
    free(m->seen_id);
    free(m->seen_count);
    free(m->bias_id);
    free(m->bias);
    free(m->tail);
    *m = (sampler){0};
}

/* ---- rows ------------------------------------------------------------------------------------ */

static int ban(sampler *m, const int32_t *id, int n)
{
    if (m->n_ban + n > m->cap_ban) {
        int cap = (m->n_ban + n) * 2;
        int32_t *v = realloc(m->ban, (size_t)cap * sizeof *v);
        if (!v) return ERR_NOMEM;
        m->ban = v;
        m->cap_ban = cap;
    }
    if (n) memcpy(m->ban + m->n_ban, id, (size_t)n * sizeof *id);
    m->n_ban += n;
    return 0;
}

/* Tokens that start with the last bytes of a banned word whose first bytes end the answer. */
static int ban_completions(sampler *m, const sample_word *w)
{
    const sampling_base *b = m->plan->base;
    for (size_t k = 1; k < w->n && k <= m->n_tail; k++) {
        if (memcmp(m->tail + m->n_tail - k, w->text, k) != 0) continue;
        int lo = bound(b->order, b->tok, w->text + k, w->n - k, false);
        int hi = bound(b->order, b->tok, w->text + k, w->n - k, true);
        for (int i = lo; i < hi; i++) {
            int32_t id = b->order->id[i];
            if (tokenizer_is_special(b->tok, id) && !m->plan->s.keep_special) continue;
            int rc = ban(m, &id, 1);
            if (rc) return rc;
        }
    }
    return 0;
}

/* n_gen: tokens generated before the one to draw. */
static int fill_bans(sampler *m, int n_gen, bool answering)
{
    const sample_plan *p = m->plan;
    bool early = n_gen < p->s.min_tokens;
    m->n_ban = 0;
    int rc = 0;
    if (early || p->s.ignore_eos) rc = ban(m, p->base->end_id, p->base->n_end);
    if (!rc && (early || p->s.ignore_eos)) rc = ban(m, p->end_id, p->s.n_end);
    if (!rc && early) rc = ban(m, p->stop_id, p->s.n_stop_id);
    if (!answering || !p->longest_bad) return rc;
    if (!rc) rc = ban(m, p->holds_bad, p->n_holds_bad);
    for (int i = 0; i < p->s.n_bad_word && !rc; i++) rc = ban_completions(m, &p->bad[i]);
    return rc;
}

static int reserve_seen(sampler *m)
{
    int cap = m->n + m->plan->s.n_bias;
    if (cap <= m->cap_seen) return 0;
    cap *= 2;
    int32_t *id = realloc(m->seen_id, (size_t)cap * sizeof *id);
    if (id) m->seen_id = id;
    int32_t *n = realloc(m->seen_count, (size_t)cap * sizeof *n);
    if (n) m->seen_count = n;
    int32_t *bias_id = realloc(m->bias_id, (size_t)cap * sizeof *bias_id);
    if (bias_id) m->bias_id = bias_id;
    float *bias = realloc(m->bias, (size_t)cap * sizeof *bias);
    if (bias) m->bias = bias;
    if (!id || !n || !bias_id || !bias) return ERR_NOMEM;
    m->cap_seen = cap;
    return 0;
}

/* The presence and frequency penalties of a token outside the repetition window, as a bias: a row's
 * seen tokens all take the repetition penalty.  A penalty never bans, however large. */
static void bias_add(sampler *m, sample_row *row, int32_t id, float v)
{
    static const float least = -99.99f; /* at -100 a bias is a ban */
    int lo = 0, hi = m->plan->s.n_bias;
    while (lo < hi) {
        int mid = lo + (hi - lo) / 2;
        if (m->bias_id[mid] < id) lo = mid + 1;
        else hi = mid;
    }
    if (lo < m->plan->s.n_bias && m->bias_id[lo] == id) {
        if (m->bias[lo] > -100) m->bias[lo] = fmaxf(m->bias[lo] + v, least);
        return;
    }
    m->bias_id[row->n_bias] = id;
    m->bias[row->n_bias++] = fmaxf(v, least);
}

/* Some counted tokens have left the window: separate lists. */
static int fill_windowed(sampler *m, sample_row *row)
{
    const sampling *s = &m->plan->s;
    if (reserve_seen(m)) return ERR_NOMEM;
    if (s->n_bias) {
        memcpy(m->bias_id, s->bias_id, (size_t)s->n_bias * sizeof *m->bias_id);
        memcpy(m->bias, s->bias, (size_t)s->n_bias * sizeof *m->bias);
    }
    for (int i = 0; i < m->n; i++) {
        if (m->in_window[i]) {
            m->seen_id[row->n_seen] = m->id[i];
            m->seen_count[row->n_seen++] = m->generated[i];
        } else if (m->generated[i]) {
            bias_add(m, row, m->id[i], -(s->presence + s->frequency * (float)m->generated[i]));
        }
    }
    row->seen_id = m->seen_id;
    row->gen_count = m->seen_count;
    row->bias_id = m->bias_id;
    row->bias = m->bias;
    return 0;
}

int sampler_fill(sampler *m, const seq *q, int pos, bool answering, uint64_t key, sample_row *row)
{
    const sampling *s = &m->plan->s;
    int rc = fill_bans(m, pos - q->n_prompt, answering);
    if (rc) return rc;
    *row = (sample_row){.temperature = s->temperature,
                        .top_k = s->top_k,
                        .top_p = s->top_p,
                        .min_p = s->min_p,
                        .repetition = has_repetition(s) ? s->repetition : 1,
                        .presence = s->presence,
                        .frequency = s->frequency,
                        .n_vocab = m->plan->base->n_vocab,
                        .allow = m->plan->allow,
                        .n_ban = m->n_ban,
                        .ban = m->ban,
                        .n_bias = s->n_bias,
                        .bias_id = s->bias_id,
                        .bias = s->bias,
                        .seed = s->seed,
                        .choice = key,
                        .position = (uint64_t)pos,
                        .n_top = s->n_logprobs,
                        .forced = -1};
    if (has_repetition(s) && s->repeat_last_n > 0) return fill_windowed(m, row);
    row->n_seen = m->n;
    row->seen_id = m->id;
    row->gen_count = m->generated;
    return 0;
}

bool sample_plan_is_blind(const sample_plan *p)
{
    return !p->longest_bad && !has_repetition(&p->s) && !has_presence(&p->s);
}

int sampler_accept(sampler *m, const seq *q, int i, bool answer)
{
    int32_t id = seq_tok(q, i);
    size_t max = m->plan->longest_bad, n = 0;
    if (max && answer) {
        const char *text = visible(m->plan, id, &n);
        if (n > max) text += n - max, n = max;
        size_t keep = m->n_tail + n > max ? max - n : m->n_tail;
        memmove(m->tail, m->tail + m->n_tail - keep, keep);
        if (n) memcpy(m->tail + keep, text, n);
        m->n_tail = keep + n;
    } else {
        m->n_tail = 0;
    }
    return count(m, q, i);
}
