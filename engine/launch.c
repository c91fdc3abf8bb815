/* launch.c - see launch.h.  Owns nothing.  Refuses what loading the plug-in refuses. */
#include "engine/launch.h"
#include "base/file.h"
#include "base/sysinfo.h"
#include "kernels/comm_procs.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What telling the clients and leaving may take before the launcher kills. */
#define ENDING_S 0.75
/* A rank that has not answered by then is gone, and its requests are told so. */
#define MISSED_S 0.15

/* Where a rank runs. */
typedef struct {
    char boot[40]; /* of the kernel: one host, whatever its names */
    cpu_set_t cpus;
} place;

bool launch_found(void)
{
    return comm_procs_launched();
}

static place own_place(void)
{
    place p;
    buf boot = {0};
    memset(&p, 0, sizeof p);
    if (!file_read("/proc/sys/kernel/random/boot_id", sizeof p.boot - 1, &boot, NULL))
        snprintf(p.boot, sizeof p.boot, "%.36s", buf_str(&boot));
    buf_clear(&boot);
    sched_getaffinity(0, sizeof p.cpus, &p.cpus);
    return p;
}

/* Ranks whose processors overlap with ours share them; a launcher that bound each to cores of its
 * own has done so already. */
static void find_share(launch *l, const place *all)
{
    int sharing = 1, cpus = sys_cpus();
    const place *own = &all[l->rank];
    for (int r = 0; r < l->world; r++) {
        cpu_set_t both;
        if (r != l->rank &&
            (!own->boot[0] || memcmp(all[r].boot, own->boot, sizeof own->boot) != 0))
            continue;
        l->here++;
        CPU_AND(&both, &all[r].cpus, &own->cpus);
        sharing += r != l->rank && CPU_COUNT(&both) > 0;
    }
    l->threads = cpus / sharing > 0 ? cpus / sharing : 1;
}

int launch_join(launch *l, double timeout_s, err *e)
{
    place all[COMM_MAX_RANKS], own = own_place();
    *l = (launch){.world = 1, .here = 1};
    comm *c = comm_procs_open(timeout_s, e);
    if (!c) return e && e->code ? e->code : ERR_DEVICE;
    if (c->world == 1) {
        comm_close(c);
        return 0;
    }
    *l = (launch){.c = c, .rank = c->rank, .world = c->world};
    int rc = c->op->exchange(c, all, &own, sizeof own, e);
    if (!rc) find_share(l, all);
    else launch_give_up(l, e ? e->msg : "cannot join");
    return rc;
}

void launch_give_up(launch *l, const char *why)
{
    if (!l->c) return;
    comm_abort(l->c, "%s", why);
    comm_close(l->c);
    l->c = NULL;
}

double launch_grace(void)
{
    /* Open MPI's time between its signals, in seconds; its default is one. */
    const char *text = getenv("OMPI_MCA_odls_base_sigkill_timeout");
    double s = text ? strtod(text, NULL) : 1;
    return s > 1 ? s - ENDING_S : 1 - ENDING_S;
}

void launch_hurry(void)
{
    comm_procs_hurry(launch_grace() + MISSED_S);
}

bool launch_lost(const launch *l, err *e)
{
    char why[200];
    if (!l->c || !comm_procs_lost(l->c, why, sizeof why)) return false;
    err_set(e, ERR_DEVICE, "%s", why);
    return true;
}
