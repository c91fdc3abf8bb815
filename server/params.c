/* params.c - every generation field of API G1 (with V6, V7, V9, R3-R6) read and checked; see
 * request.h.  Owns the arrays of params.  Thread: one owner. */
#include "server/request.h"

#include "base/clock.h"
#include "server/reply.h"

#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* ---- field names (V6, V10) ------------------------------------------------------------------- */

/* Read somewhere in this file or by the route itself. */
static const char *const known_all[] = {
    "model", "stream", "stop", "sse_ping_interval", "temperature", "top_p", "top_k", "min_p",
    "presence_penalty", "frequency_penalty", "repetition_penalty", "repeat_penalty",
    "repeat_last_n", "seed", "max_completion_tokens", "max_tokens", "n_predict", "min_tokens",
    "stop_token_ids", "include_stop_str_in_output", "ignore_eos", "skip_special_tokens",
    "logit_bias", "allowed_token_ids", "bad_words", "n", "return_token_ids", "priority",
    "cache_salt", "cache_prompt", "enable_thinking", "reasoning_effort", "reasoning", "thinking",
    "thinking_budget", "thinking_token_budget", "thinking_budget_tokens", "reasoning_budget_tokens",
    "think", "include_reasoning", "separate_reasoning", "reasoning_format", "stream_options",
    "logprobs", "chat_template_kwargs", "tool_choice", "tools", "parallel_tool_calls",
    "response_format", "prompt_logprobs", "truncate_prompt_tokens", "truncation_side",
    "timings_per_token", "return_progress", "return_tokens_as_token_ids", "structured_outputs",
    "guided_json", "guided_regex", "guided_grammar", "grammar", "ebnf", "guided_choice", "regex",
    "json_schema", "structural_tag", "format",
    /* refused, V7 */
    "use_beam_search", "functions", "function_call", "modalities", "audio", "background",
    "conversation", "chat_template", "post_sampling_probs"};
static const char *const known_chat[] = {
    "messages",  "top_logprobs", "add_generation_prompt", "continue_final_message",
    "documents", "echo",         "mm_processor_kwargs"};
static const char *const known_completions[] = {"prompt", "suffix", "echo", "best_of",
                                                "add_special_tokens"};
/* llama.cpp's /completion and /infill. */
static const char *const known_llama[] = {"prompt", "n_probs", "return_tokens", "add_special",
                                          "response_fields"};
static const char *const known_infill[] = {"input_prefix", "input_suffix", "input_extra"};
/* Known elsewhere, and there without a place in the reply. */
static const char *const roomless_llama[] = {"logprobs", "stream_options"};
static const char *const known_text[] = {"content",
                                         "prompt",
                                         "messages",
                                         "add_special",
                                         "parse_special",
                                         "with_pieces",
                                         "return_token_strs",
                                         "tokens",
                                         "add_generation_prompt",
                                         "continue_final_message",
                                         "documents",
                                         "add_special_tokens"};
static const char *const known_pooled[] = {
    "model", "cache_salt", "cache_prompt", "truncate_prompt_tokens", "truncation_side", "priority"};
static const char *const known_embed[] = {"input", "encoding_format", "dimensions", "instruction"};
/* Ollama's /api/embed, and /api/embeddings. */
static const char *const known_embed_ollama[] = {"input", "truncate", "dimensions"};
static const char *const known_embed_older[] = {"prompt", "truncate", "dimensions"};
static const char *const known_rerank[] = {"query", "documents", "top_n", "return_documents",
                                           "instruction"};
static const char *const known_score[] = {"text_1", "text_2", "queries", "documents",
                                          "items",  "data_1", "data_2",  "instruction"};
/* Without meaning here and never listed. */
static const char *const inert[] = {"user",
                                    "safety_identifier",
                                    "metadata",
                                    "store",
                                    "service_tier",
                                    "prompt_cache_key",
                                    "prompt_cache_retention",
                                    "prompt_cache_options",
                                    "verbosity",
                                    "moderation",
                                    "cache_control",
                                    "keep_alive",
                                    "ttl",
                                    "draft_model",
                                    "spaces_between_special_tokens",
                                    "request_id",
                                    "session_id"};

