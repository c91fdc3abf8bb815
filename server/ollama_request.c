/* ollama_request.c - Ollama's request bodies as the chat body they mean (API O3-O6): chat's own
 * fields first, then Ollama's, which win (V9).  Owns nothing.  Refuses thinking of models that do
 * not think, pictures, and raw prompts with a system text or a context.  Thread: prep. */
#include "server/ollama_request.h"

#include "server/reply.h"

#include <stdio.h>
#include <string.h>

/* Options that have another name in a chat body; the others keep theirs. */
static const struct {
    const char *theirs, *ours;
} option_names[] = {{"num_predict", "max_completion_tokens"},
                    {"seed", "seed"},
                    {"top_k", "top_k"},
                    {"top_p", "top_p"},
                    {"min_p", "min_p"},
                    {"repeat_last_n", "repeat_last_n"},
                    {"repeat_penalty", "repetition_penalty"},
                    {"temperature", "temperature"},
                    {"presence_penalty", "presence_penalty"},
                    {"frequency_penalty", "frequency_penalty"},
                    {"stop", "stop"}};
enum { N_OPTIONS = sizeof option_names / sizeof *option_names };

const char *const ollama_names[] = {"max_completion_tokens",
                                    "options.num_predict",
                                    "temperature",
                                    "options.temperature",
                                    "top_p",
                                    "options.top_p",
                                    "top_k",
                                    "options.top_k",
                                    "min_p",
                                    "options.min_p",
                                    "seed",
                                    "options.seed",
                                    "stop",
                                    "options.stop",
                                    "repetition_penalty",
                                    "options.repeat_penalty",
                                    "repeat_last_n",
                                    "options.repeat_last_n",
                                    "reasoning_effort",
                                    "think",
                                    NULL};

/* Empty stop strings are dropped; a single string may stand for a list. */
static void put_stop(const json *v, buf *out)
{
    int n = 0;
    tr_name(out, "stop");
    buf_putc(out, '[');
    for (const json *s = v->type == JSON_ARRAY ? v->child : v; s;
         s = v->type == JSON_ARRAY ? s->next : NULL) {
        if (json_is(s, JSON_STRING) && !s->len) continue;
        if (n++) buf_putc(out, ',');
        json_dump(s, out);
    }
    buf_putc(out, ']');
}

/* num_ctx below the served context bounds prompt and answer of this request together. */
static void take_context(reader *r, const json *o)
{
    static const char name[] = "options.num_ctx";
    const json *c = json_given(o, "num_ctx");
    int64_t n, ctx = engine_info(r->a->eng)->ctx;
    if (c && (c->type != JSON_NUMBER || (!json_int(c, &n) && json_num(c) < 0x1p63)))
        reader_fail(r, "invalid_type", name, "'%s' must be an integer, got %s", name,
                    c->type == JSON_NUMBER ? c->str : json_type_name(c));
    else if (c && json_int(c, &n) && n > 0 && n < ctx) r->ctx = (int)n;
    else if (c && !(json_int(c, &n) && n == ctx)) reader_ignore(r, name, sizeof name - 1);
}

static void put_limit(reader *r, const json *body, const json *o, bool raw, buf *out)
{
    const json *v = json_given(o, "num_predict");
    bool theirs = json_given(body, "max_completion_tokens") || json_given(body, "max_tokens") ||
                  json_given(body, "n_predict");
    int64_t n = -1;
    r->zero_tokens = true;
    if (v && !json_int(v, &n)) {
        tr_json(out, "max_completion_tokens", v); /* the reader names its type */
        return;
    }
    if (n < -2)
        reader_fail(r, "invalid_value", "options.num_predict",
                    "'options.num_predict' must be at least 0, or -1 or -2 for no limit");
    if (v || (raw && !theirs))
        buf_printf(out, ",\"max_completion_tokens\":%lld", n < 0 ? -1 : (long long)n);
}

