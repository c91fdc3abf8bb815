/* engine_impl.h - inside the engine: what engine.c opens and closes, engine_memory.c plans and
 * the files of engine_loop.h run.  Tests include it to put a runner of their own under a whole
 * engine.  Thread: said at each part. */
#ifndef QUERN_ENGINE_ENGINE_IMPL_H
#define QUERN_ENGINE_ENGINE_IMPL_H

#include "config/checkpoint.h"
#include "engine/constrain.h"
#include "engine/engine_stats.h"
#include "engine/model.h"
#include "engine/pooled.h"
#include "engine/ranks.h"
#include "engine/request.h"
#include "engine/runner.h"
#include "engine/slots.h"
#include "engine/step.h"

/* Steps that may be started and not finished: while one runs, the next is planned and started. */
enum { STEPS_OPEN = 2 };

struct engine {
    /* Const after engine_open. */
    checkpoint *ckpt; /* NULL after loading, and in tests */
    model_config conf;
    tokenizer *tok;
    chat_format *chat;
    uint64_t template_hash; /* of the template and the operator's variables for it */
    ranks *ranks;           /* NULL in tests */
    backend *be;            /* of rank 0, theirs */
    model_options mo;
    sched_options so;
    engine_info_t info;
    char name[256], arch[32], quantization[48];
    sampling_base base;
    sampling defaults;
    pool_judge judge;
    judge_form ask; /* of a model that judges */
    bool allow_priority, dump_plan;
    size_t scratch_bytes;
    inbox *in;
    constrainer *forms; /* NULL without a tokenizer */
    /* Loading thread, then the engine thread. */
    model *m; /* rank 0's share, of ranks */
    runner *run;
    kvpool *pool;
    sched sched;
    step step[STEPS_OPEN]; /* step[n % STEPS_OPEN] is the n-th started */
    uint64_t n_started, n_finished;
    /* Guesses of c's next tokens beside those of grammars (for tests): writes up to cap of them,
     * returns how many.  The step that computes guesses also draws behind each, and what was drawn
     * stands: wrong ones cost rows, never bits.  NULL: none are made. */
    int (*draft)(struct engine *g, choice *c, int32_t *tok /* [cap] */, int cap);
    bool no_drafts;        /* for tests: none of grammars either */
    request *first, *last; /* requests with a live choice */
    int n_live;            /* of them */
    uint64_t order;        /* arrivals */
    int64_t next_deadline; /* INT64_MAX = none */
    pthread_t thread;
    bool started;
    /* Any thread. */
    live_stats stats;
    slots slots;
    _Atomic int state; /* engine_state; fault is written before FAILED */
    char fault[200];
    _Atomic int64_t beat_us;
    _Atomic double progress;
    /* Submitting threads, made when first needed. */
    pthread_mutex_t order_mu;
    vocab_order vocab;
    bool vocab_ready;
};

/* Chooses context, sequences and KV blocks for the opened checkpoint and backend; fills mo, so and
 * info.  Fails if the weights or a smallest useful cache do not fit. */
int engine_plan_memory(engine *g, const engine_options *o, err *e);
/* Hash over everything that must be equal for equal output (API G4); reads a little of each tensor.
 */
uint64_t engine_fingerprint(const engine *g);
uint64_t engine_hash_template(const char *text, size_t n, const json *kwargs,
                              const char *tool_format);

/* Changes state and what submits are answered (0 or ERR_*), together.  A failed engine stays
 * failed, a draining one never becomes ready. */
void engine_enter(engine *g, engine_state to, int refuse);
/* The engine thread; arg is the engine. */
void *engine_loop(void *arg);
/* Ends every request still there; after the thread was joined. */
void engine_fail_all(engine *g, request *fresh, int code);

/* For tests: an engine around any runner; no checkpoint, no template; text only if tok. */
typedef struct {
    int n_vocab, kv_block, n_blocks;
    int hidden; /* width of the states the runner pools; 0: it pools none */
    pooling pool;
    int64_t ctx;
    tokenizer *tok;        /* borrowed, may be NULL */
    const int32_t *end_id; /* [n_end] */
    int n_end;
} engine_shape;
engine *engine_open_runner(const engine_options *o, const engine_shape *shape, runner *run, err *e);

#endif