static bool in_list(const char *name, const char *const *v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!strcmp(name, v[i])) return true;
    return false;
}
#define IN(name, list) in_list(name, list, sizeof list / sizeof *list)

/* Neutral values count as absent. */
static bool neutral(const json *j)
{
    if (j->type == JSON_NULL || j->type == JSON_FALSE) return true;
    if (j->type == JSON_STRING || j->type == JSON_ARRAY || j->type == JSON_OBJECT) {
        if (!j->len) return true;
        const json *t = json_get(j, "type");
        return j->type == JSON_OBJECT && j->len == 1 && json_is(t, JSON_STRING) &&
               !strcmp(t->str, "text");
    }
    return j->type == JSON_NUMBER && json_num(j) == -1;
}

/* A field of a sampler that is not offered, at the value that turns it off, or at the default that
 * only matters when it is on (V6). */
static bool is_sampler_off(const json *j)
{
    static const struct {
        const char *name;
        double v;
    } off[] = {{"typical_p", 1},
               {"mirostat", 0},
               {"mirostat_tau", 5},
               {"mirostat_eta", 0.1},
               {"dry_multiplier", 0},
               {"dry_base", 1.75},
               {"dry_penalty_last_n", -1},
               {"dry_allowed_length", 2},
               {"xtc_probability", 0},
               {"xtc_threshold", 0.1},
               {"dynatemp_range", 0},
               {"dynatemp_exponent", 1},
               {"top_n_sigma", -1},
               {"length_penalty", 1},
               {"n_keep", 0},
               {"n_indent", 0},
               {"t_max_predict_ms", -1},
               {"t_max_predict_ms", 0},
               {"id_slot", -1}};
    for (size_t i = 0; i < sizeof off / sizeof *off && j->type == JSON_NUMBER; i++)
        if (!strcmp(j->key, off[i].name) && json_num(j) == off[i].v) return true;
    return false;
}

static bool is_embed_field(const reader *r, const char *k)
{
    if (reply_dialect(r->call) != DIALECT_OLLAMA) return IN(k, known_embed);
    return strncmp(http_path(r->call), "/api/embeddings", 15) ? IN(k, known_embed_ollama)
                                                              : IN(k, known_embed_older);
}

void read_unknown(reader *r)
{
    for (const json *j = r->body->child; j && !r->failed; j = j->next) {
        const char *k = j->key;
        if (j->type == JSON_NULL || IN(k, inert)) continue;
        bool pooled = r->kind == READ_EMBED || r->kind == READ_RERANK || r->kind == READ_SCORE;
        if (r->kind == READ_EMBED && is_embed_field(r, k)) continue;
        if (r->kind == READ_RERANK && IN(k, known_rerank)) continue;
        if (r->kind == READ_SCORE && IN(k, known_score)) continue;
        if (pooled) {
            if (!IN(k, known_pooled)) reader_ignore(r, k, j->n_key);
            continue;
        }
        if (IN(k, known_all) && !(r->kind == READ_LLAMA && IN(k, roomless_llama))) continue;
        if (r->kind == READ_CHAT && IN(k, known_chat)) continue;
        if (r->kind == READ_COMPLETIONS && IN(k, known_completions)) continue;
        if (r->kind == READ_LLAMA && IN(k, known_llama)) continue;
        if (IN(k, known_infill) && !strncmp(http_path(r->call), "/infill", 7)) continue;
        if (r->kind == READ_TEXT && IN(k, known_text)) continue;
        if (j->type == JSON_NUMBER ? !is_sampler_off(j) : !neutral(j))
            reader_ignore(r, k, j->n_key);
    }
}

/* ---- refusals -------------------------------------------------------------------------------- */

static void refused(reader *r, const char *name, const char *why)
{
    reader_fail(r, "unsupported_value", name, "'%s' is not supported%s", name, why);
}

