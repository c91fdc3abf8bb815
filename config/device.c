/* device.c - reads --device; see device.h.  Owns nothing.  Refuses: see device.h.  Thread: any. */
#include "config/device.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const struct {
    const char *name;
    bool counted; /* has devices to choose among */
} names[] = {{"auto", false}, {"cpu", false}, {"ref", false}, {"cuda", true}, {"cuda-emu", true}};
enum { N_NAMES = sizeof names / sizeof *names, MAX_ORDINAL = 1023 };

static int read_ordinals(const char *s, const char *text, device_choice *d, err *e)
{
    for (;; s++) {
        char *end;
        long v = isdigit((unsigned char)*s) ? strtol(s, &end, 10) : -1;
        if (v < 0 || v > MAX_ORDINAL || (*end && *end != ','))
            return err_set(e, ERR_INVALID,
                           "--device '%.60s': after the colon come device numbers from 0 to %d, "
                           "separated by commas",
                           text, MAX_ORDINAL);
        for (int i = 0; i < d->n; i++)
            if (d->ordinal[i] == v)
                return err_set(e, ERR_INVALID, "--device '%.60s' names device %ld twice", text, v);
        if (d->n == DEVICE_MAX)
            return err_set(e, ERR_LIMIT, "--device '%.60s' names more than %d devices", text,
                           DEVICE_MAX);
        d->ordinal[d->n++] = (int)v;
        s = end;
        if (!*s) return 0;
    }
}

int device_parse(const char *text, device_choice *d, err *e)
{
    if (!text) text = names[0].name;
    size_t n = strcspn(text, ":");
    *d = (device_choice){0};
    for (int i = 0; i < N_NAMES; i++) {
        if (strlen(names[i].name) != n || strncasecmp(names[i].name, text, n) != 0) continue;
        d->name = names[i].name;
        if (!text[n]) return 0;
        if (!names[i].counted)
            return err_set(e, ERR_INVALID, "--device '%.60s': %s has no devices to choose among",
                           text, d->name);
        return read_ordinals(text + n + 1, text, d, e);
    }
    return err_set(e, ERR_INVALID, "--device takes auto, cpu, ref or cuda[:i[,j...]], got '%.60s'",
                   text);
}

int device_of_rank(const device_choice *d, int r)
{
    return d->n == 0 ? r : d->n == 1 ? d->ordinal[0] : d->ordinal[r];
}

int device_check_ranks(const device_choice *d, int ranks, err *e)
{
    if (d->n <= 1 || d->n == ranks) return 0;
    return err_set(e, ERR_INVALID,
                   "--device names %d devices and --tensor-parallel-size is %d: name one device "
                   "a rank, one for all, or none (then rank r takes device r)",
                   d->n, ranks);
}
