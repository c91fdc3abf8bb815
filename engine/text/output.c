/* output.c - see output.h.  Four stages, each fed with what the one before is sure of:
 *   bytes   joins token bytes into whole characters; what can be none becomes U+FFFD
 *   think   finds <think> and </think>, drops the tags and the white space around them
 *   calls   takes tool calls out of the answer (calls.c)
 *   stop    watches what is left with one prefix automaton (Knuth, Morris, Pratt) a stop string
 * White space is ASCII white space: an ideographic space at the start of an answer is an indent.
 * Every stage is a machine over single characters, so the result cannot depend on how the text was
 * cut into tokens; each does constant work a byte (amortised), so 64 KiB of almost-matches are no
 * harder than other text. */
#include "engine/text/output.h"

#include "base/utf8.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define MAX_STOPS 16
#define MAX_STOP_BYTES 1024

static const char OPEN[] = "<think>", CLOSE[] = "</think>", CALL[] = "<tool_call>";

typedef enum {
    ST_START,       /* nothing but white space so far, perhaps part of <think> */
    ST_REASON_LEAD, /* after <think>: white space is dropped */
    ST_REASON,
    ST_TRIAL,       /* in a thought, in what may be its last calls (R7) */
    ST_ANSWER_LEAD, /* after </think>: white space is dropped, or no part of the answer yet */
    ST_ANSWER
} state;

typedef struct {
    char *s;        /* [n] owned */
    uint16_t *fail; /* [n + 1] owned: longest proper border of s[0, i) */
    size_t n;
    size_t at; /* bytes of s that the text ends with */
} stop_string;

struct output {
    const tokenizer *tok;
    bool include_stop, keep_special, tags;
    thought_place place;
    /* bytes */
    char part[4];
    size_t n_part;
    /* think */
    state st;
    size_t tag; /* bytes of the tag looked for that were seen */
    buf space;  /* white space that is dropped if a tag follows */
    /* calls */
    calls *calls; /* NULL: nothing is looked for */
    call_format format;
    const call_tools *tools;
    bool one_call;
    struct {
        calls *calls; /* of the text since an opener inside a thought; NULL: not in one */
        buf raw;      /* that text */
        said said;    /* what it would be */
        bool wrong;   /* it is more than calls of known tools */
        bool off;     /* no opener counts now */
    } trial;
    bool call_tag; /* the tag looked for is <tool_call> */
    /* stop */
    stop_string stop[MAX_STOPS];
    int n_stop;
    buf held;     /* answer text that may yet be part of a stop string */
    size_t head;  /* bytes of held that are out */
    uint64_t pos; /* bytes of answer seen; held[head] is at pos - (held.len - head) */
    int match;    /* best stop string so far, -1 none */
    uint64_t match_at;
    int fired; /* -1 until a stop string ended the answer */
    bool ended;
    /* tokens */
    buf kinds; /* [n_tokens] token_kind; from settled on still open */
    size_t n_tokens, settled;
    size_t tag_token;            /* first token that belongs to the tag at hand */
    size_t think_from, think_to; /* tokens [from, to) are the reasoning; to = 0: not closed */
    bool thought;
    int n_calls;                                            /* begun */
    bool token_tag, token_reason, token_answer, token_call; /* what the token at hand holds */
    bool stops_on, oom;
    said *said; /* of the call at hand */
};

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* ---- stop strings ---- */

/* Byte offset in held of answer position p. */
static size_t held_at(const output *o, uint64_t p)
{
    return o->held.len - (size_t)(o->pos - p);
}

/* Gives out the answer up to position p. */
static void release(output *o, uint64_t p)
{
    if (!buf_ok(&o->held)) return;
    size_t to = held_at(o, p);
    if (to <= o->head) return;
    said_put(o->said, SAID_ANSWER, 0, o->held.v + o->head, to - o->head);
    o->head = to;
    if (o->head == o->held.len) {
        o->held.len = o->head = 0;
    } else if (o->head > 65536 && o->head > o->held.len / 2) {
        memmove(o->held.v, o->held.v + o->head, o->held.len - o->head);
        o->held.len -= o->head;
        o->head = 0;
    }
}