/* A field that is there and not neutral. */
static bool asked(reader *r, const char *name)
{
    const json *j = rd_any(r, name);
    return j && !neutral(j);
}

void read_refused(reader *r)
{
    bool on = false;
    if (rd_bool(r, "use_beam_search", &on) && on)
        refused(r, "use_beam_search", "; use n or sampling");
    if (asked(r, "functions")) refused(r, "functions", "; use tools");
    if (asked(r, "function_call")) refused(r, "function_call", "; use tools and tool_choice");
    if (asked(r, "audio")) refused(r, "audio", "");
    if (rd_bool(r, "background", &on) && on) refused(r, "background", "");
    if (asked(r, "conversation")) refused(r, "conversation", "; send the messages");
    if (asked(r, "chat_template") && (!r->a->opt->allow_request_template || reader_raw(r)))
        refused(r, "chat_template", "; the server allows it with --allow-request-template");
    if (rd_bool(r, "post_sampling_probs", &on) && on) refused(r, "post_sampling_probs", "");
    const json *m = rd_any(r, "modalities");
    if (m && m->type != JSON_ARRAY)
        reader_fail(r, "invalid_type", "modalities", "'modalities' must be an array");
    for (const json *j = m && m->type == JSON_ARRAY ? m->child : NULL; j; j = j->next)
        if (json_is(j, JSON_STRING) && !strcmp(j->str, "audio"))
            refused(r, "modalities", " with audio output");
}

/* T3 to T6 and J1, J2. */
static void read_form(params *p, reader *r)
{
    bool parallel = true;
    read_tool_choice(&p->form, r);
    read_constraint(&p->form, r);
    p->calls_off = p->form.tools == CHOOSE_NONE;
    if (r->kind == READ_CHAT && rd_bool(r, "parallel_tool_calls", &parallel))
        p->one_call = !parallel;
    if (p->form.tools == CHOOSE_NAMED) p->one_call = true; /* T4: exactly one */
}

/* ---- sampling -------------------------------------------------------------------------------- */

/* G4: on llama.cpp's, Ollama's and LM Studio's routes a seed of -1 asks for a random one. */
static bool minus_one_draws(const reader *r)
{
    return r->kind == READ_LLAMA || !strncmp(http_path(r->call), "/api/", 5);
}

static void read_numbers(params *p, reader *r)
{
    sampling *s = &p->s;
    double v;
    int64_t i;
    if (rd_num(r, "temperature", 0, 2, &v)) s->temperature = (float)v;
    if (rd_num(r, "top_p", 0, 1, &v)) s->top_p = (float)v;
    if (rd_num(r, "min_p", 0, 1, &v)) s->min_p = (float)v;
    if (rd_int(r, "top_k", -1, INT64_MAX, &i)) s->top_k = i > INT32_MAX ? INT32_MAX : (int)i;
    if (rd_num(r, "presence_penalty", -2, 2, &v)) s->presence = (float)v;
    if (rd_num(r, "frequency_penalty", -2, 2, &v)) s->frequency = (float)v;
    if (rd_num(r, "repeat_penalty", 0.01, 10, &v)) s->repetition = (float)v;
    if (rd_num(r, "repetition_penalty", 0.01, 10, &v)) s->repetition = (float)v;
    if (rd_int(r, "repeat_last_n", -1, engine_info(r->a->eng)->ctx, &i)) s->repeat_last_n = i;
    bool seeded = rd_int(r, "seed", INT64_MIN, INT64_MAX, &i);
    if (seeded && (i != -1 || !minus_one_draws(r))) {
        s->seed = (uint64_t)i;
    } else if (!r->failed) {
        uint64_t u = 0;
        if (getrandom(&u, sizeof u, 0) != sizeof u) u = (uint64_t)clock_us();
        s->seed = u >> 1; /* non-negative: it is reported and can be sent back */
        p->drawn_seed = true;
    }
    rd_bool(r, "ignore_eos", &s->ignore_eos);
    rd_bool(r, "include_stop_str_in_output", &s->include_stop);
    bool skip = true;
    if (rd_bool(r, "skip_special_tokens", &skip)) s->keep_special = !skip;
}

