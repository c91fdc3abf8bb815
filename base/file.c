/* file.c - whole-file helpers; see file.h.  Any thread. */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int open_regular(const char *path, struct stat *st, err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        int code = errno == ENOENT ? ERR_NOTFOUND : ERR_IO;
        return err_set(e, code, "cannot open '%s': %s", path, strerror(errno));
    }
    if (fstat(fd, st) != 0 || !S_ISREG(st->st_mode)) {
        close(fd);
        return err_set(e, ERR_INVALID, "'%s' is not a regular file", path);
    }
    return fd;
}

int file_read(const char *path, size_t max, buf *out, err *e)
{
    struct stat st;
    int fd = open_regular(path, &st, e);
    if (fd < 0) return fd;
    if ((uint64_t)st.st_size > max) {
        close(fd);
        return err_set(e, ERR_LIMIT, "'%s' has %lld bytes, more than the %zu accepted", path,
                       (long long)st.st_size, max);
    }
    char chunk[65536];
    size_t got = 0;
    ssize_t n;
    while ((n = read(fd, chunk, sizeof chunk)) != 0) {
        if (n < 0) {
            if (errno == EINTR) continue;
            int saved = errno;
            close(fd);
            return err_set(e, ERR_IO, "cannot read '%s': %s", path, strerror(saved));
        }
        got += (size_t)n;
        if (got > max) {
            close(fd);
            return err_set(e, ERR_LIMIT, "'%s' grew beyond %zu bytes while being read", path, max);
        }
        buf_put(out, chunk, (size_t)n);
    }
    close(fd);
    if (!buf_ok(out)) return err_set(e, ERR_NOMEM, "out of memory reading '%s'", path);
    return 0;
}

int file_map_open(const char *path, file_map *m, err *e)
{
    struct stat st;
    *m = (file_map){0};
    int fd = open_regular(path, &st, e);
    if (fd < 0) return fd;
    if (st.st_size == 0) {
        close(fd);
        m->v = (const unsigned char *)"";
        return 0;
    }
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    int saved = errno;
    close(fd);
    if (p == MAP_FAILED) return err_set(e, ERR_IO, "cannot map '%s': %s", path, strerror(saved));
    m->v = p;
    m->len = (size_t)st.st_size;
    return 0;
}

void file_unmap(file_map *m)
{
    if (m->len) munmap((void *)(uintptr_t)m->v, m->len);
    *m = (file_map){0};
}

void file_map_drop(const file_map *m, size_t off, size_t n)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t from = (off + page - 1) / page * page, to = (off + n) / page * page;
    if (to > from && to <= m->len)
        madvise((void *)(uintptr_t)(m->v + from), to - from, MADV_DONTNEED);
}

int file_write_atomic(const char *path, const void *p, size_t n, err *e)
{
    buf tmp = {0};
    buf_printf(&tmp, "%s.tmp", path);
    if (!buf_ok(&tmp)) return err_set(e, ERR_NOMEM, "out of memory");
    int rc = 0, fd = open(tmp.v, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) {
        rc = err_set(e, ERR_IO, "cannot create '%s': %s", tmp.v, strerror(errno));
        goto out;
    }
    for (size_t at = 0; at < n;) {
        ssize_t w = write(fd, (const char *)p + at, n - at);
        if (w < 0 && errno == EINTR) continue;
        if (w <= 0) {
            rc = err_set(e, ERR_IO, "cannot write '%s': %s", tmp.v, strerror(errno));
            break;
        }
        at += (size_t)w;
    }
    if (!rc && fsync(fd) != 0)
        rc = err_set(e, ERR_IO, "cannot sync '%s': %s", tmp.v, strerror(errno));
    close(fd);
    if (!rc && rename(tmp.v, path) != 0)
        rc = err_set(e, ERR_IO, "cannot rename '%s': %s", tmp.v, strerror(errno));
    if (rc) unlink(tmp.v);
out:
    buf_clear(&tmp);
    return rc;
}

bool file_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

bool file_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}
