/* chat_lines.c - tools, calls and results in the labelled lines of older checkpoints (API T2),
 * which calls_lines.c reads: ReAct as Qwen1 and 1.5 were trained on it, and the marks of Qwen-Agent
 * for Qwen1.5 and 2.  Both tell one story in one turn of the assistant: thought, call, result and
 * what follows from it; a conversation that ends with results goes on in that turn.  ReAct tells of
 * the tools in the question, one call a step; the marks tell of them in the system text, and list
 * calls that belong together before their results.
 * Thread: the one that renders the request. */
#include "engine/text/chat_parts.h"

#include "base/map.h"

#include <string.h>

#define FLOWER "\xE2\x9C\xBF"
#define FUNCTION FLOWER "FUNCTION" FLOWER ": "
#define ARGS FLOWER "ARGS" FLOWER ": "
#define RESULT FLOWER "RESULT" FLOWER ": "
#define RETURN FLOWER "RETURN" FLOWER ": "

/* Stands in front of an answer; behind it nothing but the answer is due. */
static const char final[] = "Thought: I now know the final answer.\nFinal Answer: ";

static bool is_react(const talk *k)
{
    return k->f->calls_as == CALLS_REACT;
}

static void put_str(const json *s, buf *b)
{
    if (json_is(s, JSON_STRING)) buf_put(b, s->str, s->len);
}

/* ---- what the model is told ------------------------------------------------------------------ */

static const char react_intro[] = "Answer the question below. These tools can help you:\n\n";
static const char react_form[] = "Write in this form:\n\n"
                                 "Question: the question that you answer\n"
                                 "Thought: what has to be done next\n"
                                 "Action: the tool to use, one of [%s]\n"
                                 "Action Input: the arguments of the tool\n"
                                 "Observation: the result of the tool\n"
                                 "... (as often as you need)\n"
                                 "Thought: I now know the final answer\n"
                                 "Final Answer: the answer to the question\n\n"
                                 "Begin!";
static const char marks_intro[] = "# Tools\n\n## These tools can help you:\n\n";
static const char marks_form[] =
    "## To use a tool, write these lines in your reply, the first two once for each tool that you "
    "use at the same time:\n\n" FUNCTION "the tool to use, one of [%s]\n" ARGS
    "the arguments of the tool\n" RESULT "the result of the tool\n" RETURN
    "your reply, made of the results";

/* "NAME: what it does Parameters: SCHEMA ..." and a blank line for each tool; names between commas.
 */
static void put_tools(const talk *k, buf *names, buf *b)
{
    for (const json *t = k->tools->child; t; t = t->next) {
        const json *f = json_get(t, "function"), *name = json_get(f, "name"),
                   *about = json_given(f, "description"), *schema = json_given(f, "parameters");
        if (!is_react(k)) {
            buf_puts(b, "### ");
            put_str(name, b);
            buf_puts(b, "\n\n");
        }
        put_str(name, b);
        buf_putc(b, ':');
        if (about) buf_putc(b, ' ');
        put_str(about, b);
        buf_puts(b, " Parameters: ");
        if (schema) json_dump(schema, b);
        else buf_puts(b, "{}");
        buf_puts(b, " Format the arguments as a JSON object.\n\n");
        if (names->len) buf_puts(names, is_react(k) ? ", " : ",");
        put_str(name, names);
    }
}

static json *tools_section(talk *k)
{
    const char *form = is_react(k) ? react_form : marks_form, *at = strstr(form, "%s");
    buf b = {0}, names = {0};
    buf_puts(&b, is_react(k) ? react_intro : marks_intro);
    put_tools(k, &names, &b);
    buf_put(&b, form, (size_t)(at - form));
    buf_put(&b, buf_str(&names), names.len);
    buf_puts(&b, at + 2);
    if (!buf_ok(&names)) b.oom = true;
    buf_clear(&names);
    return node_take(k, &b);
}

/* Content without line breaks before it and white space behind it, as the checkpoints saw it. */
static void put_trimmed(buf *b, const json *content)
{
    buf text = {0};
    put_content(&text, content);
    const char *s = buf_str(&text);
    size_t from = strspn(s, "\n"), to = text.len;
    while (to > from && strchr(" \t\r\n\v\f", s[to - 1])) to--;
    buf_put(b, s + from, to - from);
    if (!buf_ok(&text)) b->oom = true;
    buf_clear(&text);
}

/* ReAct: in front of the last question; the marks: behind the system text. */
static int tell_tools(talk *k)
{
    json *section = tools_section(k);
    size_t i = is_react(k) ? k->n_msg : 0;
    while (i && (k->msg[i - 1].role != ROLE_USER || k->msg[i - 1].was_system)) i--;
    if (!i || !section) return talk_add_section(k, section);
    chat_msg *m = &k->msg[i - 1], pair[2] = {{.content = section}, *m};
    if (m->content->type == JSON_STRING) {
        buf b = {0};
        put_trimmed(&b, m->content);
        pair[1].content = node_take(k, &b);
    }
    m->content = pair[1].content ? join_contents(k, pair, 2, "\n\nQuestion: ") : NULL;
    return m->content ? 0 : talk_nomem(k);
}

