/* serve_ranks.c - `quern serve` in several processes: see serve_ranks.h.  A rank above 0 opens no
 * port; it computes what rank 0 tells it to, and ends when rank 0 does.
 * Owns the thread that follows.  Refuses a --tensor-parallel-size that is not the number of
 * processes.  Thread: main. */
#include "server/serve_ranks.h"
#include "server/cmd_model.h"

#include "base/log.h"
#include "base/thread.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int serve_join(launch *l, const options *o, engine_options *eo, err *e)
{
    *l = (launch){.world = 1};
    if (!launch_found()) return 0;
    int rc = launch_join(l, o->collective_timeout, e);
    if (rc || !l->c) return rc;
    int asked = (int)o->tensor_parallel_size;
    if (asked > 1 && asked != l->world) {
        rc = err_set(e, ERR_INVALID,
                     "--tensor-parallel-size %d, but %d processes were started: leave the option "
                     "out, or make them equal",
                     asked, l->world);
        launch_give_up(l, e->msg);
        return rc;
    }
    eo->ranks = l->c;
    eo->ranks_here = l->here;
    eo->tensor_parallel = l->world;
    if (!eo->threads) eo->threads = l->threads;
    return 0;
}

typedef struct {
    launch *l;
    const engine_options *o;
    err e;
    int rc;
} follower;

static void *follow(void *arg)
{
    follower *f = arg;
    f->rc = engine_follow(f->o, f->l->c, &f->e);
    kill(getpid(), SIGUSR1); /* main waits for signals */
    return NULL;
}

int serve_follow(launch *l, const engine_options *eo, const sigset_t *set)
{
    follower f = {.l = l, .o = eo};
    pthread_t th;
    err e = {0};
    bool launcher, ending = false;
    log_info("rank %d of %d: follows rank 0, with %d threads", l->rank, l->world, eo->threads);
    if (thread_start(&th, "the thread of the rank", follow, &f, &e)) {
        log_error("%s", e.msg);
        launch_give_up(l, e.msg);
        return 1;
    }
    for (;;) {
        int s = serve_wait(set, 60000, &launcher);
        if (s == SIGUSR1) break;
        if (s != SIGTERM && s != SIGINT) continue;
        /* Requests may still be running: rank 0 says when it is over, and is missed if it cannot.
         */
        if (ending) {
            log_writer_stop();
            _exit(1);
        }
        ending = true;
        if (launcher) launch_hurry();
        else log_info("rank %d ends when rank 0 does (a second signal ends it now)", l->rank);
    }
    pthread_join(th, NULL);
    if (!f.rc) return 0;
    log_error("rank %d ends: %s", l->rank, f.e.msg[0] ? f.e.msg : err_words(f.rc));
    return exit_code(&f.e);
}

double serve_hurry(double limit_s)
{
    launch_hurry();
    return limit_s < launch_grace() ? limit_s : launch_grace();
}

int serve_wait(const sigset_t *set, int ms, bool *launcher)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000L};
    siginfo_t info = {0};
    int s = sigtimedwait(set, &info, &t);
    if (launcher) *launcher = s > 0 && info.si_pid == getppid();
    return s > 0 ? s : 0;
}
