/* sysinfo.h - what this process may use of the machine and what it uses: memory and processors
 * within cgroup (v1 and v2) limits and affinity, resident size, open files, processor time.
 * Everything is read anew at each call; a figure the system does not give is 0 (no limit: the
 * machine's own).  Thread: any. */
#ifndef QUERN_BASE_SYSINFO_H
#define QUERN_BASE_SYSINFO_H

#include <stdint.h>

/* Bytes this process may use in all: physical memory, or the smallest cgroup limit above it. */
uint64_t sys_mem_limit(void);
/* Bytes it could still take without swapping: free and reclaimable memory of the machine, and in
 * every cgroup above it the limit less what is used and cannot be reclaimed. */
uint64_t sys_mem_available(void);
/* Processors it may keep busy: affinity mask, and the cgroup quota rounded up; at least 1. */
int sys_cpus(void);

/* Bytes resident now. */
uint64_t sys_rss(void);
/* Open file descriptors. */
int sys_open_fds(void);
/* User and system time so far, seconds. */
double sys_cpu_seconds(void);

/* The first three with every path read under a directory instead of "/" (tests). */
typedef struct {
    uint64_t mem_limit, mem_available;
    int quota_cpus; /* 0 = no quota */
} sys_limits;
sys_limits sys_limits_under(const char *root);

#endif