/* G5: max_completion_tokens > max_tokens > n_predict, but llama.cpp's routes call it n_predict
 * (V9); -1 = no limit. */
static void read_limits(params *p, reader *r)
{
    static const char *const name[] = {"n_predict", "max_tokens", "max_completion_tokens",
                                       "n_predict"};
    int first = r->kind == READ_LLAMA;
    int64_t v, lo = reader_raw(r) || r->zero_tokens ? 0 : 1;
    p->s.max_tokens = r->kind == READ_COMPLETIONS ? 16 : -1;
    for (int i = first; i < first + 3; i++) {
        const json *j = rd_any(r, name[i]);
        /* A limit of any size is legal; beyond int64 it is as good as the largest. */
        if (j && j->type == JSON_NUMBER && json_num(j) >= 0x1p63) v = INT64_MAX;
        else if (!j || !rd_int(r, name[i], -1, INT64_MAX, &v)) continue;
        if (v != -1 && v < lo)
            reader_fail(r, "invalid_value", name[i],
                        "'%s' must be at least %" PRId64 ", or -1 for no limit, got %" PRId64,
                        name[i], lo, v);
        p->s.max_tokens = v;
    }
    if (rd_int(r, "min_tokens", 0, INT64_MAX, &v)) p->s.min_tokens = v;
    if (!r->failed && p->s.max_tokens >= 0 && p->s.min_tokens > p->s.max_tokens)
        reader_fail(r, "invalid_value", "min_tokens",
                    "'min_tokens' (%" PRId64 ") must not be above the token limit (%" PRId64 ")",
                    p->s.min_tokens, p->s.max_tokens);
}

static void *array_of(reader *r, size_t n, size_t size)
{
    void *v = calloc(n + 1, size);
    if (!v) reader_oom(r);
    return v;
}

static void read_stops(params *p, reader *r)
{
    const json *j = rd_any(r, "stop");
    if (!j) return;
    const json *first = j->type == JSON_ARRAY ? j->child : j;
    size_t n = j->type == JSON_ARRAY ? j->len : 1;
    if (j->type != JSON_ARRAY && j->type != JSON_STRING) {
        reader_fail(r, "invalid_type", "stop",
                    "'stop' must be a string or an array of strings, got %s", json_type_name(j));
        return;
    }
    if (n > 16) {
        reader_fail(r, "invalid_value", "stop", "'stop' takes at most 16 strings, got %zu", n);
        return;
    }
    p->stop = array_of(r, n, sizeof *p->stop);
    p->stop_len = array_of(r, n, sizeof *p->stop_len);
    if (r->failed) return;
    for (size_t i = 0; i < n; i++, first = first->next) {
        char param[32] = "stop";
        if (j->type == JSON_ARRAY) snprintf(param, sizeof param, "stop[%zu]", i);
        if (first->type != JSON_STRING) {
            reader_fail(r, "invalid_type", param, "'%s' must be a string, got %s", param,
                        json_type_name(first));
        } else if (!first->len || first->len > 1024) {
            reader_fail(r, "invalid_value", param, "'%s' must have 1 to 1024 bytes, got %zu", param,
                        first->len);
        }
        if (r->failed) return;
        p->stop[i] = first->str;
        p->stop_len[i] = first->len;
    }
    p->s.stop = p->stop;
    p->s.stop_len = p->stop_len;
    p->s.n_stop = (int)n;
}

