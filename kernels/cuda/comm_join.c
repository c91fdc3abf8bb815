/* comm_join.c - which collectives the ranks' devices allow, and what passes on to the host's comm.
 * Owns nothing.  Refuses: GPUs of their own without NCCL (the message says what to install).
 * Thread: the rank's. */
#include "base/file.h"
#include "base/log.h"
#include "kernels/cuda/comm_device.h"
#include "kernels/cuda/cuda.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int around_exchange(comm *c, void *dst, const void *src, size_t bytes, err *e)
{
    comm *host = ((around *)c->state)->host;
    return host->op->exchange(host, dst, src, bytes, e);
}

int around_send(comm *c, const void *msg, size_t bytes, err *e)
{
    comm *host = ((around *)c->state)->host;
    return host->op->send(host, msg, bytes, e);
}

int around_receive(comm *c, const void **msg, size_t *bytes, err *e)
{
    comm *host = ((around *)c->state)->host;
    return host->op->receive(host, msg, bytes, e);
}

int around_barrier(comm *c, double timeout_s, err *e)
{
    comm *host = ((around *)c->state)->host;
    return host->op->barrier(host, timeout_s, e);
}

static device_place own_place(const backend *be, struct virtual_room *m)
{
    device_place p;
    struct stat st;
    buf boot = {0};
    memset(&p, 0, sizeof p); /* it is compared and sent as bytes */
    if (!file_read("/proc/sys/kernel/random/boot_id", sizeof p.boot - 1, &boot, NULL))
        snprintf(p.boot, sizeof p.boot, "%.36s", buf_str(&boot));
    buf_clear(&boot);
    if (!stat("/proc/self/ns/pid", &st)) p.space = (int64_t)st.st_ino;
    p.pid = getpid();
    p.device = gpu_device(((const cuda_state *)be->state)->dev);
    p.emulated = ((const cuda_state *)be->state)->info.emulated;
    p.room = m;
    return p;
}

static bool same_host(const device_place *a, const device_place *b)
{
    return a->boot[0] && !memcmp(a->boot, b->boot, sizeof a->boot);
}

static bool same_process(const device_place *a, const device_place *b)
{
    return same_host(a, b) && a->pid == b->pid && a->space == b->space;
}

typedef enum { SHARE_DEVICE, OWN_DEVICES, THROUGH_HOST } arrangement;

/* Every rank sees the same places and comes to the same result. */
static arrangement arrange(const device_place *all, int world)
{
    bool together = true, apart = true;
    for (int i = 0; i < world; i++)
        for (int k = 0; k < i; k++) {
            bool one = all[i].device == all[k].device;
            together &= same_process(&all[i], &all[k]) && (one || all[i].emulated);
            apart &= !all[i].emulated && !(one && same_host(&all[i], &all[k]));
        }
    return together ? SHARE_DEVICE : apart ? OWN_DEVICES : THROUGH_HOST;
}

comm *cuda_join(backend *be, comm *host, err *e)
{
    device_place all[COMM_MAX_RANKS];
    struct virtual_room *m = host->rank == 0 ? virtual_room_new(host->world) : NULL;
    if (host->rank == 0 && !m) {
        err_set(e, ERR_NOMEM, "out of memory");
        return NULL;
    }
    const device_place own = own_place(be, m);
    if (host->op->exchange(host, all, &own, sizeof own, e)) {
        virtual_room_free(m);
        return NULL;
    }
    arrangement way = arrange(all, host->world);
    if (way == SHARE_DEVICE) return comm_virtual_open(be, host, all[0].room, e);
    virtual_room_free(m);
    if (way == OWN_DEVICES) return comm_nccl_open(be, host, e);
    if (host->rank == 0)
        log_warn("ranks in several processes share a device: their sums go through host memory; "
                 "give each rank a device of its own (--device cuda:0,1)");
    return host;
}