static void put_options(reader *r, const json *body, bool raw, buf *out)
{
    const json *o = json_get(body, "options");
    bool window = json_given(body, "repeat_last_n");
    if (o && o->type != JSON_NULL && o->type != JSON_OBJECT) {
        reader_fail(r, "invalid_type", "options", "'options' must be an object, got %s",
                    json_type_name(o));
        return;
    }
    put_limit(r, body, o, raw, out);
    take_context(r, o);
    for (const json *v = json_is(o, JSON_OBJECT) ? o->child : NULL; v; v = v->next) {
        int i = 0;
        if (!strcmp(v->key, "num_predict") || !strcmp(v->key, "num_ctx") || v->type == JSON_NULL)
            continue;
        while (i < N_OPTIONS && strcmp(v->key, option_names[i].theirs)) i++;
        window |= !strcmp(v->key, "repeat_last_n");
        if (i == N_OPTIONS) {
            char name[80];
            int n = snprintf(name, sizeof name, "options.%.60s", v->key);
            reader_ignore(r, name, (size_t)n);
        } else if (!strcmp(v->key, "stop")) {
            put_stop(v, out);
        } else {
            tr_json(out, option_names[i].ours, v);
        }
    }
    if (!window) buf_puts(out, ",\"repeat_last_n\":64");
}

static void put_think(reader *r, const json *t, buf *out)
{
    bool asks = t->type == JSON_TRUE || (t->type == JSON_STRING && strcmp(t->str, "none"));
    const chat_format *f = engine_info(r->a->eng)->chat;
    if (asks && f && !chat_format_traits(f)->think)
        reader_fail(r, "unsupported_value", "think", "\"%.64s\" does not support thinking",
                    read_model(r));
    tr_json(out, t->type == JSON_STRING ? "reasoning_effort" : "enable_thinking", t);
}

/* A boolean of body, or what its absence means. */
static bool is_bool(reader *r, const json *body, const char *name, bool absent)
{
    const json *j = json_get(body, name);
    if (!j || j->type == JSON_NULL) return absent;
    if (!json_is_bool(j))
        reader_fail(r, "invalid_type", name, "'%s' must be true or false, got %s", name,
                    json_type_name(j));
    return j->type == JSON_TRUE;
}

static void put_common(reader *r, const json *body, bool raw, buf *out)
{
    const json *stream = json_get(body, "stream"), *n = json_get(body, "n"),
               *think = json_given(body, "think");
    int64_t one;
    tr_name(out, "stream");
    if (stream && stream->type != JSON_NULL) json_dump(stream, out);
    else buf_puts(out, "true");
    if (n && (!json_int(n, &one) || one != 1))
        reader_fail(r, "unsupported_value", "n", "'n' is not supported here");
    put_options(r, body, raw, out);
    /* The context never moves on while an answer grows (G5): it ends. */
    if (is_bool(r, body, "shift", false)) reader_ignore(r, "shift", 5);
    bool keeps = is_bool(r, body, "truncate", true);
    r->drop_turns = !raw && keeps; /* G7 */
    if (think && !json_is_bool(think) && think->type != JSON_STRING)
        reader_fail(r, "invalid_type", "think", "'think' must be true, false or a level, got %s",
                    json_type_name(think));
    if (think && !raw) put_think(r, think, out);
    if (is_bool(r, body, "logprobs", false) && !raw) buf_puts(out, ",\"logprobs\":true");
}

/* ---- chat ------------------------------------------------------------------------------------ */

/* O5: none of the models has eyes. */
static void refuse_images(reader *r, const json *images, const char *path)
{
    if (!images || images->type == JSON_NULL) return;
    if (images->type != JSON_ARRAY)
        reader_fail(r, "invalid_type", path, "'%s' must be an array, got %s", path,
                    json_type_name(images));
    else if (images->len) reader_no_media(r, path, "image");
}

