/* sysinfo.c - reads /proc and the cgroup file systems; see sysinfo.h.  Owns nothing.
 * Refuses nothing: a file that is absent or odd counts as "no limit there".  Thread: any. */
#include "base/sysinfo.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* cgroup v1 writes "no limit" as the largest page count. */
static const uint64_t UNLIMITED = (uint64_t)1 << 60;

/* At most cap - 1 bytes of a small file into t, 0-terminated; false if it cannot be read. */
static bool read_text(const char *path, char *t, size_t cap)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    size_t at = 0;
    ssize_t n;
    while (at < cap - 1 && (n = read(fd, t + at, cap - 1 - at)) > 0) at += (size_t)n;
    close(fd);
    t[at] = 0;
    return at > 0;
}

/* Number after the line-initial word `name` ("MemTotal:", "inactive_file"), 0 if absent. */
static uint64_t field(const char *text, const char *name)
{
    size_t n = strlen(name);
    for (const char *p = text; p; p = strchr(p, '\n')) {
        if (*p == '\n') p++;
        if (!strncmp(p, name, n) && isspace((unsigned char)p[n])) return strtoull(p + n, NULL, 10);
    }
    return 0;
}

/* The number in a one-number file; UNLIMITED for "max", absent files and v1's huge values. */
static uint64_t limit_in(const char *dir, const char *file)
{
    char path[PATH_MAX], t[64];
    if (snprintf(path, sizeof path, "%s/%s", dir, file) >= (int)sizeof path) return UNLIMITED;
    if (!read_text(path, t, sizeof t) || !isdigit((unsigned char)t[0])) return UNLIMITED;
    uint64_t v = strtoull(t, NULL, 10);
    return v < UNLIMITED ? v : UNLIMITED;
}

typedef struct {
    const char *limit, *usage, *inactive, *active; /* file names, fields of memory.stat */
} mem_files;
static const mem_files mem_v1 = {"memory.limit_in_bytes", "memory.usage_in_bytes",
                                 "total_inactive_file", "total_active_file"};
static const mem_files mem_v2 = {"memory.max", "memory.current", "inactive_file", "active_file"};

/* Lowers l by the memory limit of one cgroup directory.  Its page cache counts as available: the
 * kernel takes clean pages back before it refuses memory. */
static void apply_memory(const char *dir, const mem_files *f, sys_limits *l)
{
    uint64_t limit = limit_in(dir, f->limit), used = limit_in(dir, f->usage);
    if (limit == UNLIMITED) return;
    if (limit < l->mem_limit) l->mem_limit = limit;
    if (used == UNLIMITED) return;
    char path[PATH_MAX], stat[16384];
    uint64_t cache = 0;
    if (snprintf(path, sizeof path, "%s/memory.stat", dir) < (int)sizeof path &&
        read_text(path, stat, sizeof stat))
        cache = field(stat, f->inactive) + field(stat, f->active);
    used = used > cache ? used - cache : 0;
    uint64_t left = limit > used ? limit - used : 0;
    if (left < l->mem_available) l->mem_available = left;
}

static void apply_quota(uint64_t quota, uint64_t period, sys_limits *l)
{
    if (!quota || !period || quota >= UNLIMITED || period >= UNLIMITED) return;
    uint64_t cpus = (quota + period - 1) / period;
    if (cpus < (uint64_t)INT_MAX && (!l->quota_cpus || (int)cpus < l->quota_cpus))
        l->quota_cpus = (int)cpus;
}

static void apply_cpu_v2(const char *dir, sys_limits *l)
{
    char path[PATH_MAX], t[64], *end;
    if (snprintf(path, sizeof path, "%s/cpu.max", dir) >= (int)sizeof path) return;
    if (!read_text(path, t, sizeof t) || !isdigit((unsigned char)t[0])) return;
    uint64_t quota = strtoull(t, &end, 10);
    apply_quota(quota, strtoull(end, NULL, 10), l);
}

typedef enum { MEMORY_V1, CPU_V1, UNIFIED } cgroup_kind;

static void apply_dir(const char *dir, cgroup_kind kind, sys_limits *l)
{
    if (kind == MEMORY_V1) apply_memory(dir, &mem_v1, l);
    if (kind == CPU_V1)
        apply_quota(limit_in(dir, "cpu.cfs_quota_us"), limit_in(dir, "cpu.cfs_period_us"), l);
    if (kind == UNIFIED) {
        apply_memory(dir, &mem_v2, l);
        apply_cpu_v2(dir, l);
    }
}

