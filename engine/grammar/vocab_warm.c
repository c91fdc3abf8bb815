/* vocab_warm.c - the local masks that most grammars need, made before the first request.
 * Owns nothing.  Errors: ERR_NOMEM.  Thread: the builder's. */
#include "engine/grammar/gmatch.h"
#include "engine/grammar/masks.h"

/* Texts whose states between two bytes are those of any schema and any thought. */
static int warm(const grammar_vocab *v, const grammar_answer *a, const char *text)
{
    grammar *g = NULL;
    grammar_error why;
    int rc = grammar_compile_answer(a, &g, &why);
    if (rc) return rc;
    mask_cache *c = mask_cache_of(g, v);
    uint32_t at = g->g.start;
    if (!c) rc = ERR_NOMEM;
    for (; !rc; text++) {
        mask_allow(c, &g->g, UINT64_MAX, UINT64_MAX);
        gmask_release(mask_of(c, &g->g, at));
        if (!*text) break;
        at = gram_step(&g->g, at, (uint8_t)*text);
        rc = g->g.r.status;
    }
    grammar_release(g);
    return rc == ERR_NOMEM ? rc : 0;
}

/* Text and thoughts in front of calls, in every format: their masks are the dearest. */
static int warm_calls(const grammar_vocab *v)
{
    const grammar_tool tool = {.name = "f", .strict = true, .allowed = true};
    int rc = 0;
    for (int f = CALLS_HERMES; f <= CALLS_FUNCTION && !rc; f++)
        for (int t = GRAMMAR_THINK_NONE; t <= GRAMMAR_THINK_OPEN && !rc; t++) {
            const grammar_answer a = {.think = (grammar_think)t,
                                      .calls = GRAMMAR_CALLS_AUTO,
                                      .format = (call_format)f,
                                      .tools = &tool,
                                      .n_tools = 1};
            rc = warm(v, &a, "a <");
        }
    return rc;
}

int vocab_warm(const grammar_vocab *v)
{
    const grammar_spec any = {.kind = GRAMMAR_JSON_OBJECT};
    const grammar_answer plain = {.body = &any},
                         thought = {.think = GRAMMAR_THINK_OPEN, .body = &any};
    int rc = warm_calls(v);
    if (!rc) rc = warm(v, &plain, "{ \"a\\n\" : [ -10.5e+3 , true, null, \"\\u00e9\xc3\xa9\"]}");
    return rc ? rc : warm(v, &thought, "so <b>\n</thi</think>\n\n");
}