static void put_calls(const json *list, buf *out)
{
    int n = 0;
    if (list->type != JSON_ARRAY) tr_json(out, "tool_calls", list); /* the reader names its type */
    if (list->type != JSON_ARRAY || !list->len) return;
    buf_puts(out, ",\"tool_calls\":[");
    for (const json *c = list->child; c; c = c->next) {
        buf_printf(out, "%s{\"type\":\"function\"", n++ ? "," : "");
        tr_json(out, "id", json_get(c, "id"));
        tr_json(out, "function", json_get(c, "function"));
        buf_putc(out, '}');
    }
    buf_putc(out, ']');
}

static void put_message(reader *r, const json *m, int i, buf *out)
{
    const json *role = json_get(m, "role"), *made = json_given(m, "tool_calls"),
               *text = json_given(m, "content"), *thought = json_given(m, "thinking");
    char path[40];
    if (i) buf_putc(out, ',');
    if (m->type != JSON_OBJECT || !json_is(role, JSON_STRING)) {
        snprintf(path, sizeof path, "messages[%d]", i);
        reader_fail(r, "invalid_value", path, "'%s' must be an object with a role", path);
        return;
    }
    snprintf(path, sizeof path, "messages[%d].images", i);
    refuse_images(r, json_get(m, "images"), path);
    snprintf(path, sizeof path, "messages[%d].thinking", i);
    if (thought && thought->type != JSON_STRING)
        reader_fail(r, "invalid_type", path, "'%s' must be a string, got %s", path,
                    json_type_name(thought));
    buf_putc(out, '{');
    tr_json(out, "role", role);
    if (text) tr_json(out, "content", text);
    else tr_str(out, "content", "", 0);
    tr_json(out, "reasoning_content", thought);
    tr_json(out, "tool_call_id", json_get(m, "tool_call_id"));
    tr_json(out, "name", json_get(m, "tool_name"));
    if (made) put_calls(made, out);
    buf_putc(out, '}');
}

void ollama_chat_translate(reader *r, const json *body, buf *out)
{
    static const char *const foreign[] = {TR_CHAT_ONLY};
    static const char *const taken[] = {"messages", "options",    "think",    "stream",    "shift",
                                        "truncate", "keep_alive", "logprobs", TR_CHAT_ONLY};
    const json *list = json_get(body, "messages");
    int i = 0;
    tr_ignore(r, body, foreign, (int)(sizeof foreign / sizeof *foreign));
    buf_puts(out, "\"messages\":[");
    for (const json *m = json_is(list, JSON_ARRAY) ? list->child : NULL; m && !r->failed;
         m = m->next)
        put_message(r, m, i++, out);
    buf_putc(out, ']');
    tr_rest(out, body, taken, (int)(sizeof taken / sizeof *taken));
    put_common(r, body, false, out);
}

/* ---- generate -------------------------------------------------------------------------------- */

#define TAKEN                                                                                      \
    "prompt", "system", "images", "options", "think", "stream", "shift", "truncate", "keep_alive", \
        "template", "suffix", "raw", "context"

static bool has_text(const json *body, const char *name)
{
    const json *j = json_get(body, name);
    return json_is(j, JSON_STRING) && j->len;
}

static bool has_items(const json *body, const char *name)
{
    const json *j = json_get(body, name);
    return json_is(j, JSON_ARRAY) && j->len;
}

/* The types of generate's own fields. */
static void check_generate(reader *r, const json *body)
{
    static const struct {
        const char *name;
        json_type type;
        const char *words;
    } field[] = {{"prompt", JSON_STRING, "a string"},
                 {"system", JSON_STRING, "a string"},
                 {"suffix", JSON_STRING, "a string"},
                 {"context", JSON_ARRAY, "an array of token ids"}};
    is_bool(r, body, "raw", false);
    for (size_t i = 0; i < sizeof field / sizeof *field; i++) {
        const json *j = json_get(body, field[i].name);
        if (j && j->type != JSON_NULL && j->type != field[i].type)
            reader_fail(r, "invalid_type", field[i].name, "'%s' must be %s, got %s", field[i].name,
                        field[i].words, json_type_name(j));
    }
    if (has_text(body, "template"))
        reader_fail(r, "unsupported_value", "template", "'template' is not supported in a request");
    refuse_images(r, json_get(body, "images"), "images");
}

