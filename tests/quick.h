/* quick.h - QUERN_TEST_QUICK=1, which the sanitizers' runs set: a slow matrix shrinks to every n-th
 * of its cases, spread over all its kinds; the plain run keeps every one.  Tests only. */
#ifndef QUERN_TESTS_QUICK_H
#define QUERN_TESTS_QUICK_H

#include <stdbool.h>
#include <stdlib.h>

static inline bool quick(void)
{
    const char *v = getenv("QUERN_TEST_QUICK");
    return v && *v == '1';
}

/* Whether case i of a matrix is left out of a quick run that takes every n-th; n shares no factor
 * with the sizes of the matrix, so that each row and column is still met. */
static inline bool quick_skips(int i, int n)
{
    return quick() && i % n != 0;
}

#endif
