/* comm_launch.c - finds out whether a launcher started us, and loads the plug-in that speaks with
 * it.  Owns nothing: a loaded plug-in stays.  Refuses: a plug-in that is missing, of another build,
 * or whose own libraries are missing.  Thread: main, before others start. */
#include "kernels/comm_procs.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool comm_procs_launched(void)
{
    /* Open MPI; MPICH, Intel MPI and Slurm; PMIx launchers without a size in the environment. */
    static const char *const sizes[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const char *text = getenv(sizes[i]);
        if (text) return strtol(text, NULL, 10) > 1;
    }
    return getenv("PMIX_RANK") != NULL;
}

/* Directory of the program with its slash; "" if that cannot be told. */
static void program_dir(char *out, size_t cap)
{
    ssize_t n = readlink("/proc/self/exe", out, cap - 1);
    out[n > 0 ? n : 0] = 0;
    char *slash = strrchr(out, '/');
    if (slash) slash[1] = 0;
}

/* The file that is there, else NULL; *tried collects where it is not. */
static const char *find_plugin(char *path, size_t cap, char *tried, size_t tried_cap)
{
    char dir[PATH_MAX];
    const char *own = getenv("QUERN_PLUGIN_DIR");
    program_dir(dir, sizeof dir);
    const char *const places[][3] = {
        {own, "/", COMM_MPI_FILE}, {dir, "", COMM_MPI_FILE}, {dir, "../lib/quern/", COMM_MPI_FILE}};
    size_t at = 0;
    for (size_t i = own && *own ? 0 : 1; i < sizeof places / sizeof *places; i++) {
        int n = snprintf(path, cap, "%s%s%s", places[i][0], places[i][1], places[i][2]);
        if (n > 0 && (size_t)n < cap && access(path, R_OK) == 0) return path;
        if (at < tried_cap)
            at += (size_t)snprintf(tried + at, tried_cap - at, "%s%.90s", at ? ", " : "", path);
    }
    return NULL;
}

comm *comm_procs_open(double timeout_s, err *e)
{
    static const char advice[] =
        "Open MPI is needed (Debian: apt-get install libopenmpi3, to build "
        "libopenmpi-dev)";
    char path[PATH_MAX], tried[300] = "";
    if (!find_plugin(path, sizeof path, tried, sizeof tried)) {
        err_set(e, ERR_NOTFOUND, "started by mpirun, but there is no %s at %s; %s", COMM_MPI_FILE,
                tried, advice);
        return NULL;
    }
    /* Open MPI opens further libraries that look for its symbols among the global ones. */
    void *lib = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    if (!lib) {
        err_set(e, ERR_NOTFOUND, "cannot load %.100s: %.160s; %s", path, dlerror(), advice);
        return NULL;
    }
    const comm_port *port = dlsym(lib, COMM_MPI_SYMBOL);
    if (!port || port->size != sizeof *port) {
        err_set(e, ERR_UNSUPPORTED, "%.200s belongs to another build of quern", path);
        return NULL;
    }
    return comm_procs_over(port, NULL, timeout_s, e);
}