/* O4: system and one user turn. */
void ollama_generate_translate(reader *r, const json *body, buf *out)
{
    static const char *const foreign[] = {"messages", TR_CHAT_ONLY};
    static const char *const taken[] = {TAKEN, "logprobs", "messages", TR_CHAT_ONLY};
    const json *prompt = json_get(body, "prompt"), *system = json_get(body, "system");
    check_generate(r, body);
    tr_ignore(r, body, foreign, (int)(sizeof foreign / sizeof *foreign));
    buf_puts(out, "\"messages\":[");
    if (has_text(body, "system")) {
        buf_puts(out, "{\"role\":\"system\"");
        tr_str(out, "content", system->str, system->len);
        buf_puts(out, "},");
    }
    buf_puts(out, "{\"role\":\"user\"");
    tr_str(out, "content", json_is(prompt, JSON_STRING) ? prompt->str : "",
           json_is(prompt, JSON_STRING) ? prompt->len : 0);
    buf_puts(out, "}]");
    tr_rest(out, body, taken, (int)(sizeof taken / sizeof *taken));
    put_common(r, body, false, out);
}

/* Without a template: the prompt as it is, or what belongs between it and a suffix. */
void ollama_raw_translate(reader *r, const json *body, buf *out)
{
    /* What completions have a place for, and these replies have not. */
#define ROOMLESS "echo", "best_of", "truncate_prompt_tokens", "truncation_side", "stream_options"
    static const char *const roomless[] = {ROOMLESS};
    static const char *const taken[] = {TAKEN, "logprobs", "top_logprobs", ROOMLESS};
    const json *top = json_get(body, "top_logprobs"), *think = json_get(body, "think");
    bool raw = json_is(json_get(body, "raw"), JSON_TRUE);
    int64_t n = 0;
    check_generate(r, body);
    if (raw && (has_text(body, "system") || has_items(body, "context")))
        reader_fail(r, "unsupported_value", has_items(body, "context") ? "context" : "system",
                    "a raw prompt takes no system text and no context");
    if (has_text(body, "system")) reader_ignore(r, "system", 6);
    if (has_items(body, "context")) reader_ignore(r, "context", 7);
    if (think && think->type != JSON_NULL) reader_ignore(r, "think", 5);
    for (size_t i = 0; i < sizeof roomless / sizeof *roomless; i++) {
        const json *j = json_get(body, roomless[i]);
        if (j && j->type != JSON_NULL && j->type != JSON_FALSE)
            reader_ignore(r, roomless[i], strlen(roomless[i]));
    }
    tr_json(out, "prompt", json_get(body, "prompt"));
    tr_json(out, "suffix", json_get(body, "suffix"));
    tr_rest(out, body, taken, (int)(sizeof taken / sizeof *taken));
    put_common(r, body, true, out);
    if (top && top->type != JSON_NULL && (!json_int(top, &n) || n < 0 || n > 20))
        reader_fail(r, "invalid_value", "top_logprobs",
                    "'top_logprobs' must be an integer between 0 and 20");
    if (json_is(json_get(body, "logprobs"), JSON_TRUE)) buf_printf(out, ",\"logprobs\":%d", (int)n);
    else if (n > 0)
        reader_fail(r, "invalid_value", "top_logprobs", "'top_logprobs' needs 'logprobs': true");
}

bool ollama_is_raw(const json *body)
{
    return json_is(json_get(body, "raw"), JSON_TRUE) || has_text(body, "suffix");
}

bool ollama_only_loads(const json *body, bool chat)
{
    const json *j = json_get(body, chat ? "messages" : "prompt");
    bool empty = !j || j->type == JSON_NULL;
    if (json_is(j, JSON_STRING) || json_is(j, JSON_ARRAY)) empty = j->len == 0;
    return empty && (chat || !has_text(body, "suffix"));
}