/* Ends the answer at the chosen match. */
static void fire(output *o)
{
    o->fired = o->match;
    release(o, o->match_at + (o->include_stop ? o->stop[o->match].n : 0));
    buf_clear(&o->held);
    o->head = 0;
}

/* Could a stop string that is not complete yet beat the chosen match? */
static bool match_is_open(const output *o)
{
    for (int i = 0; i < o->n_stop; i++) {
        uint64_t start = o->pos - o->stop[i].at;
        bool partial = o->stop[i].at < o->stop[i].n;
        if (o->stop[i].at && partial && start < o->match_at) return true;
        if (o->stop[i].at && partial && start == o->match_at && o->stop[i].n > o->stop[o->match].n)
            return true;
    }
    return false;
}

/* Moves one automaton over c; true if its string is complete. */
static bool stop_step(stop_string *s, char c)
{
    while (s->at && (s->at == s->n || s->s[s->at] != c)) s->at = s->fail[s->at];
    if (s->s[s->at] == c) s->at++;
    return s->at == s->n;
}

/* One byte of the answer. */
static void answer_byte(output *o, char c)
{
    o->pos++;
    buf_putc(&o->held, c);
    for (int i = 0; i < o->n_stop; i++) {
        if (!stop_step(&o->stop[i], c) || !o->stops_on) continue;
        uint64_t start = o->pos - o->stop[i].n;
        bool better = o->match < 0 || start < o->match_at ||
                      (start == o->match_at && o->stop[i].n > o->stop[o->match].n);
        if (!better) continue;
        o->match = i;
        o->match_at = start;
    }
    if (o->match >= 0 && !match_is_open(o)) fire(o);
}

/* Gives out what no stop string can reach any more. */
static void release_certain(output *o)
{
    uint64_t sure = o->match >= 0 ? o->match_at : o->pos;
    for (int i = 0; i < o->n_stop; i++)
        if (o->pos - o->stop[i].at < sure) sure = o->pos - o->stop[i].at;
    release(o, sure);
}

static void answer_text(output *o, const char *s, size_t n)
{
    if (o->fired >= 0 || !n) return;
    o->token_answer = true;
    if (!o->n_stop) {
        said_put(o->said, SAID_ANSWER, 0, s, n);
        return;
    }
    for (size_t i = 0; i < n && o->fired < 0; i++) answer_byte(o, s[i]);
}

/* No more text follows here: the best complete match stands, else all that was held is text. */
static void settle_stops(output *o)
{
    if (o->fired < 0 && o->match >= 0) fire(o);
    if (o->fired < 0) release(o, o->pos);
    for (int i = 0; i < o->n_stop; i++) o->stop[i].at = 0;
}

/* ---- calls ---- */

static void on_text(void *ctx, const char *s, size_t n)
{
    answer_text(ctx, s, n);
}

static void on_call(void *ctx, said_kind kind, int call, const char *s, size_t n)
{
    output *o = ctx;
    if (kind == SAID_CALL) settle_stops(o);
    if (o->fired >= 0) return;
    o->n_calls += kind == SAID_CALL;
    said_put(o->said, kind, call, s, n);
}

static void answer(output *o, const char *s, size_t n)
{
    if (o->fired >= 0) return;
    if (!o->calls) {
        answer_text(o, s, n);
        return;
    }
    o->token_call |= calls_busy(o->calls);
    calls_feed(o->calls, s, n);
    o->token_call |= calls_busy(o->calls);
}

static void on_trial_text(void *ctx, const char *s, size_t n)
{
    output *o = ctx;
    for (size_t i = 0; i < n; i++) o->trial.wrong |= !is_space(s[i]);
}