/* ---- calls and their results ----------------------------------------------------------------- */

/* The results msg[from, to) of a message's calls. */
typedef struct {
    size_t from, to;
    size_t *of;   /* [n_calls] the message that answers the call; to: none does */
    bool *placed; /* [to - from] it answers a call */
} results;

/* By the id of the call; those without a known one answer the calls that are left, in order. */
static int match_results(talk *k, const json *made, results *r)
{
    size_t n = made->len, i = 0, next = 0;
    map ids = {0};
    r->of = arena_alloc(&k->mem, n * sizeof *r->of);
    r->placed = arena_zalloc(&k->mem, (r->to - r->from + 1) * sizeof *r->placed);
    if (!r->of || !r->placed) return talk_nomem(k);
    int code = 0;
    for (const json *c = made->child; c; c = c->next, i++) {
        const json *id = json_get(c, "id");
        r->of[i] = r->to;
        if (id && code != ERR_NOMEM) code = map_add(&ids, id->str, id->len, i);
    }
    for (i = r->from; i < r->to && code != ERR_NOMEM; i++) {
        const json *id = k->msg[i].call_id;
        size_t call;
        if (!id || !map_find(&ids, id->str, id->len, &call) || r->of[call] != r->to) continue;
        r->of[call] = i;
        r->placed[i - r->from] = true;
    }
    map_clear(&ids);
    if (code == ERR_NOMEM) return talk_nomem(k);
    for (i = r->from; i < r->to; i++) {
        if (r->placed[i - r->from]) continue;
        while (next < n && r->of[next] != r->to) next++;
        if (next == n) break;
        r->of[next] = i;
        r->placed[i - r->from] = true;
    }
    return 0;
}

static void put_result(const talk *k, size_t i, buf *b)
{
    if (b->len) buf_putc(b, '\n');
    buf_puts(b, is_react(k) ? "Observation: " : RESULT);
    if (is_react(k)) put_trimmed(b, k->msg[i].content);
    else put_content(b, k->msg[i].content);
}

static void put_call(const talk *k, const json *call, buf *b)
{
    const json *f = json_get(call, "function");
    if (b->len) buf_putc(b, '\n');
    buf_puts(b, is_react(k) ? "Action: " : FUNCTION);
    put_str(json_get(f, "name"), b);
    buf_puts(b, is_react(k) ? "\nAction Input: " : "\n" ARGS);
    json_dump(json_get(f, "arguments"), b);
}

/* ---- a turn ---------------------------------------------------------------------------------- */

/* One turn of the assistant under construction. */
typedef struct {
    buf text, thought;
    bool told;     /* it ends with results */
    bool results;  /* it holds some */
    bool thoughts; /* of some of its messages, if only empty ones */
} turn;

/* The text in front of calls. */
static void put_lead(const talk *k, turn *t, const json *content)
{
    buf lead = {0};
    if (is_react(k)) put_trimmed(&lead, content);
    else put_content(&lead, content);
    if (t->text.len) buf_putc(&t->text, '\n');
    if (is_react(k)) {
        if (strncmp(buf_str(&lead), "Thought:", 8) != 0)
            buf_puts(&t->text, lead.len ? "Thought: " : "Thought:");
    } else if (t->told) {
        buf_puts(&t->text, RETURN);
    }
    buf_put(&t->text, buf_str(&lead), lead.len);
    if (!buf_ok(&lead)) t->text.oom = true;
    buf_clear(&lead);
}

/* An answer without calls; with `open` it is the beginning of one. */
static void put_answer(const talk *k, turn *t, const json *content, bool open)
{
    const char *label = !is_react(k) ? RETURN : open ? "Thought: " : final;
    if (t->text.len) buf_putc(&t->text, '\n');
    buf_puts(&t->text, label);
    if (is_react(k) && !open) put_trimmed(&t->text, content);
    else put_content(&t->text, content);
}

/* Calls and the results msg[from, to) that follow them. */
static int put_step(talk *k, turn *t, const json *made, size_t from, size_t to)
{
    results r = {.from = from, .to = to};
    size_t i = 0;
    int code = made ? match_results(k, made, &r) : 0;
    if (code) return code;
    for (const json *c = made ? made->child : NULL; c; c = c->next, i++) {
        put_call(k, c, &t->text);
        if (is_react(k) && r.of[i] != to) put_result(k, r.of[i], &t->text);
    }
    for (size_t n = i, c = 0; c < n && !is_react(k); c++)
        if (r.of[c] != to) put_result(k, r.of[c], &t->text);
    for (i = from; i < to; i++)
        if (!made || !r.placed[i - from]) put_result(k, i, &t->text);
    t->told = to > from;
    t->results |= t->told;
    return 0;
}