/* An array of token ids inside the vocabulary. */
static int32_t *read_ids(reader *r, const char *name, size_t lo, size_t hi, int *n)
{
    const json *j = rd_any(r, name);
    int n_vocab = engine_info(r->a->eng)->n_vocab;
    *n = 0;
    if (!j) return NULL;
    if (j->type != JSON_ARRAY) {
        reader_fail(r, "invalid_type", name, "'%s' must be an array of token ids, got %s", name,
                    json_type_name(j));
        return NULL;
    }
    if (j->len < lo || j->len > hi) {
        reader_fail(r, "invalid_value", name, "'%s' takes %zu to %zu token ids, got %zu", name, lo,
                    hi, j->len);
        return NULL;
    }
    int32_t *v = array_of(r, j->len, sizeof *v);
    for (const json *i = j->child; i && v; i = i->next) {
        int64_t id;
        char param[64];
        snprintf(param, sizeof param, "%s[%d]", name, *n);
        if (!json_int(i, &id))
            reader_fail(r, "invalid_type", param, "'%s' must be a token id", param);
        else if (id < 0 || id >= n_vocab)
            reader_fail(r, "invalid_value", param,
                        "'%s' must be a token id between 0 and %d, got %" PRId64, param,
                        n_vocab - 1, id);
        if (r->failed) break;
        v[(*n)++] = (int32_t)id;
    }
    return v;
}

/* One token's bias; value false bans it. */
static void put_bias(params *p, reader *r, const char *param, int64_t id, const json *v)
{
    int n_vocab = engine_info(r->a->eng)->n_vocab;
    bool off = json_is(v, JSON_FALSE) && r->kind == READ_LLAMA;
    if (id < 0 || id >= n_vocab)
        reader_fail(r, "invalid_value", param, "'%s' must name a token id between 0 and %d", param,
                    n_vocab - 1);
    else if (!json_is(v, JSON_NUMBER) && !off)
        reader_fail(r, "invalid_type", param, "'%s' must be a number between -100 and 100, got %s",
                    param, v ? json_type_name(v) : "nothing");
    else if (!off && !(json_num(v) >= -100 && json_num(v) <= 100))
        reader_fail(r, "invalid_value", param,
                    "'%s' must be a number between -100 and 100, got %.64s", param, v->str);
    if (r->failed) return;
    p->bias_id[p->s.n_bias] = (int32_t)id;
    p->bias[p->s.n_bias++] = off ? -100 : (float)json_num(v);
}

/* An object of id to number; llama.cpp's routes also take a list of [id, number or false]. */
static void read_bias(params *p, reader *r)
{
    const json *j = rd_any(r, "logit_bias");
    bool list = json_is(j, JSON_ARRAY) && r->kind == READ_LLAMA;
    int k = 0;
    if (!j) return;
    if (j->type != JSON_OBJECT && !list) {
        reader_fail(r, "invalid_type", "logit_bias",
                    "'logit_bias' must be an object of token id to number, got %s",
                    json_type_name(j));
        return;
    }
    if (j->len > 4096) {
        reader_fail(r, "invalid_value", "logit_bias",
                    "'logit_bias' takes at most 4096 tokens, got %zu", j->len);
        return;
    }
    p->bias_id = array_of(r, j->len, sizeof *p->bias_id);
    p->bias = array_of(r, j->len, sizeof *p->bias);
    for (const json *i = j->child; i && !r->failed; i = i->next, k++) {
        char param[80], *end;
        int64_t id = -1;
        if (list) {
            snprintf(param, sizeof param, "logit_bias[%d]", k);
            if (i->type != JSON_ARRAY || i->len != 2 || !json_int(i->child, &id))
                reader_fail(r, "invalid_type", param,
                            "'%s' must be a pair of a token id and a number or false", param);
            else put_bias(p, r, param, id, i->child->next);
            continue;
        }
        snprintf(param, sizeof param, "logit_bias.%.60s", i->key);
        id = strtoll(i->key, &end, 10);
        bool digits = i->n_key && i->n_key <= 10 && !*end && i->key[0] >= '0' && i->key[0] <= '9';
        put_bias(p, r, param, digits ? id : -1, i);
    }
    p->s.bias_id = p->bias_id;
    p->s.bias = p->bias;
}