static void on_trial_call(void *ctx, said_kind kind, int call, const char *s, size_t n)
{
    output *o = ctx;
    if (kind == SAID_CALL && call_tools_find(o->tools, s, n) < 0) o->trial.wrong = true;
    said_put(&o->trial.said, kind, call, s, n);
}

/* ---- think tags ---- */

static void settle(output *o, token_kind kind)
{
    if (!o->oom && o->n_tokens > o->settled)
        memset(o->kinds.v + o->settled, kind, o->n_tokens - o->settled);
    o->settled = o->n_tokens;
}

static bool is_inline(const output *o)
{
    return o->place != THOUGHT_APART;
}

/* What belongs to a thought only where it stands in the text: its tags, white space at its ends. */
static void put_inline(output *o, const char *s, size_t n)
{
    o->token_answer |= n > 0;
    said_put(o->said, SAID_ANSWER, 0, s, n);
}

static void put_thought(output *o, const char *s, size_t n)
{
    o->token_reason |= !is_inline(o);
    if (is_inline(o)) put_inline(o, s, n);
    if (o->place != THOUGHT_INLINE) said_put(o->said, SAID_THOUGHT, 0, s, n);
}

/* Where ordinary text goes in the state at hand. */
static void put_text(output *o, const char *s, size_t n)
{
    if (o->st == ST_REASON) put_thought(o, s, n);
    else answer(o, s, n);
}

/* Kind of a token of which nothing else is known. */
static token_kind state_kind(const output *o)
{
    return output_in_reasoning(o) && !is_inline(o) ? TOK_REASONING : TOK_ANSWER;
}

/* The held white space and tag beginning turn out to be text; of this token if the tag began in it.
 */
static void put_held(output *o)
{
    size_t tag = o->tag;
    bool mine = tag && o->tag_token == o->n_tokens, shown[] = {o->token_reason, o->token_answer};
    o->tag = 0;
    if (o->st == ST_START) o->st = ST_ANSWER;
    bool lead = o->st == ST_REASON_LEAD;
    if (lead) o->st = ST_REASON;
    if (o->space.len && lead) put_inline(o, o->space.v, o->space.len);
    else if (o->space.len) put_text(o, o->space.v, o->space.len);
    if (tag) put_text(o, o->st != ST_REASON ? OPEN : o->call_tag ? CALL : CLOSE, tag);
    o->call_tag = false;
    buf_reset(&o->space);
    settle(o, state_kind(o));
    if (mine) return;
    o->token_reason = shown[0];
    o->token_answer = shown[1];
}

/* An opener inside a thought: the white space before it stays held. */
static void trial_begin(output *o)
{
    o->tag = 0;
    o->call_tag = false;
    o->trial.wrong = false;
    said_reset(&o->trial.said);
    buf_reset(&o->trial.raw);
    buf_put(&o->trial.raw, CALL, sizeof CALL - 1);
    o->trial.calls = calls_new(o->format, o->tools, (call_sink){o, on_trial_text, on_trial_call});
    if (!o->trial.calls) {
        o->oom = true;
        return;
    }
    calls_feed(o->trial.calls, CALL, sizeof CALL - 1);
    o->st = ST_TRIAL;
}

static void tag_complete(output *o)
{
    bool opens = o->st == ST_START;
    if (o->call_tag) {
        trial_begin(o);
        return;
    }
    o->tag = 0;
    o->token_tag = true;
    if (is_inline(o)) {
        put_inline(o, buf_str(&o->space), o->space.len);
        put_inline(o, opens ? OPEN : CLOSE, strlen(opens ? OPEN : CLOSE));
    }
    buf_reset(&o->space);
    settle(o, is_inline(o) ? TOK_ANSWER : TOK_MARKUP);
    if (opens) {
        o->thought = true;
        o->think_from = o->tag_token;
        o->st = ST_REASON_LEAD;
    } else {
        o->think_to = o->n_tokens + 1;
        o->st = ST_ANSWER_LEAD;
    }
}

