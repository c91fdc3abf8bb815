/* app.h - what every handler reaches: options, engine, gate, names, start-up facts.
 * Owned by cmd_serve.c; const after start-up except the two atomics. */
#ifndef QUERN_SERVER_APP_H
#define QUERN_SERVER_APP_H

#include "config/options.h"
#include "engine/engine.h"
#include "engine/grammar/cache.h"
#include "server/gate.h"
#include "server/response_store.h"
#include "version.h"

#include <stdatomic.h>

typedef struct app {
    const options *opt;
    engine *eng;
    gate *gate;
    str_list names;             /* served names; names.v[0] is the primary; may end in '*' */
    json_doc *kwargs_doc;       /* --default-chat-template-kwargs, or NULL */
    long long effort_budget[3]; /* --effort-budgets: tokens of thought, -1 none (R5) */
    char fingerprint[16];       /* "fp_" + 10 hex (G15) */
    int64_t start_unix;
    _Atomic int64_t load_unix; /* 0 while loading */
    _Atomic double load_seconds;
    atomic_bool draining; /* H18 */
    response_store *responses;
    grammar_cache *grammars;
    struct http_server *http;
} app;

/* The alias that a requested name matches (V8), NULL if none.  For a '*' alias or --any-model the
 * requested name itself.  name NULL or "" = the primary. */
const char *app_match_model(const app *a, const char *name);
/* The number of parameters as people write it: "7.6B". */
void app_model_size(const app *a, char out[32]);
/* 0 and nothing, or the status/code of a refusal while loading, draining or failed. */
int app_not_ready(const app *a, const char **code, const char **msg);

#endif
