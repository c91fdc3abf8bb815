/* device.h - what --device says: which back end, and which of its devices.
 * Pure functions over text, any thread. */
#ifndef QUERN_CONFIG_DEVICE_H
#define QUERN_CONFIG_DEVICE_H

#include "base/err.h"

enum { DEVICE_MAX = 64 };

typedef struct {
    const char *name; /* "auto", "cpu", "ref", "cuda" or "cuda-emu"; static */
    int n;            /* ordinals given; 0 = none */
    int ordinal[DEVICE_MAX];
} device_choice;

/* auto | cpu | ref | cuda[:i[,j...]] | cuda-emu[:i[,j...]], in any case; NULL is auto.  Refuses
 * ordinals where there is nothing to count, the same one twice, and what is no number.  Whether
 * the build has that back end and the machine those devices is known when one is opened. */
int device_parse(const char *text, device_choice *d, err *e);
/* The ordinal of rank r: the r-th given; r where none is given; the one for all where one is. */
int device_of_rank(const device_choice *d, int r);
/* Whether `ranks` ranks can have the devices given: as many, one for all, or none named. */
int device_check_ranks(const device_choice *d, int ranks, err *e);

#endif