/* One byte while a tag may come: before and in a thought.  Multi-byte characters are never part of
 * a tag, so single bytes are enough. */
static void tag_byte(output *o, char c)
{
    if (o->tag == 1 && o->st != ST_START && c == CALL[1] && o->calls && !o->trial.off)
        o->call_tag = true;
    const char *tag = o->st == ST_START ? OPEN : o->call_tag ? CALL : CLOSE;
    if (c == tag[o->tag]) {
        if (!o->tag++) o->tag_token = o->n_tokens;
        if (!tag[o->tag]) tag_complete(o);
        return;
    }
    if (o->tag) {
        put_held(o);
        if (o->st == ST_ANSWER) {
            put_text(o, &c, 1);
            return;
        }
        tag_byte(o, c); /* once: o->tag is 0 now */
        return;
    }
    if (is_space(c)) {
        if (o->st != ST_REASON_LEAD || is_inline(o)) buf_putc(&o->space, c);
        return;
    }
    put_held(o);
    put_text(o, &c, 1);
}

static void think_text(output *o, const char *s, size_t n);

/* The text since the opener is thought after all.  A tag may have begun at its very end. */
static void trial_fails(output *o)
{
    buf raw = o->trial.raw;
    o->trial.raw = (buf){0};
    calls_free(o->trial.calls);
    o->trial.calls = NULL;
    o->st = ST_REASON;
    size_t most = sizeof CALL - 2, tail = raw.len - 1 < most ? raw.len - 1 : most;
    while (tail && raw.v[raw.len - tail] != '<') tail--;
    o->trial.off = true;
    think_text(o, buf_str(&raw), raw.len - tail);
    o->trial.off = false;
    think_text(o, buf_str(&raw) + raw.len - tail, tail);
    buf_clear(&raw);
}

/* The character at s[0] in a trial; returns its bytes. */
static size_t trial_char(output *o, const char *s, size_t n)
{
    int k = utf8_valid_at(s, n);
    size_t len = k > 0 ? (size_t)k : 1;
    buf_put(&o->trial.raw, s, len);
    calls_feed(o->trial.calls, s, len);
    o->oom |= calls_oom(o->trial.calls) || !said_ok(&o->trial.said) || !buf_ok(&o->trial.raw);
    if (o->trial.wrong && !o->oom) trial_fails(o);
    return len;
}

/* Nothing follows a trial: complete calls of known tools count, and the thought ended before them.
 */
static void trial_end(output *o)
{
    calls_end(o->trial.calls);
    int n = 0, whole = calls_whole(o->trial.calls);
    for (int i = 0; i < o->trial.said.n; i++) n += o->trial.said.piece[i].kind == SAID_CALL;
    if (o->trial.wrong || n == 0 || whole < n) {
        trial_fails(o);
        return;
    }
    buf_reset(&o->space);
    if (!said_join(o->said, &o->trial.said)) o->oom = true;
}

/* The white space behind </think>, where it is shown: no part of the answer that stop strings act
 * on, but with tools a call that follows takes it away. */
static void put_lead(output *o)
{
    if (o->calls && o->space.len) answer(o, o->space.v, o->space.len);
    else put_inline(o, buf_str(&o->space), o->space.len);
    buf_reset(&o->space);
}

static void think_text(output *o, const char *s, size_t n)
{
    size_t i = 0;
    while (i < n && o->st < ST_ANSWER && !o->oom) {
        if (o->st == ST_TRIAL) i += trial_char(o, s + i, n - i);
        else if (o->st != ST_ANSWER_LEAD) tag_byte(o, s[i++]);
        else if (!is_space(s[i])) break;
        else if (is_inline(o)) buf_putc(&o->space, s[i++]);
        else i++;
    }
    if (o->oom) return;
    if (i == n) return;
    if (o->st == ST_ANSWER_LEAD && is_inline(o)) put_lead(o);
    o->st = ST_ANSWER;
    put_text(o, s + i, n - i);
}