/* Applies mount/path and every directory above it down to the mount itself.  Inside a container
 * the path may name a place outside the mount; then only the part that exists counts. */
static void apply_path(const char *root, const char *mount, const char *path, cgroup_kind kind,
                       sys_limits *l)
{
    char dir[PATH_MAX];
    int base = snprintf(dir, sizeof dir, "%s/sys/fs/cgroup%s", root, mount);
    if (base >= (int)sizeof dir) return;
    int n = snprintf(dir + base, sizeof dir - (size_t)base, "%s", path);
    if (n >= (int)sizeof dir - base) dir[base] = 0;
    for (;;) {
        apply_dir(dir, kind, l);
        char *slash = strrchr(dir + base, '/');
        if (!slash) return;
        *slash = 0;
    }
}

static bool has_word(const char *list, size_t n, const char *word)
{
    size_t w = strlen(word);
    for (size_t i = 0; i + w <= n; i++) {
        bool starts = i == 0 || list[i - 1] == ',', ends = i + w == n || list[i + w] == ',';
        if (starts && ends && !memcmp(list + i, word, w)) return true;
    }
    return false;
}

/* One line of /proc/self/cgroup: "id:controllers:/path". */
static void apply_line(const char *root, char *line, sys_limits *l)
{
    char *list = strchr(line, ':'), *path = list ? strchr(list + 1, ':') : NULL;
    if (!path || path[1] != '/' || strstr(path, "/..")) return;
    size_t n = (size_t)(path - ++list);
    path++;
    if (n == 0) {
        apply_path(root, "", path, UNIFIED, l);
        apply_path(root, "/unified", path, UNIFIED, l);
    }
    if (has_word(list, n, "memory")) apply_path(root, "/memory", path, MEMORY_V1, l);
    if (has_word(list, n, "cpu")) {
        apply_path(root, "/cpu", path, CPU_V1, l);
        apply_path(root, "/cpu,cpuacct", path, CPU_V1, l);
    }
}

sys_limits sys_limits_under(const char *root)
{
    char path[PATH_MAX], text[16384] = "", *save = NULL;
    sys_limits l = {0};
    if (snprintf(path, sizeof path, "%s/proc/meminfo", root) < (int)sizeof path &&
        read_text(path, text, sizeof text)) {
        l.mem_limit = field(text, "MemTotal:") << 10;
        l.mem_available = field(text, "MemAvailable:") << 10;
    }
    text[0] = 0;
    if (snprintf(path, sizeof path, "%s/proc/self/cgroup", root) < (int)sizeof path)
        read_text(path, text, sizeof text);
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        apply_line(root, line, &l);
    return l;
}

uint64_t sys_mem_limit(void)
{
    return sys_limits_under("").mem_limit;
}

uint64_t sys_mem_available(void)
{
    return sys_limits_under("").mem_available;
}

int sys_cpus(void)
{
    int quota = sys_limits_under("").quota_cpus, n = 0;
    /* The kernel's mask may be wider than one cpu_set_t; grow until it fits. */
    for (int cap = 1024; cap <= 1 << 20 && !n; cap *= 4) {
        cpu_set_t *set = CPU_ALLOC((size_t)cap);
        if (!set) break;
        size_t size = CPU_ALLOC_SIZE((size_t)cap);
        if (sched_getaffinity(0, size, set) == 0) n = CPU_COUNT_S(size, set);
        CPU_FREE(set);
    }
    if (n < 1) n = 1;
    return quota && quota < n ? quota : n;
}

uint64_t sys_rss(void)
{
    char t[256];
    unsigned long long size, resident;
    if (!read_text("/proc/self/statm", t, sizeof t)) return 0;
    if (sscanf(t, "%llu %llu", &size, &resident) != 2) return 0;
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

int sys_open_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    if (!d) return 0;
    int n = 0;
    for (struct dirent *f; (f = readdir(d));) n += f->d_name[0] != '.';
    closedir(d);
    return n - 1; /* the directory's own */
}

double sys_cpu_seconds(void)
{
    struct rusage u;
    if (getrusage(RUSAGE_SELF, &u) != 0) return 0;
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}
