/* test_sysinfo.c - cgroup limits of both versions from made-up /proc and /sys trees; the process's
 * own figures against what it just did. */
#include "base/file.h"
#include "base/sysinfo.h"

#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char root[64];

/* Writes text to root/path, making the directories. */
static void put(const char *path, const char *text)
{
    char full[512];
    err e = {0};
    snprintf(full, sizeof full, "%s/%s", root, path);
    for (char *p = full + strlen(root) + 1; (p = strchr(p, '/')); p++) {
        *p = 0;
        mkdir(full, 0755);
        *p = '/';
    }
    ck_assert_msg(file_write_atomic(full, text, strlen(text), &e) == 0, "%s", e.msg);
}

static void setup(void)
{
    strcpy(root, "/tmp/quern-sysinfo-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(root));
    put("proc/meminfo", "MemTotal:       1000 kB\nMemFree: 1 kB\nMemAvailable:    600 kB\n");
}

static void teardown(void)
{
    char cmd[128];
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", root);
    ck_assert_int_eq(system(cmd), 0);
}

START_TEST(machine_only)
{
    sys_limits l = sys_limits_under(root);
    ck_assert_uint_eq(l.mem_limit, 1000 * 1024);
    ck_assert_uint_eq(l.mem_available, 600 * 1024);
    ck_assert_int_eq(l.quota_cpus, 0);
}
END_TEST

START_TEST(unified)
{
    put("proc/self/cgroup", "0::/pods/one\n");
    put("sys/fs/cgroup/pods/one/memory.max", "max\n");
    put("sys/fs/cgroup/pods/one/cpu.max", "max 100000\n");
    put("sys/fs/cgroup/pods/memory.max", "400000\n");
    put("sys/fs/cgroup/pods/memory.current", "300000\n");
    put("sys/fs/cgroup/pods/memory.stat", "anon 1\ninactive_file 50000\nactive_file 7000\n");
    put("sys/fs/cgroup/pods/cpu.max", "150000 100000\n");
    sys_limits l = sys_limits_under(root);
    ck_assert_uint_eq(l.mem_limit, 400000);
    ck_assert_uint_eq(l.mem_available, 157000);
    ck_assert_int_eq(l.quota_cpus, 2);
}
END_TEST

START_TEST(version_one)
{
    put("proc/self/cgroup", "9:name=systemd:/x\n4:memory:/outside\n3:cpu,cpuacct:/q\n0::/\n");
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "500000\n");
    put("sys/fs/cgroup/memory/memory.usage_in_bytes", "600000\n");
    put("sys/fs/cgroup/memory/memory.stat", "cache 5\ntotal_inactive_file 150000\n");
    put("sys/fs/cgroup/cpu,cpuacct/q/cpu.cfs_quota_us", "300000\n");
    put("sys/fs/cgroup/cpu,cpuacct/q/cpu.cfs_period_us", "100000\n");
    sys_limits l = sys_limits_under(root);
    ck_assert_uint_eq(l.mem_limit, 500000);
    ck_assert_uint_eq(l.mem_available, 50000);
    ck_assert_int_eq(l.quota_cpus, 3);
}
END_TEST

START_TEST(no_limits)
{
    put("proc/self/cgroup", "4:memory:/\n1:cpu:/\nodd line\n::\n0::relative\n0::/../up\n");
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    put("sys/fs/cgroup/memory/memory.usage_in_bytes", "600000\n");
    put("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
    put("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    sys_limits l = sys_limits_under(root);
    ck_assert_uint_eq(l.mem_limit, 1000 * 1024);
    ck_assert_uint_eq(l.mem_available, 600 * 1024);
    ck_assert_int_eq(l.quota_cpus, 0);
}
END_TEST

START_TEST(own_figures)
{
    size_t n = 64 << 20;
    int before = sys_open_fds(), fd = open("/dev/null", O_RDONLY);
    ck_assert_int_eq(sys_open_fds(), before + 1);
    close(fd);
    ck_assert_int_eq(sys_open_fds(), before);

    uint64_t rss = sys_rss();
    char *p = malloc(n);
    memset(p, 1, n);
    __asm__ volatile("" : : "r"(p) : "memory"); /* the bytes are wanted */
    ck_assert_uint_ge(sys_rss(), rss + n / 2);
    free(p);

    double cpu = sys_cpu_seconds();
    volatile unsigned spin = 0;
    while (sys_cpu_seconds() < cpu + 0.01) spin++;
    ck_assert_uint_gt(sys_mem_limit(), 0);
    ck_assert_uint_gt(sys_mem_available(), 0);
    ck_assert_uint_le(sys_mem_available(), sys_mem_limit());
    ck_assert_int_ge(sys_cpus(), 1);
    ck_assert_int_le(sys_cpus(), (int)sysconf(_SC_NPROCESSORS_CONF));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("sysinfo");
    TCase *t = tcase_create("sysinfo");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, machine_only);
    tcase_add_test(t, unified);
    tcase_add_test(t, version_one);
    tcase_add_test(t, no_limits);
    tcase_add_test(t, own_figures);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