/* ---- characters ---- */

/* Bytes of a token, in whole characters to the next stage. */
static void put_bytes(output *o, const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        if (o->n_part) {
            /* Complete the open character one byte at a time. */
            o->part[o->n_part++] = s[i++];
            int k = utf8_valid_at(o->part, o->n_part);
            if (!k) continue;
            size_t part = o->n_part;
            o->n_part = 0;
            if (k > 0) {
                think_text(o, o->part, part);
            } else {
                /* The byte just added broke it: what was there is one U+FFFD, the byte starts anew.
                 */
                think_text(o, "\xEF\xBF\xBD", 3);
                i--;
            }
            continue;
        }
        size_t from = i;
        int k = 1;
        while (i < n && (k = utf8_valid_at(s + i, n - i)) > 0) i += (size_t)k;
        if (i > from) think_text(o, s + from, i - from);
        if (k > 0) continue;
        if (k < 0) {
            think_text(o, "\xEF\xBF\xBD", 3);
            i += utf8_bad_run(s + i, n - i);
            continue;
        }
        memcpy(o->part, s + i, n - i);
        o->n_part = n - i;
        i = n;
    }
}

/* ---- the whole ---- */

static bool add_stop(output *o, const char *s, size_t n)
{
    stop_string *t = &o->stop[o->n_stop++];
    assert(n >= 1 && n <= MAX_STOP_BYTES);
    t->n = n;
    t->s = malloc(n);
    t->fail = calloc(n + 1, sizeof *t->fail);
    if (!t->s || !t->fail) return false;
    memcpy(t->s, s, n);
    for (size_t i = 1, k = 0; i < n; i++) {
        while (k && s[i] != s[k]) k = t->fail[k];
        if (s[i] == s[k]) k++;
        t->fail[i + 1] = (uint16_t)k;
    }
    return true;
}

output *output_new(const output_options *p)
{
    output *o = calloc(1, sizeof *o);
    if (!o) return NULL;
    assert(p->n_stop >= 0 && p->n_stop <= MAX_STOPS);
    o->tok = p->tok;
    o->include_stop = p->include_stop;
    o->keep_special = p->keep_special;
    o->place = p->place;
    o->tags = p->think != THINK_NONE;
    o->thought = p->think == THINK_PROMPT_OPEN || p->think == THINK_PROMPT_TEXT;
    o->match = o->fired = -1;
    o->format = p->calls;
    o->tools = p->tools;
    o->one_call = p->one_call;
    if (p->calls != CALLS_NONE &&
        !(o->calls = calls_new(p->calls, p->tools, (call_sink){o, on_text, on_call}))) {
        output_free(o);
        return NULL;
    }
    if (o->calls && p->after_label) calls_after_label(o->calls);
    switch (p->think) {
    case THINK_NONE: o->st = ST_ANSWER; break;
    case THINK_MODEL_OPENS: o->st = ST_START; break;
    case THINK_PROMPT_OPEN: o->st = ST_REASON_LEAD; break;
    case THINK_PROMPT_TEXT: o->st = ST_REASON; break;
    }
    for (int i = 0; i < p->n_stop; i++) {
        if (add_stop(o, p->stop[i], p->stop_len[i])) continue;
        output_free(o);
        return NULL;
    }
    return o;
}

void output_free(output *o)
{
    if (!o) return;
    for (int i = 0; i < o->n_stop; i++) {
        free(o->stop[i].s);
        free(o->stop[i].fail);
    }
    calls_free(o->calls);
    calls_free(o->trial.calls);
    buf_clear(&o->trial.raw);
    said_clear(&o->trial.said);
    buf_clear(&o->space);
    buf_clear(&o->held);
    buf_clear(&o->kinds);
    free(o);
}

/* Kind of the token just fed, and whether it is final: text that is shown counts before a tag, a
 * tag before dropped white space. */
