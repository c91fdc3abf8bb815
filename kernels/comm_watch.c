/* comm_watch.c - a process descriptor (pidfd) for every other rank of this machine, and a thread
 * that polls them.  Owns both.  Refuses nothing: what cannot be watched is not.  Thread: its own.
 */
#include "kernels/comm_watch.h"
#include "base/file.h"
#include "base/thread.h"

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Who a rank is: its process, and the kernel and namespace in which that number means something. */
typedef struct {
    int64_t pid;
    uint64_t space; /* inode of the process namespace */
    char boot[40];  /* of the kernel; "" where it does not say */
} identity;

struct comm_watch {
    comm *c;
    pthread_t thread;
    int n;
    struct pollfd fd[COMM_MAX_RANKS + 1]; /* [0] ends the thread */
    int rank[COMM_MAX_RANKS + 1];
    int64_t pid[COMM_MAX_RANKS + 1];
};

static identity own_identity(void)
{
    identity id = {.pid = getpid()};
    struct stat st;
    buf boot = {0};
    if (!stat("/proc/self/ns/pid", &st)) id.space = st.st_ino;
    if (!file_read("/proc/sys/kernel/random/boot_id", sizeof id.boot, &boot, NULL))
        snprintf(id.boot, sizeof id.boot, "%.36s", buf_str(&boot));
    buf_clear(&boot);
    return id;
}

static void *watch(void *arg)
{
    comm_watch *w = arg;
    for (;;) {
        if (poll(w->fd, (nfds_t)w->n, -1) < 0) continue; /* a signal */
        if (w->fd[0].revents) return NULL;
        for (int i = 1; i < w->n; i++) {
            char why[160];
            if (!w->fd[i].revents) continue;
            snprintf(why, sizeof why, "rank %d (process %lld) has ended", w->rank[i],
                     (long long)w->pid[i]);
            w->c->op->abort(w->c, why);
            return NULL;
        }
    }
}

static void close_all(comm_watch *w)
{
    for (int i = 0; i < w->n; i++) close(w->fd[i].fd);
    free(w);
}

/* Descriptors of those who share our kernel and namespace. */
static void open_all(comm_watch *w, const identity *all)
{
    const identity *own = &all[w->c->rank];
    for (int r = 0; r < w->c->world && own->boot[0] && own->space; r++) {
        if (r == w->c->rank || all[r].space != own->space || strcmp(all[r].boot, own->boot) != 0)
            continue;
        int fd = (int)syscall(SYS_pidfd_open, (pid_t)all[r].pid, 0);
        if (fd < 0) continue;
        w->fd[w->n] = (struct pollfd){fd, POLLIN, 0};
        w->rank[w->n] = r;
        w->pid[w->n++] = all[r].pid;
    }
}

int comm_watch_start(comm_watch **out, comm *c, err *e)
{
    identity all[COMM_MAX_RANKS], own = own_identity();
    *out = NULL;
    int rc = c->op->exchange(c, all, &own, sizeof own, e);
    if (rc) return rc;
    comm_watch *w = calloc(1, sizeof *w);
    if (!w) return err_set(e, ERR_NOMEM, "out of memory");
    int end = eventfd(0, EFD_CLOEXEC);
    if (end < 0) {
        free(w);
        return err_set(e, ERR_IO, "cannot make an event descriptor: too many open files?");
    }
    w->c = c;
    w->fd[0] = (struct pollfd){end, POLLIN, 0};
    w->n = 1;
    for (int r = 0; r < c->world; r++) all[r].boot[sizeof all[r].boot - 1] = 0;
    open_all(w, all);
    if (w->n > 1) rc = thread_start(&w->thread, "the thread that watches the ranks", watch, w, e);
    if (w->n > 1 && !rc) *out = w;
    else close_all(w);
    return rc;
}

void comm_watch_stop(comm_watch *w)
{
    uint64_t one = 1;
    if (!w) return;
    if (write(w->fd[0].fd, &one, sizeof one) == sizeof one) pthread_join(w->thread, NULL);
    close_all(w);
}