static void read_bad_words(params *p, reader *r)
{
    const json *j = rd_any(r, "bad_words");
    if (!j && !p->calls_off) return;
    if (j && j->type != JSON_ARRAY) {
        reader_fail(r, "invalid_type", "bad_words",
                    "'bad_words' must be an array of strings, got %s", json_type_name(j));
        return;
    }
    if (j && j->len > 256) {
        reader_fail(r, "invalid_value", "bad_words",
                    "'bad_words' takes at most 256 strings, got %zu", j->len);
        return;
    }
    p->bad_word = array_of(r, (j ? j->len : 0) + 1, sizeof *p->bad_word);
    int n = 0;
    for (const json *i = j ? j->child : NULL; i && !r->failed; i = i->next) {
        char param[32];
        snprintf(param, sizeof param, "bad_words[%d]", n);
        if (i->type != JSON_STRING)
            reader_fail(r, "invalid_type", param, "'%s' must be a string, got %s", param,
                        json_type_name(i));
        else if (!i->len || i->len > 256)
            reader_fail(r, "invalid_value", param, "'%s' must have 1 to 256 bytes, got %zu", param,
                        i->len);
        if (r->failed) return;
        p->bad_word[n++] = i->str;
    }
    if (p->calls_off && !r->failed) /* T3: none */
        p->bad_word[n++] = call_opener(chat_format_calls(engine_info(r->a->eng)->chat));
    p->s.bad_word = p->bad_word;
    p->s.n_bad_word = n;
}

static void read_arrays(params *p, reader *r)
{
    read_stops(p, r);
    p->stop_id = read_ids(r, "stop_token_ids", 0, 64, &p->s.n_stop_id);
    p->s.stop_id = p->stop_id;
    p->allowed = read_ids(r, "allowed_token_ids", 1, 262144, &p->s.n_allowed);
    p->s.allowed = p->allowed;
    read_bias(p, r);
    read_bad_words(p, r);
}

/* B4: text comes from a model that generates. */
static void read_generates(reader *r, const char *model)
{
    const pooling *pool = engine_info(r->a->eng)->pool;
    if (r->failed || pool->generates) return;
    reader_fail(r, "unsupported_value", "model",
                "model '%.64s' does not generate text: it answers %s", model,
                pool->score ? "/rerank and /v1/score" : "/v1/embeddings");
}

bool params_read_pooled(params *p, reader *r)
{
    *p = (params){.cache_prompt = true};
    p->model = read_model(r);
    read_order_fields(p, r);
    if (!r->failed) read_unknown(r);
    return !r->failed;
}

bool params_read(params *p, reader *r)
{
    *p = (params){.n = 1,
                  .cache_prompt = true,
                  .show_reasoning = true,
                  .thinking = -1,
                  .think_budget = -1,
                  .prompt_logprobs = -1};
    p->model = read_model(r);
    if (!r->counts_only) read_generates(r, p->model);
    if (r->failed) return false;
    p->s = sampling_default(r->a->eng);
    read_refused(r);
    read_form(p, r);
    read_numbers(p, r);
    read_limits(p, r);
    read_arrays(p, r);
    read_reasoning_fields(p, r);
    read_output_fields(p, r);
    if (!r->failed) read_unknown(r);
    return !r->failed;
}

void params_clear(params *p)
{
    free(p->stop);
    free(p->stop_len);
    free(p->stop_id);
    free(p->bias_id);
    free(p->bias);
    free(p->allowed);
    free(p->bad_word);
    token_list_clear(&p->think_end);
    *p = (params){0};
}

void params_headers(const params *p, reader *r, int64_t clamped)
{
    if (r->ignored.len) http_add_header(r->call, "x-quern-ignored", "%s", r->ignored.v);
    if (p->drawn_seed) http_add_header(r->call, "x-quern-seed", "%" PRId64, (int64_t)p->s.seed);
    if (clamped > 0) http_add_header(r->call, "x-quern-clamped", "max_tokens=%" PRId64, clamped);
}