static token_kind token_end(output *o)
{
    token_kind kind = o->token_answer   ? TOK_ANSWER
                      : o->token_reason ? TOK_REASONING
                      : o->token_tag    ? TOK_MARKUP
                      : o->token_call   ? TOK_MARKUP
                                        : state_kind(o);
    bool shown = o->token_answer || o->token_reason;
    /* A token that shows text and begins a tag is text; so the tag begins with the next one. */
    if (shown && o->tag && o->tag_token == o->n_tokens) o->tag_token++;
    buf_putc(&o->kinds, (char)kind);
    o->n_tokens++;
    bool open = o->st == ST_START || (o->tag && !shown);
    if (!open) o->settled = o->n_tokens;
    return kind;
}

static bool is(const char *tag, const char *s, size_t n)
{
    return n == strlen(tag) && !memcmp(s, tag, n);
}

/* Is the piece a tag that is looked for?  Those count even as control tokens. */
static bool is_tag(const output *o, const char *s, size_t n)
{
    return (o->tags && (is(OPEN, s, n) || is(CLOSE, s, n))) ||
           (o->calls && (is(CALL, s, n) || is("</tool_call>", s, n)));
}

/* Memory that ran out anywhere shows in what the caller gets. */
static void report_oom(output *o)
{
    o->oom = o->oom || !buf_ok(&o->space) || !buf_ok(&o->held) || !buf_ok(&o->kinds) ||
             (o->calls && calls_oom(o->calls));
    if (o->oom) o->said->oom = true;
}

static int feed(output *o, const char *piece, size_t n, bool stops_on, said *s, token_kind *kind)
{
    o->said = s;
    o->stops_on = stops_on;
    o->token_tag = o->token_reason = o->token_answer = o->token_call = false;
    if (piece && o->fired < 0 && !o->ended) put_bytes(o, piece, n);
    if (o->fired < 0) release_certain(o);
    token_kind k = token_end(o);
    if (kind) *kind = k;
    report_oom(o);
    return o->fired;
}

int output_feed(output *o, int32_t id, bool stops_on, said *s, token_kind *kind)
{
    size_t n = 0;
    const char *piece = tokenizer_piece(o->tok, id, &n);
    bool hidden = piece && !o->keep_special && tokenizer_is_special(o->tok, id);
    return feed(o, hidden && !is_tag(o, piece, n) ? NULL : piece, n, stops_on, s, kind);
}

int output_feed_bytes(output *o, const char *s, size_t n, said *to)
{
    return feed(o, s, n, true, to, NULL);
}

int output_end(output *o, said *s)
{
    if (o->ended) return o->fired;
    o->said = s;
    o->ended = true;
    if (o->fired >= 0) {
        o->settled = o->n_tokens;
        return o->fired;
    }
    if (o->n_part) think_text(o, "\xEF\xBF\xBD", 3);
    if (o->st == ST_TRIAL && !o->oom) trial_end(o);
    if (o->st == ST_ANSWER_LEAD && is_inline(o)) put_lead(o);
    else if (o->st != ST_TRIAL && (o->tag || o->space.len)) put_held(o);
    if (o->calls && o->fired < 0) calls_end(o->calls);
    settle_stops(o);
    o->settled = o->n_tokens;
    report_oom(o);
    return o->fired;
}

size_t output_kinds(const output *o, const unsigned char **kinds)
{
    *kinds = (const unsigned char *)buf_str(&o->kinds);
    return o->settled;
}

int output_reasoning_tokens(const output *o)
{
    if (!o->thought) return 0;
    return (int)((o->think_to ? o->think_to : o->n_tokens) - o->think_from);
}

bool output_in_reasoning(const output *o)
{
    return o->st == ST_REASON || o->st == ST_REASON_LEAD || o->st == ST_TRIAL;
}

int output_calls(const output *o)
{
    return o->n_calls;
}

bool output_wants_end(const output *o)
{
    return o->calls && (calls_stopped(o->calls) || (o->one_call && calls_whole(o->calls) > 0));
}