/* One message with what follows it of the same turn: *at goes behind it.  *more: the turn goes on.
 */
static int put_message(talk *k, turn *t, size_t *at, bool *more)
{
    const chat_msg *m = &k->msg[*at];
    size_t from = *at + (m->role == ROLE_ASSISTANT), to = from;
    bool last = *at + 1 == k->n_msg;
    if (m->role == ROLE_ASSISTANT && m->reasoning) {
        t->thoughts = true;
        if (t->thought.len) buf_puts(&t->thought, "\n\n");
        buf_put(&t->thought, m->reasoning->str, m->reasoning->len);
    }
    if (m->role == ROLE_ASSISTANT && !m->calls) {
        bool open = last && k->continued, thought = m->reasoning && m->reasoning->len;
        /* Nothing is said yet of an answer that is gone on with inside its thought. */
        if (!open || !thought || m->content->type != JSON_STRING || m->content->len)
            put_answer(k, t, m->content, open);
        t->told = false;
        *at = from;
        *more = false;
        return 0;
    }
    while (to < k->n_msg && k->msg[to].role == ROLE_TOOL) to++;
    bool lead = m->role == ROLE_ASSISTANT &&
                (is_react(k) || t->told || m->content->type != JSON_STRING || m->content->len);
    if (lead) put_lead(k, t, m->content);
    *at = to;
    *more = to > from;
    return put_step(k, t, m->calls, from, to);
}

/* Whether anybody looks for calls in what is generated. */
static bool calls_are_read(const talk *k)
{
    const json *choice = k->in->tool_choice;
    return k->tools && !(json_is(choice, JSON_STRING) && !strcmp(choice->str, "none"));
}

static bool generates(const talk *k)
{
    return k->in->add_generation_prompt != 0 && !k->continued;
}

/* The generation goes on behind results.  Where calls are not looked for, the answer is due. */
static void put_cue(talk *k, turn *t)
{
    bool read = calls_are_read(k);
    buf_putc(&t->text, '\n');
    if (is_react(k)) buf_puts(&t->text, read ? "Thought:" : final);
    else buf_puts(&t->text, read ? FLOWER "RETURN" FLOWER ":" : RETURN);
    k->goes_on = true;
}

/* A turn that is due to answer, so that no label of ReAct's gets into an answer that nobody reads.
 */
static int begin_answer(talk *k)
{
    chat_msg *all = arena_alloc(&k->mem, (k->n_msg + 1) * sizeof *all);
    if (!all) return talk_nomem(k);
    if (k->n_msg) memcpy(all, k->msg, k->n_msg * sizeof *all);
    all[k->n_msg] =
        (chat_msg){.role = ROLE_ASSISTANT, .content = node_str(k, final, sizeof final - 1)};
    k->msg = all;
    k->goes_on = true;
    return all[k->n_msg++].content ? 0 : talk_nomem(k);
}

/* The turn that begins at msg[*at], as one message. */
static int write_turn(talk *k, size_t *at, chat_msg *out)
{
    turn t = {0};
    bool more = true;
    int code = 0;
    while (!code && more && *at < k->n_msg &&
           (k->msg[*at].role == ROLE_ASSISTANT || k->msg[*at].role == ROLE_TOOL))
        code = put_message(k, &t, at, &more);
    if (!code && *at == k->n_msg && t.told && generates(k)) put_cue(k, &t);
    *out = (chat_msg){.role = ROLE_ASSISTANT, .content = node_take(k, &t.text)};
    /* Results may hold </think>: templates shall not look for thoughts in them. */
    bool thoughts = t.thoughts || (t.results && k->f->traits.think);
    if (thoughts) out->reasoning = node_take(k, &t.thought);
    if (!code && (!out->content || (thoughts && !out->reasoning))) code = talk_nomem(k);
    return code;
}

int talk_write_lines(talk *k)
{
    size_t n = 0;
    bool labelled = is_react(k) && k->tools; /* plain answers, too */
    int code = k->tools ? tell_tools(k) : 0;
    for (size_t i = 0; !code && i < k->n_msg;) {
        chat_msg m = k->msg[i];
        bool answer = m.role == ROLE_ASSISTANT && (m.calls || labelled);
        if (answer || m.role == ROLE_TOOL) code = write_turn(k, &i, &m);
        else i++;
        k->msg[n++] = m;
    }
    k->n_msg = n;
    if (!code && labelled && generates(k) && !k->goes_on && !calls_are_read(k) &&
        !k->f->traits.think)
        code = begin_answer(k);
    k->tools = NULL; /* they are in the text now */
    return code;
}
