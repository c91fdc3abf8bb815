/* file.h - whole files: read, map, write atomically.  Any thread. */
#ifndef QUERN_BASE_FILE_H
#define QUERN_BASE_FILE_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

/* A read-only private mapping of a whole regular file.  Owner calls file_unmap. */
typedef struct {
    const unsigned char *v; /* [len]; not NULL even when len is 0 */
    size_t len;             /* bytes */
} file_map;

/* Appends the file's bytes to out; refuses more than max bytes and anything but a regular file. */
int file_read(const char *path, size_t max, buf *out, err *e);
int file_map_open(const char *path, file_map *m, err *e);
void file_unmap(file_map *m);
/* Tells the kernel that v[off, off+n) is no longer needed (clean pages are dropped). */
void file_map_drop(const file_map *m, size_t off, size_t n);
/* Writes to path.tmp, syncs, renames. */
int file_write_atomic(const char *path, const void *p, size_t n, err *e);
bool file_exists(const char *path);
bool file_is_dir(const char *path);

#endif
